"""What a Pulseq file plays: its pulses, its gradients as straight pieces, and k when it samples."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from trajdesign.errors import InputError
from trajdesign.pulseq.reader.axis import Jump, slopes_at, values_at
from trajdesign.pulseq.reader.events import SAME_TIME, Gradient, Pulse
from trajdesign.pulseq.reader.kspace import Adc, KSpace
from trajdesign.pulseq.reader.parser import MOST_POINTS, number
from trajdesign.pulseq.reader.waits import SoftDelay

#: Straight pieces that are taken at once.
_PART = 2**16


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
    label_sets
        Per label, the index of each block that changes it, and its value from there on (change, 2).
    soft_delays
        Of each block that the user may stretch at the scanner. They are played as long as the file stores them.
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
    label_sets: dict[str, np.ndarray]
    soft_delays: tuple[SoftDelay, ...]
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


def _stacked(parts: Iterable[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    parts = list(parts)
    lengths = {len(part) for part in parts}
    if len(lengths) > 1:
        raise InputError(f"the ADC events have different numbers of samples: {', '.join(map(str, sorted(lengths)))}.")
    return np.stack(parts) if parts else np.empty(empty)
