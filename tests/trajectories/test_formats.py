"""Each format is read by the software that it is for."""

import shutil
import subprocess
import sys

import ismrmrd
import mrinufft.io
import numpy as np
import pytest
import torch

from trajdesign import Acquisition, Scanner
from trajdesign.errors import ConfigError, OutputError
from trajdesign.exporting.proof import export
from trajdesign.trajectory import Trajectory, n_points


@pytest.fixture
def trajectory():
    """Feasible at rest nowhere: Lissajous curves, with neither axis like the other."""
    acquisition = Acquisition(fov=(0.2, 0.15), matrix=(16, 12), n_shots=3, n_samples=300)
    scanner = Scanner()
    t = np.linspace(0, 1, n_points(acquisition, scanner))
    phase = np.arange(3)[:, None]
    k = np.stack([39 * np.cos(4 * t + phase), 38 * np.sin(6 * t + 0.5 * phase)], axis=-1)
    return Trajectory(torch.from_numpy(k), acquisition, scanner, "lissajous")


def test_mri_nufft_reads_our_gradients(trajectory, tmp_path):
    facts = export(trajectory, tmp_path / "shots.bin", format="neurospin")
    k, header = mrinufft.io.read_trajectory(str(tmp_path / "shots.bin"), read_shots=True, normalize_factor=None)
    assert np.allclose(k, trajectory.points, rtol=0, atol=1e-4)
    assert np.allclose(header["FOV"], trajectory.acquisition.fov)
    assert tuple(header["img_size"]) == trajectory.acquisition.matrix
    assert header["gamma"] * 1e3 == pytest.approx(trajectory.scanner.gamma, rel=1e-6)
    assert header["num_shots"] == 3
    assert header["min_osf"] == 3
    assert facts["max_slew"] <= trajectory.scanner.max_slew
    assert np.array_equal(np.load(tmp_path / "shots_k.npz")["k_adc"].shape, trajectory.k_adc.shape)


def test_a_shot_for_neurospin_starts_and_ends_at_rest_in_the_middle_of_k_space(trajectory, tmp_path):
    facts = export(trajectory, tmp_path / "shots.bin", format="neurospin")
    values = np.fromfile(tmp_path / "shots.bin", dtype="<f4").astype(float)
    cells = facts["n_prephaser"] + facts["n_readout"] + facts["n_rewinder"]
    gradient = values[-3 * cells * 2 :].reshape(3, cells, 2)
    assert np.abs(gradient).max() == pytest.approx(1)
    assert np.all(gradient[:, [0, -1]] == 0)
    moment = gradient.sum(axis=1) * values[11] * 1e-3 * values[7] * 1e-5
    assert np.abs(moment).max() < 1e-4


def test_neurospin_plays_on_ten_microseconds(trajectory, tmp_path):
    other = Scanner(gradient_raster=20e-6, block_raster=20e-6)
    slow = Trajectory(
        trajectory.points[:, : n_points(trajectory.acquisition, other)], trajectory.acquisition, other, "slow"
    )
    with pytest.raises(ConfigError, match="every 1e-05 s, not 2e-05 s"):
        export(slow.with_points(slow.points * 0 + 1.0), tmp_path / "shots.bin", format="neurospin")


def test_bart_samples_where_we_do(trajectory, tmp_path):
    if not shutil.which("bart"):
        pytest.skip("bart is not installed (Debian: apt install bart)")
    export(trajectory, tmp_path / "traj.cfl", format="bart")
    # more pixels than the matrix has: BART interpolates badly at the edge of its own k-space
    image = np.random.default_rng(0).normal(size=(20, 24))
    image.astype("<c8").tofile(tmp_path / "image.cfl")
    (tmp_path / "image.hdr").write_text("# Dimensions\n24 20 1\n")
    subprocess.run(["bart", "nufft", "traj", "image", "kspace"], cwd=tmp_path, check=True)
    sampled = np.fromfile(tmp_path / "kspace.cfl", dtype="<c8").reshape(3, 300)

    kx, ky = trajectory.k_adc.numpy().transpose(2, 0, 1)
    x, y = (np.arange(n) - n // 2 for n in (24, 20))
    waves = [np.exp(-2j * np.pi * k[..., None] * r * d) for k, r, d in ((kx, x, 0.2 / 24), (ky, y, 0.15 / 20))]
    exact = np.einsum("nsx,nsy,yx->ns", *waves, image)
    scale = np.vdot(exact, sampled) / np.vdot(exact, exact)
    assert np.linalg.norm(sampled - scale * exact) < 1e-3 * np.linalg.norm(sampled)
    assert abs(scale.imag) < 1e-4 * scale.real


def test_a_pair_of_files_appears_whole_or_not_at_all(trajectory, tmp_path):
    (tmp_path / "traj.hdr").write_text("mine")
    with pytest.raises(OutputError, match=r"traj\.hdr exists already"):
        export(trajectory, tmp_path / "traj.cfl", format="bart")
    assert [p.name for p in tmp_path.iterdir()] == ["traj.hdr"]
    export(trajectory, tmp_path / "traj.cfl", format="bart", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["traj.cfl", "traj.hdr"]
    assert (tmp_path / "traj.hdr").read_text() == "# Dimensions\n3 300 3\n"


def test_ismrmrd_reads_our_header_and_trajectory(trajectory, tmp_path):
    export(trajectory, tmp_path / "shots.h5", format="mrd", options={"field_strength": 1.5})
    with ismrmrd.Dataset(str(tmp_path / "shots.h5"), create_if_needed=False) as file:
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        shots = [file.read_acquisition(i) for i in range(file.number_of_acquisitions())]
    cycles = trajectory.k_adc.numpy() * trajectory.acquisition.fov
    assert np.allclose([shot.traj for shot in shots], cycles, rtol=0, atol=1e-6)
    assert [shot.idx.kspace_encode_step_1 for shot in shots] == [0, 1, 2]
    assert shots[0].sample_time_us == pytest.approx(4)
    assert shots[1].center_sample == np.linalg.norm(cycles[1], axis=1).argmin()
    assert [shot.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE) for shot in shots] == [False, False, True]
    (encoding,) = header.encoding
    assert encoding.trajectory == ismrmrd.xsd.trajectoryType.OTHER
    assert encoding.trajectoryDescription.userParameterString[0].value == "1/FOV"
    assert (encoding.encodedSpace.matrixSize.x, encoding.encodedSpace.matrixSize.y) == (16, 12)
    assert encoding.encodedSpace.fieldOfView_mm.y == pytest.approx(150)
    assert encoding.encodingLimits.kspace_encoding_step_1.maximum == 2
    assert header.experimentalConditions.H1resonanceFrequency_Hz == pytest.approx(63.866e6, rel=1e-4)


def test_mrd_turns_no_warnings_on():
    code = "import warnings; from trajdesign.trajectories.formats import mrd; b = warnings.filters[:]; mrd._library(); "
    subprocess.run([sys.executable, "-c", code + "assert warnings.filters == b"], check=True)


def test_mrd_refuses_a_magnet_without_a_field(trajectory, tmp_path):
    with pytest.raises(ConfigError, match="both are positive"):
        export(trajectory, tmp_path / "shots.h5", format="mrd", options={"field_strength": 0.0})
    assert list(tmp_path.iterdir()) == []
