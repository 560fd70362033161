"""From the gradients that are played to those that act: the response of the gradient system."""

import torch
from torch import Tensor

from trajdesign import plugins
from trajdesign.trajectory import Trajectory


class Response:
    """The response of the gradient system, made once from its config table.

    Parameters
    ----------
    table
        ``{"kind": ...}`` and options; empty for a perfect system, where what is played is what acts.
    """

    def __init__(self, table: plugins.Table) -> None:
        self.is_perfect = not table
        self._model = plugins.bind("response", table, 2) if table else None

    def of_gradient(self, played: Tensor, raster: float) -> Tensor:
        """Return the gradient that acts (..., sample, axis), T/m, when one is played in steps of `raster` (s)."""
        return played if self._model is None else self._model(played, raster)

    def __call__(self, trajectory: Trajectory) -> Trajectory:
        """Return the curve that the gradient system makes of a trajectory, differentiable.

        What came before the readout is taken to have died out, so the first control point stays where it is.
        """
        if self.is_perfect:
            return trajectory
        scanner = trajectory.scanner
        gradient = self.of_gradient(trajectory.gradient, scanner.gradient_raster)
        steps = gradient.cumsum(dim=1) * (scanner.gamma * scanner.gradient_raster)
        return trajectory.with_points(torch.cat([trajectory.points[:, :1], trajectory.points[:, :1] + steps], dim=1))
