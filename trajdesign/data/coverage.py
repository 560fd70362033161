"""Whether k-space was measured as a whole: what is missing would be missing in the image to compare with."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError

# Of the samples on the longer side of the centre, how many the shorter side has at least. Real scans are off by some
# lines, as fastMRI's, which fill them up with zeros; partial Fourier of 7/8 has 75 %.
_LEAST_SIDE = 0.8

# Of single samples that are zero: noise, rounded to whole numbers, may be. Of an ellipse 21 % are missing.
_MOST_HOLES = 0.05

# Of the largest sample: what is smaller may be rounded zeros, if it is so many times smaller than what is beside it.
# Those of an object without noise are smaller still, where it was transformed in double precision.
_TINY, _ROUNDED, _SHARP = 1e-8, 1e-13, 100

# Part of a coil's line that is not zero, from which on it is full, and part of its lines that must be.
_FULL, _SOME_LINES = 0.9, 0.2

# Times the energy of the middle half that the ends hold: noise holds as much, images a thousandth.
_OFF_CENTRE = 10

_REMEDY = "training needs images of full sampling: reconstruct them, and give them to 'images'"


def require_sides(first: int, stop: int, n: int, what: str, path: Path) -> None:
    """Refuse samples `first` to `stop` - 1 of `n` if they do not reach about as far on both sides of the centre.

    Raises
    ------
    InputError
        Naming them, as `what`.
    """
    before, after = n // 2 - first, stop - n // 2
    if min(before, after) < _LEAST_SIDE * max(before, after):
        raise InputError(
            f"{path}: {what} has {max(before, 0)} of {n} positions before the centre of k-space and {max(after, 0)} "
            f"from there on, a partial Fourier scan; {_REMEDY}."
        )


def require_sampled(kspace: NDArray, number: int, path: Path) -> None:
    """Refuse a slice's k-space (coil, y, x) of which parts were not measured, in all coils or in one.

    Zeros, and what is as good as zero beside what was measured, were not. Around what was measured they are no more
    than a lower resolution, where they are on both sides of the centre.

    Raises
    ------
    InputError
        Naming what is missing, or that the centre of k-space is not in the middle.
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
            return  # of a slice that is zero as a whole something else is to be said
        first, stop = int(present[0]), int(present[-1]) + 1
        gaps = np.setdiff1d(np.arange(first, stop), present)
        if len(gaps):
            raise InputError(
                f"{path}: line {gaps[0]} along {name} of slice {number} is zero, one of {len(gaps)} between lines that "
                f"were measured: undersampled; {_REMEDY}."
            )
        require_sides(first, stop, measured.shape[axis], f"slice {number} along {name}", path)
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
    """Return which magnitudes (coil, y, x), at most 1, were measured: not zero, nor as good as zero behind an edge.

    What was filled up by other software may be noise of its rounding. Of an object without noise k-space gets as small,
    but gradually.
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
    """Refuse a coil that lacks lines which others have, while lines that it has are full: (coil, line) as parts of 1.

    Of a coil of hardly any signal, rounded to whole numbers, lines are neither.
    """
    lacking = (filled == 0) & ((filled > _FULL).mean(axis=1, keepdims=True) > _SOME_LINES)
    if lacking.any():
        coil, line = np.argwhere(lacking)[0]
        raise InputError(
            f"{path}: line {first + line} {where} is zero in coil {coil}, one of {lacking[coil].sum()} that other "
            f"coils measured; {_REMEDY}."
        )


def _require_centred(energy: NDArray, what: str, path: Path) -> None:
    """Refuse k-space whose centre is at the ends of an axis, by its energy along that (line,)."""
    n = len(energy)
    middle = energy[n // 4 : n - n // 4].sum()
    if np.isfinite(energy).all() and energy.sum() - middle > _OFF_CENTRE * middle:
        raise InputError(
            f"{path}: {what} has its energy at the ends of k-space, not in the middle: its centre is at the corner, as "
            "a Fourier transform leaves it; shift it there (np.fft.fftshift)."
        )
