"""Interleaved echo-planar imaging."""

import math

import numpy as np

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import Bounds, feasible, require_2d
from trajdesign.trajectories.zigzag import Zigzag, fill
from trajdesign.trajectory import Trajectory


def epi(acquisition: Acquisition, scanner: Scanner, *, lines: int | None = None, density: float = 1.0) -> Trajectory:
    """Return interleaved echo-planar shots: lines to and fro along x, advancing along y.

    The shots' lines alternate, so that all of them together are spread evenly from -k_max and one is k_y = 0; see
    Mansfield, J. Phys. C 1977, doi:10.1088/0022-3719/10/3/004, for a single shot. The gradient along x is a trapezoid
    at the limits of gradient, receiver and slew rate, and the blips along y are played while it turns round. It is 2D.

    Parameters
    ----------
    lines
        Lines of one shot. By default as many as the readout has time for, and not more than fill the matrix;
        fewer are played slower, to fill the readout.
    density
        1 to 8: lines lie at ``k_y = +-k_max * u**density`` with u evenly spread; 1 is uniform, more is denser at
        the centre.
    """
    require_2d("epi", acquisition)
    if not 1 <= density <= 8:
        raise ConfigError(f"epi: density is {density:g}; it lies between 1 (uniform) and 8.")
    bounds = Bounds.of(acquisition, scanner)
    n_shots, (width, height) = acquisition.n_shots, acquisition.k_max

    def plan(n_lines: int) -> Zigzag:
        number = np.arange(n_shots * n_lines) - n_shots * n_lines // 2
        part = 2 * number / (n_shots * n_lines)
        rows = height * np.sign(part) * np.abs(part) ** density
        return Zigzag(width, rows.reshape(n_lines, n_shots).T, bounds)

    most = math.ceil(acquisition.matrix[1] / n_shots)
    return feasible(fill("epi", plan, lines, most, acquisition, scanner), acquisition, scanner, "epi", "a shot")
