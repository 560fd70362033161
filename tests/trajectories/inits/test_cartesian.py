import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.cartesian import cartesian

GAMMA = 42.577478461e6


def in_lines(trajectory):
    """Return where the control points lie along their line, 0 to 1 (point,), and k_y (shot, point) in 1/FOV."""
    k = trajectory.points.numpy()
    return (k[0, :, 0] / trajectory.acquisition.k_max[0] + 1) / 2, k[..., 1] * trajectory.acquisition.fov[1]


def test_waves_are_sines_about_their_rows():
    part, ky = in_lines(cartesian(Acquisition(n_shots=8), Scanner(), wave=0.25))
    # 16/FOV at 98 percent of 200 T/m/s, over the time that the whole line takes
    periods = math.sqrt(0.98 * GAMMA * 200 * 0.22 / 16) / (2 * math.pi) * 10e-6 / (part[1] - part[0])
    wanted = np.arange(-48, 48, 12.0)[:, None] + 16 * np.sin(2 * np.pi * periods * (part - 0.5))
    np.testing.assert_allclose(ky, wanted, atol=1e-6)


def test_a_wave_of_zero_is_the_straight_line():
    k = cartesian(Acquisition(n_shots=5), Scanner()).points
    assert (k[:, :, 1] == k[:, :1, 1]).all()


@pytest.mark.parametrize("norm", ["vector", "axis"])
@pytest.mark.parametrize("wave", [0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("n_samples", "max_slew"), [(500, 200.0), (1000, 60.0)])
def test_by_default_waves_are_at_98_percent_of_a_limit(wave, norm, n_samples, max_slew):
    trajectory = cartesian(Acquisition(n_samples=n_samples), Scanner(max_slew=max_slew, limit_norm=norm), wave=wave)
    order = 2 if norm == "vector" else np.inf
    slew, gradient = (
        np.linalg.norm(x.numpy(), ord=order, axis=-1).max() for x in (trajectory.slew, trajectory.gradient)
    )
    used = max(slew / max_slew, gradient * GAMMA * 4e-6 * 0.22)
    # the raster cuts off the peaks of short waves: a sine of n steps a period by the factor sinc(1 / n) ** 2
    period = 2 * math.pi * math.sqrt(64 * wave / 0.22 / (GAMMA * max_slew)) / 10e-6
    assert 0.98 * np.sinc(1 / period) ** 2 * math.cos(math.pi / period) <= used <= 0.98 + 1e-9


@pytest.mark.parametrize("focus", [1.4, 2.0])
def test_focused_waves_follow_their_formula_at_the_limits(focus):
    acquisition, scanner = Acquisition(n_shots=3), Scanner()
    trajectory = cartesian(acquisition, scanner, wave=0.5, focus=focus)
    k = trajectory.points.numpy() / acquisition.k_max[0]
    np.testing.assert_allclose(np.diff(k[:, :, 1], axis=0), 0.5 * 2 / 3, atol=1e-3)
    s = np.sign(k[1, :, 0]) * np.abs(k[1, :, 0]) ** (1 / focus)
    row = 0.5 * (k[1, 0, 1] + k[1, -1, 1])

    def misfit(periods):
        return k[1, :, 1] - row - 0.5 * np.abs(s) ** (focus - 1) * np.sin(2 * np.pi * periods * s)

    periods = min(np.arange(0.1, 12, 0.01), key=lambda p: np.abs(misfit(p)).max())
    periods = minimize_scalar(lambda p: np.square(misfit(p)).sum(), bounds=(periods - 0.02, periods + 0.02)).x
    assert periods > 1
    assert np.abs(misfit(periods)).max() < 1e-3
    slew, gradient = (np.linalg.norm(x[1].numpy(), axis=-1) for x in (trajectory.slew, trajectory.gradient))
    used = np.maximum(slew / scanner.max_slew, (gradient[1:] + gradient[:-1]) / 2 * GAMMA * 4e-6 * 0.22)
    assert (used > 0.95).mean() > 0.85
    assert cartesian(acquisition, scanner, focus=focus).points.equal(cartesian(acquisition, scanner).points), (
        "without a wave"
    )


def test_lines_that_are_already_too_fast_get_no_waves():
    straight = cartesian(Acquisition(), Scanner())
    # the line needs 99 percent of this scanner's gradient, and a wave may use 98
    weak = Scanner(max_gradient=float(straight.gradient.max()) / 0.99)
    k = cartesian(Acquisition(), weak, wave=0.1).points
    assert (k[:, :, 1] == k[:, :1, 1]).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"wave": -1.0}, "wave is -1; it lies between 0 and 1"),
        ({"wave": 1.5}, "wave is 1.5"),
        ({"focus": 0.9}, "focus is 0.9; it lies between 1 and 2"),
        ({"focus": math.nan}, "focus is nan"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        cartesian(Acquisition(), Scanner(), **options)


def random_rows(n_shots, **options):
    """Return k_y of random lines (shot,), 1/FOV."""
    k = cartesian(Acquisition(n_shots=n_shots), Scanner(), spacing="random", **options).points.numpy()
    return k[:, 0, 1] * 0.22


@pytest.mark.parametrize("n_shots", [1, 2, 8, 16, 100])
def test_random_lines_are_distinct_lines_of_the_matrix_with_a_full_centre(n_shots):
    rows = random_rows(n_shots)
    np.testing.assert_allclose(rows, rows.round(), atol=1e-9)
    assert (np.diff(rows.round()) >= 1).all()
    assert rows.round().min() >= -64
    assert rows.round().max() <= 63
    n_central = max(1, n_shots // 4)
    assert set(np.arange(n_central) - n_central // 2) <= set(rows.round())


def test_random_lines_follow_their_seed():
    assert (random_rows(16, seed=3) == random_rows(16, seed=3)).all()
    assert (random_rows(16, seed=3) != random_rows(16, seed=4)).any()
    with pytest.raises(ConfigError, match="seed is -1"):
        random_rows(16, seed=-1)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_random_lines_have_the_density_that_was_asked_for(power):
    # of 8 lines 2 are central (-1 and 0); the first of the 6 others to be drawn has the given probability, and 6
    # without repetition thin out the likely ones: compare with that process, played many times over
    others = np.setdiff1d(np.arange(-64, 64), [-1, 0])
    weights = np.abs(others) ** -power
    rng = np.random.default_rng(5)
    # the 6 smallest of exponential times with these rates are 6 draws without repetition
    order = np.argsort(rng.exponential(size=(4000, len(others))) / weights, axis=1)[:, :6]
    expected = np.abs(others)[order].mean()
    drawn = np.array([random_rows(8, power=power, seed=seed).round() for seed in range(200)])
    mean = np.abs(drawn[(drawn != 0) & (drawn != -1)]).mean()
    spread = np.abs(others)[order].std() / math.sqrt(6 * 200)
    assert mean == pytest.approx(expected, abs=5 * spread)


def test_as_many_random_lines_as_rows_are_the_full_matrix():
    acquisition = Acquisition(matrix=(32, 32), n_shots=32)
    full, drawn = (cartesian(acquisition, Scanner(), spacing=s).points for s in ("uniform", "random"))
    assert full.equal(drawn)


def rows(n_shots, **options):
    """Return the lines of a matrix of 128 rows as whole numbers (shot,), 1/FOV."""
    found = cartesian(Acquisition(n_shots=n_shots), Scanner(), **options).points.numpy()[:, 0, 1] * 0.22
    np.testing.assert_allclose(found, found.round(), atol=1e-9)
    return found.round().astype(int)


@pytest.mark.parametrize("n_shots", [1, 2, 16, 32, 127])
@pytest.mark.parametrize("centre", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("spacing", ["equispaced", "random", "poisson"])
def test_lines_about_a_full_centre_are_as_many_rows_as_asked_for(spacing, centre, n_shots):
    found = rows(n_shots, spacing=spacing, centre=centre)
    assert len(set(found)) == n_shots
    assert set(found) <= set(range(-64, 64))
    n_central = max(1, int(centre * n_shots))
    assert set(np.arange(n_central) - n_central // 2) <= set(found)


def test_equispaced_lines_leave_the_same_gaps_where_the_centre_is_cut_out():
    found = rows(32, spacing="equispaced", centre=0.25)
    central = set(range(-4, 4))
    others = np.array(sorted(set(found) - central))
    # 24 of the 120 rows around the centre, of which the rows -4 to 3 are left out
    position = np.where(others > 3, others - 8, others) + 64
    assert (np.diff(position) == 5).all()
    assert position[0] == 2


def test_poisson_lines_follow_their_seed():
    assert (rows(16, spacing="poisson", seed=3) == rows(16, spacing="poisson", seed=3)).all()
    assert (rows(16, spacing="poisson", seed=3) != rows(16, spacing="poisson", seed=4)).any()


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_poisson_lines_are_those_of_darts_at_the_radius_that_was_found(power):
    found = rows(20, spacing="poisson", power=power, centre=0.1, seed=1)
    order = np.random.default_rng(1).permutation(np.setdiff1d(np.arange(-64, 64), [-1, 0]))

    def thrown(scale):
        kept = [-1, 0]
        for row in order:
            if all(abs(row - other) >= scale * (abs(row) / 64) ** power for other in kept):
                kept.append(row)
        return kept

    scales = 64 * 0.98 ** np.arange(400)
    first = next(scale for scale in scales if len(thrown(scale)) >= 20)
    assert sorted(thrown(first)[:20]) == found.tolist()


@pytest.mark.parametrize("centre", [-0.1, 1.1, math.nan])
def test_a_centre_that_is_no_part_is_refused(centre):
    with pytest.raises(ConfigError, match=r"centre is .*; it lies between 0 and 1"):
        cartesian(Acquisition(), Scanner(), spacing="random", centre=centre)
