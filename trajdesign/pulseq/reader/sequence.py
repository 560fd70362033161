"""What a Pulseq file plays: its pulses, its gradients as straight pieces, and k when it samples."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Literal

import numpy as np

from trajdesign.errors import ConfigError, InputError
from trajdesign.pulseq.reader.axis import Jump, slopes_at, values_at
from trajdesign.pulseq.reader.events import SAME_TIME, Gradient, Pulse
from trajdesign.pulseq.reader.extensions import SoftDelay
from trajdesign.pulseq.reader.kspace import Adc, KSpace
from trajdesign.pulseq.reader.parser import MOST_POINTS, number
from trajdesign.scanner import Nucleus, Scanner, told_nucleus

#: Straight pieces that are taken at once.
_PART = 2**16


@dataclass(frozen=True)
class Stored:
    """What a console must read and keep, before it plays anything."""

    #: Size of the file.
    n_bytes: int
    #: Name of a table of events or of an extension -> its rows.
    n_rows: dict[str, int]
    #: Shapes, their samples, and the numbers in which the file stores these.
    n_shapes: int
    n_samples: int
    n_numbers: int


@dataclass(frozen=True)
class SeqFile:
    """What a scanner plays and when it samples."""

    #: Version of the file format.
    version: str
    #: The file's definitions, as text.
    definitions: dict[str, str]
    #: The file's signature, which fits its content; empty if there is none.
    md5: str
    #: Name of the definition -> raster of gradients, pulses and blocks, s.
    rasters: dict[str, float]
    #: Number of each block in the file (block,).
    block_numbers: np.ndarray
    #: Starts of the blocks and the end of the last (block + 1,), s.
    block_edges: np.ndarray
    #: Each played pulse with the index of its block.
    pulses: tuple[tuple[int, Pulse], ...]
    adcs: tuple[Adc, ...]
    #: K at the samples of each ADC event (sample, 3), 1/m.
    k: Sequence[np.ndarray]
    #: Times (vertex,), s, and values (vertex,), Hz/m, of each axis' gradient; a jump has two vertices of one time.
    waveforms: tuple[tuple[np.ndarray, np.ndarray], ...]
    #: Each gradient event with the number of the block and the axis that play it first.
    gradients: tuple[tuple[int, int, Gradient], ...]
    #: Where a gradient jumps by more than rounding.
    jumps: tuple[Jump, ...]
    #: Largest gradient at the first or last instant of any gradient event, Hz/m.
    edge: float
    #: Value of each label of the file at each ADC event (adc,), 0 before it is first set. A block sets its labels
    #: before it samples.
    labels: dict[str, np.ndarray]
    #: Index of each block that changes a label, and the value from there on (change, 2).
    label_sets: dict[str, np.ndarray]
    #: Delays that the user may change at the scanner. They are played as long as the file stores them.
    soft_delays: tuple[SoftDelay, ...]
    #: Indices of the blocks that wait for a trigger. They are played as long as the file stores them.
    waits: tuple[int, ...]
    #: Extensions that blocks use, this reader does not know, and the file does not require.
    ignored: tuple[str, ...]
    stored: Stored

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

    @cached_property
    def pulse_spans(self) -> np.ndarray:
        """Start and end of each pulse (2, pulse), s."""
        spans = np.array([(pulse.delay, pulse.end) for _, pulse in self.pulses]).reshape(-1, 2).T
        return np.asarray(self.block_edges[[i for i, _ in self.pulses]] + spans)

    def label(self, name: str) -> np.ndarray:
        """Return the value of a label at each ADC event (adc,); 0 if the file lacks it."""
        return self.labels.get(name, np.zeros(len(self.adcs), dtype=np.int64))

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

    def nucleus(self, path: Path | str) -> Nucleus:
        """Return the nucleus and its gamma from the definitions of the file, where they are there.

        Raises
        ------
        InputError
            If they make no sense; the sentence names the `path`.
        """
        gamma = self.definitions.get("Gamma")
        try:
            return told_nucleus(self.definitions.get("Nucleus"), None if gamma is None else number(gamma))
        except (ConfigError, InputError, ValueError) as error:
            raise InputError(f"{path}: definitions Nucleus and Gamma: {error}") from None

    def scanner(self, path: Path | str) -> Scanner:
        """Return a scanner for the nucleus of the file, as `nucleus` reads it; a file tells no limits."""
        return Scanner(**self.nucleus(path))

    @property
    def is_calibration(self) -> np.ndarray:
        """Which ADC events are for coil maps alone (adc,): they have the label ``REF``, and not ``IMA``."""
        return np.asarray((self.label("REF") != 0) & (self.label("IMA") == 0))

    def for_image(self) -> "SeqFile":
        """Return the file without noise scans, calibration, and ADC events before any excitation."""
        start = self.excitations.min(initial=math.inf)
        is_object = np.array([adc.times[0] >= start for adc in self.adcs], dtype=bool)
        return self.only(is_object & (self.label("NOISE") == 0) & ~self.is_calibration)

    def only(self, which: np.ndarray) -> "SeqFile":
        """Return the file with the ADC events of a mask (adc,) alone."""
        labels = {name: values[which] for name, values in self.labels.items()}
        adcs, k = tuple(compress(self.adcs, which)), tuple(compress(self.k, which))
        return replace(self, adcs=adcs, k=k, labels=labels)

    def block_at(self, time: float) -> int:
        """Return the number of the block that plays at a time, s."""
        index = int(np.searchsorted(self.block_edges, time, side="right")) - 1
        return int(self.block_numbers[min(max(index, 0), len(self.block_numbers) - 1)])

    def gradient_at(self, times: np.ndarray, side: Literal["left", "right"] = "right") -> np.ndarray:
        """Return the gradient at times (..., 3), Hz/m, on one side of jumps; 0 outside the file."""
        return np.stack([values_at(times, t, g, side) for t, g in self.waveforms], axis=-1)

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the straight pieces of which the gradient of all axes consists, some at a time.

        Every vertex of every axis ends a piece. Where only rounding separates the vertices of two axes, the piece
        between them is too short for anything to happen: there only the axis of the largest slope counts.

        Yields
        ------
        times
            Ends of the pieces (piece + 1,), s.
        start, end
            The gradient at both ends of each piece (piece, 3), Hz/m; they differ from the neighbour's at jumps.
        slope
            Slope of each piece (piece, 3), Hz/m/s.
        """
        vertices = np.unique(np.concatenate([t for t, _ in self.waveforms]))
        for first in range(0, len(vertices) - 1, _PART):
            times = vertices[first : first + _PART + 1]
            start, end = self.gradient_at(times[:-1]), self.gradient_at(times[1:], "left")
            slope = np.stack([slopes_at(times[:-1], t, g) for t, g in self.waveforms], axis=1)
            is_short = np.diff(times)[:, None] <= SAME_TIME
            size = np.abs(slope)
            slope[is_short & (size < size.max(axis=1, keepdims=True))] = 0
            yield times, start, end, slope

    def extremes(self, gamma: float, norm: str = "vector") -> tuple[float, float]:
        """Return the largest gradient (T/m) and slew rate (T/m/s), which is infinite where the gradient jumps.

        With the `norm` ``"vector"`` they are those of the vector of the three axes, with ``"axis"`` of the largest one.
        """
        order = 2 if norm == "vector" else np.inf
        gradient = rate = 0.0
        for _, start, end, slope in self.pieces():
            sizes = [float(np.linalg.norm(v, ord=order, axis=1).max()) / gamma for v in (start, end, slope)]
            gradient, rate = max(gradient, *sizes[:2]), max(rate, sizes[2])
        return gradient, math.inf if self.jumps else rate

    def k_of(self, waveforms: Sequence[tuple[np.ndarray, np.ndarray]]) -> Sequence[np.ndarray]:
        """Return k at the samples of each ADC event (sample, 3), 1/m, if other waveforms were played."""
        return KSpace(self.block_edges, self.pulses, self.adcs, waveforms)

    def sampled(self, raster: float, gamma: float, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the gradient at the centres of raster cells (3, cell), T/m, not the means over the cells.

        Cells last `raster`, s, and number 0 starts with the file; by default they end with it, and outside it the
        gradient is 0. A long file is better taken in parts. `gamma` is the gyromagnetic ratio over 2 pi, Hz/T.
        """
        stop = math.ceil(self.duration / raster - 1e-6) if stop is None else stop
        if stop - start > MOST_POINTS:
            raise InputError(f"{stop - start} cells of {raster:g} s are too many at once; take them in parts.")
        centres = (np.arange(start, stop) + 0.5) * raster
        return self.gradient_at(centres).T / gamma


def _stacked(parts: Iterable[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    parts = list(parts)
    lengths = {len(part) for part in parts}
    if len(lengths) > 1:
        raise InputError(f"the ADC events have different numbers of samples: {', '.join(map(str, sorted(lengths)))}.")
    return np.stack(parts) if parts else np.empty(empty)
