"""Gradient amplitude."""

from torch import Tensor

from trajdesign.interfaces import Constraint
from trajdesign.trajectory import Trajectory


class Gradient(Constraint):
    """|g| <= max_gradient, the first limit of Peng et al., eq. 6."""

    derivative = 1
    guards_hardware = True
    unit = "T/m"

    @property
    def limit(self) -> float:
        """The scanner's largest gradient."""
        return self.scanner.max_gradient

    def measure(self, trajectory: Trajectory) -> Tensor:
        """Norm of the gradient samples (shot, sample)."""
        return self.norm(trajectory.gradient)
