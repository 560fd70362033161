"""From the gradients that are played to those that act: the response of the gradient system."""

import math

import torch
from torch import Tensor

from trajdesign import plugins
from trajdesign.trajectory import Trajectory, sampling_weights


class Response:
    """The response of the gradient system, made once from its config table.

    Parameters
    ----------
    table
        ``{"kind": ...}`` and options; empty for a perfect system, where what is played is what acts.
    """

    def __init__(self, table: plugins.Table) -> None:
        #: The table with every default written out.
        self.table = plugins.resolve("response", table) if table else {}
        self.is_perfect = not table
        self._model = plugins.bind("response", table, 2) if table else None

    def acting(self, played: Tensor, raster: float) -> tuple[Tensor, Tensor | None]:
        """Return what acts when a gradient (..., sample, axis), T/m, is played in steps of `raster`, s.

        Returns
        -------
        gradient
            (..., sample, axis), T/m.
        field
            At the isocentre (..., sample), T; None if the model tells none.
        """
        if self._model is None:
            return played, None
        found = self._model(played, raster)
        return found if isinstance(found, tuple) else (found, None)

    def __call__(self, trajectory: Trajectory) -> Trajectory:
        """Return the curve that the gradient system makes of a trajectory, differentiable.

        What came before the readout is taken to have died out, so the first control point stays where it is.
        """
        if self.is_perfect:
            return trajectory
        scanner = trajectory.scanner
        gradient, _ = self.acting(trajectory.gradient, scanner.gradient_raster)
        steps = gradient.cumsum(dim=1) * (scanner.gamma * scanner.gradient_raster)
        return trajectory.with_points(torch.cat([trajectory.points[:, :1], trajectory.points[:, :1] + steps], dim=1))

    @torch.no_grad()
    def phase(self, trajectory: Trajectory) -> Tensor | None:
        r"""Return by how much the field at the isocentre has turned the spins at each ADC sample (shot, sample), rad.

        .. math:: \phi(t) = 2 \pi \gamma \int_0^t B_0(s) \, ds

        from the first control point on. The signal has the factor :math:`e^{-i \phi}`, in the sign of
        :math:`e^{-2 \pi i k \cdot r}`. None where the model tells no field.
        """
        scanner = trajectory.scanner
        _, field = self.acting(trajectory.gradient, scanner.gradient_raster)
        if field is None:
            return None
        turns = torch.nn.functional.pad(field.cumsum(dim=1) * (scanner.gamma * scanner.gradient_raster), (1, 0))
        index, weights = sampling_weights(trajectory.acquisition, scanner)  # as of k: field is in straight lines too
        return 2 * math.pi * sum((turns[:, index + i] * weights[i].to(turns) for i in range(3)), start=torch.zeros(()))
