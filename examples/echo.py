"""What it costs that every shot passes the centre of k-space at the echo time, and that the written file does.

Usage: ``python examples/echo.py [FOLDER [KEY=VALUE ...]]``. From each start a trajectory is learned twice on the
embedded data, without and with the constraint ``echo``, the in-out spiral also with its ``moment``, exported, and k at
the echo time of the start is read from the file, over all shots; seven runs, a minute or two each on one free core.
"""

import re
import sys
from pathlib import Path

import numpy as np

import trajdesign as td
from trajdesign.config.models import from_tables
from trajdesign.config.toml import merge, parse_options
from trajdesign.encoding import echo

SETTINGS = [
    "acquisition.matrix=[64, 64]",
    "acquisition.n_shots=8",
    "acquisition.n_samples=500",
    "parameterization.kind=bspline",
    "reconstructor.channels=8",
    "reconstructor.levels=2",
    "data.n_train=48",
    "data.n_val=4",
    "data.n_test=16",
    "data.n_coils=1",
    "training.epochs=20",
    "training.batch_size=4",
    "training.settle=0.25",
    "training.noise=0.005",
    "training.validations=2",
]
STARTS = {
    "radial": {"kind": "radial"},
    "spiral": {"kind": "spiral"},
    "spiral, in-out": {"kind": "spiral", "in_out": True},
}
ECHO = ["limits.constraints=['extent', 'gradient', 'receiver', 'slew', 'echo']", "limits.options.echo.time=auto"]
KEPT = {"no": [], "yes": ECHO, "with `moment`": [*ECHO, "limits.options.echo.moment=true"]}
#: Of these starts only this one can keep the first moment: it winds about the centre before the echo.
MOMENT = "spiral, in-out"


def main(folder: Path, overrides: list[str] | None = None) -> None:
    print("| start | `echo` | PSNR, dB | SSIM | k at TE in the file, 1/FOV | spread of the echo times, us |")
    print("|---|---|---|---|---|---|")
    for name, start in STARTS.items():
        free = merge(parse_options([*SETTINGS, *(overrides or [])]), {"init": start})
        for kept, options in KEPT.items():
            if "moment" in kept and name != MOMENT:
                continue
            tables = merge(free, parse_options(options))
            run = folder / re.sub(r"\W+", "-", f"{name}-{kept}").strip("-")
            found = td.optimize(from_tables({"name": name, **tables}), run, baseline=False, overwrite=True, quiet=True)
            trajectory, initial = td.load(run), td.load(run / "initial.npz")
            td.export(trajectory, run / "trajectory.seq", overwrite=True)
            times = echo.EchoTimes.of(trajectory)
            distance = at_echo(run / "trajectory_k.npz", initial)
            scores = f"{found.last.psnr:.2f} | {found.last.ssim:.4f}"
            print(f"| {name} | {kept} | {scores} | {distance:.1e} | {times.spread * 1e6:.3g} |", flush=True)


def at_echo(path: Path, initial: td.Trajectory) -> float:
    """Return how far from the centre, 1/FOV, the farthest shot of a file is when those of the start pass it."""
    passage = echo.passages(initial)[0].time - float(initial.adc_times[0])
    sample = passage / initial.acquisition.dwell
    if abs(sample - round(sample)) > 1e-6:
        raise SystemExit("the start passes the centre between two samples; take another number of samples.")
    k = np.load(path)["k_adc"][:, round(sample)]
    return float(np.linalg.norm(k * np.array(initial.acquisition.fov), axis=-1).max())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/echo"), sys.argv[2:])
