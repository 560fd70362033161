"""Every control point of the raster is free, or every few."""

from trajdesign.errors import ConfigError
from trajdesign.interfaces import Parameterization
from trajdesign.learning.offset import Decimation, Offset, natural_spline
from trajdesign.trajectory import Trajectory


class Samples(Parameterization):
    """One free offset a raster point, or every few of them, as PILOT (Weiss et al. 2019, arXiv:1909.05773).

    Parameters
    ----------
    initial
        The trajectory at zero offset.
    gap
        Every so many points have an offset of their own; between them it follows a cubic spline.
    decimation
        Learn every so many of these offsets at first, then twice as many, and so on to all of them.

    Raises
    ------
    ConfigError
        If the gap is less than one.
    """

    def __init__(self, initial: Trajectory, *, gap: int = 1, decimation: Decimation = 1) -> None:
        super().__init__(initial)
        if gap < 1:
            raise ConfigError(f"parameterization.gap is {gap}; it is 1, for every point, or more.")
        self.offset = Offset(initial, natural_spline(initial.points.shape[1], gap), decimation)

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`."""
        return self.initial.with_points(self.initial.points + self.offset())

    def refine(self, progress: float) -> None:
        """See `Parameterization.refine`."""
        self.offset.refine(progress)
