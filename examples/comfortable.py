"""Learn a trajectory that patients hardly feel: nerve stimulation from over 100 to under 80 percent of the limit.

Usage: ``python examples/comfortable.py [FOLDER [KEY=VALUE ...]]``. It learns twice from the same fast
echo-planar readouts, without and with a limit on stimulation, on noisy data; two minutes on one free core.

The limit is set a few percent below the 0.8 that is to be kept, because a penalty may end just beyond its limit.
"""

import sys
from pathlib import Path

import numpy as np
from torch import Tensor

import trajdesign as td
from trajdesign.config.models import from_tables
from trajdesign.config.toml import merge, parse_options
from trajdesign.physics.nerves import FIRST_LEVEL, NORMAL_MODE, nerve_model, stimulation
from trajdesign.reporting.drawing import COLOURS, GREY, label, new_figure

COIL = "xrm"
SETTINGS = [
    "acquisition.matrix=[64, 64]",
    "acquisition.n_shots=4",
    "acquisition.n_samples=1740",
    "init.kind=epi",
    "parameterization.kind=bspline",
    "reconstructor.channels=8",
    "reconstructor.levels=2",
    "data.n_train=24",
    "data.n_val=4",
    "data.n_test=8",
    "data.n_coils=1",
    "training.epochs=25",
    "training.noise=0.02",
    "training.validations=2",
    "training.trajectory_rate=0.005",
]
COMFORTABLE = [
    "limits.constraints=['extent', 'gradient', 'receiver', 'slew', 'stimulation']",
    f"limits.options.stimulation.model={COIL}",
    "limits.options.stimulation.limit=0.77",
    "limits.options.stimulation.weight=4.0",
]


def main(folder: Path, overrides: list[str] | None = None) -> None:
    free = parse_options([*SETTINGS, *(overrides or [])])
    runs = {"free": free, "comfortable": merge(free, parse_options(COMFORTABLE))}
    model, curves = nerve_model(COIL), {}
    for name, tables in runs.items():
        results = td.optimize(
            from_tables({"name": name, **tables}), folder / name, baseline=False, overwrite=True, quiet=True
        )
        ends = {"start": td.load(folder / "free" / "initial.npz"), name: td.load(folder / name)}
        curves |= {key: stimulation(model, k.gradient, k.scanner.gradient_raster) for key, k in ends.items()}
        before, after = (float(curves[key].max()) for key in ends)
        found = results.last
        print(f"{name}: stimulation {before:.1%} -> {after:.1%}, {found.psnr:.2f} dB, SSIM {found.ssim:.4f}")
    draw(curves, ends[name].scanner.gradient_raster, folder / "comfortable.png")


def draw(curves: dict[str, Tensor], raster: float, path: Path) -> None:
    """Draw the response of the shot that stimulates most of each trajectory, over time, against the limits."""
    figure = new_figure(7.0, 3.5)
    axes = figure.subplots()
    for (name, response), colour in zip(curves.items(), COLOURS, strict=False):
        worst = response[response.amax(dim=1).argmax()]
        axes.plot(1e3 * raster * np.arange(len(worst)), 100 * worst, label=name, color=colour)
    for limit, mode in ((NORMAL_MODE, "normal mode"), (FIRST_LEVEL, "first-level controlled mode")):
        axes.axhline(100 * limit, color=GREY, linestyle="--", linewidth=0.8)
        axes.annotate(mode, (1.0, 100 * limit), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    label(axes, "time (ms)", "stimulation (% of the limit)", f"{COIL}: nerve impulse response of the worst shot")
    figure.legend(loc="outside lower center", ncols=len(curves), frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/comfortable"), sys.argv[2:])
