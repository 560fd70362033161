"""Learn MRI k-space trajectories under a real scanner's physics, check them, and export them to Pulseq."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trajdesign.acquisition import Acquisition as Acquisition
    from trajdesign.config.models import Config as Config
    from trajdesign.config.models import load_config as load_config
    from trajdesign.encoding.operator import Encoding as Encoding
    from trajdesign.encoding.psf import psf as psf
    from trajdesign.exporting.network import export_network as export_network
    from trajdesign.exporting.proof import export as export
    from trajdesign.learning.optimize import optimize as optimize
    from trajdesign.learning.run_folder import load as load
    from trajdesign.measuring.reconstruct import reconstruct as reconstruct
    from trajdesign.measuring.virtual_scan import scan as scan
    from trajdesign.physics.limits import check as check
    from trajdesign.physics.projection import project as project
    from trajdesign.reporting.evaluate import evaluate as evaluate
    from trajdesign.reporting.report import draw as draw
    from trajdesign.scanner import Scanner as Scanner
    from trajdesign.trajectories.fitting import fit as fit
    from trajdesign.trajectories.retiming import retime as retime
    from trajdesign.trajectory import Trajectory as Trajectory

# torch and finufft each bring an OpenMP runtime. By default the idle threads of one spin on the cores that the other
# needs, which makes a training step up to ten times slower; read when the runtimes load, so it is set before them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The public names and their modules, imported when first used: torch takes seconds, `trajdesign --help` must not.
_HOMES = {
    "Acquisition": "acquisition",
    "Config": "config.models",
    "Encoding": "encoding.operator",
    "Scanner": "scanner",
    "Trajectory": "trajectory",
    "check": "physics.limits",
    "draw": "reporting.report",
    "evaluate": "reporting.evaluate",
    "export": "exporting.proof",
    "export_network": "exporting.network",
    "fit": "trajectories.fitting",
    "load": "learning.run_folder",
    "load_config": "config.models",
    "optimize": "learning.optimize",
    "project": "physics.projection",
    "psf": "encoding.psf",
    "reconstruct": "measuring.reconstruct",
    "retime": "trajectories.retiming",
    "scan": "measuring.virtual_scan",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("trajdesign")
    if name not in _HOMES:
        raise AttributeError(f"module 'trajdesign' has no attribute {name!r}")
    return getattr(importlib.import_module(f"trajdesign.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})
