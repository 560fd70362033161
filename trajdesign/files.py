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
    """Yield a temporary path in the same folder; on success it replaces `path` in one step.

    Parameters
    ----------
    path
        The file to appear. Its name's ending is kept by the temporary name.
    overwrite
        Whether an existing file may be replaced.
    beside
        A temporary path of this function for another file; this one's differs from it in the ending alone.

    Raises
    ------
    OutputError
        If `path` exists and may not be replaced.
    ResourceError
        If the folder cannot be written.
    """
    path = Path(path)
    try:
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already; pass --force to replace it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        if beside is None:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".tmp-{path.stem[:40]}-", suffix=path.suffix)
            os.close(handle)
            temporary = Path(name)
        else:
            temporary = beside.with_suffix(path.suffix)
            temporary.touch(exist_ok=False)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}.") from None
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
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
    """Return whether a folder is there, so far as this process may see."""
    try:
        return path.is_dir()
    except PermissionError:
        return True


def sweep(folder: Path) -> None:
    """Remove the temporary files of writers that were killed; none may be at work in the folder."""
    for left in folder.glob(".tmp-*"):
        left.unlink(missing_ok=True)


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
