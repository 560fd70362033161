"""Variable-density spirals, played as fast as the scanner allows."""

import math

import numpy as np
from scipy.integrate import cumulative_simpson
from scipy.interpolate import CubicHermiteSpline

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, LimitError
from trajdesign.inits._feasible import Bounds, feasible, require_2d
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points

_FEWEST_TURNS = 0.1


def spiral(
    acquisition: Acquisition, scanner: Scanner, *, density: float = 1.0, turns: float | None = None
) -> Trajectory:
    """Return interleaved spirals from rest at the centre to k_max at the last control point.

    The path of one interleaf is ``k_max * tau**density * exp(2i * pi * turns * tau)``, tau from 0 to 1; the
    next one is rotated by ``2 * pi / n_shots``. Along it the speed is the largest under the gradient limit,
    the receiver's Nyquist limit and the vector norm of the slew rate (which implies the limits of each axis);
    see Lustig et al., doi:10.1109/TMI.2008.922699. Where k_max differs between the axes, the pattern of
    the larger one is shrunk along the other.

    Parameters
    ----------
    acquisition
        2D.
    scanner
        Limits and rasters.
    density
        1 to 8: 1 is the Archimedean spiral, more is denser at the centre.
    turns
        Turns of one interleaf, at least 0.1. By default as many as the readout has time for; fewer are
        played slower, to fill the readout.

    Returns
    -------
    Trajectory
        Control points (shot, point, dim), 1/m.

    Raises
    ------
    ConfigError
        If the acquisition is not 2D or an option is out of range.
    LimitError
        If the turns do not fit into the readout, or by default not even a tenth of one.
    """
    require_2d("spiral", acquisition)
    if not 1 <= density <= 8:
        raise ConfigError(f"spiral: density is {density:g}; it lies between 1 (Archimedean) and 8.")
    if turns is not None and not _FEWEST_TURNS <= turns <= 1000:
        raise ConfigError(f"spiral: turns is {turns:g}; it lies between {_FEWEST_TURNS:g} and 1000.")
    radius = max(acquisition.k_max)
    bounds = Bounds.of(acquisition, scanner)
    design = _Design(radius, density, bounds.speed, bounds.acceleration)
    # the first gradient sample is zero, so the path starts at the second control point
    steps = n_points(acquisition, scanner) - 2
    available = steps * scanner.gradient_raster
    shape = design.most_turns(available) if turns is None else turns
    if shape is None or design.duration(shape) > available:
        least = _FEWEST_TURNS if shape is None else shape
        raise LimitError(
            f"spiral: an interleaf of {least:g} turns takes {design.duration(least) * 1e3:.4g} ms at best, "
            f"the readout has {available * 1e3:.4g} ms; take more samples, a smaller matrix or fewer turns."
        )
    path = design.play(shape, np.linspace(0, 1, steps + 1))
    path = np.concatenate([path[:1], path])
    turned = np.exp(2j * np.pi * np.arange(acquisition.n_shots) / acquisition.n_shots)[:, None] * path
    k = np.stack([turned.real, turned.imag], axis=-1) * (np.array(acquisition.k_max) / radius)
    return feasible(k, acquisition, scanner, "spiral", "an interleaf")


class _Design:
    """The fastest traversal of ``radius * tau**density * exp(2i * pi * turns * tau)``.

    Parameters
    ----------
    radius
        1/m.
    density
        Exponent of the radius.
    speed, acceleration
        Limits on the first and second time derivative of k, 1/m/s and 1/m/s^2.
    """

    def __init__(self, radius: float, density: float, speed: float, acceleration: float) -> None:
        self.radius = radius
        self.density = density
        self.speed = speed
        self.acceleration = acceleration

    def most_turns(self, available: float) -> float | None:
        """Return the turns that take `available` (s) but no longer, None if fewer than a tenth."""
        # even at full speed throughout, an arc of more turns would be longer than the time allows
        high = available * self.speed * (self.density + 1) / (2 * math.pi * self.radius)
        low = _FEWEST_TURNS
        if high <= low or self.duration(low) > available:
            return None
        while high - low > 1e-9 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if self.duration(middle) <= available else (low, middle)
        return low

    def duration(self, turns: float) -> float:
        """Return the time of the fastest traversal, s."""
        return float(self._traverse(turns)[0][-1])

    def play(self, turns: float, times: np.ndarray) -> np.ndarray:
        """Return the complex k (1/m) at `times`, given in parts of the whole traversal."""
        time, speed, arc, path, tangent = self._traverse(turns)
        along = CubicHermiteSpline(time, arc, speed)(times * time[-1])
        found: np.ndarray = CubicHermiteSpline(arc, path, tangent)(np.clip(along, 0, arc[-1]))
        return found

    def _traverse(self, turns: float) -> tuple[np.ndarray, ...]:
        """Return time (s), speed, arc length, k and unit tangent on a grid along the path."""
        omega = 2 * math.pi * turns
        # tau = q**(2 / density) makes the arc length grow as q**2 at the centre, as time does from rest
        exponent = 2 / self.density
        q = np.linspace(0, 1, 2001 + 100 * math.ceil(turns))
        tau = q**exponent
        turning = self.density + 1j * omega * tau
        direction = np.exp(1j * omega * tau)
        arc_rate = self.radius * exponent * q * np.abs(turning)
        arc = cumulative_simpson(arc_rate, dx=q[1], initial=0)
        tangent = direction * turning / np.abs(turning)
        angle_rate = omega + omega * self.density / np.abs(turning) ** 2
        # at the very centre the speed is zero, so the curvature there (infinite if density > 1) is not felt
        curvature = np.zeros_like(tau)
        curvature[1:] = angle_rate[1:] / (self.radius * tau[1:] ** (self.density - 1) * np.abs(turning[1:]))
        speed = self._accelerate(arc, curvature)
        time = np.concatenate([[0], np.cumsum(2 * np.diff(arc) / (speed[1:] + speed[:-1]))])
        return time, speed, arc, self.radius * tau**self.density * direction, tangent

    def _accelerate(self, arc: np.ndarray, curvature: np.ndarray) -> np.ndarray:
        """Return the largest speeds from rest.

        The curvature falls outwards, so the bound on the speed rises and one forward pass finds the optimum.
        """
        squared = [0.0]
        bound = self.acceleration / np.maximum(curvature, self.acceleration / self.speed**2)
        steps = zip(np.diff(arc).tolist(), curvature.tolist(), bound[1:].tolist(), strict=False)
        for step, bend, most in steps:
            centripetal = squared[-1] * bend
            tangential = math.sqrt(max(self.acceleration**2 - centripetal**2, 0.0))
            squared.append(min(squared[-1] + 2 * step * tangential, most))
        return np.sqrt(squared)
