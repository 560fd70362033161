"""BART's arrays in files: which of their 16 axes is what; other axes are an `InputError`."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError
from trajdesign.files.arrays import read_cfl

_N_AXES = 16


def open_kspace(path: Path, most: int) -> NDArray[np.complex64]:
    """Map the 2D k-space (slice, coil, y, x) of a ``.cfl`` of at most so many bytes, whose slices are number 13."""
    array = read_cfl(path, most)
    nx, ny, nz, n_coils, *others = _axes(array)
    n_slices = others[9]
    if nz != 1 or math.prod(others) != n_slices or min(nx, ny) < 2:
        raise InputError(
            f"{path} has the dimensions {array.shape}; 2D k-space of BART has x, y, 1, coils, and slices as number 13: "
            "transform a third axis with 'bart fft -iu 4' and move it with 'bart transpose 2 13'."
        )
    return array.reshape(nx, ny, n_coils, n_slices, order="F").T


def read_magnitude(path: Path, most: int) -> NDArray[np.float32]:
    """Return the magnitude (slice, 1, y, x) of the images of a ``.cfl``, whose slices are number 2 or 13."""
    array = read_cfl(path, most)
    nx, ny, *others = _axes(array)
    n_slices = max(others)
    if math.prod(others) != n_slices or n_slices not in (others[0], others[11]):
        raise InputError(
            f"{path} has the dimensions {array.shape}; images of BART have x, y, and slices as number 2 or 13: "
            "combine coils with 'bart rss 8'."
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite
        return np.abs(array.reshape(nx, ny, 1, n_slices, order="F")).T


def _axes(array: NDArray) -> tuple[int, ...]:
    return (*array.shape, *[1] * _N_AXES)[:_N_AXES]
