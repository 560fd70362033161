"""Offsets on a B-spline with few control points a shot."""

from typing import Literal

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch import Tensor

from trajdesign.interfaces import Parameterization
from trajdesign.learning.offset import Decimation, Offset
from trajdesign.trajectory import Trajectory


class BSplineOffsets(Parameterization):
    """The initial trajectory plus a B-spline in time, after BJORK.

    That is Wang et al., IEEE TMI 2022, doi:10.1109/TMI.2022.3161875, who use quadratic ones.

    Parameters
    ----------
    initial
        The trajectory at zero offset.
    n_control
        Control points a shot. Fewer make smoother, slower curves.
    degree
        3 for cubic pieces, 2 for quadratic ones, whose slew rate jumps at their ends.
    decimation
        Learn every so many of the control points at first, then twice as many, and so on to all of them.
    """

    def __init__(
        self, initial: Trajectory, *, n_control: int = 100, degree: Literal[2, 3] = 3, decimation: Decimation = 1
    ) -> None:
        super().__init__(initial)
        self.offset = Offset(initial, b_splines(initial.points.shape[1], n_control, degree), decimation)

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`."""
        return self.initial.with_points(self.initial.points + self.offset())

    def refine(self, progress: float) -> None:
        """See `Parameterization.refine`."""
        self.offset.refine(progress)


def b_splines(n_points: int, n_control: int, degree: int) -> Tensor:
    """Return the clamped uniform B-splines at evenly spaced points (point, control), rows summing to one."""
    n_control = min(max(n_control, degree + 1), n_points)
    ends = np.zeros(degree)
    knots = np.concatenate([ends, np.linspace(0, 1, n_control - degree + 1), ends + 1])
    where = np.linspace(0, 1, n_points)
    return torch.from_numpy(BSpline.design_matrix(where, knots, degree).toarray())
