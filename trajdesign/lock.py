"""One writer a folder."""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from trajdesign.errors import OutputError, ResourceError

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where a folder has as many writers as the user starts
    fcntl = None  # type: ignore[assignment]

_NAME = ".lock"
_PATIENCE = 0.5  # s, after which what holds the lock is no other one's short look at it


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there.

    The lock belongs to the process, not to the file that tells who holds it: it ends with the process, however that
    ends, and what the process has started does not hold it on.

    Raises
    ------
    OutputError
        If another process holds it, or the folder is a file.
    ResourceError
        If the folder cannot be written.
    """
    path = folder / _NAME
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; --out names a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}.") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _is_open_at(descriptor, path):
                path.unlink()  # while it is held: see _acquire
        os.close(descriptor)


def require_free(folder: Path) -> None:
    """Raise `OutputError` if another process holds the lock of a folder; without importing what takes long."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        descriptor = os.open(folder / _NAME, os.O_RDWR)
        try:
            if not _lock(descriptor):
                raise _held(folder / _NAME)
        finally:
            os.close(descriptor)


def _acquire(path: Path) -> int:
    """Return the descriptor of the locked file, which says who holds it."""
    end = time.monotonic() + _PATIENCE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # the last holder may have removed the file after it was opened here, and a third one may have made another
            if _lock(descriptor):
                if _is_open_at(descriptor, path):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                    return descriptor
            elif time.monotonic() > end:
                raise _held(path)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(0.02)


def _lock(descriptor: int) -> bool:
    """Lock an open file for this process, unless another holds it; a file system without locks lets everyone."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    return True


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _held(path: Path) -> OutputError:
    try:
        holder = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        holder = ""
    return OutputError(f"{path.parent} is being written by {holder or 'another process'}; wait for it, or end it.")
