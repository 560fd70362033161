"""An encoding of slices, volumes and films as dense matrices, by sums over every pixel and sample."""

import copy
import math

import torch


class ExactEncoding:
    """What reconstructors ask of an `Encoding`, of samples at the angles omega (frame or 1, sample, dim), rad/pixel.

    Double precision; each frame of a film is encoded by itself, and samples are all of the same weight.
    """

    def __init__(self, acquisition, omega, coil_maps=None):
        self.acquisition, self.coil_maps = acquisition, coil_maps
        grid = [torch.arange(n) - n // 2 for n in acquisition.matrix[::-1]]
        pixels = torch.cartesian_prod(*grid).flip(1).double()
        transform = torch.exp(-1j * (omega @ pixels.T))
        #: A^H W A of each frame (frame, pixel, pixel).
        self.matrices = transform.mH @ transform / math.prod(acquisition.matrix)

    def with_maps(self, coil_maps):
        other = copy.copy(self)
        other.coil_maps = coil_maps
        return other

    def normal(self, image):
        coil_images = image if self.coil_maps is None else image * self.coil_maps
        flat = coil_images.reshape(*coil_images.shape[:2], self.acquisition.n_frames, -1, 1)
        found = (self.matrices @ flat).view(coil_images.shape)
        return found if self.coil_maps is None else (found * self.coil_maps.conj()).sum(1, keepdim=True)

    def with_coils(self, maps):
        """Return sum_c M_c^H A^H W A M_c of each frame (frame, pixel, pixel) for maps (coil, pixel)."""
        return sum(m.conj()[:, None] * self.matrices * m for m in maps)


def samples(n_frames, n_samples, n_dims, seed=0):
    """Return random angles (frame, sample, dim), rad/pixel, denser about the centre of k-space."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(n_frames, n_samples, n_dims, generator=generator, dtype=torch.float64)
    return math.pi * (2 * draws - 1) * draws.flip(-1).sqrt()


def cartesian(shape):
    """Return the angles (1, sample, dim), rad/pixel, x first, of a full sampling of images of a shape ([z,] y, x)."""
    k = [2 * math.pi * (torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape[::-1]]
    return torch.cartesian_prod(*k)[None]
