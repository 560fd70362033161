"""Repetition after repetition: their order, dummies and heartbeats among them, and their phases."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.pulseq.writer.parts import TRIGGER
from trajdesign.units import plausible

#: Increment of the phase in RF spoiling, degrees (Zur et al., MRM 1991, doi:10.1002/mrm.1910210210).
RF_SPOILING_DEG = 117.0


@dataclass(frozen=True)
class Repetition:
    """What one excitation is for: a shot of the trajectory, or a dummy that plays its gradients alone."""

    shot: int
    average: int = 0
    is_dummy: bool = False
    #: Whether nothing was played just before it, and whether that is as long as a heartbeat is waited for.
    is_first: bool = False
    is_triggered: bool = False


def repetitions(
    acquisition: Acquisition, tr: float, n_dummies: int, n_averages: int, n_beats: int, rr: float | None
) -> Iterator[Repetition]:
    """Yield the repetitions in order, each of which lasts `tr`, s: dummies, then all shots of each average.

    Of a film with `n_beats` each heartbeat plays a part of the shots of every frame. With `rr`, the shortest time
    between two, s, each is waited for, and has dummies of its own.

    Raises
    ------
    ConfigError
        If there are no frames for heartbeats, their shots cannot be shared by them, or one plays longer than `rr`:
        the scanner would miss the next one, and say nothing.
    """
    beats, is_triggered = _beats(acquisition, n_beats, rr), rr is not None
    lasts = TRIGGER + (1 + n_dummies + len(beats[0])) * tr  # one TR, or less, for the start of a steady state
    if rr is not None and lasts > plausible("rr", rr):
        raise ConfigError(
            f"what is played in a heartbeat lasts {lasts:.4g} s, rr is {rr:g} s: take more beats (n_beats), a shorter "
            "tr, fewer dummies or fewer frames."
        )
    for number in range(n_averages * len(beats)):
        average, beat = divmod(number, len(beats))
        is_run, shots = is_triggered or not number, beats[beat]
        dummies = [shots[n % len(shots)] for n in range(-n_dummies, 0)] if is_run else []
        for i, shot in enumerate([*dummies, *shots]):
            is_first = is_run and not i
            yield Repetition(shot, average, i < len(dummies), is_first, is_first and is_triggered)


def _beats(acquisition: Acquisition, n_beats: int, rr: float | None) -> list[list[int]]:
    """Return the shots of each heartbeat, in order; of a sequence that counts none, one has all."""
    n_shots, n_of_frame = acquisition.n_shots, acquisition.shots_a_frame
    if not n_beats and rr is None:
        return [list(range(n_shots))]
    if acquisition.n_frames == 1:
        raise ConfigError("heartbeats (n_beats, rr) are for films; this trajectory has one frame.")
    if n_beats < 1 or n_of_frame % n_beats:
        raise ConfigError(
            f"n_beats is {n_beats}; each frame has {n_of_frame} shots, which so many heartbeats cannot share evenly."
        )
    n_each = n_of_frame // n_beats
    frames = range(0, n_shots, n_of_frame)
    return [[frame + beat * n_each + i for frame in frames for i in range(n_each)] for beat in range(n_beats)]


def spoiling() -> Iterator[float]:
    """Yield the phase that RF spoiling gives each pulse, rad, without end."""
    phase_deg = 0.0
    for count in itertools.count():
        phase_deg = (phase_deg + count * RF_SPOILING_DEG) % 360
        yield math.radians(phase_deg)


def spoiled(n_dummies: int, n_repetitions: int) -> Iterator[tuple[int, float]]:
    """Yield the number of each repetition, below 0 for dummies, and the phase that RF spoiling gives it, rad."""
    return zip(range(-n_dummies, n_repetitions), spoiling(), strict=False)  # the phases have no end
