"""Control points fitted to k at the ADC samples."""

import numpy as np
import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.errors import InputError
from trajdesign.runtime import memory
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points, not_finite, sampling_weights


def fit(samples: Tensor, acquisition: Acquisition, scanner: Scanner, name: str = "trajectory") -> Trajectory:
    """Fit control points to k known only at the ADC samples, smoothest slew among the near-exact fits.

    The samples are the wanted k (shot, sample, dim), 1/m; a straight line is met exactly, and `fit_residual` says what
    else is missed. It raises an `InputError` if a sample is not finite, and a `ResourceError` if the problem does not
    fit into memory.
    """
    if wrong := not_finite(samples.detach().cpu(), "sample"):
        raise InputError(f"k {wrong}.")
    index, weights = sampling_weights(acquisition, scanner)
    points = n_points(acquisition, scanner)
    memory.require(
        2 * 8 * points * (acquisition.n_samples + points),
        f"the fit of {acquisition.n_samples} samples a shot to {points} control points",
        "fit shots of fewer samples",
    )
    matrix = np.zeros((acquisition.n_samples, points))
    rows = np.arange(acquisition.n_samples)
    for i in range(3):
        matrix[rows, index.numpy() + i] += weights[i].numpy()
    roughness = np.diff(np.eye(points), n=3, axis=0)
    stacked = np.concatenate([matrix, 1e-3 * roughness])
    wanted = samples.detach().cpu().double().numpy().transpose(1, 0, 2).reshape(acquisition.n_samples, -1)
    right = np.concatenate([wanted, np.zeros((len(roughness), wanted.shape[1]))])
    solution = np.linalg.lstsq(stacked, right, rcond=None)[0]
    k = solution.reshape(points, acquisition.n_shots, acquisition.n_dims).transpose(1, 0, 2)
    return Trajectory(torch.from_numpy(np.ascontiguousarray(k)), acquisition, scanner, name)


def fit_residual(trajectory: Trajectory, samples: Tensor) -> tuple[float, float]:
    """Max and rms distance between `Trajectory.k_adc` and `samples`, in units of 1/FOV."""
    fov = trajectory.points.new_tensor(trajectory.acquisition.fov)
    distance = ((trajectory.k_adc - samples) * fov).norm(dim=-1)
    return float(distance.max()), float(distance.square().mean().sqrt())
