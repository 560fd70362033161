"""Signals that end a command: at once, or after what is in progress."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from trajdesign.errors import Interrupted

#: The signals of a user, of a job's end, of a closed terminal, and of a scheduler that gives notice.
ENDING = tuple(
    getattr(signal, f"SIG{name}") for name in ("INT", "TERM", "HUP", "USR1") if hasattr(signal, f"SIG{name}")
)


class Signals:
    """What is done about the signals that end a command, while they are `caught`.

    The first one ends it at once, but for what is `deferred`: that only takes note of it, and ends by itself where it
    can. Meanwhile a second SIGINT ends it at once, unless it is `patient`.

    Parameters
    ----------
    patient
        Let no second signal end it at once: whoever started several ranks passes on to each what the terminal has sent
        to all.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.noted = 0
        self._defers = self._leaves = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch them in the block; those that are ignored, as SIGHUP under nohup, stay ignored."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can
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
        """Take note of the first signal in the block, as `noted`; at the end of the block it comes into force.

        Raises
        ------
        Interrupted
            If there was one.
        """
        self._defers = True
        try:
            yield
        finally:
            self._defers = False
        if self.noted:
            self.leave(self.noted)

    def leave(self, number: int, where: str = "") -> NoReturn:
        """End the command as signal `number` does, and let no further one disturb that.

        Raises
        ------
        Interrupted
            Always.
        """
        self._leaves = True
        raise Interrupted(number, where)

    def _come(self, number: int, _: FrameType | None) -> None:
        if self._defers and not self.noted:
            self.noted = number
        elif not self._leaves and (not self._defers or (number == signal.SIGINT and not self.patient)):
            self.leave(number)


def ignore(_: int = 0) -> None:
    """Ignore them in this process, which its parent ends."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
