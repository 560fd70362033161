"""Density-compensated adjoint, root sum of squares over the coils."""

from torch import Tensor

from trajdesign.encoding.operator import Encoding
from trajdesign.interfaces import Reconstructor
from trajdesign.reconstruction.coils import root_sum_of_squares

# Keeps the root of nothing differentiable.
_TINY = 1e-12


class Adjoint(Reconstructor):
    """Coil images combined by root sum of squares.

    Roemer et al., MRM 1990, doi:10.1002/mrm.1910160203. Nothing to learn.
    """

    def forward(self, images: Tensor, encoding: Encoding) -> Tensor:
        """See `Reconstructor.forward`."""
        return root_sum_of_squares(images)
