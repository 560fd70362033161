"""Parts of figures: pictures of k-space, point spread functions and images, each in axes of its own.

The colours are safe for colour-blind readers: lines have those of Okabe and Ito, maps are perceptually even.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Ellipse, Rectangle

from trajdesign.encoding.psf import PsfReport
from trajdesign.trajectory import Trajectory

#: The colours of lines that are compared, in order.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#555555"
AXES = "xyz"
FLOOR_DB = -60.0
#: Errors are shown on a scale this many times finer than the image.
ERROR_SCALE = 5.0


class Picture(Figure):
    """A figure that shows itself in a notebook without pyplot."""

    def _repr_png_(self) -> bytes:
        return to_png(self)


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """Return an empty figure of a size in inches."""
    return Picture(figsize=(width, height), layout=layout, facecolor="white")  # type: ignore[arg-type]


@contextlib.contextmanager
def lacking_letters() -> Iterator[None]:
    """Draw a box for a letter that the font lacks, and do not warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def to_png(figure: Figure, *, dpi: float = 110) -> bytes:
    """Return a figure as the bytes of a PNG file, to embed."""
    stream = io.BytesIO()
    with lacking_letters():
        figure.savefig(stream, dpi=dpi, format="png")
    return stream.getvalue()


def label(axes: Axes, x: str, y: str, title: str) -> None:
    """Label axes in which lines are drawn."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=9, color=GREY)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def magnitude(axes: Axes, image: np.ndarray, colours: str, top: float) -> AxesImage:
    """Draw an image (y, x) from 0 to `top`."""
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(image, cmap=colours, vmin=0.0, vmax=top)


def mosaic(images: np.ndarray) -> np.ndarray:
    """Return images (image, y, x) as one (y, x): row by row, about as many rows as there are images in a row."""
    n, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    tiles = np.zeros((rows * columns, height, width), images.dtype)
    tiles[:n] = images
    return tiles.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def look(i: int) -> tuple[str, str]:
    """Return colour and style of the line number `i`."""
    return COLOURS[i % len(COLOURS)], ("-", "--", ":")[i // len(COLOURS) % 3]


def shot_colours(n_shots: int) -> np.ndarray:
    """Return the colours of the shots (shot, rgba), dark to light."""
    # the palest end of the map is hard to see on white
    return matplotlib.colormaps["viridis"](np.linspace(0, 0.88, n_shots))


def hex_colours(n_shots: int, low: float, high: float) -> list[str]:
    """Return colours of the shots as ``#rrggbb``, from a part of the same map."""
    return [to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(low, high, n_shots))]


def palette(name: str) -> np.ndarray:
    """Return the colours of a map (256, rgb) as bytes."""
    # rounded: asked for bytes, matplotlib cuts off
    return np.rint(255 * matplotlib.colormaps[name](np.arange(256))[:, :3]).astype(np.uint8)


def k_space(
    axes: Axes, trajectory: Trajectory, plane: tuple[int, int], part: float = 1.0, n_shots: int | None = None
) -> None:
    """Draw the first shots, or all, in a plane of k-space: with the k_max box, or the samples of its inner `part`."""
    k = trajectory.k_adc.detach().double().cpu().numpy()[:n_shots, :, plane]
    edge = np.array(trajectory.acquisition.k_max)[list(plane)]
    colours = shot_colours(len(k))
    width = 1.0 if len(k) <= 32 else 0.5
    axes.add_collection(LineCollection(list(k), colors=list(colours), linewidths=width))
    if part < 1:
        near = (np.abs(k) <= part * edge).all(axis=-1)
        for shot, colour in enumerate(colours):
            axes.plot(*k[shot, near[shot]].T, ".", color=colour, markersize=3)
    else:
        axes.add_patch(Rectangle((-edge[0], -edge[1]), *(2 * edge), fill=False, color=GREY, linestyle="--"))
        corner = (-edge[0], edge[1])
        axes.annotate(r"$k_\mathrm{max}$", corner, (4, -4), textcoords="offset points", va="top", color=GREY)
    reach = 1.06 * np.maximum(edge, np.nanmax(np.abs(k), axis=(0, 1))) if part == 1 else part * edge
    axes.set_xlim(-reach[0], reach[0])
    axes.set_ylim(-reach[1], reach[1])
    axes.set_aspect("equal")
    axes.set_xlabel(f"$k_{AXES[plane[0]]}$ (1/m)")
    axes.set_ylabel(f"$k_{AXES[plane[1]]}$ (1/m)")


def with_errors(axes: np.ndarray, image: np.ndarray, reference: np.ndarray, scores: Mapping[str, float]) -> AxesImage:
    """Draw an image (y, x) with its scores in the first axes, its errors in the second; return the errors."""
    top = peak(reference)
    magnitude(axes[0], image, "gray", top)
    axes[0].set_xlabel(scores_text(scores))
    axes[1].set_title(f"error, ×{ERROR_SCALE:g}", fontsize=9, color=GREY)
    return magnitude(axes[1], np.abs(image - reference), "inferno", top / ERROR_SCALE)


def peak(reference: np.ndarray) -> float:
    """Return the largest value of an image, and 1 of a black one."""
    return float(np.max(reference)) or 1.0


def psf_image(
    axes: Axes, report: PsfReport, image: np.ndarray, step: tuple[float, ...], title: str, half: float | None = None
) -> AxesImage:
    """Draw a magnitude image in dB over offsets in mm; `half` (m) crops it."""
    rows, columns = image.shape
    mm = [1e3 * s for s in step]
    # pixel n // 2 is centred on zero
    left, bottom = (-(n // 2 + 0.5) * s for n, s in zip((columns, rows), mm, strict=True))
    drawn = axes.imshow(
        20 * np.log10(np.maximum(image, 1e-12)), cmap="magma", vmin=FLOOR_DB, vmax=0, origin="lower",
        extent=(left, left + columns * mm[0], bottom, bottom + rows * mm[1]),
    )  # fmt: skip
    voxel = [1e3 * v for v in report.voxel[:2]]
    if half is None:
        field = [n * s / 2 for n, s in zip((columns, rows), mm, strict=True)]
        corner = (-field[0] / 2, -field[1] / 2)
        axes.add_patch(Rectangle(corner, *field, fill=False, color="white", linestyle="--", alpha=0.8))
    else:
        axes.set_xlim(-1e3 * half, 1e3 * half)
        axes.set_ylim(-1e3 * half, 1e3 * half)
        if math.isfinite(report.main_lobe):
            width, height = (2 * report.main_lobe * v for v in voxel)
            axes.add_patch(Ellipse((0, 0), width, height, fill=False, color="white", linestyle="--"))
    axes.set_xlabel("x (mm)")
    axes.set_ylabel("y (mm)")
    axes.set_title(f"{plain(report.name)}\n{title}", fontsize=10)
    return drawn


def psf_rows(reports: Iterable[PsfReport]) -> list[tuple[str, ...]]:
    """Return a row of text for each measure of point spread functions: its name, and its value in each."""
    return [(row[0][0], *(value for _, value in row)) for row in zip(*(r.rows() for r in reports), strict=True)]


def scores_text(scores: Mapping[str, float]) -> str:
    """Return the scores of an image in one line; one called PSNR is in dB."""
    texts = (f"{value:.2f} dB" if name == "PSNR" else f"{value:.4f}" for name, value in scores.items())
    return ", ".join(f"{name} {text}" for name, text in zip(scores, texts, strict=True))


def plain(name: str) -> str:
    """Return a user's name as one short line of plain text, never a formula."""
    shown = "".join(c if c.isprintable() else " " for c in name)
    return (shown if len(shown) <= 40 else f"{shown[:39]}…").replace("$", r"\$")
