"""The bootstrap of people and their slices, against all resamples of small cases and a closed form."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from trajdesign.learning import bootstrap


def every_mean(groups):
    """Return the mean gain of every resample of people and slices that can be drawn, with its probability."""
    found = Counter()
    for people in itertools.product(range(len(groups)), repeat=len(groups)):
        drawn = [itertools.product(groups[person], repeat=len(groups[person])) for person in people]
        for slices in itertools.product(*drawn):
            values = [value for one in slices for value in one]
            weight = math.prod(1 / len(groups[person]) ** len(groups[person]) for person in people)
            found[round(sum(values) / len(values), 9)] += weight / len(groups) ** len(groups)
    return found


@pytest.mark.parametrize("groups", [[[1.0, 2.0], [5.0, 7.0]], [[1.0], [3.0, 4.5], [-2.0]], [[0.0, 1.0, 5.0]]])
def test_the_resamples_are_those_that_can_be_drawn_each_as_often_as_it_is_likely(groups):
    gains = np.array([[value for group in groups for value in group]])
    people = [10 - number for number, group in enumerate(groups) for _ in group]
    found = Counter(bootstrap.resampled(gains, people, 40_000)[:, 0].round(9).tolist())
    expected = every_mean(groups)
    assert sum(expected.values()) == pytest.approx(1)
    assert set(found) <= set(expected)
    for mean, likely in expected.items():
        # five standard deviations of a count
        assert abs(found[mean] / 40_000 - likely) < 5 * math.sqrt(likely / 40_000)
    ends = bootstrap.interval(gains, people)[:, 0]
    means = sorted(expected)
    below = np.cumsum([expected[mean] for mean in means])
    for end, part in zip(ends, (0.025, 0.975), strict=True):
        assert end == means[int(np.searchsorted(below, part))]


def test_the_spread_is_that_of_a_balanced_design_in_closed_form():
    generator = np.random.default_rng(3)
    n_people, n_slices = 6, 20
    gains = generator.normal(size=(2, n_people, 1)) * [[[1.0]], [[0.1]]] + generator.normal(
        size=(2, n_people, n_slices)
    )
    people = np.repeat(np.arange(n_people), n_slices)
    means = bootstrap.resampled(gains.reshape(2, -1), people, 40_000)
    between = gains.mean(2).var(1)
    within = gains.var(2).mean(1)
    expected = between / n_people + within / (n_people * n_slices)
    np.testing.assert_allclose(means.var(0), expected, rtol=0.05)
    np.testing.assert_allclose(means.mean(0), gains.mean((1, 2)), atol=5 * math.sqrt(expected.max() / 40_000))
    alone = bootstrap.resampled(gains.reshape(2, -1), None, 40_000)
    np.testing.assert_allclose(alone.var(0), gains.reshape(2, -1).var(1) / gains[0].size, rtol=0.05)


def test_one_person_is_slices_alone_and_the_order_of_images_does_not_matter_to_whom_they_are_of():
    gains = np.random.default_rng(0).normal(size=(2, 12))
    assert np.array_equal(bootstrap.interval(gains, [7] * 12), bootstrap.interval(gains))
    people = np.repeat([0, 1, 2], 4)
    found = bootstrap.interval(gains, people.tolist())
    assert np.array_equal(found, bootstrap.interval(gains, people.tolist())), "the same every time"
    turn = np.array([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])
    assert np.array_equal(bootstrap.interval(gains[:, turn], people[turn].tolist()), found)
    assert (found[0] <= gains.mean(1)).all()
    assert (gains.mean(1) <= found[1]).all()


def test_what_all_images_gain_has_no_spread_and_one_image_no_interval():
    np.testing.assert_allclose(bootstrap.interval([[0.5] * 6], [0, 0, 1, 1, 1, 2]), 0.5)
    assert np.isnan(bootstrap.interval([[0.5], [0.1]])).all()
    assert np.isnan(bootstrap.interval(np.empty((2, 0)))).all()
