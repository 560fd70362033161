"""Lobes: gradients along z in blocks of their own, and what encodes the partitions of a slab."""

from dataclasses import dataclass
from types import SimpleNamespace

import pypulseq as pp

from trajdesign.pulseq.writer import parts
from trajdesign.scanner import Scanner


@dataclass(frozen=True)
class Lobe:
    """A trapezoid along z."""

    gz: SimpleNamespace
    """Its event."""
    duration: float
    """Duration of a block of it alone, a multiple of the block raster, s."""


def lobe(scanner: Scanner, moment: float, slew: float = 1.0) -> Lobe:
    """Return the shortest trapezoid of a moment, 1/m, whose ramps use a part of the scanner's slew rate."""
    limits = parts.system(scanner)
    gz = pp.make_trapezoid("z", area=moment, max_slew=slew * limits.max_slew, system=limits)
    return Lobe(gz, parts.ceil(pp.calc_duration(gz), scanner.block_raster))


class SlabEncoding:
    """The moments along z that encode a partition before each shot, and after it rewind that and spoil.

    They are designed for the first partition, which needs most, and scaled for the others, so that all have the same
    timing. Partition p is at ``k_z = (p - n_partitions // 2) / slab``.

    Parameters
    ----------
    scanner, pulse
        Limits and rasters; the excitation, whose slab gradient is rephased too.
    slab
        Thickness of all partitions, m.
    n_partitions
        Partitions of the slab.
    spoiler
        Moment that is left after a shot, 1/m.
    slew
        Part of the slew rate that lobes may use.
    is_apart
        Whether lobes in blocks of their own play the moments, not the bridges of the shots; by default if the scanner
        needs a label for each distinct sequence of blocks: lobes differ by a factor alone, so that one serves all
        partitions.
    played
        The partitions that are played; by default all.
    """

    def __init__(
        self,
        scanner: Scanner,
        pulse: parts.Pulse,
        slab: float,
        n_partitions: int,
        spoiler: float,
        slew: float,
        *,
        is_apart: bool | None = None,
        played: range | None = None,
    ) -> None:
        self._is_apart = scanner.label_segments and n_partitions > 1 if is_apart is None else is_apart
        played = range(n_partitions) if played is None else played
        kz = {partition: (partition - n_partitions // 2) / slab for partition in played}
        self._moments = {partition: (k - pulse.after, spoiler - k) for partition, k in kz.items()}
        self._first = self._moments[played.start]
        self._lobes = [lobe(scanner, moment, slew) if self._is_apart and moment else None for moment in self._first]
        #: What the bridges of the shots are designed for, before the readout and after it, 1/m.
        self.prephaser, self.rewinder = (0.0, 0.0) if self._is_apart else self._first
        #: Durations of the blocks before and after a shot, s; 0 where there is none.
        self.before, self.after = (0.0 if one is None else one.duration for one in self._lobes)

    def scales(self, partition: int) -> tuple[float, float]:
        """Return the factors of the bridges along z, before the readout and after it."""
        return (1.0, 1.0) if self._is_apart else self._factors(partition)

    def add_encoding(self, sequence: pp.Sequence, partition: int) -> None:
        """Play the block before a shot, if there is one."""
        self._add(sequence, 0, partition)

    def add_rewinding(self, sequence: pp.Sequence, partition: int) -> None:
        """Play the block after a shot, if there is one."""
        self._add(sequence, 1, partition)

    def _add(self, sequence: pp.Sequence, which: int, partition: int) -> None:
        one = self._lobes[which]
        if one is not None:
            sequence.add_block(pp.scale_grad(one.gz, self._factors(partition)[which]), pp.make_delay(one.duration))

    def _factors(self, partition: int) -> tuple[float, float]:
        (before, after), first = self._moments[partition], self._first
        return before / first[0] if first[0] else 1.0, after / first[1] if first[1] else 1.0
