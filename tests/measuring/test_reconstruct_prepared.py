"""The whole way with a calibration, a noise scan of its own, and fewer coils; and a real brain."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.measuring.test_reconstruct import N_COILS, N, nrmse, scanned
from tests.real_data import real
from trajdesign.cli.app import app
from trajdesign.config import plugins
from trajdesign.data.measured import reading
from trajdesign.encoding.nufft import nufft
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning.run_folder import RunFolder
from trajdesign.measuring.reconstruct import reconstruct

UNROLLED = ["reconstructor.kind=unrolled", "reconstructor.iterations=2"]
NOISE_SCAN = {"n_dummies": 2, "noise_scan": True}


def lines(run, n=24):
    """Return the centre of k-space (coil, line, sample) of the object that a virtual scan for a run has."""
    config = RunFolder(run).config()
    images = plugins.build("data", config.data, config.acquisition, "test")[1].to(torch.complex128)
    at = (torch.arange(n, dtype=torch.float64) - n // 2) * 2 * np.pi / N
    ky, kx = torch.meshgrid(at, at, indexing="ij")
    return nufft(images, torch.stack([kx, ky], dim=-1).flatten(0, 1)).view(N_COILS, n, n).to(torch.complex64).numpy()


@pytest.fixture(scope="module", params=["prescan", "espirit"])
def trained(request, tmp_path_factory):
    """Return the kind of a run's coil maps, its folder, and what a scan of one slice shows."""
    if request.param == "espirit":
        pytest.importorskip("sigpy", reason="the extra espirit is not installed")
    path = tmp_path_factory.mktemp(request.param)
    return request.param, path, scanned(path, *UNROLLED, f"training.coil_maps={request.param}", sequence=NOISE_SCAN)


def test_a_calibration_gives_the_coil_maps_of_training(trained, tmp_path):
    kind, path, wanted = trained
    np.save(tmp_path / "cal.npy", lines(path / "run"))
    options = {"run": path / "run", "calibration": tmp_path / "cal.npy"}
    found = reconstruct(path / "scan" / "raw.h5", out=tmp_path / "out", **options)
    assert nrmse(found.images["network"][0, 0], wanted.image) < 1e-5
    told = {"cg_sense": kind, "network": kind, "calibration": str(tmp_path / "cal.npy"), "lines": 24}
    assert found.facts.coil_maps == told
    assert found.facts.warnings == []
    without = reconstruct(path / "scan" / "raw.h5", run=path / "run", out=tmp_path / "without")
    assert without.facts.coil_maps == {"cg_sense": "self", "network": kind, "calibration": None, "lines": None}
    assert any("calibration scan, and there is none" in warning for warning in without.facts.warnings)
    # maps from the image of CG-SENSE are others
    assert 1e-5 < nrmse(without.images["network"][0, 0], wanted.image) < 0.2


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Return the folder of a run and of a noisy scan."""
    path = tmp_path_factory.mktemp("noisy")
    scanned(path, noise=0.02, sequence=NOISE_SCAN)
    return path


def test_a_noise_scan_of_its_own_serves_as_that_of_the_file(noisy, tmp_path):
    raw = reading.read(noisy / "scan" / "raw.h5")
    np.save(tmp_path / "noise.npy", raw.events[:1].swapaxes(0, 1))  # (coil, shot, sample)
    kept = reconstruct(noisy / "scan" / "raw.h5", run=noisy / "run", out=tmp_path / "kept")
    own = reconstruct(noisy / "scan" / "raw.h5", run=noisy / "run", noise=tmp_path / "noise.npy", out=tmp_path / "own")
    assert own.facts.noise_scan == str(tmp_path / "noise.npy")
    assert kept.facts.noise_scan is None
    assert kept.facts.prewhitened
    assert own.facts.noise == pytest.approx(kept.facts.noise, rel=1e-12)
    assert np.array_equal(own.images["network"], kept.images["network"])


def test_a_noise_scan_of_half_the_dwell_time_tells_of_as_much_noise(noisy, tmp_path):
    """Twice the bandwidth has twice the variance; ISMRMRD files tell their dwell time."""
    wanted = reconstruct(noisy / "scan" / "raw.h5", run=noisy / "run", out=tmp_path / "a").facts
    ismrmrd = pytest.importorskip("ismrmrd", reason="the extra mrd is not installed")
    with ismrmrd.Dataset(str(noisy / "scan" / "raw.h5"), create_if_needed=False) as file:
        header, one = file.read_xml_header(), file.read_acquisition(0)
    one.data[:] *= np.float32(np.sqrt(2))
    one.sample_time_us /= 2
    with ismrmrd.Dataset(str(tmp_path / "noise.h5")) as file:
        file.write_xml_header(header)
        file.append_acquisition(one)
    found = reconstruct(
        noisy / "scan" / "raw.h5", run=noisy / "run", noise=tmp_path / "noise.h5", out=tmp_path / "b"
    ).facts
    assert found.noise == pytest.approx(wanted.noise, rel=1e-3)


def test_all_virtual_coils_give_the_images_of_all_coils(noisy, tmp_path):
    """The combination of coils does not see a rotation of them; the power that fewer keep is told."""
    raw, run = noisy / "scan" / "raw.h5", noisy / "run"
    plain, same, fewer = (
        reconstruct(raw, run=run, coils=n, out=tmp_path / str(n)) for n in (None, N_COILS, N_COILS - 1)
    )
    for name, image in plain.images.items():
        assert nrmse(same.images[name], image) < 1e-3, name
        assert nrmse(fewer.images[name], image) < 0.1, name
    facts = [(one.facts.n_coils, one.facts.n_virtual_coils) for one in (plain, same, fewer)]
    assert facts == [(N_COILS, N_COILS), (N_COILS, N_COILS), (N_COILS, N_COILS - 1)]
    assert plain.facts.kept_by_compression == 1
    assert 0.9 < fewer.facts.kept_by_compression < same.facts.kept_by_compression == pytest.approx(1)


def test_the_command_has_the_same_options(noisy, tmp_path):
    raw, run = noisy / "scan" / "raw.h5", noisy / "run"
    np.save(tmp_path / "cal.npy", lines(run, 16))
    np.save(tmp_path / "noise.npy", reading.read(raw).events[:1].swapaxes(0, 1))
    command = ["reconstruct", str(raw), "--run", str(run), "--out", str(tmp_path / "o"), "--coils", "3"]
    command += ["--calibration", str(tmp_path / "cal.npy"), "--noise", str(tmp_path / "noise.npy")]
    found = CliRunner().invoke(app, [*command, "--coil-maps", "prescan"])
    assert found.exit_code == 0, found.stderr
    assert "compressed to 3" in found.stdout
    assert "Coil maps of CG-SENSE are from 16 lines of" in found.stdout
    document = json.loads(CliRunner().invoke(app, [*command, "--force", "--json"]).stdout)
    assert document["n_virtual_coils"] == 3
    assert document["noise_scan"] == str(tmp_path / "noise.npy")
    assert document["coil_maps"]["cg_sense"] == "prescan"
    with pytest.raises(ConfigError, match="leave it or the calibration out"):
        CliRunner().invoke(app, [*command, "--force", "--coil-maps", "self"], catch_exceptions=False)
    seq = ["--calibration-seq", str(tmp_path / "none.seq")]
    with pytest.raises(InputError, match=r"none\.seq"):
        CliRunner().invoke(app, [*command, "--force", *seq], catch_exceptions=False)


def test_fewer_lines_than_in_training_are_told(trained, tmp_path):
    _, path, _ = trained
    np.save(tmp_path / "cal.npy", lines(path / "run", 16))
    options = {"run": path / "run", "calibration": tmp_path / "cal.npy"}
    found = reconstruct(path / "scan" / "raw.h5", out=tmp_path / "out", **options)
    assert any("16 lines, training's coil maps were of 24" in warning for warning in found.facts.warnings)


def spokes(n_shots, n_samples, k_max):
    angle = np.arange(n_shots) * np.pi / n_shots
    radius = np.linspace(-1, 1, n_samples, endpoint=False) * k_max
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]


def test_a_real_brain_gains_by_a_calibration(tmp_path):
    """Of 16 spokes ESPIRiT's maps leave less unexplained, and the head is nearer to the image of all data."""
    path = real("pulseq_raw/brain_16ch_flash_128.npz")
    pytest.importorskip("sigpy", reason="the extra espirit is not installed")
    kspace = np.load(path)["kspace"].astype(np.complex128)
    n, n_spokes, fov, axes = 128, 16, 0.256, (-2, -1)
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes)), axes=axes)
    full = np.sqrt((np.abs(images) ** 2).sum(axis=0))
    k = spokes(n_spokes, 2 * n, n / (2 * fov))
    samples = nufft(torch.from_numpy(images), torch.from_numpy(k.reshape(-1, 2) * 2 * np.pi * fov / n))
    np.save(tmp_path / "x.npy", samples.view(16, n_spokes, 2 * n).to(torch.complex64).numpy())
    np.savez(tmp_path / "x_k.npz", k_adc=k, fov_m=[fov, fov], matrix=[n, n], dwell_s=1e-5)
    middle = slice(n // 2 - 12, n // 2 + 12)
    np.save(tmp_path / "cal.npy", kspace[:, middle, middle].astype(np.complex64))
    psnr, left = {}, {}
    for kind, options in (("self", {}), ("espirit", {"calibration": tmp_path / "cal.npy", "coil_maps": "espirit"})):
        found = reconstruct(tmp_path / "x.npy", k=tmp_path / "x_k.npz", coils=8, out=tmp_path / kind, **options)
        image, head = found.images["cg_sense"][0, 0], full > 0.1 * full.max()
        error = image * (image * full).sum() / np.square(image).sum() - full
        psnr[kind] = 10 * np.log10(full.max() ** 2 / np.mean(error[head] ** 2))
        left[kind] = found.facts.residual["cg_sense"]["total"]
        assert found.facts.kept_by_compression > 0.99
        assert found.facts.warnings == []
    assert psnr["espirit"] > psnr["self"] + 0.5
    assert left["espirit"] < 0.7 * left["self"]
