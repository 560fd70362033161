"""Feasible always, and the nearest: the oracle is an interior-point solution of the same cone program."""

import clarabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from trajdesign.acquisition import Acquisition
from trajdesign.physics import limits
from trajdesign.physics.projection import Projection
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.cartesian import cartesian
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectory import Trajectory, n_points

GAMMA = 42.577478461e6
ALL = ["extent", "gradient", "receiver", "slew"]


def wild(seed, scanner, *, scale=1.0, smooth=0.0, n_samples=100, n_shots=2, fov=(0.22, 0.22), matrix=(64, 64)):
    """Random control points: white noise to slow wander, inside k_max or far outside."""
    acquisition = Acquisition(fov, matrix, n_shots, n_samples, 4e-6)
    rng = np.random.default_rng(seed)
    points = n_points(acquisition, scanner)
    k = rng.normal(size=(n_shots, points, len(matrix)))
    spectrum = np.fft.rfft(k, axis=1) / (1 + np.arange(points // 2 + 1)[None, :, None]) ** smooth
    k = np.fft.irfft(spectrum, points, axis=1)
    k = k / np.abs(k).max() * scale * np.array(acquisition.k_max)
    k += rng.uniform(-1, 1, size=(n_shots, 1, len(matrix))) * scale * np.array(acquisition.k_max) / 2
    return Trajectory(torch.from_numpy(k), acquisition, scanner)


def projection(trajectory, n_iterations=40, names=ALL):
    constraints = limits.constraints(trajectory.acquisition, trajectory.scanner, names)
    return Projection(constraints, trajectory, n_iterations)


def margins(trajectory):
    """The part left of each limit, from plain differences."""
    k = trajectory.points.detach().numpy()
    scanner, acquisition = trajectory.scanner, trajectory.acquisition
    raster = scanner.gradient_raster
    order = 2 if scanner.limit_norm == "vector" else np.inf
    gradient = np.diff(k, axis=1) / raster / GAMMA
    slew = np.diff(gradient, axis=1) / raster
    strongest = np.linalg.norm(gradient, ord=order, axis=-1).max()
    nyquist = 1 / (GAMMA * acquisition.dwell * max(acquisition.fov))
    return {
        "extent": 1 - (np.abs(k) / np.array(acquisition.k_max)).max(),
        "gradient": 1 - strongest / scanner.max_gradient,
        "receiver": 1 - strongest / nyquist,
        "slew": 1 - np.linalg.norm(slew, ord=order, axis=-1).max() / scanner.max_slew,
    }


#: What a wild trajectory is, and under which norm and how long it is projected.
WILD = {
    "seed": st.integers(0, 2**31),
    "scale": st.sampled_from([1e-3, 0.5, 1.0, 3.0, 1e3]),
    "smooth": st.sampled_from([0.0, 1.0, 2.0, 4.0]),
    "norm": st.sampled_from(["vector", "axis"]),
    "n_iterations": st.sampled_from([1, 3, 40]),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    **WILD,
    slew=st.sampled_from([20.0, 200.0]),
    fov_and_matrix=st.sampled_from(
        [((0.22, 0.22), (64, 64)), ((0.3, 0.1), (48, 96)), ((0.2, 0.25, 0.18), (32, 24, 16))]
    ),
)
def test_every_limit_is_kept_with_a_margin_whatever_comes(
    seed, scale, smooth, norm, n_iterations, slew, fov_and_matrix
):
    scanner = Scanner(max_slew=slew, limit_norm=norm)
    fov, matrix = fov_and_matrix
    trajectory = wild(seed, scanner, scale=scale, smooth=smooth, fov=fov, matrix=matrix)
    result = projection(trajectory, n_iterations)(trajectory)
    assert torch.isfinite(result.points).all()
    for name, margin in margins(result).items():
        assert margin >= 0.99e-4, f"{name}: {margin:.3g}"
    assert all(f.ok for f in limits.check(result, ALL))
    assert result.acquisition == trajectory.acquisition
    assert result.points.dtype == torch.float64


def test_calls_after_wild_ones_are_feasible_too():
    scanner = Scanner()
    first = wild(0, scanner, scale=10.0)
    project = projection(first, n_iterations=2)
    for seed in range(20):
        result = project(wild(seed, scanner, scale=float(10 ** (seed % 5 - 1)), smooth=seed % 3))
        assert min(margins(result).values()) >= 0.99e-4


@pytest.mark.parametrize("n_iterations", [1, 40])
@pytest.mark.parametrize("norm", ["vector", "axis"])
@pytest.mark.parametrize("pattern", [radial, spiral, cartesian])
def test_what_is_feasible_stays_where_it_is(pattern, norm, n_iterations):
    trajectory = pattern(Acquisition((0.22, 0.22), (64, 64), 4, 600, 4e-6), Scanner(limit_norm=norm))
    inside = trajectory.with_points(trajectory.points * 0.999)
    result = projection(inside, n_iterations)(inside)
    assert float(((result.points - inside.points) * 0.22).abs().max()) < 1e-6


@pytest.mark.parametrize("n_iterations", [1, 40, 2000])
@pytest.mark.parametrize("pattern", [radial, spiral, cartesian])
def test_what_touches_a_limit_moves_by_no_more_than_the_margin(pattern, n_iterations):
    # the first Cartesian line runs along the edge of k-space
    trajectory = pattern(Acquisition((0.22, 0.22), (64, 64), 4, 600, 4e-6), Scanner())
    result = projection(trajectory, n_iterations)(trajectory)
    assert float(((result.points - trajectory.points) * 0.22).abs().max()) < 2e-4 * 32
    assert min(margins(result).values()) >= 0.99e-4


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), smooth=st.sampled_from([0.0, 2.0]), norm=st.sampled_from(["vector", "axis"]))
def test_the_projection_of_a_projection_is_itself(seed, smooth, norm):
    trajectory = wild(seed, Scanner(limit_norm=norm), smooth=smooth)
    once = projection(trajectory, 200)(trajectory)
    inside = once.with_points(once.points * (1 - 1e-9))  # half a rounding inside
    twice = projection(trajectory, 200)(inside)
    assert float(((twice.points - once.points) * 0.22).abs().max()) < 1e-6


def nearest(trajectory, names=ALL):
    """Clarabel's solution of: least squares to k under every limit, less the margin; one shot at a time."""
    scanner, acquisition = trajectory.scanner, trajectory.acquisition
    unit, raster, margin = max(acquisition.fov), scanner.gradient_raster, 1 - 1e-4
    nyquist = 1 / (GAMMA * acquisition.dwell * max(acquisition.fov))
    bounds = {
        "extent": (0, None),
        "gradient": (1, GAMMA * raster * scanner.max_gradient * margin),
        "receiver": (1, GAMMA * raster * nyquist * margin),
        "slew": (2, GAMMA * raster**2 * scanner.max_slew * margin),
    }
    result = []
    for wanted in trajectory.points.numpy() * unit:
        points, dims = wanted.shape
        rows, right, cones = [], [], []
        for name in names:
            order, limit = bounds[name]
            difference = sparse.csc_matrix(np.diff(np.eye(points), n=order, axis=0))
            matrix = sparse.kron(difference, sparse.eye(dims), format="csc")  # (row, dim) of (point, dim)
            count = difference.shape[0]
            if name == "extent" or scanner.limit_norm == "axis":
                edge = np.tile(np.array(acquisition.k_max) * margin if limit is None else np.full(dims, limit), count)
                rows += [matrix, -matrix]
                right += [edge * unit, edge * unit]
                cones.append(clarabel.NonnegativeConeT(2 * count * dims))
            else:
                for i in range(count):
                    rows.append(
                        sparse.vstack([sparse.csc_matrix((1, points * dims)), -matrix[i * dims : (i + 1) * dims]])
                    )
                    right.append(np.concatenate([[limit * unit], np.zeros(dims)]))
                    cones.append(clarabel.SecondOrderConeT(dims + 1))
        options = clarabel.DefaultSettings()
        options.verbose = False
        options.tol_gap_rel = options.tol_gap_abs = options.tol_feas = 1e-10
        solver = clarabel.DefaultSolver(
            sparse.eye(points * dims, format="csc"),
            -wanted.ravel(),
            sparse.vstack(rows, format="csc"),
            np.concatenate(right),
            cones,
            options,
        )
        solution = solver.solve()
        assert str(solution.status) in ("Solved", "AlmostSolved")
        result.append(np.array(solution.x).reshape(points, dims) / unit)
    return np.stack(result)


@pytest.mark.parametrize("norm", ["vector", "axis"])
@pytest.mark.parametrize(
    ("scale", "smooth"), [(0.3, 0.0), (1.0, 0.0), (1.0, 1.0), (1.5, 2.0), (3.0, 3.0)], ids=lambda v: str(v)
)
def test_the_result_is_the_nearest_that_there_is(norm, scale, smooth):
    scanner = Scanner(max_slew=150.0, limit_norm=norm)
    trajectory = wild(int(10 * scale + smooth), scanner, scale=scale, smooth=smooth)
    best = nearest(trajectory)
    # the oracle itself keeps the limits
    assert min(margins(trajectory.with_points(torch.from_numpy(best))).values()) > 0.9e-4
    result = projection(trajectory, 3000)(trajectory).points.numpy()
    wanted = trajectory.points.numpy()
    for shot in range(len(wanted)):
        optimum = np.linalg.norm(best[shot] - wanted[shot])
        distance = np.linalg.norm(result[shot] - wanted[shot])
        assert optimum * (1 - 1e-6) <= distance <= 1.001 * optimum


#: Field of view and matrix: pixels that are not square, thick slabs, and both.
UNEVEN = [
    ((0.22, 0.22), (64, 32)),
    ((0.22, 0.22), (12, 64)),
    ((0.3, 0.2), (48, 64)),
    ((0.22, 0.22, 0.22), (32, 32, 8)),
    ((0.22, 0.22, 0.06), (24, 16, 8)),
]


@pytest.mark.parametrize("norm", ["vector", "axis"])
@pytest.mark.parametrize(("fov", "matrix"), UNEVEN, ids=str)
def test_the_result_is_the_nearest_where_the_axes_differ(fov, matrix, norm):
    scanner = Scanner(max_slew=150.0, limit_norm=norm)
    for seed, (scale, smooth) in enumerate([(0.3, 0.0), (1.5, 2.0), (3.0, 3.0)]):
        trajectory = wild(seed, scanner, scale=scale, smooth=smooth, n_samples=80, n_shots=1, fov=fov, matrix=matrix)
        wanted, best = trajectory.points.numpy(), nearest(trajectory)
        assert min(margins(trajectory.with_points(torch.from_numpy(best))).values()) > 0.9e-4
        optimum = np.linalg.norm(best - wanted)
        for n_iterations, worst in ((40, 1.1), (2000, 1.003)):
            distance = np.linalg.norm(projection(trajectory, n_iterations)(trajectory).points.numpy() - wanted)
            assert optimum * (1 - 1e-6) <= distance <= worst * optimum, (scale, n_iterations, distance / optimum)


@pytest.mark.parametrize("n_iterations", [1, 40, 2000])
@pytest.mark.parametrize("norm", ["vector", "axis"])
@pytest.mark.parametrize("raster", [4e-6, 10e-6])
@pytest.mark.parametrize(("fov", "matrix"), [*UNEVEN, ((0.22, 0.22), (128, 64)), ((0.22, 0.22), (256, 64))], ids=str)
def test_what_is_feasible_stays_where_the_axes_differ(fov, matrix, raster, norm, n_iterations):
    # a loop through k-space that fills 99 % of each axis and of the tightest limit
    scanner = Scanner(limit_norm=norm, gradient_raster=raster)
    acquisition = Acquisition(fov, matrix, 2, 400, 4e-6)
    time = torch.arange(n_points(acquisition, scanner), dtype=torch.float64) * raster
    waves = torch.stack([torch.sin(2e3 * (i + 2) * time + i) for i in range(2 * len(matrix))], dim=-1)
    k = torch.stack(waves.chunk(2, dim=-1)) * torch.tensor(acquisition.k_max)
    loop = Trajectory(k, acquisition, scanner)
    slack = min(margins(loop).values())
    inside = loop.with_points(k * (0.99 / (1 - slack)))
    assert min(margins(inside).values()) == pytest.approx(0.01)
    moved = projection(inside, n_iterations)(inside).points - inside.points
    assert float((moved * max(fov)).abs().max()) < 1e-9


@pytest.mark.parametrize("matrix", [(64, 12), (12, 64), (64, 64, 8), (256, 64)], ids=str)
def test_nothing_diverges_from_call_to_call(matrix):
    scanner = Scanner()
    fov = (0.22,) * len(matrix)
    project = projection(wild(0, scanner, fov=fov, matrix=matrix), n_iterations=100)
    for seed in range(20):
        trajectory = wild(seed, scanner, scale=1.5, smooth=2.0, fov=fov, matrix=matrix)
        result = project(trajectory)
        assert min(margins(result).values()) >= 0.99e-4
        assert float((result.points - trajectory.points).norm() / trajectory.points.norm()) < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e12, 1e15, 1e24, 1e30])
@pytest.mark.parametrize("raster", [4e-6, 10e-6])
def test_the_margin_is_kept_of_any_finite_input_of_any_precision(dtype, scale, raster):
    trajectory = wild(6, Scanner(max_slew=50.0, gradient_raster=raster), scale=scale, smooth=2.0)
    given = trajectory.with_points(trajectory.points.to(dtype).requires_grad_())
    result = projection(given)(given)
    assert min(margins(result).values()) >= 0.99e-4
    assert result.points.dtype == torch.float64
    result.points.sum().backward()
    assert given.points.grad.dtype == dtype
    assert torch.equal(given.points.grad, torch.ones_like(given.points))


def test_few_iterations_from_warm_duals_come_as_close():
    trajectory = wild(3, Scanner(), smooth=2.0)
    best = nearest(trajectory)
    project = projection(trajectory, 40)
    for _ in range(40):
        result = project(trajectory).points.numpy()
    wanted = trajectory.points.numpy()
    assert np.linalg.norm(result - wanted) <= 1.01 * np.linalg.norm(best - wanted)


def test_only_the_chosen_limits_are_enforced():
    trajectory = wild(1, Scanner(), scale=2.0, smooth=2.0)
    for names in (["gradient"], ["slew"], ["extent"], []):
        result = projection(trajectory, 500, names)(trajectory)
        left = margins(result)
        assert all(left[name] >= 0.99e-4 for name in names)
        if names:
            best = nearest(trajectory, names)
            optimum = np.linalg.norm(best - trajectory.points.numpy())
            assert np.linalg.norm(result.points.numpy() - trajectory.points.numpy()) <= 1.02 * optimum
        else:
            torch.testing.assert_close(result.points, trajectory.points)


def test_the_gradient_passes_straight_through():
    trajectory = wild(2, Scanner(), scale=2.0)
    k = trajectory.points.clone().requires_grad_()
    result = projection(trajectory)(trajectory.with_points(k))
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(k.shape, generator=generator, dtype=torch.float64)
    (result.points * direction).sum().backward()
    assert torch.equal(k.grad, direction)
    # and the value is the projection, not the wish
    assert float((result.points.detach() - trajectory.points).abs().max()) > 1
    assert min(margins(result).values()) >= 0.99e-4


def test_shots_do_not_disturb_each_other():
    scanner = Scanner()
    both = wild(4, scanner, n_shots=2, smooth=1.0)
    alone = wild(4, scanner, n_shots=1)
    for shot in range(2):
        single = alone.with_points(both.points[shot : shot + 1])
        wanted = projection(single)(single).points[0]
        torch.testing.assert_close(projection(both)(both).points[shot], wanted, rtol=0, atol=1e-8)
