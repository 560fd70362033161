"""A checkpoint that is damaged, hostile or of another version is found out; the one before it is used."""

import hashlib
import io
import os
import pickle
import random
import resource
import shutil
import subprocess

import pytest
import torch
from faults.tiny import broken_off, sums, tiny

from trajdesign.errors import ConfigError, DivergedError, InputError, OutputError, ResourceError
from trajdesign.interfaces import Reconstructor
from trajdesign.learning.checkpoint import Checkpoints, read
from trajdesign.learning.optimize import optimize


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Return the folder of a run that was broken off after its fourth step."""
    path = tmp_path_factory.mktemp("broken") / "run"
    assert broken_off(tiny(), path, "learned", 4, baseline=False) == 143
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return what a run leaves that was not broken off."""
    path = tmp_path_factory.mktemp("whole") / "run"
    optimize(tiny(), path, device="cpu", baseline=False)
    return sums(path)


def signed(content):
    return b"trajdesign checkpoint " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


# --- damage ---


@pytest.mark.parametrize("n", [100, pytest.param(2000, marks=pytest.mark.nightly)])
def test_every_flipped_bit_is_detected_and_the_one_before_is_used(broken, tmp_path, n):
    path = shutil.copytree(broken, tmp_path / "run")
    before, newest = sorted((path / "checkpoints").iterdir())
    whole, draw = newest.read_bytes(), random.Random(n)
    places = [*range(30), len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(n - 31))]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        newest.write_bytes(flipped)
        with pytest.raises(InputError, match="is damaged"):
            read(newest)
    said = []
    state = Checkpoints(path).load(said.append)
    assert state["training"]["done"]["step"] == 3
    assert said == [
        f"{newest} is damaged: its SHA-256 is not the one in its first line. Going on from {before}, the one before it."
    ]


@pytest.mark.parametrize("damage", [b"", b"trajdesign checkpoint ", b"\x00" * 5000], ids=["empty", "cut", "zeros"])
def test_a_run_goes_on_from_the_one_before_to_the_same_end(broken, whole, tmp_path, damage):
    path = shutil.copytree(broken, tmp_path / "run")
    sorted((path / "checkpoints").iterdir())[-1].write_bytes(damage)
    said = []
    optimize(tiny(), path, device="cpu", resume=True, say=said.append, quiet=True)
    assert sums(path) == whole
    assert "damaged" in said[0]
    assert "after step 3" in said[1]


def test_a_run_whose_checkpoints_are_all_damaged_is_not_started_again_by_itself(broken, tmp_path):
    path = shutil.copytree(broken, tmp_path / "run")
    for kept in (path / "checkpoints").iterdir():
        kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(InputError, match="no other to go on from; pass --force"):
        optimize(tiny(), path, device="cpu", resume=True)


def test_the_last_two_are_kept_and_a_damaged_one_ahead_of_them_is_not_counted(tmp_path):
    kept = Checkpoints(tmp_path)
    for step in (1, 2, 3, 9):
        kept.save(f"1-fixed-{step:09d}", {"step": step})
    (tmp_path / "checkpoints" / "1-fixed-000000009.ckpt").write_bytes(b"")
    assert kept.load()["step"] == 3
    kept.save("1-fixed-000000004", {"step": 4})
    assert [read(p)["step"] for p in sorted((tmp_path / "checkpoints").iterdir())] == [3, 4]
    kept.clear()
    assert list(tmp_path.iterdir()) == []
    assert kept.load() is None


# --- malice ---


class Payload:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


def test_pickles_are_not_opened(tmp_path):
    """What a checkpoint was before, so that none of what its reader would call is called: 8 GB of bytes, say."""
    canary = tmp_path / "canary"
    payloads = [
        Payload(os.system, f"touch {canary}"),
        Payload(eval, f"open({str(canary)!r}, 'w')"),
        Payload(subprocess.call, ["touch", str(canary)]),
        Payload(open, str(canary), "w"),
        {"training": [{"deep": Payload(os.system, f"touch {canary}")}]},
        Payload(bytearray, 8 * 10**9),
        torch.zeros(1).expand(10**12),
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for payload in payloads:
        stream = io.BytesIO()
        torch.save({"version": 1, "state": payload}, stream)
        (tmp_path / "1.ckpt").write_bytes(signed(stream.getvalue()))
        with pytest.raises(InputError, match="is a checkpoint of version 1, not 2"):
            read(tmp_path / "1.ckpt")
        (tmp_path / "1.ckpt").write_bytes(signed(pickle.dumps(payload)))
        with pytest.raises(InputError, match="is no checkpoint"):
            read(tmp_path / "1.ckpt")
        assert not canary.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15, "KiB"


def tree(state, tensors=b""):
    return signed(b'{"dict": [["version", 2], ["state", %s]]}\n' % state + tensors)


HOSTILE = {
    "nothing": signed(b""),
    "text": signed(b"text"),
    "no tree": signed(b"[1, 2]\n"),
    "long line": signed(b" " * 2**27),
    "deep": tree(b"[" * 10**5 + b"]" * 10**5),
    "digits": tree(b"9" * 10**5),
    "large": tree(b'{"tensor": ["float32", [1000000000000]]}'),
    "negative": tree(b'{"tensor": ["float32", [-1, -2]]}', bytes(8)),
    "fractions": tree(b'{"tensor": ["int8", [0.5, 4]]}', bytes(2)),
    "twice": tree(b'[{"tensor": ["int8", [4]]}, {"tensor": ["int8", [4]]}]', bytes(4)),
    "left over": tree(b'{"tensor": ["int8", [4]]}', bytes(5)),
    "kind": tree(b'{"tensor": ["object", [1]]}', bytes(8)),
    "function": tree(b'{"eval": ["1"]}'),
    "key": tree(b'{"dict": [[[], 1]]}'),
    "pair": tree(b'{"dict": [[1]]}'),
    "two": tree(b'{"tuple": [], "dict": []}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_state_is_refused_and_takes_no_memory(tmp_path, name):
    (tmp_path / "1.ckpt").write_bytes(HOSTILE[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"is no checkpoint|version None") as caught:
        read(tmp_path / "1.ckpt")
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19, "KiB: four times the longest"


def test_a_state_comes_back_as_it_was(tmp_path):
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64)
    whole = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    draw = torch.Generator().manual_seed(0)
    state = {
        "tensors": [torch.rand(3, 2, generator=draw).to(kind) for kind in kinds],
        "whole": [torch.arange(5).to(kind) for kind in whole],
        "views": (torch.eye(4).T[1:], torch.rand(2, generator=draw).cfloat().conj(), torch.ones(1).expand(3)),
        "edges": [torch.tensor(1.5), torch.zeros(2, 0), torch.zeros(0).bool(), torch.tensor([float("nan"), -0.0])],
        "numbers": [0.1, 1e-320, float("inf"), -(2**70), True, None, "ü\n\x00\ud800", 1.7976931348623157e308],
        "keys": {0: {1: []}, "": {}, (1, "a"): [[]], None: {"tensor": 1, "dict": 2}, 1.5: {"tuple": ()}},
    }  # fmt: skip
    Checkpoints(tmp_path).save("1", state)
    found = read(tmp_path / "checkpoints" / "1.ckpt")
    for name in ("tensors", "whole", "views", "edges"):
        assert len(found[name]) == len(state[name])
        for one, other in zip(found[name], state[name], strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert torch.equal(
                one.reshape(-1).view(torch.uint8), other.resolve_conj().reshape(-1).contiguous().view(torch.uint8)
            )
    assert isinstance(found["views"], tuple)
    assert found["numbers"] == state["numbers"]
    assert [type(number) for number in found["numbers"]] == [type(number) for number in state["numbers"]]
    assert found["keys"] == state["keys"]


@pytest.mark.parametrize("thing", [object(), {1}, 1j, b"x", torch.float32, torch.eye(2).to_sparse()])
def test_a_state_of_anything_else_is_not_kept(tmp_path, thing):
    with pytest.raises(ConfigError, match="a plug-in's state_dict may hold"):
        Checkpoints(tmp_path).save("1", {"extra": [thing]})
    assert not (tmp_path / "checkpoints").exists()


def test_other_versions_and_other_runs_are_input_errors(broken, tmp_path):
    Checkpoints(tmp_path).save("1", {"version": 99})
    with pytest.raises(InputError, match="version 99"):
        read(tmp_path / "checkpoints" / "1.ckpt")
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "none.ckpt")
    path = shutil.copytree(broken, tmp_path / "run")
    text = (path / "config.toml").read_text()
    (path / "config.toml").write_text(text.replace("channels = 4", "channels = 8"))
    with pytest.raises(OutputError, match=r"another config: reconstructor\.channels"):
        optimize(tiny("reconstructor.channels=8"), path, device="cpu", resume=True)


GOOD = {
    "stages": ["learned"],
    "stage": "learned",
    "results": {},
    "history": [],
    "circumstances": {},
    "config": tiny().to_dict(),
}


@pytest.mark.parametrize(
    "change", [{"stages": ["other"]}, {"stages": 3}, {"results": []}, {"circumstances": 3}, {"training": 3}, {}]
)
def test_a_state_that_lacks_something_is_an_input_error(broken, tmp_path, change):
    path = shutil.copytree(broken, tmp_path / "run")
    Checkpoints(path).save("9", {**GOOD, "training": {"done": {"step": 1}}, **change})
    with pytest.raises(InputError, match="cannot go on from the checkpoint"):
        optimize(tiny(), path, device="cpu", resume=True)


# --- where they are ---


def test_a_finished_run_lets_go_of_a_checkpoint_that_was_left(tmp_path):
    """As after a kill between metrics.json and the end."""
    path, said = tmp_path / "run", []
    wanted = optimize(tiny(), path, device="cpu", baseline=False)
    for content in (b"", b"damaged"):
        (path / "checkpoints").mkdir()
        (path / "checkpoints" / "1-learned-000000006.ckpt").write_bytes(content)
        assert optimize(tiny(), path, device="cpu", resume=True, say=said.append) == wanted
        assert not (path / "checkpoints").exists()
    assert said == [f"{path} is finished; nothing is left to train."] * 2


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["checkpoints", "figures", "tensorboard"])
def test_a_folder_that_is_a_link_is_refused_before_anything_is_written(broken, tmp_path, name, resume):
    path, other = shutil.copytree(broken, tmp_path / "run"), tmp_path / "other"
    other.mkdir()
    for mine in ("mine.ckpt", ".tmp-mine", "psf.png"):
        (other / mine).write_text("mine")
    shutil.rmtree(path / name, ignore_errors=True)
    (path / name).symlink_to(other)
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    with pytest.raises(OutputError, match=f"run/{name} is a link"):
        optimize(tiny(), path, device="cpu", resume=resume, overwrite=not resume)
    assert {file.read_text() for file in other.iterdir()} == {"mine"}
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == before


def test_a_folder_named_as_a_temporary_file_is_nobodys(tmp_path):
    for folder in (tmp_path / ".tmp-x", tmp_path / "checkpoints" / ".tmp-y"):
        folder.mkdir(parents=True)
        (folder / "mine").write_text("mine")
    (tmp_path / ".tmp-z.npz").touch()
    config = tiny("training.epochs=1")
    optimize(config, tmp_path, device="cpu", baseline=False)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if ".tmp-" in str(p) and p.is_file())
    assert left == [".tmp-x/mine", "checkpoints/.tmp-y/mine"]


# --- no room ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("n", [2, pytest.param(20, marks=pytest.mark.nightly)])
def test_a_full_disk_ends_the_run_and_what_was_kept_stays(small_disk, whole, n):
    draw = random.Random(n)
    for i in range(n):
        path, said, at = small_disk / f"run{i}", [], 2 + i % 3

        def fill(p, at=at):
            if p.step == at:
                with (small_disk / "ballast").open("wb", buffering=0) as ballast:
                    room = shutil.disk_usage(small_disk).free
                    ballast.write(bytes(max(0, room - draw.randrange(0, 40_000))))

        with pytest.raises(ResourceError, match="No space left on device") as caught:
            optimize(tiny(), path, device="cpu", baseline=False, report=fill, say=said.append, quiet=True)
        assert caught.value.exit_code == 6
        assert str(path) in str(caught.value)
        assert len(said) == 2, "it tries three times"
        assert "tries again" in said[0]
        steps = [read(p)["training"]["done"]["step"] for p in sorted((path / "checkpoints").iterdir())]
        assert steps == [s for s in (at - 2, at - 1) if s > 0]
        (small_disk / "ballast").unlink()
        optimize(tiny(), path, device="cpu", resume=True)
        assert sums(path) == whole
        shutil.rmtree(path)


def test_a_limit_on_the_size_of_files_is_as_a_full_disk(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(p):
        if p.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    try:
        with pytest.raises(ResourceError, match=r"checkpoints/.*File too large"):
            optimize(tiny(), tmp_path / "run", device="cpu", baseline=False, report=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [read(p)["training"]["done"]["step"] for p in kept] == [1, 2]


def test_a_disk_that_has_room_again_in_time_loses_nothing(tmp_path):
    before, said = resource.getrlimit(resource.RLIMIT_FSIZE), []

    def limit(p):
        room = 20_000 if p.step in (2, 3) else before[0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))

    try:
        optimize(tiny(), tmp_path / "run", device="cpu", baseline=False, report=limit, say=said.append, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(said) == 2


@pytest.mark.parametrize("gone", [shutil.rmtree, lambda path: path.rename(path.with_name("elsewhere"))])
def test_a_folder_that_is_gone_is_not_made_anew(tmp_path, gone):
    path = tmp_path / "run"
    with pytest.raises(ResourceError, match="the folder of the run was removed") as caught:
        optimize(tiny(), path, device="cpu", baseline=False, report=lambda p: p.step == 3 and gone(path))
    assert caught.value.exit_code == 6
    assert not path.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become someone else")
def test_a_folder_that_may_not_be_written_any_more_ends_the_run(tmp_path):
    path = tmp_path / "run"
    try:
        with pytest.raises(ResourceError, match="Permission denied") as caught:
            optimize(tiny(), path, device="cpu", baseline=False, report=lambda p: p.step == 3 and os.seteuid(65534))
    finally:
        os.seteuid(0)
    assert str(path / "checkpoints") in str(caught.value)
    assert [read(p)["training"]["done"]["step"] for p in sorted((path / "checkpoints").iterdir())] == [1, 2]


# --- no number ---


class Sometimes(Reconstructor):
    """Its training images are no numbers in the calls of `bad`, counted from one."""

    def __init__(self, *, first: int = 1, last: int = 1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.first, self.last, self.n_calls = first, last, 0

    def forward(self, images, encoding):
        image = images.abs().sum(1, keepdim=True) * self.weight
        self.n_calls += self.training
        bad = self.training and self.first <= self.n_calls <= self.last
        return image * float("nan") if bad else image


def sometimes(first, last, *more):
    kind = f"reconstructor.kind={__name__}:Sometimes"
    return tiny(kind, f"reconstructor.first={first}", f"reconstructor.last={last}", *more)


def test_steps_that_are_no_number_are_skipped_and_counted(tmp_path):
    found = optimize(sometimes(2, 3), tmp_path / "run", device="cpu", baseline=False)
    assert found.last.n_skipped == 2
    assert optimize(sometimes(0, 0), tmp_path / "other", device="cpu", baseline=False).last.n_skipped == 0


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        optimize(sometimes(4, 99, "training.epochs=20"), path, device="cpu", baseline=False)
    assert caught.value.exit_code == 7
    states = [read(p)["training"] for p in sorted((path / "checkpoints").iterdir())]
    assert [state["done"]["step"] for state in states] == [2, 3]
    assert all(bool(v.isfinite().all()) for v in states[-1]["joint"]["network"].values())
    assert not (path / "trajectory.npz").exists()
