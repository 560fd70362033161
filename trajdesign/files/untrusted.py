"""Files from strangers: nothing in them is run, and none takes much more memory than it has bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trajdesign.errors import InputError

#: The most bytes of a file: of numbers, of raw data, which is read by slices, and of text.
MOST_BYTES, MOST_RAW, MOST_TEXT = 2**30, 2**50, 2**23
#: A file may unpack to so many bytes and so many times its own size. Zeros shrink a thousandfold, measured data never.
_FREE_BYTES, _MOST_RATIO = 2**25, 100


def ending(path: Path | str) -> str:
    """Return the ending of a file's name with its dot, in lower case."""
    return Path(path).suffix.lower()


@contextmanager
def opened(path: Path | str, most: int = MOST_BYTES) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file; yields the stream and its size in bytes.

    Raises
    ------
    InputError
        If it is missing, no regular file (a pipe may wait, a device never ends), unreadable or of more bytes than
        `most`.
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
    """Return the content of a file that can be `opened`."""
    with opened(path, most) as (stream, size):
        return stream.read(size)


def read_text(path: Path | str, most: int = MOST_TEXT, encoding: str = "utf-8") -> str:
    """Return the text of a file that can be `opened`; raises `InputError` if it has another encoding."""
    try:
        return read_bytes(path, most).decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in {encoding}: {error.reason} at byte {error.start}.") from None


def require_modest(path: Path | str, declared: int, size: int, most: int = MOST_BYTES) -> None:
    """Raise `InputError` if a file of `size` bytes declares far more, before they are unpacked.

    It may declare `most` bytes, and no more than 32 MiB and a hundred times its size.
    """
    allowed = min(most, _FREE_BYTES + _MOST_RATIO * size)
    if declared > allowed:
        raise InputError(f"{path} of {size} bytes would unpack to {declared}; such a file may unpack to {allowed}.")
