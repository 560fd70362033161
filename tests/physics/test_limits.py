import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, LimitError
from trajdesign.physics import limits
from trajdesign.scanner import Finding, Scanner
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectory import Trajectory, n_points

GAMMA = 42.577478461e6


def good(norm="vector"):
    return spiral(Acquisition((0.22, 0.2), (32, 32), 4, 303, 4e-6), Scanner(limit_norm=norm))


@pytest.mark.parametrize("norm", ["vector", "axis"])
def test_the_values_are_those_of_plain_differences(norm):
    trajectory = good(norm)
    k = trajectory.points.numpy()
    order = 2 if norm == "vector" else np.inf
    gradient = np.diff(k, axis=1) / 10e-6 / GAMMA
    slew = np.diff(gradient, axis=1) / 10e-6
    findings = {f.name: f for f in limits.check(trajectory)}
    assert list(findings) == limits.standard() == ["extent", "gradient", "receiver", "slew"]
    assert findings["gradient"].value == pytest.approx(np.linalg.norm(gradient, ord=order, axis=-1).max())
    assert findings["receiver"].value == findings["gradient"].value
    assert findings["slew"].value == pytest.approx(np.linalg.norm(slew, ord=order, axis=-1).max())
    assert findings["extent"].value == pytest.approx((np.abs(k) / [16 / 0.22, 16 / 0.2]).max())
    assert findings["gradient"].limit == 50e-3
    assert findings["slew"].limit == 200.0
    # one 1/FOV from sample to sample of the largest field of view
    assert findings["receiver"].limit * GAMMA * 4e-6 * 0.22 == pytest.approx(1)
    assert all(f.ok and f.margin >= 0 for f in findings.values())


def test_the_two_norms_differ_where_both_axes_play():
    trajectory = good()
    k = trajectory.points.clone() * 0
    k[..., 0] = k[..., 1] = torch.arange(k.shape[1]) * 4.0
    values = {}
    for norm in ("vector", "axis"):
        scanner = Scanner(limit_norm=norm)
        values[norm] = limits.check(Trajectory(k, trajectory.acquisition, scanner), ["gradient"])[0].value
    assert values["vector"] == pytest.approx(math.sqrt(2) * values["axis"])


def test_require_names_every_broken_limit_and_where():
    trajectory = good()
    k = 0.4 * trajectory.points
    k[2, 50, 0] += 40
    broken = trajectory.with_points(k, "my scan")
    with pytest.raises(LimitError) as caught:
        limits.require(broken)
    sentence = str(caught.value)
    assert caught.value.exit_code == 4
    assert sentence.startswith("my scan breaks 3 limit(s)")
    for word in ("gradient", "receiver", "slew", "T/m/s", "shot 2", " ms"):
        assert word in sentence
    assert "extent" not in sentence
    assert limits.require(trajectory) == limits.check(trajectory)


def test_only_limits_of_the_image_can_be_ignored():
    assert limits.without(["receiver"]) == ["extent", "gradient", "slew"]
    assert limits.without([]) == limits.standard()
    for name in ("gradient", "slew"):
        with pytest.raises(ConfigError, match="guards the hardware"):
            limits.without([name])
    with pytest.raises(ConfigError, match="did you mean 'receiver'"):
        limits.without(["reciever"])
    assert limits.without(["extent"], ["stimulation", "slew"]) == ["gradient", "receiver", "slew", "stimulation"]
    with pytest.raises(ConfigError, match="'acoustics' is not checked here"):
        limits.without(["acoustics"], ["stimulation"])


def test_a_projection_enforces_the_limits_on_derivatives():
    names = ["stimulation", "slew", "acoustics", "gradient"]
    assert limits.enforceable(names) == ["slew", "gradient"]
    assert limits.enforceable(limits.standard()) == limits.standard()


def test_each_limit_takes_its_own_options():
    options = {
        "stimulation": {"model": "xrm", "limit": 0.7, "weight": 3.0},
        "acoustics": {"bands": [(600.0, 50.0)], "limit": 1e-3, "repetition_time": 0.02, "weight": 4.0},
        "slew": {"weight": 5.0},
    }
    found = limits.constraints(Acquisition(), Scanner(), [*options, "gradient"], options)
    assert [c.weight for c in found] == [3.0, 4.0, 5.0, None]
    assert [c.limit for c in found] == [0.7, 1e-3, Scanner().max_slew, Scanner().max_gradient]
    assert [c.acquisition for c in found] == [Acquisition()] * 4
    assert [c.scanner for c in found] == [Scanner()] * 4


@pytest.mark.parametrize("names", [None, ["slew"], ["extent", "receiver"], []])
def test_the_summary_always_has_both_hardware_maxima(names):
    trajectory = good()
    summary = limits.summary(trajectory, limits.check(trajectory, names))
    findings = {f.name: f for f in limits.check(trajectory)}
    assert summary["max_gradient"] == findings["gradient"].value
    assert summary["max_slew"] == findings["slew"].value
    assert summary["ok"] is True
    checked = limits.standard() if names is None else names
    assert set(summary["constraints"]) == {*checked, "gradient", "slew"}
    every = {"extent", "gradient", "receiver", "slew"}
    assert summary["not_checked"] == sorted(every - {*checked, "gradient", "slew"})
    assert summary["n_broken"] == 0
    assert summary["margin"] == min(findings[name].margin for name in summary["constraints"])
    for name in checked:
        assert summary["constraints"][name]["ok"] is True
        assert summary["constraints"][name]["value"] == findings[name].value


def test_violations_are_counted_by_limit_and_by_time():
    trajectory = good()
    k = torch.zeros_like(trajectory.points)
    assert all(f.n_violations == 0 for f in limits.check(trajectory.with_points(k)))
    k[1, 30:] = 40.0  # one jump is two changes of the gradient
    k[2, 10:12] = 2000.0
    k[3, 5, 0] = math.nan  # what is not a number is broken wherever it reaches
    broken = trajectory.with_points(k)
    summary = limits.summary(broken, limits.check(broken))
    counts = {name: f["n_violations"] for name, f in summary["constraints"].items()}
    assert counts == {"extent": 0 + 2 + 1, "gradient": 1 + 2 + 2, "receiver": 1 + 2 + 2, "slew": 2 + 4 + 3}
    assert summary["n_broken"] == 4
    assert limits.summary(trajectory, limits.check(trajectory))["n_broken"] == 0


def test_what_the_digits_of_a_file_add_breaks_no_limit_of_the_image():
    acquisition, scanner = Acquisition(n_shots=1, n_samples=100), Scanner()
    line = torch.linspace(-1, 1, n_points(acquisition, scanner), dtype=torch.float64)[None, :, None]
    along_x = Trajectory(line * torch.eye(2, dtype=torch.float64)[0], acquisition, scanner)
    for name, kept, broken in (("extent", 1e-6, 2e-5), ("receiver", 5e-4, 2e-3), ("gradient", 1e-10, 1e-7)):
        at_limit = along_x.with_points(along_x.points / (1 - limits.check(along_x, [name])[0].margin))
        for excess, ok in ((kept, True), (broken, False)):
            finding = limits.check(at_limit.with_points(at_limit.points * (1 + excess)), [name])[0]
            assert finding.value / finding.limit - 1 == pytest.approx(excess, rel=1e-3, abs=1e-13)
            assert (finding.ok, finding.n_violations == 0) == (ok, ok)


def test_the_summary_of_a_violation_is_not_ok():
    trajectory = good().with_points(good().points * 3)
    assert limits.summary(trajectory, limits.check(trajectory))["ok"] is False
    # not even when the findings at hand are all kept: the hardware's limits are always part of the verdict
    assert limits.summary(trajectory, limits.check(trajectory, []))["ok"] is False


@pytest.mark.parametrize("end", [0, -1])
def test_the_place_of_a_finding_lies_inside_the_readout(end):
    trajectory = spiral(Acquisition(matrix=(32, 32), n_shots=2, n_samples=400), Scanner())
    k = trajectory.points.clone()
    k[1, end, 0] = 3 * trajectory.acquisition.k_max[0]  # at a control point half a raster outside
    for finding in limits.check(trajectory.with_points(k)):
        assert 0 <= finding.time <= trajectory.acquisition.readout
        assert finding.shot == 1
        assert "-0.000 ms" not in limits.describe(finding)
    assert limits.check(trajectory.with_points(k), ["extent"])[0].time == (
        0 if end == 0 else trajectory.acquisition.readout
    )


def test_what_rounding_made_of_zero_is_zero():
    still = Finding("slew", 2.986e-11, 200.0, "T/m/s", "", ok=True)
    assert limits.worst(still) == "0"
    assert limits.worst(replace(still, value=1e-3)) == "0.001"
    assert limits.worst(replace(still, value=math.nan)) == "nan"
