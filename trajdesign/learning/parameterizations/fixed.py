"""A trajectory that is not learned."""

from trajdesign.interfaces import Parameterization
from trajdesign.trajectory import Trajectory


class Fixed(Parameterization):
    """The initial trajectory, as it is."""

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`."""
        return self.initial
