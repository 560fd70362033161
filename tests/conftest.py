"""Settings of every test: the package comes before torch, whose threads it tells to sleep when idle."""

import signal

import pytest

import trajdesign as trajdesign
from trajdesign.runtime.interrupt import ENDING


@pytest.fixture(autouse=True, scope="session")
def heard():
    """Signals as a terminal has them, also for processes of the tests: a shell ignores some in the background."""
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
