"""The figures of several runs, side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from trajdesign.encoding.psf import PsfReport
from trajdesign.reporting import drawing
from trajdesign.trajectory import Trajectory

_ERROR_SCALE = 5.0  # errors are shown on a scale this many times finer than the image


def side_by_side(
    shown: Mapping[str, tuple[Trajectory, PsfReport]],
    reference: np.ndarray | None = None,
    images: Mapping[str, np.ndarray] | None = None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Draw a column for each of several trajectories: k-space, point spread function, and what is reconstructed.

    Parameters
    ----------
    shown
        Trajectory and its point spread function, by label; 2D.
    reference
        Magnitude image (y, x), in a column of its own; without one there are no images.
    images
        Reconstructions (y, x) by label, in the units of the reference, each above its errors.
    scores
        Numbers to print below an image: see `trajdesign.reporting.plots.reconstructions`.
    """
    rows, columns = (2, len(shown)) if reference is None else (4, len(shown) + 1)
    figure = drawing.new_figure(3.5 * columns + 0.6, 3.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for column, (label, (trajectory, report)) in enumerate(shown.items()):
        drawing.k_space(grid[0, column], trajectory, (0, 1))
        grid[0, column].set_title(drawing.plain(label), fontsize=10, fontweight="bold")
        drawn = drawing.psf_image(grid[1, column], report, report.image, report.image_step, "")
        lobes = f"side lobes: peak {report.peak_side_lobe:.1f}, integrated {report.integrated_side_lobe:.1f} dB"
        grid[1, column].set_title(lobes, fontsize=9, color=drawing.GREY)
    figure.colorbar(drawn, ax=grid[1, :], label="|PSF| (dB)", pad=0.01, aspect=30)
    if reference is None:
        return figure
    top = float(np.max(reference)) or 1.0
    for row in (0, 1, 3):
        grid[row, -1].axis("off")
    gray = drawing.magnitude(grid[2, -1], reference, "gray", top)
    grid[2, -1].set_title("reference", fontsize=9, color=drawing.GREY)
    for column, label in enumerate(shown):
        image = (images or {})[label]
        drawing.magnitude(grid[2, column], image, "gray", top)
        grid[2, column].set_xlabel(drawing.scores_text((scores or {}).get(label, {})))
        error = drawing.magnitude(grid[3, column], np.abs(image - reference), "inferno", top / _ERROR_SCALE)
        grid[3, column].set_title(f"error, ×{_ERROR_SCALE:g}", fontsize=9, color=drawing.GREY)
    figure.colorbar(gray, ax=grid[2, :], label="magnitude", pad=0.01, aspect=30)
    figure.colorbar(error, ax=grid[3, :], label="|error|", pad=0.01, aspect=30)
    return figure


def over_shots(
    shots: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[float]]], *, y_label: str = "PSNR (dB)"
) -> Figure:
    """Draw results against the number of shots.

    Parameters
    ----------
    shots
        What stands below each point, in order.
    panels
        Pattern -> label -> a value for each of the shots, not a number where there is none.
    y_label
        What is drawn, with the unit.
    """
    figure = drawing.new_figure(4.2 * len(panels) + 0.4, 4.0)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (pattern, lines) in zip(grid, panels.items(), strict=True):
        for i, (label, values) in enumerate(lines.items()):
            colour, style = drawing.COLOURS[i % len(drawing.COLOURS)], ("-", "--", ":")[i // len(drawing.COLOURS) % 3]
            axes.plot(range(len(shots)), values, style, marker="o", color=colour, label=drawing.plain(label))
        axes.set_xticks(range(len(shots)), shots)
        drawing.label(axes, "shots", y_label if axes is grid[0] else "", drawing.plain(pattern))
    grid[-1].legend(frameon=False, fontsize=9)
    return figure
