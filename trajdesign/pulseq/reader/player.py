"""A reader and player of Pulseq text files (1.4 and 1.5) that shares no code with any writer.

It plays the file as the format's specification says (straight lines between raster centres, first and last values
at the edges of each event, no gradient where there is no event), and integrates the result exactly: what it returns is
what a scanner that follows the specification will do.

An excitation sets k to 0 at its centre and a refocusing pulse reverses its sign; a pulse of undefined use excites. The
other pulses (inversion, saturation, preparation, other) act on magnetisation that the next excitation reads, and leave
k as it is. Before the first excitation, k counts from the start of the file: noise scans have a k that means nothing.
Specification: https://pulseq.github.io/specification.pdf.
"""

import math
from array import array
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from trajdesign.errors import InputError
from trajdesign.files import untrusted
from trajdesign.pulseq.reader.axis import Axis
from trajdesign.pulseq.reader.events import (
    SAME_TIME,
    Envelope,
    Gradient,
    Pulse,
    Receiver,
    decode_adc,
    decode_gradient,
    decode_pulse,
)
from trajdesign.pulseq.reader.extensions import Extras, SoftDelay, decode_extensions, rotated
from trajdesign.pulseq.reader.kspace import Adc, KSpace
from trajdesign.pulseq.reader.parser import MOST_POINTS, Parsed, parse
from trajdesign.pulseq.reader.sequence import SeqFile, Stored

_RASTERS = ("GradientRasterTime", "RadiofrequencyRasterTime", "BlockDurationRaster")
_ADC_RASTER = "AdcRasterTime"

#: A bound that no sensible file reaches, so that a hostile one cannot fill the memory.
_MOST_BYTES = 2**28

#: Vertices and samples: so many, and so many for each byte, as a block of 25 bytes plays any event again.
_FREE_POINTS, _MOST_RATIO = 2**22, 1000

#: Turned blocks that are remembered: a file may turn each by another angle.
_MOST_ROTATED = 2**12


#: Beyond it, s, times lose the digits that rasters need.
_LONGEST = 1e5


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
    content = untrusted.read_bytes(path, _MOST_BYTES)
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
        self.n_bytes = n_bytes
        self.most = min(MOST_POINTS, _FREE_POINTS + _MOST_RATIO * n_bytes)
        self.rasters = {name: parsed.raster(name) for name in _RASTERS}
        if _ADC_RASTER in parsed.definitions:  # by which nothing is placed, but the scanner goes by it
            parsed.raster(_ADC_RASTER)
        self.axes = [Axis(axis) for axis in range(3)]
        self.gradients: dict[tuple[int, float], Gradient | None] = {}
        self.rotated: dict[tuple[int, ...], list[tuple[int, Gradient]]] = {}
        self.envelopes: dict[tuple[int, ...], Envelope] = {}
        self.pulses: dict[tuple[int, float | None], Pulse] = {}
        self.decode_receiver = cache(partial(decode_adc, parsed))
        self.decode_extras = cache(partial(decode_extensions, parsed))
        self.first_played: dict[int, tuple[int, int, Gradient]] = {}
        self.n_points = 0
        self.labels: dict[str, int] = {}
        self.label_sets: dict[str, array[int]] = {}

    def play(self) -> SeqFile:
        """Return what the blocks add up to."""
        blocks = self.parsed.blocks
        if not len(blocks):
            raise InputError("the file has no blocks.")
        edges = array("q", [0])  # in rasters, which add up exactly
        pulses, adcs = list[tuple[int, Pulse]](), list[Adc]()
        labels: dict[str, array[int]] = {}
        soft_delays, waits, ignored = list[SoftDelay](), list[int](), set[str]()
        raster = self.rasters["BlockDurationRaster"]
        for index, row in enumerate(blocks):
            block, cells, rf, *gradients, adc, extension = row.tolist()
            clock, duration = edges[-1] * raster, cells * raster
            if cells < 0 or not clock + duration < _LONGEST:
                raise InputError(f"block {block} lasts {cells} rasters; a file lasts at most {_LONGEST:g} s.")
            edges.append(edges[-1] + cells)
            extras = self._extras(extension, block, duration)
            if rf:
                pulses.append((index, self._pulse(rf, extras.shim, block, duration)))
            if any(gradients):
                self._gradients(gradients, extension, block, clock, duration)
            self._label(extras, index)
            if extras.delay is not None:
                soft_delays.append(replace(extras.delay, index=index, is_empty=not (rf or adc or any(gradients))))
            if extras.waits:
                waits.append(index)
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
            label_sets={
                name: np.frombuffer(pairs, dtype=np.int64).reshape(-1, 2) for name, pairs in self.label_sets.items()
            },
            soft_delays=tuple(soft_delays),
            waits=tuple(waits),
            ignored=tuple(sorted(ignored)),
            stored=self._stored(),
        )

    def _stored(self) -> Stored:
        rows = {name: len(table) for name, table in self.parsed.tables.items()}
        rows |= {extension.name: len(extension.rows) for extension in self.parsed.extensions.values()}
        shapes = self.parsed.shapes.values()
        return Stored(self.n_bytes, rows, len(shapes), sum(map(len, shapes)), self.parsed.n_numbers)

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
        rotation = self.decode_extras(extension).rotation
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
        found = self.decode_receiver(event)
        self._count(found.count)
        if found.delay + (found.count - 0.5) * found.dwell > duration:
            raise InputError(f"ADC {event} lasts longer than block {block}.")
        return found

    def _extras(self, extension: int, block: int, duration: float) -> Extras:
        found = self.decode_extras(extension)
        if found.trigger > duration + SAME_TIME:
            raise InputError(
                f"a trigger ends {found.trigger * 1e3:.6g} ms into block {block}, which lasts {duration * 1e3:.6g} ms."
            )
        return found

    def _label(self, extras: Extras, index: int) -> None:
        for is_added, name, value in extras.labels:
            self.labels[name] = value + (self.labels.get(name, 0) if is_added else 0)
            self.label_sets.setdefault(name, array("q")).extend((index, self.labels[name]))

    def _count(self, n: int) -> None:
        self.n_points += n
        if self.n_points > self.most:
            raise InputError(f"the file plays more than {self.most} vertices and samples, too many for its size.")
