"""Peripheral nerve stimulation."""

from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.interfaces import Constraint
from trajdesign.physics.nerves import NORMAL_MODE, nerve_model, stimulation
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory
from trajdesign.units import plausible


class Stimulation(Constraint):
    """Peripheral nerve stimulation during the readout, in parts of the limit of a model.

    See `trajdesign.physics.nerves`. The readout alone is known here: its response starts from rest, without the step to
    its first gradient. What leads to it and away from it is added by a sequence, whose own prediction is the one
    that counts.

    No projection enforces it. As a penalty it needs a `weight` of 1 to 10, more than the others, and a limit a few
    percent below the one to be kept, for it may end just beyond. It cannot take turns out of a path that is
    far too fast: it then shrinks the path, so learning had better start from a slower one (``[start]``).

    Parameters
    ----------
    model
        A gradient coil (a key of `trajdesign.physics.nerves.COILS`), or the path of a site's ``.asc`` file.
    limit
        0.8 is the normal operating mode, 1 the first-level controlled one.
    """

    unit = "of limit"

    def __init__(
        self,
        acquisition: Acquisition,
        scanner: Scanner,
        *,
        model: str,
        limit: float = NORMAL_MODE,
        weight: float | None = None,
    ) -> None:
        super().__init__(acquisition, scanner, weight=weight)
        self.model = nerve_model(model)
        self._limit = plausible("nerve_limit", limit)

    @property
    def limit(self) -> float:
        """The part of the model's limit that is allowed."""
        return self._limit

    def measure(self, trajectory: Trajectory) -> Tensor:
        """Response at the gradient samples (shot, sample)."""
        return stimulation(self.model, trajectory.gradient, trajectory.scanner.gradient_raster)
