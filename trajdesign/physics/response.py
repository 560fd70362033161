"""From the gradients that are played to those that act: the response of the gradient system."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trajdesign.config import plugins
from trajdesign.trajectory import Trajectory, sampling_weights

#: A phase that varies over the field of view, and that nothing reckons with, is told beyond this, rad.
_MOST_LEFT_OUT = 0.1
# How long the gradient lasts that leads from rest at the centre of k-space to a readout, s, as prephasers do.
_LEAD = 1e-3


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

    @property
    def is_local(self) -> bool:
        """Whether it differs from place to place: its model has the option ``position``."""
        return "position" in self.table

    def at(self, place: Sequence[float]) -> "Response":
        """Return the response `place` away, m along x, y and z of the sequence, from where it holds."""
        if not self.is_local:
            return self
        position = [middle + away for middle, away in zip(self.table["position"], place, strict=True)]
        return Response({**self.table, "position": position})

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

        What leads to the readout is taken to be smooth and to last a millisecond, see `_led`: a file has its own.
        """
        if self.is_perfect:
            return trajectory
        raster = trajectory.scanner.gradient_raster
        gradient, _ = self.acting(_led(trajectory), raster)
        k = gradient.cumsum(dim=1) * (trajectory.scanner.gamma * raster)
        return trajectory.with_points(k[:, -trajectory.points.shape[1] :])

    @torch.no_grad()
    def phase(self, trajectory: Trajectory) -> Tensor | None:
        r"""Return by how much the field at the isocentre has turned the spins at each ADC sample (shot, sample), rad.

        .. math:: \phi(t) = 2 \pi \gamma \int_0^t B_0(s) \, ds

        from the first control point on: what leads to it turns all samples of a shot alike, as only the file tells.
        The signal has the factor :math:`e^{-i \phi}`, in the sign of :math:`e^{-2 \pi i k \cdot r}`. None where the
        model tells no field.
        """
        scanner = trajectory.scanner
        _, field = self.acting(trajectory.gradient, scanner.gradient_raster)
        if field is None:
            return None
        turns = torch.nn.functional.pad(field.cumsum(dim=1) * (scanner.gamma * scanner.gradient_raster), (1, 0))
        index, weights = sampling_weights(trajectory.acquisition, scanner)  # as of k: field is in straight lines too
        return 2 * math.pi * sum((turns[:, index + i] * weights[i].to(turns) for i in range(3)), start=torch.zeros(()))

    def left_out(self, fov: Sequence[float], phase: Callable[["Response"], Tensor | None]) -> float:
        """Return the largest phase in the field of view, rad, that `phase` and k lack, as it is not linear in place.

        It is the mean of the phases at opposite corners, less that in the middle.

        Parameters
        ----------
        fov
            Of each axis, m.
        phase
            Of all samples under a response.
        """
        middle = phase(self) if self.is_local else None
        if middle is None:
            return 0.0
        largest = 0.0
        for signs in itertools.product((-0.5, 0.5), repeat=len(fov) - 1):
            corner = [sign * extent for sign, extent in zip((*signs, 0.5), fov, strict=True)] + [0.0] * (3 - len(fov))
            ends = [phase(self.at([sign * part for part in corner])) for sign in (1, -1)]
            rest = sum((end for end in ends if end is not None), start=torch.zeros(())) / 2 - middle
            largest = max(largest, float(rest.abs().max()))
        return largest

    def remark(self, trajectory: Trajectory) -> str | None:
        """Return a sentence on what a trajectory's encoding leaves out of the response; None if that is little."""
        return remark_on(self.left_out(trajectory.acquisition.fov, lambda response: response.phase(trajectory)))


def _led(trajectory: Trajectory) -> Tensor:
    """Return the gradient (shot, cell, axis), T/m, with what leads from rest at the centre of k-space to its readout.

    It rises as the fourth power of time to the first sample of the readout, and a bump, which is flat at both ends,
    makes its integral the first control point: as smooth as a prephaser, and differentiable.
    """
    scanner, gradient = trajectory.scanner, trajectory.gradient
    n = round(_LEAD / scanner.gradient_raster)
    time = (torch.arange(1, n + 1, dtype=gradient.dtype, device=gradient.device) / (n + 1))[:, None]
    rise, bump = time**4, (time * (1 - time)) ** 2
    missing = trajectory.points[:, :1] / (scanner.gamma * scanner.gradient_raster) - gradient[:, :1] * rise.sum()
    return torch.cat([gradient[:, :1] * rise + missing * (bump / bump.sum()), gradient], dim=1)


def remark_on(left_out: float) -> str | None:
    """Return a sentence on a phase that is left out, rad; None if it is small."""
    if not left_out > _MOST_LEFT_OUT:
        return None
    return (
        f"Concomitant fields turn spins in the corners of the field of view by up to {left_out:.2g} rad beyond what is "
        f"linear over the slice: nothing here reckons with that, and more than {_MOST_LEFT_OUT:g} rad may blur them."
    )
