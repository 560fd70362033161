"""Encoding: what the scanner does to an image, and back."""

import math
from functools import cached_property

import torch
from torch import Tensor

from trajdesign.density import density_compensation
from trajdesign.nufft import Backend, nufft, nufft_adjoint
from trajdesign.trajectory import Trajectory


class Encoding:
    """Coil maps times NUFFT at the ADC samples of a trajectory, differentiable in images, k-space and trajectory.

    Parameters
    ----------
    trajectory
        Where k-space is sampled; 2D.
    coil_maps
        Coil sensitivity maps (batch or 1, coil, y, x), complex. Without them an image's coil axis is the coils':
        every coil image is encoded by itself.
    weights
        Density compensation (shot, sample), real. Computed when first needed if not given.
    dtype
        ``torch.float32`` or ``torch.float64``: the precision of the transforms.
    device
        Where the images live.
    backend
        See `trajdesign.nufft.nufft`.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        coil_maps: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        backend: Backend = "auto",
    ) -> None:
        self.acquisition = trajectory.acquisition
        self.coil_maps = coil_maps
        self.backend: Backend = backend
        self.omega = angular(trajectory).to(device, dtype)
        if weights is not None:
            self.weights = weights.to(device, dtype)

    @cached_property
    def weights(self) -> Tensor:
        """Density compensation (shot, sample), positive; a constant to the gradient."""
        points = self.omega.detach().flatten(0, 1)
        weights = density_compensation(points, self.acquisition.image_shape, backend=self.backend)
        return weights.view(self.omega.shape[:2])

    def forward(self, image: Tensor) -> Tensor:
        """Sample images (batch, coil or 1, y, x), complex; returns k-space (batch, coil, shot, sample)."""
        coil_images = image if self.coil_maps is None else image * self.coil_maps
        flat = nufft(coil_images.flatten(0, 1), self.omega.flatten(0, 1), self.backend)
        return flat.view(*coil_images.shape[:2], *self.omega.shape[:2])

    def coil_images(self, kspace: Tensor) -> Tensor:
        """Adjoint NUFFT of each coil alone: k-space (batch, coil, shot, sample) -> (batch, coil, y, x)."""
        shape = self.acquisition.image_shape
        flat = nufft_adjoint(kspace.flatten(0, 1).flatten(1), self.omega.flatten(0, 1), shape, self.backend)
        return flat.view(*kspace.shape[:2], *shape)

    def adjoint(self, kspace: Tensor) -> Tensor:
        """Exact adjoint of `forward`: k-space (batch, coil, shot, sample) -> images (batch, coil or 1, y, x)."""
        images = self.coil_images(kspace)
        if self.coil_maps is None:
            return images
        return (images * self.coil_maps.conj()).sum(dim=1, keepdim=True)

    def normal(self, image: Tensor) -> Tensor:
        """`adjoint` of the density-weighted `forward`: A^H W A image."""
        return self.adjoint(self.weights * self.forward(image))


def angular(trajectory: Trajectory) -> Tensor:
    """Return the ADC samples of a trajectory as angles (shot, sample, dim), rad/pixel."""
    voxel = torch.tensor(trajectory.acquisition.voxel, dtype=torch.float64, device=trajectory.k.device)
    return trajectory.k_adc * (2 * math.pi * voxel)
