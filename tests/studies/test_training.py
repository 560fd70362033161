"""Cells are trained into ordinary run folders, kept when finished, shared among processes, and fail alone."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_study
import torch

from trajdesign.errors import (
    ConfigError,
    DivergedError,
    InputError,
    LimitError,
    OutputError,
    ResourceError,
    TrajdesignError,
)
from trajdesign.interfaces import Reconstructor
from trajdesign.learning.optimize import optimize
from trajdesign.runtime import processes
from trajdesign.studies import study, training

SETTINGS = (
    "training.epochs=2",
    "training.batch_size=1",
    "training.validations=2",
    "training.trajectory_rate=0.02",
    "parameterization.n_control=12",
)
TINY = tiny_study.base(*SETTINGS)
NAMES = ["radial-04-fixed-unet-s0", "wound-04-fixed-unet-s0", "radial-04-neural_ode-unet-s0"]
WOUND = "[classic.wound]\ninit = {kind = 'spiral'}\n"


@pytest.fixture
def load(tmp_path):
    def write(text):
        (tmp_path / "study.toml").write_text(text)
        return study.load(tmp_path / "study.toml")

    return write


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study that is trained, its folder, and what was reported."""
    path = tmp_path_factory.mktemp("study")
    (path / "study.toml").write_text(TINY + WOUND)
    asked, reported = study.load(path / "study.toml"), []
    training.train(asked, path / "out", device="cpu", report=lambda *seen: reported.append(seen))
    return asked, path / "out", reported


def contents(folder):
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def scores(trained, out):
    found = {cell.name: training.outcome(cell, out).results for cell in trained}
    return {name: results.last.psnr_list for name, results in found.items()}


# --- what is trained ---


def test_every_cell_is_the_run_that_its_config_asks_for(done, tmp_path):
    asked, out, reported = done
    assert [cell.name for cell, _ in reported] == NAMES
    assert all(outcome.status == "finished" for _, outcome in reported)
    assert {p.name for p in (out / "cells").iterdir()} == set(NAMES)
    assert (out / "study.toml").read_text() == asked.text
    for cell in asked.cells:
        folder = training.folder(cell, out)
        assert {p.name for p in folder.path.iterdir()} == {
            "config.toml",
            "history.csv",
            "initial.npz",
            "metrics.json",
            "network.safetensors",
            "trajectory.npz",
        }
        assert folder.config() == cell.config
        stage = "fixed" if cell.is_fixed else "learned"
        assert set(folder.results().tables()) == {"name", stage, "limits", "files"}
        moved = not torch.equal(folder.trajectory().points, folder.trajectory("initial").points)
        assert moved is not cell.is_fixed
        with (folder.path / "history.csv").open() as stream:
            assert [(row["stage"], row["step"]) for row in csv.DictReader(stream)] == [(stage, "2"), (stage, "4")]
    # both together, as a single run trains them
    alone = optimize(asked.cells[-1].config, tmp_path / "run", device="cpu")
    trained = scores(asked.cells, out)
    assert alone.stages["fixed"].psnr_list == trained[NAMES[0]]
    assert alone.stages["learned"].psnr_list == trained[NAMES[2]]


def test_two_processes_train_what_one_does(done, tmp_path):
    asked, out, _ = done
    reported, two = [], tmp_path / "out"
    training.train(asked, two, jobs=2, share="1/2", device="cpu", report=lambda cell, _: reported.append(cell.name))
    assert sorted(reported) == sorted(NAMES[::2])
    for name, alone in scores(asked.cells[::2], out).items():
        # each of the two has half of the cores, and the number of threads changes the rounding
        assert scores(asked.cells[::2], two)[name] == pytest.approx(alone, abs=0.01)


def test_shares_cover_every_cell_once(done, tmp_path):
    asked, out, _ = done
    for n in (1, 2, 3, 5):
        shares = [training.of_share(asked, f"{i}/{n}") for i in range(1, n + 1)]
        assert sorted(cell.name for share in shares for cell in share) == sorted(NAMES)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    training.train(asked, tmp_path / "out", share="2/3", device="cpu")
    statuses = [training.outcome(cell, tmp_path / "out").status for cell in asked.cells]
    assert statuses == ["missing", "finished", "missing"]
    training.train(asked, tmp_path / "out", share="1/3", device="cpu")
    training.train(asked, tmp_path / "out", share="3/3", device="cpu")
    assert scores(asked.cells, tmp_path / "out") == scores(asked.cells, out)
    with pytest.raises(OutputError, match="--resume"):
        training.train(asked, tmp_path / "out", share="3/3", device="cpu")


# --- going on ---


def test_what_is_finished_is_kept_and_the_rest_is_done_again(done, tmp_path):
    asked, out, _ = done
    before = contents(out / "cells")
    reported = []
    training.train(asked, out, resume=True, device="cpu", report=lambda cell, _: reported.append(cell.name))
    assert reported == NAMES
    assert contents(out / "cells") == before
    lost = out / "cells" / NAMES[0]
    before_it = scores(asked.cells, out)
    (lost / "metrics.json").unlink()
    assert training.outcome(asked.cells[0], out).status == "missing"
    training.train(asked, out, resume=True, device="cpu")
    after = contents(out / "cells")
    assert {path.parts[0] for path in before if after[path] != before[path]} == {NAMES[0]}
    assert scores(asked.cells, out) == before_it


def test_a_share_is_trained_by_one_process_and_others_beside_it(load, tmp_path):
    asked, out, seen = load(TINY + WOUND), tmp_path / "out", []

    def meanwhile(cell, _):
        if seen:
            return
        seen.append(cell.name)
        before = contents(out)
        for share in ("1/1", "1/2", "1/4", "3/4", "2/3"):  # 3/6 and 2/3 have no cell here in common, by their numbers
            with pytest.raises(OutputError, match=f"written by process {os.getpid()} on") as caught:
                training.train(asked, out, share=share, resume=True, device="cpu")
            assert caught.value.exit_code == 5
        assert contents(out) == before
        training.train(
            asked, out, share="2/2", resume=True, device="cpu", report=lambda cell, _: seen.append(cell.name)
        )

    training.train(asked, out, share="1/2", device="cpu", report=meanwhile)
    assert seen == [asked.cells[0].name, asked.cells[1].name]
    assert [training.outcome(cell, out).status for cell in asked.cells] == ["finished"] * 3
    assert not list(out.rglob(".*"))


def test_of_two_studies_at_once_one_goes_on(load, tmp_path):
    load(TINY)
    command = [
        sys.executable,
        "-m",
        "trajdesign",
        "study",
        str(tmp_path / "study.toml"),
        "--out",
        str(tmp_path / "out"),
    ]
    words = {"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    command += ["--cell", "1/2", "--device", "cpu", "--quiet"]  # without the figures of all
    both = [subprocess.Popen(command, text=True, **words) for _ in range(2)]
    said = [process.communicate(timeout=200)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 5]
    lost = next(text for process, text in zip(both, said, strict=True) if process.returncode)
    assert lost.startswith("trajdesign: ")
    assert len(lost.splitlines()) == 1
    assert not list(tmp_path.rglob("failure.json"))


def test_a_cell_that_another_one_trains_is_not_said_to_have_failed(load, tmp_path, monkeypatch):
    asked, out = load(TINY), tmp_path / "out"

    def take(*_, **__):
        raise OutputError("it is being written by another one.")

    monkeypatch.setattr(training, "optimize", take)
    with pytest.raises(OutputError, match="by another one"):
        training.train(asked, out, device="cpu")
    assert not list(out.rglob("failure.json"))


@pytest.mark.parametrize("content", ["", "[]", "{}", "x", "[" * 10**5])
def test_a_failure_that_says_nothing_is_an_input_error(load, tmp_path, content):
    asked = load(TINY)
    path = training.folder(asked.cells[0], tmp_path).path
    path.mkdir(parents=True)
    (path / "failure.json").write_text(content)
    with pytest.raises(InputError, match=r"failure\.json is damaged"):
        training.outcome(asked.cells[0], tmp_path)


def test_a_cell_that_was_interrupted_goes_on_from_where_it_was(done, tmp_path, monkeypatch):
    asked, out, _ = done
    seen = []

    def spy(config, path, **options):
        def report(p):
            seen.append(p.step)
            if seen == [1, 2, 3]:
                signal.raise_signal(signal.SIGTERM)

        return optimize(config, path, **options, report=report)

    monkeypatch.setattr(training, "optimize", spy)
    with pytest.raises(SystemExit) as end:
        training.train(asked, tmp_path / "out", share="3/3", device="cpu")
    assert end.value.code == 143
    assert training.outcome(asked.cells[2], tmp_path / "out").status == "missing"
    training.train(asked, tmp_path / "out", share="3/3", resume=True, device="cpu")
    assert seen == [1, 2, 3, 4]
    assert scores(asked.cells[2:], tmp_path / "out") == scores(asked.cells[2:], out)


def test_a_study_that_is_there_is_not_replaced(done, tmp_path):
    asked, out, _ = done
    before = contents(out)
    with pytest.raises(OutputError, match="--resume") as caught:
        training.train(asked, out, device="cpu")
    assert caught.value.exit_code == 5
    assert contents(out) == before
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        training.train(asked, tmp_path / "file", device="cpu", resume=True)


def test_a_finished_cell_of_another_config_is_neither_kept_nor_replaced(done, load):
    _, out, _ = done
    before = contents(out)
    other = load(tiny_study.base(*SETTINGS, "training.epochs=3") + WOUND)
    with pytest.raises(OutputError, match=r"training\.epochs is 2, not 3") as caught:
        training.train(other, out, resume=True, device="cpu")
    assert NAMES[0] in str(caught.value)
    assert contents(out) == before
    two = load(tiny_study.base(*SETTINGS, "training.epochs=3", "training.noise=0.1") + WOUND)
    with pytest.raises(OutputError, match=r"and 1 more"):
        training.train(two, out, resume=True, device="cpu")
    # further cells are no other config
    more = load(TINY + WOUND + "[grid]\nseed = [0, 1]\n")
    assert set(NAMES) < {cell.name for cell in more.cells}
    training.train(more, out, share="99/99", resume=True, device="cpu")


# --- what cannot be trained ---


class NotANumber(Reconstructor):
    """Its images are none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, images, encoding):
        return images.abs().sum(1, keepdim=True) * self.weight * math.nan


class Faulty(Reconstructor):
    """Has a bug, in two lines."""

    def forward(self, images, encoding):
        raise ValueError("not this\nway")


class Greedy(NotANumber):
    """Finds no memory."""

    def forward(self, images, encoding):
        raise MemoryError


class Killed(Reconstructor):
    """Ends its process."""

    def forward(self, images, encoding):
        os.kill(os.getpid(), signal.SIGKILL)


def failing(name):
    plugin = f"{__name__}:{name}"
    grid = f"[grid]\nreconstructor = ['{plugin}', 'adjoint']\n"
    return tiny_study.base(*SETTINGS, but=["reconstructor"]) + grid


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [("NotANumber", DivergedError, "no finite loss"), ("Greedy", ResourceError, "out of memory")],
)
def test_a_cell_that_fails_does_not_stop_the_others(load, tmp_path, name, kind, words):
    asked = load(failing(name))
    reported = []
    training.train(asked, tmp_path / "out", device="cpu", report=lambda *seen: reported.append(seen))
    assert [cell for cell, _ in reported] == asked.cells
    statuses = [outcome.status for _, outcome in reported]
    assert statuses == ["failed", "finished", "failed", "finished"]
    assert words in reported[0][1].sentence
    assert reported[0][1].exit_code == kind.exit_code
    with pytest.raises(kind, match=words) as caught:
        training.require(asked.cells, tmp_path / "out")
    assert str(caught.value).startswith(f"cell {asked.cells[0].name}: ")
    training.require(asked.cells[1::2], tmp_path / "out")


def test_a_bug_in_a_cell_keeps_its_traceback_and_does_not_stop_the_others(load, tmp_path, capsys):
    asked = load(failing("Faulty"))
    training.train(asked, tmp_path / "out", device="cpu")
    statuses = [training.outcome(cell, tmp_path / "out").status for cell in asked.cells]
    assert statuses == ["failed", "finished", "failed", "finished"]
    assert "Traceback" in capsys.readouterr().err
    with pytest.raises(TrajdesignError, match=r"ValueError: not this$") as caught:
        training.require(asked.cells, tmp_path / "out")
    assert caught.value.exit_code == 1


def test_a_process_that_is_killed_is_a_cell_that_failed(load, tmp_path):
    asked = load(failing("Killed"))
    training.train(asked, tmp_path / "out", jobs=2, share="1/4", device="cpu")
    with pytest.raises(ResourceError, match="SIGKILL") as caught:
        training.require(asked.cells, tmp_path / "out")
    assert caught.value.exit_code == 6


def test_a_classical_pattern_that_cannot_be_played_is_skipped_and_one_of_the_grid_fails(load, tmp_path):
    short = "init = {kind = 'spiral'}\nacquisition = {n_samples = 16}\n"
    asked = load(
        f"{TINY}[grid]\npattern = ['radial', 'brief']\n[choice.pattern.brief]\n{short}[classic.wound]\n{short}"
    )
    training.train(asked, tmp_path / "out", device="cpu")
    found = {cell.name: training.outcome(cell, tmp_path / "out") for cell in asked.cells}
    assert {name: outcome.status for name, outcome in found.items()} == {
        "radial-04-fixed-unet-s0": "finished",
        "brief-04-fixed-unet-s0": "failed",
        "wound-04-fixed-unet-s0": "skipped",
        "radial-04-neural_ode-unet-s0": "finished",
        "brief-04-neural_ode-unet-s0": "failed",
    }
    assert "spiral" in found["wound-04-fixed-unet-s0"].sentence
    with pytest.raises(LimitError) as caught:
        training.require(asked.cells, tmp_path / "out")
    assert caught.value.exit_code == 4
    # what failed is tried again, what was skipped is not
    skipped, failed = (tmp_path / "out" / "cells" / f"{name}-04-fixed-unet-s0" for name in ("wound", "brief"))
    before = contents(skipped), contents(failed)
    training.train(asked, tmp_path / "out", resume=True, device="cpu")
    assert contents(skipped) == before[0]
    assert contents(failed) != before[1]


def test_wrong_words_end_before_anything_is_written(done, tmp_path, monkeypatch):
    asked = done[0]
    for share in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"):
        with pytest.raises(ConfigError, match="no share"):
            training.train(asked, tmp_path / "out", share=share, device="cpu")
    with pytest.raises(ConfigError, match="jobs"):
        training.train(asked, tmp_path / "out", jobs=0, device="cpu")
    with pytest.raises(ResourceError, match="tpu"):
        training.train(asked, tmp_path / "out", device="tpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="torchrun"):
        training.train(asked, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_jobs_take_turns_on_the_gpus(monkeypatch):
    monkeypatch.setattr(processes, "torch_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert training._devices("cuda", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert training._devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert training._devices("cpu", 2) == ["cpu", "cpu"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes where Linux shows them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_study_that_is_stopped_keeps_what_is_finished_and_leaves_no_process(load, tmp_path, number, code):
    slow = (
        "[grid]\nseed = [0, 1]\nreconstructor = ['adjoint']\n[choice.seed.1]\nseed = 1\ntraining = {epochs = 1000000}\n"
    )
    asked = load(tiny_study.base(*SETTINGS, "training.epochs=1", but=["reconstructor"]) + slow)
    out = tmp_path / "out"
    training.train(asked, out, share="1/4", device="cpu")
    first, second = (training.folder(cell, out).path for cell in asked.cells[:2])
    before = contents(first)
    options = ["--out", out, "--jobs", "2", "--cell", "2/4", "--resume", "--device", "cpu"]
    command = [sys.executable, "-m", "trajdesign", "study", tmp_path / "study.toml", *options]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    until(lambda: (second / "initial.npz").exists())
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert "Traceback" not in error
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert contents(first) == before
    assert training.outcome(asked.cells[1], out).status == "missing"


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_data_that_are_missing_are_named_before_any_cell_is_trained(load, tmp_path):
    text = tiny_study.base(*SETTINGS, but=["data.n_train", "data.n_val", "data.n_test"])
    text += "[grid]\nshots = [4, 8]\nset = ['here', 'none', 'spent']\n[choice.set.here]\ndata = {kind = 'phantom'}\n"
    text += f"[choice.set.none]\ndata = {{kind = 'images', train = ['{tmp_path}/none*.nii']}}\n"
    text += "[choice.set.spent]\ndata = {kind = 'phantom', n_test = 0}\n"
    asked = load(text)
    with pytest.raises(InputError) as caught:
        training.train(asked, tmp_path / "out", device="cpu")
    sentence = str(caught.value)
    assert sentence.startswith("8 of 12 cells have no data to train with: radial-04-fixed-unet-s0-none and 3 more: ")
    assert f"'{tmp_path}/none*.nii' names no file" in sentence
    assert "radial-04-fixed-unet-s0-spent and 3 more: n_test is 0" in sentence
    assert not (tmp_path / "out").exists()
