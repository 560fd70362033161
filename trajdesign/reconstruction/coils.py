"""Receive coils: simulated ones, for images that come as magnitudes, and sensitivity maps from a calibration scan."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.errors import ConfigError, missing
from trajdesign.runtime import memory

# In units of half the field of view: where the conductors lie, and their width. A ring this close runs
# through the corners of the image, so the width keeps the field finite there.
_RING_RADIUS = 1.25
_CONDUCTOR_WIDTH = 0.2
# Part of the largest signal at which a pixel counts half as one of the object, and maps begin to fade out.
_FAINT = 0.1
# Of a calibration scan, and the width (standard deviation) of the window that keeps its edge from ringing.
_CALIBRATION_LINES, _CALIBRATION_WIDTH = 24, 5.0
# What a division by the signal of a black image is kept above.
_TINY = 1e-12


def coil_sensitivities(shape: tuple[int, int], n_coils: int, generator: np.random.Generator) -> NDArray[np.complex64]:
    """Return coil sensitivity maps of long loops on a ring around the object.

    Each coil is a pair of opposite conductors (see `loop_field`). Neighbouring coils overlap a little,
    positions and widths vary at random by some per cent, and the ring is stretched with the field of
    view.

    Parameters
    ----------
    shape
        Pixels (y, x).
    n_coils
        Number of coils. One coil is a volume coil: its map is 1 everywhere.
    generator
        Source of the random positions and phases.

    Returns
    -------
    maps
        (coil, y, x), complex64, normalised: the root sum of squares over the coils is 1 in every pixel.

    Raises
    ------
    ConfigError
        If there is no coil.
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

    The loop is a pair of opposite straight conductors across the image plane z = x + iy, at p and q. By
    the law of Biot and Savart its field is, but for a constant factor,

    .. math:: B_x - i B_y = \frac{1}{z - p} - \frac{1}{z - q},

    and the sensitivity is proportional to it (Hoult and Richards, J. Magn. Reson. 1976,
    doi:10.1016/0022-2364(76)90233-X).

    Parameters
    ----------
    z, p, q
        Positions, complex, of shapes that broadcast.
    width
        Of the conductors, which keeps the field finite in them; in the unit of the positions.

    Returns
    -------
    field
        Complex.
    """
    to_p, to_q = (z - p).conj(), (z - q).conj()
    to_p /= to_p.real**2 + to_p.imag**2 + width**2
    to_q /= to_q.real**2 + to_q.imag**2 + width**2
    return to_p - to_q


def smooth_phase(
    shape: tuple[int, int], generator: np.random.Generator, *, strength: float = 1.0, order: int = 3
) -> NDArray[np.complex64]:
    """Return a smooth random phase factor: a random polynomial of the position, as from B0 and eddy currents.

    Parameters
    ----------
    shape
        Pixels (y, x).
    generator
        Source of the coefficients.
    strength
        Standard deviation of the Chebyshev coefficients of degree 1, rad; those of degree d have 1/d of it.
    order
        Highest total degree in x and y.

    Returns
    -------
    factor
        exp(i phase), (y, x), complex64, of magnitude 1.
    """
    y, x = grid(shape)
    coefficients = np.zeros((order + 1, order + 1))
    for i in range(order + 1):
        for j in range(order + 1 - i):
            coefficients[i, j] = generator.normal(0, strength / max(1, i + j))
    phase = np.polynomial.chebyshev.chebgrid2d(y[:, 0], x[0], coefficients)
    return np.exp(1j * phase).astype(np.complex64)


def receive(magnitude: NDArray[np.float32], n_coils: int, generator: np.random.Generator) -> Tensor:
    """Return the coil images that simulated coils see of an object with a random smooth phase.

    Parameters
    ----------
    magnitude
        Object (y, x), not negative.
    n_coils
        Number of coils.
    generator
        Source of the coils and the phase.

    Returns
    -------
    images
        (coil, y, x), complex64; the root sum of squares is the object.

    Raises
    ------
    ResourceError
        If they do not fit into memory.
    """
    ny, nx = magnitude.shape
    memory.require(
        3 * 8 * n_coils * ny * nx, f"{n_coils} coil images of {nx} x {ny} pixels", "take fewer coils or pixels"
    )
    maps = coil_sensitivities((ny, nx), n_coils, generator)
    return torch.from_numpy(maps * (smooth_phase((ny, nx), generator) * magnitude))


@torch.no_grad()
def calibration_scan(coil_images: Tensor, noise: float, seeds: list[int]) -> Tensor:
    """Return the centre of k-space, as a short, fully sampled scan before the actual one would measure it.

    Parameters
    ----------
    coil_images
        (batch, coil, y, x), complex.
    noise
        Standard deviation of the complex noise of a pixel in a fully sampled image of one coil.
    seeds
        Of each image's noise.

    Returns
    -------
    kspace
        (batch, coil, 24, 24), or less where the image has less; orthonormal, its centre at n // 2.
    """
    axes = (-2, -1)
    kspace = torch.fft.fft2(torch.fft.ifftshift(coil_images, dim=axes), norm="ortho")
    centre = _fit(torch.fft.fftshift(kspace, dim=axes), [min(n, _CALIBRATION_LINES) for n in coil_images.shape[2:]])
    if noise:
        parts = torch.empty((*centre.shape, 2), device=centre.device, dtype=centre.real.dtype)
        generator = torch.Generator(centre.device)
        for values, seed in zip(parts, seeds, strict=True):
            values.normal_(0, noise / math.sqrt(2), generator=generator.manual_seed(seed))
        centre = centre + torch.view_as_complex(parts)
    return centre


@torch.no_grad()
def smooth_maps(calibration: Tensor, shape: Sequence[int]) -> Tensor:
    """Return coil sensitivity maps from the low resolution of a calibration scan.

    Each coil's image over the root sum of squares of all (McKenzie et al., MRM 2002, doi:10.1002/mrm.10087), faded
    out where there is no signal: see `normalised`.

    Parameters
    ----------
    calibration
        Centre of k-space (batch, coil, ky, kx), as `calibration_scan` returns it.
    shape
        Pixels (y, x) of the maps.

    Returns
    -------
    maps
        (batch, coil, y, x), complex.
    """
    images = torch.fft.ifft2(torch.fft.ifftshift(_fit(calibration, shape), dim=(-2, -1)))
    return normalised(low_pass(torch.fft.fftshift(images, dim=(-2, -1)), _CALIBRATION_WIDTH))


@torch.no_grad()
def espirit_maps(calibration: Tensor, shape: Sequence[int]) -> Tensor:
    """Return coil sensitivity maps by ESPIRiT (Uecker et al., MRM 2014, doi:10.1002/mrm.24751), as in sigpy.

    The maps are zero where no set of coils agrees with the calibration. It takes tenths of a second a slice or more.

    Parameters
    ----------
    calibration
        Centre of k-space (batch, coil, ky, kx), as `calibration_scan` returns it.
    shape
        Pixels (y, x) of the maps.

    Returns
    -------
    maps
        (batch, coil, y, x), complex.

    Raises
    ------
    ResourceError
        If sigpy is not installed.
    """
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError:
        raise missing("ESPIRiT", "sigpy", "espirit") from None
    width = min(calibration.shape[2:])
    whole = _fit(calibration, shape).cpu().numpy()
    maps = [EspiritCalib(kspace, calib_width=width, show_pbar=False).run() for kspace in whole]
    return torch.from_numpy(np.stack(maps)).to(calibration)


def normalised(coil_images: Tensor, signal: Tensor | None = None) -> Tensor:
    r"""Return coil images divided by their root sum of squares, faded out where the signal is faint.

    The root sum of squares of the result is :math:`s / \sqrt{s^2 + 0.01}`, with s the signal as a part of its largest
    value in the image. So an image x that is fitted with these maps pays for what it shows in the background, where
    the maps of any coils could explain noise and aliasing.

    Parameters
    ----------
    coil_images
        (batch, coil, y, x), complex, smooth.
    signal
        (batch, 1, y, x), real; by default the root sum of squares of the images.
    """
    size = torch.linalg.vector_norm(coil_images, dim=1, keepdim=True)
    signal = size if signal is None else signal
    part = signal / signal.amax((1, 2, 3), keepdim=True).clamp_min(_TINY)
    return coil_images / size.clamp_min(_TINY) * (part / (part.square() + _FAINT**2).sqrt())


def low_pass(images: Tensor, width: float) -> Tensor:
    """Return images (..., y, x) times a Gaussian in k-space, `width` (standard deviation) in 1 / field of view."""
    for axis in (-2, -1):
        n = images.shape[axis]
        k = torch.fft.fftfreq(n, 1 / n, device=images.device, dtype=images.real.dtype)
        window = torch.exp(-0.5 * (k / width).square())
        spectrum = torch.fft.fft(images, dim=axis) * (window[:, None] if axis == -2 else window)
        images = torch.fft.ifft(spectrum, dim=axis)
    return images


def _fit(kspace: Tensor, shape: Sequence[int]) -> Tensor:
    """Crop or pad with zeros the last two axes; n // 2 stays the centre."""
    (top, bottom), (left, right) = (
        (new // 2 - old // 2, (new + 1) // 2 - (old + 1) // 2)
        for new, old in zip(shape, kspace.shape[-2:], strict=True)
    )
    return torch.nn.functional.pad(kspace, [left, right, top, bottom])


def grid(shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the positions y (y, 1) and x (1, x), -1 to 1 over the field of view, 0 at pixel n // 2."""
    ny, nx = shape
    y = (np.arange(ny, dtype=np.float32) - ny // 2) / (ny / 2)
    x = (np.arange(nx, dtype=np.float32) - nx // 2) / (nx / 2)
    return y[:, None], x[None, :]
