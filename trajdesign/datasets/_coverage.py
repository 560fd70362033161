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
    """Refuse a slice's k-space (coil, y, x) of which parts were not measured, which are zero in all coils.

    Zeros around what was measured are no more than a lower resolution, where they are on both sides of the centre.

    Raises
    ------
    InputError
        Naming what is missing.
    """
    measured = (kspace != 0).any(axis=0)
    for axis, name in ((0, "y"), (1, "x")):
        present = np.flatnonzero(measured.any(axis=1 - axis))
        if not len(present):
            return  # of a slice that is zero as a whole something else is to be said
        gaps = np.setdiff1d(np.arange(present[0], present[-1] + 1), present)
        if len(gaps):
            raise InputError(
                f"{path}: line {gaps[0]} along {name} of slice {number} is zero, one of {len(gaps)} between lines that "
                f"were measured: undersampled; {_REMEDY}."
            )
        require_sides(int(present[0]), int(present[-1]) + 1, measured.shape[axis], f"slice {number} along {name}", path)
        measured = measured.take(range(present[0], present[-1] + 1), axis=axis)
    if measured.mean() < 1 - _MOST_HOLES:
        raise InputError(
            f"{path}: {1 - measured.mean():.0%} of slice {number} of its k-space are zero, as in an elliptical or "
            f"random sampling; {_REMEDY}."
        )
