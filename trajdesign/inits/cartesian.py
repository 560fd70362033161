"""Parallel readout lines."""

from typing import Literal

import numpy as np
from scipy.optimize import brentq

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.inits._feasible import feasible, line, require_2d
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory


def cartesian(
    acquisition: Acquisition,
    scanner: Scanner,
    *,
    spacing: Literal["uniform", "variable"] = "uniform",
    power: float = 0.5,
) -> Trajectory:
    """Return readout lines along x, one for each shot, in rising k_y; one of them is k_y = 0.

    Parameters
    ----------
    acquisition
        2D.
    scanner
        Limits and rasters.
    spacing
        ``"uniform"``: lines evenly from -k_max; every line of the matrix if there are as many shots.
        ``"variable"``: the density of lines falls as ``|k_y| ** -power``, but never exceeds one line in
        1/FOV: around the centre lies a fully sampled band.
    power
        How fast the variable density falls, 0 to 4; 0 is uniform.

    Returns
    -------
    Trajectory
        Control points (shot, point, dim), 1/m.

    Raises
    ------
    ConfigError
        If the acquisition is not 2D or `power` is out of range.
    LimitError
        If a line needs more gradient than the scanner has or the receiver can follow.
    """
    require_2d("cartesian", acquisition)
    if not 0 <= power <= 4:
        raise ConfigError(f"cartesian: power is {power:g}; it lies between 0 and 4.")
    n_shots, matrix = acquisition.n_shots, acquisition.matrix[1]
    number = np.arange(n_shots) - n_shots // 2
    if spacing == "uniform" or power == 0 or n_shots >= matrix:
        rows = number * matrix / n_shots
    else:
        rows = np.sign(number) * _falling(np.abs(number), n_shots / 2, matrix / 2, power)
    kx = line(acquisition, scanner) * acquisition.k_max[0]
    kx, ky = np.broadcast_arrays(kx[None, :], rows[:, None] / acquisition.fov[1])
    return feasible(np.stack([kx, ky], axis=-1), acquisition, scanner, "cartesian", "a line")


def _falling(number: np.ndarray, n_half: float, edge: float, power: float) -> np.ndarray:
    """Return where the integral of the density ``min(1, (r / core) ** -power)`` from 0 reaches `number`.

    `core` is set so that the integral reaches `n_half` at `edge`. All lengths in 1/FOV.
    """

    def excess(core: float) -> float:
        tail = np.log(edge / core) if power == 1 else ((edge / core) ** (1 - power) - 1) / (1 - power)
        return float(core * (1 + tail) - n_half)

    core = float(brentq(excess, edge * 1e-12, edge))
    beyond = np.maximum(number / core - 1, 0)
    stretch = np.exp(beyond) if power == 1 else (1 + (1 - power) * beyond) ** (1 / (1 - power))
    return np.minimum(np.where(number <= core, number, core * stretch), edge)
