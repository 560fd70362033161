"""A reader of Pulseq text files (1.4.1 and 1.5.0) that shares no code with the writer.

It parses the file strictly, plays it as the format's specification says (straight lines between raster
centres, first and last values at the edges of each event), and integrates the result exactly. What it
returns is what a scanner that follows the specification will do: k at every ADC sample since the last
excitation, and the waveforms on which limits are to be checked. Specification:
https://pulseq.github.io/specification.pdf.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trajdesign.errors import InputError

VERSIONS = ("1.4.1", "1.5.0")

#: Bounds that no sensible file reaches, so that a hostile one cannot fill the memory.
_MOST_BYTES = 2**30
_MOST_VERTICES = 50_000_000

#: Times closer than this are one time; every raster is far longer, and rounding far shorter, s.
_SAME_TIME = 1e-10

#: A pulse of a 1.4.1 file, which stores no use, excites up to this flip angle; other readers agree.
_EXCITATION_DEG = 90.01

#: Columns of each table after the id, in the order of `VERSIONS`.
_TABLES = {
    "BLOCKS": (7, 7),
    "RF": (7, 11),
    "GRADIENTS": (4, 6),
    "TRAP": (5, 5),
    "ADC": (5, 8),
    "EXTENSIONS": (3, 3),
}


@dataclass(frozen=True)
class SeqFile:
    """What a scanner plays and when it samples.

    Parameters
    ----------
    version
        Of the file format.
    definitions
        The file's definitions, as text.
    md5
        The file's signature, which fits its content.
    duration
        Of all blocks, s.
    excitations
        Times of the centres of the excitation pulses (excitation,), s.
    adc_times
        Times of the ADC samples (adc, sample), s.
    k_adc
        K since the last excitation at the ADC samples (adc, sample, 3), 1/m.
    waveforms
        Per axis, times (vertex,), s, and values (vertex,), Hz/m, of the piecewise linear gradient.
    edge
        Largest gradient at the first or last instant of any gradient event, Hz/m. Unless it is 0, blocks may
        meet in a jump, and the other numbers hold only as far as the jumps do not matter.
    """

    version: str
    definitions: dict[str, str]
    md5: str
    duration: float
    excitations: np.ndarray
    adc_times: np.ndarray
    k_adc: np.ndarray
    waveforms: tuple[tuple[np.ndarray, np.ndarray], ...]
    edge: float

    def extremes(self, gamma: float, norm: str = "vector") -> tuple[float, float]:
        """Return the largest gradient (T/m) and slew rate (T/m/s) of the whole file, all axes together.

        Parameters
        ----------
        gamma
            Gyromagnetic ratio over 2 pi, Hz/T.
        norm
            ``"vector"``: of the vector of the three axes; ``"axis"``: of the largest axis.
        """
        times = np.sort(np.concatenate([t for t, _ in self.waveforms]))
        if len(times) < 2:
            return 0.0, 0.0
        times = times[np.append(True, np.diff(times) > _SAME_TIME)]
        values = np.stack(
            [np.interp(times, t, g, left=0, right=0) if len(t) else np.zeros_like(times) for t, g in self.waveforms],
            axis=1,
        )
        slew = np.diff(values, axis=0) / np.diff(times)[:, None]
        order = 2 if norm == "vector" else np.inf
        gradient, rate = (float(np.linalg.norm(v, ord=order, axis=1).max()) / gamma for v in (values, slew))
        return gradient, rate if self.edge == 0 else math.inf


def read(path: Path | str) -> SeqFile:
    """Read and play a signed Pulseq text file.

    Parameters
    ----------
    path
        The ``.seq`` file.

    Raises
    ------
    InputError
        If the file is missing, truncated, changed after it was signed, of another version, or holds anything
        that contradicts the format or that this reader does not play; the sentence names the place.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file.")
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes; a sequence has at most {_MOST_BYTES}.")
    try:
        return _Player(_parse(path.read_bytes())).play()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, IndexError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__} {error}.") from None


@dataclass(frozen=True)
class _Parsed:
    version: str
    definitions: dict[str, str]
    tables: dict[str, dict[int, list[str]]]
    shapes: dict[int, np.ndarray]
    md5: str

    def number(self, name: str) -> float:
        """Return a definition that is one positive number."""
        value = _number(self.definitions[name])
        if not 0 < value < 1:
            raise InputError(f"the definition {name} is {value}.")
        return value


def _parse(content: bytes) -> _Parsed:
    body, separator, signature = content.rpartition(b"\n[SIGNATURE]\n")
    if not separator:
        raise InputError("the file has no signature; it is truncated or was not signed.")
    stored = re.search(rb"^Hash ([0-9a-f]{32})\s*$", signature, re.MULTILINE)
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    if stored is None or stored[1].decode() != md5:
        raise InputError("the file does not fit its signature; it is truncated or was changed.")
    sections = dict(_sections(body.decode("utf-8")))
    version = ".".join(_pairs(sections["VERSION"])[part] for part in ("major", "minor", "revision"))
    if version not in VERSIONS:
        raise InputError(f"the format version is {version}; this reader knows {' and '.join(VERSIONS)}.")
    tables = {}
    for name, columns in _TABLES.items():
        rows = [line.split() for line in sections.get(name, [])]
        n_columns = 1 + columns[VERSIONS.index(version)]
        if any(len(row) != n_columns for row in rows):
            raise InputError(f"a line of [{name}] has not {n_columns} columns.")
        tables[name] = {int(row[0]): row[1:] for row in rows}
        if len(tables[name]) != len(rows):
            raise InputError(f"[{name}] holds the same id twice.")
    definitions = _pairs(sections["DEFINITIONS"])
    return _Parsed(version, definitions, tables, _shapes(sections.get("SHAPES", [])), md5)


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Split the text into sections: name and lines without comments and blank lines."""
    seen = set()
    name, lines = "", list[str]()
    for line in [*text.splitlines(), "[END]"]:
        line = line.strip()
        if line.startswith("["):
            if name:
                yield name, lines
            name, lines = line.strip("[]"), []
            if name in seen:
                raise InputError(f"the section [{name}] occurs twice.")
            if name not in (*_TABLES, "VERSION", "DEFINITIONS", "SHAPES", "END"):
                raise InputError(f"the section [{name}] is unknown to this reader.")
            seen.add(name)
        elif line.startswith("extension "):
            if line.split()[1] not in ("LABELSET", "LABELINC", "TRIGGERS"):
                raise InputError(f"the {line!r} may change gradients or timing; this reader does not play it.")
            if name:
                yield name, lines
            name, lines = "", []
        elif line and not line.startswith("#"):
            lines.append(line)


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) < 1e30:
        raise InputError(f"{text} is no finite number.")
    return value


def _pairs(lines: list[str]) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(" ") for line in lines)}


def _shapes(lines: list[str]) -> dict[int, np.ndarray]:
    starts = [i for i, line in enumerate(lines) if line.startswith("shape_id")]
    shapes = {}
    total = 0
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        shape_id = int(lines[start].split()[1])
        label, count = lines[start + 1].split()
        total += int(count)
        if label != "num_samples" or int(count) < 1 or total > _MOST_VERTICES:
            raise InputError(f"shape {shape_id} announces {label} {count}.")
        data = np.array([_number(line) for line in lines[start + 2 : end]])
        shape = data if len(data) == int(count) else _decompress(data, int(count), shape_id)
        if shape_id in shapes:
            raise InputError(f"shape {shape_id} occurs twice.")
        shapes[shape_id] = shape
    return shapes


def _decompress(data: np.ndarray, count: int, shape_id: int) -> np.ndarray:
    """Undo the run-length code of the derivative: after a value twice in a row comes how often it repeats."""
    steps, lengths = list[float](), list[int]()
    i = 0
    while i < len(data):
        run = 1
        if i + 1 < len(data) and data[i] == data[i + 1]:
            if i + 2 >= len(data) or data[i + 2] != round(data[i + 2]) or not 0 <= data[i + 2] <= count:
                raise InputError(f"shape {shape_id} has a damaged run length.")
            run = 2 + int(data[i + 2])
        steps.append(data[i])
        lengths.append(run)
        i += 1 if run == 1 else 3
    if sum(lengths) != count:
        raise InputError(f"shape {shape_id} has {sum(lengths)} samples instead of {count}.")
    return np.cumsum(np.repeat(steps, lengths))


class _Player:
    """Plays the parsed blocks one after the other."""

    def __init__(self, parsed: _Parsed) -> None:
        self.parsed = parsed
        self.old = parsed.version == "1.4.1"
        self.raster = parsed.number("GradientRasterTime")
        self.rf_raster = parsed.number("RadiofrequencyRasterTime")
        self.block_raster = parsed.number("BlockDurationRaster")
        self.events: dict[tuple[int, float], tuple[np.ndarray, np.ndarray]] = {}
        self.n_points = 0
        self.edge = 0.0

    def play(self) -> SeqFile:
        """Return what the blocks add up to."""
        clock = 0.0
        excitations, samples = list[float](), list[np.ndarray]()
        pieces: list[list[tuple[np.ndarray, np.ndarray]]] = [[], [], []]
        before = [0.0, 0.0, 0.0]  # last gradient of the block before, which 1.4.1 files continue from
        for number, row in self.parsed.tables["BLOCKS"].items():
            cells, rf, *gradients, adc, _ = (int(entry) for entry in row)
            duration = cells * self.block_raster
            if cells < 0 or not math.isfinite(clock + duration):
                raise InputError(f"block {number} lasts {cells} rasters.")
            if rf:
                excitations.append(clock + self._excitation(rf))
            for axis, event in enumerate(gradients):
                if not event:
                    before[axis] = 0.0
                    continue
                times, values = self._gradient(event, before[axis])
                if times[-1] > duration + _SAME_TIME:
                    raise InputError(f"gradient {event} lasts longer than block {number}.")
                before[axis] = float(values[-1]) if times[-1] > duration - _SAME_TIME else 0.0
                pieces[axis].append((clock + times, values))
            if adc:
                sampled = self._adc(adc)
                if sampled[-1] > duration:
                    raise InputError(f"ADC {adc} lasts longer than block {number}.")
                samples.append(clock + sampled)
            clock += duration
        if len({len(times) for times in samples}) > 1:
            raise InputError("the ADC events have different numbers of samples.")
        adc_times = np.stack(samples) if samples else np.empty((0, 0))
        waveforms = tuple(_joined(parts) for parts in pieces)
        k = np.stack([_moment(adc_times, np.array(excitations), t, g) for t, g in waveforms], axis=-1)
        played = (clock, np.array(excitations), adc_times, k, waveforms, self.edge)
        return SeqFile(self.parsed.version, self.parsed.definitions, self.parsed.md5, *played)

    def _gradient(self, event: int, before: float) -> tuple[np.ndarray, np.ndarray]:
        """Return times (s) and values (Hz/m) of an event's vertices in its block."""
        key = (event, before if self.old else 0.0)
        if key not in self.events:
            traps = self.parsed.tables["TRAP"]
            played = self._trapezoid(traps[event]) if event in traps else self._arbitrary(event, before)
            times, values = self.events[key] = played
            if not (times[0] >= 0 and np.all(np.diff(times) > 0)):
                raise InputError(f"gradient {event} starts before its block or runs backwards.")
            self.edge = max(self.edge, abs(float(values[0])), abs(float(values[-1])))
        self._count(len(self.events[key][0]))
        return self.events[key]

    def _count(self, n: int) -> None:
        self.n_points += n
        if self.n_points > _MOST_VERTICES:
            raise InputError(f"the file plays more than {_MOST_VERTICES} gradient vertices and samples.")

    def _trapezoid(self, row: list[str]) -> tuple[np.ndarray, np.ndarray]:
        amplitude = _number(row[0])
        rise, flat, fall, delay = (_number(entry) * 1e-6 for entry in row[1:])
        times = delay + np.cumsum([0.0, rise, flat, fall])
        values = amplitude * np.array([0.0, 1.0, 1.0, 0.0])
        keep = np.array([True, True, flat > 0, True])
        return times[keep], values[keep]

    def _arbitrary(self, event: int, before: float) -> tuple[np.ndarray, np.ndarray]:
        row = self.parsed.tables["GRADIENTS"][event]
        amplitude, delay = _number(row[0]), _number(row[-1]) * 1e-6
        values = amplitude * self.parsed.shapes[int(row[-3])]
        time_id = int(row[-2])
        if time_id > 0:  # vertices anywhere on the raster's edges; the first and last are the event's edges
            times = self.parsed.shapes[time_id] * self.raster
            if len(times) != len(values) or len(times) < 2:
                raise InputError(f"gradient {event} has {len(values)} values at {len(times)} times.")
            return delay + times, values
        if time_id < 0 or len(values) < 2:
            raise InputError(f"gradient {event} is oversampled or has one sample; this reader does not play it.")
        if self.old:
            first, last = (before if delay == 0 else 0.0), 1.5 * values[-1] - 0.5 * values[-2]
        else:
            first, last = _number(row[1]), _number(row[2])
        n = len(values)
        times = delay + np.concatenate([[0.0], np.arange(n) + 0.5, [n]]) * self.raster
        return times, np.concatenate([[first], values, [last]])

    def _adc(self, event: int) -> np.ndarray:
        """Return the sample times of an ADC event in its block (sample,), s."""
        row = self.parsed.tables["ADC"][event]
        count, dwell, delay = int(row[0]), _number(row[1]) * 1e-9, _number(row[2]) * 1e-6
        if not (0 < count <= _MOST_VERTICES and dwell > 0 and delay >= 0):
            raise InputError(f"ADC {event} has {count} samples of {dwell:g} s after {delay:g} s.")
        self._count(count)
        return delay + (np.arange(count) + 0.5) * dwell

    def _excitation(self, event: int) -> float:
        """Return the time of a pulse's centre in its block, s."""
        row = self.parsed.tables["RF"][event]
        if not self.old:
            if row[-1] != "e":
                raise InputError(f"RF pulse {event} has the use {row[-1]!r}; only excitations are played.")
            return (_number(row[5]) + _number(row[4])) * 1e-6
        magnitude = np.abs(_number(row[0]) * self.parsed.shapes[int(row[1])])
        phase = self.parsed.shapes[int(row[2])]
        time_id = int(row[3])
        times = self.parsed.shapes[time_id] if time_id else np.arange(len(magnitude)) + 0.5
        pulse = magnitude * np.exp(2j * np.pi * phase)
        flip_deg = 360 * abs(np.sum(pulse[:-1] * np.diff(times))) * self.rf_raster
        if flip_deg > _EXCITATION_DEG:
            raise InputError(f"RF pulse {event} turns by {flip_deg:.1f} deg; only excitations are played.")
        peak = np.flatnonzero(magnitude >= 0.99999 * magnitude.max())
        return _number(row[4]) * 1e-6 + float(times[peak[0]] + times[peak[-1]]) / 2 * self.rf_raster


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Join the events of one axis; two events that touch share a vertex."""
    if not parts:
        return np.empty(0), np.empty(0)
    times, values = (np.concatenate([part[i] for part in parts]) for i in range(2))
    keep = np.append(True, np.diff(times) > _SAME_TIME)
    return times[keep], values[keep]


def _moment(times: np.ndarray, excitations: np.ndarray, t: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Exact integral of a piecewise linear gradient from the last excitation to each of `times`."""
    if not times.size or len(t) < 2:
        return np.zeros_like(times)
    areas = np.append(0.0, np.cumsum(np.diff(t) * (g[1:] + g[:-1]) / 2))

    def up_to(when: np.ndarray) -> np.ndarray:
        inside = np.clip(when, t[0], t[-1])
        i = np.clip(np.searchsorted(t, inside, side="right") - 1, 0, len(t) - 2)
        u = inside - t[i]
        return areas[i] + u * (g[i] + (g[i + 1] - g[i]) / (t[i + 1] - t[i]) * u / 2)

    last = np.searchsorted(excitations, times, side="right") - 1
    if last.min(initial=0) < 0:
        raise InputError("an ADC samples before the first excitation.")
    return up_to(times) - up_to(excitations)[last]
