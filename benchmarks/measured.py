"""What `trajdesign.reconstruct` makes of raw data of scanners and of Bloch simulations, beside independent ways.

Given is a folder with ``pulseq_raw`` (MR-Physics-with-Pulseq), ``spiral_8ch`` (ESPIRiT toolbox) and ``jemris``
(python-ismrmrd-reco); docs/results.md says where they come from. What is compared with, plain FFTs, finufft, a
navigator, is computed here from the files themselves. Nothing is timed.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import finufft
import h5py
import numpy as np
import scipy.io
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

import trajdesign as td
from benchmarks.common import RESULTS, Row, machine, say, table
from trajdesign.data.measured import reading
from trajdesign.pulseq.reader import player
from trajdesign.reconstruction import metrics
from trajdesign.reconstruction.measured import Reconstructed

COLUMNS = {"data": "data", "quantity": "quantity", "value": "value"}
_IMAGES = Path(__file__).parents[1] / "docs" / "images"
# Of the echo-planar phantom, read off its image: its middle (y, x), and a radius inside it and one outside.
_CENTRE, _INSIDE, _OUTSIDE = (49, 46), 30, 38
# Of the spiral: pixels a side, and samples that are left out at the start: the field of view of its protocol, one that
# holds all its spheres, and that without the samples in which the receiver rises.
_SPIRALS, _SPIRAL_PIXEL = ((180, 0), (384, 0), (384, 4)), 1e-3
# Of the simulated head: an ellipse within its brain, middle and half axes (y, x).
_BRAIN = (105, 112), (70, 55)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Reconstruct everything; returns the rows of the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    options.add_argument("--images", type=Path, default=_IMAGES, help="folder for the pictures")
    settings = options.parse_args(arguments)
    facts, rows = machine(), list[Row]()
    settings.images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name, part in PARTS.items():
            found = part(settings.folder, Path(temporary), settings.images)
            rows += [{"data": name, "quantity": quantity, "value": value} for quantity, value in found.items()]
    save(rows, facts, settings.out)
    return rows


def echo_planar(folder: Path, temporary: Path, images: Path) -> Row:
    """Reconstruct the echo-planar phantom as told, and with the delay that it tells itself."""
    raw, seq = folder / "pulseq_raw" / "epi_basic_pe.dat", folder / "pulseq_raw" / "epi_basic_pe.seq"
    before = td.reconstruct(raw, seq=seq, out=temporary / "epi")
    after = td.reconstruct(raw, seq=seq, delay="auto", out=temporary / "epi_delay")
    shown = [one.images["adjoint"][0, 0] for one in (before, after)]
    _draw(images / "measured-epi.png", dict(zip(("k as told", "delay auto"), shown, strict=True)))
    told = navigator(folder / "pulseq_raw" / "epi_basic_pe0.seq", folder / "pulseq_raw" / "epi_basic_pe0.dat")
    x, y = (1e6 * late for late in after.facts.delay["axes"])
    return {
        "delay of x by the navigator, us": 1e6 * told,
        "delay of x by `--delay auto`, us": x,
        "delay of y by `--delay auto`, us": y,
        "criterion": after.facts.delay["by"],
        "N/2 ghost, k as told": ghost(shown[0]),
        "N/2 ghost, `--delay auto`": ghost(shown[1]),
        "warnings": _warned(after),
    }


def navigator(seq: Path, raw: Path) -> float:
    """Return the delay of x, s, that lines without phase encoding tell, of which every other one runs backwards.

    Lines that are late by d are shifted against those that run the other way by twice the way that k goes in d: the
    phase between the profiles of the two rises along x by 2 pi times that. Each line is compared with the mean of both
    its neighbours, so that what the field adds from line to line falls out.
    """
    file = player.read(seq, signed=False)
    lines = reading.read(raw).events[:, 0]
    k = np.stack([of[:, 0] for of in file.k])
    x = (np.arange(96) - 48) * 0.22 / 96
    profiles = np.einsum("es,exs->ex", lines, np.exp(2j * np.pi * k[:, None] * x[:, None]))
    turned = (profiles[20:76:2] * np.conj(profiles[19:75:2] + profiles[21:77:2])).sum(0)
    inside = np.abs(turned) > 0.2 * np.abs(turned).max()
    slope = np.polyfit(x[inside], np.unwrap(np.angle(turned[inside])), 1, w=np.abs(turned[inside]))[0]
    return float(slope / (2 * np.pi) / (2 * np.abs(np.diff(k[20])).max() / 4e-6))


def ghost(image: NDArray[np.floating]) -> float:
    """Return the mean of where the object would lie half the field of view away, as a part of that of the object."""
    y, x = np.indices(image.shape)
    radius = np.hypot(y - _CENTRE[0], x - _CENTRE[1])
    away = np.roll(radius < _INSIDE, len(image) // 2, axis=0) & (radius > _OUTSIDE)
    return float(image[away].mean() / image[radius < _INSIDE].mean())


def spin_echo(folder: Path, temporary: Path, images: Path) -> Row:
    """Reconstruct the spin echo of 32 coils, beside a plain FFT of its lines in their order."""
    raw = folder / "pulseq_raw" / "se_phantom_32ch.dat"
    found = td.reconstruct(raw, seq=folder / "pulseq_raw" / "se_phantom.seq", out=temporary / "se")
    plain = plain_fft(reading.read(raw).events)
    return {
        "adjoint beside a plain FFT, NRMSE": _nrmse(found.images["adjoint"][0, 0], plain),
        "CG-SENSE beside a plain FFT, NRMSE": _nrmse(found.images["cg_sense"][0, 0], plain),
        "warnings": _warned(found),
    }


def plain_fft(lines: NDArray[np.complexfloating]) -> NDArray[np.floating]:
    """Return the root sum of squares (y, x) of the inverse FFTs of lines (line, coil, sample)."""
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(lines, axes=(0, 2)), axes=(0, 2)), axes=(0, 2))
    return np.sqrt((np.abs(coils) ** 2).sum(1))


def spiral(folder: Path, temporary: Path, _: Path) -> Row:
    """Reconstruct the spiral of eight coils with the k of its file, beside finufft with the weights of its file."""
    file = scipy.io.loadmat(folder / "spiral_8ch" / "spiral.mat")
    found: Row = {}
    for n, first in _SPIRALS:
        k = np.stack([file["k"].real, file["k"].imag], axis=-1).swapaxes(0, 1)[:, first:]  # cycles a pixel
        samples = file["data"].transpose(2, 1, 0)[..., first:].astype(np.complex64)
        shown = _by_k(temporary / f"spiral{n}-{first}", samples, k / _SPIRAL_PIXEL, n * _SPIRAL_PIXEL, n)
        theirs = adjoint(samples, k, file["w"].T[:, first:], n)
        what = f"{n} x {n}{f', without the first {first} samples' if first else ''}"
        worst = np.argsort(shown.facts.residual["cg_sense"]["of_shots"])[:-4:-1]
        sense, ours = (shown.images[name][0, 0] for name in ("cg_sense", "adjoint"))
        residual, promised = shown.facts.residual, shown.facts.promised["cg_sense"]
        found |= {
            f"{what}: residual of CG-SENSE (of its own data)": f"{residual['cg_sense']['total']:.3f} ({promised:.3f})",
            f"{what}: residual of the adjoint": residual["adjoint"]["total"],
            f"{what}: noise": shown.facts.noise,
            f"{what}: shots with the largest residuals": ", ".join(
                f"{shot} ({residual['cg_sense']['of_shots'][shot]:.2f})" for shot in worst
            ),
            f"{what}: CG-SENSE beside the adjoint, NRMSE": _nrmse(sense, ours, scaled=True),
            f"{what}: adjoint beside finufft with the file's weights, NRMSE": _nrmse(ours, theirs, scaled=True),
            f"{what}: warnings": _warned(shown),
        }
    return found


def adjoint(
    kspace: NDArray[np.complex64], k: NDArray[np.float64], weights: NDArray[np.float64], n: int
) -> NDArray[np.floating]:
    """Return the root sum of squares (y, x) of weighted sums over samples at k (shot, sample, 2), cycles a pixel."""
    x, y = (2 * np.pi * k[..., axis].ravel() for axis in (0, 1))
    coils = [finufft.nufft2d1(y, x, (weights * of).ravel().astype(complex), (n, n), isign=1) for of in kspace]
    return np.sqrt(sum(np.abs(coil) ** 2 for coil in coils))


def bloch_spirals(folder: Path, temporary: Path, images: Path) -> Row:
    """Reconstruct the simulated spirals, whose files hold k, with and without susceptibility."""
    with h5py.File(folder / "jemris" / "jemris_reco_clean_slc90.h5") as file:
        reference = file["images/image_1/data"][0, 0, 0]
    found: Row = {}
    shown = {"reference": reference}
    places = [(at - middle) / half for at, middle, half in zip(np.indices(reference.shape), *_BRAIN, strict=True)]
    brain = np.hypot(*places) < 1
    for name, title in (
        ("clean", "clean"),
        ("Susc70Mhz", "with susceptibility"),
        ("Susc70Mhz", "the same, field estimated"),
        ("clean", "clean, field estimated"),
    ):
        raw = reading.read(folder / "jemris" / f"jemris_signals_{name}_slc90.h5")
        if raw.trajectory is None:
            raise ValueError(f"{raw.path} holds no trajectory")
        kspace = np.stack(raw.events[1:]).swapaxes(0, 1)  # without the dummy
        k = np.stack(raw.trajectory[1:])[..., :2].astype(float)  # cycles a field of view
        field = "auto" if "estimated" in title else None
        sampled = kspace, k / raw.protocol.fov[0], raw.protocol.fov[0], len(reference), 2e-6
        one = _by_k(temporary / title.replace(" ", "-"), *sampled, off_resonance=field)
        shown[title] = image = one.images["cg_sense"][0, 0]
        residual = one.facts.residual["cg_sense"]
        edges = [residual["over_time"][at] for at in (0, len(residual["over_time"]) // 2, -1)]
        found |= {
            f"{title}: CG-SENSE beside the reference, NRMSE": _nrmse(image, reference, scaled=True),
            f"{title}: the same, SSIM": _ssim(image, reference),
            f"{title}: adjoint beside the reference, NRMSE": _nrmse(
                one.images["adjoint"][0, 0], reference, scaled=True
            ),
            f"{title}: within the brain, NRMSE": _nrmse(image[brain], reference[brain], scaled=True),
            f"{title}: residual of CG-SENSE (of its own data)": f"{residual['total']:.4f} "
            f"({one.facts.promised['cg_sense']:.4f})",
            f"{title}: residual at the start, middle and end of the readout": ", ".join(f"{v:.3f}" for v in edges),
            f"{title}: warnings": _warned(one),
        }
    found["with susceptibility beside clean: CG-SENSE, NRMSE"] = _nrmse(
        shown["with susceptibility"], shown["clean"], scaled=True
    )
    shown.pop("clean, field estimated")  # as without
    _draw(images / "measured-jemris.png", shown)
    return found


#: What is reconstructed, by what it is called.
PARTS = {
    "EPI of a phantom, one coil": echo_planar,
    "spin echo of a phantom, 32 coils": spin_echo,
    "spiral of a phantom, 8 coils": spiral,
    "simulated spiral of a head, one coil": bloch_spirals,
}


def save(rows: Sequence[Row], facts: Row, out: Path) -> None:
    """Write the rows as JSON, and as a Markdown table."""
    command = "python -m benchmarks.measured FOLDER"
    out.mkdir(parents=True, exist_ok=True)
    result = {"command": command, "machine": facts, "columns": COLUMNS, "rows": [*rows]}
    (out / "measured.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    text = f"{table(COLUMNS, rows)}\n\n`{command}` on {facts['cpu']}, {facts['cores']} cores."
    (out / "measured.md").write_text(text + "\n", encoding="utf-8", newline="\n")
    say(text)


def _by_k(
    folder: Path,
    kspace: NDArray[np.complex64],
    k: NDArray[np.float64],
    fov: float,
    n: int,
    dwell: float = 4e-6,
    **options: Any,
) -> Reconstructed:
    """Reconstruct (coil, shot, sample) at k (shot, sample, 2), 1/m, on n x n pixels.

    The dwell time is that of delays and fields alone.
    """
    folder.mkdir()
    np.save(folder / "raw.npy", kspace)
    np.savez(folder / "raw_k.npz", k_adc=k, fov_m=[fov, fov], matrix=[n, n], dwell_s=dwell)
    return td.reconstruct(folder / "raw.npy", k=folder / "raw_k.npz", out=folder / "out", **options)


def _warned(found: Reconstructed) -> str:
    return " ".join(found.facts.warnings) or "none"


def _scaled(image: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.floating]:
    return image * (np.vdot(image, reference) / np.vdot(image, image))


def _nrmse(image: NDArray[np.floating], reference: NDArray[np.floating], *, scaled: bool = False) -> float:
    image = _scaled(image, reference) if scaled else image
    return float(np.linalg.norm(image - reference) / np.linalg.norm(reference))


def _ssim(image: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    both = (torch.from_numpy(np.array(one, dtype=float))[None, None] for one in (_scaled(image, reference), reference))
    return float(metrics.ssim(*both))


def _draw(path: Path, shown: Mapping[str, Any]) -> None:
    """Draw images side by side, each to its own brightest pixel but for the uppermost part in a thousand."""
    figure = Figure(figsize=(2.7 * len(shown), 3), dpi=72, layout="constrained")
    for axes, (title, image) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=np.quantile(image, 0.999))
        axes.set_title(title)
        axes.axis("off")
    figure.savefig(path)


if __name__ == "__main__":
    main()
