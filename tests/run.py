#!/usr/bin/env python3
"""Every check of the project: ``python3 tests/run.py``. Further arguments go to pytest.

It makes the virtual environment ``.venv`` (unless it runs inside one), installs the package and the tools of its
development into it, and runs each step in turn; the first that fails ends it. It needs Python 3.11 with venv.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> int:
    """Run the steps; returns the exit code of the first that fails."""
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.stderr.write(f"trajdesign needs Python 3.11 or newer; this is {sys.version.split()[0]}.\n")
        return 6
    started = time.monotonic()
    try:
        python = _start().install("[dev]")
    except subprocess.CalledProcessError as error:
        return error.returncode
    say(f"install: {time.monotonic() - started:.0f} s")
    # the two processes of the tests have a core each; more threads in them would only wait for each other
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    # pytest is the last step, so that its closing line is the last line
    for name, command in steps(arguments).items():
        say(f"\n{name}: python -m {' '.join(command)}")
        started = time.monotonic()
        code = subprocess.run([python, "-m", *command], cwd=ROOT, env=environment).returncode
        if code:
            sys.stderr.write(f"{name} failed with exit code {code} after {time.monotonic() - started:.0f} s.\n")
            return code
        if name != "tests":
            say(f"{name}: {time.monotonic() - started:.0f} s")
    return 0


def steps(arguments: list[str]) -> dict[str, list[str]]:
    """Return the module and arguments of each step."""
    return {
        "lint": ["ruff", "check", "."],
        "format": ["ruff", "format", "--check", "."],
        "types": ["mypy"],
        "docs": ["sphinx", "--fail-on-warning", "--keep-going", "--fresh-env", "-q", "docs", "docs/_build/html"],
        # two processes, and what one module sets up stays in one of them
        "tests": ["pytest", "--numprocesses=2", "--dist=loadscope", *arguments],
    }


def say(text: str) -> None:
    """Print a line at once, in order with what the steps print."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _start():
    """Return the other bootstrap script as a module: both install in the same way."""
    spec = importlib.util.spec_from_file_location("start", ROOT / "examples" / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
