"""Arrays of numbers and text in NumPy's ``.npz`` and ``.npy``, and in BART's ``.cfl`` with its ``.hdr``."""

import contextlib
import io
import math
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError
from trajdesign.files.untrusted import MOST_BYTES, opened, read_text, require_modest

Kind = Literal["real", "whole", "true or false", "text"]

#: The letters of numpy for them.
_LETTERS: dict[Kind, str] = {"real": "fiu", "whole": "iu", "true or false": "b", "text": "U"}

#: Limits of an .npz file: members, and bytes of the header of each; bytes of the end of a ZIP file.
_MOST_MEMBERS, _MOST_HEADER, _ZIP_END = 64, 10_000, 22
#: Limits of BART's .hdr, which also tells the command that made the array: bytes, and axes.
_MOST_HDR, _MOST_AXES = 2**20, 16


def read_npz(path: Path | str, most: int = MOST_BYTES) -> dict[str, NDArray]:
    """Return every array of an ``.npz`` file by its name, in native byte order; they may be read-only.

    Raises
    ------
    InputError
        If the file is missing, no ``.npz`` file, damaged, or holds anything but arrays of numbers and text, of at most
        `most` bytes in all.
    """
    with opened(path, most) as (stream, size), _damage_told(path, ".npz"):
        n_members = _announced(stream, size, path)
        with zipfile.ZipFile(stream) as archive:
            members = _listed(archive, n_members, path)
            # members that overlap unpack to many times what they are
            packed = sum(member.compress_size for member in members)
            require_modest(path, sum(member.file_size for member in members), size, most)
            if packed > size:
                raise InputError(f"{path} is damaged: its members overlap.")
            arrays = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as content:
                    arrays[name] = _array(content, member.file_size, f"{path}: {name!r}")
            return arrays


def read_npy(path: Path | str, most: int = MOST_BYTES) -> NDArray:
    """Return the array of an ``.npy`` file, in native byte order; it may be read-only.

    Raises
    ------
    InputError
        If the file is missing, of more bytes than `most`, no ``.npy`` file, damaged, or holds anything but numbers.
    """
    with opened(path, most) as (stream, size), _damage_told(path, ".npy"):
        return _array(stream, size, str(path))


@contextlib.contextmanager
def _damage_told(path: Path | str, ending: str) -> Iterator[None]:
    """Raise whatever a damaged file makes zipfile, zlib, numpy or Python's parser raise as `InputError`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # more than ten types
        raise InputError(f"{path} is not an {ending} file, or damaged ({type(error).__name__}).") from None


def read_cfl(path: Path | str, most: int = MOST_BYTES) -> NDArray[np.complex64]:
    """Map the array of a ``.cfl`` file and the ``.hdr`` beside it, with its axes in BART's order (x, y, z, coil, ...).

    Raises
    ------
    InputError
        If one of the two is missing, no regular file, too large or damaged, or they do not belong together.
    """
    path = Path(path)
    lines = read_text(path.with_suffix(".hdr"), _MOST_HDR, encoding="latin-1").splitlines()
    try:
        shape = tuple(int(n) for n in lines[lines.index("# Dimensions") + 1].split())
    except (ValueError, IndexError):
        raise InputError(f"{path} is not a BART array: its .hdr has no line of dimensions.") from None
    with opened(path, most) as (stream, size):
        if not 1 <= len(shape) <= _MOST_AXES or min(shape) < 1 or math.prod(shape) * 8 != size:
            raise InputError(f"{path} has {size} bytes, which are not the dimensions {shape} of its .hdr.")
        return np.memmap(stream, dtype="<c8", mode="r", shape=shape, order="F")


def require_arrays(
    arrays: Mapping[str, NDArray],
    path: Path | str,
    keys: Mapping[str, tuple[Kind, int]],
    optional: Mapping[str, tuple[Kind, int]],
) -> None:
    """Raise `InputError` if a file lacks an array, or holds another kind under its name.

    `keys` and `optional` are name -> kind and number of axes, of the arrays that must and of those that may be there.
    """
    for key, (kind, n_axes) in {**keys, **optional}.items():
        array = arrays.get(key)
        if array is None and key in keys:
            raise InputError(f"{path} lacks the key {key!r}.")
        if array is not None and (array.dtype.kind not in _LETTERS[kind] or array.ndim != n_axes):
            raise InputError(f"{path}: {key} is {array.dtype} of shape {array.shape}, not {kind} with {n_axes} axes.")


def _announced(stream: IO[bytes], size: int, path: Path | str) -> int:
    """Return the number of members in the end record of an archive, before its directory can fill the memory."""
    stream.seek(max(0, size - 20 - _ZIP_END))
    locator, end = stream.read(20), stream.read(_ZIP_END)
    if end[:4] != b"PK\5\6":
        raise InputError(f"{path} is not an .npz file, or cut off.")
    n_members = int.from_bytes(end[10:12], "little")
    if locator[:4] == b"PK\6\7" or n_members > _MOST_MEMBERS:
        raise InputError(f"{path} has more than {_MOST_MEMBERS} members.")
    if int.from_bytes(end[12:16], "little") > _MOST_MEMBERS * _MOST_HEADER:
        raise InputError(f"{path} is damaged: its directory is too long.")
    return n_members


def _listed(archive: zipfile.ZipFile, n_members: int, path: Path | str) -> list[zipfile.ZipInfo]:
    """Return the members of an archive that announces so many, which are plain arrays."""
    members = archive.infolist()
    if len(members) != n_members:  # a damaged entry can swallow those behind it
        raise InputError(f"{path} is damaged: it announces {n_members} members and lists {len(members)}.")
    if len({member.filename for member in members}) < n_members:
        raise InputError(f"{path} holds two members of one name.")
    for member in members:
        name = member.filename
        if not name.endswith(".npy") or not name.isprintable() or any(part in name for part in ("/", "\\", "..")):
            raise InputError(f"{path} holds members that are not arrays: {name[:40]!r}.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 0x61:
            raise InputError(f"{path}: {name!r} is encrypted, or packed in another way than numpy does.")
    return members


def _array(stream: IO[bytes], size: int, where: str) -> NDArray:
    """Return the array that an ``.npy`` stream of so many bytes holds, exactly."""
    start = stream.read(12)
    n = {b"\x93NUMPY\1\0": 2, b"\x93NUMPY\2\0": 4}.get(start[:8])
    if n is None:
        raise InputError(f"{where} is no array as numpy writes them, or damaged.")
    length = int.from_bytes(start[8 : 8 + n], "little")
    if length > _MOST_HEADER:
        raise InputError(f"{where} has a header of {length} bytes; at most {_MOST_HEADER} are read.")
    header = io.BytesIO(start + stream.read(8 + n + length - len(start)))
    header.seek(8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        read = np.lib.format.read_array_header_1_0 if n == 2 else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(header)
    if dtype.kind not in "fiubcUS":
        raise InputError(f"{where} holds pickled objects or records ({dtype}); numbers and text are read.")
    n_bytes = size - header.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != n_bytes:
        raise InputError(f"{where} declares {dtype} of shape {shape} in {n_bytes} bytes; it is cut off or damaged.")
    data = stream.read(n_bytes + 1)  # one more, so that the end and with it the checksum is reached
    if len(data) != n_bytes:
        raise InputError(f"{where} is cut off or damaged.")
    array = np.ndarray(shape, dtype, buffer=data, order="F" if is_fortran else "C")
    array = array.astype(dtype.newbyteorder("="), copy=False)
    # numpy makes text of any number, and Python fails on one that is no character
    if dtype.kind == "U" and np.frombuffer(array.tobytes(), np.uint32).max(initial=0) > sys.maxunicode:
        raise InputError(f"{where} holds what is no text.")
    return array
