"""What makes a console refuse a Pulseq file or choke on it: sizes, counts, times, and margins to the limits.

A list to read before the scan, no verdict: the limits themselves are rules of `trajdesign.pulseq.file_rules` and
`trajdesign.pulseq.side_effects`, whose findings are not computed again. What an interpreter takes is known from reports
alone (`trajdesign.scanner.Interpreter`), and for most counts not at all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trajdesign.pulseq.adc import DIVISOR, LONGEST, MOST_PIECES
from trajdesign.pulseq.checks import AXES, ROUNDING, text
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.scanner import Finding, Interpreter, Scanner

Mark = Literal["ok", "look", "unknown"]

#: Margins to the limits of the hardware and of the nerves below which to look, parts of the limit. They are our own
#: choice: a console reckons with its own models, rounds, and turns the axes of an oblique slice.
_HARDWARE_MARGIN, _NERVE_MARGIN = 0.05, 0.1

_UNKNOWN = "no public limit"


@dataclass(frozen=True)
class Item:
    """One line of the list."""

    name: str
    value: float | str
    """In `unit`; not a number if the file does not say it."""
    unit: str
    """SI, or a count."""
    limit: float | None
    """What it is compared with; None if nothing is known."""
    mark: Mark
    note: str

    @property
    def shown(self) -> tuple[str, str]:
        """The value and the limit as text."""
        return _text(self.value, self.unit), "" if self.limit is None else _text(self.limit, self.unit)


def preflight(file: SeqFile, checks: Sequence[Finding], scanner: Scanner, interpreter: Interpreter) -> list[Item]:
    """Return what a console minds about a file, in the order of a list to read.

    Parameters
    ----------
    file, checks
        The file, and what `file_rules.inspect` and `side_effects.expose` found in it.
    scanner, interpreter
        Whose limits count, and what plays the file there.
    """
    found = {check.name: check for check in checks}
    return [
        *_sizes(file, interpreter),
        *_events(file, scanner),
        *_receiver(file, found),
        *_labels(file),
        *_times(file, found),
        *_segments(file, scanner, interpreter),
        *_margins(found, scanner),
        *_resonances(checks),
        *_effort(found),
    ]


def _sizes(file: SeqFile, interpreter: Interpreter) -> Iterator[Item]:
    """Yield what is loaded and kept as a whole."""
    version = f"an interpreter older than {file.version.rpartition('.')[0]} refuses it; which one has the console?"
    yield Item("file format", file.version, "", None, "unknown", version)
    for name, value, unit, limit, beyond in (
        ("file size", file.stored.n_bytes, "bytes", interpreter.slow_bytes, "larger files load slowly or not at all"),
        ("blocks", len(file.block_numbers), "", interpreter.watched_blocks,
         "gradient and RF power of later blocks are not watched and must not be higher"),
        ("excitations", len(file.excitations), "", interpreter.most_excitations, "longer scans have crashed"),
    ):  # fmt: skip
        mark: Mark = "unknown" if limit is None else "ok" if value <= limit else "look"
        yield Item(name, value, unit, limit, mark, _UNKNOWN if limit is None else beyond)


def _events(file: SeqFile, scanner: Scanner) -> Iterator[Item]:
    """Yield what the file stores once and plays often."""
    stored, rows = file.stored, file.stored.n_rows
    kinds = f"{rows['TRAP']} trapezoids, {rows['GRADIENTS']} of shapes; {_UNKNOWN}"
    for name, value, note in (
        ("shapes", stored.n_shapes, _UNKNOWN),
        ("samples of all shapes", stored.n_samples, f"stored as {stored.n_numbers} numbers; {_UNKNOWN}"),
        ("distinct gradients", rows["TRAP"] + rows["GRADIENTS"], kinds),
        ("distinct RF pulses", rows["RF"], _UNKNOWN),
        ("distinct ADC events", rows["ADC"], _UNKNOWN),
    ):
        yield Item(name, value, "", None, "unknown", note)
    if n_rotations := rows.get("ROTATIONS", 0):
        mark: Mark = "look" if scanner.label_segments else "unknown"
        whole = "each turns its whole segment, and of several in one only the last counts"
        note = whole if scanner.label_segments else "known from interpreter 1.5.1 on"
        yield Item("distinct rotations", n_rotations, "", None, mark, note)


def _receiver(file: SeqFile, found: Mapping[str, Finding]) -> Iterator[Item]:
    """Yield how many samples are taken, at once and in pieces; the rules for these are `file_rules`'."""
    yield Item("ADC events", len(file.adcs), "", None, "unknown", _UNKNOWN)
    if not file.adcs:
        return
    kinds = sorted({(adc.count, adc.dwell) for adc in file.adcs}, reverse=True)
    several = "kinds of events of one file have failed or mixed on Siemens (pulseq #47, #142)"
    note = ", ".join(f"{count} of {dwell * 1e6:g} us" for count, dwell in kinds[:4])
    alike = len(kinds) == 1
    note = note if alike else f"{note}; {several}"
    yield Item("ADC lengths and dwell times", len(kinds), "", 1, "ok" if alike else "look", note)
    piece, even, pieces = (found.get(name) for name in ("ADC samples in one piece", "ADC samples", "ADC pieces"))
    if piece is not None and even is not None:
        ok, divisible = piece.ok and even.ok, "a" if even.ok else "NOT a"
        note = f"{divisible} multiple of {DIVISOR}; longer ones need MaxAdcSegmentLength"
        yield Item("ADC samples in one segment", int(piece.value), "", LONGEST, "ok" if ok else "look", note)
    n_pieces = 1 if pieces is None else int(pieces.value)
    on_raster = found.get("ADC piece off the gradient raster")
    ok = n_pieces <= MOST_PIECES and (on_raster is None or on_raster.ok)
    note = "the raw file has so many lines an event" if n_pieces > 1 else "events are not cut"
    note += "" if on_raster is None or on_raster.ok else "; they do NOT end on the gradient raster"
    yield Item("ADC segments of an event", n_pieces, "", MOST_PIECES, "ok" if ok else "look", note)


def _labels(file: SeqFile) -> Iterator[Item]:
    """Yield how many labels are set only after the receiver has sampled."""
    first = file.adcs[0].index if file.adcs else math.inf
    late = [name for name, changes in file.label_sets.items() if name != "TRID" and changes[0, 0] > first]
    if file.label_sets:
        note = f"{', '.join(late)}: " if late else ""
        note += "interpreter 1.5.0 stopped at labels not set to 0 at the start (pulseq #104)"
        yield Item("labels set after the first ADC event", len(late), "", 0, "look" if late else "ok", note)


def _times(file: SeqFile, found: Mapping[str, Finding]) -> Iterator[Item]:
    """Yield how long it takes, and whether the times that the file declares are those that it plays."""
    total = found["total time"]
    minutes, seconds = divmod(round(file.duration), 60)
    note = "limit: TotalDuration of the file" if total.limit is not None else "the file does not declare it"
    note = f"{minutes} min {seconds} s; {note}" if minutes else note
    mark: Mark = "unknown" if total.limit is None else "ok" if total.ok else "look"
    yield Item("total time", file.duration, "s", total.limit, mark, note)
    for name, rule in (("TE", "echo times off TE"), ("TR", "excitations not repeated after TR")):
        told, check = file.numbers(name), found.get(rule)
        if not told:
            yield Item(name, math.nan, "s", None, "unknown", "the file does not declare it")
        elif check is None:
            yield Item(name, told[0], "s", None, "unknown", "declared; no image or no one TR to hold it against")
        else:
            note = "no shot contradicts it" if check.ok else f"NOT met: {check.where}"
            yield Item(name, told[0], "s", None, "ok" if check.ok else "look", note)


def _segments(file: SeqFile, scanner: Scanner, interpreter: Interpreter) -> Iterator[Item]:
    """Yield what converters to segments make of a file."""
    if not scanner.label_segments:
        return
    numbers = file.label_sets.get("TRID", np.empty((0, 2), dtype=np.int64))[:, 1]
    note = f"each takes waveform memory; {_UNKNOWN}" if len(numbers) else "without labels TRID no converter takes it"
    mark: Mark = "unknown" if len(numbers) else "look"
    yield Item("distinct segments (TRID)", len(np.unique(numbers)), "", None, mark, note)
    if (gap := interpreter.segment_gap) is not None:
        note = f"{gap * 1e6:g} us after each of {len(numbers)} segments: TR and total time grow by it"
        yield Item("time added between segments", gap * len(numbers), "s", None, "look" if len(numbers) else "ok", note)


def _margins(found: Mapping[str, Finding], scanner: Scanner) -> Iterator[Item]:
    """Yield how near gradients and nerves come to their limits."""
    for quantity, limit in (("gradient", scanner.max_gradient), ("slew rate", scanner.max_slew)):
        parts = {part: found[f"{quantity} {part}"] for part in (*AXES, "vector")}
        part, worst = min(
            ((part, check) for part, check in parts.items() if check.limit is not None), key=lambda pair: pair[1].margin
        )
        mark: Mark = "look" if worst.margin < _HARDWARE_MARGIN - ROUNDING else "ok"
        yield Item(f"largest {quantity}", worst.value, worst.unit, limit, mark, f"{_margin(worst)} ({part})")
        if scanner.limit_norm == "axis":
            turned = parts["vector"].value
            mark = "look" if turned > limit else "ok"
            yield Item(
                f"{quantity}, if turned", turned, worst.unit, limit, mark, "an oblique slice may put it on one axis"
            )
    if (nerves := found.get("nerve stimulation")) is not None:
        is_near = nerves.margin < _NERVE_MARGIN - ROUNDING
        mark = "look" if is_near else "unknown" if nerves.is_advice else "ok"
        whose = "; of another coil: --nerves gives yours" if nerves.is_advice else ""
        yield Item("nerve stimulation", nerves.value, nerves.unit, nerves.limit, mark, f"{_margin(nerves)}{whose}")


def _resonances(checks: Sequence[Finding]) -> Iterator[Item]:
    """Yield the drive of the bands that are given, or the strongest line."""
    for check in checks:
        if check.name == "acoustic resonance":
            mark: Mark = "unknown" if check.limit is None else "ok" if check.ok else "look"
            note = check.where if check.limit is not None else f"{check.where}; --band-limit says what is allowed"
            yield Item(check.name, check.value, check.unit, check.limit, mark, note)
        elif check.name == "strongest gradient line":
            note = f"at {check.where}; --bands says where the coil rings"
            yield Item(check.name, check.value, check.unit, None, "unknown", note)


def _effort(found: Mapping[str, Finding]) -> Iterator[Item]:
    """Yield what heats the gradient system and the person; a console predicts both by itself."""
    for quantity in ("RMS gradient", "duty cycle"):
        axis = max(AXES, key=lambda axis: found[f"{quantity} {axis}"].value)
        check = found[f"{quantity} {axis}"]
        yield Item(quantity, check.value, check.unit, None, "unknown", f"of {axis}; the console has its own model")
    worst = max((c for name, c in found.items() if name.startswith("B1+rms")), key=lambda c: c.value, default=None)
    if worst is not None:
        yield Item("B1+rms", worst.value, worst.unit, None, "unknown", "the console predicts SAR by itself")


def _margin(check: Finding) -> str:
    return f"margin {check.margin:z.1%}"


def _text(value: float | str, unit: str) -> str:
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "-"
    return text(value, unit) if unit not in ("", "bytes") or value % 1 else f"{value:,.0f} {unit}".rstrip()
