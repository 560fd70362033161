"""Offsets on splines: what the splines are, and that refining them leaves the curve and Adam as they are."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError
from trajdesign.learning.offset import natural_spline
from trajdesign.learning.parameterizations.bspline import b_splines
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.spiral import spiral

KINDS = [
    {"kind": "samples", "decimation": 8},
    {"kind": "samples", "decimation": 4, "gap": 3},
    {"kind": "bspline", "decimation": 16, "n_control": 50},
    {"kind": "bspline", "decimation": 64, "n_control": 5, "degree": 2},
]


def initial():
    return spiral(Acquisition((0.22, 0.2), (32, 32), 3, 303, 4e-6), Scanner())


def offset(model):
    """Return what a parameterization adds (shot, point, dim), in k_max."""
    start = model.initial
    return ((model().points - start.points) / torch.tensor(start.acquisition.k_max)).detach()


def residual(basis, values):
    """Largest distance of values (shot, row, dim) from the span of a basis (row, column)."""
    basis, values = basis.numpy(), values.transpose(0, 1).flatten(1).numpy()
    return np.abs(basis @ np.linalg.lstsq(basis, values, rcond=None)[0] - values).max()


# --- splines ---


@pytest.mark.parametrize(("n_points", "gap"), [(41, 1), (41, 8), (44, 8), (42, 4), (9, 8), (9, 50)])
def test_a_natural_spline_is_straight_at_its_ends_and_smooth_at_its_knots(n_points, gap):
    splines = natural_spline(n_points, gap).numpy()
    knots = sorted({*range(0, n_points, gap), n_points - 1})
    assert splines.shape == (n_points, len(knots))
    np.testing.assert_allclose(splines[knots], np.eye(len(knots)), atol=1e-15)
    np.testing.assert_allclose(splines.sum(axis=1), 1)
    np.testing.assert_allclose(splines @ (3.0 * np.array(knots) - 5), 3.0 * np.arange(n_points) - 5, atol=1e-11)
    # of all functions through the knots it bends least
    wanted = np.random.default_rng(0).normal(size=len(knots))
    curve = CubicSpline(knots, wanted, bc_type=((2, 0.0), (2, 0.0)))
    np.testing.assert_allclose(splines @ wanted, curve(np.arange(n_points)), atol=1e-12)


@pytest.mark.parametrize("n_points", [40, 41, 97])
def test_the_splines_of_a_level_are_splines_of_the_next(n_points):
    for gap in (2, 4, 8, 16, 32, 64):
        assert residual(natural_spline(n_points, gap // 2), natural_spline(n_points, gap)[None]) < 1e-12


@pytest.mark.parametrize("degree", [2, 3])
def test_b_splines_hold_the_polynomials_of_their_degree_and_no_more(degree):
    basis = b_splines(80, 12, degree)
    time = torch.linspace(-1, 1, 80, dtype=torch.float64)
    assert basis.shape == (80, 12)
    assert (basis >= 0).all()
    assert ((basis > 0).sum(dim=1) <= degree + 1).all()
    torch.testing.assert_close(basis.sum(dim=1), torch.ones(80, dtype=torch.float64))
    for power in range(degree + 2):
        off = residual(basis, (time**power)[None, :, None])
        assert off < 1e-12 if power <= degree else off > 1e-5
    assert b_splines(80, 1, degree).shape == (80, degree + 1)
    assert b_splines(6, 100, degree).shape == (6, 6)


def test_points_in_a_gap_follow_their_neighbours():
    model = plugins.build("parameterization", {"kind": "samples", "gap": 10}, initial())
    n_points = model.initial.points.shape[1]
    knots = sorted({*range(0, n_points, 10), n_points - 1})
    (coefficients,) = model.parameters()
    assert coefficients.shape == (3, len(knots), 2)
    with torch.no_grad():
        coefficients.normal_(generator=torch.Generator().manual_seed(0))
    curve = CubicSpline(knots, coefficients.detach().numpy(), axis=1, bc_type="natural")
    np.testing.assert_allclose(offset(model), curve(np.arange(n_points)), atol=1e-12)


def test_a_gap_is_at_least_one():
    with pytest.raises(ConfigError, match=r"parameterization\.gap is 0"):
        plugins.build("parameterization", {"kind": "samples", "gap": 0}, initial())
    for kind in ("samples", "bspline"):
        with pytest.raises(ConfigError, match=r"parameterization\.decimation"):
            plugins.build("parameterization", {"kind": kind, "decimation": 3}, initial())


# --- from few to many ---


@pytest.mark.parametrize("table", KINDS, ids=lambda table: " ".join(map(str, table.values())))
def test_refining_leaves_the_curve_and_frees_more_of_it(table):
    model = plugins.build("parameterization", table, initial())
    (coefficients,) = model.parameters()
    generator = torch.Generator().manual_seed(0)
    n_levels = {4: 3, 8: 4, 16: 5, 64: 7}[table["decimation"]]
    seen, free = [], []
    for step in range(1000):
        before = offset(model)
        model.refine(step / 1000)
        torch.testing.assert_close(offset(model), before, atol=1e-12, rtol=0)
        if step % 50 == 0:
            with torch.no_grad():
                coefficients += torch.randn(coefficients.shape, generator=generator, dtype=torch.float64)
        seen.append(model.offset.gap)
        if seen[-1] not in seen[:-1]:
            rows = torch.autograd.functional.jacobian(
                lambda values: torch.func.functional_call(model, {"offset.coefficients": values}, ()).points[0, :, 0],
                coefficients.detach(),
            )[:, 0, :, 0]
            free.append(int(torch.linalg.matrix_rank(rows)))
    assert list(dict.fromkeys(seen)) == [table["decimation"] >> level for level in range(n_levels)]
    counts = [seen.count(gap) for gap in dict.fromkeys(seen)]
    assert max(counts) - min(counts) <= 1, "each level has its equal part of the run"
    n = coefficients.shape[1]
    assert free == [min(n, len({*range(0, n, gap), n - 1})) for gap in dict.fromkeys(seen)]


def test_a_run_of_few_steps_skips_levels_and_none_goes_back():
    model = plugins.build("parameterization", {"kind": "samples", "decimation": 8}, initial())
    gaps = []
    for progress in (0.0, 0.6, 0.1, 1.0):
        model.refine(progress)
        gaps.append(model.offset.gap)
    assert gaps == [8, 2, 2, 1]


@pytest.mark.parametrize("kind", ["samples", "bspline"])
def test_adam_learns_through_the_levels_without_a_jump(kind):
    model = plugins.build("parameterization", {"kind": kind, "decimation": 8}, initial())
    time = torch.linspace(0, 1, model.initial.points.shape[1], dtype=torch.float64)[:, None]
    target = 0.1 * torch.cos(6 * time) + 0.02 * torch.sin(150 * time)  # for every level, and for the finer ones
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.003)
    losses = []
    for step in range(400):
        gap = model.offset.gap
        model.refine(step / 400)
        assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
        k_max = torch.tensor(model.initial.acquisition.k_max)
        loss = ((model().points - model.initial.points) / k_max - target).square().mean()
        if model.offset.gap < gap:
            assert loss <= losses[-1] * 1.02, "a jump at a refinement"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if model.offset.gap > 1:
            coarse = natural_spline(parameters[0].shape[1], model.offset.gap)
            assert residual(model.offset.basis @ coarse, offset(model)) < 1e-9
    ends = [losses[i] for i in (0, 99, 199, 299, 399)]
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] < 1e-3 * ends[0]


@pytest.mark.parametrize("table", KINDS, ids=lambda table: " ".join(map(str, table.values())))
def test_the_gradient_is_that_of_finite_differences(table):
    start = spiral(Acquisition((0.22, 0.22), (32, 32), 1, 303, 4e-6), Scanner())
    model = plugins.build("parameterization", table, start)
    (coefficients,) = model.parameters()
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(start.points.shape, generator=generator, dtype=torch.float64)
    direction = torch.randn(coefficients.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((model().points.square() * weights).sum(), coefficients)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            coefficients += sign * 1e-4 * direction
            values.append(float((model().points.square() * weights).sum()))
            coefficients -= sign * 1e-4 * direction
    assert float((gradient * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-6)
