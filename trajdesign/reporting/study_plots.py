"""The figures of several runs, side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from trajdesign.encoding.psf import PsfReport
from trajdesign.reporting import drawing
from trajdesign.trajectory import Trajectory


def side_by_side(
    shown: Mapping[str, tuple[Trajectory, PsfReport]],
    reference: np.ndarray | None = None,
    images: Mapping[str, np.ndarray] | None = None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    which: str = "",
) -> Figure:
    """Draw a column for each trajectory: k_x and k_y, point spread function, and the reconstruction above its errors.

    Parameters
    ----------
    shown
        Trajectory and its point spread function, by label.
    reference, images, scores, which
        As for `trajdesign.reporting.plots.reconstructions`; without a reference there are no images.
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
    for row in (0, 1, 3):
        grid[row, -1].axis("off")
    gray = drawing.magnitude(grid[2, -1], reference, "gray", drawing.peak(reference))
    grid[2, -1].set_title("reference", fontsize=9, color=drawing.GREY)
    grid[2, -1].set_xlabel(which)
    for column, label in enumerate(shown):
        error = drawing.with_errors(grid[2:, column], (images or {})[label], reference, (scores or {}).get(label, {}))
    figure.colorbar(gray, ax=grid[2, :], label="magnitude", pad=0.01, aspect=30)
    figure.colorbar(error, ax=grid[3, :], label="|error|", pad=0.01, aspect=30)
    return figure


def over_shots(shots: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw PSNR against the number of shots.

    Parameters
    ----------
    shots
        The label of each point, in order.
    panels
        Pattern -> label -> PSNR for each of the shots, NaN where there is none.
    """
    points = {
        pattern: {label: (range(len(shots)), values) for label, values in lines.items()}
        for pattern, lines in panels.items()
    }
    figure = over_sizes("shots", points)
    for axes in figure.axes:
        axes.set_xticks(range(len(shots)), shots)
    return figure


def over_sizes(name: str, panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """Draw PSNR against a size, as that of an error.

    Parameters
    ----------
    name
        Of the size, with its unit.
    panels
        Title -> label -> sizes, and the PSNR at each.
    """
    figure = drawing.new_figure(4.2 * len(panels) + 0.4, 4.0)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (title, lines) in zip(grid, panels.items(), strict=True):
        for i, (label, (sizes, values)) in enumerate(lines.items()):
            colour, style = drawing.look(i)
            axes.plot(sizes, values, style, marker="o", color=colour, label=drawing.plain(label))
        drawing.label(axes, drawing.plain(name), "PSNR (dB)" if axes is grid[0] else "", drawing.plain(title))
    grid[-1].legend(frameon=False, fontsize=9)
    return figure
