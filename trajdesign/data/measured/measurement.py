"""What a scanner measured: the ADC events of a raw file, in the order of the file, and what the file says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)

# Of products of directions, from those at right angles.
_MOST_SKEW = 1e-3

#: Samples (event, coil, sample), or (coil, sample) of each event where their sizes differ.
Events = NDArray[np.complex64] | list[NDArray[np.complex64]]


@dataclass(frozen=True)
class Slice:
    """Where a slice lies, in the coordinates of the patient: to the left, to the back, to the head.

    Parameters
    ----------
    position
        Of its centre, m.
    read, phase, normal
        Directions of length 1, as the file has them: with the signs of Siemens and of its converter to ISMRMRD.
    """

    position: tuple[float, ...]
    read: tuple[float, ...]
    phase: tuple[float, ...]
    normal: tuple[float, ...]


@dataclass(frozen=True)
class Protocol:
    """What a file tells of the scanner and the protocol; empty where it tells nothing.

    A Pulseq sequence is played under a protocol whose matrix, field of view and dwell time need not be its own.

    Parameters
    ----------
    system
        Vendor, model and software.
    name
        Of the protocol.
    field_strength
        T.
    fov
        Along the readout, the phase encoding and the slice, m.
    encoded_matrix, encoded_fov
        What is encoded along the readout and the phase encoding, in pixels and m; empty where the file does not tell.
    patient_position
        As DICOM abbreviates it: ``"HFS"`` for head first, supine.
    slices
        In the order in which they were first measured.
    """

    system: str = ""
    name: str = ""
    field_strength: float | None = None
    fov: tuple[float, ...] = ()
    encoded_matrix: tuple[int, ...] = ()
    encoded_fov: tuple[float, ...] = ()
    patient_position: str = ""
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a scanner measured.

    Parameters
    ----------
    path, kind
        The file, and how it was read.
    events
        What every ADC event sampled, in the order of the file, which is the order in which they were played.
    discard
        Samples at the start and at the end of each event that the file says are of no use (event, 2); they are in
        `events`.
    layout
        Repetitions, slices and shots that the events are in the order of, the last counting fastest, where the shape of
        an array says so; None where the sequence alone can tell.
    flags
        Which events (event,) the file calls ``noise``, ``calibration``, ``calibration and image``, ``reversed``,
        ``navigator``, ``phase correction``, ``phase stabilisation``, ``surface coil correction`` or ``dummy``; names
        that it gives to no event are not there. Events that the scanner itself plays for feedback are not in `events`.
    counters
        What the file counts (event,): ``slice``, ``repetition``, ``partition``, ``contrast``, ``phase`` and ``set``, of
        ISMRMRD alone. Under a Pulseq sequence a scanner counts nothing, or wrongly.
    stamps
        Ticks since the last trigger of the heart (event,), as twix and ISMRMRD files count them; None without.
    dwell
        From sample to sample, s; None where the file does not tell, or tells more than one. Siemens files have that of
        the protocol, which a Pulseq sequence does not always follow.
    noise
        Samples without an object (coil, sample): of the scan before the measurement in the same file, or of the events
        with the flag; None without either.
    noise_dwell
        Of these samples, s; None as for `dwell`.
    oversampling
        Samples that were measured for each that the protocol's field of view asks for; None where the file does not
        tell.
    trajectory
        k of each sample (event, sample, dim) as the file holds it, or a list as of `events`; None without one.
    trajectory_unit
        Of these; empty where the file does not tell.
    protocol
        What else the file tells.
    """

    path: Path
    kind: Literal["twix", "ismrmrd", "fastmri", "array", "bart"]
    events: Events
    discard: NDArray[np.int64]
    layout: tuple[int, int, int] | None = None
    flags: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    counters: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    stamps: NDArray[np.int64] | None = None
    dwell: float | None = None
    noise: NDArray[np.complex64] | None = None
    noise_dwell: float | None = None
    oversampling: float | None = None
    trajectory: NDArray[np.float32] | list[NDArray[np.float32]] | None = None
    trajectory_unit: str = ""
    protocol: Protocol = Protocol()

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Coils and samples of each event."""
        return [(event.shape[0], event.shape[1]) for event in self.events]

    def select(self, which: NDArray[np.bool_]) -> "Measurement":
        """Return the events of a mask (event,) alone, with what the file says of them; they have no layout."""
        return replace(
            self,
            events=stacked([event for event, wanted in zip(self.events, which, strict=True) if wanted]),
            layout=None,
            flags={name: flag[which] for name, flag in self.flags.items() if flag[which].any()},
            counters={name: values[which] for name, values in self.counters.items()},
            stamps=None if self.stamps is None else self.stamps[which],
            discard=self.discard[which],
            trajectory=None
            if self.trajectory is None
            else stacked([k for k, wanted in zip(self.trajectory, which, strict=True) if wanted]),
        )


def stacked(events: Sequence[NDArray[_Number]]) -> NDArray[_Number] | list[NDArray[_Number]]:
    """Return events of one shape as one array, others as a list."""
    return np.stack(events) if len({event.shape for event in events}) == 1 else list(events)


def joined(events: Sequence[NDArray[np.complex64]] | NDArray[np.complex64]) -> NDArray[np.complex64] | None:
    """Return the samples (coil, sample) of events one after the other, as of a noise scan.

    Where the number of coils changes, those with as many as the last one; None of no event.
    """
    if not len(events):
        return None
    return np.concatenate([event for event in events if len(event) == len(events[-1])], axis=1)


def flagged(words: NDArray[np.uint64], bits: Mapping[int, str]) -> dict[str, NDArray[np.bool_]]:
    """Return the events of each flag that one has, from the words of flags (event,) and the names of bits, from 0."""
    found: dict[str, NDArray[np.bool_]] = {}
    for bit, name in bits.items():
        which = words >> np.uint64(bit) & np.uint64(1) == 1
        if which.any():
            found[name] = found[name] | which if name in found else which
    return found


def slices(position: NDArray, read: NDArray, phase: NDArray, normal: NDArray) -> tuple[Slice, ...]:
    """Return every slice of events once, in their order.

    Parameters
    ----------
    position
        (event, 3), mm.
    read, phase, normal
        (event, 3); events whose directions are not at right angles and of length 1 are of no slice.
    """
    axes = np.stack([read, phase, normal], axis=1).astype(float)
    with np.errstate(over="ignore", invalid="ignore"):
        products = np.abs(axes @ axes.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0)
        is_known = (products < _MOST_SKEW) & np.isfinite(position).all(axis=1)
    rows = np.concatenate([position[:, None] * 1e-3, axes], axis=1)[is_known]
    _, first = np.unique(rows.reshape(-1, 12).round(6), axis=0, return_index=True)
    return tuple(Slice(*(tuple(map(float, part)) for part in rows[i])) for i in sorted(first))
