"""A reader and player of Pulseq text files (1.4 and 1.5) that shares no code with any writer.

It plays the file as the format's specification says (straight lines between raster centres, first and last values
at the edges of each event, no gradient where there is no event), and integrates the result exactly. What it returns is
what a scanner that follows the specification will do: k at every ADC sample, the waveforms on which limits are to be
checked, the pulses, and every place where a gradient jumps.

An excitation sets k to 0 at its centre and a refocusing pulse reverses its sign; a pulse of undefined use excites. The
other pulses (inversion, saturation, preparation, other) act on magnetisation that the next excitation reads, and leave
k as it is. Before the first excitation, k counts from the start of the file: noise scans have a k that means nothing.
Specification: https://pulseq.github.io/specification.pdf.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from trajdesign import walled
from trajdesign.errors import InputError
from trajdesign.seqaxis import Axis, Jump, slopes_at, values_at
from trajdesign.seqevents import (
    SAME_TIME,
    Envelope,
    Gradient,
    Pulse,
    Receiver,
    decode_adc,
    decode_gradient,
    decode_pulse,
)
from trajdesign.seqextras import Extras, decode_extensions, rotated
from trajdesign.seqk import Adc, KSpace
from trajdesign.seqparse import MOST_POINTS, Parsed, number, parse

_RASTERS = ("GradientRasterTime", "RadiofrequencyRasterTime", "BlockDurationRaster")

#: A bound that no sensible file reaches, so that a hostile one cannot fill the memory.
_MOST_BYTES = 2**28

#: Vertices and samples: so many, and so many for each byte, as a block of 25 bytes plays any event again.
_FREE_POINTS, _MOST_RATIO = 2**22, 1000

#: Turned blocks that are remembered: a file may turn each by another angle.
_MOST_ROTATED = 2**12

#: Straight pieces that are taken at once.
_PART = 2**16

#: Beyond it, s, times lose the digits that rasters need.
_LONGEST = 1e5


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
        The file's signature, which fits its content; empty if there is none.
    rasters
        Name of the definition -> raster of gradients, pulses and blocks, s.
    block_numbers
        Of each block as the file has them (block,).
    block_edges
        Starts of the blocks and the end of the last (block + 1,), s.
    pulses
        Per played pulse, the index of its block and the pulse.
    adcs
        The played ADC events.
    k
        Per ADC event, k at its samples (sample, 3), 1/m.
    waveforms
        Per axis, times (vertex,), s, and values (vertex,), Hz/m, of the piecewise linear gradient. Where it jumps, two
        vertices have one time.
    gradients
        Per gradient event, the number of the block and the axis that play it first, and the event.
    jumps
        Where a gradient jumps by more than rounding.
    edge
        Largest gradient at the first or last instant of any gradient event, Hz/m.
    labels
        Per label that the file uses, its value at each ADC event (adc,), 0 before it is first set. The labels of a
        block act before its ADC event.
    soft_delays
        Name of a delay that the user may change at the scanner -> number of its blocks. They are played as long as the
        file stores them.
    ignored
        Extensions that blocks use, this reader does not know, and the file does not require.
    """

    version: str
    definitions: dict[str, str]
    md5: str
    rasters: dict[str, float]
    block_numbers: np.ndarray
    block_edges: np.ndarray
    pulses: tuple[tuple[int, Pulse], ...]
    adcs: tuple[Adc, ...]
    k: Sequence[np.ndarray]
    waveforms: tuple[tuple[np.ndarray, np.ndarray], ...]
    gradients: tuple[tuple[int, int, Gradient], ...]
    jumps: tuple[Jump, ...]
    edge: float
    labels: dict[str, np.ndarray]
    soft_delays: dict[str, int]
    ignored: tuple[str, ...]

    @property
    def duration(self) -> float:
        """Duration of all blocks, s."""
        return float(self.block_edges[-1])

    @property
    def excitations(self) -> np.ndarray:
        """Times of the centres of the excitation pulses (excitation,), s."""
        return np.array([self.block_edges[i] + pulse.centre for i, pulse in self.pulses if pulse.use in "eu"])

    @property
    def adc_times(self) -> np.ndarray:
        """Times of the ADC samples (adc, sample), s, if all events have one length."""
        return _stacked((adc.times for adc in self.adcs), (0, 0))

    @property
    def k_adc(self) -> np.ndarray:
        """K at the ADC samples (adc, sample, 3), 1/m, if all events have one length."""
        return _stacked(self.k, (0, 0, 3))

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return the numbers of a definition; none if the file lacks it or has text there.

        Raises
        ------
        InputError
            If one is not finite.
        """
        text = self.definitions.get(name, "")
        try:
            return tuple(number(word) for word in text.split())
        except InputError:
            raise InputError(f"the definition {name} is {text[:64]!r}; its numbers must be finite.") from None
        except ValueError:
            return ()

    def without_noise(self) -> "SeqFile":
        """Return the file without the ADC events that sample no object: before any excitation, or of a noise scan."""
        noise, start = self.labels.get("NOISE", np.zeros(len(self.adcs))), self.excitations.min(initial=math.inf)
        kept = [not noise[i] and adc.times[0] >= start for i, adc in enumerate(self.adcs)]
        labels = {name: values[kept] for name, values in self.labels.items()}
        adcs, k = tuple(compress(self.adcs, kept)), tuple(compress(self.k, kept))
        return replace(self, adcs=adcs, k=k, labels=labels)

    def block_at(self, time: float) -> int:
        """Return the number of the block that plays at a time, s."""
        index = int(np.searchsorted(self.block_edges, time, side="right")) - 1
        return int(self.block_numbers[min(max(index, 0), len(self.block_numbers) - 1)])

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the straight pieces of which the gradient of all axes consists, some at a time.

        Every vertex of every axis is an end of pieces, however close it is to one of another axis. Where only rounding
        separates the two, a piece lies between them in which nothing has time to happen: there only the axis of the
        largest slope counts.

        Yields
        ------
        times
            Between which each piece lies (piece + 1,), s.
        start, end
            The gradient at both ends of each piece (piece, 3), Hz/m; they differ from the neighbour's at jumps.
        slope
            Of each piece (piece, 3), Hz/m/s.
        """
        vertices = np.unique(np.concatenate([t for t, _ in self.waveforms]))
        for first in range(0, len(vertices) - 1, _PART):
            times = vertices[first : first + _PART + 1]
            start = np.stack([values_at(times[:-1], t, g, "right") for t, g in self.waveforms], axis=1)
            end = np.stack([values_at(times[1:], t, g, "left") for t, g in self.waveforms], axis=1)
            slope = np.stack([slopes_at(times[:-1], t, g) for t, g in self.waveforms], axis=1)
            is_short = np.diff(times)[:, None] <= SAME_TIME
            size = np.abs(slope)
            slope[is_short & (size < size.max(axis=1, keepdims=True))] = 0
            yield times, start, end, slope

    def extremes(self, gamma: float, norm: str = "vector") -> tuple[float, float]:
        """Return the largest gradient (T/m) and slew rate (T/m/s) of the whole file, all axes together.

        Parameters
        ----------
        gamma
            Gyromagnetic ratio over 2 pi, Hz/T.
        norm
            ``"vector"``: of the vector of the three axes; ``"axis"``: of the largest axis.
        """
        order = 2 if norm == "vector" else np.inf
        gradient = rate = 0.0
        for _, start, end, slope in self.pieces():
            gradient, rate = (
                max(largest, *(float(np.linalg.norm(v, ord=order, axis=1).max()) / gamma for v in values))
                for largest, values in ((gradient, (start, end)), (rate, (slope,)))
            )
        return gradient, math.inf if self.jumps else rate

    def k_of(self, waveforms: Sequence[tuple[np.ndarray, np.ndarray]]) -> Sequence[np.ndarray]:
        """Return k at the samples of each ADC event (sample, 3), 1/m, if other waveforms were played."""
        return KSpace(self.block_edges, self.pulses, self.adcs, waveforms)

    def sampled(self, raster: float, gamma: float, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the gradient at the centres of raster cells (3, cell), T/m, not the means over the cells.

        Parameters
        ----------
        raster
            Duration of a cell, s; that of number 0 starts with the file.
        gamma
            Gyromagnetic ratio over 2 pi, Hz/T.
        start, stop
            The cells, by default up to the file's end; a long file is better taken in parts. Outside it they are 0.
        """
        stop = math.ceil(self.duration / raster - 1e-6) if stop is None else stop
        if stop - start > MOST_POINTS:
            raise InputError(f"{stop - start} cells of {raster:g} s are too many at once; take them in parts.")
        centres = (np.arange(start, stop) + 0.5) * raster
        return np.stack([values_at(centres, t, g, "right") for t, g in self.waveforms]) / gamma


def read(path: Path | str, *, signed: bool = True, larmor: float = math.nan) -> SeqFile:
    """Read and play a Pulseq text file.

    Parameters
    ----------
    path
        The ``.seq`` file.
    signed
        Whether the file must have a signature; one that does not fit is refused either way.
    larmor
        Gyromagnetic ratio over 2 pi times B0, Hz, of which the file may give phases and frequencies in ppm; by default
        the definitions ``Gamma`` (Hz/T) times ``B0`` (T), if the file has both.

    Raises
    ------
    InputError
        If the file is missing, truncated, changed after it was signed, of another version, or holds anything
        that contradicts the format or that this reader does not play; the sentence names the place.
    """
    content = walled.read_bytes(path, _MOST_BYTES)
    try:
        return _Player(parse(content, signed=signed, larmor=larmor), len(content)).play()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, IndexError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__} {error}.") from None


class _Player:
    """Plays the parsed blocks one after the other."""

    def __init__(self, parsed: Parsed, n_bytes: int) -> None:
        self.parsed = parsed
        self.most = min(MOST_POINTS, _FREE_POINTS + _MOST_RATIO * n_bytes)
        self.rasters = {name: parsed.raster(name) for name in _RASTERS}
        self.axes = [Axis(axis) for axis in range(3)]
        self.gradients: dict[tuple[int, float], Gradient | None] = {}
        self.rotated: dict[tuple[int, ...], list[tuple[int, Gradient]]] = {}
        self.envelopes: dict[tuple[int, ...], Envelope] = {}
        self.pulses: dict[tuple[int, float | None], Pulse] = {}
        self.receivers: dict[int, Receiver] = {}
        self.extras: dict[int, Extras] = {0: Extras()}
        self.first_played: dict[int, tuple[int, int, Gradient]] = {}
        self.n_points = 0
        self.labels: dict[str, int] = {}

    def play(self) -> SeqFile:
        """Return what the blocks add up to."""
        blocks = self.parsed.blocks
        if not len(blocks):
            raise InputError("the file has no blocks.")
        edges = array("q", [0])  # in rasters, which add up exactly
        pulses, adcs = list[tuple[int, Pulse]](), list[Adc]()
        labels: dict[str, array[int]] = {}
        soft_delays, ignored = Counter[str](), set[str]()
        raster = self.rasters["BlockDurationRaster"]
        for index, row in enumerate(blocks):
            block, cells, rf, *gradients, adc, extension = row.tolist()
            clock, duration = edges[-1] * raster, cells * raster
            if cells < 0 or not clock + duration < _LONGEST:
                raise InputError(f"block {block} lasts {cells} rasters; a file lasts at most {_LONGEST:g} s.")
            edges.append(edges[-1] + cells)
            extras = self._extras(extension)
            if rf:
                pulses.append((index, self._pulse(rf, extras.shim, block, duration)))
            if any(gradients):
                self._gradients(gradients, extension, block, clock, duration)
            self._label(extras)
            if extras.hint is not None:
                soft_delays[extras.hint] += 1
            ignored |= extras.ignored
            if adc:
                adcs.append(Adc(index, clock, self._receiver(adc, block, duration)))
                for name, value in self.labels.items():
                    labels.setdefault(name, array("q", bytes(8 * (len(adcs) - 1)))).append(value)
        waveforms = tuple(axis.waveform() for axis in self.axes)
        block_edges = np.frombuffer(edges, dtype=np.int64) * raster
        return SeqFile(
            version=self.parsed.version,
            definitions=self.parsed.definitions,
            md5=self.parsed.md5,
            rasters=self.rasters,
            block_numbers=blocks[:, 0].copy(),
            block_edges=block_edges,
            pulses=tuple(pulses),
            adcs=tuple(adcs),
            k=KSpace(block_edges, pulses, adcs, waveforms),
            waveforms=waveforms,
            gradients=tuple(self.first_played.values()),
            jumps=tuple(sorted((j for axis in self.axes for j in axis.jumps), key=lambda j: (j.time, j.axis))),
            edge=max((abs(float(g.values[i])) for g in self.gradients.values() if g for i in (0, -1)), default=0.0),
            labels={
                name: np.frombuffer(labels.get(name, array("q", bytes(8 * len(adcs)))), dtype=np.int64)
                for name in self.labels
            },
            soft_delays=dict(soft_delays),
            ignored=tuple(sorted(ignored)),
        )

    def _pulse(self, event: int, shim: float | None, block: int, duration: float) -> Pulse:
        if (event, shim) not in self.pulses:
            n_known = len(self.envelopes)
            self.pulses[event, shim] = replace(decode_pulse(self.parsed, event, self.envelopes), shim=shim)
            if len(self.envelopes) > n_known:
                self._count(len(self.pulses[event, shim].times))
        pulse = self.pulses[event, shim]
        if pulse.end > duration + SAME_TIME:
            raise InputError(f"RF pulse {event} lasts longer than block {block}.")
        return pulse

    def _gradients(self, events: list[int], extension: int, block: int, clock: float, duration: float) -> None:
        found = [
            self._gradient(event, axis, block, clock, duration) for event, axis in zip(events, self.axes, strict=True)
        ]
        rotation = self.extras[extension].rotation
        if rotation is None:
            played = [(axis, gradient) for axis, gradient in enumerate(found) if gradient]
        else:
            key = (*events, extension)
            if key not in self.rotated:
                if len(self.rotated) == _MOST_ROTATED:
                    self.rotated.clear()
                self.rotated[key] = rotated(found, rotation)
            played = self.rotated[key]
        for axis, gradient in played:
            self._count(len(gradient.times))
            self.axes[axis].add(block, clock, gradient)

    def _gradient(self, event: int, axis: Axis, block: int, clock: float, duration: float) -> Gradient | None:
        if not event:
            return None
        before = axis.value_at(clock) if self.parsed.is_old else 0.0
        if (event, before) not in self.gradients:
            self.gradients[event, before] = decode_gradient(self.parsed, event, before)
        found = self.gradients[event, before]
        if found is None:
            return None
        if found.times[-1] > duration + SAME_TIME:
            raise InputError(f"gradient {event} lasts longer than block {block}.")
        self.first_played.setdefault(event, (block, axis.axis, found))
        return found

    def _receiver(self, event: int, block: int, duration: float) -> Receiver:
        if event not in self.receivers:
            self.receivers[event] = decode_adc(self.parsed, event)
        found = self.receivers[event]
        self._count(found.count)
        if found.delay + (found.count - 0.5) * found.dwell > duration:
            raise InputError(f"ADC {event} lasts longer than block {block}.")
        return found

    def _extras(self, extension: int) -> Extras:
        if extension not in self.extras:
            self.extras[extension] = decode_extensions(self.parsed, extension)
        return self.extras[extension]

    def _label(self, extras: Extras) -> None:
        for is_added, name, value in extras.labels:
            self.labels[name] = value + (self.labels.get(name, 0) if is_added else 0)

    def _count(self, n: int) -> None:
        self.n_points += n
        if self.n_points > self.most:
            raise InputError(f"the file plays more than {self.most} vertices and samples, too many for its size.")


def _stacked(parts: Iterable[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    parts = list(parts)
    lengths = {len(part) for part in parts}
    if len(lengths) > 1:
        raise InputError(f"the ADC events have different numbers of samples: {', '.join(map(str, sorted(lengths)))}.")
    return np.stack(parts) if parts else np.empty(empty)
