"""The figures of a run, as matplotlib figures that show themselves in a notebook."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from torch import Tensor

from trajdesign.encoding.psf import PsfReport
from trajdesign.errors import ConfigError
from trajdesign.files import untrusted
from trajdesign.files.atomic import atomic_path
from trajdesign.physics.constraints.gradient import Gradient
from trajdesign.physics.constraints.receiver import Receiver
from trajdesign.physics.constraints.slew import Slew
from trajdesign.physics.resonances import Band, Exposure
from trajdesign.reporting import drawing
from trajdesign.scanner import Finding
from trajdesign.trajectory import Trajectory, point_times

_LIMIT = "#B2182B"
_METADATA: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_HIGHEST_HZ = 3000.0  # the end of a gradient spectrum
_LINES_A_PAGE = 72
_CLOSE_UP = 1 / 8  # the part of k_max shown around the centre


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure to a ``.png``, ``.svg`` or ``.pdf`` file; another ending raises `ConfigError`."""
    ending = untrusted.ending(path)
    if ending not in _METADATA:
        raise ConfigError(f"{path}: a figure's file name ends in {', '.join(_METADATA)}, not in {ending!r}.")
    stream = io.BytesIO()  # memory first: on a full disk matplotlib leaves a PDF file open
    with drawing.lacking_letters():
        figure.savefig(stream, dpi=150, metadata=_METADATA[ending], format=ending[1:])
    with atomic_path(path) as temporary:
        temporary.write_bytes(stream.getbuffer())


def save_pages(figures: Sequence[Figure], path: Path | str) -> None:
    """Write figures to one ``.pdf`` file, a page each."""
    stream = io.BytesIO()  # see save
    with PdfPages(stream, metadata=_METADATA[".pdf"]) as pages, drawing.lacking_letters():
        for figure in figures:
            pages.savefig(figure)
    with atomic_path(path) as temporary:
        temporary.write_bytes(stream.getbuffer())


def text_pages(title: str, text: str) -> list[Figure]:
    """Return text under a title on pages of A4."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, 104, subsequent_indent="    ") or [""]]
    pages = []
    for first in range(0, len(lines), _LINES_A_PAGE):
        figure = drawing.new_figure(8.27, 11.69, layout=None)
        figure.text(0.08, 0.95, title, fontsize=13, fontweight="bold", va="top", parse_math=False)
        part = "\n".join(lines[first : first + _LINES_A_PAGE])
        figure.text(0.08, 0.92, part, fontsize=7.5, family="monospace", va="top", linespacing=1.35, parse_math=False)
        pages.append(figure)
    return pages


def trajectories(*shown: Trajectory) -> Figure:
    """Draw k-space of trajectories: a column each, whole and centre; in 3D a row each with its three planes.

    Of films it is the first frame, and all.
    """
    if shown[0].acquisition.n_frames > 1:
        return _films(shown)
    if shown[0].acquisition.n_dims == 2:
        figure = drawing.new_figure(5.0 * len(shown) + 0.2, 9.8)
        grid = figure.subplots(2, len(shown), squeeze=False)
        for column, trajectory in enumerate(shown):
            drawing.k_space(grid[0, column], trajectory, (0, 1))
            grid[0, column].set_title(drawing.plain(trajectory.name), fontweight="bold")
            drawing.k_space(grid[1, column], trajectory, (0, 1), part=_CLOSE_UP)
            title = f"centre, ×{1 / _CLOSE_UP:g}; dots: ADC samples; shots: dark to light"
            grid[1, column].set_title(title, color=drawing.GREY, fontsize=9)
        return figure
    planes = ((0, 1), (0, 2), (1, 2))
    figure = drawing.new_figure(4.4 * len(planes), 4.6 * len(shown))
    grid = figure.subplots(len(shown), len(planes), squeeze=False)
    for row, trajectory in enumerate(shown):
        for column, plane in enumerate(planes):
            drawing.k_space(grid[row, column], trajectory, plane)
        grid[row, 0].set_title(drawing.plain(trajectory.name), fontweight="bold")
    return figure


def waveforms(*shown: Trajectory) -> Figure:
    """Draw the gradient and the slew rate of every shot over time against the limits, a column for each trajectory.

    Both are in the norm of the scanner's limits. The receiver's Nyquist limit is a gradient too.
    """
    figure = drawing.new_figure(6.0 * len(shown), 6.4)
    grid = figure.subplots(2, len(shown), squeeze=False, sharex=True, sharey="row")
    for column, trajectory in enumerate(shown):
        acquisition, scanner = trajectory.acquisition, trajectory.scanner
        gradient, receiver, slew = (c(acquisition, scanner) for c in (Gradient, Receiver, Slew))
        norm = "vector norm" if scanner.limit_norm == "vector" else "largest axis"
        top, bottom = grid[:, column]
        findings = {"scanner": gradient.check(trajectory), "receiver": receiver.check(trajectory)}
        _against_limits(top, trajectory, 1e3 * gradient.measure(trajectory), findings, "mT/m", 1e3)
        _against_limits(bottom, trajectory, slew.measure(trajectory), {"scanner": slew.check(trajectory)}, "T/m/s")
        if column == 0:
            top.set_ylabel(f"gradient, {norm} (mT/m)")
            bottom.set_ylabel(f"slew rate, {norm} (T/m/s)")
        top.set_title(drawing.plain(trajectory.name), fontweight="bold", loc="left")
        bottom.set_xlabel("time (ms)")
    return figure


def psf_figure(*shown: PsfReport) -> Figure:
    """Draw point spread functions: a row of images in dB for each, the profiles and the numbers of all."""
    figure = drawing.new_figure(15.0, 4.5 * len(shown) + (1.9 if len(shown) == 1 else 0.9))
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.9, 1.0))[0]
    images = left.subplots(len(shown), 2, squeeze=False)
    for row, one in enumerate(shown):
        drawing.psf_image(images[row, 0], one, one.image, one.image_step, "twice the FOV; box: the FOV")
        half = min(8 * min(one.voxel[:2]), one.detail.shape[0] // 2 * min(one.detail_step))
        title = "around the peak; ring: main lobe"
        drawn = drawing.psf_image(images[row, 1], one, one.detail, one.detail_step, title, half)
    left.colorbar(drawn, ax=images, label="|PSF| (dB)", shrink=0.6 if len(shown) == 2 else 0.8, pad=0.01)
    profile, radial, table = right.subplots(3, 1, height_ratios=(1.0, 1.0, 0.75))
    for colour, one in zip(drawing.COLOURS, shown, strict=False):
        _psf_profiles(profile, radial, one, colour)
    profile.axhline(0.5, color=drawing.GREY, linewidth=0.8, linestyle=":")
    drawing.label(profile, "offset (mm)", "|PSF|", "main lobe")
    drawing.label(radial, "distance (mm)", "dB", "over all directions: mean (thick) and maximum (thin)")
    for axes in (profile, radial):
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    _psf_table(table, shown)
    return figure


def reconstructions(
    reference: np.ndarray,
    results: Mapping[str, np.ndarray],
    scores: Mapping[str, Mapping[str, float]] | None = None,
    which: str = "",
) -> Figure:
    """Draw a reference image and reconstructions of it by label, each above the map of its errors.

    Images are magnitudes (y, x) in one unit. `scores` are printed below them, by label and name: PSNR is in dB, as in
    ``{"learned": {"PSNR": 31.2, "SSIM": 0.91}}``. `which` says below the reference what is shown of a volume or film.
    """
    n = len(results) + 1
    ratio = reference.shape[0] / reference.shape[1]
    figure = drawing.new_figure(3.3 * n + 0.9, 6.6 * ratio + 1.1, layout="compressed")
    grid = figure.subplots(2, n, squeeze=False)
    drawn = drawing.magnitude(grid[0, 0], reference, "gray", drawing.peak(reference))
    grid[0, 0].set_title("reference", fontweight="bold")
    grid[0, 0].set_xlabel(which)
    grid[1, 0].axis("off")
    for column, (label, image) in enumerate(results.items(), start=1):
        grid[0, column].set_title(label, fontweight="bold")
        error = drawing.with_errors(grid[:, column], image, reference, (scores or {}).get(label, {}))
    figure.colorbar(drawn, ax=grid[0, :], label="magnitude", pad=0.01, aspect=30)
    if results:
        figure.colorbar(error, ax=grid[1, :], label="|error|", pad=0.01, aspect=30)
    return figure


def learning_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draw the validation PSNR over training: label -> (steps, dB); values that are not finite leave a gap."""
    figure = drawing.new_figure(7.2, 4.4)
    axes = figure.subplots()
    for i, (label, (steps, values)) in enumerate(curves.items()):
        y = np.asarray(values, dtype=float)
        colour, style = drawing.look(i)
        marker = "o" if len(y) <= 40 else ""
        text = f"{label}: {y[-1]:#.4g}" if len(y) else label
        y = np.where(np.isfinite(y), y, np.nan)
        axes.plot(np.asarray(steps), y, style, marker=marker, markersize=3.5, color=colour, label=text)
    drawing.label(axes, "step", "validation PSNR (dB)", "")
    if curves:
        axes.legend(frameon=False, fontsize=9)
    return figure


def _films(shown: Sequence[Trajectory]) -> Figure:
    figure = drawing.new_figure(5.0 * len(shown) + 0.2, 9.8)
    grid = figure.subplots(2, len(shown), squeeze=False)
    n_frames = shown[0].acquisition.n_frames
    for column, trajectory in zip(grid.T, shown, strict=True):
        drawing.k_space(column[0], trajectory, (0, 1), n_shots=trajectory.acquisition.shots_a_frame)
        column[0].set_title(f"{drawing.plain(trajectory.name)}: first frame", fontweight="bold")
        drawing.k_space(column[1], trajectory, (0, 1))
        column[1].set_title(f"all {n_frames} frames; shots: dark to light", color=drawing.GREY, fontsize=9)
    return figure


def _against_limits(
    axes: Axes,
    trajectory: Trajectory,
    measured: Tensor,
    findings: Mapping[str, Finding],
    unit: str,
    per_si: float = 1.0,
) -> None:
    """Draw measured values (shot, time), in a unit, over the time of the control points they are centred between."""
    limits = {name: per_si * finding.limit for name, finding in findings.items() if finding.limit is not None}
    values = measured.detach().double().cpu().numpy()
    times = point_times(trajectory.acquisition, trajectory.scanner)
    lost = (len(times) - values.shape[1]) / 2
    time = 1e3 * (times[0] + (np.arange(values.shape[1]) + lost) * trajectory.scanner.gradient_raster)
    lines = [np.column_stack([time, shot]) for shot in values]
    axes.add_collection(LineCollection(lines, colors=list(drawing.shot_colours(len(values))), linewidths=0.7))
    peak = float(np.nanmax(values))
    if any(finding.is_rounding for finding in findings.values()):
        peak = 0.0
    for i, (name, limit) in enumerate(limits.items()):
        axes.axhline(limit, color=_LIMIT, linewidth=1.2, linestyle=("-", "--")[i])
        axes.annotate(
            f"{name} limit {limit:.4g}", (1, limit), (-3, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="bottom", fontsize=8, color=_LIMIT,
        )  # fmt: skip
    name, least = min(limits.items(), key=lambda named: named[1])
    axes.set_title(
        f"peak {peak:.4g} {unit}, {peak / least:.1%} of the {name} limit", loc="right", fontsize=9,
        color=drawing.GREY if all(finding.ok for finding in findings.values()) else _LIMIT,
    )  # fmt: skip
    axes.set_xlim(time[0], time[-1])
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.12 * max(peak, *limits.values())))
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _psf_profiles(profile: Axes, radial: Axes, report: PsfReport, colour: str) -> None:
    centre = report.detail.shape[0] // 2
    for axis, line, style in ((0, report.detail[centre], "-"), (1, report.detail[:, centre], "--")):
        offset = 1e3 * (np.arange(len(line)) - centre) * report.detail_step[axis]
        label = f"{drawing.plain(report.name)}, {drawing.AXES[axis]}"
        profile.plot(offset, line, style, color=colour, linewidth=1.4, label=label)
    reach = 4e3 * max(report.voxel[:2])
    profile.set_xlim(-reach, reach)
    distance, mean, largest = report.over_directions()
    distance = 1e3 * distance
    mean, largest = (20 * np.log10(np.maximum(values, 1e-12)) for values in (mean, largest))
    radial.plot(distance, mean, color=colour, linewidth=1.8, label=drawing.plain(report.name))
    radial.plot(distance, largest, color=colour, linewidth=0.6)
    radial.set_xlim(0, distance[-1])
    radial.set_ylim(drawing.FLOOR_DB - 10, 3)


def _psf_table(axes: Axes, shown: Sequence[PsfReport]) -> None:
    axes.axis("off")
    rows = drawing.psf_rows(shown)
    table = axes.table(
        [cells for _, *cells in rows],
        rowLabels=[name for name, *_ in rows],
        colLabels=[drawing.plain(r.name) for r in shown],
        loc="center", edges="horizontal", cellLoc="center", bbox=Bbox.from_bounds(0.45, 0, 0.55, 1),
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for cell in table.get_celld().values():
        cell.set_edgecolor("#BBBBBB")


def exposure_figure(exposure: Exposure, bands: Sequence[Band] = ()) -> Figure:
    """Draw what a file does to nerves and resonances: its gradient where nerves respond most, and its spectrum."""
    figure = drawing.new_figure(9.0, 8.5)
    gradient, nerves, spectrum = figure.subplots(3, 1)
    ms = exposure.times * 1e3
    for axis, (name, colour) in enumerate(zip(drawing.AXES, drawing.COLOURS, strict=False)):
        gradient.plot(ms, exposure.gradient[:, axis] * 1e3, color=colour, linewidth=0.8, label=name)
    gradient.legend(loc="upper right", ncols=3)
    drawing.label(gradient, "time (ms)", "gradient (mT/m)", "where nerves respond most")
    stimulation = exposure.checks[0]
    nerves.plot(ms, 100 * exposure.response, color=drawing.COLOURS[0], linewidth=0.8)
    nerves.axhline(100 * (stimulation.limit or 1), color=_LIMIT, linestyle="--")
    title = f"nerve stimulation: {stimulation.value:.1%}, {stimulation.verdict}"
    drawing.label(nerves, "time (ms)", "% of limit", title)
    heard = exposure.frequencies <= _HIGHEST_HZ
    spectrum.plot(exposure.frequencies[heard], exposure.spectrum[heard] * 1e3, color=drawing.COLOURS[0], linewidth=0.8)
    for band in bands:
        spectrum.axvspan(band.low, band.high, color=_LIMIT, alpha=0.2)
    for check in exposure.checks[1:]:
        if check.limit is not None:
            spectrum.axhline(check.limit * 1e3, color=_LIMIT, linestyle="--")
    drawing.label(spectrum, "frequency (Hz)", "amplitude (mT/m)", "gradient spectrum, worst window")
    return figure
