"""Exports of random trajectories: what keeps the limits is written and proven, what breaks one leaves no file.

A few in every run; ``pytest -m nightly tests/exporting/test_random_exports.py`` tries 500 of each.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from trajdesign.acquisition import Acquisition
from trajdesign.config import models
from trajdesign.errors import LimitError
from trajdesign.exporting.proof import export
from trajdesign.physics import limits
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points
from trajdesign.units import GAMMA

#: A failing example is shown as it is: making it smaller would take hundreds of exports.
QUICK = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
FULL = settings(QUICK, max_examples=500)

#: pypulseq's own word on the planted files.
pytestmark = pytest.mark.filterwarnings("ignore:write\\(\\)")

BREAKS = ("slew", "gradient", "raster", "joint", "start or end", "nan", "inf")
#: A thin slice needs more gradient than some of these scanners have for some nuclei.
THICK = {"gre_2d": {"rf_duration": 8e-3, "slice_thickness": 0.02}, "gre_3d": {"rf_duration": 8e-3}}
PLANTED = """
from trajdesign.config import plugins


def build(trajectory):
    sequence = plugins.find("sequence", "{name}")(trajectory, n_dummies=0, {thick})
    {damage}
    return sequence
"""
_GRADIENTS = (
    "keys = [key for key, kind in sequence.grad_library.type.items() if kind == 'g']; key = keys[len(keys) // 2]"
)
_ROW = "; a, f, l, *rest = sequence.grad_library.data[key]; sequence.grad_library.data[key] = "
DAMAGE = {
    "joint": _GRADIENTS + _ROW + "(a, f, 0.3 * a, *rest)",
    "start or end": _GRADIENTS + _ROW + "(a, 0.3 * a, l, *rest)",
}


@st.composite
def scanners(draw):
    """Any vendor's rasters, any nucleus, limits from a table-top magnet to a head insert."""
    nucleus = draw(st.sampled_from(sorted(GAMMA)))
    strengths = {"max_gradient": draw(st.floats(15e-3, 0.3)), "max_slew": draw(st.floats(40, 700))}
    norm = draw(st.sampled_from(["vector", "axis"]))
    table = {"profile": draw(st.sampled_from(models.profiles())), "nucleus": nucleus, "limit_norm": norm, **strengths}
    return Scanner(**models.with_profile(table))


@st.composite
def trajectories(draw):
    """A classical pattern or smooth noise that keeps every limit, of 1 to 64 shots of 64 to 8192 samples."""
    scanner = draw(scanners())
    n_dims = draw(st.sampled_from([2, 2, 3]))
    # exponents, so that most are small and some large
    n_shots, n_samples = (round(2 ** draw(st.floats(*ends))) for ends in ((0, 6), (6, 13)))
    fov = tuple(draw(st.floats(0.02, 0.5)) for _ in range(n_dims))
    matrix = tuple(2 * draw(st.integers(8, 160)) for _ in range(n_dims))
    dwell = draw(st.integers(5, 50)) * max(scanner.adc_raster, 200e-9)
    acquisition = Acquisition(fov, matrix, n_shots, min(n_samples, 300_000 // n_shots), min(dwell, 10e-6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    t = np.linspace(0, 1, n_points(acquisition, scanner))
    modes = draw(st.integers(1, 12))
    if draw(st.booleans()):  # spokes, interleaves and curves between them
        turns = draw(st.floats(0, 4))
        angle = 2 * np.pi * (turns * t[None] + rng.uniform(size=(n_shots, 1)))
        start = draw(st.sampled_from([-1.0, 0.0]))
        radius = start + (1 - start) * t
        k = radius[None, :, None] * np.stack([np.cos(angle), np.sin(angle), np.cos(2 * angle)], axis=-1)[..., :n_dims]
    else:
        size = rng.normal(size=(n_shots, n_dims, modes)) / np.arange(1, modes + 1)
        k = np.einsum("sdm,mt->std", size, np.stack([np.cos(np.pi * m * t) for m in range(modes)]))
    k = k * np.array(acquisition.k_max)
    trajectory = Trajectory(torch.from_numpy(k), acquisition, scanner, "random")
    # every limit is on a norm of something linear in k
    worst = max(finding.value / finding.limit for finding in limits.check(trajectory))
    return trajectory.with_points(trajectory.points * (draw(st.floats(0.3, 0.999)) / worst))


def template(trajectory):
    return "gre_2d" if trajectory.acquisition.n_dims == 2 else "gre_3d"


def exported(trajectory, folder, sequence=None):
    name = template(trajectory)
    return export(
        trajectory,
        folder / "x.seq",
        options={"sequence": sequence or {"kind": name, "n_dummies": 0, **THICK[name]}},
        overwrite=True,
    )


def check_feasible(trajectory, folder):
    report = exported(trajectory, folder)
    assert report["max_k_error_fov"] <= 1e-3
    assert set(report["k_error_fov_by_reader"]) == {"seqfile", "pypulseq"}
    assert report["reader_difference_fov"] <= 1e-6
    if trajectory.scanner.limit_norm == "vector":
        assert report["max_gradient"] <= trajectory.scanner.max_gradient * (1 + 1e-6)
        assert report["max_slew"] <= trajectory.scanner.max_slew * (1 + 1e-6)
    assert (folder / "x.seq").exists()


def broken(trajectory, how, where):
    """Return the trajectory with one break at a part of its length, and what plays it."""
    scanner, acquisition = trajectory.scanner, trajectory.acquisition
    k = trajectory.points.clone()
    shot, point = int(where * (len(k) - 1)), int(where * (k.shape[1] - 1))
    unit = scanner.gamma * scanner.gradient_raster
    if how in ("nan", "inf"):
        k[shot, point, 0] = float(how)
    elif how == "slew":
        k[shot, point, 0] += 2.1 * unit * scanner.gradient_raster * scanner.max_slew
    elif how == "gradient":
        k[shot, :, 0] += unit * 2.1 * scanner.max_gradient * torch.arange(k.shape[1])
    elif how == "raster":
        odd = round(acquisition.dwell / 100e-9) * 100e-9 + 37e-9
        moved = Acquisition(acquisition.fov, acquisition.matrix, acquisition.n_shots, acquisition.n_samples, odd)
        points = torch.linspace(0, k.shape[1] - 1, n_points(moved, scanner)).long()
        return Trajectory(0 * k[:, points], moved, scanner, "broken"), None
    return trajectory.with_points(k, "broken"), DAMAGE.get(how)


def check_broken(trajectory, how, where, folder):
    planted, damage = broken(trajectory, how, where)
    sequence = None
    if damage is not None:
        name = template(trajectory)
        thick = ", ".join(f"{option}={value}" for option, value in THICK[name].items())
        Path(folder / "planted.py").write_text(PLANTED.format(name=name, thick=thick, damage=damage))
        sequence = str(folder / "planted.py")
    with pytest.raises(LimitError) as refused:
        exported(planted, folder, sequence)
    assert refused.value.exit_code == 4
    assert not list(folder.glob("*x*"))


@QUICK
@given(trajectory=trajectories())
def test_what_keeps_the_limits_is_exported(trajectory, tmp_path_factory):
    check_feasible(trajectory, tmp_path_factory.mktemp("feasible"))


@QUICK
@given(trajectory=trajectories(), how=st.sampled_from(BREAKS), where=st.floats(0, 1))
def test_one_break_is_refused(trajectory, how, where, tmp_path_factory):
    check_broken(trajectory, how, where, tmp_path_factory.mktemp("broken"))


@pytest.mark.nightly
@pytest.mark.timeout(0)
@FULL
@given(trajectory=trajectories())
def test_500_feasible(trajectory, tmp_path_factory):
    check_feasible(trajectory, tmp_path_factory.mktemp("feasible"))


@pytest.mark.nightly
@pytest.mark.timeout(0)
@FULL
@given(trajectory=trajectories(), how=st.sampled_from(BREAKS), where=st.floats(0, 1))
def test_500_broken(trajectory, how, where, tmp_path_factory):
    check_broken(trajectory, how, where, tmp_path_factory.mktemp("broken"))
