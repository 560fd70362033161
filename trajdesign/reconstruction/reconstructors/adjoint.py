"""Density-compensated adjoint, root sum of squares over the coils."""

from typing import Any

import torch
from torch import Tensor

from trajdesign.encoding.operator import Encoding
from trajdesign.interfaces import Reconstructor

# Keeps the root of nothing differentiable.
_TINY = 1e-12


class Adjoint(Reconstructor):
    """Coil images combined by root sum of squares.

    Roemer et al., MRM 1990, doi:10.1002/mrm.1910160203. Nothing to learn.
    """

    def forward(self, images: Tensor, encoding: Encoding) -> Tensor:
        """See `Reconstructor.forward`."""
        return root_sum_of_squares(images)


def root_sum_of_squares(coil_images: Tensor) -> Tensor:
    """Combine coil images (batch, coil, y, x), complex, to magnitudes (batch, 1, y, x)."""
    if torch.compiler.is_exporting():  # for any number of coils
        return (torch.view_as_real(coil_images).square().sum((1, -1)) + _TINY).sqrt()[:, None]
    return _RootSumOfSquares.apply(coil_images)


class _RootSumOfSquares(torch.autograd.Function):
    """One pass over the images in each direction, where the chain of its operations takes several."""

    @staticmethod
    def forward(ctx: Any, coil_images: Tensor) -> Tensor:
        power = torch.zeros_like(coil_images[:, :1].real)
        for image in coil_images.split(1, dim=1):
            power.addcmul_(image.real, image.real).addcmul_(image.imag, image.imag)
        magnitude = (power + _TINY).sqrt_()
        ctx.save_for_backward(coil_images, magnitude)
        return magnitude

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        coil_images, magnitude = ctx.saved_tensors
        return coil_images * (grad / magnitude)
