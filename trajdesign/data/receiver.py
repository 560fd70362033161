"""Simulated receive coils and phase, for images that come as magnitudes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.errors import ConfigError
from trajdesign.runtime import memory

# Radius of the ring of conductors and their width, in halves of the field of view. A ring this close runs through the
# corners of the image; the width keeps the field finite there.
_RING_RADIUS, _CONDUCTOR_WIDTH = 1.25, 0.2

# Highest total degree in x and y of the polynomial that the phase is.
_ORDER = 3


def coil_sensitivities(shape: tuple[int, int], n_coils: int, generator: np.random.Generator) -> NDArray[np.complex64]:
    """Return the sensitivity maps (coil, y, x), complex64, of coils on a ring around the object.

    Each coil is a long loop (see `loop_field`). Neighbouring coils overlap a little, positions and widths vary at
    random by some per cent, and the ring is stretched with the field of view. The root sum of squares over the coils
    is 1 in every pixel; one coil is a volume coil, whose map is 1 everywhere. No coil is a `ConfigError`.
    """
    if n_coils < 1:
        raise ConfigError(f"n_coils is {n_coils}; a simulated receiver needs at least 1 coil.")
    if n_coils == 1:
        return np.ones((1, *shape), dtype=np.complex64)
    spacing = 2 * np.pi / n_coils
    centre = spacing * (np.arange(n_coils) + generator.uniform() + generator.uniform(-0.1, 0.1, n_coils))
    half_width = np.minimum(0.55 * spacing, 0.6) * generator.uniform(0.9, 1.1, n_coils)
    radius = _RING_RADIUS * generator.uniform(0.97, 1.06, n_coils)
    phase = np.exp(2j * np.pi * generator.uniform(size=n_coils))
    y, x = grid(shape)
    z = (x + 1j * y).astype(np.complex64)
    p, q = ((radius * np.exp(1j * (centre + sign * half_width))).astype(np.complex64) for sign in (1, -1))
    field = loop_field(z, p[:, None, None], q[:, None, None], _CONDUCTOR_WIDTH)
    field *= phase[:, None, None].astype(np.complex64)
    return field / np.sqrt((field.real**2 + field.imag**2).sum(0))


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


def smooth_phase(shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.complex64]:
    """Return a smooth random phase factor exp(i phase), (y, x), as from B0 and eddy currents.

    The phase is a random polynomial of the position, of total degree 3. Its Chebyshev coefficients of degree d have the
    standard deviation 1 / d, in rad.
    """
    y, x = grid(shape)
    coefficients = np.zeros((_ORDER + 1, _ORDER + 1))
    for i in range(_ORDER + 1):
        for j in range(_ORDER + 1 - i):
            coefficients[i, j] = generator.normal(0, 1.0 / max(1, i + j))
    phase = np.polynomial.chebyshev.chebgrid2d(y[:, 0], x[0], coefficients)
    return np.exp(1j * phase).astype(np.complex64)


def receive(magnitude: NDArray[np.float32], n_coils: int, generator: np.random.Generator) -> Tensor:
    """Return the images (coil, y, x), complex64, that simulated coils see of an object with a random smooth phase.

    Their root sum of squares is the object, `magnitude` (y, x). Too many for the memory are a `ResourceError`.
    """
    ny, nx = magnitude.shape
    memory.require(
        3 * 8 * n_coils * ny * nx, f"{n_coils} coil images of {nx} x {ny} pixels", "take fewer coils or pixels"
    )
    maps = coil_sensitivities((ny, nx), n_coils, generator)
    return torch.from_numpy(maps * (smooth_phase((ny, nx), generator) * magnitude))


def grid(shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the positions y (y, 1) and x (1, x), -1 to 1 over the field of view, 0 at pixel n // 2."""
    ny, nx = shape
    y = (np.arange(ny, dtype=np.float32) - ny // 2) / (ny / 2)
    x = (np.arange(nx, dtype=np.float32) - nx // 2) / (nx / 2)
    return y[:, None], x[None, :]
