"""The paper's parameterization: a trajectory that solves an ODE with a neural right-hand side."""

import math
from typing import Literal

import torch
import torchdiffeq
from torch import Tensor, nn

from trajdesign.errors import ConfigError, DivergedError
from trajdesign.interfaces import Parameterization
from trajdesign.trajectory import Trajectory

# What the network's output and the codes are multiples of, in k_max, so that the learning rate of B-splines suits both.
_REACH = 2.0
# Of the network's layers and the codes.
_MOST_WIDTH = 4096
# Velocities that dopri5 asks for in a step.
_STAGES = 6
# Standard deviation of the codes before the first step.
_CODE_SCALE = 0.3


class NeuralODE(Parameterization):
    """dk/dt = dk0/dt + (f_theta(k, t, c) - (k - k0)) / tau from control points of the initial trajectory k0.

    After Peng et al., CVPR 2022, eqs. 1 to 3: each shot is cut into segments, each starts at its control point,
    and all are integrated at once over their short duration. Three things differ. The velocity is a departure from
    the initial one, zero before the first step, so that the start is the initial trajectory itself. The departure
    relaxes, within the time tau, to what the network asks for: so the segments can be joined (the departure at the end
    of one is carried into the next, where it fades), the path is continuous and smooth, a change early in the shot
    does not throw the rest of it away, and the equation is never stiff. And every control point has a code c of a few
    learned numbers, interpolated along the segment, which the network sees and the first of which push by themselves:
    without it the same field moves whatever comes by at about the same time, and two shots can hardly part.

    Parameters
    ----------
    initial
        The trajectory k0.
    n_control
        Wanted control points a shot; segments are whole rasters, so it is met to the nearest one.
    n_code
        Numbers in the code of a control point, at least one for each axis; 0 is the paper's field, of place and time
        alone.
    hidden
        Width of the network's two hidden layers.
    relaxation
        tau, s. Longer makes smoother, slower curves.
    method
        Solver of torchdiffeq: a fixed-step one, which takes one step a raster, or ``dopri5``.
    adjoint
        Back-propagate by the adjoint ODE (constant memory) instead of through the solver's steps.
    rtol, atol
        Tolerances of ``dopri5``, in parts of k_max.
    max_steps
        Most steps ``dopri5`` may take in a segment, on average for each of its rasters.

    Raises
    ------
    ConfigError
        If an option is not positive or too large, `n_code` too small, or the relaxation shorter than the raster.
    """

    carry: Tensor
    k_max: Tensor

    def __init__(
        self,
        initial: Trajectory,
        *,
        n_control: int = 100,
        n_code: int = 8,
        hidden: int = 64,
        relaxation: float = 60e-6,
        method: Literal["euler", "midpoint", "rk4", "dopri5"] = "rk4",
        adjoint: bool = False,
        rtol: float = 1e-4,
        atol: float = 1e-5,
        max_steps: int = 200,
    ) -> None:
        super().__init__(initial)
        sizes = {"n_control": n_control, "hidden": hidden, "rtol": rtol, "atol": atol, "max_steps": max_steps}
        for option, value in sizes.items():
            if not value > 0:
                raise ConfigError(f"parameterization.{option} is {value}; it must be positive.")
        if hidden > _MOST_WIDTH or n_code > _MOST_WIDTH:
            raise ConfigError(f"parameterization.hidden is {hidden}, n_code {n_code}; they are at most {_MOST_WIDTH}.")
        n_intervals, n_dims = initial.points.shape[1] - 1, initial.points.shape[2]
        if n_code and n_code < n_dims:
            raise ConfigError(f"parameterization.n_code is {n_code}; it is 0, or {n_dims} or more.")
        raster = initial.scanner.gradient_raster
        if not relaxation >= raster:
            raise ConfigError(
                f"parameterization.relaxation is {relaxation:g} s; it must not be shorter than the gradient raster, "
                f"{raster:g} s."
            )
        self.length = max(1, round(n_intervals / n_control))
        n_segments = math.ceil(n_intervals / self.length)
        k_max = initial.points.new_tensor(initial.acquisition.k_max)
        tau = relaxation / raster  # time is counted in rasters, k in k_max
        decay = math.exp(-self.length / tau)
        power = torch.arange(n_segments)[:, None] - torch.arange(n_segments) - 1
        self.register_buffer("carry", torch.where(power >= 0, decay ** power.clamp_min(0), 0.0).double())
        self.register_buffer("k_max", k_max.double())
        padded = torch.cat([initial.points, initial.points[:, -1:].expand(-1, self.length, -1)], dim=1) / k_max
        segments = padded.unfold(1, self.length + 1, self.length)[:, :n_segments].permute(3, 0, 1, 2)
        self.field = _Field(segments.float(), tau, n_code, hidden)
        self.method, self.adjoint = method, adjoint
        self.rtol, self.atol, self.max_steps = rtol, atol, max_steps
        self.to(initial.points.device)

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`.

        Raises
        ------
        DivergedError
            If the solver needs more than `max_steps` or leaves the finite numbers.
        """
        times = torch.arange(self.length + 1, dtype=torch.float32, device=self.k_max.device)
        start = torch.zeros_like(self.field.segments[0])
        settings = {"rtol": self.rtol, "atol": self.atol, "method": self.method}
        self._limit_steps()
        try:
            if self.adjoint:
                options = {"norm": "seminorm"}
                local = torchdiffeq.odeint_adjoint(self.field, start, times, adjoint_options=options, **settings)
                if local.requires_grad:
                    local.register_hook(self._before_backward)
            else:
                local = torchdiffeq.odeint(self.field, start, times, **settings)
        except AssertionError as error:  # how torchdiffeq reports a step size out of bounds
            raise DivergedError(f"the ODE solver {self.method} gave up: {error}.") from None
        departure = self._join(local.double(), times)
        if not bool(torch.isfinite(departure).all()):
            raise DivergedError(f"the ODE solver {self.method} left the finite numbers; lower the learning rate.")
        return self.initial.with_points(self.initial.points + departure * self.k_max)

    def _limit_steps(self) -> None:
        """Let the adaptive solver ask for as many velocities as its steps may take: it has no end of its own."""
        self.field.n_left = (_STAGES * self.max_steps + 2) * self.length if self.method == "dopri5" else math.inf

    def _before_backward(self, gradient: Tensor) -> None:
        """Guard the adjoint ODE, which is solved in the backward pass."""
        if not bool(torch.isfinite(gradient).all()):
            raise DivergedError("the gradient to the trajectory is not finite; lower the learning rates.")
        self._limit_steps()

    def _join(self, local: Tensor, times: Tensor) -> Tensor:
        """Departures (time, shot, segment, dim) within segments -> along the shots (shot, point, dim)."""
        carried = torch.einsum("st,btd->bsd", self.carry, local[-1])
        forgotten = torch.exp(-times.double() / self.field.tau)[:, None, None, None]
        whole = (local + forgotten * carried)[:-1].permute(1, 2, 0, 3).flatten(1, 2)
        end = local[-1] + forgotten[-1] * carried
        whole = torch.cat([whole, end[:, -1:]], dim=1)
        return whole[:, : self.initial.points.shape[1]]


class _Field(nn.Module):
    """Right-hand side of the departure within each segment, in k_max a raster."""

    segments: Tensor
    first: Tensor
    frequencies: Tensor

    def __init__(self, segments: Tensor, tau: float, n_code: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("segments", segments)  # initial k (time, shot, segment, dim), in k_max
        _, n_shots, n_segments, n_dims = segments.shape
        codes = _CODE_SCALE * torch.randn(n_shots, n_segments + 1, n_code)
        codes[..., :n_dims] = 0  # those that push
        self.codes = nn.Parameter(codes) if n_code else None
        first = torch.arange(n_segments)[:, None] * (len(segments) - 1)
        self.register_buffer("first", first / (n_segments * (len(segments) - 1)))
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(5))
        self.rasters = n_segments * (len(segments) - 1)
        self.n_left: float = math.inf
        self.tau = tau
        n_features = (n_dims + 1) * (1 + 2 * len(self.frequencies)) + n_code
        last = nn.Linear(hidden, n_dims)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(
            nn.Linear(n_features, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
        )

    def forward(self, time: Tensor, departure: Tensor) -> Tensor:
        """Velocity of the departure (shot, segment, dim) at a time (rasters) after the control point.

        Raises
        ------
        DivergedError
            If it is asked for more often than `n_left` says.
        """
        self.n_left -= 1
        if self.n_left < 0:
            raise DivergedError(
                "the ODE solver dopri5 takes too many steps; lower the learning rate, or raise max_steps."
            )
        index = int(time.detach().clamp(0, len(self.segments) - 2))
        part = time - index
        k = self.segments[index] + part * (self.segments[index + 1] - self.segments[index]) + departure
        now = (self.first + time / self.rasters).expand(*k.shape[:-1], 1)
        state = torch.cat([k, 2 * now - 1], dim=-1)
        waves = (state[..., None] * self.frequencies).flatten(-2)
        features = torch.cat([state, waves.sin(), waves.cos()], dim=-1)
        if self.codes is None:
            wanted = self.network(features)
        else:
            code = torch.lerp(self.codes[:, :-1], self.codes[:, 1:], time / (len(self.segments) - 1))
            wanted = self.network(torch.cat([features, code], dim=-1)) + code[..., : departure.shape[-1]]
        return (_REACH * wanted - departure) / self.tau
