"""Checkpoints: the state of a run, kept whole or not at all, and proven undamaged before it is used again."""

import hashlib
import io
import re
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trajdesign import files, walled
from trajdesign.errors import InputError, ResourceError
from trajdesign.interrupt import Signals

_VERSION = 1
_N_KEPT = 2
_MOST_FAILURES = 3  # in a row, after which a run ends that cannot keep its state
_HEADER = re.compile(rb"trajdesign checkpoint ([0-9a-f]{64})\n")
_HEADER_LENGTH = 23 + 64
_MOST_BYTES = 2**35


class Checkpoints:
    """The last two checkpoints of a run, in its folder ``checkpoints``.

    Each is one file, whose first line holds the SHA-256 of the rest: the state, as `torch.save` writes it. So whatever
    ends the process, there is no state without its sum.

    Parameters
    ----------
    folder
        Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.run = folder
        self.path = folder / "checkpoints"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keep a state, and the last one before it.

        Parameters
        ----------
        name
            Those of a run sort as they follow each other.
        state
            Tensors, numbers, text, and lists and dictionaries of them.

        Raises
        ------
        ResourceError
            If it cannot be written. Those that are there stay.
        """
        path = self.path / f"{name}.ckpt"
        if not files.is_folder(self.run):
            raise ResourceError(f"cannot write {path}: the folder of the run was removed.")
        stream = io.BytesIO()
        torch.save({"version": _VERSION, **state}, stream)
        with stream.getbuffer() as content, files.atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(b"trajdesign checkpoint %s\n" % hashlib.sha256(content).hexdigest().encode())
            file.write(content)
        # what is newer is damaged, or of a run that went on from there and did not come as far
        kept = [other for other in self._found() if other <= path][-_N_KEPT:]
        for other in self._found():
            if other not in kept:
                other.unlink(missing_ok=True)

    def load(self, say: Callable[[str], None] = lambda _: None) -> dict[str, Any] | None:
        """Return the newest state that is undamaged, or None if none was ever kept.

        Parameters
        ----------
        say
            Told of each that is damaged.

        Raises
        ------
        InputError
            If all are damaged.
        """
        damage: list[str] = []
        for path in reversed(self._found()):
            try:
                state = read(path)
            except InputError as error:
                damage.append(str(error))
                continue
            for sentence in damage:
                say(f"{sentence} Going on from {path}, the one before it.")
            return state
        if damage:
            raise InputError(f"{damage[0]} There is no other to go on from; pass --force to start again.")
        return None

    def clear(self) -> None:
        """Remove all."""
        if self.path.is_dir():
            files.sweep(self.path)
            for path in self._found():
                path.unlink()
            if not any(self.path.iterdir()):
                self.path.rmdir()

    def _found(self) -> list[Path]:
        return sorted(self.path.glob("*.ckpt"))


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Nothing in it is run, whoever wrote it.

    Raises
    ------
    InputError
        If it is damaged, of another version, or no checkpoint.
    """
    whole = walled.read_bytes(path, _MOST_BYTES)
    header, content = _HEADER.fullmatch(whole[:_HEADER_LENGTH]), whole[_HEADER_LENGTH:]
    if header is None or header[1].decode() != hashlib.sha256(content).hexdigest():
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in its first line.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            if sum(member.file_size for member in members.infolist()) > len(content):
                raise InputError(f"{path} is no checkpoint: it would unpack to more than it holds.")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever a file that somebody made can raise; torch names no kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is no checkpoint: {reason[:200].rstrip('.')}.") from None
    version = state.get("version") if isinstance(state, dict) else None
    if version != _VERSION:
        raise InputError(f"{path} is a checkpoint of version {version}, not {_VERSION}; finish it with its trajdesign.")
    return state


@contextmanager
def fitting() -> Iterator[None]:
    """Turn what goes wrong where an undamaged state does not fit the run into a sentence.

    Raises
    ------
    InputError
        If anything does.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise InputError(f"cannot go on from the checkpoint: it is of another run or version ({reason}).") from None


class Keeper:
    """Keeps the state of a training every few seconds, and when a signal asks the run to leave.

    Parameters
    ----------
    checkpoints
        Where; none on ranks that leave it to the first, and where nothing is to be kept.
    signals
        Which ask it to leave.
    seconds
        Between two checkpoints.
    say
        Told of a checkpoint that could not be written.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None = None,
        signals: Signals | None = None,
        seconds: float = 60.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.checkpoints, self.seconds, self.say = checkpoints, seconds, say
        self.signals = signals or Signals()
        self.before: dict[str, Any] = {}
        """Of the run: what goes into every checkpoint beside the training in progress."""
        self.name = ""
        """Of the training in progress, which sorts behind those before it."""
        self._last = time.monotonic()
        self._n_failed = 0

    def after_step(
        self, step: int, state: Callable[[], dict[str, Any]], *, is_good: bool, is_last: bool, leaves: bool
    ) -> None:
        """Keep the state if it is good and time to, after the last step, and if the run leaves; and leave.

        Raises
        ------
        Interrupted
            If the run leaves.
        ResourceError
            If the state could not be kept three times in a row, or before leaving.
        """
        is_due = is_good and time.monotonic() - self._last >= self.seconds
        if self.checkpoints and (is_due or is_last or leaves):
            try:
                self.checkpoints.save(f"{self.name}-{step:09d}", {**self.before, "training": state()})
                self._n_failed = 0
            except ResourceError as error:
                self._n_failed += 1
                if leaves or self._n_failed == _MOST_FAILURES:
                    raise
                self.say(f"{error} The run goes on, and tries again in {self.seconds:g} s.")
            self._last = time.monotonic()
        if leaves:
            where = f" after step {step} ({self.before.get('stage', 'training')}), which is kept"
            self.signals.leave(self.signals.noted or signal.SIGTERM, where)
