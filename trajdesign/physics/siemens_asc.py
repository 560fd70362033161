"""The values that Siemens writes about a gradient system into its ``.asc`` files.

The files hold lines ``a[0].b.c[2] = value`` and may include others. They are confidential, so none comes with this
package: a site takes its own (``MP_GPA_*.asc``) from its scanner.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from trajdesign.errors import InputError
from trajdesign.files import untrusted

_ASSIGNMENT = re.compile(r"^([\w.\[\]]+)\s*=\s*([-+.\deE]+)\s*(?:(?:#|//).*)?$")
_INCLUDE = re.compile(r'^\$INCLUDE\s+"?([^"\s][^"]*)"?$', re.IGNORECASE)
_IN_ITS_FOLDER = re.compile(r"\w[\w .-]*(/\w[\w .-]*)*")
_MOST_FILES = 32
_END = "### ASCCONV END ###"


def read_asc(path: Path | str) -> dict[str, float]:
    """Return the numbers of an ``.asc`` file, and of those it includes, by their full keys; text is left out.

    It raises an `InputError` if the file, or one that it includes, cannot be read, or they include each other.
    """
    return _read(Path(path), [])


def _read(path: Path, seen: list[Path]) -> dict[str, float]:
    """Read a file after those that were read already, each of which may be included once."""
    if path in seen:
        raise InputError(f"{path} includes itself, or is included twice.")
    seen.append(path)
    values: dict[str, float] = {}
    for line in map(str.strip, untrusted.read_text(path, encoding="latin-1").partition(_END)[0].splitlines()):
        if included := _INCLUDE.match(line):
            if not _IN_ITS_FOLDER.fullmatch(included[1]):
                raise InputError(f"{path} includes {included[1]!r}; files of its own folder are read, no others.")
            if len(seen) == _MOST_FILES:
                raise InputError(f"{path} includes more than {_MOST_FILES} files.")
            values |= _read(path.parent / included[1], seen)
        elif assigned := _ASSIGNMENT.match(line):
            try:
                values[assigned[1]] = float(assigned[2])
            except ValueError:
                raise InputError(f"{path}: {assigned[1]} is {assigned[2]!r}, which is no number.") from None
            if math.isinf(values[assigned[1]]):
                raise InputError(f"{path}: {assigned[1]} is {assigned[2]}, which is no finite number.")
    return values


def value(values: Mapping[str, float], path: Path | str, *keys: str) -> float:
    """Return the number of the first of the keys that is there; files of other software versions name it otherwise.

    It raises an `InputError` if there is none of them.
    """
    for key in keys:
        if key in values:
            return values[key]
    raise InputError(f"{path} lacks the key {keys[0]}; give the gradient system's main .asc file (MP_GPA_*.asc).")
