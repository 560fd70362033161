"""What a Pulseq file plays against what it says of itself: slices, echo time, labels, segments, soft delays.

A scan whose k-space is right can still be wrong: of another slice, at another echo time, turned in some shots. Each
rule tells of how many ADC events (or blocks) that holds. All but those that no interpreter takes are warnings: another
writer may mean something else by a definition. The proof of an export refuses them all.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trajdesign import coherence
from trajdesign.checks import SAME_TIME, Check, in_block
from trajdesign.scanner import Scanner
from trajdesign.seqaxis import values_at
from trajdesign.seqevents import Envelope
from trajdesign.seqplay import SeqFile

#: Labels that change what a scanner does with an ADC event or its gradients; those of one kind of scan have one value.
_FLAGS = ("NOROT", "NOPOS", "NOSCL", "ONCE")

#: Labels by which a sequence counts what it means to play at another time.
_TIMED = ("ECO", "SET", "PHS", "REP")

#: What a slice may be off its place, m, and the factor by which it may be thinner or thicker than it is said to be.
_SAME_PLACE, _SAME_THICKNESS = 1e-4, 1.5

#: Times between which scans make no difference, s, and the part of TE by which what is said may be rounded.
_SAME_START, _ROUNDED_TE = 2e-6, 1e-2

#: Part of the shots that a fault may be in; what is in more is meant.
_FEW = 0.25

#: How near to the centre an echo comes, 1/FOV.
_CENTRAL = 0.75

#: Part of a pulse that a half pulse may have after its centre.
_HALF = 0.02

#: Samples of a pulse for its spectrum, and by how much finer than 1 / duration that is taken.
_N_SAMPLES, _FINER = 1024, 16


def declared(file: SeqFile, scanner: Scanner) -> list[Check]:
    """Hold what a file plays against its definitions and labels.

    Parameters
    ----------
    file
        As `trajdesign.seqfile.read` played it.
    scanner
        Whether it needs a label for each segment.
    """
    return [*_slices(file), *_times(file), *_flags(file), *_segments(file, scanner), *_soft_delays(file), _ppm(file)]


def _counted(
    file: SeqFile,
    name: str,
    off: NDArray[np.bool_],
    what: Callable[[int], str] = lambda _: "",
    *,
    is_advice: bool = True,
) -> Check:
    """Return the check that no ADC event is `off` (adc,); `what` tells of the first that is."""
    found = np.flatnonzero(off)
    where = ""
    if len(found):
        first = int(found[0])
        where = f"{in_block(file, [file.adcs[first].index])(0)}{what(first)} ({len(found)} of {len(off)} ADC events)"
    return Check(name, len(found), 0, "", where, not len(found), is_advice=True)


def _imaging(file: SeqFile) -> NDArray[np.bool_]:
    """Tell which ADC events sample the object for an image (adc,)."""
    none = np.zeros(len(file.adcs))
    return (coherence.excited(file) >= 0) & (file.labels.get("NOISE", none) == 0) & (file.labels.get("NAV", none) == 0)


def _slices(file: SeqFile) -> Iterator[Check]:
    """Place and thickness of what is excited and refocused, and how often each slice is sampled."""
    positions, thickness = np.array(file.numbers("SlicePositions")), file.numbers("SliceThickness")
    judged, labels = _imaging(file), file.labels.get("SLC")
    if "SLC" in file.labels or len(positions):
        counts = np.zeros(len(file.adcs), dtype=int)
        slices = coherence.slices(file)
        _, of, n = np.unique(slices[judged], return_inverse=True, return_counts=True)
        counts[judged] = n[of.reshape(-1)]
        fewer = judged & (counts < counts.max(initial=0))
        yield _counted(
            file, "events of slices sampled less often", fewer, lambda i: f", slice {slices[i]}, {counts[i]} events"
        )
    if not judged.any() or not (len(positions) or len(thickness) == 1):
        return
    bands, acting = _Bands(file), np.stack(coherence.acting(file), axis=1)
    place, width = np.full(len(file.adcs), np.nan), np.full(len(file.adcs), np.nan)
    for i in np.flatnonzero(judged).tolist():
        number = 0 if labels is None else int(labels[i])
        if not len(positions):
            wanted = None
        elif labels is None and len(positions) > 1:
            wanted = positions
        else:
            wanted = positions[number : number + 1] if number >= 0 else positions[:0]
        for pulse in acting[i][acting[i] >= 0].tolist():
            off, thick = bands.of(pulse, wanted)
            place[i], width[i] = np.fmax(place[i], off), thick if np.isnan(width[i]) else width[i]
    if len(positions):
        far = judged & (place > _SAME_PLACE)
        yield _counted(
            file, "slices off SlicePositions", far, lambda i: f", {place[i] * 1e3:.4g} mm from that of its slice"
        )
    if len(thickness) == 1 and thickness[0] > 0 and "PAR" not in file.labels:
        ratio = width / thickness[0]
        wrong = judged & ((ratio > _SAME_THICKNESS) | (ratio < 1 / _SAME_THICKNESS))
        yield _counted(file, "slices off SliceThickness", wrong, lambda i: f", {_millimetres(width[i])}")


def _millimetres(width: float) -> str:
    return "no gradient selects one" if math.isinf(width) else f"{width * 1e3:.4g} mm thick"


class _Bands:
    """Where pulses excite, along their gradient."""

    def __init__(self, file: SeqFile) -> None:
        self.pulses = file.pulses
        starts, ends = (
            np.array([(file.block_edges[i] + pulse.delay, file.block_edges[i] + pulse.end) for i, pulse in file.pulses])
            .reshape(-1, 2)
            .T
        )
        times = starts + np.array([[0.25], [0.5], [0.75]]) * (ends - starts)
        #: While each pulse plays (part, pulse, axis), Hz/m.
        self.g = np.stack([values_at(times.ravel(), t, g, "right") for t, g in file.waveforms], axis=1)
        self.g = self.g.reshape(*times.shape, 3)
        self.known: dict[tuple[int, bool], NDArray[np.floating]] = {}

    def of(self, index: int, wanted: NDArray[np.floating] | None) -> tuple[float, float]:
        """Return how far a pulse's slice is off the nearest of the places `wanted`, and how thick it is, m.

        Parameters
        ----------
        index
            Of the pulse in `SeqFile.pulses`.
        wanted
            Along the gradient (place,), m, or without the sign if that is oblique; None if they are unknown.

        Returns
        -------
        tuple
            Not a number where it is unknown: the gradient changes meanwhile, the frequency is in ppm of an unknown
            field, or a pulse that refocuses all. Without a gradient an excitation is infinitely thick, and everywhere.
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


def _times(file: SeqFile) -> Iterator[Check]:
    """Echo times: of all shots, and of the definition ``TE``."""
    judged = np.flatnonzero(_imaging(file))
    if not len(judged):
        return
    of = coherence.excited(file)
    excitations = file.excitations
    starts = np.full(len(file.adcs), np.nan)
    starts[judged] = [file.adcs[i].times[0] - excitations[of[i]] for i in judged.tolist()]
    first = np.flatnonzero(np.diff(of, prepend=-2))
    order = np.arange(len(of)) - first[np.searchsorted(first, np.arange(len(of)), side="right") - 1]
    kinds = [order, [adc.count for adc in file.adcs], [round(adc.dwell * 1e9) for adc in file.adcs]]
    kinds += [file.labels[name] for name in _TIMED if name in file.labels]
    _, groups = np.unique(np.array(kinds)[:, judged], axis=1, return_inverse=True)
    members = [judged[groups.reshape(-1) == group] for group in range(groups.max() + 1)]
    off = np.zeros(len(starts), dtype=bool)
    usual = np.full(len(starts), np.nan)
    for events in members:
        usual[events] = _most(np.round(starts[events] / _SAME_START)) * _SAME_START
        late = np.abs(starts[events] - usual[events]) > 2 * _SAME_START
        off[events] = late & (late.mean() <= _FEW)
    yield _counted(
        file, "ADC events at another time", off,
        lambda i: f", {starts[i] * 1e3:.6g} ms after the excitation instead of {usual[i] * 1e3:.6g} ms",
    )  # fmt: skip
    if told := file.numbers("TE"):
        yield _echo_time(file, told, starts, members)


def _echo_time(
    file: SeqFile, told: tuple[float, ...], starts: NDArray[np.floating], groups: list[NDArray[np.integer]]
) -> Check:
    """Return the check that each echo time that is told is that of events that sample the centre."""
    fov = file.numbers("FOV")
    scale = np.array(fov) if len(fov) == 3 and min(fov) > 0 else np.ones(3)
    echoes, nearest, farthest = list[NDArray[np.floating]](), list[float](), list[float]()
    for events in groups:
        square = np.stack([np.square(file.k[i] * scale)[:, :2].sum(axis=1) for i in events.tolist()])
        nearest.append(math.sqrt(float(square.min())))
        farthest.append(math.sqrt(float(square.max())))
        centre = int(square.mean(axis=0).argmin())
        echoes.append(starts[events] + centre * file.adcs[int(events[0])].dwell)
    off, found = np.zeros(len(starts), dtype=bool), np.full(len(starts), np.nan)
    central = [n for n, near in enumerate(nearest) if near <= max(_CENTRAL, 2 * min(nearest)) and farthest[n] >= 1]
    for te in told if central else ():
        best = min(central, key=lambda n: abs(float(np.median(echoes[n])) - te))
        events = groups[best]
        slack = max(_ROUNDED_TE * te, file.adcs[int(events[0])].dwell + file.rasters["BlockDurationRaster"])
        off[events] |= np.abs(echoes[best] - te) > slack + SAME_TIME
        found[events] = echoes[best]
    return _counted(
        file, "echo times off TE", off,
        lambda i: f", {found[i] * 1e3:.5g} ms where TE is {' '.join(f'{te * 1e3:.5g}' for te in told[:8])} ms",
    )  # fmt: skip


def _most(values: NDArray[np.floating]) -> float:
    """Return the value that occurs most often."""
    found, counts = np.unique(values, return_counts=True)
    return float(found[counts.argmax()])


def _flags(file: SeqFile) -> Iterator[Check]:
    """Labels that turn, shift, scale or leave out what is played, or reverse what is sampled, in some shots alone."""
    judged, pulses = _imaging(file), coherence.excited(file)
    blocks = np.array([adc.index for adc in file.adcs], dtype=int)
    acting = [i for i, pulse in file.pulses if pulse.use in "eu"]
    for name in _FLAGS:
        if name not in file.label_sets or not judged.any():
            continue
        at, values = np.concatenate([[[-1, 0]], file.label_sets[name]]).T
        of_blocks = [blocks, np.array(acting, dtype=int)[pulses] if acting else blocks]
        played = np.stack([values[np.searchsorted(at, found, side="right") - 1] for found in of_blocks])
        usual = _most(played[:, judged].ravel().astype(float))
        yield _counted(file, f"events whose {name} differs", judged & (played != usual).any(axis=0))
    if "REV" in file.labels:
        yield _counted(file, "events whose REV contradicts k", judged & _reversed(file, judged))


def _reversed(file: SeqFile, judged: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which ADC events' label ``REV`` is not that of most in their direction of k (adc,).

    Where no direction is played both ways, most of all events have the right one.
    """
    off, events, labels = np.zeros(len(judged), dtype=bool), np.flatnonzero(judged), file.labels["REV"]
    if not len(events):
        return off
    way = np.array([file.k[i][-1] - file.k[i][0] for i in events.tolist()])
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
    _, groups = np.unique(np.round(way, 2) + 0.0, axis=0, return_inverse=True)
    both = (way @ way.T < -0.999).any() if len(way) <= _N_SAMPLES else True
    for group in np.unique(groups) if both else [None]:
        inside = events if group is None else events[groups.reshape(-1) == group]
        off[inside] = labels[inside] != _most(labels[inside].astype(float))
    return off if both or off.sum() <= _FEW * len(events) else np.zeros_like(off)


def _segments(file: SeqFile, scanner: Scanner) -> Iterator[Check]:
    """Labels of segments, where the scanner needs them: each has one, and those of one label are alike."""
    if not scanner.label_segments:
        return
    sets = file.label_sets.get("TRID", np.zeros((0, 2), dtype=int))
    busy = sorted({i for i, _ in file.pulses} | {adc.index for adc in file.adcs})
    starts = np.unique(sets[:, 0])
    before = [i for i in busy if not len(starts) or i < starts[0]]
    where = in_block(file, before)(0) if before else ""
    yield Check("blocks before the first TRID", len(before), 0, "", where, not before)
    cells = np.round(np.diff(file.block_edges) / file.rasters["BlockDurationRaster"]).astype(int)
    events = np.zeros((2, len(cells)), dtype=int)  # how long a block lasts that plays or samples: others may wait
    for row, blocks in zip(events, ([i for i, _ in file.pulses], [adc.index for adc in file.adcs]), strict=True):
        row[blocks] = cells[blocks]
    first, different = dict[int, bytes](), list[int]()
    names = {int(i): int(value) for i, value in sets}
    for start, end in pairwise([*starts.tolist(), len(cells)]):
        played = events[:, start:end].tobytes()
        if first.setdefault(names[start], played) != played:
            different.append(start)
    where = in_block(file, different)(0) if different else ""
    yield Check("segments unlike others of their TRID", len(different), 0, "", where, not different)


def _soft_delays(file: SeqFile) -> Iterator[Check]:
    """Delays that the user sets: of empty blocks, one name for one number, and stored as one wish makes them."""
    if not file.soft_delays:
        return
    durations, raster = np.diff(file.block_edges), file.rasters["BlockDurationRaster"]
    hints, numbers, wishes = dict[int, str](), dict[str, int](), dict[int, float]()
    busy, named, unlike = list[int](), list[int](), list[int]()
    for delay in file.soft_delays:
        same = hints.setdefault(delay.number, delay.hint) == delay.hint
        same &= numbers.setdefault(delay.hint, delay.number) == delay.number
        wish = delay.wish(float(durations[delay.index]))
        slack = raster * max(1.0, abs(delay.factor)) + SAME_TIME
        for found, is_off in (
            (busy, not delay.is_empty),
            (named, not same),
            (unlike, abs(wishes.setdefault(delay.number, wish) - wish) > slack),
        ):
            if is_off:
                found.append(delay.index)
    for name, found, is_advice in (
        ("soft delays of blocks that play", busy, False),
        ("soft delays of two names or numbers", named, False),
        ("soft delays stored for two wishes", unlike, True),
    ):
        where = in_block(file, found)(0) if found else ""
        yield Check(name, len(found), 0, "", where, not found, is_advice=is_advice)


def _ppm(file: SeqFile) -> Check:
    """Say what could not be judged: phases and frequencies in ppm of a field that is not known."""
    pulses = [i for i, p in file.pulses if p.use in "eur" and not math.isfinite(p.phase + p.frequency)]
    unknown = [*pulses, *(adc.index for adc in file.adcs if not math.isfinite(adc.phase + adc.frequency))]
    where = ""
    if unknown:
        where = f"{in_block(file, unknown)(0)}: phases and slices are not checked without the definitions B0 and Gamma"
    return Check("offsets in ppm of an unknown field", len(unknown), 0, "", where, not unknown, is_advice=True)
