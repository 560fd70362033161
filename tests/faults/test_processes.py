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
from faults.tiny import TINY, sums

from trajdesign.checkpoint import read

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


@pytest.mark.nightly
def test_ranks_leave_after_the_same_step_and_go_on_together(tmp_path):
    words = [word for setting in [*TINY, "data.n_train=4"] for word in ("--set", setting)]
    command = [sys.executable, "-m", "trajdesign", "optimize", "--devices", "2", "--device", "cpu", "--no-baseline"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def train(folder, *more, stop=False):
        process = subprocess.Popen(
            [*command, *words, "--out", str(folder), "--set", "training.epochs=100", *more],
            env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        end = time.monotonic() + 120
        while stop and not list(folder.glob("checkpoints/*.ckpt")):
            assert time.monotonic() < end
            time.sleep(0.05)
        if stop:
            process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=240)[1]
        return process.returncode, said

    code, said = train(tmp_path / "run", stop=True)
    assert code == 143
    assert "Traceback" not in said
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    step = read(kept)["training"]["done"]["step"]
    assert f"after step {step} (learned), which is kept" in said
    assert step < 200
    code, said = train(tmp_path / "run", "--resume")
    assert code == 0
    assert f"after step {step} (learned)" in said
    assert train(tmp_path / "whole")[0] == 0
    assert sums(tmp_path / "run") == sums(tmp_path / "whole")
