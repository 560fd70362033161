"""What is in the place of a lock, or of a new file, in a folder that somebody else has made."""

import os
import shutil
import subprocess
import sys
import threading

import pytest
from faults.test_surroundings import example
from faults.tiny import tiny

from trajdesign.config.models import load_config
from trajdesign.errors import OutputError
from trajdesign.exporting.proof import export
from trajdesign.files import lock
from trajdesign.files.atomic import atomic_path
from trajdesign.interfaces import Progress
from trajdesign.learning.loggers.tensorboard import tensorboard
from trajdesign.learning.optimize import optimize
from trajdesign.reporting.report import draw, draw_study
from trajdesign.studies import study, training
from trajdesign.studies.tables import StudyTable
from trajdesign.trajectories.formats import pulseq

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and locks as POSIX has them")


def in_the_way(folder, victim):
    """Yield what may stand where the lock is to be, made in turn."""
    path = folder / ".lock"
    path.symlink_to(victim)
    yield path
    path.unlink()
    path.symlink_to(folder / "new")  # which would be made
    yield path
    path.unlink()
    path.symlink_to(path.name)
    yield path
    path.unlink()
    os.link(victim, path)
    yield path
    path.unlink()
    os.mkfifo(path)
    yield path
    path.unlink()
    path.write_text("process 1 on host\nand a text of mine\n")
    yield path
    path.unlink()
    path.mkdir()
    yield path


def test_what_is_no_lock_is_neither_written_nor_followed(tmp_path):
    folder, victim = tmp_path / "run", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("mine\n")
    n = 0
    for path in in_the_way(folder, victim):
        before = path.read_text() if path.is_file() else None
        for _ in range(2):
            with (
                pytest.raises(OutputError, match=r"run/\.lock is a link, or was not made") as caught,
                lock.one_writer(folder),
            ):
                pass
            assert caught.value.exit_code == 5
        assert (path.read_text() if path.is_file() else None) == before
        assert victim.read_text() == "mine\n"
        assert sorted(p.name for p in folder.iterdir()) == [".lock"]
        n += 1
    assert n == 7


def test_a_command_does_not_write_where_a_lock_leads(tmp_path):
    victim, run = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine\n")
    run.mkdir()
    (run / ".lock").symlink_to(victim)
    command = [sys.executable, "-m", "trajdesign", "optimize", "--out", str(run)]
    said = subprocess.run(command, capture_output=True, text=True)
    assert (said.returncode, len(said.stderr.splitlines())) == (5, 1)
    assert victim.read_text() == "mine\n"


def test_a_lock_that_was_left_is_taken_and_names_its_holder(tmp_path):
    path = tmp_path / ".lock"
    path.write_text("process 99999 on " + "far" * 10 + "\n")
    with lock.one_writer(tmp_path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
        assert path.read_text().count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def held_elsewhere(folder):
    """Return whether another process finds the lock held."""
    code = "import sys, pathlib; from trajdesign.files import lock; lock.require_free(pathlib.Path(sys.argv[1]))"
    said = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert "OutputError" in said.stderr or said.returncode == 0
    return said.returncode != 0


def test_a_second_writer_of_the_same_process_is_refused_and_frees_nothing(tmp_path):
    with lock.one_writer(tmp_path):
        for _ in range(2):
            with (
                pytest.raises(OutputError, match=f"is being written by process {os.getpid()} on"),
                lock.one_writer(tmp_path),
            ):
                pass
            with pytest.raises(OutputError, match="is being written"):
                lock.require_free(tmp_path)
            (tmp_path / ".lock").read_bytes()  # any close would free a lock of the process
            assert held_elsewhere(tmp_path)
    lock.require_free(tmp_path)
    assert not held_elsewhere(tmp_path)


def test_a_child_that_was_forked_does_not_hold_it_on(tmp_path):
    code = (
        "import os, sys, pathlib, time; from trajdesign.files import lock\n"
        "with lock.one_writer(pathlib.Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if not child: time.sleep(30); os._exit(0)\n"
        "    print(child, flush=True); time.sleep(30)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        try:
            with pytest.raises(OutputError, match=f"written by process {process.pid} on"):
                lock.require_free(tmp_path)
            process.kill()
            process.wait()
            os.kill(child, 0)  # it lives
            with lock.one_writer(tmp_path):
                pass
        finally:
            os.kill(child, 9)


# --- two that write one name ---


def test_of_many_that_make_one_file_exactly_one_does(tmp_path):
    path, won, lost, start = tmp_path / "a.seq", [], [], threading.Barrier(8)

    def write(number):
        try:
            with atomic_path(path, overwrite=False) as temporary:
                temporary.write_text(str(number))
                start.wait()
            won.append(number)
        except OutputError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_text()] == [str(number) for number in won]
    assert lost == [f"{path} exists already; pass --force to replace it."] * 7
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("has_links", [True, False])
def test_what_came_to_be_meanwhile_is_not_replaced(tmp_path, monkeypatch, has_links):
    """Also where a file cannot have two names, as on FAT."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.seq"

    def write_second():
        with atomic_path(path, overwrite=False) as temporary:
            temporary.write_text("second")
            path.write_text("first")

    with pytest.raises(OutputError, match="exists already"):
        write_second()
    assert path.read_text() == "first"
    path.unlink()
    with atomic_path(path, overwrite=False) as temporary:
        temporary.write_text("only")
    assert path.read_text() == "only"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_leads_elsewhere_is_taken_and_with_force_replaced_itself(tmp_path):
    path, victim = tmp_path / "a.seq", tmp_path / "victim"
    for is_there in (False, True):
        if is_there:
            victim.write_text("mine")
        path.symlink_to(victim)
        with pytest.raises(OutputError, match="exists already"), atomic_path(path, overwrite=False):
            pytest.fail("it is taken")
        with atomic_path(path) as temporary:
            temporary.write_text("new")
        assert (path.is_symlink(), path.read_text()) == (False, "new")
        assert victim.exists() == is_there
        path.unlink()
    assert victim.read_text() == "mine"


def test_of_two_exports_of_one_name_one_is_there_whole(tmp_path, monkeypatch):
    """The second begins when the first is about to appear, so that none was there when it began."""
    path, trajectory, lost = tmp_path / "a.seq", example(), []
    read = pulseq.Pulseq.read_back

    def meanwhile(*words):
        monkeypatch.setattr(pulseq.Pulseq, "read_back", read)
        export(trajectory, path)
        lost.append(sorted((p.name, p.read_bytes()) for p in tmp_path.glob("a*")))
        return read(*words)

    monkeypatch.setattr(pulseq.Pulseq, "read_back", meanwhile)
    with pytest.raises(OutputError, match="exists already"):
        export(trajectory.with_points(0.9 * trajectory.points), path)
    assert lost == [sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())]
    assert [name for name, _ in lost[0]] == ["a.seq", "a_k.npz"]


# --- the names of a run ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    optimize(tiny("training.epochs=1", "training.validations=1"), path, device="cpu", baseline=False)
    return path


def test_a_run_whose_files_are_links_is_replaced_and_not_what_they_lead_to(finished, tmp_path):
    path, victims = tmp_path / "run", tmp_path / "victims"
    path.mkdir()
    victims.mkdir()
    names = [p.name for p in finished.iterdir()] + ["start.npz", "network_fixed.safetensors", "report.html"]
    for name in names:
        (victims / name).write_text("mine")
        (path / name).symlink_to(victims / name)
    optimize(load_config(finished / "config.toml"), path, device="cpu", baseline=False, overwrite=True)
    draw(path)
    assert {p.read_text() for p in victims.iterdir()} == {"mine"}
    assert not [p for p in path.rglob("*") if p.is_symlink()]


def test_figures_are_not_drawn_where_a_link_leads(finished, tmp_path):
    path = shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (path / "figures").symlink_to(tmp_path / "other")
    with pytest.raises(OutputError, match="figures is a link"):
        draw(path)
    assert list((tmp_path / "other").iterdir()) == []
    (path / "figures").unlink()
    (path / "figures").touch()
    with pytest.raises(OutputError, match="figures is a file"):
        draw(path)


@pytest.mark.parametrize("name", ["tensorboard", "tensorboard/learned"])
def test_a_log_is_not_cleared_where_a_link_leads(tmp_path, name):
    other, run = tmp_path / "other", tmp_path / "run"
    (other / "learned").mkdir(parents=True)
    (other / "learned" / "mine").write_text("mine")
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(other)
    with tensorboard(run) as watch, pytest.raises(OutputError, match="is a link"):
        watch(Progress("learned", 1, 2, 0.5, float("nan")))
    assert [p for p in other.rglob("*") if p.is_file()] == [other / "learned" / "mine"]


@pytest.mark.parametrize("name", ["cells", "cells/radial-04-fixed-unet-s0", "figures"])
def test_cells_are_not_trained_where_a_link_leads(tmp_path, monkeypatch, name):
    (tmp_path / "study.toml").write_text("base.acquisition.n_shots = 4\n")
    asked, out, other = study.load(tmp_path / "study.toml"), tmp_path / "out", tmp_path / "other"
    other.mkdir()
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(other)
    monkeypatch.setattr(training, "optimize", lambda *_, **__: None)
    assert name.rpartition("/")[2] in {"cells", "figures", *(cell.name for cell in asked.cells)}
    with pytest.raises(OutputError, match=f"{name} is a link"):
        training.train(asked, out, resume=True, device="cpu")
    if name == "figures":
        with pytest.raises(OutputError, match=f"{name} is a link"):
            draw_study(StudyTable(asked, [], [], [], {}), out)
    assert list(other.iterdir()) == []
