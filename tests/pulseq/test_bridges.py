"""Bridges keep their limits, meet their moments in the played model, and are as short as one axis allows."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, LimitError
from trajdesign.pulseq.writer.bridges import N_ZEROS, BridgeLimits, bridge, design
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points


def spokes(scanner=None, **settings):
    scanner = scanner or Scanner()
    acquisition = Acquisition(**{"n_shots": 5, "n_samples": 300, **settings})
    line = np.linspace(-0.98, 0.98, n_points(acquisition, scanner)) * acquisition.k_max[0]
    angles = 0.1 + np.pi * np.arange(acquisition.n_shots) / acquisition.n_shots
    ends = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Trajectory(torch.from_numpy(line[None, :, None] * ends[:, None]), acquisition, scanner, "spokes")


def played_k(waveforms, scanner, times):
    """Integrate the straight lines between raster centres, from 0 at the edges."""
    shots, cells, _ = waveforms.gradient.shape
    vertices = np.concatenate([[0], np.arange(cells) + 0.5, [cells]]) * waveforms.raster
    values = np.concatenate([np.zeros((shots, 1, 3)), waveforms.gradient, np.zeros((shots, 1, 3))], axis=1)
    grid = np.unique(np.concatenate([vertices, times]))
    k = np.empty((shots, len(times), 3))
    for shot in range(shots):
        for axis in range(3):
            on_grid = np.interp(grid, vertices, values[shot, :, axis])
            # the mean of two ends is exact on a straight line
            area = np.append(0, np.cumsum(np.diff(grid) * (on_grid[1:] + on_grid[:-1]) / 2))
            k[shot, :, axis] = scanner.gamma * np.interp(times, grid, area)
    return k


@pytest.mark.parametrize(
    ("scanner", "dwell"),
    [
        (Scanner(), 4e-6),
        (Scanner(), 5e-6),
        (Scanner(limit_norm="axis"), 4e-6),
        (
            Scanner(gradient_raster=4e-6, rf_raster=2e-6, adc_raster=2e-6, block_raster=4e-6, adc_dead_time=4e-5),
            4e-6,
        ),
        (Scanner(gradient_raster=20e-6, block_raster=40e-6), 4e-6),
    ],
)
def test_the_whole_shot_plays_k_and_keeps_the_limits(scanner, dwell):
    trajectory = spokes(scanner, dwell=dwell)
    shots = design(trajectory, gz_prephaser=-400.0, gz_rewinder=300.0, bridge_slew=0.6)
    acquisition = trajectory.acquisition
    times = shots.adc_start + (np.arange(acquisition.n_samples) + 0.5) * dwell
    k = played_k(shots, scanner, np.append(times, shots.duration))
    fov = acquisition.fov[0]
    assert np.abs(k[:, :-1, :2] - trajectory.k_adc.numpy()).max() * fov < 1e-9
    assert np.abs(k[:, -1, :2]).max() * fov < 1e-9
    assert np.allclose(k[:, :-1, 2], -400.0)
    assert np.allclose(k[:, -1, 2], -100.0)
    # the readout is verbatim, the ends are zero
    readout = slice(shots.n_prephaser, shots.n_prephaser + shots.n_readout)
    assert np.array_equal(shots.gradient[:, readout, :2], trajectory.gradient.numpy())
    assert not shots.gradient[:, :N_ZEROS].any()
    assert not shots.gradient[:, -N_ZEROS:].any()
    slew = np.diff(shots.gradient, axis=1) / shots.raster
    order = 2 if scanner.limit_norm == "vector" else np.inf
    assert np.linalg.norm(shots.gradient, ord=order, axis=2).max() <= scanner.max_gradient
    assert np.linalg.norm(slew, ord=order, axis=2).max() <= 0.6 * scanner.max_slew
    # timing: one length, rasters, dead times
    assert shots.gradient.shape[1] == shots.n_prephaser + shots.n_readout + shots.n_rewinder
    for time, raster in ((shots.duration, scanner.block_raster), (shots.adc_start, scanner.rf_raster)):
        assert time / raster == pytest.approx(round(time / raster), abs=1e-6)
    assert shots.adc_start >= scanner.adc_dead_time - 1e-12
    end = shots.adc_start + acquisition.n_samples * dwell + scanner.adc_dead_time
    assert end <= shots.duration + 1e-12


def test_a_bridge_is_about_as_short_as_the_closed_form():
    # from rest, a moment M needs a triangle of 2 sqrt(M / S) seconds; the raster costs a few cells
    raster, slew = 10e-6, 140.0
    limits = BridgeLimits(50e-3, slew * raster, "vector")
    area = 8e-6  # T s/m; the triangle stays below 50 mT/m
    found = bridge(np.zeros((1, 2, 2)), np.array([[0.6, 0.8]]) * area / raster, 0.0, limits)
    closed = 2 * np.sqrt(area / slew) / raster
    assert closed <= found.shape[1] <= closed + N_ZEROS + 2
    assert np.allclose(found[0].sum(axis=0) * raster, [0.6 * area, 0.8 * area, 0.0], rtol=1e-12)


def fewest(edge, total, limits):
    """Return the fewest cells of one axis by linear programmes of every length."""
    for free in range(N_ZEROS, 500):
        steps = np.diff(np.eye(free + 2), axis=0)[:, 1:-1]  # from the edge, between free samples, to zero
        known = np.concatenate([[-edge], np.zeros(free)])
        found = linprog(
            np.zeros(free),
            A_ub=np.vstack([steps, -steps]),
            b_ub=np.concatenate([limits.step - known, limits.step + known]),
            A_eq=np.ones((1, free)),
            b_eq=[total],
            bounds=(-limits.gradient, limits.gradient),
        )
        if found.status == 0:
            return N_ZEROS + free
    raise AssertionError("too long")


@pytest.mark.parametrize("seed", range(4))
def test_no_bridge_is_shorter_where_each_axis_is_for_itself(seed):
    rng = np.random.default_rng(seed)
    gradient, step = 30e-3, 1e-3
    edge = rng.uniform(-gradient, gradient, size=(2, 2, 2))
    edge[:, 0] = edge[:, 1] + rng.uniform(-step, step, size=(2, 2))
    total = rng.uniform(-1.5, 1.5, size=(2, 2))
    n = bridge(edge, total, 0.0, BridgeLimits(gradient, step, "axis")).shape[1]
    # the solver may use a ten thousandth more than the limits
    slack, exact = (BridgeLimits(gradient * more, step * more, "axis") for more in (1.0002, 1.0))
    cases = [(edge[shot, 1, axis], total[shot, axis]) for shot in range(2) for axis in range(2)]
    assert max(fewest(*case, slack) for case in cases) <= n <= max(fewest(*case, exact) for case in cases)


def test_the_slice_axis_shares_the_cones():
    trajectory = spokes()
    alone = design(trajectory)
    shared = design(trajectory, gz_prephaser=-900.0)
    assert shared.n_prephaser > alone.n_prephaser
    assert np.ptp(shared.gradient[..., 2], axis=0).max() == 0
    assert np.linalg.norm(shared.gradient, axis=2).max() <= trajectory.scanner.max_gradient


def test_less_slew_makes_longer_bridges():
    trajectory = spokes()
    lengths = [design(trajectory, bridge_slew=part).n_prephaser for part in (1.0, 0.7, 0.3)]
    assert lengths == sorted(set(lengths))


def test_a_shot_that_starts_at_rest_in_the_centre_needs_only_zeros():
    acquisition, scanner = Acquisition(n_shots=2, n_samples=200), Scanner()
    ramp = np.linspace(0, 1, n_points(acquisition, scanner))[None, :, None] ** 3
    k = torch.from_numpy(200 * ramp * np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    shots = design(Trajectory(k, acquisition, scanner, "outward"))
    assert shots.n_prephaser <= 2 * N_ZEROS + 2


def test_what_cannot_be_played_is_refused():
    trajectory = spokes()
    kink, hole = trajectory.points.clone(), trajectory.points.clone()
    kink[2, 50:] += 2.0
    hole[1, 7, 0] = torch.nan
    with pytest.raises(LimitError, match="slew, whole shot"):
        design(trajectory.with_points(kink))
    with pytest.raises(LimitError, match="not finite at shot 1, point 7"):
        design(trajectory.with_points(hole))
    with pytest.raises(LimitError, match="no bridge joins shot 0"):
        bridge(np.full((1, 2, 2), 1.0), np.zeros((1, 2)), 0.0, BridgeLimits(0.05, 1e-4, "vector"))
    with pytest.raises(ConfigError, match="bridge_slew"):
        design(trajectory, bridge_slew=1.2)
