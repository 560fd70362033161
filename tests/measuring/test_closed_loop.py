"""The whole loop for each template: learned, exported, scanned by 16 coils, and reconstructed again."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from tests.measuring.test_reconstruct import nrmse
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.errors import InputError
from trajdesign.exporting.proof import export
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.trained import TrainedRun
from trajdesign.measuring import solving, virtual_scan
from trajdesign.measuring.geometry import k_of
from trajdesign.measuring.reconstruct import reconstruct
from trajdesign.pulseq.reader import player
from trajdesign.reconstruction.coils import calibration_scan, smooth_maps
from trajdesign.trajectories.formats import mrd

N, N_COILS, CORRELATION, LEVEL, N_SCANS = 24, 16, 0.6, 0.01, 3
SETTINGS = [
    f"acquisition.matrix=[{N},{N}]",
    "acquisition.n_shots=4",
    "acquisition.n_samples=400",
    "init.kind=spiral",
    "parameterization.kind=bspline",
    "data.n_train=4",
    "data.n_val=2",
    "data.n_test=3",
    "training.epochs=1",
    "training.validations=1",
    "reconstructor.channels=4",
]
UNROLLED = ["reconstructor.kind=unrolled", "reconstructor.iterations=2"]
NETWORKS = {
    "unrolled": [*UNROLLED, "training.coil_maps=prescan"],
    "espirit": [*UNROLLED, "training.coil_maps=espirit"],
    "unet": ["reconstructor.levels=1"],
}
SEQUENCE = {"n_averages": 2, "n_dummies": 2, "noise_scan": True, "calibration": N}
OPTIONS = {"gre_2d": {"n_slices": 3, "slice_gap": 1e-3}, "se_2d": {}, "bssfp_2d": {}, "ute_2d": {}}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Return a function that gives the folder of a run with a network, which is trained once."""
    found = {}

    def folder(network):
        if network not in found:
            found[network] = tmp_path_factory.mktemp(network) / "run"
            optimize(load_config(None, [*SETTINGS, *NETWORKS[network]]), found[network], device="cpu", baseline=False)
        return found[network]

    return folder


def exported(run, name, path, **more):
    table = {"kind": name, **SEQUENCE, **OPTIONS[name], **more}
    export(RunFolder(run).trajectory(), path, options={"sequence": table}, run=run)
    return path


@pytest.mark.parametrize(
    ("name", "network"), [*((name, "unrolled") for name in OPTIONS), ("gre_2d", "unet"), ("se_2d", "espirit")]
)
def test_without_noise_the_image_is_that_of_the_scan(learned, tmp_path, name, network):
    if network == "espirit":
        pytest.importorskip("sigpy", reason="the extra espirit is not installed")
    run = learned(network)
    seq = exported(run, name, tmp_path / "x.seq")
    scanned = virtual_scan.scan(seq, run=run, n_coils=N_COILS, out=tmp_path / "scan")
    assert scanned.facts["is_of_run"]
    found = reconstruct(tmp_path / "scan" / "raw.h5", run=run, seq=seq, out=tmp_path / "out")
    wanted, n_slices = np.load(tmp_path / "scan" / "image.npy"), OPTIONS[name].get("n_slices", 1)
    assert found.images["network"].shape == (1, n_slices, N, N)
    assert max(nrmse(image, wanted) for image in found.images["network"][0]) < 1e-5
    assert found.facts.warnings == []
    assert found.facts.is_export
    assert found.facts.n_coils == N_COILS
    assert found.facts.coil_maps["lines"] == N
    assert found.facts.n_averages == (4 if name == "ute_2d" else 2)  # there of half pulses


def test_fewer_lines_of_calibration_than_of_the_matrix_are_exact_too(tmp_path):
    n, run = 32, tmp_path / "run"
    settings = [*SETTINGS, *NETWORKS["unrolled"], f"acquisition.matrix=[{n},{n}]"]
    optimize(load_config(None, settings), run, device="cpu", baseline=False)
    seq = exported(run, "gre_2d", tmp_path / "x.seq", n_slices=1, n_averages=1)
    virtual_scan.scan(seq, run=run, n_coils=N_COILS, out=tmp_path / "scan")
    found = reconstruct(tmp_path / "scan" / "raw.h5", run=run, seq=seq, out=tmp_path / "out")
    assert found.facts.coil_maps["lines"] == N < n
    assert nrmse(found.images["network"][0, 0], np.load(tmp_path / "scan" / "image.npy")) < 1e-6


def test_the_signature_tells_whether_the_file_is_an_export_of_the_run(learned, tmp_path):
    run, out = tmp_path / "run", {"out": tmp_path / "out", "overwrite": True}
    shutil.copytree(learned("unet"), run, ignore=shutil.ignore_patterns("exports.json"))
    trajectory = RunFolder(run).trajectory()
    for name, n, points in (("x", 1, 1.0), ("y", 2, 1.0), ("z", 1, 0.97)):
        played = trajectory.with_points(trajectory.points * points)
        export(played, tmp_path / f"{name}.seq", options={"sequence": {"n_dummies": n}})
    virtual_scan.scan(tmp_path / "x.seq", run=run, out=tmp_path / "scan")
    raw = tmp_path / "scan" / "raw.h5"
    assert reconstruct(raw, run=run, seq=tmp_path / "x.seq", **out).facts.is_export is None  # it tells of none
    export(trajectory, run / "mine.seq", options={"sequence": {"n_dummies": 1}}, run=run)
    found = reconstruct(raw, run=run, **out).facts
    assert found.is_export is True
    assert json.loads((tmp_path / "out" / "reconstruct.json").read_text())["is_export"] is True
    assert reconstruct(raw, run=run, seq=tmp_path / "y.seq", **out).facts.is_export is False
    assert reconstruct(raw, seq=tmp_path / "x.seq", **out).facts.is_export is None
    with pytest.raises(InputError, match=r"By its signature it is none of the run's exports: mine\.seq"):
        reconstruct(raw, run=run, seq=tmp_path / "z.seq", **out)


def sampled(volume, k, steps):
    """Return k-space (coil, sample) of a volume (coil, z, y, x) at k (sample, 3), 1/m, by exact sums; steps in m."""
    x, y, z = (
        np.exp(-2j * np.pi * k[:, axis, None] * (np.arange(n) - n // 2) * steps[axis])
        for axis, n in enumerate(volume.shape[:0:-1])
    )
    return np.einsum("czyx,sz,sy,sx->cs", volume, z, y, x, optimize=True)


def test_a_stack_gives_what_the_run_promises_of_each_slice(learned, tmp_path):
    """Virtual scans are of slices: here a volume is sampled by exact sums, in the order of playing."""
    run, n, thickness = learned("unrolled"), 4, 4e-3
    table = {"kind": "gre_3d", **SEQUENCE, "n_partitions": n, "partition_thickness": thickness}
    export(RunFolder(run).trajectory(), tmp_path / "x.seq", options={"sequence": table}, run=run)
    trained = TrainedRun.load(run)
    acquisition = trained.trajectory.acquisition
    data = {**trained.config.data, "n_coils": N_COILS, "n_test": n}
    slices = [torch.as_tensor(one) for one in plugins.build("data", data, acquisition, "test")]
    volume = torch.stack(slices, dim=1).numpy().astype(complex)

    file, readouts = player.read(tmp_path / "x.seq"), []
    for number, (adc, k) in enumerate(zip(file.adcs, file.k, strict=True)):
        if file.label("NOISE")[number]:
            signal, k = np.zeros((N_COILS, adc.count)), np.zeros((adc.count, 3))
        else:  # the receiver follows the phase of the pulses
            signal = sampled(volume, k, (*acquisition.voxel, thickness))
        readouts.append(mrd.Readout(signal.astype(np.complex64), k[:, :2]))
    mrd.write(tmp_path / "raw.h5", readouts, acquisition, trained.trajectory.scanner, slice_thickness=thickness)

    found = reconstruct(tmp_path / "raw.h5", run=run, seq=tmp_path / "x.seq", out=tmp_path / "out")
    assert (found.facts.n_slices, found.facts.n_averages, found.facts.coil_maps["lines"]) == (n, 2, N)
    assert found.facts.warnings == []
    wanted = [trained.promised(one)[0, 0].detach().numpy() for one in slices]
    errors = [nrmse(image, one) for image, one in zip(found.images["network"][0], wanted, strict=True)]
    assert max(errors) < 1e-5
    assert nrmse(wanted[0], wanted[1]) > 0.1  # they are not all alike


def dense(encoding):
    """Return the Fourier sums (sample, pixel) of an encoding."""
    position = (np.arange(N) - N // 2) * encoding.acquisition.voxel[0]
    k = k_of(encoding).reshape(-1, 2).numpy()
    along_x, along_y = (np.exp(-2j * np.pi * k[:, axis, None] * position) for axis in (0, 1))
    return np.einsum("sy,sx->syx", along_y, along_x).reshape(len(k), N * N)


def predicted(images, encoding, matrix, root):
    """Return image and standard deviation of each pixel of regularized SENSE by matrices.

    x = (sum_c S_c^H A^H W A S_c + r)^-1 sum_c S_c^H A^H W y_c, of coil images (coil, y, x) that `matrix` mixes, with
    noise of covariance root root^H between coils before that.
    """
    seen = np.einsum("dc,cyx->dyx", matrix, images).astype(np.complex64)
    maps = smooth_maps(calibration_scan(torch.from_numpy(seen)[None], 0.0, []), (N, N))[0].numpy()
    s, a = maps.reshape(len(maps), -1).astype(complex), dense(encoding)
    weighted = a.conj().T * encoding.weights.double().numpy().ravel()
    gram = weighted @ a
    inverse = np.linalg.inv((s.conj().T @ s) * gram + solving.REGULARIZATION * np.eye(N * N))
    image = inverse @ np.einsum("cp,cp->p", s.conj(), seen.reshape(len(s), -1) @ gram.T)
    mixed = matrix @ root
    noise = (weighted @ weighted.conj().T) * (s.conj().T @ (mixed @ mixed.conj().T) @ s)
    variance = np.einsum("pq,qr,pr->p", inverse, noise, inverse.conj(), optimize=True).real
    size = np.sqrt((np.abs(s) ** 2).sum(axis=0))
    return (size * np.abs(image)).reshape(N, N), (size * np.sqrt(variance)).reshape(N, N)


def test_prewhitening_gains_what_theory_says(learned, tmp_path):
    run = learned("unrolled")
    seq = exported(run, "gre_2d", tmp_path / "x.seq", n_slices=9)  # of one object: nine draws of the noise
    options = {"run": run, "n_coils": N_COILS, "noise_correlation": CORRELATION}
    virtual_scan.scan(seq, out=tmp_path / "quiet", **options)
    np.save(tmp_path / "none.npy", np.zeros((N_COILS, 1, 400), np.complex64))  # a noise scan that tells nothing
    # coil maps without noise, so that the image is linear in the samples
    given = {"run": run, "seq": seq, "calibration": tmp_path / "quiet" / "raw.h5", "calibration_seq": seq}
    kinds = {"plain": {"noise": tmp_path / "none.npy"}, "white": {}}
    images = {name: [] for name in kinds}
    for seed in range(N_SCANS):
        virtual_scan.scan(seq, out=tmp_path / "scan", noise=LEVEL, seed=1000 * seed, overwrite=True, **options)
        for name, more in kinds.items():
            found = reconstruct(tmp_path / "scan" / "raw.h5", out=tmp_path / "out", overwrite=True, **given, **more)
            assert found.facts.prewhitened == (name == "white")
            assert found.facts.warnings == []
            images[name].append(found.images["cg_sense"][0])

    trained = TrainedRun.load(run)
    config = trained.config
    objects = plugins.build("data", {**config.data, "n_coils": N_COILS}, config.acquisition, "test")
    coil_images = objects[len(objects) // 2].numpy()
    inside = np.linalg.norm(coil_images, axis=0) > 0.1
    apart = np.abs(np.subtract.outer(np.arange(N_COILS), np.arange(N_COILS)))
    root = LEVEL * N * np.linalg.cholesky(CORRELATION**apart)
    mixing = {"plain": np.eye(N_COILS), "white": np.linalg.inv(root) * LEVEL * N}
    snr = {}
    for name, matrix in mixing.items():
        image, deviation = predicted(coil_images, trained.encoding, matrix, root)
        # slices of one scan have one matrix, of its own noise scan; a magnitude has the noise in phase with the image
        variance = np.mean([slices.var(axis=0, ddof=1) for slices in images[name]], axis=0)
        pairs = (np.mean(images[name], axis=(0, 1)), np.sqrt(variance)), (image, deviation / math.sqrt(2))
        snr[name] = [mean[inside].mean() / np.sqrt(np.mean(noise[inside] ** 2)) for mean, noise in pairs]
        assert snr[name][0] == pytest.approx(snr[name][1], rel=0.06)  # so many draws tell it to 2 %
    gain, theory = (white / plain for white, plain in zip(snr["white"], snr["plain"], strict=True))
    assert theory > 1.3
    assert gain == pytest.approx(theory, rel=0.05)
