"""Parallel readout lines."""

import math
from typing import Literal

import numpy as np
from scipy.optimize import brentq

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import Bounds, feasible, line, require_2d, require_time
from trajdesign.trajectories.traversal import Fastest, curve_through
from trajdesign.trajectory import Trajectory, n_points


def cartesian(
    acquisition: Acquisition,
    scanner: Scanner,
    *,
    spacing: Literal["uniform", "variable", "random"] = "uniform",
    power: float = 0.5,
    seed: int = 0,
    wave: float = 0.0,
    focus: float = 1.0,
) -> Trajectory:
    """Return readout lines along x, one for each shot, in rising k_y, straight or as waves.

    A wave moves along x at the constant speed of the straight line and along y as a sine, of as many periods as 98
    percent of the limits allow, which crosses its row where k_x = 0. Straight lines hold one at k_y = 0. It is 2D.

    Parameters
    ----------
    spacing
        ``"uniform"``: lines evenly from -k_max; every line of the matrix if there are as many shots.
        ``"variable"``: the density of lines falls as ``|k_y| ** -power``, but never exceeds one line in
        1/FOV: around the centre lies a fully sampled band.
        ``"random"``: lines of the matrix, a quarter of them side by side at the centre, and the others drawn
        without repetition with the probability ``|k_y| ** -power``.
    power
        How fast the density of variable and random lines falls, 0 to 4; 0 is uniform.
    seed
        Seed of the random lines.
    wave
        Amplitude of the waves along y, in parts of k_max, 0 to 1. The lines are spread over what it leaves.
    focus
        Above 1, up to 2, waves crowd at the centre: with s from -1 to 1, k_x runs as ``s * |s| ** (focus - 1)``, the
        amplitude as ``|s| ** (focus - 1)``, and the sine in s. They are played as fast as the limits allow, and have as
        many periods as the readout has time for.
    """
    require_2d("cartesian", acquisition)
    n_shots, matrix = acquisition.n_shots, acquisition.matrix[1]
    for option, value, most in (
        ("power", power, 4),
        ("seed", seed, math.inf),
        ("wave", wave, 1),
    ):
        if not 0 <= value <= most:
            raise ConfigError(f"cartesian: {option} is {value:g}; it lies between 0 and {most:g}.")
    if not 1 <= focus <= 2:
        raise ConfigError(f"cartesian: focus is {focus:g}; it lies between 1 and 2.")
    along = line(acquisition, scanner)
    middle = (1 - wave) * _rows(spacing, n_shots, matrix, power, seed) / acquisition.fov[1]
    amplitude = wave * acquisition.k_max[1]
    if wave and focus > 1:
        path = _focused_wave(amplitude, focus, acquisition, scanner)
    else:
        periods = _most_periods(amplitude, along, acquisition, scanner)
        path = along * acquisition.k_max[0] + 1j * amplitude * np.sin(math.pi * periods * along)
    ky = middle[:, None] + path.imag
    kx = np.broadcast_to(path.real, ky.shape)
    return feasible(np.stack([kx, ky], axis=-1), acquisition, scanner, "cartesian", "a line")


def _focused_wave(amplitude: float, focus: float, acquisition: Acquisition, scanner: Scanner) -> np.ndarray:
    """Return kx + i ky (point,), 1/m, of a wave about the row k_y = 0 that crowds at the centre."""
    bounds = Bounds.of(acquisition, scanner)
    steps = n_points(acquisition, scanner) - 1
    available = steps * scanner.gradient_raster

    def shot(periods: float) -> Fastest:
        s = np.linspace(-1, 1, 4001 + 400 * math.ceil(periods))
        sine = np.sin(2 * math.pi * periods * s)
        path = np.abs(s)[:, None] ** (focus - 1) * np.stack([acquisition.k_max[0] * s, amplitude * sine], axis=-1)
        return Fastest(curve_through(path), bounds, from_rest=False)

    require_time("cartesian: a line", shot(0).duration, available, "waves")
    # each period crosses the row twice, so that more of them would be longer than the time allows
    low, high = 0.0, 1 + available * bounds.speed / amplitude
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if shot(middle).duration <= available else (low, middle)
    return shot(low).play(np.linspace(0, 1, steps + 1)) @ np.array([1, 1j])


def _most_periods(amplitude: float, along: np.ndarray, acquisition: Acquisition, scanner: Scanner) -> float:
    """Return how many periods of a wave (1/m) the limits allow along a line, 0 if that is already too fast."""
    if amplitude == 0:
        return 0.0
    bounds = Bounds.of(acquisition, scanner)
    rate = float(along[1] - along[0]) / scanner.gradient_raster
    speed = rate * acquisition.k_max[0]
    left = math.sqrt(max(bounds.speed**2 - speed**2, 0)) if bounds.limit_norm == "vector" else bounds.speed
    angular = min(math.sqrt(bounds.acceleration / amplitude), left / amplitude)
    return angular / (math.pi * rate)


def _rows(spacing: str, n_shots: int, matrix: int, power: float, seed: int) -> np.ndarray:
    """Return k_y of each line (shot,), rising, in 1/FOV."""
    number = np.arange(n_shots) - n_shots // 2
    if spacing == "uniform" or n_shots >= matrix or (spacing == "variable" and power == 0):
        return number * matrix / n_shots
    if spacing == "variable":
        return np.sign(number) * _falling(np.abs(number), n_shots / 2, matrix / 2, power)
    n_central = max(1, n_shots // 4)
    central = np.arange(n_central) - n_central // 2
    others = np.setdiff1d(np.arange(matrix) - matrix // 2, central)
    density = np.abs(others) ** -float(power)
    drawn = np.random.default_rng(seed).choice(others, n_shots - n_central, replace=False, p=density / density.sum())
    return np.sort(np.concatenate([central, drawn])).astype(float)


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
