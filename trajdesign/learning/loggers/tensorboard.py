"""TensorBoard."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trajdesign.errors import missing
from trajdesign.files.atomic import require_own
from trajdesign.interfaces import Progress


@contextmanager
def tensorboard(run: Path) -> Iterator[Callable[[Progress], None]]:
    """Yield what writes the loss and the validation PSNR of a run after every step into its folder ``tensorboard``.

    Raises
    ------
    ResourceError
        If the package tensorboard is not installed.
    OutputError
        If the folder, or a stage's in it, is a link to elsewhere.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise missing("--log tensorboard", "tensorboard", "tensorboard") from None
    writers: dict[str, SummaryWriter] = {}
    psnr: dict[str, float] = {}

    def watch(at: Progress) -> None:
        if at.stage not in writers:  # one a stage, drawn into one diagram
            folder = require_own(require_own(run / "tensorboard") / at.stage)
            if at.step == 1:  # nothing of a run that was here before
                shutil.rmtree(folder, ignore_errors=True)
            writers[at.stage] = SummaryWriter(folder, purge_step=at.step)
        writers[at.stage].add_scalar("loss", at.loss, at.step)
        if at.psnr == at.psnr and at.psnr != psnr.get(at.stage):
            psnr[at.stage] = at.psnr
            writers[at.stage].add_scalar("validation/PSNR", at.psnr, at.step)

    try:
        yield watch
    finally:
        for writer in writers.values():
            writer.close()
