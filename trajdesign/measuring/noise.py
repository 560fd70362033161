"""Noise of a receiver: what a noise scan tells of it, and data in which all coils have the same."""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.data.measured import reading
from trajdesign.errors import InputError

#: A covariance is taken from so many samples for each coil at least.
_LEAST_SAMPLES = 10
# Of the variance that most coils have: what has less receives nothing.
_SILENT = 1e-6
# Fourth differences along the readout, in which an oversampled signal is nearly nothing, and parts of a readout.
_DIFFERENCES, _N_PARTS = (1.0, -4.0, 6.0, -4.0, 1.0), 16


def scanned(path: Path | str) -> tuple[NDArray[np.complex64], float | None]:
    """Return all samples (coil, sample) of a noise scan of a file of its own, and their dwell time, s, if it is told.

    Raises
    ------
    InputError
        If the file cannot be read, or its events are of different numbers of coils.
    """
    raw = reading.read(path)
    n_coils = sorted({len(event) for event in raw.events})
    if len(n_coils) > 1:
        raise InputError(f"{path} has ADC events of {n_coils[0]} to {n_coils[-1]} coils; a noise scan has one number.")
    return np.concatenate(list(raw.events), axis=1), raw.noise_dwell if raw.dwell is None else raw.dwell


def whitening(noise: NDArray[np.complex64] | None) -> Tensor | None:
    """Return the matrix (coil, coil) after which all coils have uncorrelated noise of one variance.

    It is the inverse of the Cholesky factor of the covariance (Pruessmann et al., MRM 2001, doi:10.1002/mrm.1241),
    times the root of the mean variance, so that data keep their size. Coils that receive nothing are left as they are.

    Parameters
    ----------
    noise
        Samples without an object (coil, sample).

    Returns
    -------
    Tensor or None
        complex128; None without a noise scan, or where its samples are too few, or all zero as in a simulation.
    """
    if noise is None or noise.shape[1] < _LEAST_SAMPLES * len(noise):
        return None
    covariance = _covariance(noise)
    variance = covariance.diagonal().real
    if not variance.max() > 0:
        return None
    live = np.flatnonzero(variance > _SILENT * np.median(variance))
    matrix = np.eye(len(noise), dtype=complex)
    factor = np.linalg.cholesky(covariance[np.ix_(live, live)])
    matrix[np.ix_(live, live)] = np.linalg.inv(factor) * math.sqrt(variance[live].mean())
    return torch.from_numpy(matrix)


def variance(noise: NDArray[np.complex64], noise_dwell: float | None, dwell: float) -> float:
    """Return the mean variance of a complex sample of the coils, from a noise scan of another dwell time, s."""
    found = float(_covariance(noise).diagonal().real.mean())
    return found if noise_dwell is None else found * noise_dwell / dwell


def estimated_variance(kspace: Tensor) -> float:
    """Return about the variance of a complex sample of k-space (coil, shot, sample), where no noise scan tells it.

    Of the fourth differences along the readout, in that part of it where they are least. Signal that changes from
    sample to sample counts as noise.
    """
    weights = torch.tensor(_DIFFERENCES, dtype=torch.float64)
    n = kspace.shape[-1] - len(weights) + 1
    if n < 1:
        return 0.0
    parts = (w * kspace[..., i : i + n].to(torch.complex128) for i, w in enumerate(weights.tolist()))
    differences = sum(parts, torch.zeros((), dtype=torch.complex128))
    over_time = differences.abs().square().mean((0, 1)) / weights.square().sum()
    return min(float(part.mean()) for part in over_time.chunk(_N_PARTS))


def _covariance(noise: NDArray[np.complex64]) -> NDArray[np.complex128]:
    samples = noise.astype(np.complex128)
    found: NDArray[np.complex128] = samples @ samples.conj().T / samples.shape[1]
    return found
