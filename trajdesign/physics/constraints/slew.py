"""Gradient slew rate."""

from torch import Tensor

from trajdesign.interfaces import Constraint
from trajdesign.trajectory import Trajectory


class Slew(Constraint):
    """|dg/dt| <= max_slew, the second limit of Peng et al., eq. 6."""

    derivative = 2
    guards_hardware = True
    unit = "T/m/s"

    @property
    def limit(self) -> float:
        """The scanner's largest slew rate."""
        return self.scanner.max_slew

    def measure(self, trajectory: Trajectory) -> Tensor:
        """Norm of the slew rate between neighbouring gradient samples (shot, interval)."""
        return self.norm(trajectory.slew)
