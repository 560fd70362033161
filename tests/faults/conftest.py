"""Signals as a terminal has them: a shell ignores some for what it starts in the background."""

import signal

import pytest

from trajdesign.interrupt import ENDING


@pytest.fixture(autouse=True)
def heard():
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
