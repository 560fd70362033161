"""A run that was broken off and goes on ends with the very bits of one that was not."""

import random
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from faults.tiny import N_STEPS, broken_off, sums, tiny

from trajdesign.config.models import load_config
from trajdesign.errors import InputError, OutputError
from trajdesign.learning.optimize import optimize
from trajdesign.runtime import prefetch

VARIANTS = {
    "neural ODE": ["parameterization.kind=neural_ode", "parameterization.n_control=12"],
    "projection from the second epoch, noise": ["limits.from_epoch=1", "training.noise=0.02"],
    "levels of resolution": ["parameterization.kind=samples", "parameterization.decimation=4", "limits.method=penalty"],
    "rigid shots": ["parameterization={kind='rigid', scale=true, shift=true}"],
    "chosen lines": ["parameterization.kind=lines", "parameterization.n_images=2", "init.kind=cartesian"],
    "some spectra kept": ["training.normal=toeplitz", "training.spectra_bytes=150000"],
    "random layer": ["reconstructor.kind=faults.tiny:Dropout"],
    "response, golden start": [
        "response.kind=eddy_currents",
        "response.amplitudes=[0.02]",
        "response.time_constants=[1e-4]",
        "start.angle=golden",
    ],
    "perturbations": ["perturbation={delay={}, drift={}, lost_shot={}, gain={gains=[0.01], spread=0.01}}"],
    "readers": ["training.workers=2", "training.slices_at_once=1"],
    "stack": [
        "acquisition={fov=[0.22,0.22,0.08], matrix=[24,24,8], n_shots=16, n_samples=128, dwell=8e-6}",
        "init={kind='planes', turn='golden'}",
        "parameterization={kind='planes'}",
        "reconstructor.neighbours=1",
    ],
    "film": [
        "acquisition={fov=[0.3,0.3], matrix=[24,24], n_frames=4, n_shots=8, n_samples=128, dwell=8e-6}",
        "init={kind='planes', pattern={kind='radial'}, turn='even'}",
        "parameterization={kind='planes'}",
        "reconstructor={kind='cg_sense', iterations=3}",
        "training.coil_maps=prescan",
    ],
    "volume": [
        "acquisition={fov=[0.22,0.22,0.22], matrix=[12,12,12], n_shots=8, n_samples=128, dwell=8e-6}",
        "init.kind=radial",
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_broken_off_after_every_step_is_bit_for_bit_the_whole_one(tmp_path, name):
    config, baseline = tiny(*VARIANTS[name]), "noise" in name
    optimize(config, tmp_path / "whole", device="cpu", baseline=baseline)
    for stage in ("fixed", "learned") if baseline else ("learned",):
        for step in range(1, N_STEPS + 1):
            assert broken_off(config, tmp_path / "parts", stage, step, baseline=baseline) == 143
    said = []
    assert broken_off(config, tmp_path / "parts", "none", 0, say=said.append, quiet=True) is None
    assert sums(tmp_path / "parts") == sums(tmp_path / "whole")
    assert said == [f"Going on with {tmp_path / 'parts'} after step {N_STEPS} (learned)."]
    assert {p.name for p in (tmp_path / "parts").iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("spectra_bytes", [0, 100000, 2**30])
def test_a_run_whose_images_are_augmented_is_the_whole_one_wherever_it_was_broken_off(tmp_path, workers, spectra_bytes):
    draw = random.Random(f"{workers} {spectra_bytes}")
    options = [f"training.workers={workers}", f"training.spectra_bytes={spectra_bytes}", "training.normal=toeplitz"]
    config = tiny("data.kind=faults.tiny:augmented", *options, "training.epochs=4")
    optimize(config, tmp_path / "whole", device="cpu", baseline=False)
    for step in sorted(draw.sample(range(1, 9), 4)):
        torch.rand(draw.randrange(9))  # as another process would have drawn before
        assert broken_off(config, tmp_path / "parts", "learned", step, baseline=False) == 143
    assert broken_off(config, tmp_path / "parts", "none", 0, baseline=False) is None
    assert sums(tmp_path / "parts") == sums(tmp_path / "whole")


def test_readers_change_nothing_of_images_that_are_augmented(tmp_path):
    for workers in (0, 1, 2):
        config = tiny("data.kind=faults.tiny:augmented", f"training.workers={workers}")
        optimize(config, tmp_path / f"{workers}", device="cpu", baseline=False)
    assert sums(tmp_path / "0") == sums(tmp_path / "1") == sums(tmp_path / "2")


def test_a_run_of_several_starts_broken_off_after_every_step_is_the_whole_one(tmp_path):
    config = tiny('start=[{angle="golden"}, {kind="rosette", turns=0.5}, {kind="radial"}]')
    results = optimize(config, tmp_path / "whole", device="cpu", baseline=False)
    assert len({start["val_psnr"] for start in results.starts}) == 3
    steps = [(f"start {number}", step) for number in (1, 2, 3) for step in (1, 2, 3)]
    for stage, step in [*steps, ("learned", 4), ("learned", 5), ("learned", 6)]:
        assert broken_off(config, tmp_path / "parts", stage, step, baseline=False) == 143
    assert broken_off(config, tmp_path / "parts", "none", 0) is None
    assert sums(tmp_path / "parts") == sums(tmp_path / "whole")
    assert (tmp_path / "parts" / "start.npz").read_bytes() == (tmp_path / "whole" / "start.npz").read_bytes()


@pytest.mark.nightly
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("at_once", [0, 1])
def test_random_stops_are_bit_for_bit_the_whole_run(tmp_path, workers, threads, at_once):
    draw, before = random.Random(f"{workers} {threads} {at_once}"), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        config = tiny(f"training.workers={workers}", f"training.slices_at_once={at_once}", "training.epochs=12")
        optimize(config, tmp_path / "whole", device="cpu")
        for attempt in range(5):
            stops = sorted(draw.sample([(s, n) for s in ("fixed", "learned") for n in range(1, 25)], 3))
            for stage, step in stops:
                assert broken_off(config, tmp_path / f"{attempt}", stage, step) == 143
            assert broken_off(config, tmp_path / f"{attempt}", "none", 0) is None
            assert sums(tmp_path / f"{attempt}") == sums(tmp_path / "whole")
    finally:
        torch.set_num_threads(before)


def test_what_is_not_restored_is_missed(tmp_path, monkeypatch):
    # that the comparison can fail: each part of the state changes the bits of the end, if it is left out
    from trajdesign.learning.step import Joint

    config, load = tiny("training.noise=0.02"), Joint.load_state
    optimize(config, tmp_path / "whole", device="cpu", baseline=False)
    fresh = {}

    def without(part):
        def forget(self, state, step):
            fresh[part] = getattr(self.state(), part)
            load(self, replace(state, **{part: fresh[part]}), step)

        return forget

    for part in ("network", "optimizer", "projection", "noise"):
        path = tmp_path / part
        assert broken_off(config, path, "learned", 3, baseline=False) == 143
        with monkeypatch.context() as patch:
            patch.setattr(Joint, "load_state", without(part))
            optimize(config, path, device="cpu", resume=True, baseline=False)
        assert sums(path) != sums(tmp_path / "whole"), part


def test_every_signal_has_its_exit_status_and_the_baseline_is_as_it_was_started(tmp_path):
    config, path = tiny(), tmp_path / "run"
    for step, (number, code) in enumerate(
        [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)], start=1
    ):
        before = signal.getsignal(number)
        assert broken_off(config, path, "learned", step, number, baseline=step > 1) == code
        assert signal.getsignal(number) is before, "handlers are given back"
    assert set(optimize(config, path, device="cpu", resume=True).tables()) == {"name", "learned", "limits", "files"}


def test_a_second_interrupt_leaves_in_the_middle_of_the_step(tmp_path):
    def twice(p):
        if p.step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("still here")

    with pytest.raises(SystemExit) as end:
        optimize(tiny(), tmp_path / "run", device="cpu", report=twice)
    assert end.value.code == 130
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["1-fixed-000000001.ckpt", "1-fixed-000000002.ckpt"], "no third one, which was not done"


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert broken_off(tiny(), tmp_path / "run", "learned", 2, signal.SIGHUP, baseline=False) is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_finished_run_is_left_as_it_is_and_says_so(tmp_path):
    path, said = tmp_path / "run", []
    first = optimize(tiny(), path, device="cpu", resume=True, say=said.append, quiet=True)
    assert said == [], "there was none to go on with"
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.iterdir()}
    again = optimize(tiny(), path, device="cpu", resume=True, say=said.append, quiet=True)
    assert again.last == first.last
    assert said == [f"{path} is finished; nothing is left to train."]
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.iterdir()} == before


def test_a_run_of_another_config_is_refused_with_the_first_key_that_differs(tmp_path):
    path = tmp_path / "run"
    assert broken_off(tiny(), path, "fixed", 2) == 143
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(OutputError, match=r"training\.batch_size is 2, not 1; "):
        optimize(tiny("training.batch_size=1", "training.noise=0.1"), path, device="cpu", resume=True)
    with pytest.raises(OutputError, match="--resume"):
        optimize(tiny(), path, device="cpu")
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_a_config_that_was_edited_after_the_break_is_refused(tmp_path):
    assert broken_off(tiny(), tmp_path, "fixed", 3) == 143
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("ssim_weight = 0.2", "ssim_weight = 0.9"))
    with pytest.raises(OutputError, match=r"training.ssim_weight"):
        optimize(load_config(config), tmp_path, device="cpu", resume=True)


@pytest.mark.parametrize("stage", ["fixed", "learned"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_run_does_not_go_on_with_other_images(tmp_path, split, stage):
    draw, path = np.random.default_rng(0), tmp_path / "run"
    for name in ("train", "val", "test"):
        np.save(tmp_path / f"{name}.npy", draw.random((8, 32, 32)))
    kept = (tmp_path / f"{split}.npy").read_bytes()
    files = [f"data.{name}=['{tmp_path / name}.npy']" for name in ("train", "val", "test")]
    config = tiny("data.kind=images", *files)
    assert broken_off(config, path, stage, 2) == 143
    for n, match in ((8, "number 0 .from 0. differs"), (5, f"5 and 8 {split} images")):
        np.save(tmp_path / f"{split}.npy", draw.random((n, 32, 32)))
        with pytest.raises(InputError, match=f"the run began with other {split} images: {match}"):
            optimize(config, path, device="cpu", resume=True, quiet=True)
    (tmp_path / f"{split}.npy").write_bytes(kept)
    found = optimize(config, path, device="cpu", resume=True, quiet=True)
    assert found.stages["learned"].fingerprints == found.stages["fixed"].fingerprints
    assert len(found.stages["fixed"].fingerprints) == 8


def test_other_circumstances_are_said(tmp_path):
    path, said, before = tmp_path / "run", [], torch.get_num_threads()
    assert broken_off(tiny(), path, "fixed", 2) == 143
    torch.set_num_threads(before + 1)
    try:
        optimize(tiny(), path, device="cpu", resume=True, say=said.append, quiet=True)
    finally:
        torch.set_num_threads(before)
    assert len(said) == 2
    assert said[1].startswith("The result will differ")
    assert "threads" in said[1]
    assert said[1].endswith(f"became {before + 1}.")


def test_readers_leave_the_signals_of_a_job_to_their_parent():
    import os

    class Images(torch.utils.data.Dataset):
        def __getitem__(self, index):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                os.kill(os.getpid(), number)
            return torch.full((1, 2, 2), float(index))

    assert [float(b[0, 0, 0, 0]) for b in prefetch.stream(Images(), [[1], [2]], workers=1)] == [1, 2]
