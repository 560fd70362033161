"""What a virtual scanner receives when it plays a file: the ADC events of each slice, and the signal in them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.voxel_signal import signal
from trajdesign.errors import ConfigError, InputError
from trajdesign.measuring.heartbeats import Heartbeats
from trajdesign.physics.response import Response
from trajdesign.pulseq import coherence
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.pulseq.response import phase_of_file
from trajdesign.trajectories.loading import smallest_matrix
from trajdesign.trajectory import MAX_K_ERROR_FOV
from trajdesign.units import plausible

#: Decay until the echo beyond which nothing is left to be seen, in time constants.
_MOST_DECAY = 30.0

#: Phase across the slice during a readout beyond which a file is taken for one of a volume, turns.
MOST_TURNS = 0.05

_LARGEST_MATRIX = 4096

#: How much of k along z a file of a volume covers at least, 1/FOV.
_LEAST_DEPTH = 2.0


@dataclass(frozen=True)
class Reception:
    """What a file makes of an object: `t2_prime` is what of T2* is refocused; `response`, of the gradient system.

    `heart` tells which frame of a film each ADC event samples, by the phase at its excitation; else the shots do.
    """

    played: SeqFile
    t2_prime: float | None
    t2: float | None
    off_resonance: float | NDArray[np.floating]
    response: Response = field(default_factory=lambda: Response({}))
    heart: Heartbeats | None = None

    @cached_property
    def phase(self) -> Sequence[NDArray[np.floating]] | None:
        """Phase that the field at the isocentre gives the samples of each ADC event, as `phase_of_file` tells it."""
        return phase_of_file(self.played, self.response)

    def sampled(
        self, coil_images: Tensor, events: NDArray[np.integer], acquisition: Acquisition
    ) -> tuple[Tensor, float, float]:
        """Return the signal, the time of the echo, s, and the gain that makes up for the decay.

        `coil_images` are the object as the coils see it (coil, y, x), (coil, z, y, x) or (coil, frame, y, x), `events`
        the ADC events of each shot (shot, repetition); the signal is (coil, shot, repetition, sample).
        """
        played, flat = self.played, events.ravel()
        k, turned = (
            stacked(played.k, flat, acquisition.n_dims),
            torch.from_numpy(stacked(coherence.dephasing(played), flat)),
        )
        times = stacked([adc.times for adc in played.adcs], flat)
        times = times - played.excitations[np.searchsorted(played.excitations, times, side="right") - 1]
        kspace = self._signal(coil_images, flat, torch.from_numpy(k), turned, acquisition)
        kspace *= torch.exp(-1j * torch.from_numpy(stacked(coherence.received(played), flat)))
        if self.phase is not None:
            kspace *= torch.exp(-1j * torch.from_numpy(stacked(self.phase, flat)))
        rate = 0.0 if self.t2 is None else 1 / self.t2
        kspace *= torch.from_numpy(np.exp(-rate * times))
        centre = int(np.square(k).sum(axis=(0, 2)).argmin())
        echo = float(times[:, centre].mean())
        decay = rate * echo + (0.0 if self.t2_prime is None else float(turned[:, centre].abs().mean()) / self.t2_prime)
        if decay > _MOST_DECAY:
            raise ConfigError(
                f"of the signal exp(-{decay:.4g}) is left at the echo, {echo * 1e3:.4g} ms after the excitation; "
                "give a longer t2_star or t2, s."
            )
        return kspace.unflatten(1, events.shape), echo, math.exp(decay)

    def _signal(
        self, coil_images: Tensor, events: NDArray[np.integer], k: Tensor, turned: Tensor, acquisition: Acquisition
    ) -> Tensor:
        """Return the signal (coil, event, sample) of ADC events (event,), each of its frame if the heart beats."""
        received = partial(signal, t2_star=self.t2_prime, off_resonance=self.off_resonance)
        if self.heart is None or acquisition.n_frames == 1:
            return received(coil_images, k, turned, acquisition)
        played = self.played
        times = played.excitations[coherence.excited(played)][events]
        frames = self.heart.frames(times, acquisition.n_frames)
        found = torch.zeros(len(coil_images), *k.shape[:2], dtype=torch.complex128)
        for frame in np.unique(frames).tolist():
            here = torch.from_numpy(frames == frame)
            found[:, here] = received(coil_images[:, frame], k[here], turned[here], acquisition.frame)
        return found

    def demodulated(self, kspace: Tensor, events: NDArray[np.integer]) -> Tensor:
        """Return the signal without the phase of the field at the isocentre, which the response tells."""
        return kspace if self.phase is None else kspace * torch.exp(1j * torch.from_numpy(stacked(self.phase, events)))


def refocused(t2: float | None, t2_star: float | None) -> float | None:
    """Return the part of T2* that a spin echo refocuses, s: all of it without T2."""
    for name, value in (("t2", t2), ("t2_star", t2_star)):
        if value is not None:
            plausible(name, value)
    if t2_star is None or t2 is None:
        return t2_star
    if t2 < t2_star:
        raise ConfigError(f"t2 is {t2:g} s, below t2_star, {t2_star:g} s; T2* is at most T2.")
    return None if t2 == t2_star else 1 / (1 / t2_star - 1 / t2)


def stacked(
    parts: Sequence[NDArray[np.floating]], events: NDArray[np.integer], n_dims: int = 2
) -> NDArray[np.floating]:
    """Return what ADC events hold, k along the first axes alone, in the shape of `events` (..., sample[, dim])."""
    chosen = [parts[int(i)] for i in events.ravel()]
    held = np.stack([part[..., :n_dims] if part.ndim == 2 else part for part in chosen])
    return held.reshape(*events.shape, *held.shape[1:])


def distance(k: NDArray[np.floating], wanted: Tensor, acquisition: Acquisition) -> float:
    """Return how far k (shot, repetition, sample, dim) is at most from that of a run (shot, sample, dim), 1/FOV."""
    apart = (k - wanted.numpy()[:, None]) * np.array(acquisition.fov)
    return float(np.linalg.norm(apart, axis=-1).max())


def as_film(
    file: SeqFile, imaging: NDArray[np.bool_], path: Path, acquisition: Acquisition | None
) -> tuple[SeqFile, int]:
    """Return a file whose label ``LIN`` counts the shots of all frames (``PHS``), and the number of frames.

    It is that of the acquisition, or by default as many as `imaging`, the ADC events of the image (adc,), have. A file
    without ``PHS`` is taken to count all shots already.
    """
    frames, counts = np.unique(file.label("PHS")[imaging], return_counts=True)
    n_frames = max(1, len(frames)) if acquisition is None else acquisition.n_frames
    if n_frames == 1 or len(frames) <= 1:
        return file, n_frames
    if frames.tolist() != list(range(n_frames)) or np.ptp(counts):
        raise InputError(
            f"{path} has {counts.min()} to {counts.max()} ADC events in each of the frames (label PHS) "
            f"{frames.tolist()}; a film has as many in all, which count from 0 to {n_frames - 1}."
        )
    if acquisition is None:
        n_of_frame = int(file.labels["LIN"][imaging].max()) + 1 if "LIN" in file.labels else len(file.adcs)
    else:
        n_of_frame = acquisition.n_shots // n_frames
    labels = {name: values for name, values in file.labels.items() if name != "PHS"}
    return replace(file, labels={**labels, "LIN": coherence.shots(file, n_of_frame)}), n_frames


def slices_of(
    played: SeqFile, path: Path, acquisition: Acquisition | None, n_frames: int = 1
) -> list[NDArray[np.integer]]:
    """Return the ADC events of each slice (shot, repetition).

    The label LIN says of which shot an event is. Without an acquisition each is a shot of its own, unless those of one
    LIN have one k, as those of a film must. There LIN counts the shots of all frames.
    """
    if not played.adcs:
        raise InputError(f"{path} samples nothing: it has no ADC event.")
    numbers, lengths = coherence.slices(played), {len(adc.times) for adc in played.adcs}
    if len(lengths) > 1:
        raise InputError(
            f"{path} has ADC events of {min(lengths)} to {max(lengths)} samples; one image needs one number."
        )
    slices = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    if len({len(events) for events in slices}) > 1:
        raise InputError(
            f"{path} has {min(map(len, slices))} to {max(map(len, slices))} ADC events in its {len(slices)} slices; "
            "they must be as many in each."
        )
    of_shots = [_shots(played, events) for events in slices]
    if acquisition is None:
        repeated = _repeated(played, of_shots, path)
        if repeated is None and n_frames > 1:
            raise InputError(f"{path} has several k of one shot (label LIN) of one frame (PHS) of its film.")
        return repeated or [events[:, None] for events in slices]
    for shots in of_shots:
        if (len(shots), *lengths) != (acquisition.n_shots, acquisition.n_samples):
            raise InputError(
                f"{path} has {len(shots)} shots of {min(lengths)} samples in each of {len(slices)} slice(s), the run "
                f"{acquisition.n_shots} shots of {acquisition.n_samples}; is it the export of another run?"
            )
        if len({len(shot) for shot in shots}) > 1:
            counts = [len(shot) for shot in shots]
            raise InputError(f"{path} plays its shots (label LIN) {min(counts)} to {max(counts)} times, not all alike.")
    return [np.stack(shots) for shots in of_shots]


def _shots(played: SeqFile, events: NDArray[np.integer]) -> list[NDArray[np.integer]]:
    """Return the ADC events of each shot, as the label LIN says; without it each is a shot."""
    lines = played.labels["LIN"][events] if "LIN" in played.labels else np.arange(len(events))
    return [events[lines == line] for line in np.unique(lines)]


def _repeated(
    played: SeqFile, of_shots: list[list[NDArray[np.integer]]], path: Path
) -> list[NDArray[np.integer]] | None:
    """Return the events of each slice (shot, repetition) if all shots are repeated as often, on one k each."""
    if len({len(shot) for shots in of_shots for shot in shots}) > 1:
        return None
    n_dims = 2 if played.numbers("SlicePositions") else 3
    slices, fov = [np.stack(shots) for shots in of_shots], np.array(_fov(played, path)[:n_dims])
    for events in slices:
        k = stacked(played.k, events, n_dims) * fov
        if np.abs(k - k[:, :1]).max() > MAX_K_ERROR_FOV:
            return None
    return slices


def require_axes(played: SeqFile, path: Path, acquisition: Acquisition) -> None:
    """Refuse a file of a volume where slices are to be shown, and one whose receiver's phases are not known."""
    (require_flat if acquisition.n_dims == 2 else require_phases)(played, path)


def require_flat(played: SeqFile, path: Path) -> None:
    """Refuse what is no 2D file, or whose receiver's phases are not known."""
    most = turns(played, path)
    if not most <= MOST_TURNS:
        raise InputError(
            f"{path} turns the phase across the slice by up to {most:.3g} cycles during a readout, "
            f"a 2D sequence by at most {MOST_TURNS}: it is no file of slices."
        )
    require_phases(played, path)


def require_phases(played: SeqFile, path: Path) -> None:
    """Refuse a file whose receiver's phases are not known."""
    if not all(np.isfinite(phase).all() for phase in coherence.received(played)):
        raise InputError(f"{path} gives phases or frequencies in ppm of a field that it does not name.")


def turns(played: SeqFile, path: Path) -> float:
    """Return the largest phase across the slice during a readout, in turns."""
    return float(max(np.abs(k[:, 2]).max() for k in played.k)) * thickness(played, path)


def acquisition_of(played: SeqFile, events: NDArray[np.integer], path: Path, n_frames: int = 1) -> Acquisition:
    """Return the acquisition of a file: its field of view, and the smallest even matrix for its k, square in plane.

    It is a volume if k along z covers some of its field of view, and the file names no positions of slices.
    """
    k, extent = stacked(played.k, events, 3), _fov(played, path)
    in_plane, along_z = float(np.abs(k[..., :2]).max()), float(np.abs(k[..., 2]).max())
    is_volume = not played.numbers("SlicePositions") and float(np.ptp(k[..., 2])) * extent[2] >= _LEAST_DEPTH
    fov, reach = extent[: 3 if is_volume else 2], (in_plane, in_plane, along_z)
    matrix = smallest_matrix(min(far * size, _LARGEST_MATRIX) for far, size in zip(reach, fov, strict=False))
    if max(matrix) > _LARGEST_MATRIX:
        raise InputError(f"{path} reaches {max(in_plane, along_z):.4g} 1/m; is the definition FOV, {fov} m, right?")
    times = played.adcs[0].times
    dwell = float(np.ptp(times)) / max(1, len(times) - 1)
    try:
        return Acquisition(fov, matrix, len(events), len(times), dwell, n_frames)
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None


def _fov(played: SeqFile, path: Path) -> tuple[float, float, float]:
    """Return the definition FOV: the field of view along x and y, and what the slices cover, m."""
    fov = played.numbers("FOV")
    if len(fov) != 3 or min(fov) <= 0:
        raise InputError(f"{path} lacks the definition FOV, three positive numbers in m.")
    x, y, z = fov
    return x, y, z


def thickness(played: SeqFile, path: Path) -> float:
    """Return the thickness of a slice, m."""
    thickness = played.numbers("SliceThickness")
    return thickness[0] if len(thickness) == 1 and thickness[0] > 0 else _fov(played, path)[2]
