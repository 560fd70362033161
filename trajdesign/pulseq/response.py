"""What a whole Pulseq file encodes under the response of the gradient system: k, and the phase of its samples."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from trajdesign.physics.response import Response
from trajdesign.pulseq.reader.sequence import SeqFile


def k_of_file(played: SeqFile, response: Response) -> Sequence[np.ndarray]:
    """Return k at the samples of each ADC event (sample, 3), 1/m, with the response to everything that a file plays.

    The gradient system is at rest before the file.
    """
    if response.is_perfect:
        return played.k
    raster = played.rasters["GradientRasterTime"]
    told = torch.from_numpy(played.sampled(raster, gamma=1.0)).T.contiguous()
    missing = (response.acting(told, raster)[0] - told).numpy()
    centres = (np.arange(len(missing)) + 0.5) * raster
    departures = played.k_of([(centres, missing[:, axis]) for axis in range(3)])
    return tuple(k + departure for k, departure in zip(played.k, departures, strict=True))


def phase_of_file(played: SeqFile, response: Response) -> Sequence[np.ndarray] | None:
    """Return by how much the field at the isocentre turns the spins at the samples of each ADC event (sample,), rad.

    It counts from the last excitation, and a refocusing pulse reverses it, as it does k; the signal has the factor
    exp(-i phase). None where the response tells no field. The gradient system is at rest before the file.
    """
    if response.is_perfect:
        return None
    raster = played.rasters["GradientRasterTime"]
    told = torch.from_numpy(played.sampled(raster, gamma=1.0)).T.contiguous()
    _, field = response.acting(told, raster)  # Hz, as the gradient is in Hz/m
    if field is None:
        return None
    centres = (np.arange(len(field)) + 0.5) * raster
    return tuple(2 * math.pi * turns[:, 0] for turns in played.k_of([(centres, field.numpy())] * 3))
