"""Settings of every test: the package comes before torch, whose threads it tells to sleep when idle."""

import trajdesign as trajdesign
