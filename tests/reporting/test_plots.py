import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.table import Table
from matplotlib.text import Text

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.psf import psf
from trajdesign.errors import ConfigError
from trajdesign.reporting import drawing, plots
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.planes import planes
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectory import Trajectory, n_points

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
    code = "import sys, trajdesign.reporting.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
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


def test_trajectories_of_films_show_the_first_frame_and_all():
    film = planes(Acquisition((0.2, 0.2), (32, 32), 12, 300, n_frames=4), Scanner(), turn="golden")
    figure = plots.trajectories(film, film)
    for axes, n_shots in zip(figure.axes, (3, 3, 12, 12), strict=True):
        np.testing.assert_allclose(np.array(lines(axes)), film.k_adc[:n_shots].numpy())
    assert [figure.axes[i].get_title().split(";")[0] for i in (0, 2)] == [
        "planes of spiral: first frame",
        "all 4 frames",
    ]


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
    broken = pair[1].with_points(3 * pair[1].points, "broken")
    peaks = [t for t in plots.waveforms(pair[1], broken).findobj(Text) if t.get_text().startswith("peak")]
    # rows of axes: gradient of both, slew rate of both
    colours = [t.get_color() for t in peaks]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    slew = float(np.linalg.norm(broken.slew.numpy(), axis=-1).max())
    assert peaks[3].get_text() == f"peak {slew:.4g} T/m/s, {slew / 200:.1%} of the scanner limit"


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
    figure = plots.reconstructions(reference, results, {"learned": {"PSNR": 40.0, "SSIM": 0.99}})
    images = [a.images[0] for a in figure.axes if a.images]
    arrays = [np.asarray(i.get_array()) for i in images]
    for got, expected in zip(arrays, [reference, *results.values(), 0.1, 0.01], strict=True):
        np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), atol=1e-12)
    assert {i.get_clim() for i in images} == {(0.0, reference.max()), (0.0, reference.max() / 5)}
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
    first, second = (drawing.to_png(plots.waveforms(*pair)) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_save_refuses_other_endings(tmp_path):
    with pytest.raises(ConfigError, match=r"\.png, \.svg, \.pdf, not in '\.bmp'"):
        plots.save(Figure(), tmp_path / "k.bmp")
    assert not list(tmp_path.iterdir())


def test_figures_trajectories_and_reports_show_themselves_in_a_notebook(pair):
    one = pair[0]
    for figure in (plots.trajectories(*pair), plots.psf_figure(psf(one)), plots.learning_curves({"a": ([1], [2.0])})):
        assert figure._repr_png_().startswith(b"\x89PNG")
    images = np.ones((2, 8, 8))
    assert plots.reconstructions(images[0], {"a": images[1]})._repr_png_().startswith(b"\x89PNG")
    # in one line without a tensor, and in HTML whose names stay text
    named = one.with_points(one.points, "<b>& mine")
    for thing in (named, psf(named)):
        assert len(repr(thing)) < 260
        assert "\n" not in repr(thing)
        assert "<b>" not in thing._repr_html_()
        assert "&lt;b&gt;&amp; mine" in thing._repr_html_()
    assert repr(named) == (
        "Trajectory('<b>& mine': 4 shots of 400 samples, 1.6 ms, matrix 32 x 32, FOV 220 x 220 mm, 1H)"
    )


def test_the_picture_of_a_trajectory_is_its_k():
    one = Trajectory(*cube(np.random.default_rng(0)))
    picture = ElementTree.fromstring(one._repr_html_())
    drawn = picture.findall("svg")
    assert [svg.find("title").text for svg in drawn] == ["kx ky, box: k_max", "kx kz, box: k_max", "ky kz, box: k_max"]
    k, k_max = one.k_adc.numpy(), np.array(one.acquisition.k_max)
    for svg, plane in zip(drawn, ([0, 1], [0, 2], [1, 2]), strict=True):
        lines = [
            np.array([p.split(",") for p in line.get("points").split()], float) for line in svg.findall("polyline")
        ]
        box = {key: float(value) for key, value in svg.find("rect").attrib.items() if key in ("x", "width", "height")}
        scale = box["width"] / 2 / k_max[plane[0]]
        assert box["height"] == pytest.approx(2 * scale * k_max[plane[1]], abs=0.2)
        for line, shot in zip(lines, k[..., plane], strict=True):
            np.testing.assert_allclose((line - 160) * [1, -1] / scale, shot, atol=0.15 / scale)


def cube(generator):
    acquisition = Acquisition(fov=(0.2, 0.2, 0.1), matrix=(32, 24, 8), n_shots=3, n_samples=50)
    shape = (3, n_points(acquisition, Scanner()), 3)
    return torch.from_numpy(generator.uniform(-1, 1, shape) * acquisition.k_max), acquisition, Scanner()


def test_a_peak_that_is_rounding_is_zero_and_the_limit_is_named(pair):
    still = pair[0].with_points(pair[0].points * 1e-15)
    peaks = [t.get_text() for t in plots.waveforms(still).findobj(Text) if t.get_text().startswith("peak")]
    assert peaks == ["peak 0 mT/m, 0.0% of the receiver limit", "peak 0 T/m/s, 0.0% of the scanner limit"]
