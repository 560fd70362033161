"""ISMRMRD raw data (Inati et al., MRM 2017, doi:10.1002/mrm.26089): which acquisitions are the lines of which slice."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from trajdesign.data.coverage import require_lines, require_sides
from trajdesign.data.hdf5 import reader
from trajdesign.data.ismrmrd_header import Header
from trajdesign.errors import InputError

# Bits of the flags, as the format numbers them from 1.
_REVERSED = 22
# Noise, calibration alone, navigator, phase correction, feedback, dummy, surface coil correction, phase stabilisation.
_NO_LINES = (19, 20, 23, 24, 26, 27, 28, 29, 30, 31)
_COUNTERS = ("kspace_encode_step_2", "contrast", "phase", "repetition", "set")


@dataclass(frozen=True, eq=False)
class Index:
    """Where the lines of a file are; the slices are in the order of their position."""

    shape: tuple[int, int, int]
    """Of a slice: (coil, readout, line)."""
    lines: list[NDArray[np.int64]]
    """By slice, line, place of the first sample, and samples to leave out at the start and at the end (entry, 4)."""
    references: list[NDArray]
    """By slice, where the samples are in the file (entry,), see `trajdesign.data.hdf5.reader.sequences`."""


def index(group: h5py.Group, header: Header, path: Path) -> Index:
    """Sort the acquisitions of a file: the lines of one contrast, all there, none backwards, as long as they say."""
    if header.trajectory not in ("cartesian", ""):
        raise InputError(f"{path} holds no Cartesian k-space; reconstruct it, and give the images to 'images'.")
    if not all(2 <= size < 2**16 for size in header.encoded_matrix):
        raise InputError(f"{path}: the encoded matrix of its header is {header.encoded_matrix}.")
    n_readout, n_lines = (int(size) for size in header.encoded_matrix)
    centre = int(header.lines[2]) if 0 <= header.lines[2] < 2**16 else n_lines // 2
    rows = reader.table(reader.member(group, "data"))
    if not {"head", "data"} <= set(rows.dtype.names or ()) or rows.dtype["head"].names is None:
        raise InputError(f"{path}: 'data' holds no acquisitions of ISMRMRD.")
    heads, references = rows["head"], rows["data"]
    other = sum(np.uint64(1) << np.uint64(bit - 1) for bit in _NO_LINES)
    numbers = np.flatnonzero((heads["flags"] & other == 0) & (heads["encoding_space_ref"] == 0))
    heads, references = heads[numbers], references[numbers]
    if not len(heads):
        raise InputError(f"{path} holds no line of k-space.")
    if not header.trajectory and (heads["trajectory_dimensions"] > 0).any():
        raise InputError(f"{path} has a trajectory, and its header does not say that it is Cartesian.")
    for counter in _COUNTERS:
        if len(found := np.unique(heads["idx"][counter])) > 1:
            raise InputError(f"{path} holds {len(found)} of the counter {counter}; keep one of them in a file.")
    if (heads["flags"] & (np.uint64(1) << np.uint64(_REVERSED - 1))).any():
        raise InputError(f"{path} holds lines read backwards, as of an EPI, which need a phase correction first.")
    coils = np.unique(heads["active_channels"])
    lines = heads["idx"]["kspace_encode_step_1"].astype(np.int64) - centre + n_lines // 2
    places = n_readout // 2 - heads["center_sample"].astype(np.int64)
    n_samples = heads["number_of_samples"].astype(np.int64)
    left_out = np.stack([heads["discard_pre"], heads["discard_post"]], axis=-1).astype(np.int64)
    ends = places + n_samples
    if len(coils) != 1 or coils[0] < 1 or min(lines.min(), places.min()) < 0 or lines.max() >= n_lines:
        raise InputError(
            f"{path}: its acquisitions have {coils} channels, or lie outside its matrix, {n_readout} x {n_lines}."
        )
    if ends.max() > n_readout:
        raise InputError(f"{path}: acquisitions of {n_samples.max()} samples leave a readout of {n_readout}.")
    wrong = (references["n"] != 2 * int(coils[0]) * n_samples) | (left_out.sum(axis=1) > n_samples)
    if (wrong | (left_out.min(axis=1) < 0)).any():
        raise InputError(
            f"{path}: acquisition {numbers[np.argmax(wrong)]} does not have the samples that it announces."
        )
    latest, earliest = (places + left_out[:, 0]).max(), (ends - left_out[:, 1]).min()
    require_sides(int(latest), int(earliest), n_readout, "a readout", path)
    entries = np.column_stack([lines, places, left_out])
    slices = _by_slice(heads)
    for number, which in enumerate(slices):
        require_lines(np.unique(lines[which]), n_lines, number, "y", path)
    shape = (int(coils[0]), n_readout, n_lines)
    return Index(shape, [entries[which] for which in slices], [references[which] for which in slices])


def read(path: Path, index: Index, number: int) -> NDArray[np.complex64]:
    """Return the k-space (coil, readout, line) of a slice, averages averaged; what was not measured is zero."""
    lines, kspace = index.lines[number], np.zeros(index.shape, dtype=np.complex64)
    found = reader.sequences(path, index.references[number])
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is used
        for values, (line, place, before, after) in zip(found, lines.tolist(), strict=True):
            samples = values.view(np.complex64).reshape(index.shape[0], -1)
            samples = samples[:, before : samples.shape[1] - after]
            first = place + before
            kspace[:, first : first + samples.shape[1], line] += samples
        kspace /= np.maximum(np.bincount(lines[:, 0], minlength=index.shape[2]), 1)
    return kspace


def _by_slice(heads: NDArray) -> list[NDArray[np.intp]]:
    """Return which acquisitions are of each slice, along the slices' normal; by number where they have no position."""
    numbers, first, counts = np.unique(heads["idx"]["slice"], return_index=True, return_counts=True)
    height = (heads["position"][first] * heads["slice_dir"][first[0]]).sum(axis=-1).round(3)
    parts = np.split(np.argsort(heads["idx"]["slice"], kind="stable"), np.cumsum(counts)[:-1])
    return [parts[i] for i in np.lexsort((numbers, height))]
