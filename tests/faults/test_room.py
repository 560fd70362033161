"""Every command that writes, where a file cannot become as long as it should."""

import resource
import shutil
from contextlib import contextmanager

import pytest
from faults.test_surroundings import called
from faults.tiny import TINY, tiny

from trajdesign.config import plugins
from trajdesign.errors import ResourceError
from trajdesign.exporting.network import export_network
from trajdesign.learning.optimize import optimize

SETTINGS = [word for setting in TINY for word in ("--set", setting)]
SHORT = ["--set", "training.epochs=1", "--set", "training.validations=1", "--device", "cpu", "--quiet", "--no-baseline"]
STUDY = """
[base]
acquisition = {matrix = [32, 32], n_samples = 128, dwell = 8e-6, n_shots = 4}
data = {n_train = 2, n_val = 1, n_test = 1, n_coils = 1}
training = {epochs = 1, batch_size = 1, validations = 1}
reconstructor = {channels = 4, levels = 1}
"""


@contextmanager
def room(n_bytes):
    """Let no file grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a folder with a finished run, and what was exported of it."""
    folder = tmp_path_factory.mktemp("room")
    optimize(tiny("training.epochs=1", "training.validations=1"), folder / "run", device="cpu", baseline=False)
    assert called("export", folder / "run", "--out", folder / "run.seq")[0] == 0
    return folder


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commands():
    """Yield the words of each command that writes a file, by what it writes."""
    for kind in plugins.names("exporter"):
        out = f"out{plugins.find('exporter', kind).ending}"
        yield f"export {kind}", ["export", "run", "--format", kind, "--out", out]
    yield "scan", ["scan", "run.seq", "--reconstruct", "run", "--out", "scan"]
    for ending in ("html", "pdf"):
        yield f"report {ending}", ["report", "run", "--out", f"report.{ending}"]
    for ending in ("png", "svg", "pdf"):
        yield f"psf {ending}", ["psf", "run", "--out", f"psf.{ending}"]
    yield "compare", ["compare", "run", "--out", "runs.png"]
    yield "config init", ["config", "init", "--out", "config.toml"]
    yield "config schema", ["config", "schema", "--out", "schema.json"]
    yield "optimize", ["optimize", "--out", "new", *SETTINGS, *SHORT]
    yield "tensorboard", ["optimize", "--out", "logged", *SETTINGS, *SHORT, "--log", "tensorboard"]


@pytest.mark.parametrize(("name", "words"), [pytest.param(*case, id=case[0]) for case in commands()])
def test_no_room_is_one_sentence_and_leaves_nothing(run, tmp_path, monkeypatch, name, words):
    """Room for all but the last byte of each file that it writes, and for next to nothing."""
    folder = shutil.copytree(run, tmp_path / "here")
    before = files(folder)
    monkeypatch.chdir(folder)
    assert called(*words)[::2] == (0, "")
    written = sorted(len(content) for path, content in files(folder).items() if path not in before)
    trains = words[0] == "optimize"
    for n_bytes in (100, written[-1] - 1) if trains else {100, *(n - 1 for n in written if n > 100)}:
        shutil.rmtree(folder)
        shutil.copytree(run, folder)
        monkeypatch.chdir(folder)
        with room(n_bytes):
            code, out, err = called(*words)
        assert (code, out.getvalue(), "Traceback" in err) == (6, "", False), err
        assert trains or len(err.splitlines()) == 1
        left = files(folder)
        assert not [path for path in left if path.name.startswith((".tmp-", ".lock"))]
        assert trains or left == before


def test_a_network_without_room_is_a_resource_error(run, tmp_path):
    with room(1000), pytest.raises(ResourceError, match=r"cannot write .*a\.pt2: File too large"):
        export_network(run / "run", tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_bytes", [100, 300, 2000, 10_000])
def test_a_study_without_room_says_so(tmp_path, n_bytes):
    (tmp_path / "study.toml").write_text(STUDY)
    with room(n_bytes):
        code, _, err = called("study", tmp_path / "study.toml", "--out", tmp_path / "out", "--device", "cpu", "--quiet")
    assert (code, "Traceback" in err, "File too large" in err) == (6, False, True), err
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_a_doctor_without_room_does_not_say_that_it_is_our_bug():
    with room(100):
        code, out, err = called("doctor")
    assert (code, err) == (6, "")
    assert "File too large" in out.getvalue()
    assert "report it" not in out.getvalue()
