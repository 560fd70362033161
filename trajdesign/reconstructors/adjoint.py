"""Density-compensated adjoint, root sum of squares over the coils."""

from torch import Tensor

from trajdesign.encoding import Encoding
from trajdesign.interfaces import Reconstructor


class Adjoint(Reconstructor):
    """Adjoint NUFFT of the weighted samples, coils combined by root sum of squares.

    Roemer et al., MRM 1990, doi:10.1002/mrm.1910160203. Nothing to learn.
    """

    def forward(self, kspace: Tensor, encoding: Encoding) -> Tensor:
        """See `Reconstructor.forward`."""
        return root_sum_of_squares(encoding.coil_images(encoding.weights * kspace))


def root_sum_of_squares(coil_images: Tensor) -> Tensor:
    """Combine coil images (batch, coil, y, x), complex, to magnitudes (batch, 1, y, x)."""
    power = coil_images.real.square() + coil_images.imag.square()
    return (power.sum(dim=1, keepdim=True) + 1e-12).sqrt()
