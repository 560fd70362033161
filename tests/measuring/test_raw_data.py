"""The raw data of a virtual scan: noise of the coils, calibration and averages."""

import ismrmrd
import numpy as np
import pypulseq as pp
import pytest
from test_sequences import PATTERNS, pattern
from test_virtual_scan import N, misfit, raw, run  # noqa: F401

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError
from trajdesign.exporting.proof import export
from trajdesign.measuring.raw_data import ReceiverNoise
from trajdesign.measuring.virtual_scan import scan
from trajdesign.pulseq.writer import parts
from trajdesign.scanner import Scanner

FLAT = sorted(PATTERNS.keys() - {"gre_3d"})


def readouts(folder):
    with ismrmrd.Dataset(str(folder / "raw.h5"), create_if_needed=False) as file:
        return [file.read_acquisition(i) for i in range(file.number_of_acquisitions())]


def exact(images, k, fov):
    """Sum images (coil, y, x) at k (..., 2), 1/m, voxel by voxel."""
    n = images.shape[-1]
    x = (np.arange(n) - n // 2) * fov / n
    waves = [np.exp(-2j * np.pi * k[..., axis, None] * x) for axis in (0, 1)]
    return np.einsum("...x,...y,cyx->c...", *waves, images, optimize=True)


@pytest.mark.parametrize("name", FLAT)
def test_calibration_samples_the_object_at_the_k_of_the_file(tmp_path, name):
    table = {"kind": name, "noise_scan": True, "calibration": 8, "n_dummies": 1}
    table |= {"n_slices": 3, "n_averages": 2} if name == "gre_2d" else {}
    trajectory = pattern(PATTERNS[name], Scanner(), matrix=(32, 32))
    export(trajectory, tmp_path / "x.seq", options={"sequence": table})
    facts = scan(tmp_path / "x.seq", out=tmp_path / "out", n_coils=4).facts
    assert facts["n_shots"] == 3  # averages and half pulses are none of their own
    acquisition = Acquisition(trajectory.acquisition.fov, facts["matrix"])
    slices = plugins.build("data", {"kind": "phantom", "n_coils": 4}, acquisition, "test")
    images = slices[len(slices) // 2].numpy()

    sequence = pp.Sequence(parts.system(Scanner()))
    sequence.read(str(tmp_path / "x.seq"))
    labels = sequence.evaluate_labels(evolution="adc")
    found = readouts(tmp_path / "out")
    counts = [one.number_of_samples for one in found]
    k = np.split(sequence.calculate_kspace()[0][:2].T, np.cumsum(counts)[:-1])
    flags = {name: [one.is_flag_set(getattr(ismrmrd, name)) for one in found] for name in (
        "ACQ_IS_NOISE_MEASUREMENT", "ACQ_IS_PARALLEL_CALIBRATION"
    )}  # fmt: skip
    assert flags["ACQ_IS_NOISE_MEASUREMENT"] == (labels["NOISE"] == 1).tolist()
    assert flags["ACQ_IS_PARALLEL_CALIBRATION"] == (labels["REF"] == 1).tolist()
    chosen = np.flatnonzero(labels["REF"])
    assert len(chosen) == 8 * table.get("n_slices", 1)
    for i in chosen.tolist():
        wanted = exact(images, k[i], acquisition.fov[0])
        assert np.linalg.norm(found[i].data - wanted) < 1e-5 * np.linalg.norm(wanted)
        assert found[i].traj == pytest.approx(k[i] * acquisition.fov[0], abs=1e-4)
        assert found[i].idx.kspace_encode_step_1 == labels["LIN"][i]
        assert found[i].idx.slice == labels.get("SLC", np.zeros(len(counts)))[i]
    # and so does the imaging, which the calibration leaves alone
    for i in range(chosen[-1] + 1, len(counts)):
        wanted = exact(images, k[i], acquisition.fov[0])
        assert np.linalg.norm(found[i].data - wanted) < 1e-5 * np.linalg.norm(wanted)


def test_the_calibration_decays_from_its_own_excitation(tmp_path):
    table = {"kind": "se_2d", "te": 30e-3, "calibration": 8}
    export(pattern("radial", Scanner(), matrix=(32, 32)), tmp_path / "x.seq", options={"sequence": table})
    for name, physics in (("plain", {}), ("off", {"t2_star": 8e-3, "t2": 20e-3, "off_resonance": 50.0})):
        scan(tmp_path / "x.seq", out=tmp_path / name, **physics)
    plain, off = ([one.data for one in readouts(tmp_path / name)[:8]] for name in ("plain", "off"))
    sequence = pp.Sequence(parts.system(Scanner()))
    sequence.read(str(tmp_path / "x.seq"))
    *_, excitations, _, times = sequence.calculate_kspace()
    n = len(plain[0][0])
    since = times[:n] - np.max(np.array(excitations)[np.array(excitations) < times[0]])
    factor = np.exp(-since / 8e-3 - 2j * np.pi * 50 * since)  # a gradient echo refocuses nothing
    assert np.linalg.norm(off[0] - plain[0] * factor) < 1e-5 * np.linalg.norm(plain[0])


def test_noise_is_correlated_between_neighbours_as_told(tmp_path):
    acquisition = Acquisition(matrix=(32, 32))
    noise = ReceiverNoise(0.1, acquisition, 0.6).of((4, 200_000), 3).numpy()
    covariance = noise @ noise.conj().T / noise.shape[1] / (0.1**2 * 32**2)
    distance = np.abs(np.subtract.outer(range(4), range(4)))
    assert covariance == pytest.approx(0.6**distance, abs=0.01)
    longer = ReceiverNoise(0.1, acquisition, 0.6).of((4, 200_000), 3, dwell=4 * acquisition.dwell).numpy()
    assert longer == pytest.approx(noise / 2)
    white = ReceiverNoise(0.1, acquisition).of((4, 200_000), 3).numpy()
    assert np.abs(np.cov(white) / (0.1**2 * 32**2) - np.eye(4)).max() < 0.01
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="noise_correlation is"):
            ReceiverNoise(0.1, acquisition, wrong)


def test_all_events_of_a_scan_have_the_noise_that_was_told(tmp_path):
    table = {"noise_scan": True, "calibration": 8, "n_dummies": 0}
    export(pattern("radial", Scanner(), matrix=(32, 32)), tmp_path / "x.seq", options={"sequence": table})
    for name, noise in (("quiet", 0.0), ("noisy", 0.1)):
        scan(tmp_path / "x.seq", out=tmp_path / name, n_coils=4, noise=noise, noise_correlation=0.5)
    pairs = zip(readouts(tmp_path / "noisy"), readouts(tmp_path / "quiet"), strict=True)
    noises = [noisy.data - quiet.data for noisy, quiet in pairs]
    size = np.prod(scan(tmp_path / "x.seq", out=tmp_path / "z").facts["matrix"]) * 0.1**2
    wanted = 0.5 ** np.abs(np.subtract.outer(range(4), range(4)))
    for part in (noises[:1], noises[1:9], noises[9:]):  # noise scan, calibration, imaging
        samples = np.concatenate(part, axis=1)
        spread = 5 / np.sqrt(samples.shape[1])
        assert np.abs(samples @ samples.conj().T / samples.shape[1] / size - wanted).max() < spread
    first, second = (noises[i].ravel()[:400] for i in (1, 2))
    assert abs(np.vdot(first, second)) < 0.3 * np.vdot(first, first).real  # each has its own


def test_averages_of_a_shot_are_averaged_with_less_noise(run, tmp_path):  # noqa: F811
    for n in (1, 2):
        options = {"sequence": {"n_dummies": 0, "n_averages": n, "n_slices": 2}}
        export(run.trajectory(), tmp_path / f"{n}.seq", options=options)
    one = scan(tmp_path / "1.seq", run=run.path, out=tmp_path / "1")
    two = scan(tmp_path / "2.seq", run=run.path, out=tmp_path / "2")
    assert two.facts["is_of_run"]
    assert two.image == pytest.approx(one.image, abs=1e-5)
    assert [(s.idx.average, s.idx.kspace_encode_step_1, s.idx.slice) for s in readouts(tmp_path / "2")] == [
        (a, i, n) for a in range(2) for i in range(4) for n in range(2)
    ]
    scan(tmp_path / "2.seq", run=run.path, out=tmp_path / "noisy", noise=0.05)
    noise = raw(tmp_path / "noisy")[0] - raw(tmp_path / "2")[0]
    assert np.std(noise) == pytest.approx(0.05 * N * np.sqrt(2), rel=0.05)  # that of their mean is as told
