"""Retrospective gating: each shot of a film goes into the frame of the cardiac phase in which it was measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trajdesign.data.measured.measurement import Measurement
from trajdesign.errors import ConfigError, InputError
from trajdesign.measuring import assignment
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.heartbeats import Heartbeats, require_free
from trajdesign.pulseq import coherence

#: Asks for the time stamps of the raw file itself.
STAMPS = "stamps"


def gated(found: Assigned, measured: Measurement, path: Path, beats: Path | str) -> Assigned:
    """Return a film whose shots are sorted by the cardiac phase at their excitation.

    Every ADC event is a shot of its own, also those of averages, at the k that the file plays for it. Those before the
    first R wave and after the last one are left out. All frames get as many shots as the fullest: the others repeat
    theirs, and density compensation shares the weight of one shot among its copies.

    Parameters
    ----------
    found
        The film as the labels of its Pulseq file sort it.
    measured
        Of which it was made.
    path
        Of the Pulseq file, for sentences.
    beats
        Text file of the times of the R waves, s, or `STAMPS`.

    Raises
    ------
    ConfigError
        If it is no film, one of partitions or of several repetitions, or the Pulseq file waits for triggers.
    InputError
        If the file of R waves cannot be read, the raw data hold no time stamps, or a frame gets no shot.
    """
    file, n_frames = found.file, found.acquisition.n_frames
    require_free(file, n_frames, path)
    if found.stack is not None or len(found.kspace) > 1:
        raise ConfigError(f"beats: {path} plays partitions or repetitions (label PAR or REP) of a film; not sorted.")
    assert found.whole is not None
    imaging = coherence.imaging(found.whole)
    pieces = assignment.numbered(measured, found.whole, path, imaging)
    events = [pieces[i] for i in np.flatnonzero(imaging).tolist()]
    first = np.array([adc.first for adc in file.adcs])
    heart = _of_raw(measured, [one[0] for one in events], first) if beats == STAMPS else Heartbeats.read(beats)
    excited = file.excitations[coherence.excited(file)]
    phases, frames = heart.phases(excited), heart.frames(excited, n_frames)
    frames[(phases < 0) | (phases >= 1)] = -1
    slices = [np.sort(one, axis=None) for one in found.events]
    sorted_ = [[one[frames[one] == frame] for frame in range(n_frames)] for one in slices]
    counts = np.array([[len(frame) for frame in one] for one in sorted_])
    if not counts.all():
        number, frame = np.argwhere(counts == 0)[0]
        raise InputError(
            f"{heart.source}: no shot was measured in frame {frame} of slice {number}; the frames have {counts.min()} "
            f"to {counts.max()} shots. Measure more averages, or a film of fewer frames."
        )
    most = int(counts.max())
    shots = [np.concatenate([np.resize(frame, most) for frame in one]) for one in sorted_]
    kspace = [np.stack([assignment.joined(measured, events[i]) for i in one], axis=1) for one in shots]
    return replace(
        found,
        kspace=torch.from_numpy(np.stack(kspace)[None]),
        acquisition=replace(found.acquisition, n_shots=n_frames * most),
        n_averages=1,
        events=tuple(one[:, None] for one in shots),
        gating={
            "n_beats": len(heart.lengths),
            "rr": [float(heart.lengths.min()), float(heart.lengths.max())],
            "shots": [int(counts.min()), most],
            "left_out": int((frames < 0).sum()),
        },
    )


def _of_raw(measured: Measurement, events: list[int], first: NDArray[np.float64]) -> Heartbeats:
    """Return the heartbeats that the time stamps of events tell, whose first samples are at the times `first`, s."""
    stamps = None if measured.stamps is None else measured.stamps[events]
    if stamps is None or not stamps.any():
        raise InputError(
            f"{measured.path} holds no time stamps since an R wave (PMUTimeStamp of twix, physiology_time_stamp of "
            "ISMRMRD); give the times of the R waves in a text file."
        )
    return Heartbeats.of_stamps(stamps, first, str(measured.path))
