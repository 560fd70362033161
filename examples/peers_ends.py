"""What runs ask of the gradients inside a shot and at its ends, where most learned trajectories are not looked at.

Usage: ``python examples/peers_ends.py RUN...``, with run folders (those of ``trajdesign study examples/peers.toml --out
runs/peers`` are ``runs/peers/cells/*``) or ``.npz`` files. For each, in the scanner's norm:

inside     the largest gradient and slew rate of the readout, which is what learning limits;
from rest  the largest slew rate if the readout starts and ends at rest as it is, with no gradient before and after:
           what the trajectory asks for if nothing joins it to the centre of k-space and back;
whole      the largest slew rate of the shot with the prephaser and the rewinder that an export adds, and how much
           time these take; or why there are none.
"""

import sys
from collections.abc import Sequence

import numpy as np

import trajdesign as td
from trajdesign.errors import LimitError
from trajdesign.pulseq.writer.bridges import design


def main(paths: Sequence[str]) -> None:
    width = max(map(len, paths))
    print(f"{'':{width}}  inside (mT/m, T/m/s)  from rest (T/m/s)  whole (T/m/s)  ends (ms)")
    for path in paths:
        trajectory = td.load(path)
        readout = trajectory.gradient.numpy()
        at_rest = np.pad(readout, ((0, 0), (1, 1), (0, 0)))
        inside = f"{1e3 * largest(readout, trajectory.scanner):.2f}, {slew(readout, trajectory.scanner):.1f}"
        print(f"{path:{width}}  {inside:>20}  {slew(at_rest, trajectory.scanner):17.1f}  {joined(trajectory)}")


def joined(trajectory: td.Trajectory) -> str:
    """Say what the whole shot takes, or which limit keeps it from being played."""
    try:
        shots = design(trajectory)
    except LimitError as error:
        return f"none: {error}"
    ends = (shots.n_prephaser + shots.n_rewinder) * shots.raster
    return f"{slew(shots.gradient, trajectory.scanner):13.1f}  {1e3 * ends:9.2f}"


def slew(gradient: np.ndarray, scanner: td.Scanner) -> float:
    """Largest slew rate of gradients (shot, sample, dim), T/m/s."""
    return largest(np.diff(gradient, axis=1), scanner) / scanner.gradient_raster


def largest(vectors: np.ndarray, scanner: td.Scanner) -> float:
    """Largest of vectors (shot, sample, dim) in the scanner's norm."""
    return float(np.linalg.norm(vectors, ord=2 if scanner.limit_norm == "vector" else np.inf, axis=-1).max())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/peers_ends.py RUN...")
    main(sys.argv[1:])
