"""Learn MRI k-space trajectories under a real scanner's physics, check them, and export them to Pulseq."""

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trajdesign.acquisition import Acquisition as Acquisition
    from trajdesign.config.models import Config as Config
    from trajdesign.config.models import load_config as load_config
    from trajdesign.encoding.operator import Encoding as Encoding
    from trajdesign.encoding.psf import psf as psf
    from trajdesign.exporting.network import export_network as export_network
    from trajdesign.exporting.proof import export as export
    from trajdesign.exporting.virtual_scan import scan as scan
    from trajdesign.learning.optimize import optimize as optimize
    from trajdesign.learning.run_folder import load as load
    from trajdesign.physics.limits import check as check
    from trajdesign.physics.projection import project as project
    from trajdesign.reporting.report import draw as draw
    from trajdesign.scanner import Scanner as Scanner
    from trajdesign.trajectories.fitting import fit as fit
    from trajdesign.trajectory import Trajectory as Trajectory

__version__ = "0.1.0"

# torch and finufft each bring an OpenMP runtime. By default the idle threads of one spin on the cores that the other
# needs, which makes a training step up to ten times slower; read when the runtimes load, so it is set before them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The public names and their modules, imported when first used: torch takes seconds, `trajdesign --help` must not.
_HOMES = {
    "Acquisition": "acquisition",
    "Config": "config",
    "Encoding": "encoding",
    "Scanner": "scanner",
    "Trajectory": "trajectory",
    "check": "limits",
    "draw": "report",
    "export": "export",
    "export_network": "deploy",
    "fit": "trajectory",
    "load": "run",
    "load_config": "config",
    "optimize": "optimize",
    "project": "projection",
    "psf": "psf",
    "scan": "scan",
}


class _Package(ModuleType):
    """Keeps `trajdesign.optimize`, `export`, `psf` and `scan` the functions, though modules bear the same names."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'trajdesign' has no attribute {name!r}")
        return getattr(importlib.import_module(f"trajdesign.{_HOMES[name]}"), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})


sys.modules[__name__].__class__ = _Package
