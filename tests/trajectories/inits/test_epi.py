import math

import numpy as np
import pytest

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, LimitError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.epi import epi

GAMMA = 42.577478461e6


def on_lines(trajectory):
    """Return the rows of control points (shot, line), 1/FOV, where each line crosses k_x = 0."""
    k = trajectory.points.numpy()
    crossed = np.diff(np.sign(k[0, :, 0])) != 0
    return k[:, 1:, 1][:, crossed] * trajectory.acquisition.fov[1]


@pytest.mark.parametrize(("n_shots", "lines"), [(4, 3), (5, 4), (1, 5), (8, 2), (16, 6)])
def test_all_lines_together_are_even_and_one_is_central(n_shots, lines):
    rows = on_lines(epi(Acquisition(n_shots=n_shots, n_samples=1200), Scanner(), lines=lines))
    assert rows.shape == (n_shots, lines)
    together = np.sort(rows.ravel())
    np.testing.assert_allclose(np.diff(together), 128 / (n_shots * lines), rtol=1e-9)
    assert np.abs(together).min() < 1e-9
    # within a shot they advance steadily, and the shots interleave
    np.testing.assert_allclose(np.diff(rows), 128 / lines, rtol=1e-9)
    np.testing.assert_allclose(rows[1:, 0] - rows[:-1, 0], 128 / (n_shots * lines), rtol=1e-9)


def test_as_many_lines_as_rows_is_the_full_cartesian_matrix():
    rows = on_lines(epi(Acquisition(matrix=(64, 64), n_shots=16, n_samples=2000), Scanner()))
    np.testing.assert_allclose(np.sort(rows.ravel()), np.arange(-32, 32), atol=1e-9)


def test_density_moves_the_lines_to_the_centre():
    acquisition = Acquisition(n_shots=4, n_samples=1500)
    even, dense = (np.sort(on_lines(epi(acquisition, Scanner(), lines=4, density=d)).ravel()) for d in (1, 2))
    np.testing.assert_allclose(np.abs(dense) / 64, (even / 64) ** 2, atol=1e-9)


def test_a_single_line_a_shot_is_straight_and_of_constant_speed():
    trajectory = epi(Acquisition(n_shots=4), Scanner(), lines=1)
    np.testing.assert_allclose(trajectory.slew, 0, atol=1e-6)
    np.testing.assert_allclose(trajectory.points[:, -1, 0], -trajectory.points[:, 0, 0])


@pytest.mark.parametrize("acquisition", [Acquisition(n_shots=8), Acquisition((0.3, 0.2), (96, 128), 3, 700, 5e-6)])
def test_lines_run_to_and_fro_between_the_edges(acquisition):
    trajectory = epi(acquisition, Scanner())
    kx = trajectory.points.numpy()[:, :, 0] / acquisition.k_max[0]
    np.testing.assert_allclose(np.abs(kx[:, [0, -1]]), 1, rtol=1e-12)
    between = np.split(kx[0], np.flatnonzero(np.diff(np.sign(kx[0]))) + 1)
    turns = np.array([part[np.abs(part).argmax()] for part in between[1:-1]])
    assert len(turns) >= 2
    assert (turns[1:] * turns[:-1] < 0).all()
    # between two control points x falls short of the edge by no more than half a step at the slew limit
    step = GAMMA * 200 * trajectory.scanner.gradient_raster**2
    assert (np.abs(turns) > 1 - step / 2 / acquisition.k_max[0]).all()


@pytest.mark.parametrize("norm", ["vector", "axis"])
@pytest.mark.parametrize("n_lines", [4, 6, 9])
def test_a_shot_takes_no_longer_than_its_trapezoids(norm, n_lines):
    # each line by itself at full speed v, and the time to turn round at full slew: blips must come on top almost free
    scanner = Scanner(limit_norm=norm)
    v, a, length = 0.98 / (4e-6 * 0.22), 0.98 * GAMMA * 200, 128 / 0.22
    least = n_lines * length / v + (n_lines - 1) * v / a
    step = 128 / n_lines / 0.22
    # a blip of this step needs this part of the slew rate; under the vector norm the turn is slower for it
    share = step / (v / a) ** 2 / a
    if norm == "vector":
        squared = (-1 + math.sqrt(1 + 4 * share**2)) / (2 * share**2)
        least += (n_lines - 1) * v / a * (1 / math.sqrt(squared) - 1)
    samples = least / 4e-6
    assert epi(Acquisition(n_shots=4, n_samples=int(samples + 6)), scanner, lines=n_lines)
    with pytest.raises(LimitError, match=rf"lines = {n_lines} takes .* ms at best, the readout has .* fewer lines"):
        epi(Acquisition(n_shots=4, n_samples=int(samples - 6)), scanner, lines=n_lines)


def test_a_readout_that_just_suffices_is_at_a_limit_all_the_time():
    v, a = 0.98 / (4e-6 * 0.22), 0.98 * GAMMA * 200
    duration = 6 * 128 / 0.22 / v + 5 * v / a
    acquisition = Acquisition(n_shots=4, n_samples=int(duration / 4e-6) + 6)
    trajectory = epi(acquisition, Scanner(limit_norm="axis"))
    speed, slew = (np.abs(x.numpy()[0, :, 0]) for x in (trajectory.gradient, trajectory.slew))
    used = np.maximum((speed[1:] + speed[:-1]) / 2 * GAMMA * 4e-6 * 0.22, slew / 200)
    assert (used > 0.95).mean() > 0.9


def test_lines_are_the_most_that_fit():
    acquisition, scanner = Acquisition(), Scanner()
    most = on_lines(epi(acquisition, scanner)).shape[1]
    assert epi(acquisition, scanner, lines=most).points.equal(epi(acquisition, scanner).points)
    with pytest.raises(LimitError):
        epi(acquisition, scanner, lines=most + 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lines": 0}, "lines is 0; it lies between 1 and 16"),
        ({"lines": 17}, "lines is 17"),
        ({"density": 0.9}, "density is 0.9"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        epi(Acquisition(), Scanner(), **options)
