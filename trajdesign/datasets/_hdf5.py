"""HDF5 files of others: damaged ones, and ones that point at other files, are refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from trajdesign.errors import InputError

ENDINGS = (".h5", ".hdf5", ".mrd")


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Yield the open file; what HDF5 raises becomes an `InputError`."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not an HDF5 file, or damaged ({type(error).__name__}).") from None


def is_own(group: h5py.Group, name: str) -> bool:
    """Return whether a member lies in the file itself: the usual look-up would open what an external link names."""
    return name in list(group) and group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD


def member(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """Return a dataset that lies in the file itself: HDF5 can point at any other file of the machine."""
    found = group[name] if is_own(group, name) else None
    if not isinstance(found, h5py.Dataset):
        names = ", ".join(map(repr, list(group)[:8])) or "none"
        raise InputError(f"{path} has no dataset {name!r} of its own; it has {names}.")
    if found.external or found.is_virtual:
        raise InputError(f"{path}: {name!r} lies in other files; copy the data into one file.")
    return found


def text(group: h5py.Group, name: str, path: Path) -> str | bytes:
    """Return a text of at most a million characters."""
    value = member(group, name, path)[()]
    value = value[0] if getattr(value, "shape", None) == (1,) else value
    if not isinstance(value, bytes | str) or len(value) > 2**20:
        raise InputError(f"{path}: {name} is no text of at most {2**20} characters.")
    return value
