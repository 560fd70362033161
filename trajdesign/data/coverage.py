"""Whether k-space was measured as a whole: what is missing there would be missing in the image to compare with.

What is missing is an `InputError`.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError

# The shorter side of the centre has at least this part of the samples of the longer one. Real scans are off by some
# lines, and fastMRI's files fill those up with zeros; partial Fourier of 7/8 has 75 %.
_LEAST_SIDE = 0.8

# At most this part of single samples is zero: noise that is rounded to whole numbers may be. An ellipse lacks 21 %.
_MOST_HOLES = 0.05

# Samples below _TINY of the largest may be zeros with noise of rounding, if they are _SHARP times smaller than their
# neighbours. An object without noise, transformed in double precision, has samples below _ROUNDED.
_TINY, _ROUNDED, _SHARP = 1e-8, 1e-13, 100

# A coil's line is full from this part of samples on that are not zero, and this part of the coil's lines must be full.
_FULL, _SOME_LINES = 0.9, 0.2

# The ends hold at most so many times the energy of the middle half: noise holds as much, images a thousandth.
_OFF_CENTRE = 10

_REMEDY = "training needs images of full sampling: reconstruct them, and give them to 'images'"


def require_sides(first: int, stop: int, n: int, what: str, path: Path) -> None:
    """Refuse partial Fourier: samples `first` to `stop` - 1 of `n` that are mostly on one side of the centre."""
    before, after = n // 2 - first, stop - n // 2
    if min(before, after) < _LEAST_SIDE * max(before, after):
        raise InputError(
            f"{path}: {what} has {max(before, 0)} of {n} positions before the centre of k-space and {max(after, 0)} "
            f"from there on, a partial Fourier scan; {_REMEDY}."
        )


def require_lines(lines: NDArray[np.integer], n: int, number: int, axis: str, path: Path) -> tuple[int, int]:
    """Return the first of the lines that were measured, of `n`, and the one after the last; refuse gaps in them."""
    first, stop = int(lines[0]), int(lines[-1]) + 1
    gaps = np.setdiff1d(np.arange(first, stop), lines)
    if len(gaps):
        raise InputError(
            f"{path}: line {gaps[0]} along {axis} of slice {number} was not measured, or is zero, one of {len(gaps)} "
            f"between lines that were; {_REMEDY}."
        )
    require_sides(first, stop, n, f"slice {number} along {axis}", path)
    return first, stop


def require_sampled(kspace: NDArray, number: int, path: Path) -> None:
    """Refuse the k-space (coil, y, x) of a slice of which parts were not measured, in all coils or in one.

    Zeros were not measured, nor what is as good as zero beside what was. Zeros all around are only a lower resolution.
    The centre of k-space must be in the middle.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is used
        size = np.abs(kspace)
        size = size / max(size.max(initial=0), np.finfo(size.dtype).tiny)
    of_coils = _is_measured(size)
    measured: NDArray[np.bool_] = np.logical_or.reduce(of_coils, axis=0)
    starts: list[int] = []
    for axis, name in ((0, "y"), (1, "x")):
        present = np.flatnonzero(measured.any(axis=1 - axis))
        if not len(present):
            return  # a slice that is zero as a whole is refused elsewhere
        first, stop = require_lines(present, measured.shape[axis], number, name, path)
        _require_centred(np.square(size).sum(axis=(0, 2 - axis)), f"slice {number} along {name}", path)
        measured, of_coils, size = (
            part.take(range(first, stop), axis=part.ndim - 2 + axis) for part in (measured, of_coils, size)
        )
        starts.append(first)
    for axis, name in ((0, "y"), (1, "x")):
        _require_all_coils(of_coils.mean(axis=2 - axis), starts[axis], f"along {name} of slice {number}", path)
    if measured.mean() < 1 - _MOST_HOLES:
        raise InputError(
            f"{path}: {1 - measured.mean():.0%} of slice {number} of its k-space are zero, as in an elliptical or "
            f"random sampling; {_REMEDY}."
        )


def _is_measured(size: NDArray) -> NDArray[np.bool_]:
    """Return which magnitudes (coil, y, x), at most 1, are neither zero nor as good as zero behind a sharp edge.

    The k-space of an object without noise gets as small, but gradually.
    """
    tiny = (size > 0) & (size < _TINY)
    found: NDArray[np.bool_] = size != 0
    if not tiny.any() or np.median(size[tiny]) < _ROUNDED:
        return found
    steps = []
    for axis in (1, 2):
        one, other = (size.take(range(*ends), axis) for ends in ((0, size.shape[axis] - 1), (1, size.shape[axis])))
        low, high = np.minimum(one, other), np.maximum(one, other)
        at_edge = (low > 0) & (low < _TINY) & (high >= _TINY)
        steps.append(high[at_edge] / low[at_edge])
    edges = np.concatenate(steps)
    return found & ~tiny if len(edges) and np.median(edges) > _SHARP else found


def _require_all_coils(filled: NDArray, first: int, where: str, path: Path) -> None:
    """Refuse a coil that lacks lines which others have; `filled` is the part of each line (coil, line) not zero.

    A coil of hardly any signal, rounded to whole numbers, has no full lines, and may lack some.
    """
    lacking = (filled == 0) & ((filled > _FULL).mean(axis=1, keepdims=True) > _SOME_LINES)
    if lacking.any():
        coil, line = np.argwhere(lacking)[0]
        raise InputError(
            f"{path}: line {first + line} {where} is zero in coil {coil}, one of {lacking[coil].sum()} that other "
            f"coils measured; {_REMEDY}."
        )


def _require_centred(energy: NDArray, what: str, path: Path) -> None:
    """Refuse k-space whose centre is at the ends of an axis, by its energy (line,) along that."""
    n = len(energy)
    middle = energy[n // 4 : n - n // 4].sum()
    if np.isfinite(energy).all() and energy.sum() - middle > _OFF_CENTRE * middle:
        raise InputError(
            f"{path}: {what} has its energy at the ends of k-space, not in the middle: its centre is at the corner, as "
            "a Fourier transform leaves it; shift it there (np.fft.fftshift)."
        )
