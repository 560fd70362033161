"""HDF5 files tried in another process first: a damaged one can end whatever process opens it, or keep it busy for ever.

``python -m trajdesign.data.hdf5.sandbox NAME`` is that process. It tries the files that it is given, and writes a dot
for each that it survives.
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
except ImportError:  # only Unix has it
    resource = None  # type: ignore[assignment]

# Trying one file takes at most so many seconds of computing, and so many bytes.
_MOST_SECONDS, _MOST_MEMORY = 3, 2**29


def require_sound(paths: Sequence[Path], name: str) -> None:
    """Refuse files that end the process that opens them, or keep it busy for ever; other damage is found later.

    `name` is the dataset that is to be read, empty for any. The first such file is an `InputError`; a `ResourceError`
    says that no other process can be started.
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
    tried = subprocess.run(words, input=names, capture_output=True, env={**os.environ, **found})
    n = len(tried.stdout)
    if n < len(paths) and tried.returncode < 0:
        raise InputError(f"{paths[n]} is damaged: the HDF5 library fails on it ({tried.returncode}).")
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {tried.returncode}"]
        raise ResourceError(f"cannot look at HDF5 files in another process: {said[-1]}.")


def _try_file(path: Path, name: str) -> None:
    """Read everything that later code reads, except the numbers."""
    names = [name] if name else []
    _try(path, people)
    _try(path, lambda file: text(file, "ismrmrd_header"))
    _try(path, lambda file: text(group(file, "dataset"), "xml"))
    _try(path, lambda file: _list_chunks(group(file, "dataset"), "data"))
    _try(path, lambda file: names.extend([] if name else shapes(file)))
    for found in names:
        _try(path, partial(_list_chunks, name=found))


def _try(path: Path, reads: Callable[[h5py.File], object]) -> None:
    """Read one thing of a file; a fault in it does not hide the others."""
    try:
        with opened(path) as file:
            reads(file)
    except (InputError, MemoryError) as error:
        # the library says so of more memory than it gets here
        if isinstance(error, MemoryError) or "alloc" in str(error.__context__):
            os.abort()


def _list_chunks(of: h5py.Group, name: str) -> None:
    data = member(of, name)
    _ = data.dtype
    if data.chunks:
        data.id.chunk_iter(lambda _: None)


def _try_files(paths: list[bytes], name: str) -> None:
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_DATA", _MOST_MEMORY)
    for path in paths:
        _limit("RLIMIT_CPU", int(time.process_time()) + _MOST_SECONDS)
        _try_file(Path(os.fsdecode(path)), name)
        sys.stdout.write(".")
        sys.stdout.flush()


def _limit(name: str, value: int) -> None:
    """Limit what this process may take, where the system knows such limits."""
    if resource is not None:
        kind = getattr(resource, name)
        _, most = resource.getrlimit(kind)
        if most == resource.RLIM_INFINITY or most >= value:
            resource.setrlimit(kind, (value, most))


if __name__ == "__main__":
    _try_files(sys.stdin.buffer.read().split(b"\0"), sys.argv[1])
