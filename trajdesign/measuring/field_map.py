"""Reconstruction in a known static field: a map of the off-resonance of each slice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.static_field import segments
from trajdesign.errors import InputError
from trajdesign.exporting import reception
from trajdesign.files.arrays import read_npy
from trajdesign.measuring import solving
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.geometry import k_of
from trajdesign.pulseq import coherence

# What the terms in time leave of a voxel's signal.
_TOLERANCE = 1e-4
# Shots whose samples lie so much apart in time, s, are not taken to be alike.
_SAME_TIME = 1e-6
# More than any shim leaves, Hz.
_LARGEST = 5000.0


def in_field(found: Assigned, encodings: Sequence[Encoding], path: Path) -> tuple[list[Encoding], tuple[float, float]]:
    """Return the encodings of slices in a field, and the lowest and highest off-resonance, Hz.

    Time counts from the excitation, or a spin echo, as the Pulseq file tells it; without one from the first sample.

    Parameters
    ----------
    found, encodings
        The samples, and where those of each slice lie.
    path
        ``.npy`` of the off-resonance (y, x) or (slice, y, x), Hz, positive where the field is higher, on the pixels of
        the images.

    Raises
    ------
    InputError
        If it is no such map, or the shots are not sampled at the same times.
    """
    maps = _read(path, found.acquisition, len(encodings))
    ends = float(maps.min()), float(maps.max())
    there = []
    for number, (encoding, off_resonance) in enumerate(zip(encodings, maps, strict=True)):
        terms = segments(_times(found, number), ends, tolerance=_TOLERANCE)
        known = solving.encoding_at(k_of(encoding), found.acquisition, segments=terms)
        there.append(known.in_field(terms.maps(torch.from_numpy(off_resonance)[None])))
    return there, ends


def _times(found: Assigned, number: int) -> torch.Tensor:
    """Return the time of each sample (sample,), s, over which the field acts in a slice."""
    if found.played is None:
        if not found.is_timed:
            raise InputError("the raw file does not tell the time between samples, over which a field acts.")
        return torch.arange(found.kspace.shape[-1], dtype=torch.float64) * found.acquisition.dwell
    times = reception.stacked(coherence.dephasing(found.played), found.events[number].ravel())
    if np.ptp(times, axis=0).max() > _SAME_TIME:
        raise InputError("the shots are not sampled at the same times after their excitations; no map serves all.")
    return torch.from_numpy(times[0].astype(np.float64))


def _read(path: Path, acquisition: Acquisition, n_slices: int) -> NDArray[np.float64]:
    """Return the off-resonance (slice, y, x), Hz."""
    values = read_npy(path)
    one, several = acquisition.image_shape, (n_slices, *acquisition.image_shape)
    if values.dtype.kind not in "fiu" or values.shape not in (one, several):
        raise InputError(f"{path} holds {values.dtype} of shape {values.shape}; a map is real, {one} or {several}.")
    if not (np.abs(values) <= _LARGEST).all():
        raise InputError(f"{path} is not finite, or beyond {_LARGEST:g} Hz; is it in rad/s?")
    return np.broadcast_to(values, several).astype(np.float64)
