"""What a check finds: the worst value of a trajectory, or of a whole file, against one limit or rule."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trajdesign.tolerances import ROUNDING


@dataclass(frozen=True)
class Finding:
    """The worst value of a trajectory, or of a whole file, against one limit or rule."""

    name: str
    """Name of the limit or rule."""
    value: float
    """The worst value, in `unit`."""
    limit: float | None
    """What it is compared with; None if it is only reported."""
    unit: str
    """SI, or a count."""
    where: str
    """The place of the worst value, as text; empty if the whole is meant."""
    ok: bool
    """Whether the limit is kept; false for a value that is not a number."""
    rule: Literal["at most", "at least", "multiple of", "equal to"] = "at most"
    """How the value relates to the limit."""
    is_advice: bool = False
    """Whether breaking it is a warning: some scanners take such a file."""
    shot: int | None = None
    time: float = 0.0
    """The place in a trajectory; the time is after the first gradient sample, s."""
    n_violations: int = 0
    """At how many times of all shots the limit is broken."""
    rounding: float = ROUNDING
    """Part of the limit that rounding alone may add."""

    @classmethod
    def worst(
        cls, name: str, values: NDArray[np.floating], limit: float, unit: str, times: NDArray, rounding: float
    ) -> "Finding":
        """Return the worst of values (shot, time) against their largest allowed one; what is not finite is worst."""
        finite = np.isfinite(values)
        shot, index = divmod(int(np.where(finite, values, np.inf).argmax()), values.shape[1])
        value = float(values[shot, index]) if finite[shot, index] else math.nan
        time = float(times[index])
        ok = value / limit - 1 <= rounding
        n_violations = 0 if ok else int((~(values / limit - 1 <= ROUNDING)).sum())
        where = f"shot {shot}, {time * 1e3:.3f} ms"
        return cls(name, value, limit, unit, where, ok, "at most", False, shot, time, n_violations, rounding)

    @property
    def margin(self) -> float:
        """The part of the limit that is left, negative where it is broken; not a number without a limit."""
        return 1 - self.value / self.limit if self.limit else math.nan

    @property
    def verdict(self) -> Literal["ok", "reported", "warning", "broken"]:
        """What a reader should make of it."""
        if self.limit is None:
            return "reported"
        if self.ok:
            return "ok"
        return "warning" if self.is_advice else "broken"

    @property
    def facts(self) -> dict[str, Any]:
        """What JSON holds of it: of a trajectory the place as numbers, of a file as text."""
        keys = "where ok rule is_advice verdict" if self.shot is None else "shot time n_violations rounding margin ok"
        return {key: getattr(self, key) for key in ("name", "value", "limit", "unit", *keys.split())}
