import ast
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import trajdesign
from trajdesign.errors import OutputError, ResourceError
from trajdesign.files.atomic import atomic_path


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "er" / "result.json"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".json"
        assert temporary.parent == path.parent, "a rename across file systems is not atomic"
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_replaced_only_when_allowed(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(OutputError, match="--force") as caught, atomic_path(path, overwrite=False):
        pass
    assert caught.value.exit_code == 5
    assert path.read_text() == "old"
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_folder_that_cannot_be_is_a_resource_error(tmp_path):
    blocker = tmp_path / "file"
    blocker.touch()
    for path in (blocker / "result.json", tmp_path / ("x" * 300) / "result.json"):
        with pytest.raises(ResourceError, match="cannot write") as caught, atomic_path(path):
            pass
        assert caught.value.exit_code == 6


def test_a_folder_in_the_way_is_a_resource_error(tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(ResourceError, match="cannot write"), atomic_path(tmp_path / "result.json") as temporary:
        temporary.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_others_may_read_it_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        with atomic_path(tmp_path / "result.json") as temporary:
            temporary.write_text("{}")
        assert stat.S_IMODE((tmp_path / "result.json").stat().st_mode) == 0o644
        os.umask(0o077)
        with atomic_path(tmp_path / "private.json") as temporary:
            temporary.write_text("{}")
        assert stat.S_IMODE((tmp_path / "private.json").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    code = (
        "import sys, time; from trajdesign.files.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t:\n"
        "    with t.open('w') as stream:\n"
        "        stream.write('half'); stream.flush(); print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.05)
        process.kill()
    assert path.read_text() == "old"


def test_text_is_written_with_lf_on_every_system():
    # only Windows would show it: who writes text says how its lines end
    calls = [
        (path.name, node)
        for path in Path(trajdesign.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    texts = []
    for name, call in calls:
        words = [
            word.value for word in (*call.args, *(k.value for k in call.keywords)) if isinstance(word, ast.Constant)
        ]
        is_opened = call.func.attr in ("open", "fdopen") and any(word in ("w", "a", "x", "wt") for word in words)
        if is_opened or (call.func.attr == "write_text" and ast.unparse(call.func.value) != "atomic"):
            texts.append((name, [k.value.value for k in call.keywords if k.arg == "newline"]))
    assert len(texts) > 9
    assert {name for name, newline in texts if newline != ["\n"]} == set()
