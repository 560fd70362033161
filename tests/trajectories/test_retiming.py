"""The fastest traversal of a given path: against closed forms, convex programmes, and every limit."""

import math

import clarabel
import numpy as np
import pytest
import torch
from scipy import sparse

import trajdesign as td
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.trajectories.design import Bounds
from trajdesign.trajectories.phase_plane import Path, fastest
from trajdesign.trajectories.retiming import path_residual, retime

ACQUISITION = td.Acquisition(n_shots=1)
SCANNER = td.Scanner()
RASTER = SCANNER.gradient_raster
SPEED = min(SCANNER.gamma * SCANNER.max_gradient, 1 / (ACQUISITION.dwell * 0.22))
ACCELERATION = SCANNER.gamma * SCANNER.max_slew


def wave(seed, n=300, dims=2, reach=250.0):
    """Return a random path (1, point, dim), 1/m: a few harmonics."""
    random, t = np.random.default_rng(seed), np.linspace(0, np.pi, n)[:, None]
    k = sum(
        (random.normal(size=dims) * np.cos(m * t) + random.normal(size=dims) * np.sin(m * t)) / m for m in range(1, 6)
    )
    return (reach * k / np.abs(k).max())[None]


def ring(radius, n=2000, turns=3):
    """Return turns of a circle (1, point, 2), 1/m."""
    angle = np.linspace(0, 2 * np.pi * turns, n)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None]


@pytest.mark.parametrize("length", [2.0, 20.0, 100.0, 500.0])
def test_a_line_takes_the_samples_of_the_best_trapezoid(length):
    k = np.linspace(-length / 2, length / 2, 40)[None, :, None] * [0.6, 0.8]
    found = retime(k, td.Acquisition(n_shots=1, matrix=(256, 256)), SCANNER)

    def reach(inner):  # of so many samples between two of zero, in one direction
        step = np.minimum(np.arange(1, inner + 1), np.arange(inner, 0, -1))
        return np.minimum(step * ACCELERATION * RASTER, SPEED).sum() * RASTER

    best = next(inner for inner in range(1, 1000) if reach(inner) >= length) + 2
    assert best <= found.gradient.shape[1] <= best + 1
    assert path_residual(found, k) < 1e-5


@pytest.mark.parametrize("radius", [10.0, 50.0, 150.0])
def test_a_circle_is_played_at_the_speed_that_the_slew_rate_allows(radius):
    k = ring(radius)
    found = retime(k, ACQUISITION, SCANNER, start_at_rest=False, end_at_rest=False)
    least = 6 * np.pi * radius / min(math.sqrt(ACCELERATION * radius), SPEED)
    assert least < (found.points.shape[1] - 1) * RASTER < 1.01 * least + RASTER
    assert path_residual(found, k) < 1e-3
    c = found.points[0].numpy()
    for part in (0.0, 0.3, 0.5, 0.8):
        played = (1 - part) ** 2 / 2 * c[:-2] + (0.5 + part - part**2) * c[1:-1] + part**2 / 2 * c[2:]
        off = np.abs(np.linalg.norm(played, axis=-1) - radius).max() * 0.22
        assert off < path_residual(found, k) + 1e-5


@pytest.mark.parametrize("norm", ["vector", "axis"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_convex_programme_traverses_a_path_faster(norm, seed):
    bounds = Bounds(SPEED, ACCELERATION, norm)
    path = Path.through(wave(seed)[0], bounds, RASTER / 3)
    # the largest squared speeds u have the largest sum; the acceleration is du/ds / 2 along the path, bend u across it
    steps, n = np.diff(path.arc), len(path.arc)
    rows = np.arange(n - 1)
    axes = []
    for axis in range(2):
        along = path.tangent[:-1, axis] / (2 * steps)
        here = sparse.csr_array((path.bend[:-1, axis] - along, (rows, rows)), (n - 1, n))
        axes.append((here + sparse.csr_array((along, (rows, rows + 1)), (n - 1, n))) * (SPEED**2 / ACCELERATION))
    speeds = np.abs(path.tangent).max(axis=1) if norm == "axis" else np.ones(n)
    most = 1 / speeds**2
    most[[0, -1]] = 0
    blocks, right = [sparse.eye_array(n), -sparse.eye_array(n)], [most, np.zeros(n)]
    cones = [clarabel.NonnegativeConeT(2 * n)]
    if norm == "axis":
        blocks += [*axes, *(-axis for axis in axes)]
        right += [np.ones(4 * (n - 1))]
        cones += [clarabel.NonnegativeConeT(4 * (n - 1))]
    else:
        order = np.arange(3 * (n - 1)).reshape(3, -1).T.ravel()  # (limit, x, y) of each interval
        blocks += [sparse.vstack([sparse.csr_array((n - 1, n)), *axes]).tocsr()[order]]
        right += [np.concatenate([np.ones(n - 1), np.zeros(2 * (n - 1))])[order]]
        cones += [clarabel.SecondOrderConeT(3)] * (n - 1)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    matrix = sparse.csc_matrix(sparse.vstack(blocks))
    nothing = sparse.csc_matrix((n, n))
    solved = clarabel.DefaultSolver(nothing, -np.ones(n), matrix, np.concatenate(right), cones, settings).solve()
    v = SPEED * np.sqrt(np.maximum(solved.x, 0))
    least = (2 * steps / (v[1:] + v[:-1])).sum()
    assert fastest(path, bounds, np.ones(n)).duration == pytest.approx(least, rel=2e-3)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["vector", "axis"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-3])
def test_every_limit_holds_and_the_ends_are_exact(dims, norm, tolerance):
    acquisition = td.Acquisition(fov=(0.22,) * dims, matrix=(128,) * dims, n_shots=3)
    scanner = td.Scanner(limit_norm=norm)
    k = np.concatenate([wave(seed, dims=dims) for seed in range(3)])
    found = td.retime(k, acquisition, scanner, tolerance=tolerance)
    assert all(finding.value <= finding.limit for finding in td.check(found))
    assert max(finding.value / finding.limit for finding in td.check(found, ["slew"])) > 0.98
    for end, at in ((0, slice(2)), (-1, slice(-2, None))):
        np.testing.assert_allclose(found.points[:, at], np.repeat(k[:, [end]], 2, axis=1), rtol=1e-12)
    assert path_residual(found, k) < 1.01 * tolerance
    # all of the path is played: near each of its points there is something
    played = ((found.points[:, 1:] + found.points[:, :-1]) / 2).numpy()
    for shot, given in zip(played, k, strict=True):
        gap = np.linalg.norm(np.diff(shot, axis=0), axis=-1).max()
        assert np.linalg.norm(given[:, None] - shot, axis=-1).min(axis=1).max() < gap


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_an_end_may_be_passed_at_speed(seed):
    k = wave(seed)
    at_rest, passing = (retime(torch.from_numpy(k), ACQUISITION, SCANNER, end_at_rest=rest) for rest in (True, False))
    assert passing.points.shape[1] < at_rest.points.shape[1]
    assert all(finding.ok for finding in td.check(passing))
    assert np.linalg.norm(passing.points[0, -1].numpy() - k[0, -1]) < 0.03 / 0.22
    assert path_residual(passing, k) < 1e-2


def test_limits_hold_beyond_the_ends_too():
    found = retime(wave(4), ACQUISITION, SCANNER)
    gradient = np.pad(found.gradient[0].numpy(), ((3, 3), (0, 0)))
    assert np.linalg.norm(np.diff(gradient, axis=0), axis=-1).max() <= SCANNER.max_slew * RASTER


def test_axes_of_their_own_are_faster_than_the_vector():
    vector, axis = (retime(wave(0), ACQUISITION, td.Scanner(limit_norm=norm)) for norm in ("vector", "axis"))
    assert axis.points.shape[1] < vector.points.shape[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_nerves_slow_down_only_where_they_must(seed):
    options = {"stimulation": {"model": "xrm"}}
    free = retime(wave(seed), ACQUISITION, SCANNER)
    found = retime(wave(seed), ACQUISITION, SCANNER, nerves="xrm")
    before, after = (td.check(which, ["stimulation"], options)[0] for which in (free, found))
    assert before.value > 1.1 * before.limit
    assert 0.98 * after.limit < after.value <= after.limit
    assert all(finding.ok for finding in td.check(found))
    # as slow throughout as the whole readout allows is not slow enough
    acquisition = found.acquisition
    slower = retime(wave(seed), acquisition, SCANNER, fill_readout=True)
    assert td.check(slower, ["stimulation"], options)[0].value > after.limit


def test_a_readout_is_filled_or_refused_with_the_samples_that_it_needs():
    k = np.concatenate([wave(0), 0.3 * wave(1)])
    acquisition = td.Acquisition(n_shots=2, n_samples=1000)
    filled = retime(k, acquisition, SCANNER, "mine", fill_readout=True)
    assert filled.acquisition == acquisition
    assert filled.name == "mine"
    np.testing.assert_allclose(filled.points[:, -1], k[:, -1], rtol=1e-12)
    quickest = retime(k, acquisition, SCANNER).acquisition.n_samples
    fits = retime(k, td.Acquisition(n_shots=2, n_samples=quickest), SCANNER, fill_readout=True)
    assert all(finding.ok for finding in td.check(fits))
    with pytest.raises(LimitError, match=f"{quickest} samples of 4 us at best, the readout has {quickest - 10}"):
        retime(k, td.Acquisition(n_shots=2, n_samples=quickest - 10), SCANNER, fill_readout=True)


@pytest.mark.parametrize(
    ("path", "options", "error", "words"),
    [
        (wave(0)[0], {}, InputError, r"\(1, any, 2\)"),
        (np.full((1, 5, 2), np.nan), {}, InputError, "not finite at shot 0, point 0"),
        (np.ones((1, 5, 2)), {}, InputError, "shot 0: all points of a path are in one place"),
        (np.abs(np.linspace(-9.0, 9.0, 19))[None, :, None] * [1, 0], {}, InputError, "turns back on itself at k"),
        (2 * wave(0), {}, LimitError, "give a path inside k_max"),
        (wave(0), {"tolerance": 1e-6}, ConfigError, "tolerance is 1e-06"),
        (wave(0), {"nerves": "mine"}, ConfigError, "unknown nerve model"),
    ],
)
def test_what_cannot_be_played_is_refused(path, options, error, words):
    with pytest.raises(error, match=words):
        retime(path, ACQUISITION, SCANNER, **options)
