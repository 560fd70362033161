"""HDF5 files looked at in another process first, because a damaged one can end, or keep busy for ever, who opens it.

As a program, ``python -m trajdesign.data.hdf5.sandbox NAME``, this module looks at the files whose names it is given,
and writes a dot for each.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import h5py

from trajdesign.data.hdf5.reader import group, member, opened, people, shapes, text
from trajdesign.errors import InputError, ResourceError

try:
    import resource
except ImportError:  # of Unix alone
    resource = None  # type: ignore[assignment]

# Of computing on one file without its numbers, and bytes that this may take.
_MOST_SECONDS, _MOST_MEMORY = 3, 2**29


def require_sound(paths: Sequence[Path], name: str) -> None:
    """Look at files in another process first, because a damaged one can end it, or keep it busy for ever.

    Parameters
    ----------
    paths
        The files.
    name
        Of the dataset that is to be read; empty for any.

    Raises
    ------
    InputError
        If one does. What else is wrong with a file is not said here.
    ResourceError
        If there is no other process.
    """
    known = [(path, path.stat()) for path in paths if path.is_file()]
    if known:
        _require_sound(tuple((path, found.st_ino, found.st_size, found.st_mtime_ns) for path, found in known), name)


@lru_cache(maxsize=8)  # each split of a run asks about the files of all
def _require_sound(files: tuple[tuple[Path, int, int, int], ...], name: str) -> None:
    paths = [path for path, *_ in files]
    words = [sys.executable, "-P", "-m", __spec__.name, name]
    own, others = str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")
    found = {"PYTHONPATH": f"{own}{os.pathsep}{others}" if others else own, "OPENBLAS_NUM_THREADS": "1"}
    names = b"\0".join(map(os.fsencode, paths))
    looked = subprocess.run(words, input=names, capture_output=True, env={**os.environ, **found})
    n = len(looked.stdout)
    if n < len(paths) and looked.returncode < 0:
        raise InputError(f"{paths[n]} is damaged: the HDF5 library fails on it ({looked.returncode}).")
    if looked.returncode:
        said = looked.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {looked.returncode}"]
        raise ResourceError(f"cannot look at HDF5 files in another process: {said[-1]}.")


def _look(path: Path, name: str) -> None:
    """Go wherever reading will go, but for the numbers."""
    names = [name] if name else []
    _try(path, people)
    _try(path, lambda file: text(file, "ismrmrd_header"))
    _try(path, lambda file: text(group(file, "dataset"), "xml"))
    _try(path, lambda file: _walk(group(file, "dataset"), "data"))
    _try(path, lambda file: names.extend([] if name else shapes(file)))
    for found in names:
        _try(path, partial(_walk, name=found))


def _try(path: Path, look: Callable[[h5py.File], object]) -> None:
    """Look at one place; what is wrong there does not hide the others."""
    try:
        with opened(path) as file:
            look(file)
    except (InputError, MemoryError) as error:
        # the library says so of more memory than it gets here
        if isinstance(error, MemoryError) or "alloc" in str(error.__context__):
            os.abort()


def _walk(of: h5py.Group, name: str) -> None:
    data = member(of, name)
    _ = data.dtype
    if data.chunks:
        data.id.chunk_iter(lambda _: None)


def _look_at_all(paths: list[bytes], name: str) -> None:
    if resource is not None:
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_DATA, _MOST_MEMORY)
    for path in paths:
        if resource is not None:
            _limit(resource.RLIMIT_CPU, int(time.process_time()) + _MOST_SECONDS)
        _look(Path(os.fsdecode(path)), name)
        sys.stdout.write(".")
        sys.stdout.flush()


def _limit(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    if most == resource.RLIM_INFINITY or most >= value:
        resource.setrlimit(kind, (value, most))


if __name__ == "__main__":
    _look_at_all(sys.stdin.buffer.read().split(b"\0"), sys.argv[1])
