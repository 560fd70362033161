"""How sure a mean gain is where slices are nested in people."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 4_000  # the ends are known to 0.04 standard deviations of the mean
_QUANTILES = (0.025, 0.975)


def interval(gains: ArrayLike, people: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Return the ends of the 95 % confidence interval of mean gains (end, metric), of gains (metric, image).

    They are quantiles of `resampled`: the percentile interval of the bootstrap (Efron, doi:10.1214/aos/1176344552).
    Fewer than two images have none: not numbers.
    """
    gains = np.asarray(gains, dtype=float)
    if gains.shape[1] < 2:
        return np.full((2, len(gains)), np.nan)
    return np.quantile(resampled(gains, people), _QUANTILES, axis=0)


def resampled(gains: NDArray[np.float64], people: Sequence[int] | None, n: int = _RESAMPLES) -> NDArray[np.float64]:
    """Return mean gains (resample, metric) of other people and slices that could have been drawn, always the same ones.

    People are drawn with replacement, and of each one drawn as many slices as it has, with replacement too. The mean
    is that of all slices drawn. `people` has the number of its person for each image; without it, or with one person,
    slices alone are drawn.
    """
    generator = np.random.default_rng(0)
    whose = np.zeros(gains.shape[1], dtype=int) if people is None else np.asarray(people)
    groups = [gains[:, whose == person] for person in np.unique(whose)]
    times_drawn = generator.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=n)
    sums, counts = np.zeros((n, len(gains))), np.zeros((n, 1))
    for group, times in zip(groups, times_drawn.T, strict=True):
        n_slices = group.shape[1]
        # slices drawn for a person who is drawn twice are as if twice as many were drawn once
        sums += generator.multinomial(times * n_slices, np.full(n_slices, 1 / n_slices)) @ group.T
        counts += times[:, None] * n_slices
    return sums / counts
