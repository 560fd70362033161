"""The extensions of a Pulseq file: what they do to a block, and gradients that one of them turns.

Specification: https://pulseq.github.io/specification.pdf.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trajdesign.errors import InputError
from trajdesign.pulseq.reader.events import SAME_TIME, Gradient
from trajdesign.pulseq.reader.parser import EXTENSIONS, Parsed, counter, number, whole

#: By how much the length of a quaternion may differ from 1: a file keeps six digits.
_UNIT = 1e-4

#: The type of a trigger that comes from outside.
_INPUT = 2

#: Of one block; a list without a bound, and blocks that start anywhere in it, would take its length squared.
_MOST_EXTENSIONS = 1000


@dataclass(frozen=True)
class SoftDelay:
    """A block that lasts ``wish / factor + offset`` if the user wishes."""

    #: Number and name of the wish; blocks of one number share it.
    number: int
    hint: str
    #: In s, and without unit, not 0.
    offset: float
    factor: float
    #: Index of the block, and whether it plays and samples nothing.
    index: int = 0
    is_empty: bool = True

    def wish(self, duration: float) -> float:
        """Return the wish, s, that makes the block last as long as it does, s."""
        return (duration - self.offset) * self.factor


@dataclass(frozen=True)
class Extras:
    """What the extensions of a block do."""

    #: Whether a number is added, the label, and the number. What is set comes before what is added: interpreters keep
    #: the two apart, and writers sort a list by id.
    labels: tuple[tuple[bool, str, int], ...] = ()
    #: Matrix from the gradients that the block names to those that it plays (3, 3), if it turns them.
    rotation: np.ndarray | None = None
    #: The user may stretch the block at the scanner.
    delay: SoftDelay | None = None
    #: When the last of the block's triggers ends after its start, s; 0 without any.
    trigger: float = 0.0
    #: Whether the block waits for a signal from outside, however long that takes.
    waits: bool = False
    #: Largest weight of any transmit channel, if they have weights.
    shim: float | None = None
    #: Extensions that this reader does not know and the file does not require.
    ignored: frozenset[str] = frozenset()


def decode_extensions(parsed: Parsed, first: int) -> Extras:
    """Return what a list of extensions does."""
    found, seen, following = dict[str, list[list[str]]](), set[int](), first
    while following:
        if following in seen or len(seen) == _MOST_EXTENSIONS:
            raise InputError(f"the list of extensions comes back to {following}, or has more than {_MOST_EXTENSIONS}.")
        seen.add(following)
        if following not in parsed.tables["EXTENSIONS"]:
            raise InputError(f"a list of extensions goes on with {following}, which [EXTENSIONS] lacks.")
        kind, reference, following = (int(word) for word in parsed.tables["EXTENSIONS"][following].split())
        if kind not in parsed.extensions:
            raise InputError(f"a block uses an extension of number {kind}, of which the file has no section.")
        extension = parsed.extensions[kind]
        if extension.name in EXTENSIONS and reference not in extension.rows:
            raise InputError(f"a block uses {reference} of the extension {extension.name}, which lacks it.")
        known = extension.rows[reference].split() if extension.name in EXTENSIONS else []
        found.setdefault(extension.name, []).append(known)
    for name in ("ROTATIONS", "DELAYS", "RF_SHIMS"):
        if len(found.get(name, ())) > 1:
            raise InputError(f"a block has {len(found[name])} extensions {name}; it can have one.")
    rotation, shim, delay = (found.get(name, [None])[0] for name in ("ROTATIONS", "RF_SHIMS", "DELAYS"))
    return Extras(
        labels=tuple(
            (name == "LABELINC", label, counter(value))
            for name in ("LABELSET", "LABELINC")
            for value, label in found.get(name, ())
        ),
        rotation=None if rotation is None else _rotation(rotation),
        shim=None if shim is None else _shim(shim),
        delay=None if delay is None else _soft_delay(*delay),
        trigger=max(map(_trigger_end, found.get("TRIGGERS", ())), default=0.0),
        waits=any(whole(row[0]) == _INPUT for row in found.get("TRIGGERS", ())),
        ignored=frozenset(name for name in found if name not in EXTENSIONS),
    )


def _rotation(row: list[str]) -> np.ndarray:
    """Return the matrix of a quaternion, of which the real part comes first."""
    quaternion = np.array([number(word) for word in row])
    norm = float(np.linalg.norm(quaternion))
    if not abs(norm - 1) <= _UNIT:
        raise InputError(f"a quaternion has the length {norm:.6g}; that of a rotation is 1.")
    w, x, y, z = quaternion / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _shim(row: list[str]) -> float:
    """Return the largest weight of the channels: their number, and the magnitude and phase of each."""
    weights = [abs(number(word)) for word in row[1::2]]
    if len(row) != 1 + 2 * whole(row[0]) or not weights:
        raise InputError(f"RF shims of {row[0]} channels have {len(row) - 1} numbers, not a magnitude and phase each.")
    return max(weights)


def _soft_delay(name: str, offset: str, factor: str, hint: str) -> SoftDelay:
    if whole(name) < 0 or not number(factor):
        raise InputError(f"the soft delay {hint} has the number {name} and the factor {factor}; neither can be.")
    return SoftDelay(whole(name), hint, number(offset) * 1e-6, number(factor))


def _trigger_end(row: list[str]) -> float:
    delay, duration = (number(word) * 1e-6 for word in row[2:])
    if delay < 0 or duration < 0:
        raise InputError(f"a trigger lasts {duration:g} s after {delay:g} s; neither can be negative.")
    return delay + duration


def rotated(events: Sequence[Gradient | None], rotation: np.ndarray) -> list[tuple[int, Gradient]]:
    """Return what the axes play of a block that is turned, as pairs of axis and gradient.

    `events` are what the block names for x, y and z, and `rotation` (3, 3) makes of them what is played. Each axis has
    a gradient of its own wherever none of the events starts or ends: what jumps there is a jump between two gradients.
    """
    named = [(axis, event) for axis, event in enumerate(events) if event]
    times = list[float]()
    for time in np.unique(np.concatenate([event.times for _, event in named])).tolist() if named else []:
        if not times or time - times[-1] > SAME_TIME:  # the others differ by rounding
            times.append(time)
    at = np.array(times)
    values, borders = np.zeros((3, len(at))), list[tuple[int, int]]()
    for axis, event in named:
        values[axis] = np.interp(at, event.times, event.values, left=0, right=0)
        own = np.searchsorted(at, event.times, side="right") - 1  # vertices of one event are farther apart
        values[axis, own] = event.values
        borders.append((int(own[0]), int(own[-1])))
    played, peak = list[tuple[int, Gradient]](), max((event.peak for _, event in named), default=0.0)
    for first, last in pairwise(sorted({place for border in borders for place in border})):
        inside = [
            axis for (axis, _), (start, end) in zip(named, borders, strict=True) if start <= first and last <= end
        ]
        turned = rotation[:, inside] @ values[inside, first : last + 1]
        part = at[first : last + 1]
        played += [
            (axis, Gradient(part, turned[axis], part[[0, -1]], named_peak=peak))
            for axis in range(3)
            if turned[axis].any()
        ]
    return played
