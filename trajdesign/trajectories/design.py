"""What the patterns share: the room under the limits, what fits into a readout, and the refusal of what does not."""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, LimitError
from trajdesign.physics import limits
from trajdesign.scanner import LimitNorm, Scanner
from trajdesign.trajectory import Trajectory, point_times
from trajdesign.units import DESIGN_MARGIN, EXTENT_ROUNDING

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
#: Part of the whole by which things that follow each other are turned, so that any number of them is spread evenly.
GOLDEN_PART = (3 - math.sqrt(5)) / 2
# The two-dimensional golden means: Chan et al., Magn. Reson. Med. 2009, doi:10.1002/mrm.21837
_GOLDEN_MEANS = (0.4656, 0.6823)


@dataclass(frozen=True)
class Bounds:
    """What a design may use of the limits."""

    speed: float
    """Largest speed of k, 1/m/s: the gradient limit or the receiver's Nyquist limit."""
    acceleration: float
    """Largest acceleration of k, 1/m/s^2: the slew limit."""
    limit_norm: LimitNorm

    @classmethod
    def of(cls, acquisition: Acquisition, scanner: Scanner, margin: float = DESIGN_MARGIN) -> "Bounds":
        """Return the limits less a margin, in parts of them."""
        nyquist = 1 / (acquisition.dwell * max(acquisition.fov))
        speed = (1 - margin) * min(scanner.gamma * scanner.max_gradient, nyquist)
        return cls(speed, (1 - margin) * scanner.gamma * scanner.max_slew, scanner.limit_norm)

    def norm(self, x: float, y: float) -> float:
        """Return what the limits bound: the length of the vector, or its larger component."""
        return math.hypot(x, y) if self.limit_norm == "vector" else max(abs(x), abs(y))


def line(acquisition: Acquisition, scanner: Scanner, *, centre_out: bool = False) -> np.ndarray:
    """Positions of the control points of a constant-speed readout (point,), in parts of k_max.

    The readout crosses the centre exactly at ADC sample ``n_samples / 2`` (at the first one if `centre_out`).
    Its speed is the largest that keeps every control point within -1 to 1: the control points reach a little
    beyond the ADC window, so the outermost samples stay inside k_max by about two parts in `n_samples`.
    """
    delay = acquisition.adc_delay(scanner.gradient_raster, scanner.rf_raster)
    centre = delay if centre_out else delay + acquisition.n_samples * acquisition.dwell / 2
    times = point_times(acquisition, scanner) - centre
    return times / np.abs(times).max()


def turned(path: np.ndarray, turn: float, acquisition: Acquisition) -> np.ndarray:
    """Return the control points (shot, point, 2), 1/m, of one path, turned from shot to shot.

    Parameters
    ----------
    path
        kx + i ky (point,), 1/m, inside the circle of the larger k_max; where k_max differs between the axes, it
        is shrunk along the other one.
    turn
        Angle that the shots share evenly, rad.
    acquisition
        Shots and k_max.
    """
    angles = turn * np.arange(acquisition.n_shots) / acquisition.n_shots
    shots = np.exp(1j * angles)[:, None] * path
    k_max = np.array(acquisition.k_max)
    return np.stack([shots.real, shots.imag], axis=-1) * (k_max / k_max.max())


def on_sphere(n_directions: int, *, whole: bool = False, golden: bool = False) -> np.ndarray:
    """Return directions (direction, 3) of length one, spread evenly over the upper half of the sphere.

    Parameters
    ----------
    n_directions
        How many.
    whole
        Spread them over the whole sphere.
    golden
        Take the golden means, so that any run of the directions is spread evenly, and not the golden-angle spiral of
        even height.
    """
    number = np.arange(n_directions)
    if golden:
        height: np.ndarray = number * _GOLDEN_MEANS[0] % 1
        azimuth = 2 * math.pi * (number * _GOLDEN_MEANS[1] % 1)
    else:
        height = (number + 0.5) / n_directions
        azimuth = 2 * math.pi * (number / GOLDEN_RATIO)
    if whole:
        height = 2 * height - 1
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], axis=-1)


def inside(k: np.ndarray, acquisition: Acquisition) -> np.ndarray:
    """Shrink control points (shot, point, dim), 1/m, that lie a thousandth outside k_max at most, onto it."""
    extent = float(np.abs(k / np.array(acquisition.k_max)).max(initial=0.0))
    return k / extent if 1 < extent < 1 + EXTENT_ROUNDING else k


def require_2d(pattern: str, acquisition: Acquisition) -> None:
    """Refuse an acquisition that is not two-dimensional by a `ConfigError`."""
    if acquisition.n_dims != 2:
        raise ConfigError(
            f"{pattern} is a 2D pattern, the matrix {acquisition.matrix} has {acquisition.n_dims} axes; "
            "give it two, or take 'radial' or 'spiral'."
        )


def require_time(shot: str, duration: float, available: float, fewer: str) -> None:
    """Refuse by a `LimitError` a shot whose duration, s, is longer than the readout.

    Parameters
    ----------
    shot
        The pattern, and what one shot is called in the sentence of the error.
    duration, available
        The time it takes, and the time there is, s.
    fewer
        What the user may take fewer of.
    """
    if duration > available:
        raise LimitError(
            f"{shot} takes {duration * 1e3:.4g} ms at best, the readout has {available * 1e3:.4g} ms; "
            f"take more samples, a smaller matrix or fewer {fewer}."
        )


def how_many(
    pattern: str, parts: str, given: int | None, most: int, duration: Callable[[int], float], available: float
) -> int:
    """Return the `given` number of parts of a shot, by default as many as there is time for.

    Parameters
    ----------
    pattern, parts
        The name of the pattern, and what its parts are called as an option.
    given, most
        The user's number, and the largest one that makes sense.
    duration
        From a number of parts to the time that they take, s.
    available
        The time there is, s.
    """
    if given is not None and not 1 <= given <= most:
        raise ConfigError(f"{pattern}: {parts} is {given}; it lies between 1 and {most} for this acquisition.")
    number = max(1, bisect_right(range(1, most + 1), available, key=duration)) if given is None else given
    require_time(f"{pattern}: a shot with {parts} = {number}", duration(number), available, parts)
    return number


def feasible(
    k: np.ndarray, acquisition: Acquisition, scanner: Scanner, name: str, shot: str, remedy: str | None = None
) -> Trajectory:
    """Return the trajectory of the control points `k` if the scanner can play it.

    It raises a `LimitError` if a limit is broken, in the norm that the scanner's limits are given in.

    Parameters
    ----------
    k
        Control points (shot, point, dim), 1/m.
    acquisition, scanner, name
        What else makes the trajectory.
    shot
        What one shot is called in the sentence of the error.
    remedy
        What the sentence advises; by default another acquisition.
    """
    trajectory = Trajectory(torch.from_numpy(k), acquisition, scanner, name)
    longer = remedy or "take more samples, a longer dwell time or a smaller matrix"
    finer = remedy or "take more samples or a smaller matrix"
    sentences = {
        "receiver": (1e3, "needs {:.4g} mT/m, the receiver's Nyquist limit at this dwell time is {:.4g} mT/m", finer),
        "gradient": (1e3, "needs {:.4g} mT/m, limit {:.4g} mT/m", longer),
        "slew": (1, "needs {:.4g} T/m/s, limit {:.4g} T/m/s", longer),
        "extent": (1, "reaches {:.6g} k_max, limit {:g} k_max", remedy or "shrink the pattern"),
    }
    for constraint in limits.constraints(acquisition, scanner, list(sentences)):
        finding, (scale, needs, advice) = constraint.check(trajectory), sentences[constraint.name]
        if not finding.ok:
            raise LimitError(
                f"{name}: {shot} {needs.format(finding.value * scale, constraint.limit * scale)}; {advice}."
            )
    return trajectory


def rotated(k: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Return k (shot, point, 2) turned by each of the angles, rad: (angle, shot, point, 2)."""
    cos, sin = angles.cos(), angles.sin()
    of_row_vectors = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return k @ of_row_vectors[:, None]
