"""Images of what a scanner measured, and whether they explain it."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.data.measured import reading
from trajdesign.data.measured.measurement import Measurement
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, InputError
from trajdesign.exporting import reception
from trajdesign.files.arrays import read_npz
from trajdesign.learning.trained import TrainedRun
from trajdesign.measuring import assignment, consistency, delays, noise, outputs, solving
from trajdesign.measuring.assignment import Assigned
from trajdesign.physics.response import Response
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.response import k_of_file
from trajdesign.reconstruction.brightness import brightness
from trajdesign.trajectory import MAX_K_ERROR_FOV

_NEEDED = "give the run, the .seq file that was played, or the _k.npz file of an export."
# More than any gradient system has, s.
_LONGEST_DELAY = 1e-4


@dataclass(frozen=True)
class Reconstructed:
    """What raw data show.

    Parameters
    ----------
    images
        Of each reconstruction, ``network`` (with a run), ``cg_sense`` and ``adjoint``: (frame, slice, y, x), real, as
        bright as the data make them.
    facts
        What ``reconstruct.json`` holds: the files, the numbers of the measurement, and the verdict: ``residual`` of
        each reconstruction, ||A x - y|| / ||y||, ``total``, ``of_shots`` and ``over_time`` in the shot; ``promised``,
        what the same reconstruction leaves of data that its own image gives; ``noise``, the part of the data that is
        noise; ``delay`` of each axis that was reckoned with, s, and how it was found; and ``warnings``, one sentence
        each.
    """

    images: dict[str, NDArray[np.float32]]
    facts: dict[str, Any]


@torch.no_grad()
def reconstruct(
    raw: Path | str,
    *,
    out: Path | str,
    run: Path | str | None = None,
    seq: Path | str | None = None,
    k: Path | str | None = None,
    stage: str | None = None,
    delay: str | Sequence[float] | None = None,
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
        Folder to write: ``image.npz``, a NIfTI file of each reconstruction, ``reconstruction.png`` and
        ``reconstruct.json``.
    run
        Run folder; without it there is no network.
    seq
        The Pulseq file that was played; by default that in the run folder, if it holds one.
    k
        Instead of `run` and `seq`, the ``_k.npz`` that an export has written beside its file.
    stage
        Of the run: ``"fixed"`` or ``"learned"``, by default what was trained last.
    delay
        How much later than told the gradients of each axis (x, y) act, s; ``"auto"`` finds it from the middle slice:
        see `trajdesign.measuring.delays`.
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
    raw, out = Path(raw), Path(out)
    if k is not None and (run is not None or seq is not None):
        raise ConfigError("k: it is for data without a run and a .seq file; leave one of them out.")
    if run is None and seq is None and k is None:
        raise ConfigError(_NEEDED)
    with ExitStack() as files:
        to = outputs.reserved(out, files, with_network=run is not None, overwrite=overwrite)
        trained = None if run is None else TrainedRun.load(run, stage)
        seq = _played_by(Path(run)) if seq is None and run is not None else seq
        measured = reading.read(raw)
        if k is not None:
            found, encodings = _by_k(measured, Path(k))
        else:
            found, encodings = _by_file(measured, None if seq is None else Path(seq), trained, run)
        facts = {
            "raw": str(raw),
            "kind": measured.kind,
            "run": None if run is None else str(run),
            "stage": None if trained is None else trained.stage,
            "seq": None if seq is None else str(seq),
            "k": None if k is None else str(k),
            **_facts(measured, found),
        }
        late = _delay(found, encodings, delay)
        if late["axes"] != [0.0, 0.0]:
            encodings = _delayed(found, encodings, late["axes"])
        facts["delay"] = late
        images, verdict = _solved(found, encodings, trained)
        facts |= verdict
        shown = Reconstructed(images, facts)
        outputs.write(to, images, facts, found, measured)
    return shown


def _played_by(run: Path) -> Path | None:
    """Return the Pulseq file of a run folder; None if it has none."""
    found = sorted(run.glob("*.seq"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"{run} holds {len(found)} Pulseq files ({names}); tell with seq which one was played.")
    return found[0] if found else None


def _by_file(
    measured: Measurement, seq: Path | None, trained: TrainedRun | None, run: Path | str | None
) -> tuple[Assigned, list[Encoding]]:
    """Return the samples in their places, and the encoding of each slice."""
    if seq is None:
        if trained is None:
            raise ConfigError(_NEEDED)
        found = assignment.by_shape(measured, trained.trajectory.acquisition, str(run))
        return found, [trained.encoding] * found.kspace.shape[1]
    file = player.read(seq, signed=False)
    found = assignment.by_sequence(measured, file, seq, None if trained is None else trained.trajectory.acquisition)
    if trained is not None:
        _require_same_k(found, trained, seq, run)
        if found.oversampling == 1:
            return found, [trained.encoding] * found.kspace.shape[1]
    of_samples = k_of_file(found.file, Response({} if trained is None else trained.config.response))
    places = [torch.from_numpy(reception.stacked(of_samples, events).mean(axis=1)) for events in found.events]
    return found, [solving.encoding_at(place, found.acquisition) for place in places]


def _require_same_k(found: Assigned, trained: TrainedRun, seq: Path, run: Path | str | None) -> None:
    """Refuse a Pulseq file that does not play the run: by k as it tells, as a virtual scan does."""
    wanted, factor = trained.trajectory.k_adc, found.oversampling
    told = [reception.stacked(found.file.k, events) for events in found.events]
    # a sample of the sequence lies in the middle of those that were measured for it
    told = [k.reshape(*k.shape[:2], -1, factor, 2).mean(axis=3) for k in told] if factor > 1 else told
    error = max(reception.distance(k, wanted, found.acquisition) for k in told)
    limit = MAX_K_ERROR_FOV if factor == 1 else 0.05
    if not error <= limit:
        raise InputError(
            f"k in {seq} is up to {error:.3g}/FOV from that of {run}, more than the {limit:g}/FOV of an export: it is "
            "another run's, or does not play it."
        )


def _by_k(measured: Measurement, path: Path) -> tuple[Assigned, list[Encoding]]:
    """Return samples in the places that the file of k beside an export tells."""
    arrays = read_npz(path)
    needed = {"k_adc", "fov_m", "matrix", "dwell_s"}
    if not needed <= arrays.keys():
        raise InputError(f"{path} lacks {', '.join(sorted(needed - arrays.keys()))}: it is no _k.npz of an export.")
    k = arrays.get("k_actual", arrays["k_adc"])
    if k.ndim != 3 or k.dtype.kind != "f" or k.shape[2] != 2 or not np.isfinite(k).all():
        raise InputError(f"{path} holds k of shape {k.shape}; images are of finite (shot, sample, 2).")
    fov, matrix = (tuple(arrays[name].ravel().tolist()) for name in ("fov_m", "matrix"))
    try:
        acquisition = Acquisition(fov, matrix, len(k), k.shape[1], float(arrays["dwell_s"]))
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None
    found = assignment.by_shape(measured, acquisition, str(path))
    encoding = solving.encoding_at(torch.from_numpy(k.astype(np.float64)), acquisition)
    return found, [encoding] * found.kspace.shape[1]


def _delay(found: Assigned, encodings: Sequence[Encoding], delay: str | Sequence[float] | None) -> dict[str, Any]:
    """Return the delay of each axis, s, and how it was found."""
    if delay is None:
        return {"axes": [0.0, 0.0], "by": None}
    if delay == "auto":
        middle = found.kspace.shape[1] // 2
        k, dwell = _k_and_dwell(found, encodings[middle])
        best = delays.found(_near_one(found.kspace[0, middle]), k, found.acquisition, dwell)
        tried, criterion = best.tried.tolist(), best.criterion.tolist()
        return {"axes": list(best.axes), "by": best.by, "tried": tried, "criterion": criterion}
    axes = [] if isinstance(delay, str) else [float(late) for late in delay]
    if len(axes) != 2 or not max(map(abs, axes)) <= _LONGEST_DELAY:
        raise ConfigError(f"delay is {delay!r}: it is 'auto', or of x and y, s, at most {_LONGEST_DELAY:g} s each.")
    return {"axes": axes, "by": "given"}


def _delayed(found: Assigned, encodings: Sequence[Encoding], axes: Sequence[float]) -> list[Encoding]:
    """Return the encodings of gradients that act so much later, s; of one encoding that all slices share, one."""
    made: dict[int, Encoding] = {}
    for encoding in encodings:
        if id(encoding) not in made:
            k, dwell = _k_and_dwell(found, encoding)
            made[id(encoding)] = solving.encoding_at(delays.delayed(k, dwell, axes), found.acquisition)
    return [made[id(encoding)] for encoding in encodings]


def _k_and_dwell(found: Assigned, encoding: Encoding) -> tuple[Tensor, float]:
    """Return k (shot, sample, dim), 1/m, of an encoding, and the time between samples, s."""
    voxel = torch.tensor(found.acquisition.voxel, dtype=torch.float64)
    return encoding.omega.double() / (2 * math.pi * voxel), found.acquisition.dwell / found.oversampling


def _near_one(kspace: Tensor) -> Tensor:
    """Return k-space divided by a power of two, so that nothing of it is too large or too small to be squared."""
    return kspace / torch.exp2(torch.log2(kspace.abs().max().clamp_min(1e-30)).ceil())


def _facts(measured: Measurement, found: Assigned) -> dict[str, Any]:
    n_frames, n_slices, n_coils, n_shots, n_samples = found.kspace.shape
    return {
        "n_frames": n_frames,
        "n_slices": n_slices,
        "n_averages": found.n_averages,
        "n_coils": n_coils,
        "n_shots": n_shots,
        "n_samples": n_samples,
        "oversampling": found.oversampling,
        "matrix": found.acquisition.matrix,
        "fov": found.acquisition.fov,
        "n_noise_samples": 0 if found.noise is None else found.noise.shape[1],
        "system": measured.protocol.system,
    }


def _solved(
    found: Assigned, encodings: Sequence[Encoding], trained: TrainedRun | None
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Return the images (frame, slice, y, x) by each reconstruction, and the verdict."""
    kspace, matrix = found.kspace, noise.whitening(found.noise)
    if found.noise is not None and len(found.noise) != kspace.shape[2]:
        raise InputError(f"the noise scan has {len(found.noise)} coils, the measurement {kspace.shape[2]}.")
    if matrix is not None:
        kspace = torch.einsum("dc,fzcsn->fzdsn", matrix, kspace.to(torch.complex128)).to(torch.complex64)
    if not kspace.abs().max() > 0:
        raise InputError("the raw data hold zeros alone.")
    solvers = [solving.Solver(encoding, trained) for encoding in encodings]
    # the adjoint is linear: samples of any size are first brought near 1
    size = torch.exp2(torch.log2(kspace.abs().max()).ceil())
    adjoints = [[solver.adjoint(one / size) for solver, one in zip(solvers, frame, strict=True)] for frame in kspace]
    scale = max(float(brightness(images)) for frame in adjoints for images in frame)
    kspace = kspace / (size * scale)
    images: dict[str, list[list[Tensor]]] = {}
    sums: dict[str, Any] = {}
    promised: dict[str, Any] = {}
    for number, frame in enumerate(kspace):
        for solver, one, adjoint in zip(solvers, frame, adjoints[number], strict=True):
            solved = solver.solved(adjoint / scale)
            solving.residuals(solver, one, solved, sums)
            solving.promises(solver, solved, promised)
            for name, (image, _) in solved.items():
                images.setdefault(name, [[] for _ in kspace])[number].append(image)
    whole = {
        name: (torch.stack([torch.stack(frame) for frame in frames]) * float(size * scale)).numpy()
        for name, frames in images.items()
    }
    level = _noise_part(found, kspace, float(size * scale), is_white=matrix is not None)
    return whole, {
        "brightness": float(size * scale),
        "prewhitened": matrix is not None,
        "residual": {name: sums[name].to_dict() for name in solving.LABELS if name in sums},
        "promised": {name: one.total for name, one in promised.items()},
        "noise": level,
        "warnings": _warnings(found, encodings, sums, promised, level),
    }


def _noise_part(found: Assigned, kspace: Tensor, scale: float, *, is_white: bool) -> float:
    """Return ||n|| / ||y||, the part of the data that is noise, by the noise scan or else by the data themselves."""
    power = float(kspace.abs().square().double().mean())
    if is_white and found.noise is not None:
        dwell = found.acquisition.dwell / found.oversampling
        variance = noise.variance(found.noise, found.noise_dwell, dwell) / found.n_averages / scale**2
    else:
        of_slices = [noise.estimated_variance(one) for frame in kspace for one in frame]
        variance = sum(of_slices) / len(of_slices)
    return math.sqrt(min(1.0, variance / power))


def _warnings(
    found: Assigned, encodings: Sequence[Encoding], sums: dict[str, Any], promised: dict[str, Any], level: float
) -> list[str]:
    """Return what is wrong with the data, one sentence each."""
    every, middle = found.kspace.flatten(0, 1), found.kspace.shape[1] // 2
    sentences = [
        f"coil {coil} sees nothing: it receives no more at the centre of k-space than at its edge; is it dead, or "
        "unplugged?"
        for coil in consistency.blind_coils(every, encodings[0].omega.double())
    ]
    sentences += [f"shot {shot} is missing: its samples are all zero." for shot in consistency.silent_shots(every)]
    residual, promise = sums["cg_sense"], promised["cg_sense"]
    if consistency.is_too_large(residual, promise, level):
        shots = consistency.outstanding(residual, level)[:8]
        which = f" Worst are the shots {', '.join(map(str, shots))} (counted from 0)." if shots else ""
        sentences.append(
            f"CG-SENSE leaves {residual.total:.1%} of the data unexplained; of data that its image gives itself it "
            f"leaves {promise.total:.1%}, and noise is {level:.1%}: k is not as it is taken to be (a delay, another "
            "order of the shots, another gradient system), the object moved or is larger than the field of view, or "
            f"the field is off.{which}"
        )
    late = None
    if consistency.is_too_large(residual, promise, level, consistency.ORDINARY):
        k, dwell = _k_and_dwell(found, encodings[middle])
        late = delays.suspected(_near_one(found.kspace[0, middle]), k, found.acquisition, dwell)
    if late is not None and abs(late) > delays.SUSPICIOUS:
        sentences.append(
            f"the data agree best with gradients that act about {abs(late) * 1e6:.1f} us "
            f"{'later' if late > 0 else 'earlier'} than they are taken to: find the delay of each axis with delay auto."
        )
    return sentences
