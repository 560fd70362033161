"""Images of what a scanner measured, and whether they explain it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.data.measured import reading
from trajdesign.data.measured.measurement import Measurement
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.learning.trained import TrainedRun
from trajdesign.measuring import calibration as calibrating
from trajdesign.measuring import (
    consistency,
    dicom_images,
    field_map,
    geometry,
    outputs,
    places,
    preparing,
    solving,
    verdict,
)
from trajdesign.measuring import noise as noisy
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.consistency import Residual
from trajdesign.measuring.own_trajectory import by_own
from trajdesign.measuring.preparing import Prepared
from trajdesign.physics.response import Response
from trajdesign.reconstruction.measured import LABELS, Facts, Reconstructed


@torch.no_grad()
def reconstruct(
    raw: Path | str,
    *,
    out: Path | str,
    run: Path | str | None = None,
    seq: Path | str | None = None,
    k: Path | str | None = None,
    stage: str | None = None,
    matrix: Sequence[int] | None = None,
    fov: Sequence[float] | None = None,
    response: Mapping[str, Any] | None = None,
    delay: str | Sequence[float] | None = None,
    shift: Sequence[float] = (0.0, 0.0),
    rotate: float = 0.0,
    noise: Path | str | None = None,
    coils: int | None = None,
    calibration: Path | str | None = None,
    calibration_seq: Path | str | None = None,
    coil_maps: str | None = None,
    off_resonance: Path | str | None = None,
    beats: Path | str | None = None,
    overwrite: bool = False,
) -> Reconstructed:
    """Reconstruct what a scanner measured, and tell how well the images explain it.

    Which sample is which the Pulseq file tells that was played: its n-th ADC event is the n-th one of the raw file, and
    its labels say of which shot, slice, average and repetition it is, or that it is noise. With a run, whose k and
    network reconstruct, it must play the run. Beside the network's image stand those of CG-SENSE and of the
    density-compensated adjoint.

    Parameters
    ----------
    raw
        Siemens twix ``.dat``, ISMRMRD ``.h5`` or ``.mrd``, ``.npy`` or ``.npz`` (coil, shot, sample) with leading slice
        and repetition axes or without, or BART ``.cfl``.
    out
        Folder to write: ``image.npz``; a NIfTI file of each reconstruction; ``images.h5`` (MRD); DICOM files, where the
        raw file tells how the slices lie; ``reconstruction.html``, the page to look at, and ``reconstruction.png``; and
        ``reconstruct.json``.
    run
        Run folder; without it there is no network.
    seq
        The Pulseq file that was played; by default that in the run folder, if it holds one.
    k
        Instead of `run` and `seq`, the ``_k.npz`` that an export has written beside its file. Without all three the
        trajectory that an ISMRMRD file itself holds.
    matrix, fov
        Pixels along x and y, and field of view, m, for a file's own trajectory; by default what its header says.
    stage
        Of the run: ``"fixed"`` or ``"learned"``, by default what was trained last.
    response
        Table of the gradient system's response, as ``[response]`` of a run, which decides k and phase of the samples;
        empty for a perfect system, and by default the run's own. The whole file that was played is answered; without
        one the run's readout alone.
    delay
        How much later than told the gradients of each axis (x, y) act, s; ``"auto"`` finds it from the middle slice:
        see `trajdesign.measuring.delays`.
    shift
        Where the centre of the image is to lie, along the gradients x and y, m; see `trajdesign.measuring.geometry`.
    rotate
        How far the image is to be turned about it, from x towards y, degrees.
    noise
        Raw data without an object, all samples of which count; by default the noise scan of `raw`.
    coils
        Virtual coils to which those that measured are compressed; by default none.
    calibration
        Raw data of a calibration scan for coil maps; by default what `raw` holds of one (label ``REF``).
    calibration_seq
        The Pulseq file that the calibration played; without it the calibration is an array (coil, line, sample): see
        `trajdesign.measuring.calibration.of_file`.
    coil_maps
        Of CG-SENSE, as ``training.coil_maps``: ``"prescan"`` or ``"espirit"`` from the calibration, ``"self"`` from the
        measurement, with which no calibration counts. By default those of the run's training, from a calibration in any
        case if there is one. The network has those of its training.
    off_resonance
        ``.npy`` of the off-resonance of each pixel (y, x) or (slice, y, x), Hz, in which all images are then
        reconstructed; ``"auto"`` takes the one with which they are sharpest. See `trajdesign.measuring.field_map`.
    beats
        Of a film whose Pulseq file waits for no trigger: text file of the times of the R waves, s, from the start of
        that file, one a line; or ``"stamps"``, the raw file's own. They sort the shots into the frames, instead of the
        labels: see `trajdesign.measuring.gating`.
    overwrite
        Whether an earlier reconstruction may be replaced.

    Raises
    ------
    InputError
        If a file cannot be read, or the raw data are not what the sequence measures: events, samples, shots or coils
        differ, or the sequence is of another run.
    ConfigError
        If an option makes no sense.
    OutputError
        If the folder holds a reconstruction already.
    """
    asked = dict(locals())  # every option, whichever there are
    raw, out = Path(raw), Path(out)
    view = _view(shift, rotate, off_resonance)
    source = _Source(run, seq, k, matrix, fov, Response(response).table if response else response, beats)
    with ExitStack() as files:
        to = outputs.reserved(out, files, with_network=run is not None, overwrite=overwrite)
        trained = None if run is None else TrainedRun.load(run, stage)
        source = source.completed(trained)
        measured = reading.read(raw)
        found, encodings, source_of_k = source.placed(measured, trained)
        found = found if noise is None else _with_noise(found, noise)
        numbers, hindrance = _numbers(measured, found), dicom_images.hindrance(found, measured)
        late = places.delay_of(found, encodings, delay, view.shift)
        encodings = places.delayed(found, encodings, late["axes"])
        acting = Response(source.response or {})
        left_out = places.left_out(found, trained, acting)
        scan = calibrating.wanted(measured, found, coil_maps, calibration, calibration_seq, acting, late["axes"], view)
        kspace, encodings = geometry.shown(found.kspace, encodings, view)
        found = replace(found, kspace=kspace, view=view)
        if off_resonance is not None:
            encodings, field = field_map.in_field(found, encodings, off_resonance)
            found = replace(found, off_resonance=field)
        ready = preparing.prepared(found, encodings, scan, coils)
        maps, few = calibrating.described(scan, coil_maps, trained, found.acquisition)
        images, told = _solved(found, ready, encodings, trained, maps["cg_sense"])
        told["warnings"] += few + left_out
        facts = Facts(
            raw=str(raw), kind=measured.kind, run=_named(run), stage=None if trained is None else trained.stage,
            seq=_named(source.seq), is_export=places.is_export(found, run), k=source_of_k,
            off_resonance=_ends(found.off_resonance), noise_scan=_named(noise),
            response=None if source.response is None else dict(source.response), command=outputs.command(asked),
            dicom=hindrance, **numbers, delay=late, shift=view.shift, rotate=view.rotation, coil_maps=maps, **told,
        )  # fmt: skip
        reconstructed = Reconstructed(images, facts)
        outputs.write(to, reconstructed, found, measured)
    return reconstructed


def _named(path: Path | str | None) -> str | None:
    return None if path is None else str(path)


def _ends(field: NDArray[np.floating] | None) -> list[float] | None:
    return None if field is None else [float(field.min()), float(field.max())]


def _view(shift: Sequence[float], rotate: float, off_resonance: Path | str | None) -> geometry.View:
    """Return which part of space is shown; it is the whole image as it lies where its field is told by pixels."""
    view = geometry.View(tuple(map(float, shift)), float(rotate))
    if off_resonance is not None and (any(view.shift) or view.rotation):
        raise ConfigError("off_resonance: its pixels are those of an image that is neither shifted nor rotated.")
    return view


@dataclass(frozen=True)
class _Source:
    """What tells where in k-space the samples lie: options that tell it twice, or mean nothing there, are refused."""

    run: Path | str | None
    seq: Path | str | None
    k: Path | str | None
    matrix: Sequence[int] | None
    fov: Sequence[float] | None
    response: Mapping[str, Any] | None
    beats: Path | str | None

    def __post_init__(self) -> None:
        if self.k is not None and (self.run is not None or self.seq is not None):
            raise ConfigError("k: it is for data without a run and a .seq file; leave one of them out.")
        if not self.is_own and (self.matrix is not None or self.fov is not None):
            raise ConfigError("matrix and fov: they are for a raw file's own trajectory; leave them out.")
        if self.response is not None and self.run is None and self.seq is None:
            raise ConfigError("response: k of this kind is as it acts already; it is for a run or a .seq file.")

    @property
    def is_own(self) -> bool:
        """Whether it is the raw file itself."""
        return self.run is None and self.seq is None and self.k is None

    def completed(self, trained: TrainedRun | None) -> "_Source":
        """Return the source with what is known by default of the file that was played, and of the response."""
        if self.is_own or self.k is not None:
            return self
        seq, response = self.seq, self.response
        if seq is None and self.run is not None:
            seq = places.played_by(Path(self.run))
        if response is None:
            response = {} if trained is None else trained.config.response
        return replace(self, seq=seq, response=response)

    def placed(self, measured: Measurement, trained: TrainedRun | None) -> tuple[Assigned, list[Encoding], str | None]:
        """Return the samples in their places, the encoding of each slice, and which file k is of, if it holds that."""
        if self.beats is not None and self.seq is None:
            raise ConfigError("beats: when each shot is measured the .seq file alone tells; give it.")
        if self.is_own:
            found, encodings, unit = by_own(measured, self.matrix, self.fov)
            return found, encodings, f"{measured.path} ({unit})"
        if self.k is not None:
            return *places.by_k(measured, Path(self.k)), str(self.k)
        seq, response = None if self.seq is None else Path(self.seq), self.response or {}
        return *places.by_file(measured, seq, trained, self.run, response, self.beats), None


def _with_noise(found: Assigned, path: Path | str) -> Assigned:
    """Return the measurement with the noise scan of another file."""
    samples, dwell = noisy.scanned(path)
    return replace(found, noise=samples, noise_dwell=dwell)


def _numbers(measured: Measurement, found: Assigned) -> dict[str, Any]:
    """Return what `Facts` holds of the measurement itself."""
    n_coils, n_shots, n_samples = found.kspace.shape[2:]
    n_frames, n_slices = found.n_images
    return {
        "n_frames": n_frames,
        "n_slices": n_slices,
        "n_averages": found.n_averages,
        "n_coils": n_coils,
        "n_shots": n_shots,
        "n_samples": n_samples,
        "oversampling": found.oversampling,
        "dwell": found.acquisition.dwell / found.oversampling if found.is_timed else None,
        "dwell_of_raw": measured.dwell,
        "readout": found.acquisition.readout,
        "matrix": found.acquisition.matrix,
        "fov": found.acquisition.fov,
        "n_noise_samples": 0 if found.noise is None else found.noise.shape[1],
        "system": measured.protocol.system,
        "gating": found.gating,
    }


def _solved(
    found: Assigned, ready: Prepared, encodings: Sequence[Encoding], trained: TrainedRun | None, maps: str
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Return the images (frame, slice, y, x) by each reconstruction, and the part of `Facts` that judges them."""
    solvers = [
        solving.Solver(encoding, trained, images, maps, found.gating is not None)
        for encoding, images in zip(encodings, ready.calibration, strict=True)
    ]
    images, sums, promised = _images(ready, solvers)
    whole = {
        name: (found.as_images(torch.stack([torch.stack(frame) for frame in frames])) * ready.scale).numpy()
        for name, frames in images.items()
    }
    level = verdict.noise_part(found, ready.kspace, ready.scale, is_white=ready.is_white)
    judged = sums, promised
    if solvers[0].calibration is not None and consistency.is_too_large(sums["cg_sense"], promised["cg_sense"], level):
        # coil maps of a low resolution leave something of any data: those of the measurement tell whether k was right
        judged = _images(ready, [replace(solver, trained=None, calibration=None) for solver in solvers])[1:]
    return whole, {
        "brightness": ready.scale,
        "prewhitened": ready.is_white,
        "n_virtual_coils": ready.kspace.shape[2],
        "kept_by_compression": ready.kept,
        "residual": {name: sums[name].unexplained() for name in LABELS if name in sums},
        "promised": {name: one.total for name, one in promised.items()},
        "promised_parts": {name: one.unexplained() for name, one in promised.items()},
        "noise": level,
        "noise_parts": verdict.noise_parts(ready.kspace, level, len(sums["adjoint"].over_time)),
        "warnings": verdict.warnings(found, [solver.encoding for solver in solvers], *judged, level),
    }


def _images(
    ready: Prepared, solvers: Sequence[solving.Solver]
) -> tuple[dict[str, list[list[Tensor]]], dict[str, Residual], dict[str, Residual]]:
    """Return the images of each frame and slice by each reconstruction, the residuals, and those promised."""
    images: dict[str, list[list[Tensor]]] = {}
    sums: dict[str, Residual] = {}
    promised: dict[str, Residual] = {}
    for number, frame in enumerate(ready.kspace):
        for solver, one, adjoint in zip(solvers, frame, ready.adjoints[number], strict=True):
            solved = solver.solved(adjoint)
            solving.residuals(solver, one, solved, sums)
            solving.promises(solver, solved, promised)
            for name, (image, _) in solved.items():
                images.setdefault(name, [[] for _ in ready.kspace])[number].append(image)
    return images, sums, promised
