import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trajdesign.acquisition import Acquisition
from trajdesign.encoding import nufft as kernels
from trajdesign.encoding.density import density_compensation
from trajdesign.encoding.nufft import nufft, nufft_adjoint
from trajdesign.encoding.operator import angular
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.radial import radial


def grid(shape):
    axes = [2 * math.pi * (torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape[::-1]]  # (x, y[, z])
    return torch.stack([g.flatten() for g in torch.meshgrid(*axes, indexing="ij")], dim=-1)


@pytest.mark.parametrize("backend", ["finufft", "torchkbnufft"])
@pytest.mark.parametrize("shape", [(16, 16), (15, 12), (13, 17), (6, 8, 5)], ids=str)
def test_on_a_full_grid_every_weight_is_one_over_n_and_the_image_comes_back(shape, backend):
    omega = grid(shape)
    with kernels.using(backend):
        weights = density_compensation(omega, shape)
    n = math.prod(shape)
    torch.testing.assert_close(weights * n, torch.ones_like(weights), rtol=0, atol=1e-3)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, *shape, generator=generator, dtype=torch.complex128)
    with kernels.using(backend):
        again = nufft_adjoint(weights * nufft(image, omega), omega, shape)
    assert float((again - image).norm() / image.norm()) < 2e-3


def test_twice_the_samples_have_half_the_weight():
    omega = grid((16, 16))
    weights = density_compensation(torch.cat([omega, omega[:40]]), (16, 16))
    torch.testing.assert_close(weights[:40] * 256, torch.full((40,), 0.5).double(), rtol=0, atol=1e-2)
    torch.testing.assert_close(weights[:40], weights[256:], rtol=1e-6, atol=0)
    torch.testing.assert_close(weights[40:256] * 256, torch.ones(216).double(), rtol=0, atol=1e-2)


def test_a_radial_pattern_is_weighted_by_its_radius():
    # below the Nyquist radius the spokes overlap; far outside they stand alone; between, the weight is the ramp
    acquisition = Acquisition((0.22, 0.22), (32, 32), 64, 128, 10e-6)
    trajectory = radial(acquisition, Scanner())
    weights = density_compensation(angular(trajectory).flatten(0, 1), (32, 32), n_iterations=60).view(64, 128)
    radius = (trajectory.k_adc * 0.22).norm(dim=-1)
    part = (radius > 2) & (radius < 13)
    ratio = weights[part] / radius[part]
    assert float(ratio.std() / ratio.mean()) < 0.1
    # the area of a sample in units of 1/FOV^2: radius times angle times spacing, over N pixels
    spacing = float((trajectory.k_adc[0, 1] - trajectory.k_adc[0, 0]).norm() * 0.22)
    assert float(ratio.mean()) == pytest.approx(math.pi / 64 * spacing / 32**2, rel=0.05)


def patterns(seed, kind, n_points):
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        omega = rng.uniform(-np.pi, np.pi, size=(n_points, 2))
    elif kind == "clumped":
        omega = rng.normal(scale=0.05, size=(n_points, 2))
    elif kind == "one place":
        omega = np.zeros((n_points, 2)) + rng.uniform(-1, 1, size=2)
    else:
        omega = np.cumsum(rng.normal(scale=0.05, size=(n_points, 2)), axis=0).clip(-np.pi, np.pi)
    return torch.from_numpy(omega)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["uniform", "clumped", "one place", "walk"]),
    n_points=st.integers(1, 400),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_weights_of_any_pattern_are_positive_and_finite(seed, kind, n_points, dtype):
    weights = density_compensation(patterns(seed, kind, n_points).to(dtype), (16, 16))
    assert weights.shape == (n_points,)
    assert weights.dtype == dtype
    assert torch.isfinite(weights).all()
    assert (weights > 0).all()
    # a sample that stands alone has the area of one cell of the grid
    assert float(weights.max()) * 256 < 1.5


def test_the_fixed_point_does_not_depend_on_the_start():
    omega = patterns(1, "walk", 500)
    fresh = density_compensation(omega, (16, 16), n_iterations=150)
    generator = torch.Generator().manual_seed(0)
    for start in (fresh * 7, torch.rand(500, generator=generator).double() + 0.01, fresh.clone()):
        again = density_compensation(omega, (16, 16), n_iterations=150, start=start)
        torch.testing.assert_close(again, fresh, rtol=1e-4, atol=0)


def test_weights_followed_along_a_moving_trajectory_are_those_computed_afresh():
    acquisition = Acquisition((0.22, 0.22), (32, 32), 8, 128, 10e-6)
    trajectory = radial(acquisition, Scanner())
    generator = torch.Generator().manual_seed(0)
    wave = torch.linspace(0, 6, trajectory.points.shape[1], dtype=torch.float64)
    direction = torch.randn(8, 1, 2, generator=generator, dtype=torch.float64) * wave.sin()[None, :, None]
    weights = None
    for step in range(40):
        moved = trajectory.with_points(trajectory.points + 0.2 * step * direction)
        omega = angular(moved).flatten(0, 1)
        count = {"n_iterations": 1, "start": weights} if weights is not None else {}
        weights = density_compensation(omega, (32, 32), **count)
    fresh = density_compensation(omega, (32, 32), n_iterations=150)
    assert float((weights - fresh).norm() / fresh.norm()) < 0.05
    # what an evaluation computes, in its 30 iterations
    short = density_compensation(omega, (32, 32))
    assert float((short - fresh).norm() / fresh.norm()) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(16, 12), (6, 8, 5)], ids=str)
def test_the_gradient_of_a_step_equals_that_of_exact_sums(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    omega = (torch.rand(60, len(shape), generator=generator, dtype=torch.float64) - 0.5) * 2 * math.pi
    start, weighting = (torch.rand(60, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    weighting *= 1e6  # far from the size of the weights
    exactly, moving = omega.clone().requires_grad_(), omega.to(dtype).requires_grad_()
    distances = torch.meshgrid(*(torch.arange(-n, n + 0.0, dtype=torch.float64) for n in shape), indexing="ij")
    window = math.prod((1 - d.abs() / n for d, n in zip(distances, shape, strict=True)), start=torch.ones(()).double())
    turns = (exactly[:, None] - exactly) @ torch.stack(distances[::-1]).flatten(1)
    tempered = (0.9 * start.log() + 0.1 * start.log().mean()).exp()
    step = tempered / ((turns.cos() @ window.flatten()) @ tempered)
    (exact,) = torch.autograd.grad((step * weighting).sum(), exactly)
    weights = density_compensation(moving, shape, n_iterations=1, start=start)
    (found,) = torch.autograd.grad((weights * weighting.to(dtype)).sum(), moving)
    bound = 1e-10 if dtype == torch.float64 else 1e-3
    assert float((weights - step).detach().norm() / step.detach().norm()) < bound
    assert float((found - exact).norm() / exact.norm()) < bound


@pytest.mark.parametrize("shape_of_sum", ["square", "cosine", "along x"])
def test_the_gradient_is_how_the_settled_weights_follow_slow_changes(shape_of_sum):
    time = torch.linspace(0.05, 1, 600, dtype=torch.float64)
    arm = (0.95 * math.pi * time)[:, None] * torch.stack([(28 * math.pi * time).cos(), (28 * math.pi * time).sin()], -1)
    omega = torch.cat([arm, -arm])
    radius = omega.norm(dim=-1)
    change = omega * torch.cos(1.3 * radius)[:, None]
    weighting = {
        "square": (radius / math.pi).square(),
        "cosine": torch.cos(radius),
        "along x": torch.cos(0.8 * omega[:, 0]),
    }[shape_of_sum]

    def settled(step):
        return density_compensation(omega + step * change, (24, 24), n_iterations=400)

    slope = float(((settled(1e-4) - settled(-1e-4)) * weighting).sum()) / 2e-4
    moving = omega.clone().requires_grad_()
    weights = density_compensation(moving, (24, 24), n_iterations=1, start=settled(0))
    (gradient,) = torch.autograd.grad((weights * weighting).sum(), moving)
    assert abs(slope) > 0.4
    assert float((gradient * change).sum()) == pytest.approx(slope, rel=0.02)
