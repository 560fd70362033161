"""A browser for the tests of a file."""

import browser
import pytest


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if browser.find() is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is here")
    with browser.launch(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened
