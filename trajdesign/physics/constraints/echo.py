"""Contrast: every shot passes the centre of k-space at the echo time."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding import echo
from trajdesign.errors import ConfigError
from trajdesign.interfaces import Constraint
from trajdesign.scanner import Finding, Scanner
from trajdesign.trajectory import Trajectory, integral_weights, n_points, spline_weights
from trajdesign.units import ROUNDING

# Mean of k until the echo, in parts of k_max, that the projection takes from a start; a spoke's is a half.
_MOST_MOMENT = 0.25


class Echo(Constraint):
    """K = 0 at the echo time in every shot, to a millionth of 1/FOV: an equality, which the projection keeps exactly.

    Where learning starts each shot must pass the centre within 0.5/FOV then; the projection moves it onto it.

    With `moment` the integral of k from the first gradient sample to the echo is 0 too: then the readout gives spins
    that flow no phase until the echo. Where k is 0 at the first sample, nothing was played in plane before, and this is
    the first moment of all since the excitation. What a prephaser to another k gives such spins is not part of it.

    Parameters
    ----------
    time
        When, s after the first ADC sample; ``"auto"`` is when all shots of the trajectory, at the start of learning
        that of its start, pass the centre together.
    moment
        Whether the mean of k over the time until then is also 0, to a millionth of 1/FOV. An echo within the first
        raster cell has nothing before it.
    """

    unit = "1/FOV"

    def __init__(
        self,
        acquisition: Acquisition,
        scanner: Scanner,
        *,
        time: float | Literal["auto"],
        moment: bool = False,
        weight: float | None = None,
    ) -> None:
        super().__init__(acquisition, scanner, weight=weight)
        self._delay = acquisition.adc_delay(scanner.gradient_raster, scanner.rf_raster)
        last = (acquisition.n_samples - 1) * acquisition.dwell
        if time != "auto" and not -self._delay - 1e-12 <= time <= last + 1e-12:
            raise ConfigError(
                f"echo: time is {time:g} s after the first sample; the last one is {last:g} s after it. Is it in ms?"
            )
        self.time, self.moment = time, moment

    @property
    def limit(self) -> float:
        """A millionth of 1/FOV: what a file's digits may add."""
        return echo.EXACT

    def measure(self, trajectory: Trajectory) -> Tensor:
        """Distance of k from the centre at the echo time, and of its mean until then (shot, 1 or 2)."""
        rows = self._rows(self._time_of(trajectory)).to(trajectory.points)
        k = torch.einsum("rp,spd->srd", rows, trajectory.points)
        return torch.linalg.vector_norm(k * k.new_tensor(self.acquisition.fov), dim=-1)

    def penalty(self, trajectory: Trajectory) -> Tensor:
        """Distance beyond the limit in 1/FOV, as the mean over all control points, of which one breaks it."""
        excess = self.measure(trajectory) / self.limit - 1
        return torch.nn.functional.threshold(excess, ROUNDING, 0.0).mean() * self.limit / trajectory.points.shape[1]

    def check(self, trajectory: Trajectory, rounding: float = ROUNDING) -> Finding:
        """Return the shot that is, or whose mean is, farthest from the centre at the echo time."""
        return self._worst(trajectory, self.measure(trajectory), rounding)

    def _worst(self, trajectory: Trajectory, values: Tensor, rounding: float) -> Finding:
        found: NDArray[np.float64] = values.detach().double().cpu().numpy()
        times = np.full(found.shape[1], self._time_of(trajectory))
        return Finding.worst(self.name, found, self.limit, self.unit, times, rounding)

    def from_start(self, start: Trajectory) -> "Echo":
        """Return the limit at the time at which the start passes the centre; it raises a `ConfigError` if it does not.

        So it does for a start that passes it several times, if no time is given.
        """
        measured = self.measure(start)
        found = self._worst(start, measured[:, :1], echo.PASSING / self.limit)
        if not found.ok:
            raise ConfigError(
                f"{start.name} cannot keep the limit 'echo': {(found.time - self._delay) * 1e3:.4g} ms after its first "
                f"sample shot {found.shot} is {found.value:.4g}/FOV from the centre; {echo.PASSING:g}/FOV can be "
                "mended. Take a pattern whose shots all pass the centre at one time (radial, spiral, rosette), or "
                f"another limits.options.echo.time{self._named(start)}."
            )
        if self.time == "auto" and (n := len(echo.passages(start))) > 1:
            raise ConfigError(
                f"{start.name} passes the centre {n} times, so limits.options.echo.time must say when"
                f"{self._named(start)}."
            )
        most = _MOST_MOMENT / 2 * min(self.acquisition.matrix)  # 1/FOV: k_max is half the matrix
        moment = self._worst(start, measured[:, 1:], most / self.limit) if measured.shape[1] > 1 else found
        if not moment.ok:
            raise ConfigError(
                f"{start.name} cannot keep limits.options.echo.moment: the mean of k until the echo is "
                f"{moment.value:.4g}/FOV in shot {moment.shot}, and {most:.4g}/FOV can be mended. Take a pattern that "
                "winds about the centre before (spiral with in_out, rosette), or no moment."
            )
        time = found.time - self._delay
        return Echo(self.acquisition, self.scanner, time=time, moment=self.moment, weight=self.weight)

    def vanishing(self, like: Trajectory) -> Tensor:
        """Return the weights of the control points that make k at the echo time, and its mean (1 or 2, point)."""
        return self._rows(self._time_of(like))

    def _named(self, trajectory: Trajectory) -> str:
        """Return when a trajectory passes the centre, as a remark."""
        found = sorted(
            round(p.time - self._delay, 14) + 0.0 for p in echo.passages(trajectory) if p.distance <= echo.PASSING
        )
        return f", of {', '.join(f'{time:.12g}' for time in found)} s" if found else ""

    def _time_of(self, trajectory: Trajectory) -> float:
        """Return the echo time after the first gradient sample, s."""
        if self.time == "auto":
            return echo.passages(trajectory)[0].time
        return max(0.0, self.time + self._delay)

    def _rows(self, time: float) -> Tensor:
        index, weights = spline_weights(np.array([time]), self.acquisition, self.scanner)
        row = torch.zeros(1, n_points(self.acquisition, self.scanner), dtype=torch.float64)
        row[0, index[0] : index[0] + 3] = weights[:, 0]
        if not self.moment or time < self.scanner.gradient_raster:
            return row
        return torch.cat([row, integral_weights(time, self.acquisition, self.scanner)[None] / time])
