"""Draw a run's fixed and learned trajectory as the scanner plays them: a moving picture for a README or a talk.

Usage: ``python examples/animate.py RUN OUT.gif``. All shots move at once, each behind its own point; below is what
the shot that comes closest to a limit asks of the gradients, against the limits.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from PIL import Image

import trajdesign as td
from trajdesign.reporting.drawing import COLOURS, GREY, new_figure, shot_colours

N_FRAMES = 50
DURATION = 60  # of a frame, ms
REST = 2000  # of the whole picture at the end, ms
N_COLOURS = 48

Move = Callable[[float], None]


def main(run: str, out: str) -> None:
    """Write OUT.gif."""
    folder = Path(run)
    both = {"fixed": td.load(folder / "initial.npz"), "learned": td.load(folder / "trajectory.npz")}
    figure = new_figure(7.2, 5.0)
    top, bottom = figure.subplots(2, 2, height_ratios=(3, 1))
    moves = []
    for axes, lower, (name, trajectory), colour in zip(top, bottom, both.items(), COLOURS, strict=False):
        moves += [paths(axes, trajectory, name), demands(lower, trajectory, colour)]

    frames = []
    for frame in range(N_FRAMES):
        for move in moves:
            move((frame + 1) / N_FRAMES)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=80)
        frames.append(Image.open(picture).convert("RGB").quantize(N_COLOURS, dither=Image.Dither.NONE))
    durations = [DURATION] * (N_FRAMES - 1) + [REST]
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)


def paths(axes: Axes, trajectory: td.Trajectory, name: str) -> Move:
    """Draw the shots in k-space, and return what moves them to a part of their time."""
    k = trajectory.k_adc.numpy()
    edge = trajectory.acquisition.k_max
    lines = LineCollection([], colors=shot_colours(len(k)), linewidths=1.0)
    axes.add_collection(lines)
    points = axes.scatter(*k[:, 0].T, color=shot_colours(len(k)), s=14, zorder=3)
    axes.set(xlim=(-edge[0], edge[0]), ylim=(-edge[1], edge[1]), aspect="equal", xticks=[], yticks=[])
    axes.set_title(name, fontsize=11, color=GREY)

    def move(part: float) -> None:
        n = max(2, round(part * k.shape[1]))
        lines.set_segments(list(k[:, :n]))
        points.set_offsets(k[:, n - 1])

    return move


def demands(axes: Axes, trajectory: td.Trajectory, colour: str) -> Move:
    """Draw gradient and slew rate in parts of their limits, and return what moves along them."""
    scanner = trajectory.scanner
    parts = {
        "slew rate": trajectory.slew.norm(dim=2) / scanner.max_slew,
        "gradient": trajectory.gradient.norm(dim=2) / scanner.max_gradient,
    }
    lines = []
    for (label, part), shade in zip(parts.items(), (GREY, colour), strict=True):
        worst = part[part.amax(dim=1).argmax()].numpy()
        time = 1e3 * scanner.gradient_raster * np.arange(len(worst))
        lines.append((axes.plot([], [], color=shade, linewidth=1.0, label=label)[0], time, 100 * worst))
    axes.axhline(100, color=GREY, linestyle="--", linewidth=0.8)
    axes.set(xlim=(0, time[-1]), ylim=(0, 140), xlabel="time (ms)", ylabel="% of limit")
    axes.legend(loc="upper right", fontsize=7, frameon=False, ncols=2)

    def move(part: float) -> None:
        for line, time, values in lines:
            n = max(2, round(part * len(values)))
            line.set_data(time[:n], values[:n])

    return move


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
