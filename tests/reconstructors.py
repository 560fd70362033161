"""Which reconstructors take what."""

from trajdesign.config import plugins

FOR_FILMS = ["low_rank_sparse"]
FOR_SLICES = [name for name in plugins.names("reconstructor") if name not in FOR_FILMS]
