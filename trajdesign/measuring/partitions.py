"""Volumes that are stacks: every partition samples the same k in plane, each at its own k along z.

Along z the k of a stack of n partitions is a grid of steps 1/slab, from -(n // 2) on. So a Fourier transform along z
makes of the partitions, exactly, the k-space of n slices, each of them an image of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.errors import InputError
from trajdesign.measuring.reception import distance, stacked
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.trajectory import MAX_K_ERROR_FOV


@dataclass(frozen=True)
class Stack:
    """The partitions of a volume.

    Parameters
    ----------
    numbers
        Where each lies along k_z (partition,), in steps of 1/slab.
    thickness
        Of a slice that the transform makes, m.
    """

    numbers: NDArray[np.int64]
    thickness: float

    def slices(self, kspace: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """Return k-space (frame, slice, ...) of k-space (frame, partition, ...), the lowest z first."""
        found: NDArray[np.complex64] = np.einsum("zp,fp...->fz...", self._waves / len(self.numbers), kspace)
        return found.astype(np.complex64)

    def partitions(self, kspace: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """Return k-space (frame, partition, ...) of which `slices` makes k-space (frame, slice, ...)."""
        found: NDArray[np.complex64] = np.einsum("zp,fz...->fp...", self._waves.conj(), kspace)
        return found.astype(np.complex64)

    @property
    def _waves(self) -> NDArray[np.complex64]:
        n = len(self.numbers)
        turns = np.outer(np.arange(n) - n // 2, self.numbers) / n
        return np.exp(2j * math.pi * turns).astype(np.complex64)


def as_slices(file: SeqFile, imaging: NDArray[np.bool_], path: Path) -> tuple[SeqFile, bool]:
    """Return a file whose partitions (label ``PAR``) of one slab are called slices (``SLC``), and whether it has any.

    `imaging` tells which ADC events are of the image (adc,).
    """
    if not file.label("PAR")[imaging].any():
        return file, False
    if np.ptp(file.label("SLC")[imaging]):
        raise InputError(f"{path} encodes partitions (label PAR) of several slabs (SLC); only one is reconstructed.")
    labels = {name: values for name, values in file.labels.items() if name != "PAR"}
    return replace(file, labels={**labels, "SLC": file.labels["PAR"]}), True


def stack_of(played: SeqFile, partitions: Sequence[NDArray[np.integer]], acquisition: Acquisition, path: Path) -> Stack:
    """Return what the k of a file tells of its partitions.

    Parameters
    ----------
    played
        What samples the object.
    partitions
        Its ADC events, of each partition (shot, average).
    acquisition
        Field of view.
    path
        Of the file, for sentences.

    Raises
    ------
    InputError
        If k along z changes within a partition, or is no such grid, or k in plane differs between partitions.
    """
    of_events = [np.stack([played.k[int(i)][:, 2] for i in events.ravel()]) for events in partitions]
    heights = np.array([kz.mean() for kz in of_events])
    n = len(partitions)
    step = float(np.ptp(heights)) / (n - 1)
    numbers = np.round(heights / step).astype(np.int64) if step > 0 else np.zeros(n, dtype=np.int64)
    if sorted(numbers) != list(range(-(n // 2), n - n // 2)):
        raise InputError(
            f"{path} has {n} partitions (label PAR) at k along z of {heights.min():.4g} to {heights.max():.4g} 1/m, "
            f"which are not even steps from -{n // 2} on; others are not reconstructed."
        )
    off = max(float(np.abs(kz - number * step).max()) for kz, number in zip(of_events, numbers, strict=True)) / step
    if not off <= MAX_K_ERROR_FOV:
        raise InputError(
            f"{path} has partitions (label PAR) in which k along z is up to {off:.3g} steps from where it should be; "
            "true 3D trajectories are not reconstructed."
        )
    first = torch.from_numpy(stacked(played.k, partitions[0][:, 0]))
    apart = max(distance(stacked(played.k, events), first, acquisition) for events in partitions)
    if not apart <= MAX_K_ERROR_FOV:
        raise InputError(
            f"{path} samples other k in plane in its partitions (label PAR), up to {apart:.3g}/FOV apart; only stacks "
            "of the same shots are reconstructed."
        )
    return Stack(numbers, 1 / (n * step))
