"""The k-space that a whole Pulseq file encodes under the response of the gradient system."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from trajdesign import plugins
from trajdesign.pulseq.reader.sequence import SeqFile


def k_of_file(played: SeqFile, response: Mapping[str, Any]) -> Sequence[np.ndarray]:
    """Return k at the samples of each ADC event (sample, 3), 1/m, with the response to everything that a file plays.

    Parameters
    ----------
    played
        A file; the gradient system is at rest before it.
    response
        Table of a response; with an empty one k is what the file says.
    """
    if not response:
        return played.k
    raster = played.rasters["GradientRasterTime"]
    told = torch.from_numpy(played.sampled(raster, gamma=1.0)).T.contiguous()
    missing = (plugins.build("response", dict(response), told, raster) - told).numpy()
    centres = (np.arange(len(missing)) + 0.5) * raster
    departures = played.k_of([(centres, missing[:, axis]) for axis in range(3)])
    return tuple(k + departure for k, departure in zip(played.k, departures, strict=True))
