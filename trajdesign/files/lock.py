"""One writer a folder."""

import contextlib
import errno
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from trajdesign.errors import OutputError, ResourceError

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where a folder has as many writers as the user starts
    fcntl = None  # type: ignore[assignment]

_NAME = ".lock"
#: A lock that is held for so long, s, is not another process's short look at it.
_PATIENCE = 0.5
#: What a lock file says of its holder, and its most bytes.
_HOLDER, _MOST_HOLDER = re.compile(rb"process \d+ on [^\n]*\n"), 300


@contextlib.contextmanager
def one_writer(folder: Path, name: str = _NAME, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is missing; wait `patience` seconds for it.

    The lock belongs to this call: a second call is refused, in the same process too. It ends with the process, however
    that ends, and forked processes do not hold it on.

    Raises
    ------
    OutputError
        If another one holds it, the folder is a file, or the lock file was not made here.
    ResourceError
        If the folder cannot be written.
    """
    path = folder / name
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; --out names a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        held = [_acquire(path, patience)]
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ResourceError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}.") from None
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(_let_go, held))  # who has inherited the open file, has the lock
    try:
        yield
    finally:
        for descriptor in held:
            with contextlib.suppress(OSError):
                if _is_open_at(descriptor, path):
                    path.unlink()  # while it is held: see _acquire
        _let_go(held)


def require_free(folder: Path, name: str = _NAME) -> None:
    """Raise `OutputError` if the lock of a folder is held."""
    path = folder / name
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        descriptor = _open(path, 0)
        try:
            if not _lock(descriptor):
                raise _held(descriptor, path)
        finally:
            os.close(descriptor)


def _acquire(path: Path, patience: float) -> int:
    """Return the descriptor of the locked file, which says who holds it."""
    end = time.monotonic() + patience
    while True:
        descriptor = _open(path, os.O_CREAT)
        try:
            # the last holder may have removed the file after it was opened here, and a third one may have made another
            if _lock(descriptor):
                if _is_open_at(descriptor, path):
                    content = os.read(descriptor, _MOST_HOLDER)
                    if content and not _HOLDER.fullmatch(content):
                        raise _no_lock(path)
                    os.ftruncate(descriptor, 0)
                    os.lseek(descriptor, 0, os.SEEK_SET)
                    with contextlib.suppress(OSError):  # no room: it is locked all the same
                        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                    return descriptor
            elif time.monotonic() > end:
                raise _held(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(0.02)


def _open(path: Path, flags: int) -> int:
    """Open a lock file, and never the target of a link; its content is not touched."""
    flags |= os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _no_lock(path) from None
        raise
    found = os.fstat(descriptor)
    if path.is_symlink() or not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise _no_lock(path)
    return descriptor


def _lock(descriptor: int) -> bool:
    """Lock an open file, unless another holds it; without locks in the file system everyone may write."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    return True


def _let_go(held: list[int]) -> None:
    while held:
        os.close(held.pop())


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _held(descriptor: int, path: Path) -> OutputError:
    os.lseek(descriptor, 0, os.SEEK_SET)
    holder = os.read(descriptor, _MOST_HOLDER)
    who = holder.decode("utf-8", "replace").strip() if _HOLDER.fullmatch(holder) else "another process"
    return OutputError(f"{path.parent} is being written by {who}; wait for it, or end it.")


def _no_lock(path: Path) -> OutputError:
    return OutputError(f"{path} is a link, or was not made by trajdesign, and is not written; move it away.")
