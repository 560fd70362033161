"""Simulated receive coils and phase, for images that come as magnitudes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.errors import ConfigError
from trajdesign.runtime import memory

# Radius of the ring of conductors and their width, in halves of the field of view. A ring this close runs through the
# corners of the image; the width keeps the field finite there.
_RING_RADIUS, _CONDUCTOR_WIDTH = 1.25, 0.2

# From so many coils on a volume has two rings at least; a ring has about so many. Of a single ring every other loop is
# shifted up along z, and the others down, by a part of their length.
_FIRST_TWO_RINGS, _COILS_A_RING, _SHIFT = 12, 8, 0.3
# The rings together reach at least so far along z, in halves of the field of view across, also about a thin slab.
_LEAST_REACH = 0.8
# Rings are so much longer than their share, so that neighbours overlap.
_OVERLAP = 1.1

# Highest total degree in x, y and z of the polynomial that the phase is.
_ORDER = 3
# Cosines of the magnitude that the phase of tissues is the sum of.
_TISSUES = 3


def coil_sensitivities(
    shape: Sequence[int], n_coils: int, generator: np.random.Generator, height: float = 1.0
) -> NDArray[np.complex64]:
    """Return the sensitivity maps (coil, y, x) or (coil, z, y, x), complex64, of coils on rings around the object.

    In a slice each coil is a long loop (see `loop_field`) of one ring. In a volume they are finite loops (see
    `finite_loop_field`) of one ring around z, shifted up and down in turn, or from 12 coils on of several rings, each
    turned against the next. Neighbouring coils overlap a little, positions and widths vary at random by some per
    cent, and the rings are stretched with the field of view along y and x. The root sum of squares over the coils is 1
    in every voxel; one coil is a volume coil, whose map is 1 everywhere. No coil is a `ConfigError`.

    `height` is a volume's field of view along z over that along y and x.
    """
    if n_coils < 1:
        raise ConfigError(f"n_coils is {n_coils}; a simulated receiver needs at least 1 coil.")
    if n_coils == 1:
        return np.ones((1, *shape), dtype=np.complex64)
    if len(shape) == 2:
        p, q, phase = _ring(n_coils, generator)
        y, x = grid(shape)
        field = loop_field((x + 1j * y).astype(np.complex64), p[:, None, None], q[:, None, None], _CONDUCTOR_WIDTH)
        field *= phase[:, None, None]
    else:
        field = _rings(shape, n_coils, height, generator)
    return field / np.sqrt((field.real**2 + field.imag**2).sum(0))


def _ring(
    n_coils: int, generator: np.random.Generator
) -> tuple[NDArray[np.complex64], NDArray[np.complex64], NDArray[np.complex64]]:
    """Return where the two conductors along z of each coil of a ring are, x + iy, and the coil's phase factor."""
    spacing = 2 * np.pi / n_coils
    centre = spacing * (np.arange(n_coils) + generator.uniform() + generator.uniform(-0.1, 0.1, n_coils))
    half_width = np.minimum(0.55 * spacing, 0.6) * generator.uniform(0.9, 1.1, n_coils)
    radius = _RING_RADIUS * generator.uniform(0.97, 1.06, n_coils)
    phase = np.exp(2j * np.pi * generator.uniform(size=n_coils))
    p, q = ((radius * np.exp(1j * (centre + sign * half_width))).astype(np.complex64) for sign in (1, -1))
    return p, q, phase.astype(np.complex64)


def _rings(shape: Sequence[int], n_coils: int, height: float, generator: np.random.Generator) -> NDArray[np.complex64]:
    """Return the fields (coil, z, y, x) of finite loops on rings along z."""
    n_rings = max(2, round(n_coils / _COILS_A_RING)) if n_coils >= _FIRST_TWO_RINGS else 1
    share = max(height, _LEAST_REACH) / n_rings
    z, y, x = grid(shape)
    across, along = (x + 1j * y).astype(np.complex64), height * z
    fields = []
    turn = generator.uniform(0, 2 * np.pi)
    for number, coils in enumerate(np.array_split(np.arange(n_coils), n_rings)):
        p, q, phase = _ring(len(coils), generator)
        # whatever a ring has drawn, its coils lie before the gaps of the one below
        start = np.exp(1j * (turn + np.pi / len(coils) * (number % 2) - np.angle(p[0] + q[0])))
        zigzag = _SHIFT * (-1.0) ** np.arange(len(coils)) * (n_rings == 1)
        shift = zigzag + generator.uniform(-0.1, 0.1, len(coils))
        centre = share * (2 * number + 1 - n_rings + shift)
        half_length = _OVERLAP * share * generator.uniform(0.95, 1.05, len(coils))
        for coil in range(len(coils)):
            field = finite_loop_field(
                across,
                along - np.float32(centre[coil]),
                complex(start * p[coil]),
                complex(start * q[coil]),
                float(half_length[coil]),
                _CONDUCTOR_WIDTH,
            )
            fields.append(phase[coil] * field)
    return np.stack(fields)


def loop_field(z: NDArray, p: NDArray, q: NDArray, width: float = 0.0) -> NDArray:
    r"""Return the transverse field of a long loop, which by reciprocity is its receive sensitivity.

    The loop is a pair of opposite straight conductors across the image plane z = x + iy, at p and q, of a `width` that
    keeps the field finite in them; all are in one unit. By the law of Biot and Savart its field is, but for a constant
    factor,

    .. math:: B_x - i B_y = \frac{1}{z - p} - \frac{1}{z - q},

    and the sensitivity is proportional to it (Hoult and Richards, J. Magn. Reson. 1976,
    doi:10.1016/0022-2364(76)90233-X).
    """
    to_p, to_q = (z - p).conj(), (z - q).conj()
    to_p /= to_p.real**2 + to_p.imag**2 + width**2
    to_q /= to_q.real**2 + to_q.imag**2 + width**2
    return to_p - to_q


def finite_loop_field(
    across: NDArray, along: NDArray, p: complex, q: complex, half_length: float, width: float = 0.0
) -> NDArray:
    r"""Return the transverse field of a rectangular loop, with the constant factor of `loop_field`, its limit.

    The loop has two straight conductors along the third axis, through p and q of the plane x + iy, and two straight
    ones from p to q at the heights \pm `half_length`. `across` are positions x + iy and `along` heights, of shapes that
    broadcast. The law of Biot and Savart for a straight conductor from a to b, along the unit vector t, is in closed
    form

    .. math:: B \propto \frac{t \times (r - a)}{d^2}
              \left(\frac{t \cdot (r - a)}{|r - a|} - \frac{t \cdot (r - b)}{|r - b|}\right)

    at the distance d of its line; `width` is added to distances by the root sum of squares.
    """

    def ends(first: NDArray, last: NDArray, distance: NDArray) -> NDArray:
        """Return what the two ends make of the field of an endless conductor, over the squared `distance`."""
        return (first / np.sqrt(first**2 + distance) - last / np.sqrt(last**2 + distance)) / (2 * distance)

    field: NDArray = np.zeros(np.broadcast_shapes(across.shape, along.shape), dtype=across.dtype)
    for sign, wire in ((1, p), (-1, q)):
        to = sign * (across - wire).conj()
        distance = to.real**2 + to.imag**2 + np.float32(width**2)
        field += to * ends(along + half_length, along - half_length, distance)
    length = abs(q - p)
    to_chord = (across - p) * ((q - p).conjugate() / length)  # along the chord, and across it
    for sign in (-1, 1):
        height = along - sign * half_length
        distance = to_chord.imag**2 + height**2 + np.float32(width**2)
        chord = height * ends(to_chord.real, to_chord.real - length, distance)
        field -= (sign * (q - p).conjugate() / length) * chord
    return field


def smooth_phase(shape: Sequence[int], generator: np.random.Generator) -> NDArray[np.complex64]:
    """Return a smooth random phase factor exp(i phase), (y, x) or (z, y, x), as from B0 and eddy currents.

    The phase is a random polynomial of the position, of total degree 3. Its Chebyshev coefficients of degree d have the
    standard deviation 1 / d, in rad.
    """
    coefficients = np.zeros([_ORDER + 1] * len(shape))
    for degrees in np.ndindex(coefficients.shape):
        if sum(degrees) <= _ORDER:
            coefficients[degrees] = generator.normal(0, 1.0 / max(1, sum(degrees)))
    y, x = (axis.ravel() for axis in grid(shape)[-2:])
    if len(shape) == 2:
        phase = np.polynomial.chebyshev.chebgrid2d(y, x, coefficients)
    else:
        phase = np.polynomial.chebyshev.chebgrid3d(grid(shape)[0].ravel(), y, x, coefficients)
    return np.exp(1j * phase).astype(np.complex64)


def tissue_phase(
    magnitude: NDArray[np.float32], strength: float, generator: np.random.Generator
) -> NDArray[np.complex64]:
    """Return a phase factor exp(i phase) like `magnitude`, another for each brightness, as of fat, iron and flow.

    The phase is a random smooth function of the magnitude, a sum of three cosines with random weights. In the
    mean over all brightnesses it has the standard deviation `strength`, in rad.
    """
    weights = strength * math.sqrt(2 / _TISSUES) * generator.standard_normal(_TISSUES)
    part = np.pi * magnitude / max(float(magnitude.max()), float(np.finfo(np.float32).tiny))
    phase = np.polynomial.chebyshev.chebval(np.cos(part), [0.0, *weights])
    return np.exp(1j * phase).astype(np.complex64)


def receive(
    magnitude: NDArray[np.float32],
    n_coils: int,
    generator: np.random.Generator,
    fov: Sequence[float] | None = None,
    roughness: float = 0.0,
) -> Tensor:
    """Return the images (coil, ...), complex64, that simulated coils see of an object with a random smooth phase.

    Their root sum of squares is the object, `magnitude` (y, x), (z, y, x) or (frame, y, x). Too many for the memory are
    a `ResourceError`.

    `fov` is the field of view along x and y, or x, y and z, in any unit, by default the same along all axes of the
    object. Its number tells the axes of space: all frames of a film have the same coils and phase. `roughness` is the
    strength of the `tissue_phase` that is added to the smooth one.
    """
    shape = magnitude.shape
    memory.require(
        3 * 8 * n_coils * magnitude.size,
        f"{n_coils} coil images of {' x '.join(map(str, shape[::-1]))} pixels",
        "take fewer coils or pixels",
    )
    n_axes = magnitude.ndim if fov is None else len(fov)
    height = 1.0 if fov is None or n_axes == 2 else 2 * fov[2] / (fov[0] + fov[1])
    maps = coil_sensitivities(shape[-n_axes:], n_coils, generator, height)
    frames = [1] * (magnitude.ndim - n_axes)
    maps = maps.reshape(n_coils, *frames, *shape[-n_axes:])
    phase = smooth_phase(shape[-n_axes:], generator)
    if roughness:
        phase = phase * tissue_phase(magnitude, roughness, generator)
    return torch.from_numpy(maps * (phase * magnitude))


def grid(shape: Sequence[int]) -> tuple[NDArray[np.float32], ...]:
    """Return the positions y (y, 1) and x (1, x), or z, y and x, -1 to 1 over the field of view, 0 at pixel n // 2."""
    axes = ((np.arange(n, dtype=np.float32) - n // 2) / (n / 2) for n in shape)
    return np.ix_(*axes)
