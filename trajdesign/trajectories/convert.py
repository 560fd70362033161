"""K at the ADC samples in the units of other libraries, and back.

The coordinates fit image arrays as they are here, ([z,] y, x): their axes come in that order, y before x. Only BART's
come x first, as its images do. All of these libraries have the origin at pixel n // 2 and the sign of the forward
transform here; the factor between their transform and `Encoding.forward` is given below, with N the number of pixels.

The way back fits control points, as `trajdesign.trajectories.fitting.fit` does, and refuses what straight gradients on
the raster miss by more than a tenth of 1/FOV, with an `InputError`.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.errors import InputError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.fitting import fit, fit_residual
from trajdesign.trajectories.loading import require_close
from trajdesign.trajectory import Trajectory


def to_mrinufft(trajectory: Trajectory) -> NDArray[np.float64]:
    """Return samples (shot, sample, dim), cycles a pixel, within +-0.5.

    For ``mrinufft.get_operator("finufft")(samples, shape=acquisition.image_shape)``, whose transform is that here over
    sqrt(2^dim N). It warns that it takes them to rad a pixel, as it does with all of its own patterns.
    """
    return _per_pixel(trajectory)


def to_sigpy(trajectory: Trajectory) -> NDArray[np.float64]:
    """Return coord (shot, sample, dim), cycles a field of view, within +-matrix/2.

    For ``sigpy.nufft(image, coord)``, which is the transform here over sqrt(N).
    """
    return _per_pixel(trajectory) * trajectory.acquisition.matrix[::-1]


def to_torchkbnufft(trajectory: Trajectory) -> Tensor:
    """Return omega (dim, shot * sample), rad a pixel, within +-pi, float64.

    For ``torchkbnufft.KbNufft(im_size=acquisition.image_shape)(image, omega)``, which is the transform here.
    """
    samples = _per_pixel(trajectory) * (2 * math.pi)
    return torch.from_numpy(np.ascontiguousarray(samples.reshape(-1, samples.shape[-1]).T))


def to_bart(trajectory: Trajectory) -> NDArray[np.complex64]:
    """Return traj (3, sample, shot), cycles a field of view, x first, with k_z = 0 in 2D.

    For ``bart.bart(1, "nufft", traj, image.T)``, which is the transform here over sqrt(N). BART 0.8 computes it for
    even matrices alone, and to two digits at 0.9 k_max, to three within half of it: give it more pixels than the
    matrix. A pair of files is written by ``trajdesign.export(trajectory, path, format="bart")``.
    """
    k = (trajectory.k_adc.detach().cpu().double().numpy() * np.array(trajectory.acquisition.fov)).T
    return np.pad(k, ((0, 3 - len(k)), (0, 0), (0, 0))).astype(np.complex64)


def from_mrinufft(samples: ArrayLike, acquisition: Acquisition, scanner: Scanner) -> Trajectory:
    """Fit a trajectory to samples ((shot,) sample, dim), cycles a pixel: the inverse of `to_mrinufft`."""
    return _fitted(np.asarray(samples), acquisition, scanner, "mri-nufft")


def from_sigpy(coord: ArrayLike, acquisition: Acquisition, scanner: Scanner) -> Trajectory:
    """Fit a trajectory to coord ((shot,) sample, dim), cycles a field of view: the inverse of `to_sigpy`."""
    return _fitted(np.asarray(coord) / acquisition.matrix[::-1], acquisition, scanner, "sigpy")


def from_torchkbnufft(omega: Tensor, acquisition: Acquisition, scanner: Scanner) -> Trajectory:
    """Fit a trajectory to omega (dim, shot * sample), rad a pixel: the inverse of `to_torchkbnufft`."""
    return _fitted(omega.detach().cpu().numpy().T / (2 * math.pi), acquisition, scanner, "torchkbnufft")


def from_bart(traj: ArrayLike, acquisition: Acquisition, scanner: Scanner) -> Trajectory:
    """Fit a trajectory to traj (3, sample, shot), cycles a field of view: the inverse of `to_bart`."""
    k = np.asarray(traj).real[: acquisition.n_dims]
    return _fitted(k.T[..., ::-1] / acquisition.matrix[::-1], acquisition, scanner, "BART")


def _per_pixel(trajectory: Trajectory) -> NDArray[np.float64]:
    k: NDArray[np.float64] = trajectory.k_adc.detach().cpu().double().numpy()
    return np.ascontiguousarray((k * trajectory.acquisition.voxel)[..., ::-1])


def _fitted(samples: NDArray, acquisition: Acquisition, scanner: Scanner, name: str) -> Trajectory:
    """Fit cycles a pixel, y first, of as many samples as the acquisition has."""
    shape = (acquisition.n_shots, acquisition.n_samples, acquisition.n_dims)
    if samples.shape not in (shape, (shape[0] * shape[1], shape[2])):
        raise InputError(f"coordinates of the shape {samples.shape} are not those of (shot, sample, dim) = {shape}.")
    k = samples.reshape(shape).astype(np.float64)[..., ::-1] / np.array(acquisition.voxel)
    wanted = torch.from_numpy(np.ascontiguousarray(k))
    trajectory = fit(wanted, acquisition, scanner, name)
    return require_close(trajectory, fit_residual(trajectory, wanted), f"the coordinates of {name}")
