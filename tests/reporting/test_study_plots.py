"""The figures of several runs show all that they are given."""

import math

import numpy as np
import pytest
from matplotlib.text import Text

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.psf import psf
from trajdesign.reporting import study_plots
from trajdesign.reporting.drawing import to_png
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectories.inits.spiral import spiral


@pytest.fixture(scope="module")
def shown():
    acquisition = Acquisition(matrix=(32, 24), fov=(0.24, 0.18), n_shots=4, n_samples=400)
    return {"a $b$": (t := radial(acquisition, Scanner()), psf(t)), "c": (t := spiral(acquisition, Scanner()), psf(t))}


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_trajectories_stand_above_their_point_spread_functions(shown):
    figure = study_plots.side_by_side(shown)
    assert figure.axes[0].get_title() == r"a \$b\$"
    for column, (_, report) in enumerate(shown.values()):
        assert len(figure.axes[column].collections[0].get_segments()) == 4
        [image] = figure.axes[2 + column].images
        np.testing.assert_allclose(image.get_array(), 20 * np.log10(np.maximum(report.image, 1e-12)))
        assert f"{report.peak_side_lobe:.1f}" in figure.axes[2 + column].get_title()
    assert to_png(figure).startswith(b"\x89PNG")


def test_images_stand_above_their_errors_and_beside_the_reference(shown):
    generator = np.random.default_rng(0)
    reference, *images = generator.uniform(size=(3, 24, 32))
    given = dict(zip(shown, images, strict=True))
    figure = study_plots.side_by_side(shown, reference, given, {"c": {"PSNR": 12.345, "SSIM": 0.5}})
    grid = np.array(figure.axes[:12]).reshape(4, 3)
    for column, image in enumerate(images):
        np.testing.assert_array_equal(grid[2, column].images[0].get_array(), image)
        np.testing.assert_array_equal(grid[3, column].images[0].get_array(), abs(image - reference))
    np.testing.assert_array_equal(grid[2, 2].images[0].get_array(), reference)
    assert "PSNR 12.35 dB, SSIM 0.5000" in texts(figure)
    assert to_png(figure).startswith(b"\x89PNG")


def test_results_over_shots():
    panels = {"radial": {"fixed": [20.0, 25.0], "learned": [22.0, math.nan]}, "spiral": {"fixed": [21.0, 26.0]}}
    figure = study_plots.over_shots(["2", "16"], panels)
    first, second = figure.axes
    assert [list(line.get_ydata()) for line in second.lines] == [[21, 26]]
    assert list(first.lines[0].get_ydata()) == [20, 25]
    assert len(first.lines) == 2
    assert [tick.get_text() for tick in second.get_xticklabels()] == ["2", "16"]
    assert {"radial", "spiral", "PSNR (dB)"} <= set(texts(figure))
    assert to_png(figure).startswith(b"\x89PNG")
