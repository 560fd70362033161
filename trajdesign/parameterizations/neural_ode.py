"""The paper's parameterization: a trajectory that solves an ODE with a neural right-hand side."""

import math
from typing import Literal

import torch
import torchdiffeq
from torch import Tensor, nn

from trajdesign.errors import ConfigError, DivergedError
from trajdesign.interfaces import Parameterization
from trajdesign.trajectory import Trajectory

_CODE_SCALE = 0.3


class NeuralODE(Parameterization):
    """dk/dt = dk0/dt + f_theta(k, t, c) from control points of the initial trajectory k0.

    After Peng et al., CVPR 2022, eqs. 1 to 3: each shot is cut into segments, each starts at its control point,
    and all are integrated at once over their short duration. Three things differ. The network gives the departure
    from the initial velocity, zero before the first step, so that the start is the initial trajectory itself. The
    segments are joined: the departure at the end of one is carried into the next and forgotten over the time
    `memory`, as the ODE with the leak -(k - k0)/memory prescribes, so that the path is continuous and a change early
    in the shot does not throw the rest of it away. And every control point has a code c of a few learned numbers,
    interpolated along the segment: without it the same field moves whatever comes by at about the same time, and two
    shots can hardly part.

    Parameters
    ----------
    initial
        The trajectory k0.
    n_control
        Wanted control points a shot; segments are whole rasters, so it is met to the nearest one.
    n_code
        Numbers in the code of a control point; 0 is the paper's field, of place and time alone.
    hidden
        Width of the network's two hidden layers.
    memory
        Part of the shot over which a departure is forgotten.
    method
        Solver of torchdiffeq: a fixed-step one, which takes one step a raster, or ``dopri5``.
    adjoint
        Back-propagate by the adjoint ODE (constant memory) instead of through the solver's steps.
    rtol, atol
        Tolerances of ``dopri5``, in parts of k_max.
    max_steps
        Most steps ``dopri5`` may take over a segment.

    Raises
    ------
    ConfigError
        If an option is not positive, or `n_code` negative.
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
        memory: float = 0.05,
        method: Literal["euler", "midpoint", "rk4", "dopri5"] = "rk4",
        adjoint: bool = False,
        rtol: float = 1e-4,
        atol: float = 1e-5,
        max_steps: int = 200,
    ) -> None:
        super().__init__(initial)
        sizes = {"n_control": n_control, "hidden": hidden, "memory": memory}
        for option, value in (sizes | {"rtol": rtol, "atol": atol, "max_steps": max_steps}).items():
            if not value > 0:
                raise ConfigError(f"parameterization.{option} is {value}; it must be positive.")
        if n_code < 0:
            raise ConfigError(f"parameterization.n_code is {n_code}; it is 0 or more.")
        n_intervals = initial.k.shape[1] - 1
        self.length = max(1, round(n_intervals / n_control))
        n_segments = math.ceil(n_intervals / self.length)
        k_max = torch.tensor(initial.acquisition.k_max, dtype=torch.float64)
        # time is counted in rasters, k in k_max, and the network's output in the fastest speed of the receiver
        decay = math.exp(-self.length / (memory * n_intervals))
        power = torch.arange(n_segments)[:, None] - torch.arange(n_segments) - 1
        self.register_buffer("carry", torch.where(power >= 0, decay ** power.clamp_min(0), 0.0).double())
        self.register_buffer("k_max", k_max)
        padded = torch.cat([initial.k, initial.k[:, -1:].expand(-1, self.length, -1)], dim=1) / k_max
        segments = padded.unfold(1, self.length + 1, self.length)[:, :n_segments].permute(3, 0, 1, 2)
        scanner, acquisition = initial.scanner, initial.acquisition
        speed = scanner.gradient_raster / (acquisition.dwell * max(acquisition.fov))  # 1/m a raster
        limit = scanner.gradient_raster * scanner.gamma * scanner.max_gradient
        fastest = min(speed, limit) / float(k_max.max())
        self.field = _Field(segments.float(), fastest, memory * n_intervals, n_code, hidden)
        self.method, self.adjoint = method, adjoint
        self.rtol, self.atol, self.max_steps = rtol, atol, max_steps

    def forward(self) -> Trajectory:
        """See `Parameterization.forward`.

        Raises
        ------
        DivergedError
            If the solver needs more than `max_steps` or leaves the finite numbers.
        """
        times = torch.arange(self.length + 1, dtype=torch.float32, device=self.k_max.device)
        start = torch.zeros_like(self.field.segments[0])
        options = {"max_num_steps": self.max_steps} if self.method == "dopri5" else {}
        settings = {"rtol": self.rtol, "atol": self.atol, "method": self.method, "options": options}
        try:
            if self.adjoint:
                local = torchdiffeq.odeint_adjoint(
                    self.field, start, times, adjoint_options={**options, "norm": "seminorm"}, **settings
                )
            else:
                local = torchdiffeq.odeint(self.field, start, times, **settings)
        except AssertionError as error:  # how torchdiffeq reports a step size or step count out of bounds
            raise DivergedError(f"the ODE solver {self.method} gave up: {error}.") from None
        departure = self._join(local.double(), times)
        if not bool(torch.isfinite(departure).all()):
            raise DivergedError(f"the ODE solver {self.method} left the finite numbers; lower the learning rate.")
        return self.initial.with_k(self.initial.k + departure * self.k_max)

    def _join(self, local: Tensor, times: Tensor) -> Tensor:
        """Departures (time, shot, segment, dim) within segments -> along the shots (shot, point, dim)."""
        carried = torch.einsum("st,btd->bsd", self.carry, local[-1])
        forgotten = torch.exp(-times.double() / self.field.memory)[:, None, None, None]
        whole = (local + forgotten * carried)[:-1].permute(1, 2, 0, 3).flatten(1, 2)
        end = local[-1] + forgotten[-1] * carried
        whole = torch.cat([whole, end[:, -1:]], dim=1)
        return whole[:, : self.initial.k.shape[1]]


class _Field(nn.Module):
    """Right-hand side of the departure within each segment, in k_max a raster."""

    segments: Tensor
    first: Tensor
    frequencies: Tensor

    def __init__(self, segments: Tensor, speed: float, memory: float, n_code: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("segments", segments)  # initial k (time, shot, segment, dim), in k_max
        _, n_shots, n_segments, n_dims = segments.shape
        # the codes tell control points apart before the first step, and say nothing yet
        self.codes = nn.Parameter(_CODE_SCALE * torch.randn(n_shots, n_segments + 1, n_code))
        first = torch.arange(n_segments)[:, None] * (len(segments) - 1)
        self.register_buffer("first", first / (n_segments * (len(segments) - 1)))
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(5))
        self.rasters = n_segments * (len(segments) - 1)
        self.speed, self.memory = speed, memory
        n_features = (n_dims + 1) * (1 + 2 * len(self.frequencies)) + n_code
        last = nn.Linear(hidden, n_dims)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(
            nn.Linear(n_features, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
        )

    def forward(self, time: Tensor, departure: Tensor) -> Tensor:
        """Velocity of the departure (shot, segment, dim) at a time (rasters) after the control point."""
        index = int(time.detach().clamp(0, len(self.segments) - 2))
        part = time - index
        k = self.segments[index] + part * (self.segments[index + 1] - self.segments[index]) + departure
        now = (self.first + time / self.rasters).expand(*k.shape[:-1], 1)
        state = torch.cat([k, 2 * now - 1], dim=-1)
        waves = (state[..., None] * self.frequencies).flatten(-2)
        code = torch.lerp(self.codes[:, :-1], self.codes[:, 1:], time / (len(self.segments) - 1))
        velocity = self.network(torch.cat([state, waves.sin(), waves.cos(), code], dim=-1))
        return self.speed * velocity - departure / self.memory
