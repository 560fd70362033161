"""The signal that a receiver samples of voxels, with T2* decay and off-resonance."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.interpolation import chebyshev_nodes, lagrange
from trajdesign.encoding.operator import angles
from trajdesign.encoding.sampling import sampling_of
from trajdesign.errors import ConfigError

#: The largest off-resonance of a voxel, Hz; water lies 3.4 ppm from fat, 2 kHz at 14 T.
_LARGEST_OFFSET = 1e5


@torch.no_grad()
def signal(
    coil_images: Tensor,
    k: Tensor,
    times: Tensor,
    acquisition: Acquisition,
    *,
    t2_star: float | None = None,
    off_resonance: float | NDArray[np.floating] = 0.0,
) -> Tensor:
    r"""Return what the coils receive of voxels that are points.

    .. math:: s_c(t) = \sum_r c(r) m(r) \exp(-2 \pi i (k(t) \cdot r + f(r) \tau(t)) - |\tau(t)| / T_2^*)

    Static fields turn the signal over the time :math:`\tau` since the excitation; a refocusing pulse reverses its sign,
    so that it is 0 at a spin echo.

    No single NUFFT computes off-resonance, which depends on voxel and time. So its factor is interpolated between the
    signals of Chebyshev nodes over the range of frequencies (multifrequency interpolation, Man et al., MRM 1997,
    doi:10.1002/mrm.1910370523). With n nodes, frequencies within +-F of their middle and times within +-T of theirs,
    the error is at most :math:`\sqrt 2 (2 \pi F T)^n / (n! \, 2^{n - 1})` (the remainder of polynomial
    interpolation), however rough the map; n is the least that keeps it below 1e-10.

    Parameters
    ----------
    coil_images, acquisition
        c m (coil, y, x), complex, on the CPU; their field of view and matrix. Of a volume it is (coil, z, y, x), and of
        a film (coil, frame, y, x).
    k, times
        k (shot, sample, dim), 1/m, and tau (shot, sample), s, of each sample; float64. The shots of a film are those of
        its frames, one after the other, as many of each.
    t2_star
        T2* of all voxels, s; without it there is no decay.
    off_resonance
        f of all voxels, or of each (y, x) or (z, y, x), Hz: positive where the field is higher. It stands still in a
        film.

    Returns
    -------
    signal
        (coil, shot, sample), complex128.

    Raises
    ------
    ConfigError
        If `t2_star` is not positive, or `off_resonance` has another shape, is implausible, or spreads the phases of
        voxels too far apart.
    """
    if t2_star is not None and not t2_star > 0:
        raise ConfigError(f"t2_star is {t2_star:g} s; it must be positive.")
    offset = torch.as_tensor(off_resonance, dtype=torch.float64)
    space = acquisition.matrix[::-1]
    if offset.ndim and tuple(offset.shape) != space:
        axes = ", ".join("zyx"[-len(space) :])
        raise ConfigError(f"off_resonance has the shape {tuple(offset.shape)}, the image ({axes}) = {space}.")
    if not bool((offset.abs() <= _LARGEST_OFFSET).all()):
        raise ConfigError(f"off_resonance is not finite, or beyond {_LARGEST_OFFSET:g} Hz.")
    images = coil_images.to(torch.complex128)
    omega = angles(k, acquisition)
    sampling = sampling_of(omega, acquisition)
    when, (early, late) = times.flatten(), torch.aminmax(times)
    (lowest, highest), middle = torch.aminmax(offset), (early + late) / 2
    centre, reach = (lowest + highest) / 2, (highest - lowest) / 2
    images = images * _turned((offset - centre) * middle)
    nodes = chebyshev_nodes(2 * math.pi * float(reach * (late - early)) / 2)
    received = torch.zeros(len(images), times.numel(), dtype=torch.complex128)
    for node, weight in zip(nodes, lagrange(nodes, (offset - centre) / reach.clamp_min(1e-300)), strict=True):
        received += _turned(reach * node * (when - middle)) * sampling.nufft(images * weight, omega).flatten(1)
    decay = 1.0 if t2_star is None else torch.exp(-when.abs() / t2_star)
    return (received * (_turned(centre * when) * decay)).view(-1, *times.shape)


def receiver_noise(shape: tuple[int, ...], noise: float, acquisition: Acquisition, seed: int) -> Tensor:
    """Return complex Gaussian noise of k-space samples of a shape, complex128.

    `noise` is the standard deviation of a pixel's noise in a fully sampled image of one coil, as in training.
    """
    parts = np.random.default_rng(seed).standard_normal((*shape, 2))
    return torch.view_as_complex(torch.from_numpy(parts)) * (noise * math.sqrt(math.prod(acquisition.matrix) / 2))


def _turned(turns: Tensor) -> Tensor:
    return torch.exp(-2j * math.pi * turns)
