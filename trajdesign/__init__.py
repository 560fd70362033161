"""Learn MRI k-space trajectories under a real scanner's physics, check them, and export them to Pulseq."""

import importlib
from typing import Any

__version__ = "0.1.0"
