"""Shots that keep their shape: what they may do, the limits that they never break, and how far a step moves them."""

import math

import numpy as np
import pytest
import torch
from faults.tiny import tiny
from scipy.spatial.transform import Rotation
from slopes import require_slopes

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics import limits
from trajdesign.physics.projection import Projection
from trajdesign.scanner import Scanner

ALL = {"rotation": True, "scale": True, "shift": True}
PATTERNS = [
    {"kind": "radial"},
    {"kind": "spiral"},
    {"kind": "rosette", "turns": 0.5},
    {"kind": "cartesian"},
    {"kind": "cartesian", "wave": 0.5},
]


def start(pattern="spiral", norm="vector", fov=(0.22, 0.22), **options):
    acquisition = Acquisition(fov, (32, 32), 5, 400, 4e-6)
    return plugins.build("init", {"kind": pattern, **options}, acquisition, Scanner(limit_norm=norm))


def rigid(initial, **options):
    return plugins.build("parameterization", {"kind": "rigid", **options}, initial)


def spread(model, size, seed=0):
    """Move all that is learned by normal numbers of a size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, size, generator=generator)
    return model


def misfit(k, shape):
    """Largest distance of shots (shot, point, 2) from the shape after the best turn and size, in parts of the shape."""
    one, other = (values.numpy() @ np.array([1, 1j]) for values in (k, shape))
    factor = (other.conj() * one).sum(1) / (np.abs(other) ** 2).sum(1)
    return np.abs(one - factor[:, None] * other).max() / np.abs(other).max()


def test_a_shot_in_the_plane_is_turned_by_its_angle():
    model = rigid(start())
    assert [name for name, _ in model.named_parameters()] == ["angles"]
    angles = np.linspace(-3, 3, 5)
    model.angles.data[:, 0, 0] = torch.from_numpy(angles)
    wanted = np.exp(1j * angles)[:, None] * (model.initial.points.numpy() @ [1, 1j])
    np.testing.assert_allclose(model().points.detach().numpy() @ [1, 1j], wanted, rtol=0, atol=1e-10)


def test_a_shot_in_space_is_turned_about_three_axes():
    acquisition = Acquisition((0.22, 0.22, 0.22), (24, 24, 24), 5, 200, 4e-6)
    # of half the size, so that no corner of k-space bounds it
    spokes = plugins.build("init", {"kind": "radial"}, acquisition, Scanner())
    model = spread(rigid(spokes.with_points(spokes.points / 2)), 1.0)
    assert [tuple(p.shape) for p in model.parameters()] == [(5, 1, 3)]
    xy, xz, yz = model.angles.detach().numpy()[:, 0].T
    turns = Rotation.from_rotvec(np.stack([yz, -xz, xy], axis=-1))
    wanted = np.stack([turn.apply(k) for turn, k in zip(turns, model.initial.points.numpy(), strict=True)])
    np.testing.assert_allclose(model().points.detach().numpy(), wanted, rtol=0, atol=1e-10)


def test_sizes_and_shifts_are_learned_where_wanted():
    small = start().with_points(start().points / 4)
    model = rigid(small, rotation=False, scale=True, shift=True)
    model.sizes.data[:, 0, 0] = torch.linspace(-1, 0.5, 5)
    model.shifts.data[:, 0] = torch.tensor([0.25, -0.125])
    k_max = torch.tensor(small.acquisition.k_max, dtype=torch.float64)
    wanted = torch.linspace(-1, 0.5, 5).double().exp()[:, None, None] * small.points
    torch.testing.assert_close(model().points, wanted + torch.tensor([0.25, -0.125]) * k_max, rtol=0, atol=1e-10)
    with pytest.raises(ConfigError, match="rotation, scale and shift are all false"):
        rigid(small, rotation=False)


@pytest.mark.parametrize("norm", ["vector", "axis"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda table: " ".join(map(str, table.values())))
@pytest.mark.parametrize("options", [{}, ALL], ids=["turned", "turned, scaled, shifted"])
def test_no_limit_is_ever_broken_and_no_shot_bent(pattern, norm, options):
    initial = start(pattern["kind"], norm, (0.24, 0.2), **{k: v for k, v in pattern.items() if k != "kind"})
    enforced = [name for name in limits.standard() if name in limits.enforceable(limits.standard())]
    for seed, size in enumerate((0.03, 0.3, 3.0)):
        model = spread(rigid(initial, **options), size, seed)
        found = model()
        found = found.with_points(found.points.detach())
        limits.require(found, enforced)
        shape = initial.points if model.shifts is None else initial.points - initial.points.mean(1, keepdim=True)
        moved = found.points if model.shifts is None else found.points - found.points.mean(1, keepdim=True)
        assert misfit(moved, shape) < 1e-12
        projection = Projection(limits.constraints(initial.acquisition, initial.scanner, enforced), initial)
        moved = (projection(found).points - found.points).abs().amax((1, 2)) / max(initial.acquisition.k_max)
        assert float(moved.max()) < 1e-9


def test_where_a_bound_holds_it_shrinks_the_shot_as_little_as_it_must():
    # the line at the lower edge, turned by half a right angle: its end would lie sqrt(2) k_max out on one axis
    lines = start("cartesian")
    model = rigid(lines)
    model.angles.data[:] = math.pi / 4
    found = model().points.detach()
    k_max = lines.acquisition.k_max[0]
    length = torch.linalg.vector_norm(found, dim=-1).amax(1) / torch.linalg.vector_norm(lines.points, dim=-1).amax(1)
    corner = (lines.points[0] @ torch.tensor([[1.0, 1], [-1, 1]]).double()).abs().max() / math.sqrt(2) / k_max
    assert float(corner) > 1.2
    assert float(length[0]) == pytest.approx((1 - 2e-4) / float(corner), rel=1e-9)
    assert float(found[0].abs().max()) == pytest.approx((1 - 2e-4) * k_max, rel=1e-9)


def test_a_limit_that_the_start_is_beyond_is_passed_no_further():
    far = start("radial").with_points(1.2 * start("radial").points)
    model = spread(rigid(far), 1.0)
    extent = limits.constraints(far.acquisition, far.scanner, ["extent"])[0]
    before, after = (extent.measure(trajectory).amax(1).detach() for trajectory in (far, model()))
    assert float(before.max()) == pytest.approx(1.2)
    assert bool((after <= before.clamp_min(1) * (1 + 1e-12)).all())
    model.angles.data[:] = math.pi
    is_beyond = before > 1
    assert 0 < int(is_beyond.sum()) < 5
    torch.testing.assert_close(model().points[is_beyond], -far.points[is_beyond], rtol=0, atol=1e-10)


@pytest.mark.parametrize("pattern", ["radial", "spiral"])
@pytest.mark.parametrize("what", ["rotation", "scale", "shift"])
def test_a_step_moves_the_outermost_point_as_far_as_other_parameterizations_do(pattern, what):
    initial = start(pattern)
    # a little smaller, so that it has room
    initial = initial.with_points(0.9 * initial.points)
    asked = {"rotation": False, what: True}
    moved = {}
    for table in ({"kind": "rigid", **asked}, {"kind": "samples"}):
        model = plugins.build("parameterization", table, initial)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(initial.points.shape, generator=generator, dtype=torch.float64)
        (model().points * weights).sum().backward()
        optimizer.step()
        apart = (model().points.detach() - initial.points).abs().amax()
        moved[table["kind"]] = float(apart) / initial.acquisition.k_max[0]
    assert moved["samples"] == pytest.approx(0.01, rel=1e-6)
    assert moved["rigid"] == pytest.approx(0.01, rel=0.15)


def test_the_gradient_is_that_of_finite_differences():
    initial = start().with_points(start().points / 2)
    model = spread(rigid(initial, **ALL), 0.1)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(initial.points.shape, generator=generator, dtype=torch.float64)

    def value():
        return (model().points.square() * weights).sum()

    require_slopes(model, value, generator)


@pytest.mark.parametrize("options", ["", "parameterization.scale=true"])
def test_what_a_run_has_learned_is_still_rigid_and_within_the_limits(tmp_path, options):
    settings = ["parameterization={kind='rigid'}", *([options] if options else []), "training.trajectory_rate=0.05"]
    optimize(tiny(*settings), tmp_path / "run", device="cpu", baseline=False)
    learned = RunFolder(tmp_path / "run").trajectory()
    before = RunFolder(tmp_path / "run").start()
    # the spoke that starts at k_max is clipped once, before it moves, and the projection forgets that slowly
    assert misfit(learned.points, before.points) < 1e-7
    limits.require(learned, limits.enforceable(limits.standard()))
    first, last = (values.points.numpy() @ [1, 1j] for values in (before, learned))
    angles = np.angle((first.conj() * last).sum(1))
    assert np.abs(angles).min() > 1e-3
    if not options:
        np.testing.assert_allclose(np.abs(last), np.abs(first), rtol=2.001e-4)
