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

# From one radius of Poisson lines to the next that is tried.
_SHRINK = 0.98


def cartesian(
    acquisition: Acquisition,
    scanner: Scanner,
    *,
    spacing: Literal["uniform", "variable", "equispaced", "random", "poisson"] = "uniform",
    power: float = 0.5,
    centre: float = 0.25,
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
        The others are lines of the matrix, some of them side by side at the centre. Around these lie
        ``"equispaced"``: every so many of the other lines, whatever the power.
        ``"random"``: lines drawn without repetition with the probability ``|k_y| ** -power``.
        ``"poisson"``: lines drawn at random, but none closer to an earlier one than a radius that grows as
        ``|k_y| ** power``: the largest one with which as many fit as there are shots.
    power
        How fast the density of variable, random and Poisson lines falls, 0 to 4; 0 is uniform.
    centre
        Which part of equispaced, random and Poisson lines lies side by side at the centre, 0 to 1; one does at least.
    seed
        Seed of the random and Poisson lines.
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
        ("centre", centre, 1),
        ("seed", seed, math.inf),
        ("wave", wave, 1),
    ):
        if not 0 <= value <= most:
            raise ConfigError(f"cartesian: {option} is {value:g}; it lies between 0 and {most:g}.")
    if not 1 <= focus <= 2:
        raise ConfigError(f"cartesian: focus is {focus:g}; it lies between 1 and 2.")
    along = line(acquisition, scanner)
    middle = (1 - wave) * _rows(spacing, n_shots, matrix, power, centre, seed) / acquisition.fov[1]
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


def _rows(spacing: str, n_shots: int, matrix: int, power: float, centre: float, seed: int) -> np.ndarray:
    """Return k_y of each line (shot,), rising, in 1/FOV."""
    number = np.arange(n_shots) - n_shots // 2
    if spacing == "uniform" or n_shots >= matrix or (spacing == "variable" and power == 0):
        return number * matrix / n_shots
    if spacing == "variable":
        return np.sign(number) * _falling(np.abs(number), n_shots / 2, matrix / 2, power)
    n_central = max(1, int(centre * n_shots))
    central = np.arange(n_central) - n_central // 2
    others = np.setdiff1d(np.arange(matrix) - matrix // 2, central)
    n_others = n_shots - n_central
    if spacing == "equispaced":
        drawn = others[((np.arange(n_others) + 0.5) * len(others) / max(n_others, 1)).astype(int)]
    elif spacing == "random":
        density = np.abs(others) ** -float(power)
        drawn = np.random.default_rng(seed).choice(others, n_others, replace=False, p=density / density.sum())
    else:
        drawn = _apart(np.random.default_rng(seed).permutation(others), central, n_others, power)
    return np.sort(np.concatenate([central, drawn])).astype(float)


def _apart(order: np.ndarray, central: np.ndarray, n: int, power: float) -> np.ndarray:
    """Return the first `n` rows in a given order that keep their radius, the largest with which so many do."""
    edge = np.abs(order).max()
    scale = float(edge)
    while True:
        kept = central
        for row in order:
            if np.abs(kept - row).min() >= scale * (abs(row) / edge) ** power:
                kept = np.append(kept, row)
        if len(kept) >= n + len(central):
            return kept[len(central) :][:n]
        scale *= _SHRINK


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
