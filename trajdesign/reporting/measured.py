"""The picture of measured data: the image by each reconstruction, and what it leaves unexplained."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trajdesign.reporting import drawing


def overview(images: Mapping[str, NDArray[np.floating]], facts: Mapping[str, Any], labels: Mapping[str, str]) -> Figure:
    """Draw the middle slice by each reconstruction, and its residual over the shots and over time in the shot.

    Parameters
    ----------
    images
        (frame, slice, y, x) by the name of the reconstruction.
    facts
        ``residual``, ``promised``, ``noise`` and ``delay`` of `trajdesign.measuring.reconstruct.Reconstructed`.
    labels
        What the reconstructions are called.
    """
    names = [name for name in labels if name in images]
    figure = drawing.new_figure(4.0 * len(names), 7.0)
    grid = figure.add_gridspec(2, 6 * len(names), height_ratios=[4, 2.2])
    for column, name in enumerate(names):
        image = images[name][0, images[name].shape[1] // 2]
        axes = figure.add_subplot(grid[0, 6 * column : 6 * (column + 1)])
        drawing.magnitude(axes, image, "gray", float(image.max()) or 1.0)
        axes.set_title(labels[name], fontweight="bold")
        total, promised = facts["residual"][name]["total"], facts["promised"].get(name)
        beside = "" if promised is None else f" (of its own data {promised:.1%})"
        axes.set_xlabel(f"unexplained: {total:.1%}{beside}", fontsize=9, color=drawing.GREY)
    has_delay = "criterion" in facts["delay"]
    parts = np.linspace(0, 6 * len(names), 4 if has_delay else 3).astype(int)
    shots, times, *more = (figure.add_subplot(grid[1, a:b]) for a, b in itertools.pairwise(parts))
    for axes in more:
        tried, criterion = (np.array(facts["delay"][key]) for key in ("tried", "criterion"))
        axes.plot(1e6 * tried, criterion, "o-", ms=3, color=drawing.COLOURS[0])
        for late, name, colour in zip(facts["delay"]["axes"], drawing.AXES, drawing.COLOURS[1:], strict=False):
            axes.axvline(1e6 * late, color=colour, linewidth=1, label=f"{name}: {1e6 * late:.2f} us")
        drawing.label(axes, "delay of all axes (us)", "criterion", f"delay by {facts['delay']['by']}; lines: found")
        axes.legend(fontsize=8, frameon=False)
    for colour, name in zip(drawing.COLOURS, names, strict=False):
        of_shots, over_time = (np.array(facts["residual"][name][key]) for key in ("of_shots", "over_time"))
        shots.plot(np.arange(len(of_shots)), 100 * of_shots, "o-", ms=3, color=colour, label=labels[name])
        times.plot((np.arange(len(over_time)) + 0.5) / len(over_time), 100 * over_time, color=colour)
    drawing.label(shots, "shot", "unexplained (%)", f"||Ax - y|| / ||y|| of each shot; noise {facts['noise']:.1%}")
    drawing.label(times, "time in the readout (part)", "unexplained (%)", "and over time in all of them")
    for axes in (shots, times):
        axes.set_ylim(bottom=0)
    shots.legend(fontsize=8, frameon=False)
    return figure
