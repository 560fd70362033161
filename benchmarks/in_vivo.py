"""What learning is worth on a measured brain: the runs of a study reconstruct it from few shots.

Given are folders of studies or runs, and fully sampled k-space of one slice as ``kspace`` (coil, line, sample) of an
``.npz``, as large as their images; docs/results.md says where ours comes from. Of each run the exported Pulseq
file tells where the samples would lie; these are exact Fourier sums over the coil images, and go through
`trajdesign.reconstruct` as a scanner's would. The noise is that of the scan. Nothing is timed.
"""

import argparse
import io
import itertools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

import trajdesign as td
from benchmarks.common import RESULTS, Row, machine, say, table
from benchmarks.planted import signal
from trajdesign.learning.run_folder import RunFolder
from trajdesign.pulseq.reader import player
from trajdesign.reconstruction import metrics
from trajdesign.reconstruction.measured import Reconstructed
from trajdesign.studies import study

COLUMNS = {
    "pattern": "pattern",
    "shots": "shots",
    "reconstructor": "network",
    "coils": "coils",
    "trajectory": "trajectory",
    "simulated": "simulated test images",
    "network": "measured brain",
    "network_head": "its head",
    "cg_sense": "CG-SENSE",
    "cg_sense_head": "its head",
    "adjoint": "adjoint",
    "unexplained": "unexplained by network, CG-SENSE, adjoint; %",
}
_PICTURE = Path(__file__).parents[1] / "docs" / "images" / "in-vivo.png"
#: Lines of the calibration about the centre of k-space, as in training.
LINES = 24
# Columns that name a run.
_NAMES = ("pattern", "shots", "reconstructor", "trajectory")
# Axes of a study with columns of their own, or none.
_SAID = ("shots", "parameterization", "reconstructor", "seed")
# The head is what is brighter than this part of the brightest pixel, without specks, gaps closed and filled.
_HEAD, _GAPS = 0.1, 4
# Pixels so far away from it hold noise alone.
_AWAY = 8
# Of the scan, s; only a delay would depend on it.
_DWELL = 20e-6
#: How much brighter errors are drawn than images.
_TIMES = 5
# Pixels of the images, in the picture: of titles, between images, and about the head.
_TITLE, _SPACE, _RIM = 18, 4, 3


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Reconstruct the slice by each run; returns the rows of the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a study, or of a run")
    options.add_argument("kspace", type=Path, metavar="FILE.npz")
    options.add_argument("--shots", type=int, nargs="*", default=[], help="of the runs to take; all by default")
    options.add_argument("--coils", type=int, nargs="*", default=[], help="virtual coils, beside all that measured")
    options.add_argument("--coil-maps", help="of CG-SENSE, as of `trajdesign reconstruct`")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    options.add_argument("--picture", type=Path, default=_PICTURE)
    settings = options.parse_args(arguments)
    facts, rows = machine(), list[Row]()
    with np.load(settings.kspace) as file:
        kspace = file["kspace"]
    reference = root_sum_of_squares(kspace)
    runs = [one for folder in settings.folders for one in runs_of(folder, settings.shots)]
    runs.sort(key=lambda one: (one[0]["shots"], one[0]["reconstructor"]))
    images: dict[tuple[Any, ...], NDArray[np.floating]] = {}
    for n_coils, (of_run, run) in itertools.product((None, *settings.coils), runs):
        with tempfile.TemporaryDirectory() as folder:
            found = sampled(run.path, kspace, Path(folder), coils=n_coils, coil_maps=settings.coil_maps)
        rows.append({**of_run, **scores(found, reference, run)})
        say(table(COLUMNS, [written(rows[-1])]))
        if n_coils is None:
            images[*of_run.values()] = found.images["network"][0, 0]
    rows.sort(key=lambda row: (-row["coils"], *(row[name] for name in _NAMES)))
    with tempfile.TemporaryDirectory() as folder:
        whole = unsampled(kspace, runs[0][1].config().acquisition.fov, Path(folder))
    save(rows, {**scores(whole, reference), "pixel_noise": pixel_noise(kspace)}, facts, settings)
    draw(settings.picture, reference, images)
    return rows


def runs_of(folder: Path, shots: Sequence[int]) -> list[tuple[Row, RunFolder]]:
    """Return the runs of a study with so many shots, or a run, each with what the columns say of it."""
    named = {folder: folder.name}
    if (folder / "study.toml").exists():
        cells = study.load(folder / "study.toml").cells
        named = {folder / "cells" / cell.name: _pattern(cell) for cell in cells}
    found = list[tuple[Row, RunFolder]]()
    for path, pattern in named.items():
        run = RunFolder(path)
        config = run.config()
        n_shots, network = config.acquisition.n_shots, str(config.reconstructor["kind"])
        trajectory = "fixed" if config.parameterization["kind"] == "fixed" else "learned"
        if not shots or n_shots in shots:
            found.append((dict(zip(_NAMES, (pattern, n_shots, network, trajectory), strict=True)), run))
    return found


def coil_images(kspace: NDArray[np.complexfloating]) -> NDArray[np.complex128]:
    """Return the images (coil, y, x) of fully sampled k-space (coil, line, sample)."""
    centred = np.fft.ifftshift(kspace.astype(np.complex128), axes=(1, 2))
    return np.fft.fftshift(np.fft.ifft2(centred), axes=(1, 2))


def root_sum_of_squares(kspace: NDArray[np.complexfloating]) -> NDArray[np.floating]:
    """Return the root sum of squares (y, x) of all data."""
    return np.sqrt((np.abs(coil_images(kspace)) ** 2).sum(0))


def head(reference: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return where the head is (y, x)."""
    bright = ndimage.binary_opening(reference > _HEAD * reference.max())
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=_GAPS))
    parts, n_parts = ndimage.label(closed)
    return parts == 1 + np.argmax(ndimage.sum_labels(closed, parts, range(1, n_parts + 1)))


def pixel_noise(kspace: NDArray[np.complexfloating]) -> float:
    """Return the standard deviation of the noise of a coil's pixel, as ``training.noise``: of the brightest pixel."""
    reference = root_sum_of_squares(kspace)
    outside = ~ndimage.binary_dilation(head(reference), iterations=_AWAY)
    power = np.mean(np.abs(coil_images(kspace)[:, outside]) ** 2)
    return float(np.sqrt(power) / reference.max())


def sampled(run: Path, kspace: NDArray[np.complexfloating], folder: Path, **options: Any) -> Reconstructed:
    """Export a run, sample the slice as the file plays, and reconstruct it with the run's network."""
    trajectory, seq = td.load(run), folder / "played.seq"
    td.export(trajectory, seq)
    k = np.stack([of_event[:, :2] for of_event in player.read(seq).k])
    samples = signal(coil_images(kspace), k * np.array(trajectory.acquisition.fov))
    return reconstructed(samples, kspace, folder, run=run, seq=seq, **options)


def unsampled(kspace: NDArray[np.complexfloating], fov: Sequence[float], folder: Path) -> Reconstructed:
    """Reconstruct all data where they were measured, on their grid: what can be had of them at best."""
    lines, samples = (np.arange(n) - n // 2 for n in kspace.shape[1:])
    k = np.stack(np.meshgrid(samples, lines), axis=-1) / np.array(fov)
    np.savez(folder / "raw_k.npz", k_adc=k, fov_m=fov, matrix=kspace.shape[:0:-1], dwell_s=_DWELL)
    return reconstructed(kspace, kspace, folder, k=folder / "raw_k.npz")


def reconstructed(
    samples: NDArray[np.complexfloating], kspace: NDArray[np.complexfloating], folder: Path, **options: Any
) -> Reconstructed:
    """Reconstruct samples (coil, shot, sample), with the centre of all data for the coil maps."""
    middle = [slice(n // 2 - LINES // 2, n // 2 + LINES // 2) for n in kspace.shape[1:]]
    np.save(folder / "raw.npy", samples.astype(np.complex64))
    np.save(folder / "calibration.npy", kspace[:, *middle])
    return td.reconstruct(folder / "raw.npy", calibration=folder / "calibration.npy", out=folder / "out", **options)


def compare(image: NDArray[np.floating], reference: NDArray[np.floating]) -> Row:
    """Return PSNR, dB, and SSIM of an image (y, x): of all of it, and of the head.

    Both images are divided by the maximum of the reference. Of the head the PSNR is of its pixels, the SSIM of the box
    about them.
    """
    inside = head(reference)
    a, b = (torch.from_numpy(one / reference.max()).double() for one in (image, reference))
    near = _box(inside)
    return {
        "psnr": float(metrics.psnr(a[None, None], b[None, None], 1.0)),
        "ssim": float(metrics.ssim(a[None, None], b[None, None], 1.0)),
        "psnr_head": float(-10 * (a - b)[torch.from_numpy(inside)].square().mean().log10()),
        "ssim_head": float(metrics.ssim(a[near][None, None], b[near][None, None], 1.0)),
    }


def scores(found: Reconstructed, reference: NDArray[np.floating], run: RunFolder | None = None) -> Row:
    """Return what images are worth, what they leave unexplained, and what the run promised of its test images."""
    row: Row = {"coils": found.facts.n_virtual_coils}
    if run is not None:
        promised = list(run.results().stages.values())[-1]
        row["simulated"] = {"psnr": promised.psnr, "ssim": promised.ssim}
    return {
        **row,
        **{name: compare(image[0, 0], reference) for name, image in found.images.items()},
        "residual": {name: residual["total"] for name, residual in found.facts.residual.items()},
        "promised": found.facts.promised,
        "noise": found.facts.noise,
        "warnings": found.facts.warnings,
    }


def written(row: Row) -> Row:
    """Return a row as the table shows it."""
    cells = {name: _both(row[name]) for name in ("simulated", "network", "cg_sense", "adjoint")}
    cells |= {f"{name}_head": _both(row[name], "_head") for name in ("network", "cg_sense")}
    parts = (f"{100 * row['residual'][name]:.1f}" for name in ("network", "cg_sense", "adjoint"))
    return {**row, **cells, "unexplained": ", ".join(parts)}


def save(rows: Sequence[Row], whole: Row, facts: Row, settings: argparse.Namespace) -> None:
    """Write the rows, and the scores of all data, as JSON, and as a Markdown table."""
    words = [settings.kspace.name]
    words += ["--shots", *map(str, settings.shots)] if settings.shots else []
    words += ["--coils", *map(str, settings.coils)] if settings.coils else []
    words += ["--coil-maps", settings.coil_maps] if settings.coil_maps else []
    command = " ".join(["python -m benchmarks.in_vivo", *(["FOLDER"] * len(settings.folders)), *words])
    sense = whole["cg_sense"]
    note = (
        f"PSNR (dB) and SSIM. CG-SENSE of all data: {_both(sense)}; of the head {_both(sense, '_head')}. "
        f"Noise of a coil's pixel, as a part of the brightest: {whole['pixel_noise']:.2g}. "
        f"Reconstructions that warned: {sum(bool(row['warnings']) for row in rows)} of {len(rows)}."
    )
    result = {"command": command, "machine": facts, "all_data": whole, "columns": COLUMNS, "rows": [*rows]}
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "in_vivo.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    tail = f"`{command}` on {facts['cpu']}, {facts['cores']} cores."
    text = "\n\n".join([table(COLUMNS, [written(row) for row in rows]), note, tail])
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8", newline="\n")
    say(text)


def draw(path: Path, reference: NDArray[np.floating], images: Mapping[tuple[Any, ...], NDArray[np.floating]]) -> None:
    """Draw the head by each run beside that of all data, a number of shots after the other, and how far it is off.

    `images` are named as rows of the table are. Of patterns that were not learned there is none, unless all are such.
    One pixel of an image is two of the picture a side, in 64 greys: so the file is small.
    """
    learned = {pattern for pattern, *_, trajectory in images if trajectory == "learned"}
    shown: dict[str, dict[str, NDArray[np.floating]]] = {}
    for (pattern, n_shots, network, trajectory), image in images.items():
        if pattern in learned or not learned:
            shown.setdefault(f"{n_shots} shots, {network}", {})[f"{pattern}, {trajectory}"] = image
    near = _box(ndimage.binary_dilation(head(reference), iterations=_RIM))
    white, (height, width) = np.quantile(reference, 0.999), reference[near].shape
    tall, wide = _TITLE + 2 * (height + _SPACE), width + _SPACE
    page = np.ones((len(shown) * tall, (1 + max(map(len, shown.values()))) * wide))
    texts = list[tuple[float, float, str]]()

    def put(row: int, column: int, image: NDArray[np.floating]) -> None:
        page[row : row + height, column * wide : column * wide + width] = np.clip(image[near] / white, 0, 1)

    for number, (row, of_row) in enumerate(shown.items()):
        titles, top, below = (
            number * tall + _TITLE / 2,
            number * tall + _TITLE,
            number * tall + _TITLE + height + _SPACE,
        )
        put(top, 0, reference)
        texts += [(width / 2, titles, f"{row}:\nall data")]
        texts += [(width / 2, below + height / 2, f"error x {_TIMES}")]
        for column, (title, image) in enumerate(sorted(of_row.items()), 1):
            put(top, column, image)
            put(below, column, _TIMES * np.abs(image - reference))
            score = compare(image, reference)
            title += f"\n{score['psnr_head']:.1f} dB, {score['ssim_head']:.2f}"
            texts.append((column * wide + width / 2, titles, title))
    figure = Figure(figsize=(page.shape[1] / 50, page.shape[0] / 50), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(page, cmap="gray", vmin=0, vmax=1, interpolation="none")
    for x, y, text in texts:
        axes.text(x, y, text, fontsize=9, ha="center", va="center")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(drawn).convert("L").quantize(64).save(path, optimize=True)


def _pattern(cell: study.Cell) -> str:
    """Return the pattern of a cell, with what other axes its study has, as the phase that was trained with."""
    return ", ".join(str(value) for axis, value in cell.values.items() if axis not in _SAID)


def _box(inside: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the rows and columns that hold all that is inside."""
    return tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(inside))


def _both(score: Mapping[str, float], where: str = "") -> str:
    return f"{score[f'psnr{where}']:.2f}, {score[f'ssim{where}']:.3f}"


if __name__ == "__main__":
    main()
