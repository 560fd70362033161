"""When a Pulseq file samples, and the k-space that it then encodes, computed a part at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from trajdesign.pulseq.reader.axis import areas_of, moment_at
from trajdesign.pulseq.reader.events import Pulse, Receiver

#: ADC events that are taken at once.
_PART = 256


@dataclass(frozen=True, slots=True)
class Adc:
    """One played ADC event; what it samples is its `event`'s."""

    #: Index of its block in `SeqFile.block_numbers`.
    index: int
    #: Start of its block, s.
    clock: float
    event: Receiver

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.event.count

    @property
    def dwell(self) -> float:
        """Time per sample, s."""
        return self.event.dwell

    @property
    def times(self) -> np.ndarray:
        """Times of the samples after the start of the file (sample,), s."""
        return self.clock + self.event.times

    @property
    def first(self) -> float:
        """Time of the first sample after the start of the file, s."""
        return self.clock + (self.event.delay + 0.5 * self.event.dwell)


class KSpace(Sequence[np.ndarray]):
    """K at the samples of each ADC event (sample, 3), 1/m, as the pulses reset and refocus it.

    It is computed when it is asked for: of a long file it takes far more memory than the file. The arguments are those
    of `SeqFile`.
    """

    def __init__(
        self,
        edges: np.ndarray,
        pulses: Sequence[tuple[int, Pulse]],
        adcs: Sequence[Adc],
        waveforms: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        self.adcs = adcs
        self.curves = [(t, g, areas_of(t, g)) for t, g in waveforms]
        acting = [(edges[i] + pulse.centre, pulse.use) for i, pulse in pulses if pulse.use in "eur"]
        self.centres = np.array([time for time, _ in acting])
        offsets = [np.zeros(3)]
        for (_, use), moment in zip(acting, self._moments(self.centres), strict=True):
            offsets.append(-2 * moment - offsets[-1] if use == "r" else -moment)
        self.offsets = np.array(offsets)
        self.kept: tuple[int, Sequence[np.ndarray]] = -1, []

    def __len__(self) -> int:
        """Return the number of ADC events."""
        return len(self.adcs)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        """Return k at the samples of an ADC event, or of some."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        part, place = divmod(range(len(self))[index], _PART)
        if self.kept[0] != part:  # who asks for one event will ask for the next
            self.kept = part, self._of(self.adcs[part * _PART : (part + 1) * _PART])
        return self.kept[1][place]

    def _of(self, adcs: Sequence[Adc]) -> Sequence[np.ndarray]:
        times = np.concatenate([adc.times for adc in adcs])
        k = self._moments(times) + self.offsets[np.searchsorted(self.centres, times, side="right")]
        return np.split(k, np.cumsum([adc.count for adc in adcs])[:-1])

    def _moments(self, times: np.ndarray) -> np.ndarray:
        return np.stack([moment_at(times, *curve) for curve in self.curves], axis=1)
