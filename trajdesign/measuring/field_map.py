"""Reconstruction in a static field: by a map of the off-resonance of each slice, or one that the data themselves tell.

Where no map was measured, the field is the one in which the image is sharpest (Noll et al., MRM 1992,
doi:10.1002/mrm.1910250210): of conjugate-phase images at many frequencies the one, about each pixel, of which the least
is left beside its own smooth phase. It needs edges to go by, and an object whose own phase is smooth.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.static_field import segments
from trajdesign.errors import InputError
from trajdesign.files.arrays import read_npy
from trajdesign.measuring import reception, solving
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.geometry import k_of
from trajdesign.pulseq import coherence
from trajdesign.reconstruction.brightness import brightness
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reconstruction.sense import with_maps

# Frequencies that are tried: how far apart, turns over the readout, and up to which, Hz.
_STEP, _FARTHEST = 1 / 12, 200.0
# Of Gaussians, as parts of the matrix: of the image's own phase, of the window about a pixel, and of the field.
_WIDTHS = 0.011, 0.018, 0.045
# What the terms in time leave of a voxel's signal.
_TOLERANCE = 1e-4
# Shots whose samples lie so much apart in time, s, are not taken to be alike.
_SAME_TIME = 1e-6
# More than any shim leaves, Hz.
_LARGEST = 5000.0


def in_field(
    found: Assigned, encodings: Sequence[Encoding], path: Path | str
) -> tuple[list[Encoding], NDArray[np.float64]]:
    """Return the encodings of slices, or of a volume, in a field, and its off-resonance (slice, y, x), Hz.

    Time counts from the excitation, or a spin echo, as the Pulseq file tells it; without one from the first sample.

    Parameters
    ----------
    found, encodings
        The samples, and where those of each slice lie.
    path
        ``"auto"`` for a field by the data of the first repetition, of a film those of all its frames together, or the
        ``.npy`` of the off-resonance (y, x) or (slice, y, x), Hz, positive where the field is higher, on the pixels of
        the images. That of a film is the same in all frames.

    Raises
    ------
    InputError
        If it is no such map, or the shots are not sampled at the same times.
    """
    times = [_times(found, number) for number in range(len(encodings))]
    if path == "auto":
        still = [_still(encoding) for encoding in encodings]
        slices = zip(still, found.kspace[0], times, strict=True)
        maps = np.stack([estimated(kspace, encoding, when) for encoding, kspace, when in slices])
    else:
        maps = _read(Path(path), found.acquisition, len(encodings))
    there = []
    for encoding, when, off_resonance in zip(encodings, times, maps, strict=True):
        terms = segments(when, (float(maps.min()), float(maps.max())), tolerance=_TOLERANCE)
        known = solving.encoding_at(k_of(encoding), found.acquisition, segments=terms)
        of_terms = terms.maps(torch.from_numpy(off_resonance)[None])
        there.append(known.in_field(of_terms[:, :, None] if found.is_film else of_terms))
    return there, maps[0] if found.is_volume else maps


def estimated(kspace: Tensor, encoding: Encoding, times: Tensor) -> NDArray[np.float64]:
    """Return the off-resonance ([z,] y, x), Hz, with which the image is sharpest, within 200 Hz.

    Parameters
    ----------
    kspace, encoding
        The samples (coil, shot, sample), and where they lie.
    times
        Of the samples (sample,), over which the field acts, s.
    """
    scale = float(kspace.abs().max()) or 1.0
    weighted = encoding.weights * (kspace / scale)[None]
    step = _STEP / float(times.max() - times.min())
    tried = step * np.arange(-math.ceil(_FARTHEST / step), math.ceil(_FARTHEST / step) + 1)
    images = encoding.coil_images(weighted)
    _, maps = with_maps(images / brightness(images), encoding)
    narrow, window, wide = ([max(1.0, part * n) for n in images.shape[2:]] for part in _WIDTHS)

    def left(frequency: float) -> NDArray[np.float64]:
        """Return what is left about each pixel ([z,] y, x) of the image at a frequency beside its smooth phase."""
        turned = torch.exp(2j * math.pi * frequency * times).to(weighted.dtype)
        image = (encoding.coil_images(weighted * turned) * maps.conj()).sum(1)[0].numpy()
        smooth = gaussian_filter(image.real, narrow) + 1j * gaussian_filter(image.imag, narrow)
        beside = np.abs((image * np.exp(-1j * np.angle(smooth))).imag)
        return np.asarray(gaussian_filter(np.sqrt(beside.astype(np.float64)), window))

    criterion = np.stack([left(float(frequency)) for frequency in tried])
    worst = criterion.max(0)
    told = gaussian_filter(root_sum_of_squares(images)[0, 0].double().numpy(), window) * (1 - criterion.min(0) / worst)
    spread = gaussian_filter(told, wide)
    field = gaussian_filter(tried[criterion.argmin(0)] * told, wide)
    return np.asarray(field / np.maximum(spread, 1e-12 * spread.max()))


def _still(encoding: Encoding) -> Encoding:
    """Return an encoding; of a film that of one image by the shots of all frames."""
    acquisition = encoding.acquisition
    return solving.encoding_at(k_of(encoding), acquisition.frame) if acquisition.n_frames > 1 else encoding


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
    """Return the off-resonance (slice, y, x), Hz; of a volume (1, z, y, x)."""
    values = read_npy(path)
    one, several = acquisition.matrix[::-1], (n_slices, *acquisition.matrix[::-1])
    if values.dtype.kind not in "fiu" or values.shape not in (one, several):
        raise InputError(f"{path} holds {values.dtype} of shape {values.shape}; a map is real, {one} or {several}.")
    if not (np.abs(values) <= _LARGEST).all():
        raise InputError(f"{path} is not finite, or beyond {_LARGEST:g} Hz; is it in rad/s?")
    return np.broadcast_to(values, several).astype(np.float64)
