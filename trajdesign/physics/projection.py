"""Projection onto the limits: the nearest trajectory that the scanner can play."""

import torch
from torch import Tensor

from trajdesign.interfaces import Constraint
from trajdesign.trajectory import Trajectory
from trajdesign.units import PROJECTION_MARGIN

_OVER_RELAXATION = 1.6


class Projection:
    """Least-squares projection of a trajectory onto all limits at once, batched over the shots.

    Every limit bounds a norm of a finite difference of the control points, so the limits are a convex set and the
    projection is a second-order cone program. It is solved by ADMM (Boyd et al. 2011, doi:10.1561/2200000016) with
    one dense inverse, formed once; the duals are kept from call to call, so a training step needs few iterations.
    What the iterations leave over is removed exactly, by shrinking each shot, which no limit forbids. The result
    keeps every limit by `PROJECTION_MARGIN`, whatever the number of iterations.

    An equality (`Constraint.vanishing`) is kept by every iterate: the inverse is that on the points which keep it. It
    holds for sums of the control points, so a shot is then shrunk about the centre of k-space alone.

    The gradient passes straight through: d projected / d wanted is taken as the identity. The result is in double
    precision whatever comes in, for in single precision rounding alone can break a limit on the slew rate.

    Constraints that are not `Constraint.is_enforced` are left to their penalty. `like` is any trajectory of the
    acquisition and scanner to come, for an equality the one to start from, and `n_iterations` are taken in every call.
    """

    def __init__(self, constraints: list[Constraint], like: Trajectory, n_iterations: int = 40) -> None:
        self.n_iterations = n_iterations
        self._unit = max(like.acquisition.fov)  # k in 1/FOV: the step of the iteration suits numbers near 50
        projected = [c for c in constraints if c.derivative is not None]
        tightest = {c.derivative: c for c in sorted(projected, key=lambda c: c.limit, reverse=True)}
        self._bounds = [_Bound(c, like, self._unit) for c in tightest.values()]
        identity = torch.eye(like.points.shape[1], dtype=torch.float64)
        system = identity.clone()
        for bound in self._bounds:
            rows = bound.apply(identity[..., None])[..., 0].contiguous()
            system += bound.weight[0] * rows.T @ rows  # of axis 0, and of every other: see `_Bound.weight`
        self._inverse = torch.linalg.inv(system)
        sums = [weights for c in constraints if (weights := c.vanishing(like)) is not None]
        self._is_centred = bool(sums)
        if sums:
            self._inverse = _nulled(self._inverse, torch.cat(sums))

    def __call__(self, trajectory: Trajectory) -> Trajectory:
        """Return the nearest trajectory that keeps the limits; `trajectory` may be any finite one."""
        k = trajectory.points
        wanted = k.detach().cpu().double().transpose(0, 1) * self._unit
        playable = self._shrink(self._solve(wanted)).transpose(0, 1) / self._unit
        return trajectory.with_points(playable.to(k.device) + (k - k.detach()))  # plus zero, which carries the gradient

    def state(self) -> list[list[Tensor]]:
        """Return what is kept from call to call: copy and dual of each limit."""
        return [[bound.copy, bound.dual] for bound in self._bounds]

    def load_state(self, state: list[list[Tensor]]) -> None:
        """Go on from the `state` of a projection onto the same limits."""
        for bound, (copy, dual) in zip(self._bounds, state, strict=True):
            bound.copy, bound.dual = copy, dual

    def _solve(self, wanted: Tensor) -> Tensor:
        """ADMM on k (point, shot, dim) in 1/FOV."""
        k = wanted
        for bound in self._bounds:
            bound.begin(wanted)
        for _ in range(self.n_iterations):
            right = wanted.clone()
            for bound in self._bounds:
                bound.pull(right)
            k = (self._inverse @ right.flatten(1)).view_as(right)
            for bound in self._bounds:
                bound.update(k)
        return k

    def _shrink(self, k: Tensor) -> Tensor:
        """Shrink each shot about the centre of k-space until it is in bounds, and about its mean until it is slow.

        Where an equality holds it is shrunk about the centre both times, which leaves sums that are zero as they are.
        """
        factor = torch.ones(k.shape[1], dtype=k.dtype)
        for bound in self._bounds:
            if not bound.derivative:
                k = k / bound.length(bound.apply(k)).amax(dim=0).clamp_min(1.0)
        for bound in self._bounds:
            if bound.derivative:
                factor = torch.minimum(factor, 1 / bound.length(bound.apply(k)).amax(dim=(0, -1)))
        mean = torch.zeros_like(k[:1]) if self._is_centred else k.mean(dim=0, keepdim=True)
        return mean + factor[:, None] * (k - mean)


def _nulled(inverse: Tensor, sums: Tensor) -> Tensor:
    """Return the inverse of a quadratic form on the points k (point,) of which all `sums` (sum, point) @ k are zero."""
    reach = inverse @ sums.T
    return inverse - reach @ torch.linalg.solve(sums @ reach, reach.T)


class _Bound:
    """One limit as norm(D k) <= 1, D a scaled finite difference; holds ADMM's copy and scaled dual of D k."""

    def __init__(self, constraint: Constraint, like: Trajectory, unit: float) -> None:
        self.derivative = constraint.derivative or 0
        self.vector = self.derivative > 0 and constraint.scanner.limit_norm == "vector"
        if self.derivative:
            one = [like.scanner.gamma * like.scanner.gradient_raster**self.derivative] * like.acquisition.n_dims
        else:
            one = list(like.acquisition.k_max)
        #: The limit of each axis, less the margin, in the unit of the iteration.
        self.limit = torch.tensor(one, dtype=torch.float64) * constraint.limit * unit * (1 - PROJECTION_MARGIN)
        # ADMM's penalty on this limit, of each axis: measured best near 3 for differences, and near 0.1 on k itself,
        # which makes the penalty on k, weight / limit^2, and so the system, the same for axes of different k_max
        weight = [3.0 if self.derivative else 0.1 * float(limit) ** 2 for limit in self.limit]
        self.weight = torch.tensor(weight, dtype=torch.float64)
        self._back = (-1) ** self.derivative * self.weight / self.limit  # D^T is the differences of a padded array
        self.copy = self.dual = torch.empty(0)

    def apply(self, k: Tensor) -> Tensor:
        """D k (row, shot, dim) of k (point, shot, dim)."""
        return k.diff(n=self.derivative, dim=0) / self.limit if self.derivative else k / self.limit

    def pull(self, right: Tensor) -> None:
        """Add weight D^T (copy - dual) to `right` (point, shot, dim)."""
        padding = (0, 0, 0, 0, self.derivative, self.derivative)
        values = torch.nn.functional.pad(self.copy - self.dual, padding).diff(n=self.derivative, dim=0)
        right.addcmul_(values, self._back)

    def length(self, values: Tensor) -> Tensor:
        """Norm of values (row, shot, dim) in the sense of the limit: (row, shot, 1) or per axis."""
        return torch.linalg.vector_norm(values, dim=-1, keepdim=True) if self.vector else values.abs()

    def clip(self, values: Tensor) -> Tensor:
        """Nearest values (row, shot, dim) within the limit."""
        return values / self.length(values).clamp_min(1.0) if self.vector else values.clamp(-1.0, 1.0)

    def begin(self, k: Tensor) -> None:
        """Start from the last call's solution, or from k."""
        if not self.copy.numel():
            self.copy = self.clip(self.apply(k))
            self.dual = torch.zeros_like(self.copy)

    def update(self, k: Tensor) -> None:
        """ADMM's second and third step."""
        relaxed = self.apply(k).mul_(_OVER_RELAXATION).add_(self.copy, alpha=1 - _OVER_RELAXATION)
        total = relaxed.add_(self.dual)
        self.copy = self.clip(total)
        self.dual = total.sub_(self.copy)


def project(trajectory: Trajectory, constraints: list[Constraint], n_iterations: int = 2000) -> Trajectory:
    """Return the nearest trajectory that keeps the limits; see `Projection`."""
    return Projection(constraints, trajectory, n_iterations)(trajectory)
