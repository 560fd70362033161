"""Images that show the same pixels, however they are stored: known by their coarse structure, not by their bytes."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mark = NDArray[np.float32]

# The structure of an image is compared up to so many cycles over it: centimetres of a head.
_MOST_CYCLES = 5
_N_WAVES = 2 * _MOST_CYCLES + 1
# Pixels below this part of the maximum are background, of which files hold more or less.
_BACKGROUND = 0.1
# An object of fewer pixels along a side, or of less structure for its brightness, cannot be known again.
_LEAST_PIXELS, _LEAST_STRUCTURE = 4, 1e-3
# Two marks are the same if 1 minus their correlation is below this: rounding to 8 bits makes 1e-7, neighbouring
# slices of real heads make 1e-3.
_SAME = 1e-5
_N_AT_ONCE = 256


def mark(image: NDArray, *, trims: bool = False) -> Mark:
    """Return what a magnitude image (y, x), volume or film is known again by, in whatever type or scale it is stored.

    It is the number of pixels along each axis, and the lowest part of the image's Fourier series, as cosines and sines
    about its centre without the mean, of norm 1. It is zeros where there is nothing to know the image by. `trims` cuts
    off the background around the object first, so that padding and cropping make no difference.
    """
    image = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0)
    if trims:
        bright = image > _BACKGROUND * image.max(initial=0.0)
        for axis in range(image.ndim):
            present = np.flatnonzero(bright.any(tuple(other for other in range(image.ndim) if other != axis)))
            if len(present):
                image = image.take(range(present[0], present[-1] + 1), axis)
    shape = image.shape
    waves = [_waves(n) for n in shape]
    found = image
    for wave in reversed(waves):
        found = np.tensordot(wave, found, (1, -1))
    found = found.ravel()
    mean, found[0] = found[0], 0.0
    norm = np.linalg.norm(found)
    # a film may have fewer frames
    is_known = sorted(shape)[-2] >= _LEAST_PIXELS and norm > _LEAST_STRUCTURE * abs(mean)
    return np.concatenate([shape, found / norm if is_known else 0 * found]).astype(np.float32)


def first_copies(marks: Sequence[Mark], others: Sequence[Mark], *, turned: bool = True) -> list[int | None]:
    """Return for each `mark` the number of the first of the others that shows the same image, or None.

    With `turned`, an image that is mirrored, or turned by right angles, is the same. All are of as many axes.
    """
    found: list[int | None] = [None] * len(marks)
    if not len(marks) or not len(others):
        return found
    known, n = np.stack(others), _n_axes(others[0])
    for first in range(0, len(marks), _N_AT_ONCE):
        some = np.stack(marks[first : first + _N_AT_ONCE])
        match = np.zeros((len(some), len(known)), bool)
        for sample in _orientations(some) if turned else [some]:
            same_size = (sample[:, None, :n] == known[:, :n]).all(-1)
            match |= same_size & (sample[:, n:] @ known[:, n:].T > 1 - _SAME)
        for row in np.flatnonzero(match.any(1)).tolist():
            found[first + row] = int(match[row].argmax())
    return found


def _waves(n: int) -> NDArray[np.float64]:
    """Return cosines and then sines about the centre of `n` pixels (wave, pixel)."""
    phase = 2 * np.pi * (np.arange(n) - (n - 1) / 2) / n * np.arange(_MOST_CYCLES + 1)[:, None]
    return np.concatenate([np.cos(phase), np.sin(phase[1:])])


def _n_axes(one: Mark) -> int:
    """Return the number of axes of the image that a mark is of."""
    return next(n for n in (2, 3) if len(one) == n + _N_WAVES**n)


def _orientations(marks: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the marks of the images as they are, mirrored and with their axes exchanged: 8 in all, of volumes 48."""
    n = _n_axes(marks[0])
    flip = np.where(np.arange(_N_WAVES) > _MOST_CYCLES, -1, 1).astype(np.float32)  # a mirror turns the sign of sines
    waves = marks[:, n:].reshape(-1, *[_N_WAVES] * n)
    found = []
    for axes in itertools.permutations(range(n)):
        turned = waves.transpose(0, *(axis + 1 for axis in axes))
        for signs in itertools.product((np.ones_like(flip), flip), repeat=n):
            mirrored = turned * functools.reduce(np.multiply, np.ix_(*signs))
            found.append(np.concatenate([marks[:, list(axes)], mirrored.reshape(len(marks), -1)], axis=1))
    return found
