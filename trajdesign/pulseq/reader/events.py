"""The events of a Pulseq file: gradients as vertices, pulses as samples, and when the ADC samples.

Specification: https://pulseq.github.io/specification.pdf.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trajdesign.errors import InputError
from trajdesign.pulseq.reader.parser import MOST_POINTS, Parsed, number

#: In place of a shape of times: two samples a raster, on its centres and edges.
_OVERSAMPLED = -1

#: Times closer than this are one time; every raster is far longer, and rounding far shorter, s.
SAME_TIME = 1e-10

#: Part of the larger event's peak that two values may differ by and be one: a file keeps six digits of each.
SAME_VALUE = 2e-5

#: A pulse of a 1.4 file, which stores no use, excites up to this flip angle; pypulseq has the same rule.
_EXCITATION_DEG = 90.01

#: A longer pulse of a 1.4 file, s, whose frequency is that of fat, ppm, at a usual field, MHz, saturates.
_SATURATION, _FAT, _FIELDS = 6e-3, (-3.5, -3.4), (63.87, 127.73, 298.04)

USES = "erispou"


@dataclass(frozen=True)
class Gradient:
    """A gradient event."""

    #: Vertices in its block (vertex,), s and Hz/m; straight lines join them.
    times: np.ndarray
    values: np.ndarray
    #: Those of `times` that belong on the gradient raster (corner,), s; start and end are first and last.
    corners: np.ndarray
    #: Whether samples on the file's own raster lie between the corners.
    is_sampled: bool = False
    #: Whether the file stores the last value. A 1.4 file does not store that of samples: this reader, as others,
    #: continues the last two.
    is_end_stored: bool = True
    #: Largest absolute value of the events that were turned into this one, Hz/m; 0 if it is not turned.
    named_peak: float = 0.0

    @cached_property
    def peak(self) -> float:
        """Largest absolute value, Hz/m, of this or of what was turned into it: what rounding goes by."""
        return max(self.named_peak, float(np.abs(self.values).max()))


@dataclass(frozen=True)
class Envelope:
    """The shape of pulses, which many of them may share."""

    #: Times of the samples, from the start of the first (sample,), s.
    times: np.ndarray
    #: (sample,), complex.
    samples: np.ndarray
    #: To the end of the last sample, s.
    duration: float
    #: Whether each sample lasts one raster; otherwise straight lines join them.
    is_sampled: bool

    @cached_property
    def peak(self) -> float:
        """Largest magnitude."""
        return float(np.abs(self.samples).max())

    @cached_property
    def energy(self) -> float:
        """Integral of the squared magnitude, s."""
        power = np.abs(self.samples) ** 2
        if self.is_sampled:
            return float(power.mean()) * self.duration
        mixed = (self.samples[:-1] * self.samples[1:].conj()).real
        return float(np.diff(self.times) @ (power[:-1] + mixed + power[1:])) / 3

    @cached_property
    def area(self) -> float:
        """Magnitude of the sum of all samples times their distances, s."""
        return float(abs(np.sum(self.samples[:-1] * np.diff(self.times))))

    @cached_property
    def centre(self) -> float:
        """The middle between the first and the last sample of the peak, s."""
        magnitude = np.abs(self.samples)
        top = np.flatnonzero(magnitude >= 0.99999 * magnitude.max())
        return float(self.times[top[0]] + self.times[top[-1]]) / 2


@dataclass(frozen=True)
class Pulse:
    """An RF event."""

    #: Letter of excitation, refocusing, inversion, saturation, preparation, other, undefined. A 1.4 file stores none;
    #: there, a pulse over 90.01 degrees refocuses, or saturates if it is long and at the frequency of fat.
    use: str
    #: Times in its block of the first sample's start, the centre, and the last sample's end, s.
    delay: float
    centre: float
    end: float
    #: The amplitude is `scale` times the samples of `envelope`, Hz.
    scale: float
    envelope: Envelope
    #: Offsets, rad and Hz: at time t after `delay` the phase is ``phase + 2 pi frequency t`` more than the amplitude's.
    #: Not a number where a file gives them in ppm of an unknown field.
    phase: float
    frequency: float
    #: Largest weight of any transmit channel; None if all channels play the pulse as it is.
    shim: float | None = None

    @property
    def times(self) -> np.ndarray:
        """Times of the samples after `delay` (sample,), s."""
        return self.envelope.times

    @property
    def amplitude(self) -> np.ndarray:
        """Amplitude of the samples (sample,), complex, Hz, before weights of channels."""
        return self.scale * self.envelope.samples

    @property
    def peak(self) -> float:
        """Largest magnitude, Hz; of the channel that plays most."""
        return abs(self._weight) * self.envelope.peak

    @property
    def energy(self) -> float:
        """Integral of the squared magnitude, Hz^2 s; of the channel that plays most."""
        return self._weight**2 * self.envelope.energy

    @property
    def _weight(self) -> float:
        return self.scale * (1.0 if self.shim is None else self.shim)


@dataclass(frozen=True)
class Receiver:
    """An ADC event, as the file defines it."""

    #: Number of samples.
    count: int
    #: Time per sample, s.
    dwell: float
    #: From the block's start to the first sample's start, s.
    delay: float
    #: At time t after `delay` the receiver's phase is ``phase + 2 pi frequency t``, rad, and `modulation` (sample,)
    #: more. Not a number where a file gives them in ppm of an unknown field.
    phase: float
    frequency: float
    modulation: np.ndarray | None

    @property
    def end(self) -> float:
        """End of the last sample, after the block's start, s."""
        return self.delay + self.count * self.dwell

    @property
    def times(self) -> np.ndarray:
        """Times of the samples, after the block's start (sample,), s."""
        return self.delay + (np.arange(self.count) + 0.5) * self.dwell


def decode_gradient(parsed: Parsed, event: int, before: float) -> Gradient | None:
    """Return a gradient event, or None if it plays nothing; a 1.4 file continues from the gradient `before`, Hz/m."""
    traps = parsed.tables["TRAP"]
    found = _trapezoid(traps[event].split()) if event in traps else _arbitrary(parsed, event, before)
    if len(found.times) < 2:
        if found.values.any():
            raise InputError(f"gradient {event} has an amplitude and no duration.")
        return None
    if not (found.times[0] >= 0 and np.all(np.diff(found.times) > SAME_TIME)):
        raise InputError(f"gradient {event} starts before its block or runs backwards.")
    return found


def _trapezoid(row: list[str]) -> Gradient:
    amplitude = number(row[0])
    rise, flat, fall, delay = (number(entry) * 1e-6 for entry in row[1:])
    times = delay + np.cumsum([0.0, rise, flat, fall])
    values = amplitude * np.array([0.0, 1.0, 1.0, 0.0])
    # without a ramp, the event starts or ends at its amplitude
    keep = np.array([rise != 0, True, flat != 0, fall != 0])
    return Gradient(times[keep], values[keep], times[keep])


def _arbitrary(parsed: Parsed, event: int, before: float) -> Gradient:
    row = parsed.tables["GRADIENTS"][event].split()
    raster = parsed.raster("GradientRasterTime")
    amplitude, delay = number(row[0]), number(row[-1]) * 1e-6
    values = amplitude * parsed.shape(int(row[-3]), f"gradient {event}")
    time_id, n = int(row[-2]), len(values)
    if time_id > 0:  # vertices anywhere on the raster's edges; the first and last are the event's edges
        times = delay + parsed.shape(time_id, f"gradient {event}") * raster
        if len(times) != n or n < 2:
            raise InputError(f"gradient {event} has {n} values at {len(times)} times.")
        for name, stored, value in (
            () if parsed.is_old else (("first", row[1], values[0]), ("last", row[2], values[-1]))
        ):
            if not abs(number(stored) - value) <= SAME_VALUE * max(abs(number(stored)), np.abs(values).max()):
                both = f"{stored} Hz/m as its {name} value, and {value:.6g} Hz/m in its shape"
                raise InputError(f"gradient {event} stores {both}; readers play either.")
        return Gradient(times, values, times)
    if parsed.is_old:
        if time_id < 0 or n < 2:
            raise InputError(f"gradient {event} is oversampled or has one sample, which version 1.4 does not know.")
        first, last = (before if delay == 0 else 0.0), 1.5 * values[-1] - 0.5 * values[-2]
    else:
        first, last = number(row[1]), number(row[2])
    if time_id == _OVERSAMPLED:
        if n % 2 == 0:
            raise InputError(f"gradient {event} is oversampled by 2 and has {n} samples; their number must be odd.")
        inside = np.arange(n + 2) / 2  # on each edge and centre of the raster between the event's edges
    elif time_id == 0:
        inside = np.concatenate([[0.0], np.arange(n) + 0.5, [n]])
    else:
        raise InputError(f"gradient {event} has the shape {time_id} of times; 0 and -1 are known beside shapes.")
    times = delay + inside * raster
    values = np.concatenate([[first], values, [last]])
    return Gradient(times, values, times[[0, -1]], is_sampled=True, is_end_stored=not parsed.is_old)


def decode_adc(parsed: Parsed, event: int) -> Receiver:
    """Return an ADC event."""
    row = parsed.tables["ADC"][event].split()
    count, dwell, delay = int(row[0]), number(row[1]) * 1e-9, number(row[2]) * 1e-6
    if not (0 < count <= MOST_POINTS and dwell > 0 and delay >= 0):
        raise InputError(f"ADC {event} has {count} samples of {dwell:g} s after {delay:g} s.")
    phase, frequency = decode_offsets(parsed, row[3:5] if parsed.is_old else row[3:7])
    shape = 0 if parsed.is_old else int(row[7])
    modulation = parsed.shape(shape, f"ADC {event}") if shape else None
    if modulation is not None and len(modulation) != count:
        raise InputError(f"ADC {event} has {count} samples and {len(modulation)} phases.")
    return Receiver(count, dwell, delay, phase, frequency, modulation)


def decode_offsets(parsed: Parsed, row: list[str]) -> tuple[float, float]:
    """Return the phase (rad) and frequency (Hz) of an event from its columns; ppm are of `Parsed.larmor`."""
    *ppm, frequency, phase = (number(word) for word in row)
    if any(ppm):
        return phase + ppm[1] * 1e-6 * parsed.larmor, frequency + ppm[0] * 1e-6 * parsed.larmor
    return phase, frequency


def decode_pulse(parsed: Parsed, event: int, envelopes: dict[tuple[int, ...], Envelope]) -> Pulse:
    """Return an RF event; `envelopes` are those that the file's events share, and gain one that is new."""
    row = parsed.tables["RF"][event].split()
    key = (int(row[1]), int(row[2]), int(row[3]))
    if key not in envelopes:
        envelopes[key] = _envelope(parsed, event, *key)
    envelope = envelopes[key]
    scale, delay = number(row[0]), number(row[4 if parsed.is_old else 5]) * 1e-6
    duration = envelope.duration
    phase, frequency = decode_offsets(parsed, row[-2:] if parsed.is_old else row[-5:-1])
    if parsed.is_old:
        use, centre = _use(abs(scale) * envelope.area, duration, number(row[-2])), envelope.centre
    else:
        use, centre = row[-1], number(row[4]) * 1e-6
        if use not in USES or len(use) != 1:
            raise InputError(f"RF pulse {event} has the use {use!r}; known are {', '.join(USES)}.")
    if delay < 0 or not 0 <= centre <= duration:
        raise InputError(f"RF pulse {event} has its centre at {centre:g} s of {duration:g} s, after {delay:g} s.")
    return Pulse(use, delay, delay + centre, delay + duration, scale, envelope, phase, frequency)


def _envelope(parsed: Parsed, event: int, magnitude_id: int, phase_id: int, time_id: int) -> Envelope:
    raster = parsed.raster("RadiofrequencyRasterTime")
    name = f"RF pulse {event}"  # of which both shapes are there: to every other reader 0 is a missing one, not none
    magnitude, phase = parsed.shape(magnitude_id, name), parsed.shape(phase_id, f"the phase of {name}")
    times = (parsed.shape(time_id, name) if time_id else np.arange(len(magnitude)) + 0.5) * raster
    if len(phase) != len(magnitude):
        raise InputError(f"{name} has {len(magnitude)} magnitudes and {len(phase)} phases.")
    if len(times) != len(magnitude) or times[0] < 0 or np.any(np.diff(times) < 0):
        raise InputError(f"{name} has {len(magnitude)} samples at {len(times)} times, or runs backwards.")
    duration = float(times[-1]) if time_id else len(magnitude) * raster
    return Envelope(times, magnitude * np.exp(2j * np.pi * phase), duration, not time_id)


def _use(turns: float, duration: float, offset: float) -> str:
    """Return the use of a pulse from its flip angle (turns), duration (s) and frequency offset (Hz)."""
    if 360 * turns <= _EXCITATION_DEG:
        return "e"
    is_fat = any(_FAT[0] <= offset / megahertz <= _FAT[1] for megahertz in _FIELDS)
    return "s" if duration > _SATURATION and is_fat else "r"
