"""What a check of a whole Pulseq file finds: the worst value against a rule, and its place as text."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.scanner import Finding

AXES = "xyz"

#: Part of a limit that the six digits of a file's numbers may add.
ROUNDING = 1e-5

#: What a time may be off a raster or short of a dead time, s; a file's times have digits down to 1 ns.
SAME_TIME = 1e-10


def describe(check: Finding) -> str:
    """Return one clause about a check: its value, limit, place and verdict, in the field's units."""
    limit = "" if check.limit is None else f", {check.rule} {text(check.limit, check.unit)}"
    where = f" at {check.where}" if check.where else ""
    return f"{check.name} {text(check.value, check.unit)}{limit}{where}: {check.verdict}"


def text(value: float, unit: str) -> str:
    """Return a value in the prefix of its unit that suits it."""
    if unit == "of limit":
        return f"{value:.1%}"
    if unit in ("s", "T", "T/m"):
        scale, prefix = next(
            ((s, p) for s, p in ((1.0, ""), (1e-3, "m"), (1e-6, "u")) if abs(value) >= 0.9995 * s), (1e-6, "u")
        )
        return f"{value / scale:.5g} {prefix}{unit}"
    return f"{value:.5g} {unit}".rstrip()


def worst_of(
    name: str,
    values: ArrayLike,
    limit: float | None,
    unit: str,
    where: Callable[[int], str],
    *,
    rule: Literal["at most", "at least"] = "at most",
    rounding: float = ROUNDING,
    is_advice: bool = False,
) -> Finding:
    """Return the check of the largest or smallest of `values`; kept if there is none."""
    array = np.asarray(values, dtype=float)
    if not len(array):
        return Finding(
            name, 0.0, limit if rule == "at most" else None, unit, "", ok=True, rule=rule, is_advice=is_advice
        )
    index = int(np.argmax(array) if rule == "at most" else np.argmin(array))
    value = float(array[index])
    slack = SAME_TIME if unit == "s" else rounding * abs(limit or 0)
    ok = limit is None or (value <= limit + slack if rule == "at most" else value >= limit - slack)
    return Finding(name, value, limit, unit, where(index), ok, rule, is_advice)


def reported(name: str, value: float, unit: str) -> Finding:
    """Return a value that is compared with nothing."""
    return Finding(name, value, None, unit, "", ok=True)


def misfit(times: ArrayLike, raster: float) -> np.ndarray:
    """Return how far times are off the nearest multiple of a raster, s; 0 if that is rounding."""
    array = np.asarray(times, dtype=float)
    misfit = np.abs(array - np.round(array / raster) * raster)
    return np.where(misfit <= SAME_TIME, 0.0, misfit)


def at_time(file: SeqFile, times: np.ndarray, axis: str = "") -> Callable[[int], str]:
    """Return the text of a place from its index in `times`."""
    return lambda i: f"block {file.block_at(times[i])}{axis}, {times[i] * 1e3:.3f} ms"


def in_block(file: SeqFile, blocks: list[int]) -> Callable[[int], str]:
    """Return the text of a place from its index in `blocks`."""
    return lambda i: f"block {file.block_numbers[blocks[i]]}, {file.block_edges[blocks[i]] * 1e3:.3f} ms"


def count_of(file: SeqFile, name: str, blocks: Sequence[int], remark: str = "", *, is_advice: bool = True) -> Finding:
    """Return the check that no block is one of `blocks`, by their indices; the first is named, with a remark."""
    where = in_block(file, list(blocks))(0) + remark if len(blocks) else ""
    return Finding(name, len(blocks), 0, "", where, not len(blocks), is_advice=is_advice)


def counted(file: SeqFile, name: str, off: NDArray[np.bool_], what: Callable[[int], str] = lambda _: "") -> Finding:
    """Return the check, a warning, that no ADC event is `off` (adc,); `what` tells of the first that is."""
    found = np.flatnonzero(off).tolist()
    remark = f"{what(found[0])} ({len(found)} of {len(off)} ADC events)" if found else ""
    return count_of(file, name, [file.adcs[i].index for i in found], remark)
