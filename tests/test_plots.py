import subprocess
import sys

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.table import Table
from matplotlib.text import Text

from trajdesign import plots
from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.inits.radial import radial
from trajdesign.inits.spiral import spiral
from trajdesign.psf import psf
from trajdesign.scanner import Scanner

ACQUISITION = Acquisition(matrix=(32, 32), n_shots=4, n_samples=400)


@pytest.fixture
def pair():
    return radial(ACQUISITION, Scanner()), spiral(ACQUISITION, Scanner())


def texts(figure):
    cells = [c.get_text() for table in figure.findobj(Table) for c in table.get_celld().values()]
    return [t.get_text() for t in (*figure.findobj(Text), *cells)]


def lines(axes):
    return next(c for c in axes.collections if isinstance(c, LineCollection)).get_segments()


def test_plots_leave_the_global_state_of_pyplot_alone():
    code = "import sys, trajdesign.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_trajectories_shows_the_adc_samples_of_every_shot_in_the_k_max_box(pair):
    figure = plots.trajectories(*pair)
    for axes, trajectory in zip(figure.axes[:2], pair, strict=True):
        np.testing.assert_allclose(np.array(lines(axes)), trajectory.k_adc.numpy())
        (box,) = axes.patches
        assert (box.get_width(), box.get_height()) == pytest.approx([2 * k for k in ACQUISITION.k_max])
        assert axes.get_title() == trajectory.name
    assert len(plots.trajectories(pair[0]).axes) == 2


def test_trajectories_in_3d_shows_every_pair_of_axes():
    acquisition = Acquisition((0.2, 0.2, 0.1), (32, 32, 16), n_shots=9, n_samples=300)
    trajectory = radial(acquisition, Scanner())
    figure = plots.trajectories(trajectory)
    for axes, plane in zip(figure.axes, ([0, 1], [0, 2], [1, 2]), strict=True):
        np.testing.assert_allclose(np.array(lines(axes)), trajectory.k_adc.numpy()[..., plane])


@pytest.mark.parametrize("norm", ["vector", "axis"])
def test_waveforms_show_norms_over_time_against_the_limits(norm):
    scanner = Scanner(limit_norm=norm)
    trajectory = spiral(ACQUISITION, scanner)
    gradient_axes, slew_axes = plots.waveforms(trajectory).axes
    order = 2 if norm == "vector" else np.inf
    raster = scanner.gradient_raster
    for axes, tensor, scale, start in (
        (gradient_axes, trajectory.gradient, 1e3, 0.0),
        (slew_axes, trajectory.slew, 1.0, raster / 2),
    ):
        values = np.linalg.norm(tensor.numpy(), ord=order, axis=-1) * scale
        time = 1e3 * (start + np.arange(values.shape[1]) * raster)
        for line, shot in zip(lines(axes), values, strict=True):
            np.testing.assert_allclose(line, np.column_stack([time, shot]), rtol=1e-9, atol=1e-9)
    nyquist = 1e3 / (scanner.gamma * ACQUISITION.dwell * ACQUISITION.fov[0])
    assert [line.get_ydata()[0] for line in gradient_axes.lines] == pytest.approx([50.0, nyquist])
    assert [line.get_ydata()[0] for line in slew_axes.lines] == pytest.approx([200.0])


def test_waveforms_colour_the_peak_that_breaks_a_limit(pair):
    broken = pair[1].with_k(3 * pair[1].k, "broken")
    peaks = [t for t in plots.waveforms(pair[1], broken).findobj(Text) if t.get_text().startswith("peak")]
    # rows of axes: gradient of both, slew rate of both
    colours = [t.get_color() for t in peaks]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    slew = float(np.linalg.norm(broken.slew.numpy(), axis=-1).max())
    assert peaks[3].get_text() == f"peak {slew:.4g} T/m/s, {slew / 200:.1%} of the limit"


def test_psf_figure_shows_both_and_their_numbers(pair):
    reports = [psf(t) for t in pair]
    figure = plots.psf_figure(*reports)
    shown = texts(figure)
    for report in reports:
        assert f"{1e3 * report.fwhm_x:.3f}" in shown
        assert f"{report.peak_side_lobe:.2f}" in shown
        assert report.name in shown
    images = [a.images[0] for a in figure.axes if a.images]
    peaks = [np.asarray(image.get_array()).max() for image in images]
    assert peaks == pytest.approx([0, 0, 0, 0], abs=1e-6)
    # the peak is the pixel that is centred on the origin
    left, right, bottom, top = images[0].get_extent()
    n_y, n_x = images[0].get_array().shape
    assert left + (n_x // 2 + 0.5) * (right - left) / n_x == pytest.approx(0)
    assert bottom + (n_y // 2 + 0.5) * (top - bottom) / n_y == pytest.approx(0)
    assert sum(bool(a.images) for a in plots.psf_figure(reports[0]).axes) == 2


def test_psf_figure_of_a_field_of_view_and_voxels_that_are_not_square(tmp_path):
    acquisition = Acquisition((0.30, 0.15), (32, 48), n_shots=5, n_samples=400)
    plots.save(plots.psf_figure(psf(radial(acquisition, Scanner()))), tmp_path / "psf.png")


def test_reconstructions_show_images_and_errors_on_common_scales():
    rng = np.random.default_rng(0)
    reference = rng.uniform(size=(24, 16))
    results = {"fixed": reference + 0.1, "learned": reference - 0.01}
    figure = plots.reconstructions(reference, results, {"learned": {"PSNR": 40.0, "SSIM": 0.99}}, error_scale=4)
    images = [a.images[0] for a in figure.axes if a.images]
    arrays = [np.asarray(i.get_array()) for i in images]
    for got, expected in zip(arrays, [reference, *results.values(), 0.1, 0.01], strict=True):
        np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), atol=1e-12)
    assert {i.get_clim() for i in images} == {(0.0, reference.max()), (0.0, reference.max() / 4)}
    assert "PSNR 40.00 dB, SSIM 0.9900" in texts(figure)
    assert len([a for a in plots.reconstructions(reference, {}).axes if a.images]) == 1


def test_learning_curves_leave_gaps_and_name_the_last_value():
    figure = plots.learning_curves({"fixed": ([0, 10, 20], [30, np.nan, 32]), "learned": ([], [])})
    (axes,) = figure.axes
    first, second = axes.lines
    np.testing.assert_array_equal(first.get_ydata(), [30, np.nan, 32])
    assert len(second.get_xdata()) == 0
    assert first.get_label() == "fixed: 32.00"
    assert first.get_color() != second.get_color()
    assert axes.get_ylabel() == "validation PSNR (dB)"


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_save_writes_each_format_and_nothing_else(tmp_path, pair, ending, magic):
    path = tmp_path / "figures" / f"k.{ending}"
    plots.save(plots.trajectories(*pair), path)
    assert path.read_bytes().startswith(magic)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_same_figure_gives_the_same_bytes(pair):
    first, second = (plots.to_png(plots.waveforms(*pair)) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_save_refuses_other_endings(tmp_path):
    with pytest.raises(ConfigError, match=r"\.png, \.svg, \.pdf, not in '\.bmp'"):
        plots.save(Figure(), tmp_path / "k.bmp")
    assert not list(tmp_path.iterdir())
