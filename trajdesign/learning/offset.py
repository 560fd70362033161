"""The offset of a trajectory from its start: coefficients in time, learned from few to many."""

from typing import Literal

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from trajdesign.trajectory import Trajectory

Decimation = Literal[1, 2, 4, 8, 16, 32, 64]


class Offset(nn.Module):
    """Learnable coefficients of an offset (shot, point, dim) on a `basis` (point, coefficient) in time, zero at first.

    With a decimation D they are learned at several resolutions, as in SPARKLING (Chaithya et al. 2022,
    doi:10.1109/TMI.2022.3157269): at first every D-th one, between which the others lie on a cubic spline, then every
    D/2-th, and so on to all, each for an equal part of the run.

    All coefficients exist throughout; a coarse level sees only their least-squares fit by its splines. Those of one
    level are splines of the next, so what no level has seen yet can be dropped without moving the curve, and Adam goes
    on with the moments that it has. The basis is in k_max.
    """

    basis: Tensor
    k_max: Tensor

    def __init__(self, initial: Trajectory, basis: Tensor, decimation: int) -> None:
        super().__init__()
        n_shots, _, n_dims = initial.points.shape
        self.coefficients = nn.Parameter(torch.zeros(n_shots, basis.shape[1], n_dims, dtype=torch.float64))
        self.register_buffer("basis", basis)
        self.register_buffer("k_max", torch.tensor(initial.acquisition.k_max, dtype=torch.float64))
        self.register_buffer("level", None, persistent=False)
        self.decimation = decimation
        self._decimate(decimation)
        self.to(initial.points.device)

    def forward(self) -> Tensor:
        """Return the offset (shot, point, dim), 1/m."""
        return (self.basis @ self._seen()) * self.k_max

    def refine(self, progress: float) -> None:
        """Go on to the resolution of this part of the run, 0 to 1, on the same curve."""
        n_levels = self.decimation.bit_length()
        gap = self.decimation >> min(int(progress * n_levels), n_levels - 1)
        if gap < self.gap:
            with torch.no_grad():
                self.coefficients.copy_(self._seen())
            self._decimate(gap)

    def _decimate(self, gap: int) -> None:
        self.gap = gap
        spline = natural_spline(self.coefficients.shape[1], gap)
        self.level = None if gap == 1 else torch.linalg.qr(spline).Q.to(self.basis)

    def _seen(self) -> Tensor:
        """Return what the level sees of the coefficients (shot, coefficient, dim)."""
        if self.level is None:
            return self.coefficients
        return self.level @ (self.level.mT @ self.coefficients)


def natural_spline(n_points: int, gap: int) -> Tensor:
    """Return the natural cubic splines that are one at every `gap`-th point, or at the last (point, knot)."""
    points = np.arange(n_points)
    knots = np.union1d(points[::gap], points[-1])
    return torch.from_numpy(CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(points))
