"""A given path as fast as the limits allow, exact at its ends."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.ndimage import maximum_filter1d
from scipy.spatial import cKDTree
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.physics.nerves import NORMAL_MODE, NerveModel, nerve_model, stimulation
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import Bounds, feasible, inside
from trajdesign.trajectories.phase_plane import Path, Traversal, fastest, spline_through
from trajdesign.trajectory import Trajectory, n_points, not_finite
from trajdesign.units import PROJECTION_MARGIN, RASTER_ROUNDING, plausible

# From rest, the first step of the control points may be as long as the limit on the acceleration, which the fastest
# traversal reaches this part of a raster after its first raster: (1 + _HEAD)**2 / 2 = 1.
_HEAD = math.sqrt(2) - 1
# Rounds that bring the played curve onto the path, and that slow down where a limit is passed.
_ROUNDS_PATH, _ROUNDS_LIMITS = 4, 12
# What a round slows down beyond what is needed, so that few rounds do.
_FURTHER = 5e-4
_LEAST_TOLERANCE = 1e-4
# Slew rates act on nerves for about this time, s.
_NERVE_TIME = 5e-4


def retime(
    path: Tensor | ArrayLike,
    acquisition: Acquisition,
    scanner: Scanner,
    name: str = "trajectory",
    *,
    fill_readout: bool = False,
    start_at_rest: bool = True,
    end_at_rest: bool = True,
    nerves: str | None = None,
    nerve_limit: float = NORMAL_MODE,
    tolerance: float = 1e-2,
) -> Trajectory:
    """Return the trajectory that plays a given path as fast as gradient, slew rate, receiver and nerves allow.

    The path is the cubic spline through the given points. Its fastest traversal is found in the plane of place and
    squared speed (Lustig et al., doi:10.1109/TMI.2008.922699, for the vector norm; Pham and Pham,
    doi:10.1109/TRO.2018.2819195, for that of the axes). Control points that are samples of it keep the limits, because
    their differences are means of its speed and acceleration. They are then moved off the path, across it, so that
    what is played runs along it; where this passes a limit, the shot slows down a little, until none is passed.

    All shots take the time of the slowest: the others are played slower throughout.

    Parameters
    ----------
    path
        Points along a smooth curve (shot, point, dim), 1/m, at any distances.
    acquisition
        Field of view, matrix, shots and dwell time.
    scanner
        Limits, in its norm, and rasters.
    name
        Of the trajectory.
    fill_readout
        Play the readout of the acquisition; by default `n_samples` is as few as the slowest shot needs.
    start_at_rest, end_at_rest
        Whether the gradient is zero there, and k exactly that of the path. Otherwise the path is passed at the largest
        speed that can be kept, and the first or last control point, half a raster outside what is played, is beside
        its end by as much as the turn there asks for (0.03/FOV at most).
    nerves
        A gradient coil or ``.asc`` file as in `trajdesign.physics.nerves.nerve_model`: slow down where it predicts
        stimulation beyond the limit. By default nerves are not looked at.
    nerve_limit
        0.8 is the normal operating mode, 1 the first-level controlled one.
    tolerance
        Largest distance of what is played to the path, 1/FOV.

    Returns
    -------
    Trajectory
        `path_residual` measures how near to the path it is. What reaches k_max may be shrunk by a thousandth.

    Raises
    ------
    InputError
        If the shape of the path is another than that of the acquisition, its points are not finite or all in one
        place, or it turns back on itself.
    ConfigError
        If the nerve model is unknown, or the tolerance below 1e-4 or above 1.
    LimitError
        If it leaves k_max, or takes longer than the readout that it has to fill.
    """
    points = _array(path)
    if points.ndim != 3 or points.shape[0] != acquisition.n_shots or points.shape[2] != acquisition.n_dims:
        raise InputError(
            f"the path has the shape {points.shape}; this acquisition needs (shot, point, dim) = "
            f"({acquisition.n_shots}, any, {acquisition.n_dims})."
        )
    if wrong := not_finite(points):
        raise InputError(f"k {wrong}.")
    if not _LEAST_TOLERANCE <= tolerance <= 1:
        raise ConfigError(f"tolerance is {tolerance:g}; it lies between {_LEAST_TOLERANCE:g} and 1, in 1/FOV.")
    judge = _Judge(
        Bounds.of(acquisition, scanner, PROJECTION_MARGIN),
        scanner.gradient_raster,
        scanner.gamma,
        None if nerves is None else nerve_model(nerves),
        plausible("nerve_limit", nerve_limit),
        tolerance / max(acquisition.fov),
    )
    shots = []
    for i, shot in enumerate(points):
        try:
            shots.append(_Shot(shot, judge, start_at_rest, end_at_rest))
        except InputError as error:
            raise InputError(f"shot {i}: {error}") from None
    k = [shot.control_points(0) for shot in shots]
    quickest = _with_points(max(map(len, k)), acquisition, scanner)
    played = acquisition if fill_readout and acquisition.n_samples > quickest.n_samples else quickest
    while any(len(c) != n_points(played, scanner) for c in k):
        k = [shot.control_points(n_points(played, scanner)) for shot in shots]
        if (longest := max(map(len, k))) > n_points(played, scanner):
            played = _with_points(longest, played, scanner)
    if fill_readout and played.n_samples > acquisition.n_samples:
        raise LimitError(
            f"{name}: the path takes {played.n_samples} samples of {acquisition.dwell * 1e6:g} us at best, the "
            f"readout has {acquisition.n_samples}; give it n_samples = {played.n_samples}, or a shorter path."
        )
    return feasible(inside(np.stack(k), played), played, scanner, name, "the path", "give a path inside k_max")


def path_residual(trajectory: Trajectory, path: Tensor | ArrayLike) -> float:
    """Return the largest distance, in 1/FOV, of what is played to the cubic spline through the path's points."""
    points = _array(path) * np.array(trajectory.acquisition.fov)
    c = trajectory.points.detach().cpu().double().numpy() * np.array(trajectory.acquisition.fov)
    worst = 0.0
    for given, control in zip(points, c, strict=True):
        spline = spline_through(given)
        dense = np.linspace(0, spline.x[-1], 200 * len(given))
        played = _quarters(control).reshape(-1, control.shape[1])
        place = dense[cKDTree(spline(dense)).query(played)[1]]
        for width in dense[1] * 0.1 ** np.arange(5):
            near = np.clip(place[:, None] + width * np.linspace(-1, 1, 21), 0, spline.x[-1])
            distance = np.linalg.norm(spline(near) - played[:, None], axis=-1)
            place = np.take_along_axis(near, distance.argmin(axis=1)[:, None], axis=1)[:, 0]
        worst = max(worst, float(distance.min(axis=1).max()))
    return worst


def _array(path: Tensor | ArrayLike) -> np.ndarray:
    """Return points in double precision."""
    return torch.as_tensor(path).detach().cpu().double().numpy()


def _quarters(k: np.ndarray) -> np.ndarray:
    """Return what control points (point, dim) play at the four quarters of each raster time (quarter, time, dim)."""
    part = np.linspace(0, 1, 4, endpoint=False)[:, None, None]
    played: np.ndarray = (1 - part) ** 2 / 2 * k[:-2] + (0.5 + part - part**2) * k[1:-1] + part**2 / 2 * k[2:]
    return played


def _with_points(points: int, acquisition: Acquisition, scanner: Scanner) -> Acquisition:
    """Return the acquisition with as few samples as need so many control points, or more."""
    raster = scanner.gradient_raster
    last = (points - 3) * raster - acquisition.adc_delay(raster, scanner.rf_raster)
    found = replace(acquisition, n_samples=max(4, math.floor(last / acquisition.dwell)))
    while n_points(found, scanner) < points:
        found = replace(found, n_samples=found.n_samples + 1)
    return found


@dataclass(frozen=True)
class _Judge:
    """Says where control points are too fast."""

    bounds: Bounds
    raster: float
    gamma: float
    nerves: NerveModel | None
    nerve_limit: float
    tolerance: float
    """1/m."""

    def excess(self, k: np.ndarray) -> np.ndarray:
        """Return how much slower k (point, dim), 1/m, has to be at each point, in parts of its time; 1 is just so."""
        order = 2 if self.bounds.limit_norm == "vector" else np.inf
        speed = np.linalg.norm(np.diff(k, axis=0), ord=order, axis=-1) / (self.bounds.speed * self.raster)
        turn = np.linalg.norm(np.diff(k, 2, axis=0), ord=order, axis=-1)
        slew = np.sqrt(turn / (self.bounds.acceleration * self.raster**2))
        found = np.maximum(np.append(speed, 0), np.append(0, speed))
        found[1:-1] = np.maximum(found[1:-1], slew)
        if self.nerves is not None:
            gradient = torch.from_numpy(np.diff(k, axis=0) / (self.gamma * self.raster))
            response = stimulation(self.nerves, gradient, self.raster).numpy() / self.nerve_limit
            cells = max(1, round(_NERVE_TIME / self.raster))
            # what stimulates was played before
            before = maximum_filter1d(response, cells + 1, origin=-(cells // 2), mode="nearest")
            found[:-1] = np.maximum(found[:-1], np.sqrt(before))
        return found


class _Shot:
    """One shot: its path, and the fastest traversal whose control points keep the limits."""

    def __init__(self, points: np.ndarray, judge: _Judge, start_at_rest: bool, end_at_rest: bool) -> None:
        self._at_rest = {"start_at_rest": start_at_rest, "end_at_rest": end_at_rest}
        self._path = Path.through(points, judge.bounds, judge.raster, **self._at_rest)
        self._curve = self._path.by_arc
        self._tangent = self._curve.derivative()
        self._rest = (start_at_rest, end_at_rest)
        self._judge = judge
        self._pace = np.ones(len(self._path.arc))

    def control_points(self, least: int) -> np.ndarray:
        """Return as few control points (point, dim), 1/m, as keep the limits, but at least so many."""
        for _ in range(_ROUNDS_LIMITS):
            traversal = fastest(self._path, self._judge.bounds, self._pace, **self._at_rest)
            place = self._place(traversal, least)
            k = self._on_path(place)
            excess = self._excess(k, place)
            if excess.max() <= 1:
                return k
            slower = 1 / np.maximum(excess, 1) - _FURTHER * (excess > 1)
            self._pace *= np.interp(self._path.arc, place, -maximum_filter1d(-slower, 5, mode="nearest"))
        while excess.max() > 1:
            place = self._place(traversal, max(len(k) + 1, math.floor(len(k) * excess.max())))
            k = self._on_path(place)
            excess = self._excess(k, place)
        return k

    def _excess(self, k: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return how much slower to be at each control point (point,), in parts of its time; 1 is just so."""
        near = _quarters(place[:, None])[..., 0]
        off = np.linalg.norm(self._across(_quarters(k), near), axis=-1).max(axis=0) / self._judge.tolerance
        found = self._judge.excess(k)
        found[1:-1] = np.maximum(found[1:-1], np.cbrt(off))
        return found

    def _across(self, k: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return the ways (..., dim) to k from the nearest points of the path, which are near some places (...)."""
        for _ in range(2):
            tangent = self._tangent(place)
            along = ((k - self._curve(place)) * tangent).sum(axis=-1) / (tangent**2).sum(axis=-1)
            place = np.clip(place + along, 0, self._path.arc[-1])
        found: np.ndarray = k - self._curve(place)
        return found

    def _place(self, traversal: Traversal, least: int) -> np.ndarray:
        """Return the arc lengths (point,) of at least so many control points; two in one place are at rest."""
        start, end = self._rest
        lost = (1 - _HEAD) * (start + end)
        n = max(5, least, math.ceil(traversal.duration / self._judge.raster + 1 + lost - RASTER_ROUNDING))
        time = np.arange(n) - (1 - _HEAD) * start
        time[: 1 + start] = 0
        time[n - 1 - end :] = n - 1 - lost
        return traversal.play(time / (n - 1 - lost))

    def _on_path(self, place: np.ndarray) -> np.ndarray:
        """Return control points near places on the path, across it from them, whose spline runs along it.

        Those of an end at rest stay, and those of another end move with their neighbours.
        """
        k = self._curve(place)
        for _ in range(_ROUNDS_PATH):
            off = self._across((k[:-2] + 6 * k[1:-1] + k[2:]) / 8, place[1:-1])
            off = np.concatenate([off[:1], off, off[-1:]])
            for at_rest, ends in zip(self._rest, ([0, 1], [-1, -2]), strict=True):
                if at_rest:
                    off[ends] = 0
            k -= off
        return k
