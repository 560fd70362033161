"""Files that appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trajdesign.errors import OutputError, ResourceError


@contextmanager
def atomic_path(path: Path | str, *, overwrite: bool = True, beside: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path in the same folder and with the same ending; on success it replaces `path` in one step.

    Parameters
    ----------
    path
        The file to appear.
    overwrite
        Whether an existing file may be replaced.
    beside
        The temporary path of another file, which this one's shares but for the ending.

    Raises
    ------
    OutputError
        If `path` exists and may not be replaced, also if somebody else has made it meanwhile.
    ResourceError
        If the folder cannot be written.
    """
    path = Path(path)
    try:
        if not overwrite and os.path.lexists(path):
            raise _taken(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if beside is None:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".tmp-{path.stem[:40]}-", suffix=path.suffix)
            os.close(handle)
            temporary = Path(name)
        else:
            temporary = beside.with_suffix(path.suffix)
            temporary.touch(exist_ok=False)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ResourceError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}.") from None
    try:
        yield temporary
        with temporary.open("r+b") as stream:  # Windows synchronises no file that is open for reading alone
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        if overwrite:
            temporary.replace(path)
        else:
            _name(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str, *, overwrite: bool) -> None:
    """Write a text file in UTF-8, as `atomic_path` does."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def is_folder(path: Path) -> bool:
    """Return whether a folder is there, or may be: where this process may not look."""
    try:
        return path.is_dir()
    except PermissionError:
        return True


def sweep(folder: Path) -> None:
    """Remove the temporary files of killed writers from a folder in which nobody writes."""
    for left in folder.glob(".tmp-*"):
        if left.is_symlink() or not left.is_dir():  # a folder is none of ours
            left.unlink(missing_ok=True)


def require_own(folder: Path) -> Path:
    """Return a folder to write into; raises `OutputError` if it is a link to elsewhere, or a file."""
    if folder.is_symlink():
        raise OutputError(f"{folder} is a link, and nothing is written where it leads; remove it.")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file where a folder is written; remove it.")
    return folder


def _name(temporary: Path, path: Path) -> None:
    """Give a file a name that no other one has."""
    try:
        os.link(temporary, path)
    except OSError:  # the name is taken, or the file system has no hard links
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            raise _taken(path) from None
        temporary.replace(path)


def _taken(path: Path) -> OutputError:
    return OutputError(f"{path} exists already; pass --force to replace it.")


def _sync_folder(folder: Path) -> None:
    """Make the new name of a file last, where folders can be synchronised."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
