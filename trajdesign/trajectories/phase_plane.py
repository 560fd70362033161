"""The fastest traversal of a curve, found in the plane of place and squared speed, in either norm of the limits."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicHermiteSpline, CubicSpline

from trajdesign.errors import InputError
from trajdesign.trajectories.design import Bounds

# Intervals of the grid along the curve in a raster time, and at first between two given points.
_PER_RASTER, _PER_POINT = 8, 24
# Points in one place: nearer than this part of the longest chord.
_SAME = 1e-9
# A spline by the length of its chords moves at a speed of 1; at less than this, it stops to turn back.
_STOPS = 1e-6


def spline_through(points: np.ndarray) -> CubicSpline:
    """Return the cubic spline through points (point, dim) by the length of their chords, which starts at 0.

    Of neighbours in one place, only the first is taken. It raises an `InputError` if all are in one place.
    """
    chords = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    moved = chords > _SAME * chords.max(initial=0.0)
    if not moved.any():
        raise InputError("all points of a path are in one place.")
    return CubicSpline(np.concatenate([[0], np.cumsum(chords[moved])]), points[np.concatenate([[True], moved])])


@dataclass(frozen=True)
class Path:
    """A curve on a grid along its arc, denser where it is slow."""

    arc: np.ndarray
    """Arc length from the start (point,), rising, 1/m."""
    k: np.ndarray
    """(point, dim), 1/m."""
    tangent: np.ndarray
    """Unit tangent (point, dim)."""
    bend: np.ndarray
    """Change of the tangent by arc length (point, dim), m."""

    @classmethod
    def through(cls, points: np.ndarray, bounds: Bounds, raster: float, **at_rest: bool) -> "Path":
        """Return the cubic spline through points (point, dim), 1/m, on a grid for a raster time, s.

        The ends are at rest as `fastest` has it.
        It raises an `InputError` if the points are all in one place, or the path turns back on itself.
        """
        spline = spline_through(points)
        w = np.linspace(0, 1, _PER_POINT + 1)[:-1] * np.diff(spline.x)[:, None] + spline.x[:-1, None]
        w = np.append(w, spline.x[-1])
        coarse = cls._on(spline, w)
        # the time that is spent here at least, had the speed not to be gained first
        slowness = np.maximum(1 / bounds.speed, np.sqrt(np.linalg.norm(coarse.bend, axis=-1) / bounds.acceleration))
        time = np.concatenate([[0], np.cumsum(np.diff(coarse.arc) * (slowness[1:] + slowness[:-1]) / 2)])
        w = _evenly(time, w, raster)
        # and then the time that is spent
        time = fastest(cls._on(spline, w), bounds, np.ones(len(w)), **at_rest).time
        return cls._on(spline, _evenly(time, w, raster))

    @classmethod
    def _on(cls, spline: CubicSpline, w: np.ndarray) -> "Path":
        """Return a spline on a grid of its parameter (point,)."""
        velocity, change = spline(w, 1), spline(w, 2)
        speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
        stop = int(speed.argmin())
        if speed[stop] < _STOPS:
            at = ", ".join(f"{x:.4g}" for x in spline(w[stop]))
            raise InputError(f"the path turns back on itself at k = ({at}) 1/m; give one that turns round smoothly.")
        tangent = velocity / speed
        bend = (change - (change * tangent).sum(axis=-1, keepdims=True) * tangent) / speed**2
        middle = np.linalg.norm(spline((w[1:] + w[:-1]) / 2, 1), axis=-1)
        steps = np.diff(w) * (speed[1:, 0] + 4 * middle + speed[:-1, 0]) / 6
        return cls(np.concatenate([[0], np.cumsum(steps)]), spline(w), tangent, bend)

    @property
    def by_arc(self) -> CubicHermiteSpline:
        """The curve as a function of arc length."""
        return CubicHermiteSpline(self.arc, self.k, self.tangent)


def _evenly(time: np.ndarray, w: np.ndarray, raster: float) -> np.ndarray:
    """Return the values of w (point,), known at some times, s, at even times that are dense for a raster time."""
    n = max(200, math.ceil(_PER_RASTER * time[-1] / raster))
    return np.interp(np.linspace(0, time[-1], n + 1), time, w)


class Traversal:
    """A traversal of a path, of constant tangential acceleration between two points of its grid."""

    def __init__(self, path: Path, squared: np.ndarray) -> None:
        speed = np.sqrt(squared)
        self.time = np.concatenate([[0], np.cumsum(2 * np.diff(path.arc) / (speed[1:] + speed[:-1]))])
        """At the points of the grid (point,), s."""
        self._place = CubicHermiteSpline(self.time, path.arc, speed)
        self._end = path.arc[-1]

    @property
    def duration(self) -> float:
        """Time of the whole, s."""
        return float(self.time[-1])

    def play(self, parts: np.ndarray) -> np.ndarray:
        """Return the arc length, 1/m, at times given in parts of the duration."""
        found: np.ndarray = np.clip(self._place(parts * self.duration), 0, self._end)
        return found


def fastest(
    path: Path, bounds: Bounds, pace: np.ndarray, *, start_at_rest: bool = True, end_at_rest: bool = True
) -> Traversal:
    """Return the fastest traversal of a path.

    One pass backwards finds the largest squared speed at each point from which the rest of the path can be kept to,
    one forwards speeds up as hard as it may below these. See Lustig et al., doi:10.1109/TMI.2008.922699, for limits of
    the vector, and Pham and Pham, doi:10.1109/TRO.2018.2819195, for limits of each axis.

    Parameters
    ----------
    path
        The path.
    bounds
        Limits on the speed and the acceleration, in their norm.
    pace
        Part of the largest speed, and its square of the largest acceleration, for each point of the grid (point,).
    start_at_rest, end_at_rest
        Whether the speed is zero there; otherwise it is whatever the path allows.
    """
    passes = _vector if bounds.limit_norm == "vector" else _axes
    most, back, forth = passes(path, bounds.speed * pace, bounds.acceleration * pace**2)
    best = [0.0 if end_at_rest else most[-1]]
    for j in range(len(most) - 2, -1, -1):
        best.append(min(back(j, best[-1]), most[j]))
    best.reverse()
    squared = [0.0 if start_at_rest else best[0]]
    for j, highest in enumerate(best[1:]):
        squared.append(max(min(forth(j, squared[-1]), highest), 0.0))
    return Traversal(path, np.array(squared))


_Pass = Callable[[int, float], float]


def _vector(path: Path, speed: np.ndarray, acceleration: np.ndarray) -> tuple[list[float], _Pass, _Pass]:
    """Return the largest squared speeds under limits of the vector, and how they follow from the next and the last."""
    curvature = np.linalg.norm(path.bend, axis=-1)
    most = acceleration / np.maximum(curvature, acceleration / speed**2)
    step = 2 * np.diff(path.arc)
    # u - step sqrt(acceleration^2 - (curvature u)^2) <= next, solved for u
    whole = 1 + (step * curvature[:-1]) ** 2
    radicand, by_next = (whole * acceleration[:-1] ** 2).tolist(), (curvature[:-1] ** 2).tolist()
    bends, limits, steps, wholes = curvature.tolist(), (acceleration**2).tolist(), step.tolist(), whole.tolist()

    def back(j: int, following: float) -> float:
        left = radicand[j] - by_next[j] * following**2
        return (following + steps[j] * math.sqrt(left)) / wholes[j] if left > 0 else math.inf

    def forth(j: int, last: float) -> float:
        return last + steps[j] * math.sqrt(max(limits[j] - (bends[j] * last) ** 2, 0.0))

    return most.tolist(), back, forth


def _axes(path: Path, speed: np.ndarray, acceleration: np.ndarray) -> tuple[list[float], _Pass, _Pass]:
    """Return what `_vector` does, under limits of each axis."""
    sign = np.where(path.tangent < 0, -1.0, 1.0)
    # |size a + bend u| <= acceleration on each axis, for the tangential acceleration a and the squared speed u
    size, bend, limit = np.abs(path.tangent), path.bend * sign, acceleration[:, None]
    # an a exists as long as no two axes exclude each other
    excess = bend[:, None, :] * size[:, :, None] - bend[:, :, None] * size[:, None, :]
    room = limit[..., None] * (size[:, :, None] + size[:, None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        most = np.where(excess > 0, room / excess, np.inf).min(axis=(1, 2))
        most = np.minimum(most, np.min((speed[:, None] / size) ** 2, axis=1))
        step, size, bend, limit = 2 * np.diff(path.arc)[:, None], size[:-1], bend[:-1], limit[:-1]
        # u + step a <= next for the lowest a, of each axis
        whole = size - step * bend
        slopes = np.where(whole > 0, size / whole, 0.0).tolist()
        starts = np.where(whole > 0, step * limit / whole, np.inf).tolist()
        # next <= u + step a for the highest a
        highest = np.where(size > 0, step * limit / size, np.inf).tolist()
        falls = np.where(size > 0, step * bend / size, 0.0).tolist()

    def back(j: int, following: float) -> float:
        return min(slope * following + start for slope, start in zip(slopes[j], starts[j], strict=True))

    def forth(j: int, last: float) -> float:
        return last + min(high - fall * last for high, fall in zip(highest[j], falls[j], strict=True))

    return most.tolist(), back, forth
