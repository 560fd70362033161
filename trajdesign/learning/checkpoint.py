"""Checkpoints: the state of a run, kept whole or not at all, and proven undamaged before it is used again."""

import hashlib
import json
import math
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trajdesign.errors import ConfigError, InputError, ResourceError
from trajdesign.files import atomic, untrusted
from trajdesign.learning.state import Done, JointState, RunState, TrainingState
from trajdesign.runtime.interrupt import Signals

_VERSION = 2
_N_KEPT = 2
_MOST_FAILURES = 3  # in a row, after which a run ends that cannot keep its state
_HEADER = re.compile(rb"trajdesign checkpoint ([0-9a-f]{64})\n")
_HEADER_LENGTH = 23 + 64
_MOST_BYTES = 2**35
_MOST_TREE = 2**26  # bytes of all that is no tensor; Python makes some twenty times as much of them
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip


class Checkpoints:
    """The last two checkpoints of a run, in the folder ``checkpoints`` of the run's `folder`.

    Each is one file. Its first line holds the SHA-256 of the rest: the state as one line of JSON, then the bytes of its
    tensors, one after another. So whatever ends the process, there is no state without its sum.
    """

    def __init__(self, folder: Path) -> None:
        self.run = folder
        self.path = folder / "checkpoints"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keep a state, and the last one before it; the names of a run's states sort as they follow each other.

        Raises
        ------
        ConfigError
            If it holds anything but tensors, numbers, text, None, and lists, tuples and dictionaries of them.
        ResourceError
            If it cannot be written. Those that are there stay.
        """
        path = self.path / f"{name}.ckpt"
        if not atomic.is_folder(self.run):
            raise ResourceError(f"cannot write {path}: the folder of the run was removed.")
        tensors: list[memoryview] = []
        tree = json.dumps(_packed({"version": _VERSION, **state}, tensors)).encode() + b"\n"
        total = hashlib.sha256(tree)
        for content in tensors:
            total.update(content)
        with atomic.atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(b"trajdesign checkpoint %s\n" % total.hexdigest().encode())
            file.write(tree)
            for content in tensors:
                file.write(content)
        # what is newer is damaged, or of a run that went on from there and did not come as far
        kept = [other for other in self._found() if other <= path][-_N_KEPT:]
        for other in self._found():
            if other not in kept:
                other.unlink(missing_ok=True)

    def load(self, say: Callable[[str], None] = lambda _: None) -> dict[str, Any] | None:
        """Return the newest undamaged state, None if none was ever kept, and `say` which newer ones are damaged.

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
            atomic.sweep(self.path)
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
    whole = memoryview(untrusted.read_bytes(path, _MOST_BYTES))
    header, content = _HEADER.fullmatch(whole[:_HEADER_LENGTH]), whole[_HEADER_LENGTH:]
    if header is None or header[1].decode() != hashlib.sha256(content).hexdigest():
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in its first line.")
    if content[:2] == b"PK":
        raise InputError(f"{path} is a checkpoint of version 1, not {_VERSION}; finish it with its trajdesign.")
    try:
        tree, end, _ = bytes(content[:_MOST_TREE]).partition(b"\n")
        if not end:
            raise ValueError(f"no line of its first {_MOST_TREE} bytes is a state")
        state, rest = _unpacked(json.loads(tree), content[len(tree) + 1 :])
        if rest:
            raise ValueError(f"{len(rest)} bytes belong to no tensor")
    except MemoryError:
        raise
    except Exception as error:  # whatever a file that somebody made can raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is no checkpoint: {reason[:200].rstrip('.')}.") from None
    version = state.get("version") if isinstance(state, dict) else None
    if version != _VERSION:
        raise InputError(f"{path} is a checkpoint of version {version}, not {_VERSION}; finish it with its trajdesign.")
    return state


def _packed(value: Any, tensors: list[memoryview]) -> Any:
    """Return a state as JSON has it, and put the bytes of its tensors into a list.

    A table of one entry stands for what JSON lacks: a tensor by its kind and shape, a tuple, or a dictionary.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_packed(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_packed(item, tensors) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_packed(key, tensors), _packed(item, tensors)] for key, item in value.items()]}
    kind = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else ""
    if kind not in _DTYPES or value.layout != torch.strided:
        raise ConfigError(
            f"a state holds {type(value).__name__} {kind}; a plug-in's state_dict may hold tensors, numbers, text, "
            "None, and lists, tuples and dictionaries of them."
        )
    plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    tensors.append(plain.reshape(-1).view(torch.uint8).numpy().data)
    return {"tensor": [kind, list(value.shape)]}


def _unpacked(value: Any, tensors: memoryview) -> tuple[Any, memoryview]:
    """Return what `_packed` made a value of, and the bytes of the tensors behind it."""
    if isinstance(value, list):
        items = []
        for item in value:
            found, tensors = _unpacked(item, tensors)
            items.append(found)
        return items, tensors
    if not isinstance(value, dict):
        return value, tensors
    [(what, content)] = value.items()
    if what == "tensor":
        kind, shape = content
        dtype = _DTYPES[kind]
        n_bytes = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or n_bytes > len(tensors):
            raise ValueError(f"{len(tensors)} bytes are no tensor of shape {shape}")
        flat = torch.empty(math.prod(shape), dtype=dtype)
        flat.view(torch.uint8).numpy().data[:] = tensors[:n_bytes]
        return flat.reshape(shape), tensors[n_bytes:]
    items, tensors = _unpacked(content, tensors)
    return {"tuple": tuple, "dict": dict}[what](items), tensors


@contextmanager
def fitting() -> Iterator[None]:
    """Turn what goes wrong into `InputError`, where an undamaged state does not fit the run."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise InputError(f"cannot go on from the checkpoint: it is of another run or version ({reason}).") from None


class Keeper:
    """Keeps the state of a run every few `seconds`, and when a signal asks the run to leave.

    Without `checkpoints`, as on ranks that leave it to the first, it keeps nothing. It will `say` that a checkpoint
    could not be written.
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
        self.run: RunState | None = None
        self.name = ""
        """Of the training in progress, which sorts behind those before it."""
        self._last = time.monotonic()
        self._n_failed = 0

    def after_step(
        self, done: Done, joint: Callable[[], JointState], *, is_good: bool, is_last: bool, leaves: bool
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
        if self.checkpoints and self.run and (is_due or is_last or leaves):
            try:
                self.checkpoints.save(f"{self.name}-{done.step:09d}", self.run.tables(TrainingState(done, joint())))
                self._n_failed = 0
            except ResourceError as error:
                self._n_failed += 1
                if leaves or self._n_failed == _MOST_FAILURES:
                    raise
                self.say(f"{error} The run goes on, and tries again in {self.seconds:g} s.")
            self._last = time.monotonic()
        if leaves:
            where = f" after step {done.step} ({self.run.stage if self.run else 'training'}), which is kept"
            self.signals.leave(self.signals.noted or signal.SIGTERM, where)
