"""A main field that drifts during the scan."""

import math
from dataclasses import replace

import numpy as np
import torch

from trajdesign.errors import ConfigError
from trajdesign.physics.perturbation import Scan

# Hz; the field of a warm magnet drifts by a few Hz in a minute.
_LARGEST = 1000.0


def drift(
    scan: Scan, random: np.random.Generator, *, frequency: float = 0.0, spread: float = 10.0, start: float = 0.0
) -> Scan:
    """Return a scan in which the field drifts: off-resonance that grows from shot to shot, and turns each sample.

    Shot s of n, counted from 1, has s / n of it. It is the same in the whole object.

    Parameters
    ----------
    frequency
        Off-resonance in the last shot, Hz, positive where the field has risen, in every scan.
    spread
        By how much it may differ from that, Hz, on either side: uniform, another in each scan.
    start
        From the excitation, or a spin echo, to the first sample, s; negative before the echo.
    """
    if spread < 0 or not abs(frequency) + spread <= _LARGEST:
        raise ConfigError(f"perturbation.drift: {frequency:g} Hz with a spread of {spread:g}; at most {_LARGEST:g} Hz.")
    last = frequency + spread * random.uniform(-1, 1)
    n_shots, n_samples = scan.factor.shape
    shots = last * torch.arange(1, n_shots + 1, dtype=torch.float64) / n_shots
    times = start + scan.played.acquisition.dwell * torch.arange(n_samples, dtype=torch.float64)
    return replace(scan, factor=scan.factor * torch.exp(-2j * math.pi * shots[:, None] * times))
