"""Devices, ranks and readers: two ranks are one process, and however one of them ends, the run ends rightly."""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed import launcher
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.utils.data import Dataset

from trajdesign.errors import ConfigError, InputError, ResourceError
from trajdesign.runtime import processes
from trajdesign.runtime.prefetch import stream
from trajdesign.runtime.processes import Ranks, join, launch, local_device, torch_device

ROOT = Path(__file__).parents[2]

# Trains with each list of settings, as one of the ranks or alone, and writes what came of it.
SCRIPT = """
import json, pathlib, sys
import torch.distributed as dist
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.learning.evaluation import evaluate
from trajdesign.learning.optimize import datasets
from trajdesign.learning.training import Trainer
from trajdesign.runtime import processes

n_reductions, plain = 0, dist.all_reduce

def counted(*arguments, **options):
    global n_reductions
    n_reductions += 1
    return plain(*arguments, **options)

dist.all_reduce = counted
results = []
with processes.join("cpu") as ranks:
    for overrides in json.loads(sys.argv[2]):
        config = load_config(None, overrides)
        initial = plugins.build("init", config.init, config.acquisition, config.scanner)
        data, losses, before = datasets(config), [], n_reductions
        trained = Trainer(config, data, ranks, lambda p: losses.append(p.loss)).train(initial, "learned")
        n_a_training = n_reductions - before
        scores = evaluate(initial, trained.network, data["test"], config, ranks)
        results.append({"losses": losses, "reductions": n_a_training, "psnr": scores.psnr_list})
    if ranks.is_first:
        with open(sys.argv[1], "w") as file:
            json.dump({"size": ranks.size, "results": results}, file)
threads = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
pathlib.Path(f"{sys.argv[1]}.{ranks.rank}").write_text("\\n".join(threads))
"""
TINY = [
    "acquisition.matrix=[32,32]",
    "acquisition.n_shots=4",
    "acquisition.n_samples=128",
    "acquisition.dwell=8e-6",
    "data.n_train=8",
    "data.n_val=2",
    "data.n_test=5",
    "data.n_coils=2",
    "training.epochs=10",
    "training.batch_size=4",
    "training.validations=1",
    "reconstructor.channels=4",
    "reconstructor.levels=2",
]


@pytest.fixture
def environment(monkeypatch):
    """Set the variables that torchrun sets, or none of them."""

    def set_(**values):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    set_()
    return set_


# --- one process ---


def test_one_process_touches_nothing_of_torch_distributed(monkeypatch, environment):
    for name in ("all_reduce", "all_gather_object", "init_process_group", "destroy_process_group"):
        monkeypatch.delattr(torch.distributed, name)
    for world in ({}, {"RANK": 0, "WORLD_SIZE": 1}):
        environment(**world)
        with join("cpu") as ranks:
            assert ranks == Ranks(0, 1, torch.device("cpu"))
            assert ranks.is_first
            assert processes.is_first()
            weight = torch.ones(2, requires_grad=True)
            weight.grad = torch.tensor([1.0, 2.0])
            assert ranks.average(torch.tensor(3.0), [weight]) == 3
            assert weight.grad.tolist() == [1, 2]
            assert ranks.gather([1, 2]) == [1, 2]
            assert ranks.shard([1, 2]) == [1, 2]


@pytest.mark.parametrize(("size", "n"), [(1, 3), (2, 8), (3, 7), (4, 2), (5, 0)])
def test_shards_in_order_of_the_ranks_are_the_whole(size, n):
    whole = list(range(n))
    parts = [Ranks(rank, size).shard(whole) for rank in range(size)]
    assert list(itertools.chain(*parts)) == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    tensor = torch.arange(n)
    assert torch.equal(torch.cat([Ranks(rank, size).shard(tensor) for rank in range(size)]), tensor)


def test_a_batch_that_cannot_be_shared_is_refused():
    Ranks(size=2).require_shares(4)
    with pytest.raises(ConfigError, match="batch of 5 images cannot be shared evenly by 2 devices"):
        Ranks(size=2).require_shares(5)


def test_gpus_are_counted(monkeypatch):
    monkeypatch.setattr(processes, "torch_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [local_device("cuda", local, 2).index for local in (0, 1)] == [0, 1]
    assert local_device("cuda:1", 0, 1).index == 1
    assert local_device("cpu", 2, 3).type == "cpu"
    with pytest.raises(ResourceError, match="3 devices asked for, 2 GPUs are here"):
        local_device("cuda", 0, 3)
    with pytest.raises(ResourceError, match="is one GPU"):
        local_device("cuda:0", 0, 2)


def test_a_device_that_is_not_there_is_refused():
    for name in ("tpu", "cuda:99", "", "cpu:x"):
        with pytest.raises(ResourceError, match="found: cpu"):
            torch_device(name)


# --- several ranks ---


def test_two_ranks_are_one_process(tmp_path):
    slow = [*TINY, "training.network_rate=0.001"]  # so that rounding does not grow from step to step
    settings = [
        slow,
        [*slow, "training.noise=0.02", "training.slices_at_once=1", "limits.method=penalty"],
    ]
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = [str(tmp_path / "script.py"), str(tmp_path / "1.json"), json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], check=True, env=environment)
    arguments[1] = str(tmp_path / "2.json")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([sys.executable, *torchrun, *arguments], check=True, env=environment, timeout=120)
    one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
    assert (one["size"], two["size"]) == (1, 2)
    for rank in range(
        2
    ):  # what torch.distributed starts ends with the group, not with the process, which it could abort
        threads = (tmp_path / f"2.json.{rank}").read_text().splitlines()
        assert threads
        assert [name for name in threads if "gloo" in name] == []
    for alone, shared in zip(one["results"], two["results"], strict=True):
        assert len(shared["losses"]) == 20
        assert shared["losses"] == pytest.approx(alone["losses"], abs=1e-5, rel=0)
        assert (alone["reductions"], shared["reductions"]) == (0, 20), "one all-reduce a step"
        # the scores of all five images, in their order
        assert shared["psnr"] == pytest.approx(alone["psnr"], abs=0.02)


DAMAGED = """
import torch
from trajdesign.errors import InputError

class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        if index == 2:
            raise InputError("slice 2 is damaged.")
        return torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(index)).to(torch.complex64)

def data(acquisition, split):
    return Images()
"""


def test_an_error_of_one_rank_ends_all_with_its_sentence_and_code(tmp_path):
    (tmp_path / "damaged.py").write_text(DAMAGED)
    # each rank reads half of the only batch
    settings = [s for s in TINY if not s.startswith("data.")] + ["data.kind=damaged:data"]
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "trajdesign", "optimize", "--devices", "2", "--device", "cpu", *words]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert (result.returncode, result.stdout) == (3, "")
    # reading is announced where it takes long
    assert result.stderr.replace("trajdesign: Reading the images (data.kind = damaged:data) ...\n", "") == (
        "trajdesign: slice 2 is damaged.\n"
    )


def failure(rank, code):
    failed = ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="")
    failed.message = f"message of {rank}"
    return failed


@pytest.fixture
def ended(monkeypatch):
    """Run `launch` as if its ranks had ended in some way."""

    def run(error, said=()):
        def fake(config, program):
            assert program == sys.executable
            for rank, text in dict(said).items():
                folder = Path(config.logs_specs.root_log_dir) / "x" / "attempt_0" / str(rank)
                folder.mkdir(parents=True)
                (folder / "stderr.log").write_text(text)

            def call(*arguments):
                assert arguments == ("-m", "trajdesign")
                if error is not None:
                    raise error

            return call

        monkeypatch.setattr(launcher, "elastic_launch", fake)
        return launch(["-m", "trajdesign"], 3)

    return run


def test_the_exit_code_is_that_of_the_rank_that_failed_first(ended, capfd):
    def failed(**codes):
        return ChildFailedError("trajdesign", {int(r[1:]): failure(int(r[1:]), c) for r, c in codes.items()})

    assert ended(None) == 0
    said = {1: "trajdesign: one.\n", 2: "trajdesign: two.\n"}
    for codes, code, words in (
        ({"r0": 5}, 5, ""),
        ({"r0": 75, "r1": 3}, 3, said[1]),
        ({"r0": 75, "r1": -signal.SIGTERM, "r2": 7}, 7, said[2]),
        ({"r0": 4, "r1": 4, "r2": -signal.SIGTERM}, 4, ""),
        ({"r0": 130, "r1": 130}, 130, ""),
        ({"r0": -signal.SIGINT}, 130, ""),
        ({"r0": -signal.SIGTERM}, 143, ""),
    ):
        assert ended(failed(**codes), said) == code, codes
        assert capfd.readouterr().err == words, codes
    with pytest.raises(ResourceError, match="rank 1 was ended by SIGKILL"):
        ended(failed(r0=75, r1=-signal.SIGKILL), said)
    with pytest.raises(ResourceError, match="lost each other: message of 0"):
        ended(failed(r0=75, r1=75), said)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert ended(SignalException("stopped", number)) == 128 + number


def test_a_rank_that_loses_the_others_ends_without_a_word(monkeypatch, tmp_path):
    def lost(*_):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1.\nmore")

    monkeypatch.setattr(torch.distributed, "all_reduce", lost)
    monkeypatch.setattr(torch.distributed, "all_gather_object", lost)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    for call in (lambda: Ranks(0, 2).average(torch.zeros(()), []), lambda: Ranks(0, 2).gather([1])):
        with pytest.raises(SystemExit) as end:
            call()
        assert end.value.code == 75
        assert "Connection closed by peer" in (tmp_path / "error.json").read_text()
        (tmp_path / "error.json").unlink()


# --- readers ---


class Numbers(Dataset):
    def __init__(self, problem=None):
        self.problem = problem

    def __getitem__(self, index):
        if self.problem and index == 3:
            self.problem()
        return torch.full((1, 2, 2), float(index))


def damaged():
    raise InputError("3 is damaged.")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_same_for_any_number_of_workers(workers):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    indices = [[2, 1], [0, 4], [1, 1], [5]]
    batches = list(stream(Numbers(), indices, workers=workers))
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == indices
    assert batches[0].shape == (2, 1, 2, 2)
    assert torch.equal(torch.get_rng_state(), before), "the noise of a training must not depend on its reader"
    assert list(stream(Numbers(), [], workers=workers)) == []


class Drawn(torch.utils.data.Dataset):
    """Items of random numbers of each generator that a reader may use."""

    def __getitem__(self, index):
        drawn = [float(torch.rand(())), float(np.random.rand()), random.random()]  # noqa: NPY002
        return torch.tensor(drawn, dtype=torch.float64).view(1, 1, 3)


def test_random_numbers_of_an_image_are_of_the_seed_the_epoch_and_its_index_alone():
    batches, epochs = [[2, 1], [0, 3], [1, 0], [3, 2]], [0, 0, 1, 1]

    def drawn(start=0, **options):
        read = stream(Drawn(), batches[start:], epochs=epochs[start:], **options)
        pairs = [(e, i) for e, indices in zip(epochs[start:], batches[start:], strict=True) for i in indices]
        return dict(zip(pairs, (tuple(item.flatten().tolist()) for batch in read for item in batch), strict=True))

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    whole = drawn(seed=3)
    assert len({value for item in whole.values() for value in item}) == 3 * 8
    assert drawn(seed=3, workers=2) == whole
    assert drawn(start=3, seed=3) == {key: whole[key] for key in ((1, 3), (1, 2))}
    assert drawn(start=1, seed=3, workers=1).items() <= whole.items()
    assert not set(drawn(seed=4).values()) & set(whole.values())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_reader_is_its_own_sentence(workers):
    batches = stream(Numbers(damaged), [[0, 1], [2, 3]], workers=workers)
    assert len(next(batches)) == 2
    with pytest.raises(InputError) as caught:
        next(batches)
    assert str(caught.value) == "3 is damaged."


def test_a_reader_that_was_killed_is_a_missing_resource():
    with pytest.raises(ResourceError, match=r"take fewer training\.workers"):
        list(stream(Numbers(killed), [[2, 3]], workers=1))


# --- clusters ---


@pytest.mark.parametrize("name", ["slurm.sh", "slurm_array.sh"])
def test_cluster_scripts_are_bash(name):
    subprocess.run(["bash", "-n", ROOT / "examples" / name], check=True)


def test_a_task_of_the_array_trains_its_share_of_the_study(tmp_path):
    (tmp_path / "trajdesign").write_text('#!/bin/bash\necho "$@"\n')
    (tmp_path / "trajdesign").chmod(0o755)
    script = ROOT / "examples" / "slurm_array.sh"
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", script.read_text()).groups())
    assert first == 1, "as the shares of a study are counted"
    environment = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": str(last)}
    said = subprocess.run(
        ["bash", script, "study.toml", "runs/a study"], capture_output=True, text=True, check=True,
        env={**environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    ).stdout  # fmt: skip
    assert said == f"study study.toml --out runs/a study --cell 3/{last} --resume --quiet\n"
