"""What a Pulseq file plays against what it says of itself: slices, echo time, labels, segments, soft delays.

A scan whose k-space is right can still be wrong: of another slice, at another echo time, turned in some shots. Each
rule tells of how many ADC events (or blocks) that holds. All but those that no interpreter takes are warnings: another
writer may mean something else by a definition. The proof of an export refuses them all.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trajdesign.encoding.echo import PASSING, EchoTimes
from trajdesign.pulseq import coherence
from trajdesign.pulseq.checks import SAME_TIME, count_of, counted, in_block
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.pulseq.slabs import slices
from trajdesign.scanner import Finding, Scanner

#: Labels that change what a scanner does with an ADC event or its gradients; those of one kind of scan have one value.
_FLAGS = ("NOROT", "NOPOS", "NOSCL", "ONCE")

#: Labels by which a sequence counts what it means to play at another time.
_TIMED = ("ECO", "SET", "PHS", "REP")

#: Times between which scans make no difference, s, and the parts of TE and TR that rounding may be.
_SAME_START, _ROUNDED_TE, _ROUNDED_TR = 4e-6, 1e-2, 1e-3

#: Part of the shots that a fault may be in; what is in more is meant.
_FEW = 0.25

#: Part of the lines beyond which some are left out on purpose.
_FEW_LINES = 0.1

#: How near to the centre an echo comes, 1/FOV.
_CENTRAL = 0.75

#: Samples through which a parabola goes.
_CURVED = 3

#: ADC events whose k is looked at together.
_AT_ONCE = 1024

#: Directions of k that are compared each with each.
_MOST_WAYS = 1024


def declared(file: SeqFile, scanner: Scanner) -> list[Finding]:
    """Hold what a file plays against its definitions and labels, and those of segments where the scanner needs them."""
    return [
        *slices(file),
        *_times(file),
        *_counters(file),
        *_flags(file),
        *_segments(file, scanner),
        *_soft_delays(file),
        _ppm(file),
    ]


def _times(file: SeqFile) -> Iterator[Finding]:
    """Yield whether shots are sampled alike, at one time after an excitation, at TE, and once in TR."""
    is_image, of, excitations = coherence.imaging(file), coherence.excited(file), file.excitations
    lost = np.full(len(file.adcs), bool(file.adcs) and not len(excitations)) & (file.label("NOISE") == 0)
    yield counted(file, "ADC events without an excitation", lost)
    judged = np.flatnonzero(is_image)
    if not len(judged):
        return
    starts = np.full(len(of), np.nan)
    starts[judged] = [file.adcs[i].first - excitations[of[i]] for i in judged.tolist()]
    first = np.flatnonzero(np.diff(of, prepend=-2))
    order = np.arange(len(of)) - first[np.searchsorted(first, np.arange(len(of)), side="right") - 1]
    keys = [order, *(file.labels[name] for name in _TIMED if name in file.labels)]
    members = coherence.groups_of(coherence.numbered(np.stack(keys, axis=1)), is_image)
    unlike, late, usual = np.zeros(len(of), dtype=bool), np.zeros(len(of), dtype=bool), np.full(len(of), np.nan)
    shapes = np.array([(adc.count, adc.dwell * 1e9, adc.event.frequency) for adc in file.adcs])
    for events in members:
        unlike[events] = _few_unlike(np.nan_to_num(shapes[events]), np.array([0.5, 0.5, 1.0]))
        usual[events] = starts[events][coherence.most(np.round(starts[events] / _SAME_START))]
        late[events] = _few_unlike(starts[events][:, None], np.array([_SAME_START]))
    apart = np.diff(excitations[of[judged].min() : of[judged].max() + 1])  # calibration repeats faster
    if len(apart):  # the pulse that should be in between is missing, unless most are sampled so late
        gap = starts > float(np.median(apart)) * (1 + 1e-6)
        late |= gap & (gap.sum() <= _FEW * len(judged))
    yield counted(file, "ADC events of another length or frequency", unlike)
    yield counted(
        file, "ADC events at another time", late,
        lambda i: f", {starts[i] * 1e3:.6g} ms after the excitation; usual are {usual[i] * 1e3:.6g} ms",
    )  # fmt: skip
    yield from _echoes(file, starts, members)
    if told := file.numbers("TE"):
        yield _echo_time(file, told, starts, members)
    if len(tr := file.numbers("TR")) == 1 and tr[0] > 0:
        off = is_image & _unrepeated(file, tr[0])[of]
        yield counted(file, "excitations not repeated after TR", off, lambda _: f", {tr[0]:.6g} s")


def _unrepeated(file: SeqFile, tr: float) -> NDArray[np.bool_]:
    """Tell after which excitations no other comes in TR, unless the file ends or waits before (excitation,).

    If it ends before all, a slice that is excited twice shows that TR is another.
    """
    excitations = file.excitations
    slack = max(_ROUNDED_TR * tr, file.rasters["BlockDurationRaster"]) + SAME_TIME
    after = excitations + tr
    is_inside = after <= excitations[-1] + slack
    if not is_inside.any():
        is_image = coherence.imaging(file)
        pairs = np.unique(np.stack([coherence.slices(file), coherence.excited(file)])[:, is_image], axis=1)
        return np.full(len(excitations), len(np.unique(pairs[0])) < pairs.shape[1])
    place = np.searchsorted(excitations, after)
    near = [excitations[np.clip(place - n, 0, len(excitations) - 1)] for n in (0, 1)]
    waits = np.append(file.block_edges[list(file.waits)], math.inf)
    is_last = waits[np.searchsorted(waits, excitations)] <= after + slack
    found: NDArray[np.bool_] = is_inside & ~is_last & (np.abs(np.stack(near) - after).min(axis=0) > slack)
    return found


def _echoes(file: SeqFile, starts: NDArray[np.floating], groups: list[NDArray[np.integer]]) -> Iterator[Finding]:
    """Yield how far apart after their excitation the events of one echo come nearest to the centre, at worst.

    And, of those after a refocusing pulse that pass it, how far in time from the spin echo.
    """
    fov = file.numbers("FOV")
    scale = fov if len(fov) == 3 and min(fov) > 0 else (1.0, 1.0, 1.0)
    widest, middle = 0.0, math.nan
    refocused, off = coherence.acting(file)[1] >= 0, np.full(len(starts), np.nan)
    turned = coherence.dephasing(file) if refocused.any() else [np.full(1, np.nan)] * len(starts)
    for group in groups:
        counts = np.array([file.adcs[i].count for i in group.tolist()])
        alike = group[counts == counts[coherence.most(counts)]]
        if file.adcs[int(alike[0])].count < _CURVED:
            continue
        found = list[NDArray[np.floating]]()
        for part in np.array_split(alike, math.ceil(len(alike) / _AT_ONCE)):
            k = np.stack([file.k[i] for i in part.tolist()])
            nearest = EchoTimes.of_samples(k, file.adcs[int(part[0])].dwell, scale)
            found.append(starts[part] + nearest.times)
            is_echo = refocused[part] & (nearest.distances <= PASSING)
            first = np.array([turned[i][0] for i in part.tolist()])  # since a spin echo
            off[part] = np.where(is_echo, np.abs(first + nearest.times), np.nan)
        times = np.concatenate(found)
        times = times[np.isfinite(times)]
        if len(times) and (math.isnan(middle) or np.ptp(times) > widest):
            widest, middle = float(np.ptp(times)), float(np.median(times))
    where = "" if math.isnan(middle) else f"around {middle * 1e3:.6g} ms after the excitation"
    yield Finding("echo time spread", widest, None, "s", where, ok=True)
    if np.isfinite(off).any():
        worst = int(np.nanargmax(off))
        where = in_block(file, [file.adcs[worst].index])(0)
        yield Finding("spin echo off k = 0", float(off[worst]), None, "s", where, ok=True)


def _echo_time(
    file: SeqFile, told: tuple[float, ...], starts: NDArray[np.floating], groups: list[NDArray[np.integer]]
) -> Finding:
    """Return the check that each echo time that is told is that of events that sample the centre."""
    fov = file.numbers("FOV")
    scale = np.array(fov) if len(fov) == 3 and min(fov) > 0 else np.ones(3)
    echoes, nearest, farthest = list[NDArray[np.floating]](), list[float](), list[float]()
    for group in groups:
        count = file.adcs[int(group[0])].count
        total, near, far = np.zeros((2, count)), math.inf, 0.0
        for i in group.tolist():
            square = np.square(file.k[i] * scale)[:, :2].sum(axis=1)
            near, far = min(near, float(square.min())), max(far, float(square.max()))
            if len(square) == count:  # of a plane, and of a volume
                total += np.stack([np.square(file.k[i])[:, :n].sum(axis=1) for n in (2, 3)])
        nearest.append(math.sqrt(near))
        farthest.append(math.sqrt(far))
        least = total.min(axis=1, keepdims=True)  # k that rests has its centre anywhere
        centres = np.flatnonzero((total <= least * (1 + 1e-3) + 1e-6).any(axis=0))[:, None]
        echoes.append(starts[group] + centres * file.adcs[int(group[0])].dwell)
    off, found = np.zeros(len(starts), dtype=bool), np.full(len(starts), np.nan)
    central = [n for n, near in enumerate(nearest) if near <= max(_CENTRAL, 2 * min(nearest)) and farthest[n] >= 1]
    for te in told if central else ():
        best = min(central, key=lambda n: abs(float(np.median(echoes[n])) - te))
        group = groups[best]
        slack = max(_ROUNDED_TE * te, file.adcs[int(group[0])].dwell + file.rasters["BlockDurationRaster"])
        off[group] |= np.abs(echoes[best] - te).min(axis=0) > slack + SAME_TIME
        found[group] = echoes[best][0]
    return counted(
        file, "echo times off TE", off,
        lambda i: f", {found[i] * 1e3:.5g} ms where TE is {' '.join(f'{te * 1e3:.5g}' for te in told[:8])} ms",
    )  # fmt: skip


def _counters(file: SeqFile) -> Iterator[Finding]:
    """Yield whether each ADC event's labels are its own, or shared by as many as others', and no shot is left out."""
    names = sorted(file.labels.keys() - {*_FLAGS, "REV", "TRID", "NOISE", "NAV"})
    judged = np.flatnonzero(coherence.imaging(file))
    if not names or not len(judged):
        return
    rows = np.stack([file.labels[name][judged] for name in names], axis=1)
    _, of, n = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    counts = n[of.reshape(-1)]
    off = np.zeros(len(file.adcs), dtype=bool)
    off[judged] = _few_unlike(counts[:, None].astype(float), np.array([0.5])) & (counts > 1)

    def labels(i: int) -> str:
        return ", " + " ".join(f"{name} {file.labels[name][i]}" for name in names)

    yield counted(file, "ADC events that share their labels", off, labels)
    if "LIN" in names:
        lines = np.unique(file.labels["LIN"][judged])
        n_left = int(lines[-1] - lines[0] + 1 - len(lines))
        ok = not n_left or n_left > _FEW_LINES * (lines[-1] - lines[0] + 1)  # more are left out on purpose
        missing = int(lines[np.flatnonzero(np.diff(lines) > 1)[0]] + 1) if n_left else 0
        where = f"LIN {missing}" if n_left else ""
        yield Finding("values of LIN left out", n_left if not ok else 0, 0, "", "" if ok else where, ok, is_advice=True)


def _few_unlike(values: NDArray[np.floating], slack: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which rows (event, value) are not most, within `slack` (value,); none if they are more than a few."""
    off = coherence.unlike_most(values, slack)
    return off & (off.mean() <= _FEW)


def _flags(file: SeqFile) -> Iterator[Finding]:
    """Labels that turn, shift, scale or leave out what is played, or reverse what is sampled, in some shots alone."""
    judged, pulses = coherence.imaging(file), coherence.excited(file)
    blocks = np.array([adc.index for adc in file.adcs], dtype=int)
    acting = [i for i, pulse in file.pulses if pulse.use in "eu"]
    for name in _FLAGS:
        if name not in file.label_sets or not judged.any():
            continue
        at, values = np.concatenate([[[-1, 0]], file.label_sets[name]]).T
        of_blocks = [blocks, np.array(acting, dtype=int)[pulses] if acting else blocks]
        played = np.stack([values[np.searchsorted(at, found, side="right") - 1] for found in of_blocks])
        of_most = played[:, judged].ravel()
        usual = of_most[coherence.most(of_most)]
        yield counted(file, f"events whose {name} differs", judged & (played != usual).any(axis=0))
    if "REV" in file.labels:
        yield counted(file, "events whose REV contradicts k", judged & _reversed(file, judged))


def _reversed(file: SeqFile, judged: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which ADC events' label ``REV`` is not that of most in their direction of k (adc,).

    Where no direction is played both ways, most of all events have the right one.
    """
    off, events, labels = np.zeros(len(judged), dtype=bool), np.flatnonzero(judged), file.labels["REV"]
    if not len(events):
        return off
    way = np.array([file.k[i][-1] - file.k[i][0] for i in events.tolist()])
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
    numbers = np.full(len(judged), -1)
    numbers[events] = coherence.numbered(np.round(way, 2) + 0.0)
    both = (way @ way.T < -0.999).any() if len(way) <= _MOST_WAYS else True
    for inside in coherence.groups_of(numbers, judged) if both else [events]:
        off[inside] = labels[inside] != labels[inside][coherence.most(labels[inside])]
    return off if both or off.sum() <= _FEW * len(events) else np.zeros_like(off)


def _segments(file: SeqFile, scanner: Scanner) -> Iterator[Finding]:
    """Labels of segments, where the scanner needs them: each has one, and those of one label are alike."""
    if not scanner.label_segments:
        return
    sets = file.label_sets.get("TRID", np.zeros((0, 2), dtype=int))
    busy = sorted({i for i, _ in file.pulses} | {adc.index for adc in file.adcs})
    starts = np.unique(sets[:, 0])
    before = [i for i in busy if not len(starts) or i < starts[0]]
    yield count_of(file, "blocks before the first TRID", before, is_advice=False)
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
    yield count_of(file, "segments unlike others of their TRID", different, is_advice=False)


def _soft_delays(file: SeqFile) -> Iterator[Finding]:
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
    yield count_of(file, "soft delays of blocks that play", busy, is_advice=False)
    yield count_of(file, "soft delays of two names or numbers", named, is_advice=False)
    yield count_of(file, "soft delays stored for two wishes", unlike)


def _ppm(file: SeqFile) -> Finding:
    """Say what could not be judged: phases and frequencies in ppm of a field that is not known."""
    pulses = [i for i, p in file.pulses if p.use in "eur" and not math.isfinite(p.phase + p.frequency)]
    unknown = [*pulses, *(adc.index for adc in file.adcs if not math.isfinite(adc.event.phase + adc.event.frequency))]
    remark = ": phases and slices are not checked without the definitions B0 and Gamma"
    return count_of(file, "offsets in ppm of an unknown field", unknown, remark)
