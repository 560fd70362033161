"""Extent of k-space."""

from torch import Tensor

from trajdesign.interfaces import Constraint
from trajdesign.trajectory import Trajectory
from trajdesign.units import FILE_ROUNDING


class Extent(Constraint):
    """|k| <= k_max along each axis: what lies beyond belongs to a finer matrix and would alias in this one."""

    derivative = 0
    rounding = FILE_ROUNDING
    unit = "k_max"

    @property
    def limit(self) -> float:
        """One: k is measured in parts of k_max."""
        return 1.0

    def measure(self, trajectory: Trajectory) -> Tensor:
        """Largest |k| / k_max over the axes at every control point (shot, point)."""
        return (trajectory.points / trajectory.points.new_tensor(self.acquisition.k_max)).abs().amax(dim=-1)
