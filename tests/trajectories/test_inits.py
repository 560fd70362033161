import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, LimitError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.cartesian import cartesian
from trajdesign.trajectories.inits.epi import epi
from trajdesign.trajectories.inits.propeller import propeller
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectories.inits.rosette import rosette
from trajdesign.trajectories.inits.spiral import spiral

GAMMA = 42.577478461e6
STANDARD = [
    (Acquisition((0.22, 0.22), (matrix, matrix), n_shots, 1000, 4e-6), Scanner(gradient_raster=raster))
    for matrix in (128, 256)
    for n_shots in (8, 16)
    for raster in (10e-6, 4e-6)
]
OTHERS = [
    (
        Acquisition((0.20, 0.24), (128, 96), 5, 3000, 2e-6),
        Scanner(max_gradient=30e-3, max_slew=80.0, limit_norm="axis"),
    ),
    (Acquisition((0.24, 0.18), (64, 192), 32, 777, 5e-6), Scanner(max_slew=120.0, gradient_raster=6.4e-6)),
    (Acquisition((0.40, 0.40), (320, 320), 1, 20000, 2.5e-6), Scanner(max_gradient=28e-3, max_slew=150.0)),
]
SETTINGS = STANDARD + OTHERS
PATTERNS = [
    ("radial", {}),
    ("radial", {"angle": "golden"}),
    ("radial", {"centre_out": True}),
    ("cartesian", {}),
    ("cartesian", {"spacing": "variable"}),
    ("spiral", {}),
    ("spiral", {"density": 2.0}),
    ("spiral", {"density": 6.0}),
    ("spiral", {"turns": 0.7}),
    ("spiral", {"density": 2.0, "in_out": True}),
    ("spiral", {"turns": 0.3, "in_out": True}),
    ("radial", {"angle": "tiny-golden"}),
    ("cartesian", {"spacing": "random"}),
    ("cartesian", {"wave": 0.15}),
    ("cartesian", {"wave": 0.5, "spacing": "variable"}),
    ("cartesian", {"wave": 0.5, "focus": 2.0}),
    ("cartesian", {"wave": 0.3, "focus": 1.3}),
    ("epi", {}),
    ("epi", {"density": 2.0}),
    ("epi", {"lines": 2}),
    ("propeller", {}),
    ("propeller", {"spacing": 4.0}),
    ("propeller", {"lines": 2}),
    ("rosette", {}),
    ("rosette", {"turns": 1.0}),
    ("rosette", {"petals": 1}),
]


@pytest.mark.parametrize(("acquisition", "scanner"), SETTINGS)
@pytest.mark.parametrize(("name", "options"), PATTERNS)
def test_patterns_keep_every_limit_in_plain_differences(name, options, acquisition, scanner):
    k = plugins.find("init", name)(acquisition, scanner, **options).points.numpy()
    raster = scanner.gradient_raster
    gradient = (k[:, 1:] - k[:, :-1]) / raster / GAMMA
    slew = (gradient[:, 1:] - gradient[:, :-1]) / raster
    order = 2 if scanner.limit_norm == "vector" else np.inf
    nyquist = 1 / (GAMMA * acquisition.dwell * max(acquisition.fov))
    assert np.linalg.norm(gradient, ord=order, axis=-1).max() <= min(scanner.max_gradient, nyquist) * (1 + 1e-9)
    assert np.linalg.norm(slew, ord=order, axis=-1).max() <= scanner.max_slew
    assert (np.abs(k) <= np.array(acquisition.k_max) * (1 + 1e-12)).all()
    assert np.isfinite(k).all()


def test_uniform_spokes_are_evenly_turned_and_cross_the_centre_at_the_middle_sample():
    acquisition = Acquisition(n_shots=16)
    k = radial(acquisition, Scanner()).k_adc.numpy()
    angles = np.arctan2(k[:, -1, 1], k[:, -1, 0])
    np.testing.assert_allclose(angles, np.pi * np.arange(16) / 16, atol=1e-12)
    np.testing.assert_allclose(k[:, 500], 0, atol=1e-10)
    # straight, at constant speed, and as long as asked but for the margin of the control points
    np.testing.assert_allclose(np.diff(k, n=2, axis=1), 0, atol=1e-9)
    ideal = acquisition.k_max[0] * (np.arange(1000) - 500) / 500
    np.testing.assert_allclose(k[0, :, 0], ideal, atol=0.003 * acquisition.k_max[0])


def test_golden_spokes_turn_by_the_golden_angle():
    k = radial(Acquisition(n_shots=5), Scanner(), angle="golden").k_adc.numpy()
    step = np.degrees(np.arctan2(k[:, -1, 1], k[:, -1, 0])) % 360
    np.testing.assert_allclose(step, 111.246117975 * np.arange(5) % 360, atol=1e-6)


def test_centre_out_spokes_start_at_the_centre_and_cover_the_circle():
    k = radial(Acquisition(n_shots=4), Scanner(), centre_out=True).k_adc.numpy()
    np.testing.assert_allclose(k[:, 0], 0, atol=1e-10)
    ends = k[:, -1] / np.linalg.norm(k[:, -1], axis=-1, keepdims=True)
    np.testing.assert_allclose(ends, [[1, 0], [0, 1], [-1, 0], [0, -1]], atol=1e-12)


def test_spokes_end_on_the_ellipse_where_k_max_differs():
    acquisition = Acquisition((0.2, 0.2), (128, 64), n_shots=7)
    ends = radial(acquisition, Scanner()).points.numpy()[:, 0] / np.array(acquisition.k_max)
    np.testing.assert_allclose(np.linalg.norm(ends, axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize("angle", ["uniform", "golden"])
@pytest.mark.parametrize("centre_out", [False, True])
def test_three_dimensional_spokes_are_spread_over_the_sphere(angle, centre_out):
    acquisition = Acquisition((0.2, 0.2, 0.2), (64, 64, 64), 400, 500, 4e-6)
    k = radial(acquisition, Scanner(), angle=angle, centre_out=centre_out).points.numpy()
    ends = k[:, -1] / acquisition.k_max[0]
    np.testing.assert_allclose(np.linalg.norm(ends, axis=-1), 1, rtol=1e-2)
    # of evenly spread directions, the mean outer product is a third of the identity
    np.testing.assert_allclose(ends.T @ ends / len(ends), np.eye(3) / 3, atol=0.02)


def test_as_many_lines_as_rows_is_the_full_cartesian_matrix():
    acquisition = Acquisition((0.25, 0.2), (64, 32), n_shots=32)
    k = cartesian(acquisition, Scanner()).k_adc.numpy()
    rows = np.broadcast_to(np.arange(-16, 16)[:, None], k.shape[:2])
    np.testing.assert_allclose(k[..., 1] * 0.2, rows, atol=1e-12)
    np.testing.assert_allclose(k[0, :, 0], radial(acquisition, Scanner()).k_adc.numpy()[0, :, 0])


@pytest.mark.parametrize("n_shots", [1, 7, 8])
def test_uniform_lines_are_even_and_one_is_central(n_shots):
    ky = cartesian(Acquisition(n_shots=n_shots), Scanner()).points.numpy()[:, 0, 1]
    assert np.abs(ky).min() == 0
    np.testing.assert_allclose(np.diff(ky), 128 / 0.22 / n_shots, rtol=1e-12)


@pytest.mark.parametrize("power", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("n_shots", [24, 25])
def test_variable_lines_thin_out_from_a_fully_sampled_centre(power, n_shots):
    acquisition = Acquisition(n_shots=n_shots)
    ky = cartesian(acquisition, Scanner(), spacing="variable", power=power).points.numpy()[:, 0, 1] * 0.22
    half = ky[n_shots // 2 :]
    steps = np.diff(half)
    assert half[0] == 0
    assert steps.min() >= 1 - 1e-9
    assert (np.diff(steps) >= -1e-9).all()
    np.testing.assert_allclose(ky[1:] if n_shots % 2 == 0 else ky, -(ky[1:] if n_shots % 2 == 0 else ky)[::-1])
    # far out, the step between lines grows as |k_y| ** power
    middle = (half[1:] + half[:-1]) / 2
    slope = np.log(steps[-1] / steps[-3]) / np.log(middle[-1] / middle[-3])
    assert slope == pytest.approx(power, rel=0.1)


def test_variable_lines_with_a_full_matrix_are_the_full_matrix():
    acquisition = Acquisition(matrix=(32, 32), n_shots=32)
    full, variable = (cartesian(acquisition, Scanner(), spacing=s).points for s in ("uniform", "variable"))
    assert full.equal(variable)


@pytest.mark.parametrize("density", [1.0, 1.5, 3.0])
def test_spirals_start_at_rest_and_end_at_k_max_with_turned_interleaves(density):
    acquisition = Acquisition(n_shots=6)
    trajectory = spiral(acquisition, Scanner(), density=density)
    k, sampled = (x[..., 0].numpy() + 1j * x[..., 1].numpy() for x in (trajectory.points, trajectory.k_adc))
    assert (sampled[:, 0] == 0).all()
    assert (trajectory.gradient[:, 0] == 0).all()
    np.testing.assert_allclose(np.abs(k[:, -1]), acquisition.k_max[0], rtol=1e-9)
    assert (np.abs(sampled[:, -1]) > 0.99 * acquisition.k_max[0]).all()
    np.testing.assert_allclose(k, k[0] * np.exp(2j * np.pi * np.arange(6) / 6)[:, None], atol=1e-9)
    # the control points lie on the path that was asked for: radius against unwrapped angle
    angle = np.unwrap(np.angle(k[0, 20:]))
    radius = np.abs(k[0, 20:]) / acquisition.k_max[0]
    tau = radius ** (1 / density)
    turns = (angle[-1] - angle[0]) / (2 * np.pi) / (tau[-1] - tau[0])
    np.testing.assert_allclose(angle - angle[-1], 2 * np.pi * turns * (tau - 1), atol=1e-3)


@pytest.mark.parametrize("density", [1.0, 2.0])
def test_spirals_in_and_out_are_their_own_point_images(density):
    acquisition = Acquisition(n_shots=6)
    trajectory = spiral(acquisition, Scanner(), density=density, in_out=True)
    k = trajectory.points[..., 0].numpy() + 1j * trajectory.points[..., 1].numpy()
    edge = acquisition.k_max[0]
    np.testing.assert_allclose(k, -k[:, ::-1], atol=1e-6 * edge)
    np.testing.assert_allclose(np.abs(k[:, [0, -1]]), edge, rtol=1e-9)
    np.testing.assert_allclose(k, k[0] * np.exp(1j * np.pi * np.arange(6) / 6)[:, None], atol=1e-9)
    # the second half lies on the path of a spiral from the centre: radius against unwrapped angle
    out = k[0, k.shape[1] // 2 + 20 :]
    angle, tau = np.unwrap(np.angle(out)), (np.abs(out) / edge) ** (1 / density)
    turns = (angle[-1] - angle[0]) / (2 * np.pi) / (tau[-1] - tau[0])
    np.testing.assert_allclose(angle - angle[-1], 2 * np.pi * turns * (tau - 1), atol=1e-3)


@pytest.mark.parametrize("in_out", [False, True])
def test_spirals_of_a_volume_are_those_of_a_plane_in_planes_in_all_directions(in_out):
    acquisition, flat = (Acquisition((0.2,) * n, (64,) * n, 200, 500, 4e-6) for n in (3, 2))
    k = spiral(acquisition, Scanner(), in_out=in_out).points.numpy()
    of_plane = spiral(flat, Scanner(), in_out=in_out).points.numpy()[0]
    # turned as a rigid body: all products of points with points are as in the plane
    products = of_plane @ of_plane.T
    np.testing.assert_allclose(k @ k.transpose(0, 2, 1), np.broadcast_to(products, (200, *products.shape)), atol=1e-6)
    normals = np.cross(k[:, 150], k[:, 165])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.einsum("spd,sd->sp", k, normals), 0, atol=1e-9)
    # of evenly spread directions, the mean outer product is a third of the identity: of planes, and of ends
    for directions in (normals, k[:, -1] / acquisition.k_max[0]):
        np.testing.assert_allclose(directions.T @ directions / 200, np.eye(3) / 3, atol=0.02)


def test_spirals_of_a_volume_are_shrunk_where_k_max_is_smaller():
    acquisition = Acquisition((0.2, 0.2, 0.2), (64, 64, 32), 100, 500, 4e-6)
    trajectory = spiral(acquisition, Scanner(), in_out=True)
    ends = trajectory.points.numpy()[:, -1] / np.array(acquisition.k_max)
    np.testing.assert_allclose(np.linalg.norm(ends, axis=-1), 1, rtol=1e-9)


@pytest.mark.parametrize(("acquisition", "scanner"), STANDARD)
def test_spirals_are_at_one_of_their_limits_nearly_all_the_time(acquisition, scanner):
    trajectory = spiral(acquisition, scanner)
    speed = np.linalg.norm(trajectory.gradient.numpy()[0], axis=-1)
    slew = np.linalg.norm(trajectory.slew.numpy()[0], axis=-1)
    nyquist = 1 / (GAMMA * acquisition.dwell * max(acquisition.fov))
    used = np.maximum((speed[1:] + speed[:-1]) / 2 / min(scanner.max_gradient, nyquist), slew / scanner.max_slew)
    assert (used > 0.95).mean() > 0.97


@pytest.mark.parametrize(("turns", "max_slew"), [(0.1, 20.0), (1.0, 60.0), (4.0, 200.0)])
def test_a_spiral_takes_the_time_of_its_equation_of_motion(turns, max_slew):
    # integrated in time with an independent solver, from the textbook curvature of r = a theta
    acceleration, top = 0.98 * GAMMA * max_slew, 0.98 / (4e-6 * 0.22)
    a = 64 / 0.22 / (2 * np.pi * turns)

    def motion(_, state):
        theta, v = state
        curvature = (2 + theta**2) / (a * (1 + theta**2) ** 1.5)
        tangential = math.sqrt(max(acceleration**2 - (v**2 * curvature) ** 2, 0)) if v < top else 0
        return v / (a * math.sqrt(1 + theta**2)), tangential

    def end(_, state):
        return state[0] - 2 * np.pi * turns

    end.terminal = True
    least = solve_ivp(motion, (0, 1), [0, 0], events=end, max_step=2e-6).t_events[0][0]
    fits, short = (Acquisition(n_samples=int(least * part / 4e-6)) for part in (1.02, 0.98))
    scanner = Scanner(max_slew=max_slew)
    assert spiral(fits, scanner, turns=turns)
    with pytest.raises(LimitError, match=r"takes \d.* ms .* the readout has .* ms; take more samples"):
        spiral(short, scanner, turns=turns)


def test_spiral_turns_are_the_most_that_fit():
    acquisition, scanner = Acquisition(), Scanner()
    k = spiral(acquisition, scanner).points.numpy()[0]
    angle = np.unwrap(np.angle(k[2:, 0] + 1j * k[2:, 1]))
    most = angle[-1] / (2 * np.pi)
    assert spiral(acquisition, scanner, turns=0.99 * most)
    with pytest.raises(LimitError):
        spiral(acquisition, scanner, turns=1.01 * most)


@pytest.mark.parametrize(
    ("pattern", "acquisition", "scanner", "sentence"),
    [
        (
            radial,
            {"n_samples": 120},
            {},
            r"a spoke needs .* mT/m, the receiver's Nyquist limit .* more samples",
        ),
        (
            radial,
            {"n_samples": 200, "dwell": 1e-6},
            {},
            r"a spoke needs 64\.\d+ mT/m, limit 50 mT/m; take more samples, .* or a smaller matrix",
        ),
        (cartesian, {"n_samples": 120}, {}, "a line needs"),
        (epi, {"n_samples": 120}, {}, r"lines = 1 takes .* the readout has .* more samples"),
        (propeller, {"n_samples": 120}, {}, r"lines = 1 takes .* the readout has .* more samples"),
        (rosette, {"n_samples": 200}, {}, r"petals = 1 takes .* the readout has .* more samples"),
        (spiral, {"n_samples": 50}, {}, r"0\.1 turns takes .* the readout has .* more samples"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused_with_a_remedy(pattern, acquisition, scanner, sentence):
    with pytest.raises(LimitError, match=sentence):
        pattern(Acquisition(**acquisition), Scanner(**scanner))


@pytest.mark.parametrize(
    ("pattern", "options", "sentence"),
    [
        (spiral, {"density": 0.5}, "density is 0.5"),
        (spiral, {"turns": 0.0}, "turns is 0"),
        (cartesian, {"power": -1.0}, "power is -1"),
        (spiral, {"density": math.nan}, "density is nan"),
    ],
)
def test_options_out_of_range_are_refused(pattern, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        pattern(Acquisition(), Scanner(), **options)


@pytest.mark.parametrize("pattern", [cartesian, epi, propeller, rosette])
def test_two_dimensional_patterns_refuse_three_axes(pattern):
    with pytest.raises(ConfigError, match="2D pattern"):
        pattern(Acquisition((0.2, 0.2, 0.2), (32, 32, 32)), Scanner())


@pytest.mark.parametrize("name", ["cartesian", "epi", "propeller", "radial", "rosette", "spiral"])
def test_options_come_from_the_signature(name):
    resolved = plugins.resolve("init", {"kind": name})
    assert resolved.pop("kind") == name
    assert resolved
