"""The extensions of a Pulseq file that wait: triggers, and delays that a user may change at the scanner.

Specification: https://pulseq.github.io/specification.pdf.
"""

from dataclasses import dataclass

from trajdesign.errors import InputError
from trajdesign.pulseq.reader.parser import Parsed, number, whole


@dataclass(frozen=True)
class SoftDelay:
    """A block that lasts ``wish / factor + offset`` if the user wishes.

    Parameters
    ----------
    index
        Of the block.
    number, hint
        Of the wish; blocks of one number share it.
    offset, factor
        s, and without unit; not 0.
    is_empty
        Whether the block plays and samples nothing.
    """

    index: int
    number: int
    hint: str
    offset: float
    factor: float
    is_empty: bool

    def wish(self, duration: float) -> float:
        """Return the wish, s, that makes the block last as long as it does, s."""
        return (duration - self.offset) * self.factor


def decode_soft_delay(parsed: Parsed, extension: int, index: int, *, is_empty: bool) -> SoftDelay:
    """Return the soft delay in a list of extensions that has one."""
    name, offset, factor, hint = _rows(parsed, extension, "DELAYS")[0]
    if whole(name) < 0 or not number(factor):
        raise InputError(f"the soft delay {hint} has the number {name} and the factor {factor}; neither can be.")
    return SoftDelay(index, whole(name), hint, number(offset) * 1e-6, number(factor), is_empty)


def longest_trigger(parsed: Parsed, extension: int) -> float:
    """Return when the last of a block's triggers ends after its start, s; 0 without any."""
    last = 0.0
    for row in _rows(parsed, extension, "TRIGGERS"):
        delay, duration = (number(word) * 1e-6 for word in row[2:])
        if delay < 0 or duration < 0:
            raise InputError(f"a trigger lasts {duration:g} s after {delay:g} s; neither can be negative.")
        last = max(last, delay + duration)
    return last


def _rows(parsed: Parsed, following: int, name: str) -> list[list[str]]:
    """Return the columns of the extensions of a name in a list, which has an end."""
    found = []
    while following:
        kind, reference, following = (int(word) for word in parsed.tables["EXTENSIONS"][following].split())
        if parsed.extensions[kind].name == name:
            found.append(parsed.extensions[kind].rows[reference].split())
    return found
