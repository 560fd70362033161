"""The k-space that a whole Pulseq file encodes under the response of the gradient system."""

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
    missing = (response.of_gradient(told, raster) - told).numpy()
    centres = (np.arange(len(missing)) + 0.5) * raster
    departures = played.k_of([(centres, missing[:, axis]) for axis in range(3)])
    return tuple(k + departure for k, departure in zip(played.k, departures, strict=True))
