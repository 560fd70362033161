"""Images that show the same pixels, however they are stored: known by their coarse structure, not by their bytes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mark = NDArray[np.float32]

# The structure of an image is compared up to so many cycles over it: centimetres of a head.
_MOST_CYCLES = 5
# Pixels below this part of the maximum are background, of which files hold more or less.
_BACKGROUND = 0.1
# An object of fewer pixels along a side, or of less structure for its brightness, cannot be known again.
_LEAST_PIXELS, _LEAST_STRUCTURE = 4, 1e-3
# Two marks are the same if 1 minus their correlation is below this: rounding to 8 bits makes 1e-7, neighbouring
# slices of real heads make 1e-3.
_SAME = 1e-5
_N_AT_ONCE = 256


def mark(image: NDArray, *, trims: bool = False) -> Mark:
    """Return what a magnitude image (y, x) is known again by, in whatever type or scale it is stored.

    It is the number of pixels along y and x, and the lowest part of the image's Fourier series, as cosines and sines
    about its centre without the mean, of norm 1. It is zeros where there is nothing to know the image by. `trims` cuts
    off the background around the object first, so that padding and cropping make no difference.
    """
    image = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0)
    if trims:
        bright = image > _BACKGROUND * image.max(initial=0.0)
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        if len(rows):
            image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    waves = [_waves(n) for n in image.shape]
    found = (waves[0] @ image @ waves[1].T).ravel()
    mean, found[0] = found[0], 0.0
    norm = np.linalg.norm(found)
    is_known = min(image.shape) >= _LEAST_PIXELS and norm > _LEAST_STRUCTURE * abs(mean)
    return np.concatenate([image.shape, found / norm if is_known else 0 * found]).astype(np.float32)


def first_copies(marks: Sequence[Mark], others: Sequence[Mark], *, turned: bool = True) -> list[int | None]:
    """Return for each `mark` the number of the first of the others that shows the same image, or None.

    With `turned`, an image that is mirrored, or turned by right angles, is the same.
    """
    found: list[int | None] = [None] * len(marks)
    if not len(marks) or not len(others):
        return found
    known = np.stack(others)
    for first in range(0, len(marks), _N_AT_ONCE):
        some = np.stack(marks[first : first + _N_AT_ONCE])
        match = np.zeros((len(some), len(known)), bool)
        for sample in _orientations(some) if turned else [some]:
            same_size = (sample[:, None, :2] == known[:, :2]).all(-1)
            match |= same_size & (sample[:, 2:] @ known[:, 2:].T > 1 - _SAME)
        for row in np.flatnonzero(match.any(1)).tolist():
            found[first + row] = int(match[row].argmax())
    return found


def _waves(n: int) -> NDArray[np.float64]:
    """Return cosines and then sines about the centre of `n` pixels (wave, pixel)."""
    phase = 2 * np.pi * (np.arange(n) - (n - 1) / 2) / n * np.arange(_MOST_CYCLES + 1)[:, None]
    return np.concatenate([np.cos(phase), np.sin(phase[1:])])


def _orientations(marks: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the marks of the images as they are, mirrored and transposed: eight in all."""
    n = 2 * _MOST_CYCLES + 1
    flip = np.where(np.arange(n) > _MOST_CYCLES, -1, 1)  # a mirror turns the sign of sines
    waves = marks[:, 2:].reshape(-1, n, n)
    found = []
    for sizes, grid in ((marks[:, :2], waves), (marks[:, 1::-1], waves.swapaxes(1, 2))):
        for y in (1, flip[:, None]):
            found += [np.concatenate([sizes, (grid * y * x).reshape(len(grid), -1)], axis=1) for x in (1, flip)]
    return found
