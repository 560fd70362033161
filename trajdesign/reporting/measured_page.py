"""The page of measured data: what speaks against k, the images, and what they leave unexplained."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.reconstruction.measured import LABELS, Facts, Reconstructed, by_axes, by_beats
from trajdesign.reporting import page

# Pixels of all pictures together; of more images some are left out.
_MOST_PIXELS = 2**23
_INKS = ("one", "two", "x")

_Images = Mapping[str, NDArray[np.floating]]


def render(found: Reconstructed) -> str:
    """Return the page as HTML."""
    images, facts, names = found.images, found.facts, found.names
    frames, slices = _shown(images)
    size = facts.fov
    data = {
        "images": [{"label": LABELS[name], "pictures": _pictures(images[name], frames, slices)} for name in names],
        "frames": frames,
        "slices": slices,
        "aspect": size[0] / size[1],
        "readout": facts.readout,
        "residual": [
            {"ink": ink, "found": facts.residual[name], "promised": facts.promised_parts.get(name)}
            for name, ink in zip(names, _INKS, strict=False)
        ],
        "noise": facts.noise_parts,
        "delay": facts.delay if "criterion" in facts.delay else None,
    }
    return page.render(
        "reconstruction",
        data,
        title=Path(facts.raw).name,
        facts=facts,
        rows=_rows(facts),
        residuals=[(LABELS[name], facts.residual[name]["total"], facts.promised.get(name)) for name in names],
        legend_of=[(ink, LABELS[name]) for name, ink in zip(names, _INKS, strict=False)],
        frames=frames,
        slices=slices,
        has_delay=data["delay"] is not None,
    )


def _shown(images: _Images) -> tuple[list[int], list[int]]:
    """Return which frames and slices are shown: all, or evenly some where they are too many for one page."""
    n_frames, n_slices, height, width = next(iter(images.values())).shape
    most = max(1, _MOST_PIXELS // (len(images) * height * width))
    slices = page.some(n_slices, most)
    return page.some(n_frames, max(1, most // len(slices))), slices


def _pictures(stack: NDArray[np.floating], frames: list[int], slices: list[int]) -> list[list[str]]:
    """Return the pictures of frames and slices, all as bright as they are beside each other."""
    top = float(stack.max()) or 1.0
    return [[page.png(stack[frame, number], 0.0, top, "gray") for number in slices] for frame in frames]


def _dwell(of_samples: float | None, of_raw: float | None) -> str:
    """Return the time between samples, and what the raw file calls it, if that is another one."""
    if of_samples is None:
        return "not told"
    other = of_raw is not None and not math.isclose(of_raw, of_samples, rel_tol=1e-3)
    told = f"; the raw file tells that of its protocol, {1e6 * of_raw:.4g} µs" if other and of_raw else ""
    return f"{1e6 * of_samples:.4g} µs{told}"


def _rows(facts: Facts) -> list[tuple[str, str]]:
    """Return what was measured, and how it was reconstructed, line by line."""
    files = {"run": "Run", "stage": "Stage", "seq": "Sequence", "k": "k"}
    noise = f"{facts.noise:.2%} of the data"
    if facts.n_noise_samples:
        white = ", all coils made equally noisy" if facts.prewhitened else ""
        noise += f", by a noise scan of {facts.n_noise_samples} samples a coil{white}"
    oversampled = f", each measured {facts.oversampling} times" if facts.oversampling > 1 else ""
    delay = "as told"
    if facts.delay["by"] is not None:
        delay = f"{by_axes(facts.delay, 'µs')} later than told, by {facts.delay['by']}"
    maps, fewer = facts.coil_maps, facts.n_virtual_coils < facts.n_coils
    compressed = f", compressed to {facts.n_virtual_coils}" if fewer else ""
    calibrated = f"{maps['lines']} lines of {maps['calibration']} ({maps['cg_sense']})" if maps["calibration"] else ""
    exported = {True: "an export of the run, by its signature", False: "by its signature no export of the run"}
    rows = [
        ("Raw data", f"{facts.raw} ({facts.kind})"),
        *((heading, str(told)) for name, heading in files.items() if (told := getattr(facts, name)) is not None),
        ("Played", "" if facts.is_export is None else exported[facts.is_export]),
        ("Scanner", facts.system),
        ("Coils", f"{facts.n_coils}{compressed}"),
        ("Coil maps", calibrated or "of the measurement itself"),
        ("Shots", f"{facts.n_shots} of {facts.n_samples} samples, {1e3 * facts.readout:.4g} ms{oversampled}"),
        ("Dwell time", _dwell(facts.dwell, facts.dwell_of_raw)),
        ("Averages", str(facts.n_averages)),
        ("Frames and slices", f"{facts.n_frames} × {facts.n_slices}"),
        ("Gated", by_beats(facts.gating) if facts.gating else ""),
        ("Noise", noise),
        ("Gradient response", facts.response["kind"] if facts.response else ""),
        ("Gradients act", delay),
        ("Field map", "{:.4g} to {:.4g} Hz".format(*facts.off_resonance) if facts.off_resonance else ""),
        ("Brightness", f"1 in training is {facts.brightness:.4g} in the data" if facts.run else ""),
        ("DICOM", facts.dicom or "in the folder dicom"),
    ]
    return [(heading, value) for heading, value in rows if value]
