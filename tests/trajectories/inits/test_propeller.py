import numpy as np
import pytest

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.epi import epi
from trajdesign.trajectories.inits.propeller import propeller


def blades(trajectory):
    """Return the control points kx + i ky (shot, point), 1/FOV, with every blade turned back onto the first."""
    k = trajectory.points.numpy() * np.array(trajectory.acquisition.fov)
    n_shots = len(k)
    return (k[..., 0] + 1j * k[..., 1]) * np.exp(-1j * np.pi * np.arange(n_shots) / n_shots)[:, None]


@pytest.mark.parametrize(("n_shots", "options"), [(8, {}), (5, {"lines": 4}), (3, {"lines": 3, "spacing": 2.5})])
def test_blades_are_one_strip_of_lines_turned_evenly(n_shots, options):
    k = blades(propeller(Acquisition(n_shots=n_shots), Scanner(), **options))
    np.testing.assert_allclose(k, np.broadcast_to(k[0], k.shape), atol=1e-9)
    rows = k[0, 1:].imag[np.diff(np.sign(k[0].real)) != 0]
    lines = options.get("lines", len(rows))
    assert len(rows) == lines
    wanted = (np.arange(lines) - (lines - 1) / 2) * options.get("spacing", 1.0)
    np.testing.assert_allclose(rows, wanted, atol=1e-9)


def test_the_corners_of_a_blade_lie_on_the_circle():
    k = blades(propeller(Acquisition(n_shots=4), Scanner(), lines=4, spacing=4.0))[0]
    np.testing.assert_allclose(np.abs(k[[0, -1]]), 64, rtol=1e-9)
    assert np.abs(k).max() <= 64 * (1 + 1e-12)


def test_blades_are_shrunk_where_k_max_differs():
    acquisition = Acquisition((0.2, 0.2), (128, 64), n_shots=4)
    k, whole = propeller(acquisition, Scanner()).points, propeller(Acquisition((0.2, 0.2), n_shots=4), Scanner()).points
    np.testing.assert_allclose(k[..., 0], whole[..., 0], atol=1e-9)
    np.testing.assert_allclose(k[..., 1], whole[..., 1] / 2, atol=1e-9)


def test_a_single_line_a_blade_is_a_spoke():
    k = propeller(Acquisition(n_shots=6), Scanner(), lines=1)
    np.testing.assert_allclose(k.slew, 0, atol=1e-6)
    np.testing.assert_allclose(blades(k).imag, 0, atol=1e-9)


def test_a_blade_of_nearly_the_whole_matrix_has_the_lines_of_an_epi_shot():
    acquisition = Acquisition(matrix=(16, 16), n_shots=1, n_samples=3000)
    strip, shot = (
        propeller(acquisition, Scanner(), lines=15).points.numpy(),
        epi(acquisition, Scanner(), lines=16).points.numpy(),
    )
    for k, lines in ((strip, 15), (shot, 16)):
        rows = k[0, 1:, 1][np.diff(np.sign(k[0, :, 0])) != 0] * 0.22
        # lines as short as these have no straight part: the blip starts right after k_x = 0
        np.testing.assert_allclose(rows, np.arange(lines) - lines // 2, atol=1e-3)


def test_there_are_no_more_lines_than_make_the_blades_meet():
    # blades of width w, turned by pi / n, meet on the circle if n w is half its circumference
    acquisition = Acquisition(matrix=(32, 32), n_shots=16, n_samples=3000)
    k = blades(propeller(acquisition, Scanner()))[0]
    lines = int((np.diff(np.sign(k.real)) != 0).sum())
    assert 16 * (lines - 1) < np.pi * 16 <= 16 * lines


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lines": 0}, "lines is 0; it lies between 1 and 26"),
        ({"lines": 27}, "lines is 27"),
        ({"spacing": 0.0}, "spacing is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        propeller(Acquisition(), Scanner(), **options)
