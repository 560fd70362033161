"""From the voxels an image came in to those of the acquisition."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError

# A padded slice or volume has at most so many pixels, and so many times its own: a header's slip must not fill the
# memory.
_MAX_PIXELS = {2: 2**24, 3: 2**28}
_MAX_PADDING = 32


def slice_shape(acquisition: Acquisition) -> tuple[int, int]:
    """Return the shape (y, x) of one image of a 2D acquisition, or of a frame; refuse 3D by a `ConfigError`."""
    if acquisition.n_dims != 2:
        raise ConfigError(f"the data are 2D slices, but the matrix {acquisition.matrix} has {acquisition.n_dims} axes.")
    nx, ny = acquisition.matrix
    return ny, nx


def require_slices(acquisition: Acquisition) -> None:
    """Refuse, by a `ConfigError`, an acquisition of volumes or films, from a source of single slices."""
    slice_shape(acquisition)
    if acquisition.n_frames > 1:
        raise ConfigError(
            f"the data are single slices, but the acquisition is a film of {acquisition.n_frames} frames; "
            "data.kind = 'volumes' reads films, and 'phantom' draws some."
        )


def fit_matrix(image: NDArray, voxel: Sequence[float], acquisition: Acquisition, where: str = "image") -> NDArray:
    """Return an image (..., y, x) or (..., z, y, x) on the matrix, whose field of view it fills; real stays real.

    The shorter sides are padded with zeros until the sides are in the ratio of the acquisition's field of view; then
    the band of spatial frequencies that the matrix holds is cut out (or filled up with zeros). So the object keeps its
    proportions whatever its voxels were, nothing is folded or cut off, and the size of the acquisition's field of view
    is nominal: the image as a whole is scaled to it.

    `voxel` is the voxel size along (z,) y and x, in any common unit, of as many axes as the acquisition has; `where`
    names the image in the `InputError` that it or its voxels are so narrow that the padded image would be huge.
    """
    n = acquisition.n_dims
    if len(voxel) != n:
        raise ConfigError(f"the data have {len(voxel)} axes, but the matrix {acquisition.matrix} has {n}.")
    shape, wanted = image.shape[-n:], acquisition.matrix[::-1]
    padded = _padded(shape, voxel, acquisition.fov[::-1])
    if math.prod(padded) > min(_MAX_PIXELS[n], _MAX_PADDING * math.prod(shape)):
        raise InputError(
            f"{where}: {_by(shape)} pixels of {_by(voxel)}, padded to the aspect ratio of the field of view, are "
            f"{_by(padded)}: too many; are the pixel sizes right?"
        )
    if n == 2:
        return fourier_resize(center_fit(image, padded), wanted)
    # one axis after the other, those that shrink most first: a volume padded along all would take much memory
    for axis in sorted(range(-n, 0), key=lambda axis: wanted[axis] / shape[axis]):
        lines = center_fit(np.moveaxis(image, axis, -1), (padded[axis],))
        image = np.moveaxis(fourier_resize(lines, (wanted[axis],)), -1, axis)
    return np.ascontiguousarray(image)


def _padded(shape: Sequence[int], voxel: Sequence[float], fov: Sequence[float]) -> tuple[int, ...]:
    """Return the fewest voxels along each axis that hold an image and have sides in the ratio of `fov`."""
    sides = [n * size for n, size in zip(shape, voxel, strict=True)]
    padded = []
    for axis, least in enumerate(shape):
        # the ratio of a later axis to an earlier one is its inverse, so that rounding is the same for both
        across = (
            side * (fov[axis] / fov[other]) if axis < other else side / (fov[other] / fov[axis])
            for other, side in enumerate(sides)
            if other != axis
        )
        padded.append(max(least, *(round(side / voxel[axis]) for side in across)))
    return tuple(padded)


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" if isinstance(number, float) else str(number) for number in numbers)


def fourier_resize(image: NDArray, shape: Sequence[int]) -> NDArray:
    """Return an image (..., y, x) on another number of pixels over the same field of view, band-limited.

    Those are the last axes, as many as `shape` has. Pixel n // 2 is the centre before and after, and values keep their
    height.
    """
    old_shape = image.shape[-len(shape) :]
    if old_shape == tuple(shape):
        return image
    resized = center_fit(centered_fft(image, len(shape)), shape)
    resized = centered_ifft(resized, len(shape)) * np.float32(np.prod(shape) / np.prod(old_shape)) ** 0.5
    return resized if np.iscomplexobj(image) else resized.real


def center_fit(image: NDArray, shape: Sequence[int]) -> NDArray:
    """Crop or pad with zeros the last axes, as many as `shape` has, so that pixel n // 2 stays the centre."""
    old_shape = image.shape[-len(shape) :]
    sides = margins(old_shape, shape)
    kept = [slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(old_shape, sides, strict=True)]
    kept = [slice(None)] * (image.ndim - len(shape)) + kept
    added = [(max(low, 0), max(high, 0)) for low, high in sides]
    return np.pad(image[tuple(kept)], [(0, 0)] * (image.ndim - len(shape)) + added)


def margins(old: Sequence[int], new: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many pixels each axis gains before and after, or loses, so that pixel n // 2 stays the centre."""
    return [(n // 2 - o // 2, (n + 1) // 2 - (o + 1) // 2) for o, n in zip(old, new, strict=True)]


def centered_fft(image: NDArray, n_axes: int = 2) -> NDArray:
    """Orthonormal Fourier transform of the last axes; the origins are at n // 2."""
    axes = tuple(range(-n_axes, 0))
    return scipy.fft.fftshift(scipy.fft.fftn(scipy.fft.ifftshift(image, axes=axes), axes=axes, norm="ortho"), axes=axes)


def centered_ifft(kspace: NDArray, n_axes: int = 2) -> NDArray:
    """Orthonormal inverse Fourier transform of the last axes; the origins are at n // 2."""
    axes = tuple(range(-n_axes, 0))
    shifted = scipy.fft.ifftshift(kspace, axes=axes)
    return scipy.fft.fftshift(scipy.fft.ifftn(shifted, axes=axes, norm="ortho"), axes=axes)
