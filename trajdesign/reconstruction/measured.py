"""What raw data show: the images, and how well they explain what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

#: What the reconstructions are called where people read.
LABELS = {"network": "network", "cg_sense": "CG-SENSE", "adjoint": "adjoint"}


class Delay(TypedDict):
    """How much later than told the gradients of each axis (x, y[, z]) act, s, by what, and what was tried for it."""

    axes: list[float]
    by: str | None
    tried: NotRequired[list[float]]
    criterion: NotRequired[list[float]]


def by_axes(delay: Delay, unit: str) -> str:
    """Return the delay of each axis in microseconds, as words; `unit` is how these are written."""
    *others, last = (f"{1e6 * late:.2f} {unit} ({axis})" for late, axis in zip(delay["axes"], "xyz", strict=False))
    return f"{', '.join(others)} and {last}"


class Gating(TypedDict):
    """How heartbeats have sorted the shots of a film.

    Of `n_beats`, the shortest and the longest are `rr`, s; frames got at least and at most `shots`, and `left_out` were
    measured before the first R wave or after the last one.
    """

    n_beats: int
    rr: list[float]
    shots: list[int]
    left_out: int


def by_beats(gating: Gating) -> str:
    """Return how a film was gated, as words."""
    (shortest, longest), (fewest, most) = gating["rr"], gating["shots"]
    return (
        f"{gating['n_beats']} heartbeats of {shortest:.3g} to {longest:.3g} s, {fewest} to {most} shots a frame, "
        f"{gating['left_out']} shots outside them left out"
    )


class CoilMaps(TypedDict):
    """How the coil maps of CG-SENSE and of the network are made, and of how many lines of which calibration."""

    cg_sense: str
    network: str | None
    calibration: str | None
    lines: int | None


class Noise(TypedDict):
    """A part of the data, of each shot and over time in the shot."""

    of_shots: list[float]
    over_time: list[float]


class Unexplained(Noise):
    """What images leave of the data, ||A x - y|| / ||y||: of all, of each shot and over time in the shot."""

    total: float


@dataclass(frozen=True)
class Facts:
    """What ``reconstruct.json`` holds, SI.

    Parameters
    ----------
    raw, kind, run, stage, seq, k, noise_scan
        The files, and what of them was taken; `kind` is the format of the raw data.
    is_export
        Whether by its signature the Pulseq file is an export that the run tells of, None where nothing tells.
    off_resonance
        The ends of the field map, Hz; None without one.
    response
        Table of the gradient system's response.
    command
        That does it again.
    dicom
        Why there are no DICOM files, or None.
    n_frames, n_slices, n_averages, n_coils, n_shots, n_samples, oversampling, dwell, readout, matrix, fov, system
        The measurement; `oversampling` is how many samples of the raw data are one of the sequence, and `dwell` of
        those of the raw data, if anything tells it.
    dwell_of_raw
        What the raw file calls the dwell time.
    n_noise_samples
        Of the noise scan, a coil.
    gating
        How heartbeats have sorted the shots of a film; None where the labels of the Pulseq file have.
    delay, shift, rotate
        That was reckoned with, and which part of space is shown.
    coil_maps
        How they were made; without a ``calibration`` they are of the measurement itself.
    brightness
        What is 1 in training, in the units of the data.
    prewhitened, n_virtual_coils, kept_by_compression
        What became of the coils, and which part of their power is left.
    residual
        What the images of each reconstruction leave of the data.
    promised, promised_parts
        What the same reconstruction leaves of data that its own image gives, in all, and of its parts.
    noise, noise_parts
        The part of the data that is noise, in all, and of its parts.
    warnings
        What speaks against the data, one sentence each.
    """

    raw: str
    kind: str
    run: str | None
    stage: str | None
    seq: str | None
    is_export: bool | None
    k: str | None
    off_resonance: list[float] | None
    noise_scan: str | None
    response: Mapping[str, Any] | None
    command: str
    dicom: str | None
    n_frames: int
    n_slices: int
    n_averages: int
    n_coils: int
    n_shots: int
    n_samples: int
    oversampling: int
    dwell: float | None
    dwell_of_raw: float | None
    readout: float
    matrix: tuple[int, ...]
    fov: tuple[float, ...]
    n_noise_samples: int
    system: str
    gating: Gating | None
    delay: Delay
    shift: tuple[float, ...]
    rotate: float
    coil_maps: CoilMaps
    brightness: float
    prewhitened: bool
    n_virtual_coils: int
    kept_by_compression: float
    residual: dict[str, Unexplained]
    promised: dict[str, float]
    promised_parts: dict[str, Unexplained]
    noise: float
    noise_parts: Noise
    warnings: list[str]

    def tables(self) -> dict[str, Any]:
        """Return it as ``reconstruct.json`` has it."""
        return dict(vars(self))


@dataclass(frozen=True)
class Reconstructed:
    """What raw data show.

    Parameters
    ----------
    images
        Of each reconstruction, ``network`` (with a run), ``cg_sense`` and ``adjoint``: (frame, slice, y, x), real, as
        bright as the data make them.
    facts
        How they were made, and how well they explain the data.
    """

    images: dict[str, NDArray[np.float32]]
    facts: Facts

    @property
    def names(self) -> list[str]:
        """The reconstructions, in the order in which people see them."""
        return [name for name in LABELS if name in self.images]
