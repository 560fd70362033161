"""Learn a small trajectory, check it, write it for a scanner and measure its point spread function, from Python.

Usage: ``python examples/learn_and_export.py [FOLDER]``. The settings are tiny, so that it ends within half a minute;
they show the way, not what learning can reach.
"""

import sys
from pathlib import Path

import trajdesign as td
from trajdesign.interfaces import Progress


def main(folder: Path) -> None:
    config = td.Config(
        name="tiny radial",
        acquisition=td.Acquisition(fov=(0.22, 0.22), matrix=(48, 48), n_shots=4, n_samples=400, dwell=4e-6),
        scanner=td.Scanner(max_gradient=50e-3, max_slew=200.0),
        init={"kind": "radial"},
        parameterization={"kind": "bspline", "n_control": 40},
        data={"kind": "phantom", "n_train": 16, "n_val": 2, "n_test": 4, "n_coils": 2},
        training={"epochs": 2, "validations": 2},
    )
    run = folder / "run"
    results = td.optimize(config, run, overwrite=True, report=show)
    for stage, result in results.stages.items():
        print(f"{stage}: {result.psnr:.2f} dB, SSIM {result.ssim:.4f}")

    trajectory = td.load(run)
    for finding in td.check(trajectory):
        kept = "kept" if finding.ok else "BROKEN"
        print(f"{finding.name}: {finding.value:.5g} of {finding.limit:.5g} {finding.unit}, {kept}")

    facts = td.export(trajectory, folder / "learned.seq", format="pulseq", overwrite=True)
    print(f"{facts['path']}: k is off by at most {facts['max_k_error_fov']:.1e}/FOV, TE {facts['te'] * 1e3:.2f} ms")

    report = td.psf(trajectory)
    print(f"point spread function: {report.fwhm_x * 1e3:.2f} mm wide along x, {report.fwhm_y * 1e3:.2f} mm along y")


def show(progress: Progress) -> None:
    if progress.step == progress.n_steps:
        print(f"{progress.stage}: {progress.n_steps} steps, last loss {progress.loss:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/learn_and_export"))
