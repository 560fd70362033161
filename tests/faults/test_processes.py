"""Whole commands that are killed, told to end, or meet in one folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.tiny import settings, sums

from trajdesign.files import lock
from trajdesign.learning.checkpoint import read

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch")


QUICK = {"kills": 5, "signals": 2, "races": 5}
FULL = {"kills": 200, "signals": 50, "races": 20}


@pytest.fixture(scope="module", params=[QUICK, pytest.param(FULL, marks=pytest.mark.nightly)], ids=["quick", "full"])
def results(request, tmp_path_factory):
    """Return what came of each scenario, by the number of its cases."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # one thread, which a fork does not lose
    script = Path(__file__).with_name("forks.py")
    words = [f"{scenario}={n}" for scenario, n in request.param.items()]
    command = [sys.executable, str(script), str(tmp_path_factory.mktemp("forks")), *words]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found = json.loads(said)
    assert {name: len(found[name]) for name in found} == request.param | {"signals": 5 * request.param["signals"]}
    return found


@pytest.mark.timeout(7200)
def test_a_killed_run_loses_a_step_at_most_and_goes_on_to_the_same_end(results):
    for result in results["kills"]:
        assert result["lost"] in (0, 1), "of the steps that were reported"
    ends = [result for result in results["kills"] if "code" in result]
    assert ends
    for end in ends:
        assert (end["code"], end["same"], end["left"]) == (0, True, []), "no temporary file, lock or checkpoint stays"


@pytest.mark.timeout(7200)
def test_a_signal_keeps_the_step_in_progress_and_a_second_one_does_not_wait(results):
    codes = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 138, "twice": 130}
    for result in results["signals"]:
        assert result["code"] == codes[result["name"]], result
        assert result["seconds"] < 10
        assert "Traceback" not in result["said"]
        assert (result["temporary"], result["locked"]) == ([], False)
        lines = result["said"].splitlines()
        assert len(lines) == 2
        assert lines[1].startswith("  trajdesign optimize --out ")
        assert lines[1].endswith(" --resume")
        if "which is kept" in lines[0]:
            assert f"after step {result['step']} " in lines[0]
        else:
            # the second interrupt may come when the checkpoint is written and its name is not said yet
            assert result["step"] == 0 or result["name"] == "twice"


@pytest.mark.timeout(7200)
def test_of_two_that_start_together_one_wins_and_the_other_names_it(results):
    for result in results["races"]:
        for code, said in ((result["code"], result["said"]), (result["third"], result["third said"])):
            assert code == 5
            assert f"is being written by process {result['winner']} on {socket.gethostname()};" in said
            assert len(said.splitlines()) == 1
        assert result["winner's"] == 137
        assert result["seconds"] < 2, "of the third, which comes when the winner is at work"


def two_ranks(folder, *overrides, resume=False, meanwhile=None):
    """Run two ranks to their end, and do something once they have kept a checkpoint."""
    words = [w for o in settings("data.n_train=4", "training.epochs=100", *overrides) for w in ("--set", o)]
    command = [sys.executable, "-m", "trajdesign", "optimize", "--devices", "2", "--device", "cpu", "--no-baseline"]
    process = subprocess.Popen(
        [*command, *words, "--out", str(folder), *["--resume"] * resume],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while meanwhile and not list(folder.glob("checkpoints/*.ckpt")):
        assert time.monotonic() < end
        time.sleep(0.05)
    if meanwhile:
        meanwhile(process.pid)
    said = process.communicate(timeout=240)[1]
    return process.returncode, said


def newest(folder):
    """Return the steps that the newest checkpoint has behind it; it is whole, or this raises."""
    return read(sorted((folder / "checkpoints").iterdir())[-1])["training"]["done"]["step"]


@pytest.mark.nightly
def test_ranks_leave_after_the_same_step_and_go_on_together(tmp_path):
    code, said = two_ranks(tmp_path / "run", meanwhile=lambda pid: os.kill(pid, signal.SIGTERM))
    assert code == 143
    assert "Traceback" not in said
    step = newest(tmp_path / "run")
    assert f"after step {step} (learned), which is kept" in said
    assert step < 200
    code, said = two_ranks(tmp_path / "run", resume=True)
    assert code == 0
    assert f"after step {step} (learned)" in said
    assert two_ranks(tmp_path / "whole")[0] == 0
    assert sums(tmp_path / "run") == sums(tmp_path / "whole")


def rank(number, launcher):
    """Return the process of a rank that a launcher has started."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words = (path / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if parent == launcher and f"RANK={number}".encode() in words:
            return int(path.name)
    raise LookupError(f"no rank {number}")


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_rank_takes_the_other_along(number, tmp_path):
    for i in range(5):
        ranks, ended = [], []

        def kill(launcher, ranks=ranks, ended=ended):
            ranks += [rank(n, launcher) for n in (0, 1)]
            os.kill(ranks[number], signal.SIGKILL)
            ended.append(time.monotonic())

        code, said = two_ranks(tmp_path / str(i), meanwhile=kill)
        assert time.monotonic() - ended[0] < 40
        assert (code, said) == (6, f"trajdesign: rank {number} was ended by SIGKILL; was there enough memory?\n")
        assert not any(Path(f"/proc/{process}").exists() for process in ranks)
        assert 0 < newest(tmp_path / str(i)) < 200


def gone(processes, seconds=10):
    """Return whether processes end in time."""
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{process}").exists() for process in processes) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(Path(f"/proc/{process}").exists() for process in processes)


def test_ranks_end_with_a_launcher_that_is_killed(tmp_path):
    ranks = []

    def kill(launcher):
        ranks.extend(rank(n, launcher) for n in (0, 1))
        os.kill(launcher, signal.SIGKILL)

    code, said = two_ranks(tmp_path / "run", "training.epochs=9999", meanwhile=kill)
    assert (code, "Traceback" in said) == (-signal.SIGKILL, False)
    assert len(ranks) == 2
    assert gone(ranks)
    assert 0 < newest(tmp_path / "run") < 9999 * 2, "it is kept"
    lock.require_free(tmp_path / "run")
    assert not list((tmp_path / "run").glob("**/.tmp-*"))


def test_cells_end_with_a_study_that_is_killed(tmp_path):
    changes = dict(setting.split("=", 1) for setting in settings("training.epochs=9999"))
    lines = [f"base.{k} = {v}" for k, v in changes.items() if not k.startswith(("name", "parameterization"))]
    (tmp_path / "study.toml").write_text("\n".join(lines))
    command = [sys.executable, "-m", "trajdesign", "study", str(tmp_path / "study.toml"), "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--out", str(tmp_path / "out"), "--device", "cpu"], env=environment)
    end = time.monotonic() + 120
    while len(found := list(tmp_path.glob("out/cells/*/checkpoints"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    holders = [int((path.parent / ".lock").read_text().split()[1]) for path in found]
    process.kill()
    process.wait()
    assert gone(holders)
    for path in found:
        assert newest(path.parent) > 0
        lock.require_free(path.parent)


@pytest.mark.nightly
def test_a_step_that_is_no_number_on_one_rank_is_skipped_on_both(tmp_path):
    code, said = two_ranks(tmp_path / "run", "reconstructor.kind=faults.tiny:NoNumber", "training.epochs=3")
    assert (code, "Traceback" in said) == (0, False)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["learned"]["n_skipped"] == 1
