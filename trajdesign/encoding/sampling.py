"""How an image is sampled: as a whole, or plane by plane.

The frames of a film are planes that know nothing of each other. So are the partitions of a stack: the FFT across the
slices turns a volume into the planes k_z = j / FOV, each of which its own shots sample. That takes transforms of two
axes alone, whatever shots the planes have.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.density import density_compensation
from trajdesign.encoding.nufft import nufft, nufft_adjoint
from trajdesign.encoding.toeplitz import convolve, convolve_groups, transfer_function

#: Shots whose k_z is so near to a partition, in rad/pixel, lie in it.
_FLAT = 1e-9


class Whole:
    """All samples see one image of a shape ([z,] y, x)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def density(self, omega: Tensor, start: Tensor | None = None) -> Tensor:
        """Return the density compensation (shot, sample) of points (shot, sample, dim), rad/pixel.

        From the `start` of nearly the same points it takes one step.
        """
        n, first = (30, None) if start is None else (1, start.detach().flatten())
        points = omega.flatten(0, 1)
        return density_compensation(points, self.shape, n_iterations=n, start=first).view(omega.shape[:2])

    def nufft(self, images: Tensor, omega: Tensor) -> Tensor:
        """Return the samples (batch, shot, sample) of images (batch, [z,] y, x)."""
        return nufft(images, omega.flatten(0, 1)).view(len(images), *omega.shape[:2])

    def nufft_adjoint(self, kspace: Tensor, omega: Tensor) -> Tensor:
        """Return images (batch, [z,] y, x) of samples (batch, shot, sample)."""
        return nufft_adjoint(kspace.flatten(1), omega.flatten(0, 1), self.shape)

    def transfer(self, omega: Tensor, weights: Tensor) -> Tensor:
        """Return the `trajdesign.encoding.toeplitz.transfer_function`, for `convolve`."""
        return transfer_function(omega.flatten(0, 1), weights.flatten(), self.shape)

    def convolve(self, images: Tensor, transfer: Tensor, spectra: Sequence[Tensor] = ()) -> Tensor:
        """Return A^H W A of images (batch, [z,] y, x); see `trajdesign.encoding.toeplitz.convolve`."""
        return convolve(images, transfer, spectra)


class Planes(Whole):
    """Each plane is sampled by shots of its own; methods as those of `Whole`, images (batch, frame or z, y, x).

    Parameters
    ----------
    shape
        Of an image (frame or z, y, x).
    shots
        The shots of each plane (plane, shot).
    partitions
        Of a stack, the partition j of each plane, from 0 to z - 1: k_z = (j - z // 2) / FOV. None for a film.
    """

    def __init__(self, shape: tuple[int, ...], shots: Tensor, partitions: Tensor | None = None) -> None:
        super().__init__(shape)
        self.shots, self.partitions = shots, partitions
        self.plane = Whole(shape[1:])
        self.n_merged = 1 if partitions is None else shape[0]  # planes that a voxel's signal is spread over

    def density(self, omega: Tensor, start: Tensor | None = None) -> Tensor:
        """See `Whole.density`."""
        starts = [None] * len(self.shots) if start is None else list(self._of_planes(start * self.n_merged))
        planes = zip(self._of_planes(omega)[..., :2], starts, strict=True)
        return self._of_shots(torch.stack([self.plane.density(*plane) for plane in planes])) / self.n_merged

    def nufft(self, images: Tensor, omega: Tensor) -> Tensor:
        """See `Whole.nufft`."""
        planes = zip(self._to_planes(images), self._of_planes(omega)[..., :2], strict=True)
        kspace = torch.stack([self.plane.nufft(*plane) for plane in planes])
        return self._of_shots(kspace.movedim(1, 2)).movedim(1, 0)

    def nufft_adjoint(self, kspace: Tensor, omega: Tensor) -> Tensor:
        """See `Whole.nufft_adjoint`."""
        planes = zip(self._of_planes(kspace.movedim(0, 1)), self._of_planes(omega)[..., :2], strict=True)
        return self._from_planes(torch.stack([self.plane.nufft_adjoint(s.movedim(1, 0), o) for s, o in planes]))

    def transfer(self, omega: Tensor, weights: Tensor) -> Tensor:
        """See `Whole.transfer`; it has one for each plane (plane, half, y, x)."""
        planes = zip(self._of_planes(omega)[..., :2], self._of_planes(weights), strict=True)
        return torch.stack([self.plane.transfer(*plane) for plane in planes])

    def convolve(self, images: Tensor, transfer: Tensor, spectra: Sequence[Tensor] = ()) -> Tensor:
        """See `Whole.convolve`."""
        return self._from_planes(convolve_groups(self._to_planes(images), transfer))

    def _of_planes(self, values: Tensor) -> Tensor:
        """Return values (shot, ...) plane by plane (plane, shot, ...)."""
        return values[self.shots.to(values.device)]

    def _of_shots(self, values: Tensor) -> Tensor:
        """Undo `_of_planes`."""
        return values.flatten(0, 1)[self.shots.flatten().argsort().to(values.device)]

    def _to_planes(self, images: Tensor) -> Tensor:
        """Return the planes (plane, batch, y, x) of images (batch, frame or z, y, x)."""
        if self.partitions is not None:
            shifted = torch.fft.fft(torch.fft.ifftshift(images, dim=1), dim=1)
            images = torch.fft.fftshift(shifted, dim=1)[:, self.partitions.to(images.device)]
        return images.movedim(1, 0).contiguous()

    def _from_planes(self, planes: Tensor) -> Tensor:
        """Do the adjoint of `_to_planes`."""
        images = planes.movedim(0, 1)
        if self.partitions is None:
            return images
        whole = images.new_zeros((len(images), *self.shape)).index_add(1, self.partitions.to(images.device), images)
        return torch.fft.fftshift(torch.fft.ifft(torch.fft.ifftshift(whole, dim=1), dim=1, norm="forward"), dim=1)


def sampling_of(omega: Tensor, acquisition: Acquisition) -> Whole:
    """Return how an acquisition is sampled at points (shot, sample, dim), rad/pixel.

    A 3D one is a stack if every shot lies in a partition, and each partition that is sampled has as many shots.
    """
    shape = acquisition.image_shape
    if acquisition.n_frames > 1:
        return Planes(shape, torch.arange(len(omega)).view(acquisition.n_frames, -1))
    if acquisition.n_dims == 2:
        return Whole(shape)
    depth = omega[..., 2].detach().double() * (shape[0] / (2 * math.pi)) + shape[0] // 2
    partitions = depth[:, 0].round()
    is_flat = bool(((depth - partitions[:, None]).abs() * (2 * math.pi / shape[0]) <= _FLAT * shape[0]).all())
    if not is_flat or partitions.min() < 0 or partitions.max() >= shape[0]:
        return Whole(shape)
    planes, n_shots = partitions.long().cpu().unique(return_counts=True)
    if (n_shots != n_shots[0]).any():
        return Whole(shape)
    shots = partitions.cpu().argsort(stable=True).view(len(planes), -1)
    return Planes(shape, shots, planes)
