"""What only POSIX has is not needed: locks, limits of a process, signals, links, folders that are synchronised."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trajdesign

ROOT = Path(trajdesign.__file__).parent
POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"}


def guarded(tree):
    """Yield the imports that are allowed to fail."""
    for node in ast.walk(tree):
        names = {getattr(handler.type, "id", "") for handler in getattr(node, "handlers", [])}
        if isinstance(node, ast.Try) and {"ImportError", "ModuleNotFoundError"} & names:
            yield from (one for one in node.body if isinstance(one, ast.Import))


def test_modules_of_posix_alone_may_be_missing():
    n = 0
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        allowed = {id(node) for node in guarded(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import) and POSIX & {alias.name for alias in node.names}:
                assert id(node) in allowed, f"{path}:{node.lineno}"
                n += 1
    assert n == 3, "of which each is asked for"


@pytest.mark.skipif(sys.platform != "linux", reason="takes away what Linux has")
def test_commands_work_without_them(tmp_path):
    script = Path(__file__).with_name("elsewhere.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT.parent)}
    said = subprocess.run([sys.executable, script, tmp_path], env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    codes = [code for code, _ in found["ends"]]
    assert codes == [0, 5, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0], found
    assert all(err.startswith("trajdesign: ") and err.count("\n") == 1 for code, err in found["ends"] if code), found
    assert found["ends"][2][1] == "trajdesign: run is finished; nothing is left to train.\n"
    assert found["left"] == []
