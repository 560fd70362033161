"""Signals that end a command: at once, or after what is in progress."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from trajdesign.errors import Interrupted

#: The signals of a user, of a job's end, of a closed terminal, and of a scheduler that gives notice.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))


class Signals:
    """How a command ends by a signal, while the signals are `caught`.

    The first signal ends it at once, but in a block that is `deferred`, where it is only noted. There a second SIGINT
    ends it at once, unless it is `patient`: the launcher of several ranks sends each again what the terminal has sent
    to all.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.noted = 0
        self._defers = self._leaves = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals in the block; those that are ignored, as SIGHUP under nohup, stay ignored."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can catch them
            return
        before = {number: signal.getsignal(number) for number in ENDING}
        own = {number: kept for number, kept in before.items() if kept not in (signal.SIG_IGN, None)}
        for number in own:
            signal.signal(number, self._come)
        try:
            yield
        finally:
            for number, kept in own.items():
                signal.signal(number, kept)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note the first signal in the block as `noted`; raise `Interrupted` by it at the end of the block."""
        self._defers = True
        try:
            yield
        finally:
            self._defers = False
        if self.noted:
            self.leave(self.noted)

    def leave(self, number: int, where: str = "") -> NoReturn:
        """Raise `Interrupted` as signal `number` does; further signals are ignored."""
        self._leaves = True
        raise Interrupted(number, where)

    def _come(self, number: int, _: FrameType | None) -> None:
        if self._defers and not self.noted:
            self.noted = number
        elif not self._leaves and (not self._defers or (number == signal.SIGINT and not self.patient)):
            self.leave(number)


def ignore(_: int = 0) -> None:
    """Ignore the signals in this process, which its parent ends."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
