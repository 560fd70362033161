import math

import numpy as np
import pytest

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, LimitError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import Bounds
from trajdesign.trajectories.inits.rosette import rosette
from trajdesign.trajectories.traversal import Curve, Fastest

GAMMA = 42.577478461e6


def as_complex(trajectory):
    """Return the control points kx + i ky (shot, point), 1/FOV."""
    k = trajectory.points.numpy() * np.array(trajectory.acquisition.fov)
    return k[..., 0] + 1j * k[..., 1]


def tips(k):
    """Return the direction of the tip of each petal of one shot, in turns."""
    radius = np.abs(k)
    outer = [i for i in range(1, len(k) - 1) if radius[i - 1] < radius[i] >= radius[i + 1] and radius[i] > 32]
    # a parabola through the three outermost points finds the tip between them
    angles = []
    for i in outer:
        bend = radius[i - 1] - 2 * radius[i] + radius[i + 1]
        offset = (radius[i - 1] - radius[i + 1]) / (2 * bend)
        around = np.unwrap(np.angle(k[i - 1 : i + 2]))
        angles.append(np.interp(offset, [-1, 0, 1], around) / (2 * np.pi))
    return np.array(angles)


@pytest.mark.parametrize(
    ("n_shots", "petals", "turns"), [(1, 3, 0.5), (1, 4, 0.5), (1, 2, 0.5), (4, 6, 0.5), (5, 4, 1.0), (3, 1, 0.0)]
)
def test_petals_of_all_shots_are_spread_evenly(n_shots, petals, turns):
    acquisition = Acquisition(n_shots=n_shots, n_samples=1600)
    k = as_complex(rosette(acquisition, Scanner(), petals=petals, turns=turns))
    found = np.array([tips(shot) for shot in k])
    assert found.shape == (n_shots, petals)
    together = np.sort(found.ravel() % 1)
    gaps = np.diff(np.append(together, together[0] + 1))
    np.testing.assert_allclose(gaps, 1 / (n_shots * petals), atol=1e-3)


@pytest.mark.parametrize(("petals", "turns"), [(3, 0.5), (5, 0.5), (5, 1.5)])
def test_the_control_points_lie_on_the_rosette_that_was_asked_for(petals, turns):
    # with an odd number of petals and one shot, half a turn (or a whole one more) is even as it is
    k = as_complex(rosette(Acquisition(n_shots=1, n_samples=2500), Scanner(), petals=petals, turns=turns))[0]
    tau = np.linspace(0, 1, 40001)
    path = 64 * np.sin(np.pi * petals * tau) * np.exp(2j * np.pi * turns * tau)
    assert max(np.abs(path - point).min() for point in k) < 0.02
    np.testing.assert_allclose(k[[0, -1]], 0, atol=1e-9)
    assert np.abs(k).max() > 63.9


def test_shots_are_turned_evenly_and_shrunk_where_k_max_differs():
    acquisition = Acquisition((0.2, 0.2), (128, 64), n_shots=5)
    k = rosette(acquisition, Scanner()).points.numpy()
    k = k[..., 0] + 2j * k[..., 1]
    np.testing.assert_allclose(k, k[0] * np.exp(2j * np.pi * np.arange(5) / 5)[:, None], atol=1e-9)


def test_petals_are_the_most_that_fit():
    acquisition, scanner = Acquisition(), Scanner()
    most = len(tips(as_complex(rosette(acquisition, scanner))[0]))
    assert rosette(acquisition, scanner, petals=most).points.equal(rosette(acquisition, scanner).points)
    with pytest.raises(LimitError, match=rf"petals = {most + 1} takes .* or fewer petals"):
        rosette(acquisition, scanner, petals=most + 1)


def test_a_readout_that_just_suffices_is_at_a_limit_nearly_all_the_time():
    scanner = Scanner()
    enough = next(n for n in range(600, 2000, 5) if fits(Acquisition(n_samples=n), scanner, 5))
    trajectory = rosette(Acquisition(n_samples=enough), scanner, petals=5)
    speed = np.linalg.norm(trajectory.gradient.numpy()[0], axis=-1) * GAMMA * 4e-6 * 0.22
    slew = np.linalg.norm(trajectory.slew.numpy()[0], axis=-1) / 200
    used = np.maximum((speed[1:] + speed[:-1]) / 2, slew)
    assert (used > 0.95).mean() > 0.97


def fits(acquisition, scanner, petals):
    """Return whether so many petals can be played."""
    try:
        rosette(acquisition, scanner, petals=petals)
    except LimitError:
        return False
    return True


@pytest.mark.parametrize("from_rest", [True, False])
@pytest.mark.parametrize("speed", [3.0, 100.0])
def test_the_fastest_way_along_a_line_is_the_textbook_ramp(speed, from_rest):
    arc = np.linspace(0, 10, 20001)
    straight = Curve(arc, arc + 0j, np.ones_like(arc) + 0j, np.zeros_like(arc))
    fastest = Fastest(straight, Bounds(speed, 2.0, "vector"), from_rest=from_rest)
    ramp = min(speed / 2, math.sqrt(10)) if from_rest else 0.0
    assert fastest.duration == pytest.approx(ramp + (10 - ramp**2) / speed, rel=1e-3)
    half = fastest.play(np.array([ramp / fastest.duration]))[0].real
    assert half == pytest.approx(ramp**2, abs=1e-2)


def test_the_fastest_way_round_a_circle_is_at_the_centripetal_limit():
    angle = np.linspace(0, 2 * np.pi, 2001)
    circle = Curve(3 * angle, 3 * np.exp(1j * angle), 1j * np.exp(1j * angle), np.full(2001, 1 / 3))
    fastest = Fastest(circle, Bounds(100.0, 12.0, "vector"), from_rest=False)
    assert fastest.duration == pytest.approx(2 * np.pi * math.sqrt(3 / 12))


def test_the_fastest_way_brakes_in_time_before_a_bend():
    # a line of 5, then a circle of radius 1 / 2 that allows the speed 1 at the acceleration 2: mirrored at the end
    arc = np.linspace(0, 10 + np.pi / 2, 40001)
    bend = (arc > 5) & (arc < 5 + np.pi / 2)
    turn = np.clip(arc - 5, 0, np.pi / 2) * 2
    tangent = np.exp(1j * turn)
    k = np.concatenate([[0], np.cumsum(tangent[:-1] * np.diff(arc))])
    fastest = Fastest(Curve(arc, k, tangent, 2.0 * bend), Bounds(3.0, 2.0, "vector"), from_rest=False)
    # each line: at 3 until braking, from 3 to 1 at 2 takes 1 and the length 2
    assert fastest.duration == pytest.approx(2 * (3 / 3 + 1) + np.pi / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"petals": 0}, "petals is 0"), ({"turns": -0.1}, "turns is -0.1"), ({"turns": 101.0}, "turns is 101")],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        rosette(Acquisition(), Scanner(), **options)
