"""The picture of measured data: the image by each reconstruction, and what it leaves unexplained."""

import itertools
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trajdesign.reconstruction.measured import LABELS, Delay, Reconstructed
from trajdesign.reporting import drawing

# Of more values than that a line shows no single one.
_MOST_DOTS = 40


def overview(found: Reconstructed, *, is_film: bool = False) -> Figure:
    """Draw the middle slice by each reconstruction, and its residual over the shots and over time in the shot.

    Of a film all frames are drawn, else the first.
    """
    images, facts, names = found.images, found.facts, found.names
    has_delay = "criterion" in facts.delay
    figure = drawing.new_figure(max(4.0 * len(names), 10.0 if has_delay else 0.0), 7.0)
    grid = figure.add_gridspec(2, 6 * len(names), height_ratios=[4, 2.2])
    for column, name in enumerate(names):
        frames = images[name][:, images[name].shape[1] // 2]
        image = drawing.mosaic(frames) if is_film else frames[0]
        axes = figure.add_subplot(grid[0, 6 * column : 6 * (column + 1)])
        drawing.magnitude(axes, image, "gray", float(image.max()) or 1.0)
        axes.set_title(LABELS[name], fontweight="bold")
        total, promised = facts.residual[name]["total"], facts.promised.get(name)
        beside = "" if promised is None else f" (of its own data {promised:.1%})"
        axes.set_xlabel(f"unexplained: {total:.1%}{beside}", fontsize=9, color=drawing.GREY)
    parts = np.linspace(0, 6 * len(names), 4 if has_delay else 3).astype(int)
    shots, times, *more = (figure.add_subplot(grid[1, a:b]) for a, b in itertools.pairwise(parts))
    _residuals(shots, found, "of_shots", None)
    _residuals(times, found, "over_time", 1e3 * facts.readout)
    drawing.label(shots, "shot", "unexplained (%)", "unexplained of each shot")
    drawing.label(times, "time in the readout (ms)", "unexplained (%)", "and over time (dashed: of its own data)")
    shots.legend(fontsize=8, frameon=False)
    for axes in more:
        _delay(axes, facts.delay)
    return figure


def _residuals(axes: Axes, found: Reconstructed, key: Literal["of_shots", "over_time"], last: float | None) -> None:
    """Draw what is unexplained, what is promised, and noise, over the shots, or over time up to the `last`, ms."""
    facts = found.facts
    noise = 100 * np.array(facts.noise_parts[key])
    x = np.arange(len(noise)) if last is None else (np.arange(len(noise)) + 0.5) / len(noise) * last
    axes.plot(x, noise, color=drawing.GREY, linewidth=0.8, label="noise")
    top = float(np.median(noise))  # where there is no signal, noise is all of it, and may leave the picture
    for colour, name in zip(drawing.COLOURS, found.names, strict=False):
        marker = "o" if len(x) <= _MOST_DOTS else ""
        left = 100 * np.array(facts.residual[name][key])
        axes.plot(x, left, marker=marker, ms=3, color=colour, label=LABELS[name])
        if name in facts.promised_parts:
            axes.plot(x, 100 * np.array(facts.promised_parts[name][key]), "--", linewidth=0.8, color=colour)
        top = max(top, left.max())
    axes.set_ylim(0, 1.1 * top or 1.0)


def _delay(axes: Axes, delay: Delay) -> None:
    """Draw the criterion over the delay, and the delays that were found."""
    axes.plot(1e6 * np.array(delay["tried"]), delay["criterion"], "o-", ms=3, color=drawing.COLOURS[0])
    for late, name, colour in zip(delay["axes"], drawing.AXES, drawing.COLOURS[1:], strict=False):
        axes.axvline(1e6 * late, color=colour, linewidth=1, label=f"{name}: {1e6 * late:.2f} us")
    drawing.label(axes, "delay of all axes (us)", "criterion", f"delay by {delay['by']}")
    axes.legend(fontsize=8, frameon=False)
