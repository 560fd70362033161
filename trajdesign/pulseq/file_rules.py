"""The check of a whole Pulseq file against a scanner: every axis, every block, whoever wrote it.

`inspect` returns one `Finding` per rule with the worst value and its place. Checks are estimates from the file; none of
them shows that a sequence is safe for a person, and the scanner's own monitors stay in charge.
"""

import math

import numpy as np

from trajdesign.errors import InputError
from trajdesign.pulseq import coherence
from trajdesign.pulseq.adc import DIVISOR, LONGEST, MOST_PIECES
from trajdesign.pulseq.checks import AXES, SAME_TIME, at_time, counted, in_block, misfit, reported, worst_of
from trajdesign.pulseq.declared import declared
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.scanner import Finding, Scanner
from trajdesign.units import DWELL_ROUNDING

#: More samples than any ADC event has.
_UNSPLIT = 2**31

#: A peak of B1 beyond which a file is warned of, T. It is our own choice, no limit of any scanner: pulses that are
#: stronger are rare, and often a slip in a unit.
_MOST_B1 = 30e-6

#: The window over which IEC 60601-2-33 averages B1+rms, s.
_WINDOW = 10.0

#: Fields of view that are believed, m; others are in another unit or were never set.
_FOVS = (1e-3, 2.0)

#: ADC events that are taken at once.
_PART = 256


def inspect(file: SeqFile, scanner: Scanner) -> list[Finding]:
    """Check a Pulseq file against a scanner; with its ``limit_norm`` "axis" the vector norms are only reported."""
    return [
        _signature(file),
        _total_time(file),
        *_extensions(file),
        *_amplitudes(file, scanner),
        *_jumps(file, scanner),
        *_rasters(file, scanner),
        *_dead_times(file, scanner),
        *_adc_rules(file, scanner),
        _receiver_phase(file),
        _fov(file),
        counted(file, "excitations of one slice that differ", coherence.uneven(file, coherence.slices(file))),
        *declared(file, scanner),
        *_k_space(file),
        *_effort(file, scanner),
        *_b1(file, scanner),
    ]


def _signature(file: SeqFile) -> Finding:
    is_signed = bool(file.md5)
    return Finding("signature", float(is_signed), 1.0, "", "", is_signed, "at least", is_advice=True)


def _total_time(file: SeqFile) -> Finding:
    """Compare with the definition: an unsigned file that was cut off in its blocks lasts too short."""
    planned = file.numbers("TotalDuration")
    if len(planned) != 1:
        return reported("total time", file.duration, "s")
    ok = abs(file.duration - planned[0]) <= 1e-6 * file.duration + SAME_TIME
    return Finding("total time", file.duration, planned[0], "s", "", ok, "equal to", is_advice=True)


def _extensions(file: SeqFile) -> list[Finding]:
    """Report delays that a user may still change, weights of channels, and extensions that this reader passes over."""
    checks = []
    if n_shimmed := sum(pulse.shim is not None for _, pulse in file.pulses):
        checks.append(Finding("RF shims", n_shimmed, None, "", "B1 is of the channel that plays most", ok=True))
    if file.soft_delays:
        delays = ", ".join(dict.fromkeys(delay.hint for delay in file.soft_delays))
        where = f"{delays}, played as long as the file stores them"
        checks.append(Finding("soft delays", len(file.soft_delays), None, "", where, ok=True))
    if file.ignored:
        checks.append(
            Finding("unknown extensions", len(file.ignored), 0, "", ", ".join(file.ignored), ok=False, is_advice=True)
        )
    return checks


def _amplitudes(file: SeqFile, scanner: Scanner) -> list[Finding]:
    """Gradient and slew rate of each axis and of the vector; what jumps has its own check."""
    worst, times = np.zeros((2, 4)), np.zeros((2, 4))
    for edges, start, end, slope in file.pieces():
        for kind, ends in enumerate(((start, end), (slope,))):
            sizes = np.max([np.column_stack([np.abs(v), np.linalg.norm(v, axis=1)]) for v in ends], axis=0)
            top = sizes.argmax(axis=0)
            larger = sizes[top, range(4)] > worst[kind]
            worst[kind] = np.where(larger, sizes[top, range(4)], worst[kind])
            times[kind] = np.where(larger, edges[top], times[kind])
    checks = []
    for kind, (name, unit, limit) in enumerate(
        (("gradient", "T/m", scanner.max_gradient), ("slew rate", "T/m/s", scanner.max_slew))
    ):
        for column, part in enumerate((*AXES, "vector")):
            is_limited = part != "vector" or scanner.limit_norm == "vector"
            where = at_time(file, times[kind, column:], f", {part}" if part in AXES else "")
            size = worst[kind, column] / scanner.gamma
            found = [size] if any(len(t) for t, _ in file.waveforms) else []
            checks.append(worst_of(f"{name} {part}", found, limit if is_limited else None, unit, where))
    return checks


def _jumps(file: SeqFile, scanner: Scanner) -> list[Finding]:
    """No gradient changes at once; where a 1.4 file stores no end, what half a cell can ramp down may be left."""
    checks = []
    for name, is_stored, limit in (
        ("gradient jump", True, 0.0),
        ("gradient jump from an unstored end", False, scanner.max_slew * scanner.gradient_raster / 2),
    ):
        found = [jump for jump in file.jumps if jump.is_stored is is_stored]
        worst = max(found, key=lambda jump: jump.size, default=None)
        if worst is not None:
            before, after = (g / scanner.gamma * 1e3 for g in (worst.before, worst.after))
            place = f"block {worst.block}, {AXES[worst.axis]}, {worst.time * 1e3:.3f} ms"
            where = [f"{place} ({before:.4g} to {after:.4g} mT/m; {len(found)} in all)"]
            checks.append(worst_of(name, [worst.size / scanner.gamma], limit, "T/m", where.__getitem__))
        elif is_stored:
            checks.append(worst_of(name, [], limit, "T/m", str))
    return checks


def _rasters(file: SeqFile, scanner: Scanner) -> list[Finding]:
    gradient, rf = file.rasters["GradientRasterTime"], file.rasters["RadiofrequencyRasterTime"]
    is_same = abs(gradient - scanner.gradient_raster) <= SAME_TIME
    is_multiple = rf > scanner.rf_raster / 2 and bool(misfit([rf], scanner.rf_raster)[0] <= SAME_TIME)
    checks = [
        Finding("gradient raster", gradient, scanner.gradient_raster, "s", "", is_same, "equal to"),
        Finding("RF raster", rf, scanner.rf_raster, "s", "", is_multiple, "multiple of"),
    ]
    corners = [(block, axis, time) for block, axis, g in file.gradients for time in g.corners]

    def corner(i: int) -> str:
        block, axis, time = corners[i]
        return f"block {block}, {AXES[axis]}, {time * 1e3:.3f} ms into it"

    pulses = [i for i, _ in file.pulses]
    blocks = list(range(len(file.block_numbers)))
    adcs = [adc.index for adc in file.adcs]
    for name, times, raster, where in (
        ("block duration", np.diff(file.block_edges), scanner.block_raster, in_block(file, blocks)),
        ("gradient corner", [time for _, _, time in corners], scanner.gradient_raster, corner),
        (
            "RF start or end",
            [time for _, pulse in file.pulses for time in (pulse.delay, pulse.end)],
            scanner.rf_raster,
            in_block(file, np.repeat(pulses, 2).tolist()),
        ),
        ("ADC start", [adc.event.delay for adc in file.adcs], scanner.rf_raster, in_block(file, adcs)),
        ("ADC dwell", [adc.dwell for adc in file.adcs], scanner.adc_raster, in_block(file, adcs)),
    ):
        checks.append(worst_of(f"{name} off its raster", misfit(times, raster), 0.0, "s", where))
    return checks


def _dead_times(file: SeqFile, scanner: Scanner) -> list[Finding]:
    """Dead times are part of the block, as the format has it; pulses and ADC events must not meet within one either."""
    durations = np.diff(file.block_edges)
    rf_blocks, adc_blocks = [i for i, _ in file.pulses], [adc.index for adc in file.adcs]
    rf_start, rf_end = np.array([(p.delay, p.end) for _, p in file.pulses]).reshape(-1, 2).T
    adc_start, adc_end = np.array([(adc.event.delay, adc.event.end) for adc in file.adcs]).reshape(-1, 2).T
    # in the time of the whole file: the last pulse that starts before the ADC event ends, and the one after it
    starts, ends = np.append(file.pulse_spans, [[np.inf], [-np.inf]], axis=1)
    adc_edges = file.block_edges[adc_blocks]
    last = np.searchsorted(starts[:-1], adc_edges + adc_end) - 1
    checks = []
    for name, values, limit, blocks in (
        ("RF dead time", rf_start, scanner.rf_dead_time, rf_blocks),
        ("RF ringdown time", durations[rf_blocks] - rf_end, scanner.rf_ringdown_time, rf_blocks),
        ("ADC dead time before", adc_start, scanner.adc_dead_time, adc_blocks),
        ("ADC dead time after", durations[adc_blocks] - adc_end, scanner.adc_dead_time, adc_blocks),
        ("time from RF to ADC", adc_edges + adc_start - ends[last], scanner.rf_ringdown_time, adc_blocks),
        ("time from ADC to RF", starts[last + 1] - adc_edges - adc_end, scanner.rf_dead_time, adc_blocks),
    ):
        if len(values) and math.isfinite(values.min()):
            checks.append(worst_of(name, values, limit, "s", in_block(file, blocks), rule="at least"))
    return checks


def _adc_rules(file: SeqFile, scanner: Scanner) -> list[Finding]:
    """Check what the common interpreters ask of ADC events; others take any, so breaking it is a warning.

    An event longer than the definition ``MaxAdcSegmentLength`` is taken in pieces of that length. Each is held to what
    an event is held to, and ends on the gradient raster.
    """
    counts = np.array([adc.count for adc in file.adcs], dtype=int)
    if not len(counts):
        return []
    longest = _longest_piece(file)
    is_split = (counts > longest) & (counts % longest == 0)  # one that the given length does not divide is taken whole
    pieces = np.where(is_split, longest, counts)
    where = in_block(file, [adc.index for adc in file.adcs])
    first = int(np.argmax(pieces % DIVISOR != 0))
    is_even = not pieces[first] % DIVISOR
    checks = [
        Finding("ADC samples", float(pieces[first]), DIVISOR, "", where(first), is_even, "multiple of", is_advice=True),
        worst_of("ADC samples in one piece", pieces, LONGEST, "", where, is_advice=True),
    ]
    if is_split.any():
        ends = np.array([adc.dwell for adc in file.adcs]) * pieces
        off = np.where(is_split, misfit(ends, scanner.gradient_raster), 0.0)
        checks += [
            worst_of("ADC piece off the gradient raster", off, 0.0, "s", where, is_advice=True),
            worst_of("ADC pieces", counts // pieces, MOST_PIECES, "", where, is_advice=True),
        ]
    return checks


def _receiver_phase(file: SeqFile) -> Finding:
    """Check that the receiver follows the phase of the excitation; where scans are subtracted it need not."""
    off = coherence.departures(file, coherence.echoes(file))
    judged = np.flatnonzero(np.isfinite(off))
    place, n_off = in_block(file, [file.adcs[i].index for i in judged]), int((off > coherence.TOLERANCE).sum())

    def where(i: int) -> str:
        return f"{place(i)} ({n_off} of {len(judged)} ADC events do not follow)" if n_off else place(i)

    limit = coherence.TOLERANCE
    return worst_of("receiver phase off the excitation's", off[judged], limit, "rad", where, is_advice=True)


def _longest_piece(file: SeqFile) -> int:
    """Return the definition ``MaxAdcSegmentLength``, or a number beyond every event without one."""
    name = "MaxAdcSegmentLength"
    if name not in file.definitions:
        return _UNSPLIT
    length = file.numbers(name)
    if len(length) != 1 or length[0] % 1 or not 0 <= length[0] < _UNSPLIT:
        raise InputError(
            f"the definition {name} is {file.definitions[name][:64]!r}; "
            f"it is a whole number of samples below {_UNSPLIT}."
        )
    return int(length[0]) or _UNSPLIT


def _believed(fov: tuple[float, ...]) -> int:
    """Return how many numbers of a field of view are one; three of three make it known."""
    return sum(_FOVS[0] <= extent <= _FOVS[1] for extent in fov)


def _fov(file: SeqFile) -> Finding:
    """Say what is not checked without a field of view; a definition that is none is a warning, to lack it is not."""
    told, fov = file.definitions.get("FOV"), file.numbers("FOV")
    n_believed = _believed(fov)
    ok = n_believed == len(fov) == 3
    where = "" if ok else "k step between samples (the receiver's speed) is not checked"
    if told is None:
        return Finding("FOV", 0, None, "extents", f"not in the file; {where}", ok=True)
    if not ok:
        where = f"{told[:64]!r} is not x y z in m, {_FOVS[0]:g} to {_FOVS[1]:g}; {where}"
    return Finding("FOV", n_believed, 3, "extents", where, ok, "equal to", is_advice=True)


def _k_space(file: SeqFile) -> list[Finding]:
    """How far and how fast k goes while the ADC samples, compared with the FOV."""
    fov = file.numbers("FOV")
    is_known = _believed(fov) == len(fov) == 3
    pixels = np.array(fov) if is_known else np.ones(3)
    low, high, fastest, when = np.full(3, np.inf), np.full(3, -np.inf), 0.0, 0.0
    for first in range(0, len(file.adcs), _PART):
        adcs, k = file.adcs[first : first + _PART], np.concatenate(file.k[first : first + _PART])
        times = np.concatenate([adc.times for adc in adcs])
        dwell = np.repeat([adc.dwell for adc in adcs], [adc.count for adc in adcs])
        low, high = np.minimum(low, k.min(axis=0)), np.maximum(high, k.max(axis=0))
        speed = np.linalg.norm(file.gradient_at(times) * dwell[:, None] * pixels, axis=1)
        if speed.max() > fastest or not when:
            fastest, when = float(speed.max()), float(times[speed.argmax()])
    if not file.adcs:
        low = high = np.zeros(3)
    checks = [reported(f"largest k {axis}", float(max(-low[i], high[i])), "1/m") for i, axis in enumerate(AXES)]
    extent = float(np.max((high - low) * pixels))
    unit = "1/FOV" if is_known else "1/m"
    # spectroscopy has no extent: a warning without an FOV, or where no gradient plays while the ADC samples
    is_advice = not is_known or not fastest
    checks.append(Finding("k-space extent", extent, 1.0, unit, "", extent >= 1, "at least", is_advice))
    if is_known and file.adcs:
        where = at_time(file, np.array([when]))
        checks.append(worst_of("k step between samples", [fastest], 1.0, unit, where, rounding=DWELL_ROUNDING))
    return checks


def _effort(file: SeqFile, scanner: Scanner) -> list[Finding]:
    """RMS gradient, and the part of the time with any gradient, of each axis."""
    square, duty = np.zeros(3), np.zeros(3)
    for times, a, b, _ in file.pieces():
        lengths = np.diff(times) / file.duration if file.duration else np.diff(times)
        square += lengths @ (a**2 + a * b + b**2) / 3
        duty += lengths @ ((a != 0) | (b != 0))
    rms = np.sqrt(square) / scanner.gamma
    return [
        *(reported(f"RMS gradient {axis}", float(rms[i]), "T/m") for i, axis in enumerate(AXES)),
        *(reported(f"duty cycle {axis}", float(duty[i]), "") for i, axis in enumerate(AXES)),
    ]


def _b1(file: SeqFile, scanner: Scanner) -> list[Finding]:
    """Peak of B1, and its root mean square over the whole file and over the worst window."""
    if not file.pulses or not file.duration:
        return []
    peaks = [pulse.peak / scanner.gamma for _, pulse in file.pulses]
    peak = worst_of("B1 peak", peaks, _MOST_B1, "T", in_block(file, [i for i, _ in file.pulses]), is_advice=True)
    energy = np.append(0.0, np.cumsum([pulse.energy for _, pulse in file.pulses]))
    times = file.pulse_spans.T.ravel()
    steps = np.stack([energy[:-1], energy[1:]], axis=1).ravel()
    checks = [peak, reported("B1+rms", math.sqrt(energy[-1] / file.duration) / scanner.gamma, "T")]
    if file.duration > _WINDOW:
        # a sliding window holds most where it begins with a pulse or ends with one
        starts, ends = file.pulse_spans
        begins = np.clip(np.concatenate([starts, ends - _WINDOW]), 0, file.duration - _WINDOW)
        inside = np.interp(begins + _WINDOW, times, steps) - np.interp(begins, times, steps)
        worst = np.sqrt(np.maximum(inside, 0) / _WINDOW) / scanner.gamma
        checks.append(worst_of(f"B1+rms of the worst {_WINDOW:g} s", worst, None, "T", at_time(file, begins)))
    return checks
