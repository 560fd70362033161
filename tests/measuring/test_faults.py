"""What is wrong with measured data is named, and sound data are not warned of: simulated by exact sums, and real."""

import re

import numpy as np
import pytest
import scipy.io
import test_reconstruct

import trajdesign as td
from benchmarks import planted
from benchmarks.measured import PARTS
from benchmarks.planted import Scan
from tests.real_data import real
from trajdesign.errors import InputError
from trajdesign.exporting.proof import export
from trajdesign.learning.run_folder import RunFolder

RADIAL, SPIRAL, IN_OUT = {"kind": "radial"}, {"kind": "spiral"}, {"kind": "spiral", "in_out": True}
ROSETTE, PROPELLER, LINES = {"kind": "rosette"}, {"kind": "propeller"}, {"kind": "cartesian"}
# Pattern, shots, samples, coils, head, noise; of 48 x 48 pixels.
SCANS = {
    "radial": Scan(RADIAL, 32, 300, 4, 0, 0.0, n=48),
    "radial with noise": Scan(RADIAL, 32, 300, 4, 5, 0.1, n=48),
    "radial, one coil": Scan(RADIAL, 40, 300, 1, 6, 0.05, n=48),
    "radial, undersampled": Scan(RADIAL, 12, 300, 8, 7, 0.02, n=48),
    "golden spokes": Scan(RADIAL | {"angle": "golden"}, 24, 300, 2, 8, 0.05, n=48),
    "centre out": Scan(RADIAL | {"centre_out": True}, 40, 200, 4, 9, 0.02, n=48),
    "spiral": Scan(SPIRAL, 8, 400, 4, 0, 0.0, n=48),
    "spiral with noise": Scan(SPIRAL, 12, 400, 8, 7, 0.1, n=48),
    "spiral, one coil": Scan(SPIRAL, 12, 400, 1, 6, 0.05, n=48),
    "denser spiral": Scan(SPIRAL | {"density": 1.5}, 16, 300, 2, 8, 0.0, n=48),
    "in and out": Scan(IN_OUT, 8, 400, 4, 5, 0.02, n=48),
    "in and out, one coil": Scan(IN_OUT, 10, 400, 1, 6, 0.0, n=48),
    "rosette": Scan(ROSETTE, 12, 400, 4, 0, 0.05, n=48),
    "propeller": Scan(PROPELLER, 12, 400, 8, 7, 0.1, n=48),
    "echo-planar": Scan({"kind": "epi"}, 12, 400, 4, 5, 0.02, n=48),
    "lines": Scan(LINES, 48, 150, 4, 0, 0.02, n=48),
    "lines, one coil": Scan(LINES, 48, 150, 1, 6, 0.0, n=48),
    "lines at random": Scan(LINES | {"spacing": "random"}, 32, 150, 8, 7, 0.05, n=48),
    "waves": Scan(LINES | {"wave": 0.5}, 16, 300, 4, 9, 0.1, n=48),
}


def brain(init, n_shots):
    """Return a scan of the measured brain of 16 coils, which has noise of its own."""
    return Scan(init, n_shots, 400, 16, real("pulseq_raw/brain_16ch_flash_128.npz"), fov=0.256)


@pytest.mark.parametrize("name", SCANS)
def test_sound_data_are_not_warned_of(name, tmp_path):
    assert planted.told(SCANS[name], SCANS[name].kspace(), tmp_path) == []


@pytest.mark.parametrize(("init", "n_shots"), [(RADIAL, 32), (SPIRAL, 8), (SPIRAL, 16), (IN_OUT, 12)])
def test_a_real_brain_is_not_warned_of(init, n_shots, tmp_path):
    scan = brain(init, n_shots)
    assert planted.told(scan, scan.kspace(), tmp_path) == []


def test_the_planted_k_is_that_of_the_trajectory():
    scan = SCANS["rosette"]
    told = scan.trajectory.k_adc.numpy()
    assert planted.k_played(scan.trajectory, 0.0) == pytest.approx(told, abs=1e-9)
    at = planted.k_played(scan.trajectory, 4e-6)  # one sample later each is where the one before it was told to be
    assert at[:, 1:] == pytest.approx(told[:, :-1], abs=1e-9)


OFTEN = ["radial", "radial with noise", "radial, one coil", "in and out", "rosette", "propeller"]
NAMED = {
    "2 us delay": [*OFTEN, "golden spokes", "in and out, one coil", "spiral"],
    "dropped shot": ["golden spokes", "denser spiral", "echo-planar", "lines, one coil"],
    "two shots swapped": [*OFTEN, "radial, undersampled", "spiral with noise", "denser spiral", "lines at random"],
    "two neighbours swapped": ["radial", "spiral with noise", "in and out", "rosette", "propeller", "lines"],
    "dead coil": ["radial with noise", "centre out", "denser spiral", "echo-planar", "lines at random"],
    "k of another run": [*OFTEN, "spiral", "in and out, one coil"],
    "half of the samples": ["radial", "lines, one coil"],
    "a shot too few": ["spiral", "lines at random"],
}


@pytest.mark.parametrize(("fault", "name"), [(fault, name) for fault, names in NAMED.items() for name in names])
def test_what_is_planted_is_named(fault, name, tmp_path):
    scan = SCANS[name]
    told = planted.told(scan, planted.FAULTS[fault][0](scan), tmp_path)
    assert any(re.search(planted.words(fault, scan), sentence) for sentence in told), told


@pytest.mark.parametrize("fault", ["two shots swapped", "k of another run", "dead coil", "dropped shot"])
def test_what_is_planted_in_a_real_brain_is_named(fault, tmp_path):
    scan = brain(SPIRAL, 16)
    told = planted.told(scan, planted.FAULTS[fault][0](scan), tmp_path)
    assert any(re.search(planted.words(fault, scan), sentence) for sentence in told), told


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("2 us delay", "lines, one coil"),  # a shift of all lines alike is a phase of the image
        ("two shots swapped", "lines, one coil"),  # each line is seen once: any order makes an image
        ("two neighbours swapped", "lines, one coil"),
    ],
)
def test_what_any_data_agree_with_is_not_named(fault, name, tmp_path):
    scan = SCANS[name]
    assert planted.told(scan, planted.FAULTS[fault][0](scan), tmp_path) == []


# --------------------------------------------------------------------------------------------------- files of a scan


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """Return a folder with a learned run, and its scan of three slices."""
    path = tmp_path_factory.mktemp("scanned")
    test_reconstruct.scanned(path, noise=0.02)
    return path


def test_slices_of_a_learned_run_are_not_warned_of(scanned, tmp_path):
    found = td.reconstruct(scanned / "scan" / "raw.h5", run=scanned / "run", out=tmp_path)
    assert found.facts.warnings == []
    assert found.facts.n_slices == 3


def test_a_file_of_another_run_is_refused(scanned, tmp_path):
    other = RunFolder(scanned / "run").trajectory()
    export(other.with_points(other.points * 0.97), tmp_path / "x.seq", options={"sequence": test_reconstruct.SEQUENCE})
    raw, run = scanned / "scan" / "raw.h5", scanned / "run"
    with pytest.raises(InputError, match="it is another run's, or does not play it"):
        td.reconstruct(raw, run=run, seq=tmp_path / "x.seq", out=tmp_path / "o")


@pytest.mark.parametrize("part", [0.3, 0.9, 0.97, 0.99])  # of the file, of which the header is 0.86
def test_a_truncated_twix_is_refused(part, tmp_path):
    whole = real("pulseq_raw/epi_basic_pe.dat").read_bytes()
    (tmp_path / "cut.dat").write_bytes(whole[: int(part * len(whole))])
    seq = real("pulseq_raw/epi_basic_pe.seq")
    with pytest.raises(InputError, match=r"cut off or damaged|no Siemens raw data file .* or damaged"):
        td.reconstruct(tmp_path / "cut.dat", seq=seq, out=tmp_path / "o")
    assert not list((tmp_path / "o").glob("*"))


def test_a_twix_of_another_sequence_is_refused(tmp_path):
    raw, seq = real("pulseq_raw/se_phantom_32ch.dat"), real("pulseq_raw/epi_basic_pe.seq")
    with pytest.raises(InputError, match=r"has 64 ADC events.* plays 96"):
        td.reconstruct(raw, seq=seq, out=tmp_path / "o")


# ---------------------------------------------------------------------------------------------------- real scans


def results(part, *names, folder):
    """Return what the benchmark of a part says of real data, or skip."""
    paths = [real(name) for name in names]
    (folder / "images").mkdir()
    return PARTS[part](paths[0].parents[1], folder, folder / "images")


def test_a_simulated_spiral_equals_its_reference(tmp_path):
    names = [f"jemris/jemris_{name}_slc90.h5" for name in ("reco_clean", "signals_clean", "signals_Susc70Mhz")]
    found = results("simulated spiral of a head, one coil", *names, folder=tmp_path)
    assert found["clean: within the brain, NRMSE"] < 0.01
    assert found["clean: CG-SENSE beside the reference, NRMSE"] < 0.07
    assert found["clean: warnings"] == "none"


def test_a_real_spiral_larger_than_its_field_of_view_is_warned_of(tmp_path):
    file = scipy.io.loadmat(real("spiral_8ch/spiral.mat"))
    k = np.stack([file["k"].real, file["k"].imag], axis=-1).swapaxes(0, 1) / 1e-3
    np.save(tmp_path / "raw.npy", file["data"].transpose(2, 1, 0).astype(np.complex64))
    np.savez(tmp_path / "raw_k.npz", k_adc=k, fov_m=[0.18, 0.18], matrix=[180, 180], dwell_s=4e-6)
    found = td.reconstruct(tmp_path / "raw.npy", k=tmp_path / "raw_k.npz", out=tmp_path / "out")
    assert re.search(r"leaves 6\d\.\d% of the data unexplained.*larger than the field of view", found.facts.warnings[0])
