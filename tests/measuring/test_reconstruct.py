"""The whole way: a file is exported, scanned, and what was measured is reconstructed; and real scans of phantoms."""

import json
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from scipy import interpolate
from typer.testing import CliRunner

from tests.real_data import real
from trajdesign.cli.app import app
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.data.measured import reading
from trajdesign.encoding.nufft import nufft
from trajdesign.errors import ConfigError, InputError, OutputError
from trajdesign.exporting.proof import export
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.measuring import virtual_scan
from trajdesign.measuring.reconstruct import reconstruct

N, N_SHOTS, N_COILS = 32, 6, 4
SETTINGS = [
    f"acquisition.matrix=[{N},{N}]",
    f"acquisition.n_shots={N_SHOTS}",
    "acquisition.n_samples=400",
    "init.kind=spiral",
    "parameterization.kind=bspline",
    "data.n_train=4",
    "data.n_val=2",
    "data.n_test=3",
    f"data.n_coils={N_COILS}",
    "training.epochs=2",
    "training.batch_size=4",
    "training.settle=0.25",
    "training.validations=1",
    "training.trajectory_rate=0.01",
    "reconstructor.channels=4",
    "reconstructor.levels=1",
]
SEQUENCE = {"n_dummies": 2, "n_slices": 3, "noise_scan": True}


def scanned(path, *settings, noise=0.0, sequence=SEQUENCE):
    """Return a finished run with its file, and what a virtual scan of three slices shows."""
    optimize(load_config(None, [*SETTINGS, *settings]), path / "run", device="cpu", baseline=False, quiet=True)
    export(RunFolder(path / "run").trajectory(), path / "run" / "trajectory.seq", options={"sequence": sequence})
    return virtual_scan.scan(path / "run" / "trajectory.seq", run=path / "run", out=path / "scan", noise=noise)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    path = tmp_path_factory.mktemp("quiet")
    return path, scanned(path)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory, quiet):
    path = tmp_path_factory.mktemp("noisy")
    shutil.copytree(quiet[0] / "run", path / "run")
    return path, virtual_scan.scan(path / "run" / "trajectory.seq", run=path / "run", out=path / "scan", noise=0.02)


def changed(monkeypatch, change):
    """Have the reader return what `change` makes of a measurement."""
    read = reading.read
    monkeypatch.setattr(reading, "read", lambda path: change(read(path)))


def nrmse(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("settings", [[], ["reconstructor.kind=unrolled", "reconstructor.iterations=2"]])
def test_what_was_scanned_gives_the_image_of_the_scan(tmp_path, settings):
    wanted = scanned(tmp_path, *settings)
    found = reconstruct(tmp_path / "scan" / "raw.h5", run=tmp_path / "run", out=tmp_path / "out")
    images = found.images["network"]
    assert images.shape == (1, 3, N, N)
    assert max(nrmse(image, wanted.image) for image in images[0]) < 1e-5
    assert found.facts.warnings == []
    assert (found.facts.n_coils, found.facts.n_shots, found.facts.n_noise_samples) == (N_COILS, N_SHOTS, 400)
    assert not found.facts.prewhitened  # without noise there is none to tell
    kept = np.load(tmp_path / "out" / "image.npz")
    assert np.array_equal(kept["network"], images)
    told = json.loads((tmp_path / "out" / "reconstruct.json").read_text())
    assert told == json.loads(json.dumps(found.facts.tables()))
    assert (tmp_path / "out" / "reconstruction.png").stat().st_size > 10_000


@pytest.mark.parametrize("size", [3e-9, 7e7])
def test_an_image_is_as_bright_as_its_data(quiet, tmp_path, monkeypatch, size):
    path, wanted = quiet
    changed(monkeypatch, lambda raw: replace(raw, events=raw.events * np.complex64(size)))
    found = reconstruct(path / "scan" / "raw.h5", run=path / "run", out=tmp_path / "out")
    assert nrmse(found.images["network"][0, 1] / size, wanted.image) < 1e-5


@pytest.mark.parametrize("leading", [False, True])
def test_an_array_is_read_by_its_shape(quiet, tmp_path, leading):
    path, wanted = quiet
    raw = reading.read(path / "scan" / "raw.h5")
    events = raw.events[~raw.flags["noise"]]  # shot after shot, in it slices 0, 2, 1
    kspace = events.reshape(N_SHOTS, 3, N_COILS, 400).transpose(1, 2, 0, 3)[[0, 2, 1]]
    np.save(tmp_path / "x.npy", kspace if leading else kspace[1])
    seq = {"seq": path / "run" / "trajectory.seq"} if leading else {}
    if not leading:  # a run without a file
        shutil.copytree(path / "run", tmp_path / "run", ignore=shutil.ignore_patterns("*.seq"))
    run = path / "run" if leading else tmp_path / "run"
    found = reconstruct(tmp_path / "x.npy", run=run, out=tmp_path / "o", **seq)
    assert all(nrmse(image, wanted.image) < 1e-5 for image in found.images["network"][0])
    assert found.images["network"].shape[1] == (3 if leading else 1)


def test_twice_the_samples_are_taken_each_at_its_place(quiet, tmp_path, monkeypatch):
    path, wanted = quiet
    seq, config = path / "run" / "trajectory.seq", RunFolder(path / "run").config()
    coil_images = plugins.build("data", config.data, config.acquisition, "test")[1].to(torch.complex128)
    path_of_k = interpolate.CubicSpline(np.arange(400), RunFolder(path / "run").trajectory().k_adc.numpy(), axis=1)
    omega = torch.from_numpy(path_of_k(np.arange(800) / 2 - 0.25)) * (2 * np.pi * config.acquisition.voxel[0])
    kspace = nufft(coil_images, omega.flatten(0, 1)).view(N_COILS, N_SHOTS, 800).to(torch.complex64)

    def change(raw):
        events = np.zeros((19, N_COILS, 800), np.complex64)  # of which the first is noise
        events[1:] = np.repeat(kspace.numpy().swapaxes(0, 1), 3, axis=0)
        return replace(raw, events=events, dwell=2e-6)

    changed(monkeypatch, change)
    found = reconstruct(path / "scan" / "raw.h5", run=path / "run", seq=seq, out=tmp_path / "out")
    assert found.facts.oversampling == 2
    assert found.facts.warnings == []
    assert max(nrmse(image, wanted.image) for image in found.images["network"][0]) < 0.01


def test_averages_are_averaged(tmp_path):
    sequence = {"kind": "ute_2d", "n_dummies": 1}
    wanted = scanned(tmp_path, sequence=sequence, noise=0.05)
    found = reconstruct(tmp_path / "scan" / "raw.h5", run=tmp_path / "run", out=tmp_path / "out")
    assert found.facts.n_averages == 2
    assert nrmse(found.images["network"][0, 0], wanted.image) < 1e-5


def test_without_a_run_there_is_everything_but_a_network(quiet, tmp_path):
    path, wanted = quiet
    found = reconstruct(path / "scan" / "raw.h5", seq=path / "run" / "trajectory.seq", out=tmp_path / "out")
    assert set(found.images) == {"cg_sense", "adjoint"}
    assert nrmse(found.images["cg_sense"][0, 0], wanted.reference) < 0.3
    assert found.facts.warnings == []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "adjoint.nii",
        "cg_sense.nii",
        "image.npz",
        "images.h5",
        "reconstruct.json",
        "reconstruction.html",
        "reconstruction.png",
    ]


def test_k_beside_an_export_serves_for_one_slice(quiet, tmp_path):
    path, _ = quiet
    raw = reading.read(path / "scan" / "raw.h5")
    np.save(tmp_path / "x.npy", raw.events[~raw.flags["noise"]][::3].swapaxes(0, 1))
    by_k = reconstruct(tmp_path / "x.npy", k=path / "run" / "trajectory_k.npz", out=tmp_path / "k")
    by_run = reconstruct(path / "scan" / "raw.h5", run=path / "run", out=tmp_path / "run")
    assert nrmse(by_k.images["adjoint"][0, 0], by_run.images["adjoint"][0, 0]) < 1e-4


def test_raw_data_that_hold_k_need_nothing_else(quiet, tmp_path):
    path, _ = quiet
    by_own = reconstruct(path / "scan" / "raw.h5", out=tmp_path / "own")  # which tells slices and noise too
    by_run = reconstruct(path / "scan" / "raw.h5", run=path / "run", out=tmp_path / "run")
    assert by_own.facts.n_noise_samples == by_run.facts.n_noise_samples
    for name in ("adjoint", "cg_sense"):
        assert nrmse(by_own.images[name], by_run.images[name]) < 1e-4


def test_the_image_of_a_run_is_turned(quiet, tmp_path):
    path, _ = quiet
    plain, turned = (
        reconstruct(path / "scan" / "raw.h5", run=path / "run", rotate=angle, out=tmp_path / f"{angle}")
        for angle in (0, 90)
    )
    opposite = (N - np.arange(N)) % N  # from the middle, pixel N // 2
    for name in ("adjoint", "cg_sense"):
        wanted = plain.images[name][:, :, opposite].swapaxes(2, 3)
        assert nrmse(turned.images[name][..., 1:, 1:], wanted[..., 1:, 1:]) < 0.01
    # the network sees other artefacts than it was trained on, and still the object
    wanted = plain.images["network"][:, :, opposite].swapaxes(2, 3)
    assert nrmse(turned.images["network"][..., 1:, 1:], wanted[..., 1:, 1:]) < 0.3
    assert turned.facts.warnings == []


def test_noise_that_coils_share_is_taken_apart(noisy, tmp_path, monkeypatch):
    path, _ = noisy
    mixed = np.random.default_rng(1).standard_normal((N_COILS, N_COILS)) + 2 * np.eye(N_COILS)

    def change(raw):
        """Mix the noise alone."""
        return replace(raw, events=np.einsum("dc,ecs->eds", mixed, raw.events).astype(np.complex64))

    plain = reconstruct(path / "scan" / "raw.h5", run=path / "run", out=tmp_path / "plain")
    assert plain.facts.prewhitened
    assert plain.facts.warnings == []
    assert plain.facts.noise == pytest.approx(plain.facts.residual["cg_sense"]["total"], rel=0.2)
    changed(monkeypatch, change)
    found = reconstruct(path / "scan" / "raw.h5", run=path / "run", out=tmp_path / "mixed")
    # coils that are mixed see what they saw: after whitening only a rotation is left, which no sum of squares sees
    scale = found.images["adjoint"].sum() / plain.images["adjoint"].sum()
    assert nrmse(found.images["adjoint"] / scale, plain.images["adjoint"]) < 1e-4


def late(raw, seconds):
    """Return a measurement whose samples were taken later along the path than the file says: by interpolation."""
    times = np.arange(raw.events.shape[-1]) * 4e-6
    moved = np.stack([[np.interp(times - seconds, times, part) for part in event] for event in raw.events])
    return replace(raw, events=moved.astype(np.complex64))


def dropped(raw):
    events = raw.events.copy()
    events[1 + 3 * 2 : 1 + 3 * 3] = 0
    return replace(raw, events=events)


def swapped(raw):
    order = np.arange(len(raw.events))
    order[[4, 5, 6, 13, 14, 15]] = order[[13, 14, 15, 4, 5, 6]]
    return replace(raw, events=raw.events[order])


def dead(raw):
    events = raw.events.copy()
    noise = np.random.default_rng(3).standard_normal((2, len(events), events.shape[-1]))
    events[:, 2] = (noise[0] + 1j * noise[1]) * np.abs(events[0]).std()
    return replace(raw, events=events)


@pytest.mark.parametrize("which", ["quiet", "noisy"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dropped, "shot 2 is missing"),
        (swapped, "Worst are the shots"),
        (dead, "coil 2 sees nothing"),
        (lambda raw: late(raw, 2e-6), "us later than they are taken to"),
    ],
)
def test_what_is_wrong_is_told(which, change, words, request, tmp_path, monkeypatch):
    path, _ = request.getfixturevalue(which)
    changed(monkeypatch, change)
    found = reconstruct(path / "scan" / "raw.h5", run=path / "run", out=tmp_path / "out")
    assert any(words in warning for warning in found.facts.warnings), found.facts
    if change is swapped:
        shots = found.facts.residual["cg_sense"]["of_shots"]
        assert set(np.argsort(shots)[-2:]) & {1, 4}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.select(np.arange(len(raw.events)) > 1), "has 17 ADC events.* plays 19"),
        (lambda raw: replace(raw, events=raw.events[..., ::2]), "has 200 samples in ADC event 1, .* asks for 400"),
        (lambda raw: replace(raw, events=np.repeat(raw.events, 3, axis=-1)[..., :-200]), "has 1000 samples"),
        (lambda raw: replace(raw, events=[*raw.events[:5], *raw.events[5:, :3]]), "3 to 4 coils"),
    ],
)
def test_other_numbers_are_refused_with_both(quiet, tmp_path, monkeypatch, change, words):
    path, _ = quiet
    changed(monkeypatch, change)
    with pytest.raises(InputError, match=words):
        reconstruct(path / "scan" / "raw.h5", run=path / "run", out=tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_another_runs_file_is_refused(quiet, tmp_path):
    path, _ = quiet
    other = RunFolder(path / "run").trajectory()
    export(other.with_points(other.points * 0.9), tmp_path / "x.seq", options={"sequence": SEQUENCE})
    with pytest.raises(InputError, match=r"k in .*x.seq is up to 1\.6\d/FOV from that of"):
        reconstruct(path / "scan" / "raw.h5", run=path / "run", seq=tmp_path / "x.seq", out=tmp_path / "out")


def test_options_that_make_no_sense_are_refused(quiet, tmp_path):
    path, _ = quiet
    raw = path / "scan" / "raw.h5"
    np.save(tmp_path / "x.npy", reading.read(raw).events)
    with pytest.raises(ConfigError, match="give the run"):
        reconstruct(tmp_path / "x.npy", out=tmp_path / "a")
    with pytest.raises(ConfigError, match="leave them out"):
        reconstruct(raw, run=path / "run", matrix=(64, 64), out=tmp_path / "a")
    with pytest.raises(ConfigError, match="leave one of them out"):
        reconstruct(raw, run=path / "run", k="x", out=tmp_path / "a")
    reconstruct(raw, run=path / "run", out=tmp_path / "a")
    with pytest.raises(OutputError):
        reconstruct(raw, run=path / "run", out=tmp_path / "a")
    shutil.copytree(path / "run", tmp_path / "run")
    shutil.copy(tmp_path / "run" / "trajectory.seq", tmp_path / "run" / "b.seq")
    with pytest.raises(ConfigError, match=r"2 Pulseq files \(b.seq, trajectory.seq\)"):
        reconstruct(raw, run=tmp_path / "run", out=tmp_path / "c")


def test_the_command_says_what_it_found(quiet, tmp_path):
    path, _ = quiet
    command = ["reconstruct", str(path / "scan" / "raw.h5"), "--run", str(path / "run"), "--out", str(tmp_path / "o")]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0
    assert "Nothing in the data speaks against k" in found.stdout
    assert f"Look at {tmp_path / 'o' / 'reconstruction.html'}" in " ".join(found.stdout.split())
    assert "Next:" in found.stdout
    again = CliRunner().invoke(app, [*command, "--json", "--force"])
    document = json.loads(again.stdout)
    assert document["schema"] == "trajdesign.reconstruct/1"
    assert document["residual"]["network"]["total"] < 0.2


def test_a_real_spin_echo_equals_a_plain_fft(tmp_path):
    raw, seq = real("pulseq_raw/se_phantom_32ch.dat"), real("pulseq_raw/se_phantom.seq")
    found = reconstruct(raw, seq=seq, out=tmp_path)
    kspace = reading.read(raw).events  # line, coil, sample
    shifted = np.fft.ifftshift(kspace, axes=(0, 2))
    images = np.fft.fftshift(np.fft.ifft2(shifted, axes=(0, 2)), axes=(0, 2))
    plain = np.sqrt((np.abs(images) ** 2).sum(1))
    assert nrmse(found.images["adjoint"][0, 0], plain) < 1e-3
    assert nrmse(found.images["cg_sense"][0, 0], plain) < 0.05
    assert found.facts.warnings == []
    affine = nibabel.load(tmp_path / "adjoint.nii").affine
    assert np.abs(np.linalg.det(affine[:3, :3])) == pytest.approx(2 * 2 * 30, rel=1e-5)  # voxels of 2 x 2 x 30 mm
    middle = affine @ [32, 32, 0, 1]
    assert middle[:3] == pytest.approx([6.6586, -45.3995, 0], abs=1e-3)  # to the right and the front, from the file
