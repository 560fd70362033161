"""Echo times against lines and parabolas whose nearest points are known, and against a search on the exact curve."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.encoding.echo import EchoTimes, k_at, passages
from trajdesign.encoding.psf import psf
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points


def start(kind, dwell=4e-6, n_samples=600, **options):
    acquisition = Acquisition((0.22, 0.22), (64, 64), 4, n_samples, dwell)
    return plugins.build("init", {"kind": kind, **options}, acquisition, Scanner())


def test_lines_at_constant_speed_are_nearest_where_geometry_says():
    when = np.array([10.0, 10.3, 25.49, 25.5, 0.2, 58.7])  # samples
    miss = np.array([0.0, 3.0, 0.0, 7.0, 1.0, 2.0])  # 1/m, across the line
    angle = np.linspace(0, 3, len(when))
    along, across = np.stack([np.cos(angle), np.sin(angle)], -1), np.stack([-np.sin(angle), np.cos(angle)], -1)
    samples = np.arange(60)
    k = 4.0 * (samples - when[:, None])[..., None] * along[:, None] + (miss[:, None] * across)[:, None]
    found = EchoTimes.of_samples(k, 4e-6, (0.25, 0.25))
    assert found.times == pytest.approx(when * 4e-6, abs=1e-12)
    assert found.distances == pytest.approx(miss * 0.25, abs=1e-9)
    assert found.spread == pytest.approx((58.7 - 0.2) * 4e-6)
    assert found.facts["echo_time_s"] == pytest.approx(np.median(when) * 4e-6)
    assert found.facts["echo_k_fov"] == pytest.approx(7 * 0.25)


def test_shots_that_start_at_the_centre_have_their_echo_then():
    t = np.arange(50.0)
    k = np.stack([t**2, 0.3 * t**2], axis=-1)[None]  # from rest
    found = EchoTimes.of_samples(k, 2e-6, (0.2, 0.2))
    assert found.times == pytest.approx([0.0], abs=1e-12)
    resting = EchoTimes.of_samples(np.ones((1, 50, 2)), 2e-6, (0.2, 0.2))
    assert resting.times == pytest.approx([0.0], abs=1e-12)


def test_the_axes_count_in_parts_of_their_fov():
    # at t = 0 near along y, at t = 1 near along x: which is nearer depends on the field of view
    k = np.array([[[30.0, 0.0], [20.0, 3.0], [10.0, 6.0], [0.0, 9.0]]])
    assert EchoTimes.of_samples(k, 1.0, (0.2, 0.2)).times[0] > 2
    assert EchoTimes.of_samples(k, 1.0, (0.02, 2.0)).times[0] < 1


@pytest.mark.parametrize("seed", range(4))
def test_a_passage_is_where_a_search_on_the_exact_curve_finds_it(seed):
    acquisition, scanner = Acquisition((0.22, 0.22), (64, 64), 1, 200, 4e-6), Scanner()
    rng, t = np.random.default_rng(seed), np.linspace(-1, 1, n_points(acquisition, scanner))
    bend = rng.normal(size=(2, 2)) * 10
    k = np.stack([60 * (t - 0.137) + bend[0, 0] * (t - 0.137) ** 2, bend[1, 0] * (t - 0.137)], -1)
    trajectory = Trajectory(torch.from_numpy(k[None]), acquisition, scanner)
    found = passages(trajectory)
    exact = minimize_scalar(
        lambda time: float(np.linalg.norm(k_at(trajectory, np.array([time])))),
        bounds=(found[0].time - 2e-5, found[0].time + 2e-5), method="bounded", options={"xatol": 1e-12},
    )  # fmt: skip
    assert len(found) == 1
    assert found[0].time == pytest.approx(exact.x, abs=1e-9)
    assert found[0].distance <= exact.fun * 0.22 + 1e-12


@pytest.mark.parametrize(
    ("kind", "options", "times"),
    [
        ("radial", {}, [1.2e-3]),
        ("spiral", {}, [0.0]),
        ("spiral", {"in_out": True}, [1.2e-3]),
        ("rosette", {"petals": 4}, [0.6e-3, 1.2e-3, 1.8e-3]),  # petals of one length
    ],
)
def test_the_passages_of_patterns_are_where_they_are_designed(kind, options, times):
    found = sorted(passages(start(kind, **options)), key=lambda passage: passage.time)
    assert [passage.time for passage in found] == pytest.approx(times, abs=8e-6)
    assert max(passage.distance for passage in found) < 0.05


def test_lines_of_their_own_never_pass_together():
    [passage] = passages(start("cartesian"))
    assert passage.distance == pytest.approx(32, abs=1)


@pytest.mark.parametrize("dwell", [4e-6, 5e-6])
def test_what_is_not_at_a_sample_is_found_between_two(dwell):
    trajectory = start("radial", dwell=dwell)
    angle = torch.arange(4, dtype=torch.float64)
    speed = (trajectory.points[:, 1] - trajectory.points[:, 0]) / 10e-6
    late = trajectory.with_points(trajectory.points - speed[:, None] * (0.3e-6 * angle)[:, None, None])
    found = EchoTimes.of(late)
    assert found.times == pytest.approx(300 * dwell + 0.3e-6 * np.arange(4), abs=1e-11)
    assert found.spread == pytest.approx(0.9e-6, abs=1e-11)
    assert psf(late).to_dict()["echo_time_spread_s"] == pytest.approx(0.9e-6, abs=1e-11)
