"""Encoding: what the scanner does to an image, and back."""

import copy
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, Self

import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.mixing import blurring_function, mix, mixing_function
from trajdesign.encoding.sampling import Planes, Whole, sampling_of
from trajdesign.encoding.static_field import Segments
from trajdesign.errors import ConfigError, InputError
from trajdesign.trajectory import Trajectory

Normal = Literal["auto", "toeplitz", "chain"]

#: Up to how many samples a pixel the NUFFTs of how many coil images are faster, on a CPU, than making the transfer
#: function: see benchmarks/README.md.
_FEW_IMAGES = ((1 / 16, 8), (2 / 3, 4))


class Encoding:
    """Coil maps times NUFFT at the ADC samples of a trajectory, differentiable in images, k-space and trajectory.

    Images (..., y, x) of its methods are (..., z, y, x) of a volume, and (..., frame, y, x) of a film.

    Parameters
    ----------
    trajectory
        Where k-space is sampled.
    coil_maps
        Coil sensitivity maps (batch or 1, coil, y, x), complex; of a film (batch or 1, coil, 1, y, x). Without them
        every coil image is encoded by itself.
    weights
        Density compensation (shot, sample), real; by default `trajdesign.encoding.density.density_compensation`.
    dtype
        ``torch.float32`` or ``torch.float64``: the precision of the transforms.
    device
        Where the images are; maps and weights are moved there.
    normal
        How `normal` is computed: by ``toeplitz``, a convolution that needs one NUFFT whatever the number of images,
        or by the ``chain`` of two NUFFTs for each. ``auto`` takes the faster: the chain for a few images of few samples
        on a CPU.
    segments
        Where objects are in static fields, the terms in time of their off-resonance and decay: see `in_field`.
    knows_field
        Whether who reconstructs knows the field of each object, which `measured` and `known` go by.
    in_plane
        Whether k along z is what it is. Then a stack is encoded plane by plane also where the trajectory is learned,
        and the gradient to it lies in the planes; otherwise as a volume, which takes longer.

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
        normal: Normal = "auto",
        segments: Segments | None = None,
        knows_field: bool = False,
        in_plane: bool = False,
    ) -> None:
        if normal not in ("auto", "toeplitz", "chain"):
            raise ConfigError(f"unknown normal operator {normal!r}; known: auto, toeplitz, chain.")
        self.acquisition = trajectory.acquisition
        self.coil_maps = None if coil_maps is None else coil_maps.to(device)
        self.normal_by: Normal = normal
        self.segments, self.knows_field, self.in_plane = segments, knows_field, in_plane
        #: Maps of the static field (batch or 1, term, y, x), complex; None where there is none, or it is not known.
        self.field: Tensor | None = None
        omega = angular(trajectory)
        is_free = self.acquisition.n_dims == 3 and omega.requires_grad and not in_plane
        self.sampling = Whole(self.acquisition.image_shape) if is_free else sampling_of(omega, self.acquisition)
        self.omega = omega.to(device, dtype)
        if weights is not None:
            self.weights = weights.to(device, dtype)

    @cached_property
    def weights(self) -> Tensor:
        """Density compensation (shot, sample), positive."""
        return self.followed_weights()

    def followed_weights(self, start: Tensor | None = None) -> Tensor:
        """Return the density compensation (shot, sample), in one step from that of nearly the same trajectory."""
        return self.sampling.density(self.omega, start)

    @cached_property
    def transfer(self) -> Tensor:
        """Transfer function of A^H W A for one coil image: see `trajdesign.encoding.toeplitz.transfer_function`."""
        return self.sampling.transfer(self.omega, self.weights)

    @cached_property
    def basis(self) -> Tensor:
        """Terms in time of a static field (term, sample), complex."""
        if self.segments is None:
            raise ConfigError("an encoding without segments knows no static field.")
        return self.segments.basis.to(self.omega.device, _complex(self.omega))

    @cached_property
    def mixing(self) -> Tensor:
        """What `normal` needs of the terms of a field: see `trajdesign.encoding.mixing.mixing_function`."""
        return mixing_function(*self._terms())

    @cached_property
    def blurring(self) -> Tensor:
        """The same for `measured` where the field is not known."""
        return blurring_function(*self._terms())

    def _terms(self) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
        basis = self.basis.repeat(1, len(self.omega))
        return self.omega.flatten(0, 1), self.weights.flatten(), basis, self.acquisition.image_shape

    def with_maps(self, coil_maps: Tensor) -> "Encoding":
        """Return the encoding with other coil maps, for networks that apply `normal` often."""
        if self._asked != "chain":
            # made once, outside whatever part of a network is computed twice
            _ = self.transfer if self.field is None else self.mixing
        other = copy.copy(self)
        other.coil_maps = coil_maps
        return other

    @property
    def takes_spectra(self) -> bool:
        """Whether `normal` can use the spectra of images that come again."""
        return self.normal_by != "chain" and not isinstance(self.sampling, Planes)

    def in_field(self, field: Tensor) -> "Encoding":
        """Return the encoding of objects in a static field, by its `Segments.maps` (batch or 1, term, y, x).

        Those of films are (batch or 1, term, 1, y, x).
        """
        if self.segments is None:
            raise ConfigError("an encoding without segments knows no static field.")
        other = copy.copy(self)
        other.field = field.to(self.omega.device, _complex(self.omega))
        return other

    def forward(self, image: Tensor) -> Tensor:
        """Sample images (batch, coil or 1, y, x), complex; returns k-space (batch, coil, shot, sample)."""
        coil_images = self._seen_by_coils(image)
        terms = self._turned(coil_images)
        flat = self.sampling.nufft(terms.flatten(0, 2), self.omega)
        kspace = flat.view(*terms.shape[:3], *self.omega.shape[:2])
        return kspace[:, :, 0] if self.field is None else (kspace * self.basis[:, None]).sum(2)

    def coil_images(self, kspace: Tensor) -> Tensor:
        """Return the adjoint NUFFT of each coil: k-space (batch, coil, shot, sample) -> (batch, coil, y, x)."""
        parts = kspace[:, :, None] if self.field is None else kspace[:, :, None] * self.basis.conj()[:, None]
        flat = self.sampling.nufft_adjoint(parts.flatten(0, 2), self.omega)
        return self._turned_back(flat.view(*parts.shape[:3], *flat.shape[1:]))

    def compensated(self, kspace: Tensor) -> Tensor:
        """Return the density-weighted adjoint (batch, coil, y, x) of measured k-space (batch, coil, shot, sample).

        That of a volume is computed in double precision: over three axes single precision is right to some 1e-4 alone.
        """
        weighted = self.weights * kspace
        if self.acquisition.n_dims == 2 or isinstance(self.sampling, Planes):
            return self.coil_images(weighted)
        exact = copy.copy(self)
        exact.omega = self.omega.double()
        exact.field = None if self.field is None else self.field.to(torch.complex128)
        return exact.coil_images(weighted.to(torch.complex128)).to(weighted.dtype)

    def adjoint(self, kspace: Tensor) -> Tensor:
        """Return the adjoint of `forward`: k-space (batch, coil, shot, sample) -> images (batch, coil or 1, y, x)."""
        return self._combined(self.coil_images(kspace))

    def normal(self, image: Tensor, spectra: Sequence[Tensor] = ()) -> Tensor:
        """Return the `adjoint` of the density-weighted `forward`, A^H W A image.

        Parameters
        ----------
        image
            (batch, coil or 1, y, x), complex.
        spectra
            `trajdesign.encoding.toeplitz.spectrum` of the coil images of each slice, of all or none: they save half of
            the FFTs.

        Returns
        -------
        Tensor
            (batch, coil or 1, y, x), as `image`.
        """
        coil_images = self._seen_by_coils(image)
        if self._method(coil_images.shape[0] * coil_images.shape[1]) == "chain":
            return self.adjoint(self.weights * self.forward(image))
        if self.field is not None:
            return self._combined(mix(coil_images, self.mixing, self.field))
        flat = self.sampling.convolve(coil_images.flatten(0, 1), self.transfer, spectra)
        return self._combined(flat.view(coil_images.shape))

    def measured(self, coil_images: Tensor, field: Tensor | None, spectra: Sequence[Tensor] = ()) -> Tensor:
        """Return the density-weighted adjoint (batch, coil, y, x) of what is measured of coil images in a field.

        `field` is that of `in_field`, None where there is none. The adjoint is that of `known`.
        """
        if field is None:
            return self.normal(coil_images, spectra)
        there = self.in_field(field)
        if self.knows_field:
            return there.normal(coil_images)
        if self._method(coil_images.shape[0] * coil_images.shape[1]) == "chain":
            return self.coil_images(self.weights * there.forward(coil_images))
        return mix(coil_images, self.blurring, field.to(coil_images))

    def known(self, field: Tensor | None) -> "Encoding":
        """Return the encoding as who reconstructs knows it: in the field, or as if there were none."""
        return self.in_field(field) if field is not None and self.knows_field else self

    def cut(self, n_images: int) -> Self:
        """Return this encoding cut off from its trajectory, for the losses of parts of a batch.

        `carry_on` then takes the sum of their gradients to the trajectory, once. The batch has `n_images` coil images
        in all, which decides how `normal` is computed for every part of it.
        """
        other = copy.copy(self)
        other.normal_by = self._method(n_images)
        for name in other._leaves():
            own = getattr(self, name)
            setattr(other, name, own.detach().requires_grad_(own.requires_grad))
        return other

    def carry_on(self, cut: "Encoding") -> None:
        """Back-propagate the gradients that have arrived at a `cut` of this encoding."""
        reached = [name for name in cut._leaves() if getattr(cut, name).grad is not None]
        if reached:
            gradients = [getattr(cut, name).grad for name in reached]
            torch.autograd.backward([getattr(self, name) for name in reached], gradients)

    def _leaves(self) -> tuple[str, ...]:
        if self.normal_by == "chain":
            return "omega", "weights"
        if self.segments is None:
            return "omega", "weights", "transfer"
        return ("omega", "weights", "mixing") if self.knows_field else ("omega", "weights", "transfer", "blurring")

    @property
    def _asked(self) -> Normal:
        """How `normal` is to be computed: of planes in a field by the chain, in which its terms mix by themselves."""
        return "chain" if self.segments is not None and isinstance(self.sampling, Planes) else self.normal_by

    def _method(self, n_images: int) -> Normal:
        """Return how `normal` is computed for so many coil images: ``toeplitz`` or ``chain``."""
        if self._asked != "auto":
            return self._asked
        n_pixels, n_samples = math.prod(self.acquisition.image_shape), self.omega.shape[:-1].numel()
        few = next((n for density, n in _FEW_IMAGES if n_samples <= density * n_pixels), 0)
        is_few = n_images <= few and self.omega.device.type == "cpu"
        return "chain" if is_few and "transfer" not in self.__dict__ else "toeplitz"

    def _turned(self, coil_images: Tensor) -> Tensor:
        """Return the terms (batch, coil, term, y, x) of coil images (batch, coil, y, x) in the field."""
        terms = coil_images[:, :, None]
        return terms if self.field is None else terms * self.field[:, None]

    def _turned_back(self, terms: Tensor) -> Tensor:
        """Do the adjoint of `_turned`."""
        return terms[:, :, 0] if self.field is None else (terms * self.field.conj()[:, None]).sum(2)

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


def angular(trajectory: Trajectory) -> Tensor:
    """Return the ADC samples of a trajectory as angles (shot, sample, dim), rad/pixel."""
    return angles(trajectory.k_adc, trajectory.acquisition)


def angles(k: Tensor, acquisition: Acquisition) -> Tensor:
    """Return k (..., dim), 1/m, as angles 2 pi k voxel (..., dim), rad/pixel."""
    return k * (2 * math.pi * torch.tensor(acquisition.voxel, dtype=torch.float64, device=k.device))


def _complex(like: Tensor) -> torch.dtype:
    """Return the complex type of the precision of a real tensor."""
    return torch.complex128 if like.dtype == torch.float64 else torch.complex64
