"""The choice of rows against every system solved by itself, and against every set of rows."""

import itertools
import math

import numpy as np
import pytest
import torch

from trajdesign.learning.line_choice import LineChoice
from trajdesign.reconstruction import coils

N_ROWS, N_COLUMNS, N_COILS = 9, 6, 3


def coil_images(n=2, seed=0):
    """Return coil images (image, coil, y, x), complex128, of rough objects seen by smooth coils."""
    generator = np.random.default_rng(seed)
    y, x = np.arange(N_ROWS)[:, None] / N_ROWS, np.arange(N_COLUMNS) / N_COLUMNS
    seen = [np.exp(-((y - a) ** 2) - (x - b) ** 2 + 2j * a * y) for a, b in generator.uniform(0, 1, (N_COILS, 2))]
    objects = generator.uniform(0.1, 1, (n, 1, N_ROWS, N_COLUMNS))
    return torch.from_numpy(objects * np.stack(seen))


def solved(images, rows):
    """Return the error of a set of rows: every column's equations written out and solved in double precision."""
    maps = coils.smooth_maps(coils.calibration_scan(images, 0.0, [0] * len(images)), images.shape[2:]).numpy()
    where = np.arange(N_ROWS) - N_ROWS // 2
    fourier = np.exp(-2j * np.pi * np.outer(where, where) / N_ROWS) / math.sqrt(N_ROWS)
    logs = []
    for image, seen in zip(images.numpy(), maps, strict=True):
        squared = 0.0
        for column in range(N_COLUMNS):
            sampled = np.concatenate([(fourier * seen[c, :, column])[rows] for c in range(N_COILS)])
            data = np.concatenate([(fourier @ image[c, :, column])[rows] for c in range(N_COILS)])
            normal = sampled.conj().T @ sampled + 0.01 * np.eye(N_ROWS)
            weight = (np.abs(seen[:, :, column]) ** 2).sum(0)
            truth = (seen[:, :, column].conj() * image[:, :, column]).sum(0) / weight
            away = np.linalg.solve(normal, sampled.conj().T @ data) - truth
            squared += (weight * np.abs(away) ** 2).sum()
        logs.append(math.log(squared))
    return np.mean(logs)


def choice(images, **options):
    return LineChoice(images, n_columns=N_COLUMNS, **options)


def test_the_error_with_every_row_more_or_less_is_that_of_the_equations_solved():
    images = coil_images()
    chosen = choice(images)
    for row in (4, 7, 1):
        chosen.add(row)
    chosen.drop(7)
    assert chosen.rows == [1, 4]
    assert chosen.error() == pytest.approx(solved(images, [1, 4]), abs=1e-9)
    more, less = chosen.errors(1), chosen.errors(-1)
    for row in set(range(N_ROWS)) - {1, 4}:
        assert float(more[row]) == pytest.approx(solved(images, [1, 4, row]), abs=1e-9)
    assert float(less[1]) == pytest.approx(solved(images, [4]), abs=1e-9)
    assert float(less[4]) == pytest.approx(solved(images, [1]), abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_are_added_as_one_would_by_solving_for_each(seed):
    images = coil_images(seed=seed)
    chosen, rows = choice(images), []
    for n in range(1, 5):
        others = [row for row in range(N_ROWS) if row not in rows]
        rows = sorted([*rows, min(others, key=lambda row: solved(images, [*rows, row]))])
        chosen.add_best()
        assert chosen.rows == rows
        assert len(rows) == n


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_exchanges_end_where_none_helps_near_the_best_of_all_sets(seed):
    images = coil_images(seed=seed)
    rows = choice(images).choose(4, 20)
    every = {rows: solved(images, list(rows)) for rows in itertools.combinations(range(N_ROWS), 4)}
    assert len(every) == 126
    reached = every[tuple(rows)]
    assert reached <= every[tuple(choice(images).choose(4, 0))] + 1e-9, "than without exchanges"
    # of 126 sets one of the best three
    assert sum(error < reached - 1e-9 for error in every.values()) < 3


def test_an_exchange_keeps_the_number_of_rows_and_never_raises_the_error():
    images = coil_images(3, seed=5)
    chosen = choice(images)
    for row in (0, 1, 2):
        chosen.add(row)
    before, errors = set(chosen.rows), [chosen.error()]
    for _ in range(4):
        chosen.add_best()
        chosen.drop_least()
        assert len(set(chosen.rows)) == 3
        errors.append(chosen.error())
    assert all(after <= former + 1e-9 for former, after in itertools.pairwise(errors))
    assert errors[-1] < errors[0] - 0.1, "the three rows at the edge are no good choice"
    assert set(chosen.rows) != before


def test_all_rows_are_all_rows():
    assert choice(coil_images()).choose(N_ROWS, 20) == list(range(N_ROWS))


def test_what_comes_in_single_precision_is_solved_in_double():
    images = coil_images().to(torch.complex64)
    chosen = choice(images)
    rows = chosen.choose(4, 5)
    assert chosen.error() == pytest.approx(solved(images.to(torch.complex128), rows), abs=1e-9)


def test_noise_raises_the_error_by_what_it_puts_into_the_solution():
    images = coil_images(40, seed=3)
    quiet, noisy = choice(images), choice(images, noise=0.3)
    for chosen in (quiet, noisy):
        chosen.choose(N_ROWS, 0)
    # the maps are those of a noisy calibration too, so no exact sum; without noise next to nothing is left
    assert noisy.error() > quiet.error() + 2


def test_columns_are_taken_evenly_among_those_with_signal():
    images = coil_images()
    images[..., [0, 5]] *= 1e-3
    wide, narrow = choice(images), LineChoice(images, n_columns=2)
    assert len(wide._solution) == 2 * 4
    assert len(narrow._solution) == 2 * 2
    one = LineChoice(images[..., 1:5], n_columns=4)
    assert len(one._solution) == 2 * 4
