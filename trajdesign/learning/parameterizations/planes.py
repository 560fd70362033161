"""One shape for all partitions of a stack, or all frames of a film, which each turn it by an angle of their own."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trajdesign.config import plugins
from trajdesign.errors import ConfigError
from trajdesign.interfaces import Parameterization
from trajdesign.trajectories.design import rotated
from trajdesign.trajectory import Trajectory
from trajdesign.units import PROJECTION_MARGIN

#: Planes of a start are one shape if they differ by less, in 1/FOV.
_SAME_SHAPE = 1e-6


class Planes(Parameterization):
    """The shots of one plane are learned, and the angle of every plane.

    Every partition, or frame, plays the same waveforms, turned: what one plane does to gradients, nerves and ears, all
    do. The projection moves the one shape; a shot that leaves k-space where it is turned is then shrunk about the
    centre, in all planes alike, which no limit forbids.

    Parameters
    ----------
    initial
        A stack or a film of one shape, as of the init ``planes``.
    shape
        Table of the parameterization of the shape, by default ``{ kind = "bspline" }``; ``{ kind = "fixed" }`` learns
        the angles alone.
    rotation
        Learn an angle of every plane. Without it all keep those of the start.

    Raises
    ------
    ConfigError
        If the planes of the start do not share the shots evenly, or are not one shape, or limits hold for each axis by
        itself: turned waveforms would break them.
    """

    in_plane = True
    starts: Tensor
    heights: Tensor
    edge: Tensor
    k_max: Tensor
    angles: Tensor | None

    def __init__(self, initial: Trajectory, *, shape: dict[str, Any] | None = None, rotation: bool = True) -> None:
        super().__init__(initial)
        acquisition, points = initial.acquisition, initial.points
        n_planes, one = acquisition.n_planes, acquisition.plane
        if initial.scanner.limit_norm != "vector":
            raise ConfigError('parameterization planes turns its waveforms: it needs scanner.limit_norm = "vector".')
        of_planes = points.unflatten(0, (n_planes, -1))
        flat, heights = of_planes[..., :2], of_planes[..., 2:]
        starts = _angles(flat)
        apart = float((rotated(flat[0], starts) - flat).abs().max()) * max(acquisition.fov)
        if apart > _SAME_SHAPE or bool((heights != heights[:, :1, :1]).any()):
            raise ConfigError(
                f"parameterization planes: those of {initial.name} are not one shape that is turned ({apart:.3g}/FOV "
                "apart); start from init.kind = planes."
            )
        first = Trajectory(flat[0], one, initial.scanner, initial.name)
        self.shape = plugins.build("parameterization", shape or {"kind": "bspline"}, first)
        self.register_parameter(
            "angles", nn.Parameter(torch.zeros(n_planes, dtype=torch.float64)) if rotation else None
        )
        self.register_buffer("starts", starts)
        self.register_buffer("heights", heights)
        self.register_buffer("k_max", torch.tensor(one.k_max, dtype=torch.float64))
        self.to(points.device)
        self.register_buffer("edge", self._reach(flat).clamp_min(1 - 2 * PROJECTION_MARGIN))

    @property
    def waveforms(self) -> Trajectory:
        """See `Parameterization.waveforms`: the shots of one plane."""
        return self.shape.initial

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`."""
        return self._in_all_planes(self.shape().points)

    def onto_limits(self, trajectory: Trajectory, project: Callable[[Trajectory], Trajectory]) -> Trajectory:
        """See `Parameterization.onto_limits`."""
        k, like = trajectory.points, self.waveforms
        with torch.no_grad():
            shape = rotated(k[: like.acquisition.n_shots, :, :2], -self._turns[:1])[0]
            playable = self._in_all_planes(project(like.with_points(shape)).points)
        return trajectory.with_points(playable.points + (k - k.detach()))

    def refine(self, progress: float) -> None:
        """See `Parameterization.refine`."""
        self.shape.refine(progress)

    @property
    def _turns(self) -> Tensor:
        """Angle of each plane (plane,), rad."""
        return self.starts if self.angles is None else self.starts + self.angles

    def _in_all_planes(self, shape: Tensor) -> Trajectory:
        """Return a shape (shot, point, 2) turned into every plane, within k-space; its size has no gradient."""
        k = rotated(shape, self._turns)
        size = (self.edge / self._reach(k)).clamp_max(1.0)
        k = torch.cat([k * size[:, None, None], self.heights], dim=-1)
        return self.initial.with_points(k.flatten(0, 1))

    @torch.no_grad()
    def _reach(self, k: Tensor) -> Tensor:
        """Return how far each shot of k (plane, shot, point, 2) reaches in any plane (shot,), in parts of k_max."""
        return (k.abs() / self.k_max).amax((0, 2, 3))


def _angles(flat: Tensor) -> Tensor:
    """Return the angles (plane,), rad, that turn the first plane of k (plane, shot, point, 2) nearest to each."""
    first = flat[0]
    along = (flat * first).sum((1, 2, 3))
    across = (flat[..., 1] * first[..., 0] - flat[..., 0] * first[..., 1]).sum((1, 2))
    return torch.atan2(across, along) % (2 * math.pi)
