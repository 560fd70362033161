"""Take sampled k from your own software, see which limits it breaks, repair it, and write it for a scanner.

Usage: ``python examples/check_your_trajectory.py [FOLDER]``. Replace `rosette` by your own array (shot, sample, dim)
in 1/m. The same from the command line, for an array in a ``.npz`` file: ``trajdesign check mine.npz --k-unit 1/m
--dwell 4e-6 --fov 0.22``.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import trajdesign as td
from trajdesign.physics import limits


def main(folder: Path) -> None:
    acquisition = td.Acquisition(fov=(0.22, 0.22), matrix=(96, 96), n_shots=4, n_samples=1000, dwell=4e-6)
    scanner = td.Scanner(max_gradient=40e-3, max_slew=150.0)
    wanted = torch.from_numpy(rosette(acquisition))

    # control points on the gradient raster whose k at the ADC samples is nearest to what was asked for
    trajectory = td.fit(wanted, acquisition, scanner, "rosette")
    print(f"fit: off by at most {distance(trajectory, wanted):.2g}/FOV")
    show(trajectory)

    playable = td.project(trajectory, limits.constraints(acquisition, scanner))
    print(f"moved onto the limits: off by at most {distance(playable, wanted):.2g}/FOV")
    show(playable)

    for file in ("rosette.seq", "rosette.csv", "rosette.npz"):
        facts = td.export(playable, folder / file, format=FORMATS[Path(file).suffix], overwrite=True)
        print(f"{facts['path']}: read back, off by at most {facts['max_k_error_fov']:.1e}/FOV")


FORMATS = {".seq": "pulseq", ".csv": "csv", ".npz": "npz"}


def rosette(acquisition: td.Acquisition) -> np.ndarray:
    """Eight petals a shot, through the centre of k-space: (shot, sample, dim), 1/m."""
    time = (np.arange(acquisition.n_samples) + 0.5) / acquisition.n_samples
    start = np.pi / 4 * np.arange(acquisition.n_shots)[:, None] / acquisition.n_shots
    radius = 0.98 * acquisition.k_max[0] * np.sin(8 * np.pi * time)
    angle = start + np.pi * time
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def distance(trajectory: td.Trajectory, wanted: torch.Tensor) -> float:
    """Largest distance of k at the ADC samples from what was asked for, in 1/FOV."""
    fov = torch.tensor(trajectory.acquisition.fov, dtype=torch.float64)
    return float(((trajectory.k_adc - wanted) * fov).norm(dim=-1).max())


def show(trajectory: td.Trajectory) -> None:
    """Print every limit."""
    for finding in td.check(trajectory):
        print(f"  {limits.describe(finding)}: {'kept' if finding.ok else 'BROKEN'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/check_your_trajectory"))
