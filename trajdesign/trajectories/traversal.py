"""The fastest traversal of a given path under limits on speed and acceleration."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicHermiteSpline, CubicSpline

from trajdesign.trajectories.design import Bounds

# Part of the longest chord below which two points are one.
_SAME = 1e-9


@dataclass(frozen=True)
class Curve:
    """A path through k-space, on a grid fine enough to integrate along."""

    arc: np.ndarray
    """Arc length from the start (point,), rising, 1/m."""
    k: np.ndarray
    """kx + i ky (point,), or (point, dim), 1/m."""
    tangent: np.ndarray
    """Unit tangent, of the same kind."""
    curvature: np.ndarray
    """Magnitude of the change of direction by arc length (point,), m."""


def curve_through(points: np.ndarray) -> Curve:
    """Return the smooth curve through k (point, dim), 1/m, so close that chords are as long as arcs.

    Of neighbours in the same place, only the first is taken.
    """
    chords = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    moved = chords > _SAME * chords.max()
    points, arc = points[np.concatenate([[True], moved])], np.concatenate([[0], np.cumsum(chords[moved])])
    spline = CubicSpline(arc, points)
    velocity, change = spline(arc, 1), spline(arc, 2)
    tangent = velocity / np.linalg.norm(velocity, axis=-1, keepdims=True)
    across = change - (change * tangent).sum(axis=-1, keepdims=True) * tangent
    return Curve(arc, points, tangent, np.linalg.norm(across, axis=-1))


class Fastest:
    """The fastest traversal of a curve: at every moment at the limit of speed, or of acceleration.

    Found by one pass forwards, which speeds up as hard as it may, and one backwards, which brakes; see Lustig et
    al., doi:10.1109/TMI.2008.922699. The limits are taken of the vector, which implies those of each axis.

    Parameters
    ----------
    curve
        The path.
    bounds
        Limits on the speed and the acceleration.
    from_rest
        Start from rest; otherwise both ends are passed at whatever speed the curve allows.
    """

    def __init__(self, curve: Curve, bounds: Bounds, *, from_rest: bool) -> None:
        self._curve = curve
        most = bounds.acceleration / np.maximum(curve.curvature, bounds.acceleration / bounds.speed**2)
        steps = np.diff(curve.arc)
        squared = _speed_up(steps, curve.curvature, most, 0.0 if from_rest else most[0], bounds.acceleration)
        braked = _speed_up(steps[::-1], curve.curvature[::-1], squared[::-1], squared[-1], bounds.acceleration)
        self._speed = np.sqrt(braked[::-1])
        self._time = np.concatenate([[0], np.cumsum(2 * steps / (self._speed[1:] + self._speed[:-1]))])

    @property
    def duration(self) -> float:
        """Time of the traversal, s."""
        return float(self._time[-1])

    def play(self, parts: np.ndarray) -> np.ndarray:
        """Return k of the curve's kind, 1/m, at times given in parts of the duration."""
        curve = self._curve
        along = CubicHermiteSpline(self._time, curve.arc, self._speed)(parts * self.duration)
        found: np.ndarray = CubicHermiteSpline(curve.arc, curve.k, curve.tangent)(np.clip(along, 0, curve.arc[-1]))
        return found


def _speed_up(
    steps: np.ndarray, curvature: np.ndarray, most: np.ndarray, first: float, acceleration: float
) -> np.ndarray:
    """Return the largest squared speeds (point,) along a curve that starts with `first`, none above `most`."""
    squared = [float(first)]
    for step, bend, highest in zip(steps.tolist(), curvature.tolist(), most[1:].tolist(), strict=False):
        centripetal = squared[-1] * bend
        tangential = math.sqrt(max(acceleration**2 - centripetal**2, 0.0))
        squared.append(min(squared[-1] + 2 * step * tangential, highest))
    return np.array(squared)
