"""Parallel lines to and fro in one shot: what EPI and PROPELLER are made of."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq

from trajdesign.acquisition import Acquisition
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import Bounds, how_many
from trajdesign.trajectory import n_points


@dataclass(frozen=True)
class Zigzag:
    """The fastest zig-zag over given lines: a trapezoid along x, triangular blips along y while x turns round.

    It enters the first line and leaves the last one at full speed, so n lines of the length l take
    ``n l / v + (n - 1) tau`` at the speed v, with the time tau from full speed to rest.
    """

    half: float
    """Lines reach from -half to half along x, 1/m."""
    rows: np.ndarray
    """k_y of each line (shot, line), 1/m."""
    bounds: Bounds
    """Limits on the speed and the acceleration."""

    @property
    def duration(self) -> float:
        """Time of the fastest traversal, s."""
        lines = self.rows.shape[1]
        return lines * 2 * self.half / self._speed + (lines - 1) * self._ramp

    def play(self, parts: np.ndarray) -> np.ndarray:
        """Return k (shot, point, 2), 1/m, at times given in parts of the duration."""
        time = parts * self.duration
        line_time = 2 * self.half / self._speed
        # each moment belongs to the nearest turn; before and after it the line is the same, mirrored
        last = max(self.rows.shape[1] - 2, 0)
        turn = np.clip(np.rint((time - line_time - self._ramp / 2) / (line_time + self._ramp)), 0, last).astype(int)
        since = time - line_time - self._ramp / 2 - turn * (line_time + self._ramp)
        fast = np.maximum(np.abs(since) - self._ramp, 0)
        slow = np.minimum(np.abs(since), self._ramp)
        left = self._speed * (fast + slow**2 / (2 * self._ramp) if self._ramp else fast)
        kx = np.where(turn % 2 == 0, 1, -1) * (self.half - left)
        if not self._ramp:
            return np.stack(np.broadcast_arrays(kx[None], self.rows), axis=-1)
        part = np.clip(since / self._ramp, -1, 1)
        moved = (1 + part * (2 - np.abs(part))) / 2
        ky = self.rows[:, turn] + (self.rows[:, turn + 1] - self.rows[:, turn]) * moved
        return np.stack(np.broadcast_arrays(kx[None], ky), axis=-1)

    @cached_property
    def _ramp(self) -> float:
        """Time from full speed to rest, s; half of a turn and of a blip. 0 if there is only one line."""
        if self.rows.shape[1] == 1:
            return 0.0
        step = float(np.abs(np.diff(self.rows)).max())

        def ramp(along: float) -> float:
            return min(self.bounds.speed, math.sqrt(along * 2 * self.half)) / along

        def excess(along: float) -> float:
            across = step / ramp(along) ** 2
            used = self.bounds.norm(along, across) / self.bounds.acceleration
            # x is fastest where the blip starts, y where it peaks; between the two the norm is lower
            return max(used, step / ramp(along) / self.bounds.speed) - 1

        most = self.bounds.acceleration
        return ramp(most if excess(most) <= 0 else float(brentq(excess, most * 1e-9, most)))

    @cached_property
    def _speed(self) -> float:
        """Full speed along x, 1/m/s: short lines with slow turns do not reach the limit."""
        return min(self.bounds.speed, 2 * self.half / self._ramp) if self._ramp else self.bounds.speed


def fill(
    pattern: str,
    plan: Callable[[int], Zigzag],
    lines: int | None,
    most: int,
    acquisition: Acquisition,
    scanner: Scanner,
) -> np.ndarray:
    """Return the control points (shot, point, 2), 1/m, of zig-zags that fill the readout.

    Parameters
    ----------
    pattern
        Its name, for the sentences of the errors; see `how_many`.
    plan
        From a number of lines a shot to the zig-zags.
    lines, most
        Lines a shot, and the largest sensible number; None takes as many as there is time for.
    acquisition, scanner
        Timing and raster.
    """
    steps = n_points(acquisition, scanner) - 1
    available = steps * scanner.gradient_raster
    number = how_many(pattern, "lines", lines, most, lambda n_lines: plan(n_lines).duration, available)
    return plan(number).play(np.linspace(0, 1, steps + 1))
