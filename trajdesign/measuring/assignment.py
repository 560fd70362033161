"""Which sample of a raw file is which: the n-th ADC event that a Pulseq file plays is the n-th one of the raw file.

What a raw file counts itself is not looked at: under a Pulseq sequence a scanner counts nothing, or wrongly.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.data.measured.measurement import Measurement
from trajdesign.errors import InputError
from trajdesign.measuring import partitions, reception
from trajdesign.measuring.geometry import View
from trajdesign.measuring.partitions import Stack
from trajdesign.pulseq import coherence
from trajdesign.pulseq.reader.kspace import KSpace
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.reconstruction.measured import Gating
from trajdesign.trajectory import MAX_K_ERROR_FOV

_Samples = NDArray[np.complex64]


@dataclass(frozen=True, eq=False)
class Assigned:
    """Samples in their places.

    Parameters
    ----------
    kspace
        (frame, slice, coil, shot, sample), complex64; averages are averaged. Here a volume is one slice, and of a film
        all shots are in one frame.
    acquisition
        Field of view, matrix and shots; its samples are those that the sequence asks for.
    oversampling
        Samples measured for each of them.
    noise
        Without an object (coil, sample).
    noise_dwell
        Of the noise, s; None where nothing tells it.
    n_averages
        Of each shot.
    played
        The ADC events that sample the object, with all samples that were measured; None without a file.
    events
        Events of `played` of each slice in the first frame (shot, average).
    view
        Which part of space the images show; `kspace` has the phase of it.
    is_timed
        Whether the time between samples is known; without it a delay means nothing.
    off_resonance
        Of the field in which it is reconstructed (slice, y, x), Hz.
    stack
        What has made slices of the partitions of a volume; None where slices were excited.
    whole
        All that was played; None without a file.
    calibration
        What its ADC events for coil maps alone sampled (coil, sample), by their numbers in `whole`.
    gating
        How heartbeats have sorted the shots of a film; None where the labels of the file have.

    Raises
    ------
    InputError
        If several volumes lie beside each other.
    """

    kspace: Tensor
    acquisition: Acquisition
    oversampling: int = 1
    noise: _Samples | None = None
    noise_dwell: float | None = None
    n_averages: int = 1
    played: SeqFile | None = None
    events: tuple[NDArray[np.integer], ...] = ()
    view: View = field(default_factory=View)
    is_timed: bool = True
    off_resonance: NDArray[np.float64] | None = None
    stack: Stack | None = None
    whole: SeqFile | None = None
    calibration: Mapping[int, _Samples] = field(default_factory=dict)
    gating: Gating | None = None

    def __post_init__(self) -> None:
        if self.is_volume and self.kspace.shape[1] > 1:
            raise InputError(f"{self.kspace.shape[1]} slabs (label SLC) were measured; only one is reconstructed.")

    @property
    def is_volume(self) -> bool:
        """Whether the images are volumes."""
        return self.acquisition.n_dims == 3

    @property
    def is_film(self) -> bool:
        """Whether the images are films."""
        return self.acquisition.n_frames > 1

    @property
    def n_images(self) -> tuple[int, int]:
        """Frames, of a film or repetitions, and slices, excited or of a volume."""
        n_repetitions, n_slices = self.kspace.shape[:2]
        return n_repetitions * self.acquisition.n_frames, self.acquisition.matrix[2] if self.is_volume else n_slices

    def as_images(self, values: Tensor) -> Tensor:
        """Return values (frame, slice, y, x) of each image (frame, slice, [z or frame,] y, x) of k-space."""
        if self.is_volume:
            return values.flatten(1, 2)
        return values.transpose(1, 2).flatten(0, 1) if self.is_film else values

    @property
    def file(self) -> SeqFile:
        """`played`, of samples whose places a file told."""
        if self.played is None:
            raise ValueError("no Pulseq file told the places of these samples")
        return self.played


def by_sequence(raw: Measurement, file: SeqFile, path: Path, acquisition: Acquisition | None) -> Assigned:
    """Put samples in their places by a Pulseq file.

    Parameters
    ----------
    raw
        What was measured.
    file, path
        What was played, and its path for sentences.
    acquisition
        Of the run that the file is the export of; without one it is told by the file.

    Raises
    ------
    InputError
        If events, samples, shots or coils of the two differ, or the file is of partitions that are no stack; the
        sentence has both numbers.
    """
    imaging, calibration = coherence.imaging(file), for_coil_maps(file)
    if not imaging.any():
        raise InputError(f"{path} samples no object: none of its {len(file.adcs)} ADC events follows an excitation.")
    file, n_frames = reception.as_film(file, imaging, path, acquisition)
    file, is_stack = partitions.as_slices(file, imaging, path)
    found = matched(raw, file, path, imaging)
    told = file.only(imaging)
    places = np.flatnonzero(imaging).tolist()
    objects = [found[i] for i in places]
    factor = oversampling(dict(zip(places, objects, strict=True)), file, raw.path, path)
    frames = told.labels.get("REP", np.zeros(len(told.adcs), dtype=int))
    parts = [told.only(frames == frame) for frame in np.unique(frames)]
    slices = reception.slices_of(parts[0], path, acquisition, n_frames)
    of_file = acquisition or reception.acquisition_of(parts[0], slices[0], path, n_frames)
    stack = partitions.stack_of(parts[0], slices, of_file, path) if is_stack else None
    kspace, places_of_frames = [], []
    for frame, part in zip(np.unique(frames), parts, strict=True):
        inside = np.flatnonzero(frames == frame)
        of_slices = reception.slices_of(part, path, acquisition, n_frames)
        kspace.append([_averaged(objects, inside[events]) for events in of_slices])
        places_of_frames.append([reception.stacked(part.k, events, of_file.n_dims) for events in of_slices])
    if len({tuple(one.shape for one in frame) for frame in kspace}) > 1:
        raise InputError(f"{path} has repetitions (label REP) that are not alike.")
    _require_repeated(places_of_frames, of_file, path)
    if stack is None:
        reception.require_axes(parts[0], path, of_file)
    else:
        reception.require_phases(parts[0], path)
    ordered = np.stack([np.stack(frame) for frame in kspace])
    others = np.flatnonzero(~coherence.imaging(file)).tolist()
    quiet = [i for i in others if i in found and _is_noise(file, i)]
    noise = np.concatenate([found[i] for i in quiet], axis=1) if quiet else raw.noise
    dwell = raw.noise_dwell
    if quiet:  # as long as the file says, however many samples were taken in it
        dwell = file.adcs[quiet[0]].dwell * file.adcs[quiet[0]].count / found[quiet[0]].shape[1]
    return Assigned(
        kspace=torch.from_numpy(ordered if stack is None else stack.slices(ordered)),
        acquisition=of_file,
        oversampling=factor,
        noise=noise,
        noise_dwell=dwell,
        n_averages=slices[0].shape[1],
        played=finer(parts[0], factor),
        events=tuple(slices),
        stack=stack,
        whole=file,
        calibration={i: found[i] for i in np.flatnonzero(calibration).tolist() if i in found},
    )


def by_shape(raw: Measurement, acquisition: Acquisition, what: str) -> Assigned:
    """Put samples in their places where no Pulseq file tells which is which: by the shape of an array, or one slice.

    Raises
    ------
    InputError
        If the numbers differ from those of `what`.
    """
    noisy = raw.flags.get("noise", np.zeros(len(raw.events), dtype=bool))
    objects = [event for event, is_noise in zip(raw.events, noisy, strict=True) if not is_noise]
    n_frames, n_slices, n_shots = raw.layout or (1, 1, len(objects))
    sizes = sorted({event.shape for event in objects})
    wanted = acquisition.n_shots, acquisition.n_samples
    if len(sizes) != 1 or (n_shots, sizes[0][1]) != wanted:
        of = " or ".join(str(size[1]) for size in sizes)
        raise InputError(
            f"{raw.path} has {n_shots} shots of {of} samples, {what} {wanted[0]} of {wanted[1]}; is it of another run? "
            "Where slices, averages or a noise scan are among the shots, give the .seq file that was played."
        )
    kspace = np.stack(objects).reshape(n_frames, n_slices, n_shots, *sizes[0]).swapaxes(2, 3)
    return Assigned(torch.from_numpy(np.ascontiguousarray(kspace)), acquisition, 1, raw.noise, raw.noise_dwell)


def _require_repeated(places: Sequence[Sequence[NDArray[np.floating]]], acquisition: Acquisition, path: Path) -> None:
    """Refuse repetitions, each of k (shot, average, sample, dim) of its slices, that play another k than the first."""
    for number, of_slices in enumerate(places):
        for k, first in zip(of_slices, places[0], strict=True):
            apart = float((np.abs(k - first) * acquisition.fov).max())
            if apart > MAX_K_ERROR_FOV:
                raise InputError(
                    f"{path}: repetition {number} (label REP, counted from 0) plays another k than the first, up to "
                    f"{apart:.3g}/FOV away, and all are reconstructed at one; label them as frames (PHS) of a film."
                )


def finer(file: SeqFile, factor: int) -> SeqFile:
    """Return a file whose receiver samples `factor` times as often, in the same time."""
    if factor == 1:
        return file
    adcs = tuple(
        replace(
            adc,
            event=replace(
                adc.event,
                count=adc.count * factor,
                dwell=adc.dwell / factor,
                modulation=None if adc.event.modulation is None else np.repeat(adc.event.modulation, factor),
            ),
        )
        for adc in file.adcs
    )
    return replace(file, adcs=adcs, k=KSpace(file.block_edges, file.pulses, adcs, file.waveforms))


def for_coil_maps(file: SeqFile) -> NDArray[np.bool_]:
    """Tell which ADC events sample the object for coil maps alone (adc,)."""
    is_object = (coherence.excited(file) >= 0) & (file.label("NOISE") == 0) & (file.label("NAV") == 0)
    return is_object & file.is_calibration


def _is_noise(file: SeqFile, event: int) -> bool:
    return bool(file.labels["NOISE"][event]) if "NOISE" in file.labels else coherence.excited(file)[event] < 0


def matched(raw: Measurement, file: SeqFile, path: Path, imaging: NDArray[np.bool_]) -> dict[int, _Samples]:
    """Return what each ADC event of a file sampled (coil, sample), by its number, of the imaging ones at least."""
    return {number: joined(raw, events) for number, events in numbered(raw, file, path, imaging).items()}


def joined(raw: Measurement, events: Sequence[int]) -> _Samples:
    """Return the samples (coil, sample) of events of a raw file, one after the other."""
    return raw.events[events[0]] if len(events) == 1 else np.concatenate([raw.events[i] for i in events], axis=1)


def numbered(raw: Measurement, file: SeqFile, path: Path, imaging: NDArray[np.bool_]) -> dict[int, Sequence[int]]:
    """Return which events of a raw file are each ADC event of a file, by its number, of the imaging ones at least.

    They are several where an interpreter has cut it into pieces.
    """
    noisy = raw.flags.get("noise", np.zeros(len(raw.events), dtype=bool))
    events, quiet = range(len(raw.events)), np.flatnonzero(~noisy).tolist()
    whole, objects = list(range(len(file.adcs))), np.flatnonzero(imaging).tolist()
    if raw.layout is not None and (ordered := _ordered(raw, file, path, imaging)):
        return ordered
    for numbers, measured in ((whole, events), (whole, quiet), (objects, quiet)):
        pieces = [_n_pieces(file, i) for i in numbers]
        if len(measured) == len(numbers):
            return {number: [event] for number, event in zip(numbers, measured, strict=True)}
        if len(measured) == sum(pieces):  # as interpreters cut long ADC events
            edges = np.cumsum([0, *pieces])
            return {i: measured[a:b] for i, (a, b) in zip(numbers, itertools.pairwise(edges), strict=True)}
    n_noise, n_other = int(noisy.sum()), len(whole) - len(objects)
    raise InputError(
        f"{raw.path} has {len(events)} ADC events{f' ({n_noise} of noise)' if n_noise else ''}, {path} plays "
        f"{len(whole)}{f' ({n_other} of noise, navigators or calibration)' if n_other else ''}: it is not what this "
        "file measured, or not all of it."
    )


def _ordered(
    raw: Measurement, file: SeqFile, path: Path, imaging: NDArray[np.bool_]
) -> dict[int, Sequence[int]] | None:
    """Return the same of an array (repetition, slice, shot) whose events are in this order, not in that of playing."""
    n_frames, n_slices, n_shots = raw.layout or (0, 0, 0)
    numbers = np.flatnonzero(imaging)
    part = file.only(imaging)
    slices = coherence.slices(part)
    if n_frames == n_slices == 1:
        return None  # nothing that the shape tells: they are as they were played
    lines = part.labels.get("LIN", np.arange(len(numbers)))
    order = np.lexsort((np.arange(len(numbers)), lines, slices))
    n_each = len(np.unique(lines)) if "LIN" in part.labels else len(numbers) // len(np.unique(slices))
    wanted = len(numbers) // max(1, len(np.unique(slices)) * n_each), len(np.unique(slices)), n_each
    if (n_frames, n_slices, n_shots) != wanted or n_frames * n_slices * n_shots != len(numbers):
        return None
    of_slices = numbers[order].reshape(n_slices, n_shots, n_frames).transpose(2, 0, 1).ravel()
    return {number: [event] for event, number in enumerate(of_slices.tolist())}


def _n_pieces(file: SeqFile, event: int) -> int:
    """Return in how many pieces interpreters take an ADC event."""
    longest = file.numbers("MaxAdcSegmentLength")
    return -(-file.adcs[event].count // int(longest[0])) if longest and longest[0] >= 1 else 1


def oversampling(objects: Mapping[int, _Samples], file: SeqFile, raw: Path, path: Path) -> int:
    """Return how many samples were measured for each that the file asks for; refuse what is no whole number."""
    coils = sorted({len(event) for event in objects.values()})
    if len(coils) > 1:
        raise InputError(f"{raw} has ADC events of {coils[0]} to {coils[-1]} coils; one image needs one number.")
    found = set()
    for number, event in objects.items():
        count = file.adcs[number].count
        factor, rest = divmod(event.shape[1], count)
        if rest or factor < 1:
            raise InputError(
                f"{raw} has {event.shape[1]} samples in ADC event {number}, {path} asks for {count}: neither "
                "as many nor a whole number of times as many."
            )
        found.add(factor)
    if len(found) > 1:
        raise InputError(f"{raw} has {min(found)} to {max(found)} times the samples that {path} asks for.")
    return found.pop()


def _averaged(objects: Sequence[_Samples], events: NDArray[np.integer]) -> _Samples:
    """Return the mean (coil, shot, sample) over the last axis of events (shot, average)."""
    shots = [np.mean([objects[i] for i in shot], axis=0, dtype=np.complex64) for shot in events]
    return np.stack(shots, axis=1)
