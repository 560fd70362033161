"""Density-compensated adjoint, root sum of squares over the coils."""

from torch import Tensor

from trajdesign.encoding.operator import Encoding
from trajdesign.interfaces import Reconstructor
from trajdesign.reconstruction.coils import root_sum_of_squares


class Adjoint(Reconstructor):
    """Root sum of squares of the coil images (Roemer et al., MRM 1990, doi:10.1002/mrm.1910160203)."""

    def forward(self, images: Tensor, encoding: Encoding) -> Tensor:
        """See `Reconstructor.forward`."""
        return root_sum_of_squares(images)
