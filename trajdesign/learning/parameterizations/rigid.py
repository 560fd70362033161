"""Shots that keep their shape: each is turned, and scaled and shifted if wanted."""

from itertools import combinations

import torch
from torch import Tensor, nn

from trajdesign.errors import ConfigError
from trajdesign.interfaces import Parameterization
from trajdesign.physics import limits
from trajdesign.trajectory import Trajectory
from trajdesign.units import DWELL_ROUNDING, PROJECTION_MARGIN


class Rigid(Parameterization):
    """Each shot is the start's, turned about the centre of k-space, scaled and shifted by numbers of its own.

    So the angles of spokes and the rotations of interleaves are learned, and a scanner plays one shape.

    It keeps the limits by itself, so that the projection finds nothing to bend. Those that are projected bound norms of
    k and of its differences, which a smaller shot keeps all the more. So a shot that would pass one (a line that turns
    its ends out of k-space, a larger or a shifted shot, any where the limits hold for each axis) is shrunk about the
    centre of k-space until it is two of the projection's margins below it. The gradient takes this factor as constant.
    Only limits that are set tighter than the scanner's own, and an echo time with `shift`, are left to the projection;
    and one that the start is beyond, because nobody asked for it, may be passed as far.

    Parameters
    ----------
    initial
        The trajectory at no rotation.
    rotation
        Learn an angle (2D), or a rotation about each axis (3D), of every shot.
    scale
        Learn the size of every shot.
    shift
        Learn where the centre of every shot lies.

    Raises
    ------
    ConfigError
        If nothing is to be learned.
    """

    bounds: Tensor
    planes: Tensor
    k_max: Tensor
    angles: Tensor | None
    sizes: Tensor | None
    shifts: Tensor | None

    def __init__(self, initial: Trajectory, *, rotation: bool = True, scale: bool = False, shift: bool = False) -> None:
        super().__init__(initial)
        if not (rotation or scale or shift):
            raise ConfigError("parameterization: rotation, scale and shift are all false; learn one, or take 'fixed'.")
        n_shots, _, n_dims = initial.points.shape
        pairs = list(combinations(range(n_dims), 2))
        planes = torch.zeros(len(pairs), n_dims, n_dims, dtype=torch.float64)
        for plane, (first, second) in zip(planes, pairs, strict=True):
            plane[first, second], plane[second, first] = 1, -1  # of row vectors
        self.register_buffer("planes", planes)
        self.register_buffer("k_max", torch.tensor(initial.acquisition.k_max, dtype=torch.float64))
        # an angle in rad moves what lies at k_max by as many k_max, as one of the others moves the largest k
        sizes = {"angles": (rotation, len(pairs)), "sizes": (scale, 1), "shifts": (shift, n_dims)}
        for name, (is_learned, n) in sizes.items():
            zeros = nn.Parameter(torch.zeros(n_shots, 1, n, dtype=torch.float64)) if is_learned else None
            self.register_parameter(name, zeros)
        every = limits.constraints(initial.acquisition, initial.scanner)
        self.limits = [limit for limit in every if limit.derivative is not None]
        self.to(initial.points.device)
        loads = self._loads(initial.points)
        bound = torch.full_like(loads, 1 - 2 * PROJECTION_MARGIN)
        self.register_buffer("bounds", torch.where(loads > 1 + DWELL_ROUNDING, loads, bound))

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`."""
        k = self.initial.points
        if self.angles is not None:
            k = k @ torch.linalg.matrix_exp(torch.tensordot(self.angles[:, 0], self.planes, 1))
        if self.sizes is not None:
            k = k * torch.exp(self.sizes)
        if self.shifts is not None:
            k = k + self.shifts * self.k_max
        is_moved = (k != self.initial.points).any(2, keepdim=True).any(1, keepdim=True)
        factor = (self.bounds / self._loads(k)).amin(0).clamp_max(1.0)
        return self.initial.with_points(torch.where(is_moved, k * factor[:, None, None], k))

    @torch.no_grad()
    def _loads(self, k: Tensor) -> Tensor:
        """Return the part of each limit that each shot takes (limit, shot)."""
        moved = self.initial.with_points(k)
        return torch.stack([limit.measure(moved).amax(1) / limit.limit for limit in self.limits])
