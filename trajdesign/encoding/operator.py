"""Encoding: what the scanner does to an image, and back."""

import copy
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from trajdesign.encoding.density import density_compensation
from trajdesign.encoding.nufft import Backend, nufft, nufft_adjoint
from trajdesign.encoding.toeplitz import convolve, transfer_function
from trajdesign.errors import ConfigError, InputError
from trajdesign.trajectory import Trajectory

Normal = Literal["auto", "toeplitz", "chain"]

# On a CPU the NUFFTs of so few images are faster than making the transfer function: see benchmarks/README.md.
_FEW_IMAGES = 4


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
        Where the images live, and what is given goes.
    backend
        See `trajdesign.encoding.nufft.nufft`.
    normal
        How `normal` is computed: by ``toeplitz``, a convolution that needs one NUFFT whatever the number of images,
        or by the ``chain`` of two NUFFTs for each. ``auto`` takes the faster: the chain for a few images on a CPU.

    Raises
    ------
    ConfigError
        If `normal` is none of these.
    InputError
        From the methods, if an image does not have the pixels of the acquisition.
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
        normal: Normal = "auto",
    ) -> None:
        if normal not in ("auto", "toeplitz", "chain"):
            raise ConfigError(f"unknown normal operator {normal!r}; known: auto, toeplitz, chain.")
        self.acquisition = trajectory.acquisition
        self.coil_maps = None if coil_maps is None else coil_maps.to(device)
        self.backend: Backend = backend
        self.normal_by: Normal = normal
        self.omega = angular(trajectory).to(device, dtype)
        if weights is not None:
            self.weights = weights.to(device, dtype)

    @cached_property
    def weights(self) -> Tensor:
        """Density compensation (shot, sample), positive: see `trajdesign.encoding.density.density_compensation`."""
        return self.followed_weights()

    def followed_weights(self, start: Tensor | None = None) -> Tensor:
        """Density compensation (shot, sample), in one step from the weights `start` of nearly the same trajectory."""
        points, shape = self.omega.flatten(0, 1), self.acquisition.image_shape
        if start is None:
            weights = density_compensation(points, shape, backend=self.backend)
        else:
            last = start.detach().flatten()
            weights = density_compensation(points, shape, n_iterations=1, start=last, backend=self.backend)
        return weights.view(self.omega.shape[:2])

    @cached_property
    def transfer(self) -> Tensor:
        """Transfer function of A^H W A for one coil image: see `trajdesign.encoding.toeplitz.transfer_function`."""
        shape = self.acquisition.image_shape
        return transfer_function(self.omega.flatten(0, 1), self.weights.flatten(), shape, self.backend)

    def with_maps(self, coil_maps: Tensor) -> "Encoding":
        """Return the encoding with other coil maps, for networks that apply `normal` often."""
        if self.normal_by != "chain":
            _ = self.transfer  # made once, outside whatever part of a network is computed twice
        other = copy.copy(self)
        other.coil_maps = coil_maps
        return other

    def forward(self, image: Tensor) -> Tensor:
        """Sample images (batch, coil or 1, y, x), complex; returns k-space (batch, coil, shot, sample)."""
        coil_images = self._seen_by_coils(image)
        flat = nufft(coil_images.flatten(0, 1), self.omega.flatten(0, 1), self.backend)
        return flat.view(*coil_images.shape[:2], *self.omega.shape[:2])

    def coil_images(self, kspace: Tensor) -> Tensor:
        """Adjoint NUFFT of each coil alone: k-space (batch, coil, shot, sample) -> (batch, coil, y, x)."""
        shape = self.acquisition.image_shape
        flat = nufft_adjoint(kspace.flatten(0, 1).flatten(1), self.omega.flatten(0, 1), shape, self.backend)
        return flat.view(*kspace.shape[:2], *shape)

    def adjoint(self, kspace: Tensor) -> Tensor:
        """Exact adjoint of `forward`: k-space (batch, coil, shot, sample) -> images (batch, coil or 1, y, x)."""
        return self._combined(self.coil_images(kspace))

    def normal(self, image: Tensor, spectra: Sequence[Tensor] = ()) -> Tensor:
        """`adjoint` of the density-weighted `forward`: A^H W A image.

        Parameters
        ----------
        image
            (batch, coil or 1, y, x), complex.
        spectra
            `trajdesign.encoding.toeplitz.spectra` of the coil images of each slice, of all or none: they save half of
            the FFTs.

        Returns
        -------
        Tensor
            (batch, coil or 1, y, x), as `image`.
        """
        coil_images = self._seen_by_coils(image)
        if self._uses_chain(coil_images):
            return self.adjoint(self.weights * self.forward(image))
        flat = convolve(coil_images.flatten(0, 1), self.transfer, spectra)
        return self._combined(flat.view(coil_images.shape))

    def cut(self) -> "Encoding":
        """Return this encoding cut off from what made it, for several losses that go back to it one by one.

        `carry_on` then takes the sum of their gradients to the trajectory, once.
        """
        other = copy.copy(self)
        other.omega = self.omega.detach().requires_grad_(self.omega.requires_grad)
        other.weights = self.weights.detach().requires_grad_(self.weights.requires_grad)
        if self.normal_by != "chain":
            other.transfer = self.transfer.detach().requires_grad_(self.transfer.requires_grad)
        return other

    def carry_on(self, cut: "Encoding") -> None:
        """Back-propagate the gradients that have arrived at a `cut` of this encoding."""
        made = [(self.omega, cut.omega), (self.weights, cut.weights)]
        if self.normal_by != "chain":
            made.append((self.transfer, cut.transfer))
        reached = [(own, leaf.grad) for own, leaf in made if leaf.grad is not None]
        if reached:
            torch.autograd.backward([own for own, _ in reached], [grad for _, grad in reached])

    def _uses_chain(self, coil_images: Tensor) -> bool:
        if self.normal_by == "auto":
            if "transfer" in self.__dict__:
                return False
            return faster_normal(coil_images.shape[0] * coil_images.shape[1], coil_images.device) == "chain"
        return self.normal_by == "chain"

    def _seen_by_coils(self, image: Tensor) -> Tensor:
        if tuple(image.shape[2:]) != self.acquisition.image_shape:
            raise InputError(
                f"images of shape {tuple(image.shape)} do not fit the acquisition: (batch, coil, y, x) with "
                f"{self.acquisition.image_shape} pixels are expected."
            )
        return image if self.coil_maps is None else image * self.coil_maps

    def _combined(self, coil_images: Tensor) -> Tensor:
        if self.coil_maps is None:
            return coil_images
        return (coil_images * self.coil_maps.conj()).sum(dim=1, keepdim=True)


def faster_normal(n_images: int, device: torch.device) -> Normal:
    """Return what ``auto`` is for a number of coil images: ``chain`` or ``toeplitz``."""
    return "chain" if n_images <= _FEW_IMAGES and device.type == "cpu" else "toeplitz"


def angular(trajectory: Trajectory) -> Tensor:
    """Return the ADC samples of a trajectory as angles (shot, sample, dim), rad/pixel."""
    voxel = torch.tensor(trajectory.acquisition.voxel, dtype=torch.float64, device=trajectory.k.device)
    return trajectory.k_adc * (2 * math.pi * voxel)
