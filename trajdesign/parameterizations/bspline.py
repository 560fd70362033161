"""Offsets on a cubic B-spline with few control points a shot."""

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch import Tensor, nn

from trajdesign.interfaces import Parameterization
from trajdesign.trajectory import Trajectory


class BSplineOffsets(Parameterization):
    """The initial trajectory plus a cubic B-spline in time.

    After BJORK (Wang et al., IEEE TMI 2022, doi:10.1109/TMI.2022.3161875), who use quadratic ones.

    Parameters
    ----------
    initial
        The trajectory at zero offset.
    n_control
        Control points a shot. Fewer make smoother, slower curves.
    """

    basis: Tensor
    k_max: Tensor

    def __init__(self, initial: Trajectory, *, n_control: int = 100) -> None:
        super().__init__(initial)
        n_shots, n_points, n_dims = initial.k.shape
        n_control = min(max(n_control, 4), n_points)
        self.offset = nn.Parameter(torch.zeros(n_shots, n_control, n_dims, dtype=torch.float64))
        self.register_buffer("basis", cubic_basis(n_points, n_control))
        self.register_buffer("k_max", torch.tensor(initial.acquisition.k_max, dtype=torch.float64))

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`."""
        return self.initial.with_k(self.initial.k + (self.basis @ self.offset) * self.k_max)


def cubic_basis(n_points: int, n_control: int) -> Tensor:
    """Return the clamped uniform cubic B-splines at evenly spaced points (point, control), rows summing to one."""
    knots = np.concatenate([[0.0] * 3, np.linspace(0, 1, n_control - 2), [1.0] * 3])
    where = np.linspace(0, 1, n_points)
    return torch.from_numpy(BSpline.design_matrix(where, knots, 3).toarray())
