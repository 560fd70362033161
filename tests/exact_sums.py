"""What an encoding is, written out: sums over every pixel and sample, and random data to try it on."""

import math

import torch

from trajdesign.acquisition import Acquisition
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points


def setup(fov=(0.22, 0.2), matrix=(12, 15), seed=0, n_coils=3, batch=2):
    acquisition = Acquisition(fov, matrix, 3, 40, 4e-6)
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.complex128)

    points = (3, n_points(acquisition, Scanner()), len(matrix))
    k = (torch.rand(points, generator=generator, dtype=torch.float64) * 2 - 1) * torch.tensor(acquisition.k_max)
    shape = acquisition.image_shape
    return (
        Trajectory(k, acquisition, Scanner()),
        randn(batch, n_coils, *shape),  # coil images
        randn(batch, n_coils, 3, 40),  # k-space
        randn(1, n_coils, *shape),  # maps
    )


def exact_forward(coil_images, trajectory):
    """Sum over pixels of the image times exp(-2 pi i k r), r in m from the centre pixel."""
    acquisition = trajectory.acquisition
    axes = [
        (torch.arange(n, dtype=torch.float64) - n // 2) * extent / n
        for extent, n in zip(acquisition.fov, acquisition.matrix, strict=True)
    ]
    r = torch.stack([g.flatten() for g in torch.meshgrid(*axes[::-1], indexing="ij")[::-1]])
    phase = torch.exp(-2j * math.pi * (trajectory.k_adc @ r))
    return torch.einsum("sap,bcp->bcsa", phase, coil_images.flatten(2)), phase


def exact_adjoint(kspace, trajectory):
    _, phase = exact_forward(torch.zeros(1, 1, *trajectory.acquisition.image_shape).cdouble(), trajectory)
    images = torch.einsum("sap,bcsa->bcp", phase.conj(), kspace)
    return images.view(*kspace.shape[:2], *trajectory.acquisition.image_shape)
