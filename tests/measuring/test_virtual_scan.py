"""A virtual scan of a written file: it keeps what the run promised, and other people's software agrees."""

import hashlib
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace

import ismrmrd
import numpy as np
import pytest
import torch

from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.encoding.density import density_compensation
from trajdesign.encoding.operator import Encoding, angular
from trajdesign.errors import ConfigError, InputError, OutputError
from trajdesign.exporting.proof import export
from trajdesign.learning.evaluation import evaluate
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.measuring.virtual_scan import scan
from trajdesign.pulseq.reader import player
from trajdesign.reconstruction.reconstructors.cg_sense import CGSense
from trajdesign.trajectory import Trajectory

N = 48
LATE = 2  # us
SETTINGS = [
    f"acquisition.matrix=[{N},{N}]",
    "acquisition.n_shots=4",
    "acquisition.n_samples=600",
    "init.kind=spiral",
    "parameterization.kind=bspline",
    "data.n_train=4",
    "data.n_val=2",
    "data.n_test=3",
    "training.epochs=2",
    "training.validations=1",
    "training.trajectory_rate=0.01",
    "reconstructor.channels=4",
    "reconstructor.levels=2",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run that learned, with its file ``scan.seq`` and the same one delayed, ``late.seq``."""
    folder = RunFolder(tmp_path_factory.mktemp("run") / "run")
    optimize(load_config(None, SETTINGS), folder.path, device="cpu", baseline=False)
    export(folder.trajectory(), folder.path / "scan.seq", options={"sequence": {"n_dummies": 1}})
    delay_adc(folder.path / "scan.seq", folder.path / "late.seq", LATE)
    return folder


@pytest.fixture(scope="module")
def kept(run, tmp_path_factory):
    """Return the folder of a scan of the run's own file without decay, off-resonance and noise, and what it showed."""
    folder = tmp_path_factory.mktemp("kept")
    return folder, scan(run.path / "scan.seq", run=run.path, out=folder)


def signed(body):
    return body + f"\n[SIGNATURE]\nType md5\nHash {hashlib.md5(body.encode()).hexdigest()}\n"


def delay_adc(source, to, microseconds):
    """Write a copy of a file whose ADC starts later, with a signature that fits."""
    head, table, rest = re.split(r"(\n\[ADC\]\n[^\[]*)", source.read_text().partition("\n[SIGNATURE]\n")[0])
    # a row begins with the id, the number of samples, the dwell time in ns and the delay in us
    table, n_events = re.subn(r"(?m)^( *\d+ \d+ \S+ )(\d+)", lambda r: f"{r[1]}{int(r[2]) + microseconds}", table)
    assert n_events == 4
    to.write_text(signed(head + table + rest))


def raw(folder, number=None):
    """Return signal (coil, shot, sample) and k (shot, sample, dim), in 1/FOV, of the raw data of a scan, or a slice."""
    with ismrmrd.Dataset(str(folder / "raw.h5"), create_if_needed=False) as file:
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        shots = [file.read_acquisition(i) for i in range(file.number_of_acquisitions())]
    shots = [shot for shot in shots if number in (None, shot.idx.slice)]
    shots = [shot for shot in shots if not shot.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    signal = np.stack([shot.data for shot in shots], axis=1)
    assert header.acquisitionSystemInformation.receiverChannels == len(signal)
    return signal, np.stack([shot.traj for shot in shots])


def exact_signal(images, k, fov):
    """Sum images (coil, y, x) at k (shot, sample, 2), 1/m, voxel by voxel."""
    x = (np.arange(N) - N // 2) * fov / N
    waves = [np.exp(-2j * np.pi * k[..., axis, None] * x) for axis in (0, 1)]
    return np.einsum("nsx,nsy,cyx->cns", *waves, images, optimize=True)


def misfit(found, wanted):
    """Return the relative error of `found` after the best complex scale."""
    scale = np.vdot(found, wanted) / np.vdot(found, found)
    return np.linalg.norm(scale * found - wanted) / np.linalg.norm(wanted)


def test_the_file_keeps_what_the_run_promised(run, kept):
    folder, scanned = kept
    facts = scanned.facts
    assert facts["nrmse_to_promised"] < 1e-4
    assert facts["max_k_error_fov"] < 1e-5
    config, network = run.config(), plugins.build("reconstructor", run.config().reconstructor)
    trajectory = run.load_stage("learned", network)
    tested = evaluate(trajectory, network, plugins.build("data", config.data, config.acquisition, "test"), config)
    for key in ("psnr", "ssim", "nrmse"):
        assert facts["promised"][key] == pytest.approx(tested.values(key)[1], rel=1e-4)
        assert facts["image"][key] == pytest.approx(tested.values(key)[1], rel=1e-3)
    assert np.array_equal(np.load(folder / "image.npy"), scanned.image)
    assert json.loads((folder / "scan.json").read_text()) == json.loads(json.dumps(facts))
    assert sorted(p.name for p in folder.iterdir()) == ["image.npy", "raw.h5", "reconstruction.png", "scan.json"]


@pytest.mark.parametrize("label", ["NOISE", "SEG"])
def test_a_noise_scan_is_left_out(run, kept, tmp_path, label):
    # with its label, and, under another one, because nothing is excited before it
    export(run.trajectory(), tmp_path / "x.seq", options={"sequence": {"n_dummies": 1, "noise_scan": True}})
    body = (tmp_path / "x.seq").read_text().partition("\n[SIGNATURE]\n")[0]
    assert body.count(" NOISE\n") == 2
    (tmp_path / "x.seq").write_text(signed(body.replace(" NOISE\n", f" {label}\n")))
    assert len(player.read(tmp_path / "x.seq").adcs) == 5
    for given in (None, run.path):
        scanned = scan(tmp_path / "x.seq", run=given, out=tmp_path / f"out{given is None}")
        assert scanned.facts["n_shots"] == 4
    assert scanned.facts["max_k_error_fov"] < 1e-5
    assert scanned.image == pytest.approx(kept[1].image, abs=1e-5)
    assert raw(tmp_path / "outFalse")[0] == pytest.approx(raw(kept[0])[0], rel=1e-4, abs=1e-3)


def test_noise_is_known_by_its_label_anywhere(run, tmp_path, monkeypatch):
    played = player.read(run.path / "scan.seq")
    labels = {"NOISE": np.array([0, 0, 1, 0])}
    monkeypatch.setattr(player, "read", lambda _: replace(played, labels=labels))
    assert scan(run.path / "scan.seq", out=tmp_path / "out").facts["n_shots"] == 3


def test_a_file_that_samples_late_is_caught(run, tmp_path):
    facts = scan(run.path / "late.seq", run=run.path, out=tmp_path / "out").facts
    assert facts["nrmse_to_promised"] > 0.05
    assert facts["max_k_error_fov"] > 0.1


def test_the_raw_data_are_the_exact_sums_at_the_learned_k(run, kept):
    signal, cycles = raw(kept[0])
    config, trajectory = run.config(), run.trajectory()
    images = plugins.build("data", config.data, config.acquisition, "test")[1].numpy()
    exact = exact_signal(images, trajectory.k_adc.numpy(), config.acquisition.fov[0])
    assert np.linalg.norm(signal - exact) < 1e-5 * np.linalg.norm(exact)
    assert np.allclose(cycles, trajectory.k_adc * config.acquisition.fov[0], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """Return the folder of two runs that learned under eddy currents, weak and ten times as strong, and their files."""
    path = tmp_path_factory.mktemp("eddy")
    for name, amplitude in (("weak", 0.01), ("strong", 0.1)):
        eddy = f"response={{kind='eddy_currents', amplitudes=[{amplitude}], time_constants=[2e-3]}}"
        optimize(load_config(None, [*SETTINGS, eddy]), path / name, device="cpu", baseline=False, quiet=True)
        options = {"sequence": {"n_dummies": 1}}
        export(RunFolder(path / name).trajectory(), path / f"{name}.seq", options=options)
    return path


def test_what_eddy_currents_of_other_gradients_do_is_no_fault_of_the_file(disturbed, tmp_path):
    found = {}
    for name in ("weak", "strong"):
        facts = scan(disturbed / f"{name}.seq", run=disturbed / name, out=tmp_path / name).facts
        assert (facts["is_of_run"], facts["departure"]) == (True, None)
        assert facts["max_told_k_error_fov"] < 1e-5 < facts["nrmse_to_promised"]
        assert "response to the gradients before the readout" in facts["remark"]
        assert f"moves k by up to {facts['max_k_error_fov']:.3g}/FOV" in facts["remark"]
        found[name] = facts["turns_across_slice"]
    # the model is linear, and along z both files play the same
    assert found["strong"] == pytest.approx(10 * found["weak"], rel=1e-3)
    assert f"across the slice by up to {found['strong']:.3g} cycles" in facts["remark"]


def test_a_receiver_that_is_wrong_is_told_from_the_response(disturbed, tmp_path, monkeypatch):
    played = player.read(disturbed / "weak.seq")
    adcs = list(played.adcs)
    adcs[2] = replace(adcs[2], event=replace(adcs[2].event, phase=adcs[2].event.phase + 0.5))
    monkeypatch.setattr(player, "read", lambda _: replace(played, adcs=tuple(adcs)))
    facts = scan(disturbed / "weak.seq", run=disturbed / "weak", out=tmp_path / "out").facts
    assert not facts["is_of_run"]
    assert "departs from the phase of its excitations by up to 0.5 rad" in facts["departure"]
    assert facts["remark"] is None


def test_the_raw_data_hold_every_slice(run, kept, tmp_path):
    table = {"n_slices": 3, "slice_gap": 2e-3, "n_dummies": 1}
    export(run.trajectory(), tmp_path / "x.seq", options={"sequence": table})
    levels = []
    for name, noise in (("quiet", 0.0), ("noisy", 0.05)):
        scan(tmp_path / "x.seq", run=run.path, out=tmp_path / name, noise=noise)
        with ismrmrd.Dataset(str(tmp_path / name / "raw.h5"), create_if_needed=False) as file:
            limits = ismrmrd.xsd.CreateFromDocument(file.read_xml_header()).encoding[0].encodingLimits
            shots = [file.read_acquisition(i) for i in range(file.number_of_acquisitions())]
        assert (limits.slice.minimum, limits.slice.maximum) == (0, 2)
        assert [(s.idx.slice, s.idx.kspace_encode_step_1) for s in shots] == [
            (n, i)
            for i in range(4)
            for n in (0, 2, 1)  # as the template plays them
        ]
        assert [s.scan_counter for s in shots] == list(range(12))
        first, last = ismrmrd.ACQ_FIRST_IN_SLICE, ismrmrd.ACQ_LAST_IN_SLICE
        assert [i for i, s in enumerate(shots) if s.is_flag_set(first)] == [0, 1, 2]
        assert [i for i, s in enumerate(shots) if s.is_flag_set(last)] == [9, 10, 11]
        levels.append([raw(tmp_path / name, number) for number in range(3)])
    signal, cycles = raw(kept[0])  # of the file of one slice, in which the same object lies
    quiet, noisy = levels
    for number in range(3):
        assert quiet[number][0] == pytest.approx(signal, rel=1e-4, abs=1e-3 * float(np.abs(signal).max()))
        assert quiet[number][1] == pytest.approx(cycles, abs=1e-4)
    noises = [noisy[number][0] - quiet[number][0] for number in range(3)]
    spread = [np.std(noise) for noise in noises]
    assert spread == pytest.approx([spread[0]] * 3, rel=0.05)
    assert min(spread) > 0
    for one, other in ((0, 1), (0, 2), (1, 2)):  # each slice has noise of its own
        assert abs(np.vdot(noises[one], noises[other])) < 0.05 * np.vdot(noises[one], noises[one]).real


def test_what_was_promised_is_computed_once(run, tmp_path, monkeypatch):
    export(run.trajectory(), tmp_path / "x.seq", options={"sequence": {"n_slices": 3}})
    normal, asked = Encoding.normal, []
    monkeypatch.setattr(Encoding, "normal", lambda self, images: (asked.append(self), normal(self, images))[1])
    scan(tmp_path / "x.seq", run=run.path, out=tmp_path / "out")
    assert len(asked) == 1


def test_decay_counts_from_the_excitation_and_leaves_the_echo_as_bright(run, kept, tmp_path):
    facts = scan(run.path / "scan.seq", run=run.path, out=tmp_path, t2_star=4e-3, off_resonance=90.0).facts
    definitions = player.read(run.path / "scan.seq").definitions
    assert facts["echo_time"] == pytest.approx(float(definitions["TE"]), abs=1e-9)
    (without, cycles), (decayed, _) = raw(kept[0]), raw(tmp_path)
    echo = int(np.square(cycles).sum(axis=(0, 2)).argmin())
    times = facts["echo_time"] + (np.arange(600) - echo) * 4e-6
    factor = np.exp(-times / 4e-3 - 2j * np.pi * 90 * times)
    assert np.linalg.norm(decayed - without * factor) < 1e-6 * np.linalg.norm(without)
    echo_image = scan(run.path / "scan.seq", run=run.path, out=tmp_path, t2_star=4e-3, overwrite=True).image
    assert echo_image.sum() == pytest.approx(kept[1].image.sum(), rel=0.1)  # the decay until the echo takes 60 %


def test_noise_is_seeded_and_of_the_level_of_the_raw_data(run, tmp_path):
    for seed in (1, 2):
        scan(run.path / "scan.seq", run=run.path, out=tmp_path / str(seed), noise=0.05, seed=seed)
    first, second = (raw(tmp_path / str(seed))[0] for seed in (1, 2))
    assert np.std(first - second) == pytest.approx(0.05 * N * math.sqrt(2), rel=0.03)
    scan(run.path / "scan.seq", run=run.path, out=tmp_path / "1", noise=0.05, seed=1, overwrite=True)
    assert np.array_equal(raw(tmp_path / "1")[0], first)


def test_a_fully_sampled_file_shows_the_image_without_a_run(tmp_path):
    n = 24
    config = load_config(None, ["init.kind=cartesian"])
    acquisition = replace(config.acquisition, matrix=(n, n), n_shots=n, n_samples=300)
    lines = plugins.build("init", config.init, acquisition, config.scanner)
    export(lines, tmp_path / "lines.seq", options={"sequence": {"n_dummies": 0}})
    blob = np.exp(-0.5 * (((np.indices((n, n)) - np.array([[[10]], [[14]]])) / 2.5) ** 2).sum(0))
    np.save(tmp_path / "blob.npy", blob[None])
    scanned = scan(tmp_path / "lines.seq", object=str(tmp_path / "blob.npy"), out=tmp_path / "out", n_coils=2)
    assert scanned.facts["matrix"] == (n, n)
    assert scanned.promised is None
    assert np.allclose(scanned.reference, blob / blob.max(), atol=1e-5)
    assert scanned.facts["image"]["nrmse"] < 0.01


def test_what_cannot_be_scanned(run, tmp_path, monkeypatch):
    path, out = run.path / "scan.seq", tmp_path / "out"
    body = path.read_text().partition("\n[SIGNATURE]\n")[0]
    other = tmp_path / "other.seq"
    four = replace(run.trajectory().acquisition, n_shots=3)
    few = Trajectory(run.trajectory().points[:3], four, run.trajectory().scanner)
    export(few, tmp_path / "few.seq")
    with pytest.raises(InputError, match=r"has 3 shots of 600 samples in each of 1 slice\(s\), the run 4 shots of 600"):
        scan(tmp_path / "few.seq", run=run.path, out=out)
    other.write_text(signed(re.sub(r"\nFOV .*", "", body)))
    with pytest.raises(InputError, match="lacks the definition FOV"):
        scan(other, out=out)
    other.write_text(signed(re.sub(r"\nFOV .*", "\nFOV 220 220 5", body)))
    with pytest.raises(InputError, match="is the definition FOV"):
        scan(other, out=out)
    with pytest.raises(ConfigError, match="noise is nan"):
        scan(path, out=out, noise=math.nan)
    with pytest.raises(InputError, match="no_such"):
        scan(path, out=out, object="no_such.npy")
    played = player.read(path)
    monkeypatch.setattr(player, "read", lambda _: replace(played, k=tuple(played.k_adc + np.array([0, 0, 50.0]))))
    with pytest.raises(InputError, match=r"by up to 0\.25 cycles"):
        scan(path, out=out)
    monkeypatch.setattr(player, "read", lambda _: replace(played, adcs=(), k=()))
    with pytest.raises(InputError, match="no ADC event"):
        scan(path, out=out)
    assert list(out.iterdir()) == []


def test_an_earlier_scan_is_left_alone(run, tmp_path):
    (tmp_path / "scan.json").write_text("mine")
    with pytest.raises(OutputError, match=r"scan\.json exists already"):
        scan(run.path / "scan.seq", out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["scan.json"]
    scan(run.path / "scan.seq", out=tmp_path, overwrite=True)
    assert json.loads((tmp_path / "scan.json").read_text())["n_shots"] == 4


@pytest.fixture(scope="module")
def bloch():
    """Return a function that simulates a file with MRzeroCore, by its own reader and its own physics."""
    mr0 = pytest.importorskip("MRzeroCore", reason="pip install MRzeroCore")

    def simulate(path, density, fov, t2_prime=1e9, off_resonance=0.0, echo=False):
        """Return the signal (sample,) of point voxels (y, x) of 1H, without relaxation but T2'."""
        maps = {
            "PD": density,
            "T1": 1e9,
            "T2": 1e9,
            "T2dash": t2_prime,
            "D": 0.0,
            "B0": off_resonance,
        }
        shown = {
            name: torch.tensor(np.broadcast_to(value, density.shape).T[..., None].copy(), dtype=torch.float32)
            for name, value in maps.items()
        }  # axes (x, y, z)
        one = torch.ones(1, N, N, 1)
        affine = torch.diag(torch.tensor([1e3 * fov / N, 1e3 * fov / N, 5.0, 1.0]))  # mm
        phantom = mr0.VoxelGridPhantom(**shown, B1=one, coil_sens=one, affine=affine)
        sequence = mr0.Sequence.import_file(str(path), exact_trajectories=False)
        data = phantom.build(voxel_shape="point")
        graph = mr0.compute_graph(sequence, data, 200, 1e-4) if echo else mr0.fid_graph(sequence)
        return mr0.execute_graph(graph, sequence, data, 0, 0, print_progress=False)[:, 0].numpy()

    return simulate


def shot_by_shot(found, wanted):
    """Return the largest misfit of a shot: each has its own flip and phase."""
    return max(misfit(a, b) for a, b in zip(found.reshape(wanted.shape), wanted, strict=True))


def test_mrzero_plays_the_file_as_it_was_learned(run, bloch):
    trajectory, density = run.trajectory(), np.random.default_rng(0).uniform(size=(N, N))
    fov = trajectory.acquisition.fov[0]
    exact = exact_signal(density[None], trajectory.k_adc.numpy(), fov)[0]
    assert shot_by_shot(bloch(run.path / "scan.seq", density, fov), exact) < 1e-3
    assert shot_by_shot(bloch(run.path / "late.seq", density, fov), exact) > 0.05


def test_mrzero_decays_and_dephases_as_we_do(run, bloch, tmp_path):
    acquisition = run.trajectory().acquisition
    y, x = np.indices((N, N)) / N - 0.5
    field = 120 * x + 60 * y**2 - 20
    density = np.random.default_rng(0).uniform(size=(N, N))
    np.save(tmp_path / "object.npy", density[None])
    physics = {"t2_star": 5e-3, "off_resonance": field, "n_coils": 1}
    scanned = scan(
        run.path / "scan.seq", run=run.path, object=str(tmp_path / "object.npy"), out=tmp_path / "out", **physics
    )
    data = {"kind": "images", "test": [str(tmp_path / "object.npy")], "n_coils": 1}
    (image,) = plugins.build("data", data, acquisition, "test")[0].numpy()
    assert scanned.reference == pytest.approx(np.abs(image), abs=1e-5)
    path, fov = run.path / "scan.seq", acquisition.fov[0]
    # densities are positive
    parts = [turn * bloch(path, (image / turn).real.clip(0), fov, 5e-3, field) for turn in (1, 1j, -1, -1j)]
    assert shot_by_shot(sum(parts), raw(tmp_path / "out")[0][0]) < 1e-3


def cfl(folder, name, values=None):
    """Write, or without values read, an array of BART, whose dimensions are the axes of `values` backwards."""
    if values is not None:
        values.astype("<c8").tofile(folder / f"{name}.cfl")
        (folder / f"{name}.hdr").write_text(f"# Dimensions\n{' '.join(map(str, values.shape[::-1]))}\n")
        return values
    dimensions = (folder / f"{name}.hdr").read_text().splitlines()[1].split()
    return np.fromfile(folder / f"{name}.cfl", dtype="<c8").reshape([int(n) for n in dimensions[::-1]]).squeeze()


@pytest.fixture
def bart(run, tmp_path):
    """Return a function that runs BART in a folder with the exported trajectory."""
    if not shutil.which("bart"):
        pytest.skip("bart is not installed (Debian: apt install bart)")
    export(run.trajectory(), tmp_path / "traj.cfl", format="bart")

    def call(command):
        subprocess.run(["bart", *command.split()], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        return cfl(tmp_path, command.split()[-1])

    return call


def test_bart_grids_the_raw_data_to_our_image(run, bart, tmp_path):
    ours = scan(run.path / "scan.seq", out=tmp_path / "out")
    assert ours.facts["matrix"] == (N, N)
    weights = density_compensation(angular(run.trajectory()).flatten(0, 1), (N, N)).numpy().reshape(4, 600)
    cfl(tmp_path, "weighted", (raw(tmp_path / "out")[0] * weights)[..., None])
    images = bart(f"nufft -a -d {N}:{N}:1 traj weighted images")
    assert misfit(np.linalg.norm(images, axis=0), ours.image) < 0.01


def test_bart_solves_sense_on_the_raw_data_as_we_do(run, kept, bart, tmp_path):
    signal = cfl(tmp_path, "kspace", raw(kept[0])[0][..., None])[None, ..., 0]
    encoding, config = Encoding(run.trajectory()), run.config()
    coil_images = plugins.build("data", config.data, config.acquisition, "test")[1]
    maps = coil_images / torch.linalg.vector_norm(coil_images, dim=0).clamp_min(1e-6)
    cfl(tmp_path, "maps", maps.numpy()[:, None])
    cfl(tmp_path, "pattern", encoding.weights.sqrt().numpy()[..., None])  # BART squares it
    solved = bart("pics -S -l2 -r 0 -i 10 -t traj -p pattern kspace maps solved")
    images = encoding.coil_images(encoding.weights * torch.from_numpy(signal))
    ours = CGSense(iterations=10, regularization=0.0)(images, encoding.with_maps(maps[None]))[0, 0]
    theirs = np.linalg.norm(solved * maps.numpy(), axis=0)
    assert misfit(theirs, ours.numpy()) < 0.01
    assert misfit(theirs, torch.linalg.vector_norm(coil_images, dim=0).numpy()) < 0.2


def test_the_raw_data_hold_the_noise_scan_and_every_average(run, tmp_path):
    export(run.trajectory(), tmp_path / "x.seq", options={"sequence": {"kind": "ute_2d", "n_dummies": 1}})
    export(run.trajectory(), tmp_path / "n.seq", options={"sequence": {"n_dummies": 0, "noise_scan": True}})
    found = {}
    for name in ("x", "n"):
        scan(tmp_path / f"{name}.seq", run=run.path, out=tmp_path / name, noise=0.05)
        with ismrmrd.Dataset(str(tmp_path / name / "raw.h5"), create_if_needed=False) as file:
            found[name] = [file.read_acquisition(i) for i in range(file.number_of_acquisitions())]
    assert [(s.idx.kspace_encode_step_1, s.idx.average) for s in found["x"]] == [
        (i, j) for i in range(4) for j in (0, 1)
    ]
    first, *others = (s.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT) for s in found["n"])
    assert (first, any(others), len(others)) == (True, False, 4)
    assert np.std(found["n"][0].data) == pytest.approx(0.05 * N, rel=0.1)
    # the two half pulses of a shot have noise of their own, and more, so that of the average is as told
    halves = found["x"][0].data - found["x"][1].data
    assert np.std(halves) == pytest.approx(0.05 * N * 2, rel=0.1)
