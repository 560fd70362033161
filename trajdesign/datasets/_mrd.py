"""ISMRMRD raw data (Inati et al., MRM 2017, doi:10.1002/mrm.26089): which acquisitions are the lines of which slice."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from trajdesign.datasets._hdf5 import member
from trajdesign.errors import InputError

# Bits of the flags, as the format numbers them from 1.
_REVERSED = 22
# Noise, calibration alone, navigator, phase correction, feedback, dummy, surface coil correction, phase stabilisation.
_NO_LINES = (19, 20, 23, 24, 26, 27, 28, 29, 30, 31)
_COUNTERS = ("kspace_encode_step_2", "contrast", "phase", "repetition", "set")


@dataclass(frozen=True)
class Matrix:
    """Samples of a readout, lines, and the number of the line in the centre of k-space."""

    n_readout: int
    n_lines: int
    centre: int


@dataclass(frozen=True, eq=False)
class Index:
    """Where the lines are.

    Parameters
    ----------
    shape
        Of a slice's k-space: (coil, readout, line).
    slices
        Per slice, in order of position: the acquisition, the line and the first sample's place of each (entry, 3).
    """

    shape: tuple[int, int, int]
    slices: list[NDArray[np.int64]]


def index(group: h5py.Group, matrix: Matrix, path: Path) -> Index:
    """Sort the acquisitions of a file.

    Raises
    ------
    InputError
        If a line is missing, there is more than one contrast, phase, repetition, set or partition, lines are read
        backwards, or acquisitions do not fit the matrix.
    """
    data = member(group, "data", path)
    if data.dtype.names is None or "head" not in data.dtype.names or data.ndim != 1:
        raise InputError(f"{path}: 'data' holds no acquisitions of ISMRMRD.")
    heads = data["head"]
    other = sum(np.uint64(1) << np.uint64(bit - 1) for bit in _NO_LINES)
    numbers = np.flatnonzero((heads["flags"] & other == 0) & (heads["encoding_space_ref"] == 0))
    heads = heads[numbers]
    if not len(heads):
        raise InputError(f"{path} holds no line of k-space.")
    for counter in _COUNTERS:
        if len(found := np.unique(heads["idx"][counter])) > 1:
            raise InputError(f"{path} holds {len(found)} of the counter {counter}; keep one of them in a file.")
    if (heads["flags"] & (np.uint64(1) << np.uint64(_REVERSED - 1))).any():
        raise InputError(f"{path} holds lines read backwards, as of an EPI, which need a phase correction first.")
    coils = np.unique(heads["active_channels"])
    lines = heads["idx"]["kspace_encode_step_1"].astype(np.int64) - matrix.centre + matrix.n_lines // 2
    places = matrix.n_readout // 2 - heads["center_sample"].astype(np.int64)
    ends = places + heads["number_of_samples"]
    if len(coils) != 1 or min(lines.min(), places.min()) < 0 or lines.max() >= matrix.n_lines:
        raise InputError(f"{path}: its acquisitions have {coils} channels, or lie outside its matrix, {matrix}.")
    if ends.max() > matrix.n_readout:
        raise InputError(f"{path}: acquisitions of {heads['number_of_samples'].max()} samples leave {matrix}.")
    entries = np.stack([numbers, lines, places], axis=-1)
    slices = [entries[heads["idx"]["slice"] == number] for number in _in_order(heads)]
    for number, of_slice in enumerate(slices):
        present = np.unique(of_slice[:, 1])
        if len(missing := np.setdiff1d(np.arange(present[0], present[-1] + 1), present)):
            raise InputError(
                f"{path}: line {missing[0]} of slice {number} was not measured, one of {len(missing)}; "
                "training needs images of full sampling: reconstruct them, and give them to 'images'."
            )
    return Index((int(coils[0]), matrix.n_readout, matrix.n_lines), slices)


def read(group: h5py.Group, index: Index, number: int, path: Path) -> NDArray[np.complex64]:
    """Return the k-space (coil, readout, line) of a slice, averages averaged; what was not measured is zero."""
    entries = index.slices[number]
    kspace = np.zeros(index.shape, dtype=np.complex64)
    acquisitions = member(group, "data", path)[entries[:, 0]]
    for (head, _, values), (_, line, place) in zip(acquisitions, entries, strict=True):
        samples = np.asarray(values, dtype=np.float32).view(np.complex64).reshape(index.shape[0], -1)
        samples = samples[:, head["discard_pre"] : samples.shape[1] - head["discard_post"]]
        first = place + head["discard_pre"]
        kspace[:, first : first + samples.shape[1], line] += samples
    averages = np.maximum(np.bincount(entries[:, 1], minlength=index.shape[2]), 1)
    kspace /= averages
    return kspace


def _in_order(heads: NDArray) -> list[int]:
    """Return the numbers of the slices along their normal; by number where they have no position."""
    numbers, first = np.unique(heads["idx"]["slice"], return_index=True)
    height = (heads["position"][first] * heads["slice_dir"][first[0]]).sum(axis=-1).round(3)
    return [int(numbers[i]) for i in np.lexsort((numbers, height))]
