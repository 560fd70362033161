"""Variable-density spirals, in a plane or in planes in all directions, played as fast as the scanner allows."""

import math

import numpy as np
from scipy.integrate import cumulative_simpson

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import Bounds, feasible, on_sphere, require_time, turned
from trajdesign.trajectories.traversal import Curve, Fastest
from trajdesign.trajectory import Trajectory, n_points

_FEWEST_TURNS = 0.1
# Part of the circle from interleaf to interleaf of a volume: the golden part would follow the normals of their planes.
_TURN = math.sqrt(2) - 1


def spiral(
    acquisition: Acquisition,
    scanner: Scanner,
    *,
    density: float = 1.0,
    turns: float | None = None,
    in_out: bool = False,
) -> Trajectory:
    """Return interleaved spirals from rest at the centre to k_max at the last control point, or from edge to edge.

    The path of one interleaf is ``k_max * tau**density * exp(2i * pi * turns * tau)``, tau from 0 to 1; the next one is
    rotated by ``2 * pi / n_shots``. Along it the speed is the largest under the gradient limit, the receiver's Nyquist
    limit and the vector norm of the slew rate (which implies the limits of each axis); see Lustig et al.,
    doi:10.1109/TMI.2008.922699. Where k_max differs between the axes, the pattern of the largest one is shrunk along
    the others.

    In 3D each interleaf lies in a plane of its own through the centre: the normals of the planes are spread evenly over
    the half sphere, and within its plane an interleaf is turned by ``sqrt(2) - 1`` of the circle (of half of it, if
    `in_out`) against the one before.

    Parameters
    ----------
    density
        1 to 8: 1 is the Archimedean spiral, more is denser at the centre.
    turns
        Turns of one interleaf, or of each half of one that goes in and out, at least 0.1. By default as many as the
        readout has time for; fewer are played slower, to fill the readout.
    in_out
        Go in from k_max, through the centre, and out to the opposite point on the same path turned by pi, as a
        spoke wound up at both ends. The next interleaf is rotated by ``pi / n_shots``.
    """
    if not 1 <= density <= 8:
        raise ConfigError(f"spiral: density is {density:g}; it lies between 1 (Archimedean) and 8.")
    if turns is not None and not _FEWEST_TURNS <= turns <= 1000:
        raise ConfigError(f"spiral: turns is {turns:g}; it lies between {_FEWEST_TURNS:g} and 1000.")
    radius, bounds = max(acquisition.k_max), Bounds.of(acquisition, scanner)

    def interleaf(turns: float) -> Fastest:
        arm = _curve(radius, density, turns)
        return Fastest(_through_the_centre(arm) if in_out else arm, bounds, from_rest=not in_out)

    # from rest the first gradient sample is zero, so the path starts at the second control point
    steps = n_points(acquisition, scanner) - (1 if in_out else 2)
    available = steps * scanner.gradient_raster
    least = _FEWEST_TURNS if turns is None else turns
    require_time(f"spiral: an interleaf of {least:g} turns", interleaf(least).duration, available, "turns")
    if turns is None:
        # even at full speed throughout, an arc of more turns would be longer than the time allows
        low, high = least, available * bounds.speed * (density + 1) / (2 * math.pi * radius)
        while high - low > 1e-9 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if interleaf(middle).duration <= available else (low, middle)
        turns = low
    path = interleaf(turns).play(np.linspace(0, 1, steps + 1))
    if not in_out:
        path = np.concatenate([path[:1], path])
    circle = math.pi if in_out else 2 * math.pi
    k = turned(path, circle, acquisition) if acquisition.n_dims == 2 else _in_planes(path, circle, acquisition)
    return feasible(k, acquisition, scanner, "spiral", "an interleaf")


def _in_planes(path: np.ndarray, circle: float, acquisition: Acquisition) -> np.ndarray:
    """Return the control points (shot, point, 3), 1/m, of one path kx + i ky, 1/m, in planes in all directions."""
    normals = on_sphere(acquisition.n_shots)
    level = np.stack([-normals[:, 1], normals[:, 0], np.zeros(len(normals))], axis=-1)
    level /= np.linalg.norm(level, axis=-1, keepdims=True)
    shots = np.exp(1j * circle * _TURN * np.arange(len(normals)))[:, None] * path
    k = shots.real[..., None] * level[:, None] + shots.imag[..., None] * np.cross(normals, level)[:, None]
    k_max = np.array(acquisition.k_max)
    return k * (k_max / k_max.max())


def _curve(radius: float, density: float, turns: float) -> Curve:
    """Return ``radius * tau**density * exp(2i * pi * turns * tau)`` for tau from 0 to 1."""
    omega = 2 * math.pi * turns
    # tau = q**(2 / density) makes the arc length grow as q**2 at the centre, as time does from rest
    exponent = 2 / density
    q = np.linspace(0, 1, 2001 + 100 * math.ceil(turns))
    tau = q**exponent
    turning = density + 1j * omega * tau
    direction = np.exp(1j * omega * tau)
    arc = cumulative_simpson(radius * exponent * q * np.abs(turning), dx=q[1], initial=0)
    angle_rate = omega + omega * density / np.abs(turning) ** 2
    # at the very centre the speed is zero, so the curvature there (infinite if density > 1) is not felt
    curvature = np.zeros_like(tau)
    curvature[1:] = angle_rate[1:] / (radius * tau[1:] ** (density - 1) * np.abs(turning[1:]))
    return Curve(arc, radius * tau**density * direction, direction * turning / np.abs(turning), curvature)


def _through_the_centre(arm: Curve) -> Curve:
    """Return an arm played backwards from the opposite side, and then forwards."""
    return Curve(
        np.concatenate([-arm.arc[:0:-1], arm.arc]) + arm.arc[-1],
        np.concatenate([-arm.k[:0:-1], arm.k]),
        np.concatenate([arm.tangent[:0:-1], arm.tangent]),
        np.concatenate([arm.curvature[:0:-1], arm.curvature]),
    )
