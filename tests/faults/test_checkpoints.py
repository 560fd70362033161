"""A checkpoint that is damaged, hostile or of another version is found out; the one before it is used."""

import hashlib
import io
import os
import random
import resource
import shutil
import subprocess
import zipfile

import pytest
import torch
from faults.tiny import broken_off, sums, tiny

from trajdesign.checkpoint import Checkpoints, read
from trajdesign.errors import DivergedError, InputError, ResourceError
from trajdesign.interfaces import Reconstructor
from trajdesign.optimize import optimize


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


def test_no_payload_runs(tmp_path):
    canary = tmp_path / "canary"
    payloads = [
        Payload(os.system, f"touch {canary}"),
        Payload(eval, f"open({str(canary)!r}, 'w')"),
        Payload(exec, f"open({str(canary)!r}, 'w')"),
        Payload(subprocess.call, ["touch", str(canary)]),
        Payload(open, str(canary), "w"),
        Payload(__import__, "os"),
        Payload(torch.load, str(canary)),
        Payload(torch.hub.load, "nobody/nothing", "model"),
        {"training": [{"deep": Payload(os.system, f"touch {canary}")}]},
        Payload(bytearray, 2**50),
    ]
    for payload in payloads:
        stream = io.BytesIO()
        torch.save({"version": 1, "state": payload}, stream)
        (tmp_path / "1.ckpt").write_bytes(signed(stream.getvalue()))
        with pytest.raises(InputError, match="is no checkpoint") as caught:
            read(tmp_path / "1.ckpt")
        assert "\n" not in str(caught.value)
        assert not canary.exists()


def test_what_unpacks_to_more_than_it_is_is_refused(tmp_path):
    plain, bomb = io.BytesIO(), io.BytesIO()
    torch.save({"version": 1, "state": torch.zeros(2**24)}, plain)
    with zipfile.ZipFile(plain) as members, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in members.namelist():
            packed.writestr(name, members.read(name))
    assert len(bomb.getvalue()) < 2**18
    (tmp_path / "1.ckpt").write_bytes(signed(bomb.getvalue()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="unpack"):
        read(tmp_path / "1.ckpt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15, "KiB"


def test_other_files_and_versions_are_input_errors(broken, tmp_path):
    script = torch.jit.script(torch.nn.Linear(1, 1))
    script.save(tmp_path / "script.pt")
    stream = io.BytesIO()
    torch.save({"version": 99}, stream)
    for content in (b"", b"text", (tmp_path / "script.pt").read_bytes(), stream.getvalue()):
        (tmp_path / "1.ckpt").write_bytes(signed(content))
        with pytest.raises(InputError, match=r"no checkpoint|version 99"):
            read(tmp_path / "1.ckpt")
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "none.ckpt")
    path = shutil.copytree(broken, tmp_path / "run")
    text = (path / "config.toml").read_text()
    (path / "config.toml").write_text(text.replace("channels = 4", "channels = 8"))
    with pytest.raises(InputError, match="cannot go on from the checkpoint"):
        optimize(tiny("reconstructor.channels=8"), path, device="cpu", resume=True)


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
    assert found["learned"]["n_skipped"] == 2
    assert optimize(sometimes(0, 0), tmp_path / "other", device="cpu", baseline=False)["learned"]["n_skipped"] == 0


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        optimize(sometimes(4, 99, "training.epochs=20"), path, device="cpu", baseline=False)
    assert caught.value.exit_code == 7
    states = [read(p)["training"] for p in sorted((path / "checkpoints").iterdir())]
    assert [state["done"]["step"] for state in states] == [2, 3]
    assert all(bool(v.isfinite().all()) for v in states[-1]["joint"]["network"].values())
    assert not (path / "trajectory.npz").exists()
