"""Every control point of the raster is free."""

import torch
from torch import Tensor, nn

from trajdesign.interfaces import Parameterization
from trajdesign.trajectory import Trajectory


class Samples(Parameterization):
    """One free offset a raster point, the parameterization of PILOT (Weiss et al. 2019, arXiv:1909.05773).

    Parameters
    ----------
    initial
        The trajectory at zero offset.
    """

    k_max: Tensor

    def __init__(self, initial: Trajectory) -> None:
        super().__init__(initial)
        self.offset = nn.Parameter(torch.zeros_like(initial.k))
        self.register_buffer("k_max", torch.tensor(initial.acquisition.k_max, dtype=torch.float64))

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`."""
        return self.initial.with_k(self.initial.k + self.offset * self.k_max)
