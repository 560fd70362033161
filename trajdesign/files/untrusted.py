"""Files from strangers, as data alone: nothing in them is run, and none takes much more memory than it has bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trajdesign.errors import InputError

#: A bound that no sensible file of numbers reaches.
MOST_BYTES = 2**30

#: Raw data, of which a slice at a time is read.
MOST_RAW = 2**50

#: Text of settings and results.
MOST_TEXT = 2**23

# What a file may unpack to: so much, and so many times its own size. Zeros shrink a thousandfold, measured data never.
_FREE_BYTES, _MOST_RATIO = 2**25, 100


def ending(path: Path | str) -> str:
    """Return the ending of a file's name, with its dot, in lower case: all that ever decides a kind of file by name."""
    return Path(path).suffix.lower()


@contextmanager
def opened(path: Path | str, most: int = MOST_BYTES) -> Iterator[tuple[IO[bytes], int]]:
    """Open a regular file.

    Parameters
    ----------
    path
        The file.
    most
        Bytes that it may have.

    Yields
    ------
    stream, size
        The file, and its size in bytes.

    Raises
    ------
    InputError
        If it is missing, no regular file (a pipe would be waited for, a device never ends), too large or unreadable.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist.")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file.")
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    with stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise InputError(f"{path} has {size} bytes; at most {most} are read.")
        yield stream, size


def read_bytes(path: Path | str, most: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file of at most so many bytes.

    Raises
    ------
    InputError
        As of `opened`.
    """
    with opened(path, most) as (stream, size):
        return stream.read(size)


def read_text(path: Path | str, most: int = MOST_TEXT, encoding: str = "utf-8") -> str:
    """Return the text of a regular file of at most so many bytes.

    Raises
    ------
    InputError
        As of `opened`, or if it is not of the encoding.
    """
    try:
        return read_bytes(path, most).decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in {encoding}: {error.reason} at byte {error.start}.") from None


def require_modest(path: Path | str, declared: int, size: int, most: int = MOST_BYTES) -> None:
    """Refuse a file of so many bytes that declares far more, before anything is made of it.

    Raises
    ------
    InputError
        If what it declares, in bytes, is more than `most`, or more than 32 MiB and a hundred times its size.
    """
    allowed = min(most, _FREE_BYTES + _MOST_RATIO * size)
    if declared > allowed:
        raise InputError(f"{path} of {size} bytes would unpack to {declared}; such a file may unpack to {allowed}.")
