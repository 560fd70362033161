"""Where in k-space the samples of a measurement lie: by the run, by the file that was played, or by k of an export."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.data.measured.measurement import Measurement
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, InputError
from trajdesign.files.arrays import Kind, read_npz, require_arrays
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.trained import TrainedRun
from trajdesign.measuring import assignment, delays, gating, geometry, reception, solving
from trajdesign.measuring.assignment import Assigned
from trajdesign.physics.response import Response, remark_on
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.response import k_of_file, left_out_of_file, phase_of_file
from trajdesign.reconstruction.measured import Delay
from trajdesign.trajectory import MAX_K_ERROR_FOV

#: What is asked of who gives nothing that tells it.
NEEDED = "the raw file holds no k: give the run, the .seq file that was played, or the _k.npz file of an export."
# More than any gradient system has, s.
_LONGEST_DELAY = 1e-4
# What the file of k beside an export holds, and may; how far k may reach, as a part of the matrix's edge.
_KEYS: dict[str, tuple[Kind, int]] = {
    "k_adc": ("real", 3), "fov_m": ("real", 1), "matrix": ("whole", 1), "dwell_s": ("real", 0),
}  # fmt: skip
_OPTIONAL: dict[str, tuple[Kind, int]] = {
    "k_actual": ("real", 3), "phase_actual": ("real", 2), "n_frames": ("whole", 0),
}  # fmt: skip
_MOST_REACH = 2.0


def played_by(run: Path) -> Path | None:
    """Return the Pulseq file of a run folder; None if it has none."""
    found = sorted(run.glob("*.seq"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"{run} holds {len(found)} Pulseq files ({names}); tell with seq which one was played.")
    return found[0] if found else None


def is_export(found: Assigned, run: Path | str | None) -> bool | None:
    """Tell by its signature whether what was played is a file that a run tells of; None without a file or exports."""
    noted = [] if run is None else RunFolder(run).exports()
    return found.whole.md5 in {one.signature for one in noted} if found.whole is not None and noted else None


def by_file(
    measured: Measurement,
    seq: Path | None,
    trained: TrainedRun | None,
    run: Path | str | None,
    response: Mapping[str, Any],
    beats: Path | str | None = None,
) -> tuple[Assigned, list[Encoding]]:
    """Return the samples in their places, and the encoding of each slice, under a response of the gradient system.

    `beats` sorts the shots of a film that a Pulseq file plays by heartbeats: see `trajdesign.measuring.gating`.
    Averages have been averaged already: the phase of the field at the isocentre is taken off their mean, and k is the
    mean of theirs. That of a stack's slices is the partitions', one after the other, which sample the same in plane.
    """
    acting = Response(response)
    as_trained = trained is not None and trained.config.response == response
    if seq is None:
        if trained is None:
            raise ConfigError(NEEDED)
        found = assignment.by_shape(measured, trained.trajectory.acquisition, str(run))
        encoding = trained.encoding
        if not as_trained:
            encoding = solving.encoding_at(acting(trained.trajectory).k_adc, found.acquisition)
        phase = acting.phase(trained.trajectory)
        found = found if phase is None else _without(found, np.exp(-1j * phase.numpy()))
        return found, [encoding] * found.kspace.shape[1]
    file = player.read(seq, signed=False)
    found = assignment.by_sequence(measured, file, seq, None if trained is None else trained.trajectory.acquisition)
    if trained is not None:
        _require_same_k(found, trained, seq, run)
        if found.oversampling == 1 and as_trained and acting.is_perfect and beats is None:
            return found, [trained.encoding] * found.kspace.shape[1]
    if beats is not None:
        found = gating.gated(found, measured, seq, beats)
    of_samples, phases = k_of_file(found.file, acting), phase_of_file(found.file, acting)
    n_dims = found.acquisition.n_dims
    places = [torch.from_numpy(reception.stacked(of_samples, events, n_dims).mean(axis=1)) for events in found.events]
    if phases is not None:  # of averages, whose samples have been averaged
        factors = [np.exp(-1j * reception.stacked(phases, events)).mean(axis=1) for events in found.events]
        found = _without(found, np.stack(factors))
    return found, [solving.encoding_at(place, found.acquisition) for place in places]


def left_out(found: Assigned, trained: TrainedRun | None, acting: Response) -> list[str]:
    """Return sentences on what the encodings leave out of a response, where that is much or not known."""
    if found.played is not None:
        remark = remark_on(left_out_of_file(found.played, acting, found.acquisition.fov))
    else:
        remark = None if trained is None else acting.remark(trained.trajectory)
    remarks = [remark] if remark else []
    if acting.is_local and found.stack:
        remarks.append(
            "Concomitant fields are taken as those in the middle slice: partitions have no position of their own."
        )
    elif acting.is_local and found.played is None and found.kspace.shape[1] > 1:
        remarks.append(
            "Concomitant fields are taken as those of one slice: where each lies, the .seq file alone tells; give it."
        )
    return remarks


def by_k(measured: Measurement, path: Path) -> tuple[Assigned, list[Encoding]]:
    """Return samples in the places that the file of k beside an export tells."""
    arrays = read_npz(path)
    if missing := sorted(_KEYS.keys() - arrays.keys()):
        raise InputError(f"{path} lacks {', '.join(missing)}: it is no _k.npz of an export.")
    require_arrays(arrays, path, _KEYS, _OPTIONAL)
    k = arrays.get("k_actual", arrays["k_adc"])
    fov, matrix = (tuple(arrays[name].tolist()) for name in ("fov_m", "matrix"))
    if k.shape[2] != len(fov) or not np.isfinite(k).all():
        raise InputError(f"{path} holds k of shape {k.shape}; images are of finite (shot, sample, {len(fov)}).")
    n_frames = int(arrays.get("n_frames", 1))
    try:
        acquisition = Acquisition(fov, matrix, len(k), k.shape[1], float(arrays["dwell_s"]), n_frames)
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None
    reach = float((np.abs(k) / acquisition.k_max).max())
    if reach > _MOST_REACH:
        raise InputError(f"{path}: k reaches {reach:.3g} times as far as its matrix does; is it in 1/m?")
    found = assignment.by_shape(measured, acquisition, str(path))
    n_slices = found.kspace.shape[1]
    if "of_first_slice" in arrays and n_slices > 1:
        raise ConfigError(
            f"{path} holds k of the first slice alone, and concomitant fields differ among the {n_slices} that were "
            "measured; give the .seq file and its response instead."
        )
    encoding = solving.encoding_at(torch.from_numpy(k.astype(np.float64)), acquisition)
    if "phase_actual" in arrays:
        phase = arrays["phase_actual"]
        if phase.shape != k.shape[:2] or phase.dtype.kind != "f" or not np.isfinite(phase).all():
            raise InputError(f"{path} holds phases of shape {phase.shape}; they are finite, of each sample of k.")
        found = _without(found, np.exp(-1j * phase))
    return found, [encoding] * n_slices


def _without(found: Assigned, factor: NDArray[np.complexfloating]) -> Assigned:
    """Return samples without a known factor ([slice,] shot, sample) of all coils."""
    of_coils = torch.from_numpy(factor if factor.ndim == 2 else factor[:, None])
    kspace, stack = found.kspace, found.stack
    if stack is not None:  # each partition has a factor of its own
        kspace = torch.from_numpy(stack.partitions(kspace.numpy()))
    kspace = (kspace.to(torch.complex128) / of_coils).to(torch.complex64)
    return replace(found, kspace=kspace if stack is None else torch.from_numpy(stack.slices(kspace.numpy())))


def delay_of(
    found: Assigned, encodings: Sequence[Encoding], delay: str | Sequence[float] | None, shift: Sequence[float]
) -> Delay:
    """Return the delay of each axis, s, and how it was found, of an image whose centre lies at a shift, m."""
    n_axes = found.acquisition.n_dims
    if delay is None:
        return {"axes": [0.0] * n_axes, "by": None}
    if not found.is_timed:
        raise InputError("the raw file does not tell the time between samples, without which a delay means nothing.")
    if delay == "auto":
        middle = found.kspace.shape[1] // 2
        k, dwell = k_and_dwell(found, encodings[middle])
        best = delays.found(near_one(found.kspace[0, middle]), k, found.acquisition, dwell, shift)
        tried, criterion = best.tried.tolist(), best.criterion.tolist()
        return {"axes": list(best.axes), "by": best.by, "tried": tried, "criterion": criterion}
    axes = [] if isinstance(delay, str) else [float(late) for late in delay]
    axes = axes * n_axes if len(axes) == 1 else axes
    if len(axes) != n_axes or not max(map(abs, axes)) <= _LONGEST_DELAY:
        names = " and ".join("xyz"[:n_axes]) if n_axes == 2 else "x, y and z"
        raise ConfigError(f"delay is {delay!r}: it is 'auto', or of {names}, s, at most {_LONGEST_DELAY:g} s each.")
    return {"axes": axes, "by": "given"}


def delayed(found: Assigned, encodings: Sequence[Encoding], axes: Sequence[float]) -> list[Encoding]:
    """Return the encodings of gradients that act so much later, s; of one encoding that all slices share, one."""
    if not any(axes):
        return list(encodings)
    made: dict[int, Encoding] = {}
    for encoding in encodings:
        if id(encoding) not in made:
            k, dwell = k_and_dwell(found, encoding)
            made[id(encoding)] = solving.encoding_at(delays.delayed(k, dwell, axes), found.acquisition)
    return [made[id(encoding)] for encoding in encodings]


def k_and_dwell(found: Assigned, encoding: Encoding) -> tuple[Tensor, float]:
    """Return k (shot, sample, dim), 1/m, of an encoding, and the time between samples, s."""
    return geometry.k_of(encoding), found.acquisition.dwell / found.oversampling


def near_one(kspace: Tensor) -> Tensor:
    """Return k-space divided by a power of two, so that nothing of it is too large or too small to be squared."""
    return kspace / torch.exp2(torch.log2(kspace.abs().max().clamp_min(1e-30)).ceil())


def _require_same_k(found: Assigned, trained: TrainedRun, seq: Path, run: Path | str | None) -> None:
    """Refuse a Pulseq file that does not play the run: by k as it tells, as a virtual scan does."""
    wanted, factor = trained.trajectory.k_adc, found.oversampling
    told = [reception.stacked(found.file.k, events, found.acquisition.n_dims) for events in found.events]
    # a sample of the sequence lies in the middle of those that were measured for it
    told = [k.reshape(*k.shape[:2], -1, factor, k.shape[3]).mean(axis=3) for k in told] if factor > 1 else told
    error = max(reception.distance(k, wanted, found.acquisition) for k in told)
    limit = MAX_K_ERROR_FOV if factor == 1 else 0.05
    if not error <= limit:
        others = ""
        if run is not None and is_export(found, run) is False:
            names = ", ".join(dict.fromkeys(one.file for one in RunFolder(run).exports()))
            others = f" By its signature it is none of the run's exports: {names}."
        raise InputError(
            f"k in {seq} is up to {error:.3g}/FOV from that of {run}, more than the {limit:g}/FOV of an export: it is "
            f"another run's, or does not play it.{others}"
        )
