"""HDF5 files from strangers: what is read lies in the file itself, and does not unpack to more than it says.

HDF5 can point at any other file of the machine, by links, external storage and virtual datasets. Its library inflates a
chunk however large it gets, reads beyond the end of a short one, which ends the process, and loops for ever in a
damaged heap; so `trajdesign.data.hdf5.sandbox` tries each file first.

Texts and sequences of any length, as in ISMRMRD, are read here and not by the library: it takes as much memory for one
as a reference says, whatever the heap holds.

Each function raises an `InputError` where the file does not hold what is asked for, or too much of it.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trajdesign.data.hdf5 import chunks, heap
from trajdesign.errors import InputError
from trajdesign.files import untrusted

ENDINGS = (".h5", ".hdf5", ".mrd")

#: A slice or a chunk has at most so many bytes, and a file so many slices: a small file can declare far more.
MOST_BYTES, MOST_SLICES = 2**30, 100_000
# A group has at most so many members or attributes that are looked at, and a text so many characters.
_MOST_MEMBERS, _MOST_CHARACTERS = 1000, 2**20

# Attributes and texts of these names tell who was measured, whatever their case and separators: ``PatientID``, ...
_PEOPLE = {"patient", "patientid", "patientname", "subject", "subjectid", "participant", "participantid"}


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file; whatever fails in it is an `InputError`, because the file is damaged."""
    with untrusted.opened(path, most=untrusted.MOST_RAW):
        pass  # it is a regular file
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not an HDF5 file, or damaged ({type(error).__name__}).") from None


def group(file: h5py.File, name: str) -> h5py.Group:
    """Return a group that lies in the file itself."""
    found = file[name] if is_own(file, name) else None
    if not isinstance(found, h5py.Group):
        raise InputError(f"{file.filename} has no group {name!r} of its own.")
    return found


def is_mrd(file: h5py.File) -> bool:
    """Return whether there is a header of ISMRMRD's own layout."""
    return is_own(file, "dataset") and isinstance(file["dataset"], h5py.Group) and has(file["dataset"], "xml")


def shapes(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Return the shape of each dataset that lies in the file itself, by its name."""
    members = {name: file[name] for name in file if is_own(file, name)}
    return {name: found.shape for name, found in members.items() if isinstance(found, h5py.Dataset)}


def is_own(of: h5py.Group, name: str) -> bool:
    """Return whether a member lies in the file itself."""
    return has(of, name) and of.id.links.get_info(_encoded(name)).type == h5py.h5l.TYPE_HARD


def has(of: h5py.Group, name: str) -> bool:
    """Return whether there is a member of this name, wherever it lies."""
    # a look-up of the whole path would open the file that an external link on its way points at
    return "/" not in name and bool(of.id.links.exists(_encoded(name)))


def member(of: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset that lies in the file itself and is packed by HDF5's own filters alone."""
    path = of.file.filename
    found = of[name] if is_own(of, name) else None
    if not isinstance(found, h5py.Dataset):
        names = ", ".join(map(repr, islice(of, 8))) or "none"
        raise InputError(f"{path} has no dataset {name!r} of its own; it has {names}.")
    if found.external or found.is_virtual:
        raise InputError(f"{path}: {name!r} lies in other files; copy the data into one file.")
    filters = chunks.filters(found)
    if not set(filters) <= chunks.FILTERS or len(set(filters)) < len(filters):
        raise InputError(f"{path}: {name!r} is packed by the filters {filters}; repack it: h5repack -f GZIP=4.")
    return found


def require_slices(data: h5py.Dataset) -> None:
    """Refuse a dataset whose slices or chunks are larger than a machine can hold, or than the file can fill."""
    path, shape = Path(data.file.filename), data.shape
    largest = max(math.prod(shape[1:]), math.prod(data.chunks or ())) * data.dtype.itemsize
    if largest > MOST_BYTES or shape[0] > MOST_SLICES:
        raise InputError(
            f"{path}: {data.name[1:]!r} has the shape {shape}; a slice or chunk may have {MOST_BYTES} bytes, "
            f"a file {MOST_SLICES} slices."
        )
    chunks.require_modest(data, untrusted.MOST_RAW)


def table(data: h5py.Dataset) -> NDArray:
    """Return the rows of a table of numbers and sequences of float32; a sequence stays a reference for `sequences`."""
    path, kind = data.file.filename, data.id.get_type()
    names = data.dtype.names
    if names is None or data.ndim != 1:
        raise InputError(f"{path}: {data.name[1:]!r} is no table.")
    formats = [
        heap.REFERENCE if h5py.check_vlen_dtype(data.dtype[name]) == np.float32 else data.dtype[name] for name in names
    ]
    if any(entry.hasobject for entry in formats):
        raise InputError(f"{path}: {data.name[1:]!r} holds more than numbers and sequences of float32.")
    offsets = [kind.get_member_offset(i) for i in range(kind.get_nmembers())]
    row = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": kind.get_size()})
    return chunks.rows(data, row)


def sequences(path: Path, references: NDArray) -> Iterator[NDArray[np.float32]]:
    """Yield the sequence of each reference of a `table`."""
    for content in heap.read(path, references, 4):
        yield np.frombuffer(content, "<f4")


def text(of: h5py.Group, name: str) -> str | None:
    """Return the text of a dataset, one alone; None if there is nothing of that name."""
    if not has(of, name):
        return None
    data, path = member(of, name), Path(of.file.filename)
    kind = h5py.check_string_dtype(data.dtype)
    if data.shape not in ((), (1,)) or kind is None or (kind.length or 0) > _MOST_CHARACTERS:
        raise InputError(f"{path}: {name} is no text of at most {_MOST_CHARACTERS} characters.")
    if kind.length is not None:
        value = data[()] if data.shape == () else data[0]
        return value.decode() if isinstance(value, bytes) else str(value)
    place = data.id.get_offset()
    if place is None or not chunks.is_usual(data):
        raise InputError(f"{path}: {name} is stored in an unusual way; repack it: h5repack -l CONTI.")
    with path.open("rb") as stream:
        stream.seek(place)
        reference = np.frombuffer(stream.read(heap.REFERENCE.itemsize), heap.REFERENCE)
    if reference["n"][0] > _MOST_CHARACTERS:
        raise InputError(f"{path}: {name} is no text of at most {_MOST_CHARACTERS} characters.")
    return b"".join(heap.read(path, reference, 1)).rstrip(b"\0").decode()


def people(file: h5py.File) -> list[str]:
    """Return who was measured, as attributes of the file and its members tell, or texts, such as ``patient_id``."""
    members = {name: file[name] for name in islice(file, _MOST_MEMBERS) if is_own(file, name)}
    told = [(of, name) for of in (file, *members.values()) for name in islice(of.attrs, _MOST_MEMBERS)]
    found = [value for of, name in told if _plain(name) in _PEOPLE for value in _attribute(of, name)]
    named = {name: of for name, of in members.items() if _plain(name) in _PEOPLE and isinstance(of, h5py.Dataset)}
    return found + [text(file, name) or "" for name, of in named.items() if h5py.check_string_dtype(of.dtype)]


def _plain(name: str) -> str:
    return re.sub("[-_ .]", "", name).lower()


def _attribute(of: h5py.File | h5py.Group | h5py.Dataset, name: str) -> list[str]:
    """Return the texts and numbers of an attribute, as texts."""
    kind = of.attrs.get_id(name)
    is_known = h5py.check_string_dtype(kind.dtype) is not None or kind.dtype.kind in "iuf"
    if is_known and kind.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        return []
    if not is_known or math.prod(kind.shape) * kind.dtype.itemsize > _MOST_CHARACTERS:
        raise InputError(
            f"{of.file.filename}: its attribute {name!r} is no text, number, or list of them, of at most "
            f"{_MOST_CHARACTERS} characters; write it as a text."
        )
    return [_as_text(value) for value in np.array(of.attrs[name], dtype=object).ravel()]


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    whole = not isinstance(value, str) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


def _encoded(name: str) -> bytes:
    return name.encode(errors="surrogateescape")
