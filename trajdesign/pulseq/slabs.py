"""The slices that a Pulseq file excites, refocuses and samples, against those that it says."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trajdesign.pulseq import coherence
from trajdesign.pulseq.checks import counted
from trajdesign.pulseq.reader.events import Envelope
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.scanner import Finding

#: What a slice may be off its place, m, and the factor by which it may be thinner or thicker than it is said to be.
_SAME_PLACE, _SAME_THICKNESS = 1e-4, 1.5

#: Phase across the slice that may be left while it is sampled, turns; it costs 1.6 % of the signal.
_MOST_TURNS = 0.1

#: Part of the ADC events of slices that have no label beyond which an uneven number of them is meant.
_FEW = 0.25

#: Part of a pulse that a half pulse may have after its centre.
_HALF = 0.02

#: Samples of a pulse for its spectrum, and by how much finer than 1 / duration that is taken.
_N_SAMPLES, _FINER = 1024, 16


def slices(file: SeqFile) -> Iterator[Finding]:
    """Yield whether slices are sampled equally often, and are where and as thick as the definitions say."""
    judged = coherence.imaging(file)
    numbers = coherence.slices(file)
    counts = np.zeros(len(judged), dtype=int)
    for events in coherence.groups_of(numbers, judged):
        counts[events] = len(events)
    fewer = judged & (counts < counts.max(initial=0))
    if "SLC" not in file.labels and fewer.sum() > _FEW * judged.sum():
        fewer[:] = False
    yield counted(
        file, "events of slices sampled less often", fewer, lambda i: f", slice {numbers[i]}, {counts[i]} events"
    )
    positions, thickness = np.array(file.numbers("SlicePositions")), file.numbers("SliceThickness")
    if not judged.any() or not (len(positions) or len(thickness) == 1):
        return
    place, width, turns = _measured(file, np.flatnonzero(judged).tolist(), positions)
    if len(positions):
        far = place > _SAME_PLACE
        yield counted(
            file, "slices off SlicePositions", far, lambda i: f", {place[i] * 1e3:.4g} mm from that of its slice"
        )
    if len(thickness) == 1 and thickness[0] > 0 and "PAR" not in file.labels:
        ratio = width / thickness[0]
        wrong = (ratio > _SAME_THICKNESS) | (ratio < 1 / _SAME_THICKNESS)
        yield counted(file, "slices off SliceThickness", wrong, lambda i: f", {_millimetres(width[i])}")
        left = turns * thickness[0] > _MOST_TURNS
        yield counted(
            file, "slices not rephased", left, lambda i: f", {turns[i] * thickness[0]:.3g} turns of phase across it"
        )


def _measured(
    file: SeqFile, events: list[int], positions: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return the distance from the place, the thickness, m, and the least k across the slice, 1/m, of `events` (adc,).

    Not a number for others, and where something is unknown.
    """
    bands, acting = _Bands(file), np.stack(coherence.acting(file), axis=1)
    labels = file.labels.get("SLC")
    place, width, turns = np.full((3, len(file.adcs)), np.nan)
    for i in events:
        wanted: NDArray[np.floating] | None = positions
        if not len(positions):
            wanted = None
        elif labels is not None:
            wanted = positions[labels[i] : labels[i] + 1] if labels[i] >= 0 else positions[:0]
        for pulse in acting[i][acting[i] >= 0].tolist():
            off, thick = bands.of(pulse, wanted)
            place[i], width[i] = np.fmax(place[i], off), thick if np.isnan(width[i]) else width[i]
        if math.isfinite(width[i]):
            g = bands.g[1, acting[i, 0]]
            turns[i] = np.abs(file.k[i] @ g).min() / np.linalg.norm(g)
    return place, width, turns


def _millimetres(width: float) -> str:
    return "no gradient selects one" if math.isinf(width) else f"{width * 1e3:.4g} mm thick"


class _Bands:
    """Where pulses excite, along their gradient."""

    def __init__(self, file: SeqFile) -> None:
        self.pulses = file.pulses
        starts, ends = file.pulse_spans
        #: The gradient early, in the middle and late in each pulse (part, pulse, axis), Hz/m.
        self.g = file.gradient_at(starts + np.array([[0.25], [0.5], [0.75]]) * (ends - starts))
        self.known: dict[tuple[int, bool], NDArray[np.floating]] = {}

    def of(self, index: int, wanted: NDArray[np.floating] | None) -> tuple[float, float]:
        """Return how far a pulse's slice is off the nearest of the places `wanted`, and how thick it is, m.

        Places are along the gradient (place,), m, or without the sign if that is oblique; None if they are unknown.
        What is unknown is not a number: the gradient changes meanwhile, the frequency is in ppm of an unknown field, or
        a pulse without a gradient refocuses all. Without a gradient an excitation is infinitely thick, and everywhere.
        """
        pulse, g = self.pulses[index][1], self.g[:, index]
        size = float(np.linalg.norm(g[1]))
        if size == 0 and not g.any():
            return math.nan, math.inf if pulse.use in "eu" else math.nan
        if np.abs(g - g[1]).max() > 1e-2 * size:
            return math.nan, math.nan
        is_half = pulse.end - pulse.centre < _HALF * (pulse.end - pulse.delay)
        key = id(pulse.envelope), is_half
        if key not in self.known:
            self.known[key] = _passed(pulse.envelope, is_half=is_half)
        edges = self.known[key]
        width = float((edges[:, 1] - edges[:, 0]).max(initial=0.0)) / size if pulse.use in "eu" else math.nan
        if wanted is None or not math.isfinite(pulse.frequency):
            return math.nan, width
        axis = int(np.abs(g[1]).argmax())
        is_oblique = abs(g[1, axis]) < (1 - 1e-6) * size
        places = (pulse.frequency + edges.mean(axis=1)) / (size if is_oblique else g[1, axis])
        if is_oblique:
            places, wanted = np.abs(places), np.abs(wanted)
        return float(np.abs(places[:, None] - wanted).min(initial=math.inf)), width


def _passed(envelope: Envelope, *, is_half: bool) -> NDArray[np.floating]:
    """Return the bands in which the spectrum of a pulse is over half its largest (band, 2), Hz: its slices.

    Of a half pulse that is the real part about its end, which the sum of two with opposite gradients leaves.
    """
    times = (np.arange(_N_SAMPLES) + 0.5) * envelope.duration / _N_SAMPLES
    samples = np.interp(times, envelope.times, envelope.samples)
    frequencies = np.fft.fftshift(np.fft.fftfreq(_FINER * _N_SAMPLES, envelope.duration / _N_SAMPLES))
    spectrum = np.fft.fftshift(np.fft.fft(samples, _FINER * _N_SAMPLES))
    if is_half:
        turned = spectrum * np.exp(2j * math.pi * frequencies * (envelope.duration - times[0]))
        spectrum = (turned * np.exp(-1j * np.angle(samples.sum()))).real
    size = np.abs(spectrum)
    excess = np.concatenate([[-1.0], size / max(float(size.max()), 1e-30) - 0.5, [-1.0]])
    before = np.flatnonzero(np.diff(excess >= 0))  # of each pair, a rise and a fall
    cross = before + excess[before] / (excess[before] - excess[before + 1]) - 1
    edges = np.interp(cross, np.arange(len(size)), frequencies).reshape(-1, 2)
    is_centred = np.abs(edges.mean(axis=1)) < frequencies[1] - frequencies[0]
    edges[is_centred] -= edges[is_centred].mean(axis=1, keepdims=True)
    return edges
