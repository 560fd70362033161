"""Receiver bandwidth: the Nyquist speed through k-space."""

from torch import Tensor

from trajdesign.interfaces import Constraint
from trajdesign.trajectory import Trajectory
from trajdesign.units import DWELL_ROUNDING


class Receiver(Constraint):
    """|g| <= 1 / (gamma * dwell * FOV): no more than one 1/FOV between two ADC samples.

    Beyond it the receiver's filter cuts off the edges of the field of view along the gradient.
    """

    derivative = 1
    rounding = DWELL_ROUNDING
    unit = "T/m"

    @property
    def limit(self) -> float:
        """The Nyquist gradient of the largest field of view."""
        return 1 / (self.scanner.gamma * self.acquisition.dwell * max(self.acquisition.fov))

    def measure(self, trajectory: Trajectory) -> Tensor:
        """Norm of the gradient samples (shot, sample)."""
        return self.norm(trajectory.gradient)
