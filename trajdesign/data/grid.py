"""From the pixels an image came in to the pixels of the acquisition."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError

# A padded slice has at most so many pixels, and so many times its own: a header's slip must not fill the memory.
_MAX_PIXELS = 2**24
_MAX_PADDING = 32


def slice_shape(acquisition: Acquisition) -> tuple[int, int]:
    """Return the image shape (y, x) of a 2D acquisition; refuse another, by a `ConfigError`."""
    if acquisition.n_dims != 2:
        raise ConfigError(f"the data are 2D slices, but the matrix {acquisition.matrix} has {acquisition.n_dims} axes.")
    ny, nx = acquisition.image_shape
    return ny, nx


def fit_matrix(image: NDArray, pixel: tuple[float, float], acquisition: Acquisition, where: str = "image") -> NDArray:
    """Return an image (..., y, x) on the matrix of a 2D acquisition, whose field of view it fills; real stays real.

    The shorter side is padded with zeros until the sides are in the ratio of the acquisition's field of view; then the
    band of spatial frequencies that the matrix holds is cut out (or filled up with zeros). So the object keeps its
    proportions whatever its pixels were, nothing is folded or cut off, and the size of the acquisition's field of view
    is nominal: the image as a whole is scaled to it.

    `pixel` is the pixel size along y and x, in any common unit; `where` names the image in the `InputError` that it or
    its pixels are so narrow that the padded image would be huge.
    """
    ny, nx = image.shape[-2:]
    height, width = ny * pixel[0], nx * pixel[1]
    aspect = acquisition.fov[1] / acquisition.fov[0]
    padded = (max(ny, round(width * aspect / pixel[0])), max(nx, round(height / aspect / pixel[1])))
    if math.prod(padded) > min(_MAX_PIXELS, _MAX_PADDING * ny * nx):
        raise InputError(
            f"{where}: {ny} x {nx} pixels of {pixel[0]:g} x {pixel[1]:g}, padded to the aspect ratio of the "
            f"field of view, are {padded[0]} x {padded[1]}: too many; are the pixel sizes right?"
        )
    return fourier_resize(center_fit(image, padded), slice_shape(acquisition))


def fourier_resize(image: NDArray, shape: tuple[int, int]) -> NDArray:
    """Return an image (..., y, x) on another number of pixels over the same field of view, band-limited.

    Pixel n // 2 is the centre before and after, and values keep their height.
    """
    old_shape = image.shape[-2:]
    if old_shape == shape:
        return image
    resized = center_fit(centered_fft(image), shape)
    resized = centered_ifft(resized) * np.float32(np.prod(shape) / np.prod(old_shape)) ** 0.5
    return resized if np.iscomplexobj(image) else resized.real


def center_fit(image: NDArray, shape: tuple[int, int]) -> NDArray:
    """Crop or pad with zeros the last two axes, so that pixel n // 2 stays the centre."""
    sides = margins(image.shape[-2:], shape)
    rows, columns = (
        slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(image.shape[-2:], sides, strict=True)
    )
    added = [(max(low, 0), max(high, 0)) for low, high in sides]
    return np.pad(image[..., rows, columns], [(0, 0)] * (image.ndim - 2) + added)


def margins(old: Sequence[int], new: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many pixels each axis gains before and after, or loses, so that pixel n // 2 stays the centre."""
    return [(n // 2 - o // 2, (n + 1) // 2 - (o + 1) // 2) for o, n in zip(old, new, strict=True)]


def centered_fft(image: NDArray) -> NDArray:
    """Orthonormal Fourier transform of the last two axes; the origins are at n // 2."""
    shifted = scipy.fft.ifftshift(image, axes=(-2, -1))
    return scipy.fft.fftshift(scipy.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))


def centered_ifft(kspace: NDArray) -> NDArray:
    """Orthonormal inverse Fourier transform of the last two axes; the origins are at n // 2."""
    shifted = scipy.fft.ifftshift(kspace, axes=(-2, -1))
    return scipy.fft.fftshift(scipy.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))
