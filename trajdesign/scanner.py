"""Scanner: what the hardware can play, and what a check against it finds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import ConfigError
from trajdesign.units import GAMMA, ROUNDING, nucleus_of, plausible, same_nucleus

LimitNorm = Literal["vector", "axis"]

# What a time may be off a raster, s.
_SAME_TIME = 1e-10


@dataclass(frozen=True)
class Scanner:
    """Hardware limits, rasters and dead times, all in SI; the defaults are those of the profile ``siemens``.

    Parameters
    ----------
    max_gradient
        Largest gradient, T/m.
    max_slew
        Largest slew rate, T/m/s.
    limit_norm
        ``"vector"``: the limits hold for the vector norm over the axes, so the waveform may be rotated freely;
        ``"axis"``: they hold for each axis alone.
    nucleus
        Key of `trajdesign.units.GAMMA`.
    gradient_raster
        From one gradient sample to the next, s.
    adc_raster
        Dwell times and the starts of readouts are multiples of it, s.
    rf_raster
        From one sample of an RF pulse to the next, s; the starts of pulses and readouts are multiples of it.
    block_raster
        Durations of Pulseq's blocks are multiples of it, s.
    adc_dead_time
        Between the start of a block and its readout, and between the readout and the end of the block, s.
    rf_dead_time
        Between the start of a block and its RF pulse, s.
    rf_ringdown_time
        Between an RF pulse and the end of its block, s.
    label_segments
        Whether each distinct sequence of blocks carries a label ``TRID`` of its own, as GE's converters need.
    gamma
        Gyromagnetic ratio over 2 pi, Hz/T; by default that of the nucleus, from which it may differ by 0.1 %.

    Raises
    ------
    ConfigError
        If a number is implausible in its unit, the nucleus is unknown, or gamma is that of another one.
    """

    max_gradient: float = 50e-3
    max_slew: float = 200.0
    limit_norm: LimitNorm = "vector"
    nucleus: str = "1H"
    gradient_raster: float = 10e-6
    adc_raster: float = 100e-9
    rf_raster: float = 1e-6
    block_raster: float = 10e-6
    adc_dead_time: float = 10e-6
    rf_dead_time: float = 100e-6
    rf_ringdown_time: float = 30e-6
    label_segments: bool = False
    gamma: float = field(default=0.0)

    def __post_init__(self) -> None:
        if self.nucleus not in GAMMA:
            raise ConfigError(f"unknown nucleus {self.nucleus!r}; known: {', '.join(GAMMA)}.")
        if not self.gamma:
            object.__setattr__(self, "gamma", GAMMA[self.nucleus])
        if self.limit_norm not in ("vector", "axis"):
            raise ConfigError(f"limit_norm is {self.limit_norm!r}; it is 'vector' or 'axis'.")
        for quantity in (f.name for f in fields(self) if f.name not in ("limit_norm", "nucleus", "label_segments")):
            plausible(quantity, getattr(self, quantity))
        if not same_nucleus(self.gamma, GAMMA[self.nucleus]):
            other = nucleus_of(self.gamma)
            remedy = f"it is that of {other}" if other else "give one of the two"
            raise ConfigError(
                f"gamma is {self.gamma * 1e-6:.6g} MHz/T, and that of the nucleus {self.nucleus} "
                f"{GAMMA[self.nucleus] * 1e-6:.6g} MHz/T; {remedy}."
            )

    def unplayable(self, dwell: float) -> str:
        """Return a sentence on why ADC samples cannot be so far apart, s, on these rasters; empty if they can."""
        raster = self.adc_raster
        if not _is_multiple(dwell, raster):
            near = [f"{m * raster:.9g}" for m in (math.floor(dwell / raster), math.ceil(dwell / raster)) if m]
            return (
                f"the dwell time of {dwell:.9g} s is no multiple of the scanner's ADC raster of {raster:.9g} s; "
                f"the nearest {'is' if len(near) == 1 else 'are'} {' and '.join(near)} s."
            )
        if not _is_multiple(self.gradient_raster, self.rf_raster):
            return (
                f"the gradient raster of {self.gradient_raster:.9g} s is no multiple of the RF raster of "
                f"{self.rf_raster:.9g} s, on which ADC events start."
            )
        return ""


def _is_multiple(time: float, raster: float) -> bool:
    n = round(time / raster)
    return n > 0 and abs(time - n * raster) <= _SAME_TIME


@dataclass(frozen=True)
class Interpreter:
    """What the program that plays Pulseq files on a console has been reported to take; None where nothing is public.

    No vendor publishes such limits: the numbers are what authors and users reported, and a site may know better.

    Parameters
    ----------
    slow_bytes
        Size of a file beyond which loading is slow.
    most_excitations
        Excitations beyond which scans have crashed.
    watched_blocks
        Blocks after which the program looks no longer at the power of gradients and pulses.
    segment_gap
        Time that it adds at the end of each segment (label ``TRID``), s.

    Raises
    ------
    ConfigError
        If one is no positive number.
    """

    slow_bytes: float | None = None
    most_excitations: int | None = None
    watched_blocks: int | None = None
    segment_gap: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 < value < math.inf):
                raise ConfigError(f"{name} of an interpreter is {value!r}; it is a positive number.")


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
    def is_rounding(self) -> bool:
        """Whether nothing but rounding makes the value differ from zero."""
        return self.limit is not None and abs(self.value) < ROUNDING * self.limit

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


class Nucleus(TypedDict, total=False):
    """Which spins a file says that it is for, in the words of a `Scanner`; empty if it does not say."""

    nucleus: str
    gamma: float


def told_nucleus(nucleus: str | None, gamma: float | None) -> Nucleus:
    """Return the nucleus from what a file says of it and of gamma.

    It raises a `ConfigError` if the nucleus or the number is none, or they are of two nuclei.
    """
    if nucleus is None and gamma is None:
        return {}
    if gamma is not None and plausible("gamma", gamma) and nucleus not in GAMMA:
        nucleus = nucleus_of(gamma)  # other programs have other names, or none
        if nucleus is None:
            raise ConfigError(f"gamma is {gamma * 1e-6:.6g} MHz/T, that of no known nucleus ({', '.join(GAMMA)}).")
    told = Scanner(nucleus=str(nucleus), gamma=gamma or 0.0)
    return {"nucleus": told.nucleus, "gamma": told.gamma}


def with_nucleus(given: Mapping[str, Any], told: Nucleus, path: Path | str) -> dict[str, Any]:
    """Return the settings of a `Scanner` that are given, with the nucleus that a file tells (`told_nucleus`).

    It raises a `ConfigError` if another one is given.
    """
    asked = {key: given[key] for key in ("nucleus", "gamma") if given.get(key)}
    if asked and told:
        wanted = Scanner(**asked)
        if not same_nucleus(wanted.gamma, told["gamma"]):
            raise ConfigError(
                f"{path} is for {told['nucleus']} (gamma {told['gamma'] * 1e-6:.6g} MHz/T), "
                f"not for {wanted.nucleus} ({wanted.gamma * 1e-6:.6g} MHz/T)."
            )
    return {**given, **told}
