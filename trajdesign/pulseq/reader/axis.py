"""The waveform of one gradient axis: how events join, where they do not, and its exact values and moments."""

from array import array
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from trajdesign.errors import InputError
from trajdesign.pulseq.reader.events import SAME_TIME, SAME_VALUE, Gradient


@dataclass(frozen=True)
class Jump:
    """A place where a gradient changes at once: between two events, or between an event and none."""

    #: Number of the block in which, or at whose start, it is.
    block: int
    #: 0, 1, 2 for x, y, z.
    axis: int
    #: After the start of the file, s.
    time: float
    #: The gradient on both sides, Hz/m.
    before: float
    after: float
    #: Whether the file says so, see `Gradient.is_end_stored`.
    is_stored: bool

    @property
    def size(self) -> float:
        """Size of the jump, Hz/m."""
        return abs(self.after - self.before)


@dataclass
class Axis:
    """The waveform of one axis as it grows, event by event: vertices of which none are closer than `SAME_TIME`."""

    axis: int
    times: "array[float]" = field(default_factory=lambda: array("d", [0.0]))
    values: "array[float]" = field(default_factory=lambda: array("d", [0.0]))
    jumps: list[Jump] = field(default_factory=list)
    # of the last vertex: when, how much, in which block, of an event of which peak, and whether it is stored
    time: float = 0.0
    value: float = 0.0
    block: int = 0
    peak: float = 0.0
    is_stored: bool = True

    def value_at(self, time: float) -> float:
        """Return the value with which the event before ends at `time`."""
        return self.value if time - self.time <= SAME_TIME else 0.0

    def add(self, block: int, clock: float, event: Gradient) -> None:
        """Play an event in the block that starts at `clock`; what it joins without a jump shares a vertex."""
        times = clock + event.times
        if times[0] - self.time > SAME_TIME:
            self._fall()
            self._append(times[:1], np.zeros(1))
        elif times[1] - self.time <= SAME_TIME:
            raise InputError(f"two gradients of block {block} or before it overlap on {'xyz'[self.axis]}.")
        self._step(float(event.values[0]), block, event.peak)
        self._append(times[1:], event.values[1:])
        self.block, self.peak, self.is_stored = block, event.peak, event.is_end_stored

    def waveform(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the times and values of the vertices up to the file's end; none if nothing was played."""
        self._fall()
        if len(self.times) == 1:
            return np.empty(0), np.empty(0)
        return np.frombuffer(self.times), np.frombuffer(self.values)

    def _fall(self) -> None:
        """Go to 0 at once, as no event follows."""
        self._step(0.0, self.block, self.peak)
        if self.value != 0:  # what rounding left must not last until the next event
            self._append(np.array([self.time]), np.zeros(1))

    def _step(self, value: float, block: int, peak: float) -> None:
        """Jump to `value`, unless only rounding separates it from the last."""
        if abs(value - self.value) > SAME_VALUE * max(peak, self.peak):
            self.jumps.append(Jump(block, self.axis, self.time, self.value, value, self.is_stored))
            self._append(np.array([self.time]), np.array([value]))
        self.is_stored = True

    def _append(self, times: np.ndarray, values: np.ndarray) -> None:
        self.times.frombytes(times.tobytes())
        self.values.frombytes(values.tobytes())
        self.time, self.value = float(times[-1]), float(values[-1])


def values_at(when: np.ndarray, t: np.ndarray, g: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """Return a waveform at times, from the left or right where it jumps; 0 outside it."""
    if len(t) < 2:
        return np.zeros_like(when)
    i, is_outside = _lines_at(when, t, side)
    values: np.ndarray = g[i] + _slopes(t, g, i) * (when - t[i])
    values[is_outside] = 0
    return values


def slopes_at(when: np.ndarray, t: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return the slope of a waveform right after times; 0 outside it."""
    if len(t) < 2:
        return np.zeros_like(when)
    i, is_outside = _lines_at(when, t, "right")
    slopes = _slopes(t, g, i)
    slopes[is_outside] = 0
    return slopes


def areas_of(t: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return the integral of a waveform from its start to each vertex."""
    return np.append(0.0, np.cumsum(np.diff(t) * (g[1:] + g[:-1]) / 2))


def moment_at(when: np.ndarray, t: np.ndarray, g: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Return the exact integral of a waveform, whose `areas_of` are known, from its start to each time."""
    if len(t) < 2:
        return np.zeros_like(when)
    inside = np.clip(when, t[0], t[-1])
    i = np.clip(np.searchsorted(t, inside, side="right") - 1, 0, len(t) - 2)
    u = inside - t[i]
    moments: np.ndarray = areas[i] + u * (g[i] + _slopes(t, g, i) * u / 2)
    return moments


def _lines_at(when: np.ndarray, t: np.ndarray, side: Literal["left", "right"]) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the straight lines between vertices holds each time, and whether none does."""
    i = np.searchsorted(t, when, side=side) - 1
    is_outside = (i < 0) | (i >= len(t) - 1)
    i[is_outside] = 0
    return i, is_outside


def _slopes(t: np.ndarray, g: np.ndarray, i: np.ndarray) -> np.ndarray:
    """Return the slope of some lines; 0 of a jump, which lasts no time."""
    lengths = t[i + 1] - t[i]
    return np.divide(g[i + 1] - g[i], lengths, out=np.zeros_like(lengths), where=lengths > 0)
