"""Commands in odd surroundings: streams, terminals, folders, names, devices, no network."""

import io
import json
import os
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from faults.tiny import TINY

from trajdesign.acquisition import Acquisition
from trajdesign.cli import app
from trajdesign.pulseq.reader import player
from trajdesign.runtime import processes
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.spiral import spiral

SETTINGS = [word for setting in TINY for word in ("--set", setting)]
NAMES = ["a b", "ü 脳", "new\nline", "-dash", "$HOME;`x`'\"", "x" * 250, "<script>",
         "tab\there", "\x1b[31mred", os.fsdecode(b"not\xffutf8"), "a.b.c", "[bold]", "%s {0}", "CON", "~"]  # fmt: skip


def called(*words, out=None):
    """Return the exit status of a command inside this process, and what it prints."""
    before, out, err = sys.argv, out or io.StringIO(), io.StringIO()
    sys.argv = ["trajdesign", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            app.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    return code, out, err.getvalue()


def process(*words, **options):
    """Run a command in a process of its own."""
    command = [sys.executable, *options.pop("python", ()), "-m", "trajdesign", *map(str, words)]
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(command, env=environment, capture_output=True, **options)


def example(name="spiral"):
    trajectory = spiral(Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner())
    return trajectory.with_points(0.95 * trajectory.points, name)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "k.npz"
    example().save(path)
    return path


# --- streams ---


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch, and needs /dev/full")
def test_streams_that_are_closed_full_or_not_read(file, tmp_path):
    script = Path(__file__).with_name("streams.py")
    command = [sys.executable, str(script), str(file), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # one thread, which a fork does not lose
    found = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(found) == 4 * 9
    for name, (code, said) in found.items():
        command, case = name.split(", ")
        wanted = {"unread": 141, "both unread": 141, "full": 6}.get(case, 0)
        assert code == (3 if command == "wrong" else wanted), name
        is_heard = case in ("unread", "full", "no output", "no input")
        sentences = {3: "does not exist", 6: "cannot write standard output: No space left on device."}
        assert said.count("\n") == (code in sentences and is_heard), name
        assert not is_heard or sentences.get(code, "") in said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_output_that_lacks_letters_gets_escapes(tmp_path, encoding):
    path = tmp_path / "ü 脳.npz"
    example("Größe 脳").save(path)
    for words in (("check", path), ("check", path, "--json"), ("--help",), ("config", "init"), ("optimize", "-h")):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        code, _, err = called(*words, out=out)
        assert (code, err) == (0, "")
        text = out.buffer.getvalue().decode(encoding)
        if "--json" in words:
            assert json.loads(text)["path"] == str(path)
        elif words[0] == "check":
            assert ("Größe" if encoding != "ascii" else "Gr\\xf6\\xdfe") in text
            assert ("脳" if encoding == "utf-8" else "\\u8133") in text


@pytest.mark.parametrize("width", ["1", "20", "80", "1000", "0", "wide"])
def test_terminals_of_any_width(file, monkeypatch, width):
    for color in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", color)
        monkeypatch.setenv("COLUMNS", width)
        for words in (("check", file), ("--help",)):
            code, out, err = called(*words)
            assert (code, err) == (0, "")
            assert out.getvalue()


@pytest.mark.parametrize(
    "words", [("check",), ("--help",), ("optimize", "--help"), ("config", "show"), ("config", "init")]
)
def test_what_is_no_terminal_gets_no_codes(file, words):
    code, out, _ = called(*words, *([file] if words == ("check",) else []))
    assert code == 0
    assert "\x1b" not in out.getvalue()


# --- the machine ---


@pytest.mark.skipif(sys.platform == "win32", reason="these surroundings are those of POSIX")
def test_everything_odd_at_once(file, tmp_path):
    """No home, no display, no locale, a dumb terminal, an output of ASCII alone, files for nobody else."""
    script = "import os; os.umask(0o077); from trajdesign.cli.app import main; main()"
    odd = {
        "HOME": "/dev/null/none", "XDG_CACHE_HOME": "/dev/null/none", "XDG_CONFIG_HOME": "/dev/null/none",
        "TERM": "dumb", "LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii", "DISPLAY": "", "WAYLAND_DISPLAY": "",
        "COLUMNS": "7", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "MPLBACKEND": "tkagg", "TMPDIR": str(tmp_path),
    }  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "MPLCONFIGDIR"} | odd
    command = [sys.executable, "-c", script, "psf", file, "--out", tmp_path / "psf.png"]
    said = subprocess.run(command, env=environment, capture_output=True, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert b"Traceback" not in said.stderr
    assert len(said.stderr.splitlines()) <= 5
    assert b"\x1b" not in said.stdout
    assert b"FWHM" in said.stdout
    assert (tmp_path / "psf.png").stat().st_mode & 0o777 == 0o600


def test_warnings_as_errors_and_no_asserts():
    for options in (["-W", "error"], ["-O"]):
        said = process("--version", python=options)
        assert (said.returncode, said.stderr) == (0, b""), options


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from trajdesign.cli.app import main; sys.argv = ['trajdesign', *{words!r}]\n"
        "try: main()\n"
        "finally: sys.stderr.write(' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    )
    heavy = {"torch", "numpy", "scipy", "matplotlib", "pypulseq", "finufft", "h5py", "jinja2", "clarabel"}
    for words in (["--help"], ["optimize", "--help"], ["--version"]):
        said = subprocess.run([sys.executable, "-c", code.format(words=words)], capture_output=True, text=True)
        assert said.returncode == 0
        assert not heavy & set(said.stderr.split())


# --- names ---


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_of_files_and_trajectories(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file = f"./{name}.npz"
    example("other" if "\udcff" in name else name).save(file)  # numpy's strings are Unicode
    code, out, err = called("check", file)
    assert (code, err) == (0, "")
    assert {c for c in out.getvalue() if not c.isprintable()} == {"\n"}
    code, out, err = called("export", file, "--format", "csv", "--out", f"./{name}.csv")
    assert (code, err) == (0, "")
    if name in ("ü 脳", "\x1b[31mred", "x" * 250):
        assert called("psf", file, "--out", f"./{name}.png")[::2] == (0, "")
    assert {path.stem for path in tmp_path.iterdir()} == {name}
    assert called("export", file, "--format", "csv", "--out", f"./{name}.csv")[0] == 5
    assert json.loads(called("check", file, "--json")[1].getvalue())["ok"] is True


def test_a_name_with_a_dash_needs_its_folder_or_two_dashes(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-k.npz").write_bytes(file.read_bytes())
    assert called("check", "--", "-k.npz")[0] == 0
    assert called("check", "./-k.npz")[0] == 0
    assert called("check", "-k.npz")[0] == 2


def test_a_name_does_not_write_the_sequence(tmp_path):
    """What is written into a .seq file by way of a name is no definition, block or comment of its own."""
    evil = "a\n[DEFINITIONS]\nMaxGrad 1\n[BLOCKS]\n1 1 0 0 0 0 0 0\r# x\x00\x1b[2Jü"
    for label, name in (("evil", evil), ("good", "good")):
        example(name).save(tmp_path / f"{label}.npz")
        code, _, err = called("export", tmp_path / f"{label}.npz", "--out", tmp_path / f"{label}.seq")
        assert (code, err) == (0, "")
    found, wanted = (player.read(tmp_path / f"{label}.seq") for label in ("evil", "good"))
    assert set(found.definitions) == set(wanted.definitions)
    assert {k for k in wanted.definitions if found.definitions[k] != wanted.definitions[k]} == {"Name"}
    texts = [(tmp_path / f"{label}.seq").read_bytes() for label in ("evil", "good")]
    assert texts[0].count(b"\n") == texts[1].count(b"\n")
    assert all(byte == 10 or 32 <= byte < 127 for byte in texts[0])


# --- devices ---


@pytest.mark.parametrize(
    "name",
    ["cuda:9", "cuda:-1", "mps", "meta", "xpu", "hpu", "vulkan", "gpu", "CUDA", "cpu:x", "", " ", "cpu\n", "0", "é"],
)
def test_devices_that_are_not_here_are_refused_with_those_that_are(tmp_path, name):
    code, out, err = called("optimize", "--out", tmp_path / "run", *SETTINGS, f"--device={name}")
    assert (code, out.getvalue()) == (6, "")
    assert err.endswith(f"found: {', '.join(map(str, processes.found()))}.\n")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_no_cuda(tmp_path):
    for words in (("--device", "cuda"), ("--device", "cuda:0"), ("--device", "cuda", "--devices", "2")):
        code, _, err = called("optimize", "--out", tmp_path / "run", *SETTINGS, *words)
        assert (code, "found: cpu." in err) == (6, True)


@pytest.mark.parametrize("name", ["bf16", "float16", "float64", "half", "", "complex64"])
def test_other_precisions(tmp_path, name):
    code, _, err = called("optimize", "--out", tmp_path / "run", *SETTINGS, "--device", "cpu", f"--precision={name}")
    assert (code, "training.precision" in err) == (2, True)


# --- the network, and other users ---


def test_nothing_is_asked_of_the_network_nor_shown_to_others(tmp_path, monkeypatch):
    asked = []

    def refuse(*words, **_):
        asked.append(words)
        raise OSError("no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse, raising=False)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    run = tmp_path / "run"
    words = (
        "--set",
        "training.epochs=1",
        "--set",
        "training.validations=1",
        "--device",
        "cpu",
        "--quiet",
        "--no-baseline",
    )
    before = os.umask(0o077)
    try:
        for command in (
            ("optimize", "--out", run, *SETTINGS, *words),
            ("check", run),
            ("export", run, "--out", tmp_path / "a.seq"),
            ("check", tmp_path / "a.seq"),
            ("scan", tmp_path / "a.seq", "--reconstruct", run, "--out", tmp_path / "scan"),
            ("psf", run, "--out", tmp_path / "psf.png"),
            ("compare", run),
            ("config", "schema", "--out", tmp_path / "schema.json"),
        ):
            code, _, err = called(*command)
            assert code == 0, err
    finally:
        os.umask(before)
    assert asked == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
