"""Volumes and films, there and back: learned, exported, scanned, and reconstructed again."""

import json
from dataclasses import replace

import ismrmrd
import nibabel
import numpy as np
import pypulseq as pp
import pytest
import torch

from tests.measuring.test_reconstruct import nrmse
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.data.measured import reading
from trajdesign.errors import ConfigError, InputError
from trajdesign.exporting.proof import export
from trajdesign.learning import evaluation
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.trained import TrainedRun
from trajdesign.measuring import calibration, delays, field_map, places, reception
from trajdesign.measuring.reconstruct import reconstruct
from trajdesign.measuring.scanned_file import ScannedFile
from trajdesign.measuring.virtual_scan import scan
from trajdesign.physics.response import Response
from trajdesign.pulseq.reader import player
from trajdesign.reporting import drawing
from trajdesign.scanner import Scanner

N, N_COILS, N_FRAMES = 16, 5, 4
SETTINGS = (
    "acquisition.n_samples=160",
    "data.n_train=2",
    "data.n_val=1",
    "data.n_test=3",
    f"data.n_coils={N_COILS}",
    "training.epochs=1",
    "training.batch_size=1",
    "training.validations=1",
    "reconstructor.channels=4",
    "reconstructor.levels=1",
)
FILM = (f"acquisition.matrix=[{N},{N}]", "acquisition.fov=[0.2,0.2]", f"acquisition.n_frames={N_FRAMES}")
KINDS = {
    "stack": (
        f"acquisition.matrix=[{N},{N},8]",
        "acquisition.fov=[0.2,0.2,0.08]",
        "acquisition.n_shots=16",
        "init.kind=planes",
        'init.turn="golden"',
        "parameterization.kind=planes",
    ),
    "free": (
        "acquisition.matrix=[12,12,14]",
        "acquisition.fov=[0.2,0.2,0.25]",
        "acquisition.n_shots=30",
        "init.kind=radial",
        "parameterization.kind=bspline",
        "reconstructor.kind=unrolled",
        "reconstructor.iterations=2",
    ),
    "film": (
        *FILM,
        "acquisition.n_shots=12",
        "init.kind=planes",
        'init.pattern={kind="radial"}',
        'init.turn="golden"',
        "parameterization.kind=planes",
    ),
}
SEQUENCES = {"stack": "gre_3d", "free": "gre_3d", "film": "gre_2d"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that gives folder, virtual scan and images of a kind, which are made once."""
    found = {}

    def get(kind):
        if kind not in found:
            folder = tmp_path_factory.mktemp(kind)
            optimize(load_config(None, [*SETTINGS, *KINDS[kind]]), folder / "run", device="cpu", baseline=False)
            written(folder / "run", folder / "x.seq", kind=SEQUENCES[kind])
            scanned = scan(folder / "x.seq", run=folder / "run", out=folder / "scan")
            options = {"run": folder / "run", "seq": folder / "x.seq", "out": folder / "out"}
            found[kind] = folder, scanned, reconstruct(folder / "scan" / "raw.h5", **options)
        return found[kind]

    return get


def written(run, path, **sequence):
    export(RunFolder(run).trajectory(), path, options={"sequence": {"n_dummies": 1, **sequence}}, run=run)
    return path


def promised(run):
    """Return what a run makes of the object of a virtual scan, as in its test but without noise, and the object."""
    trained = TrainedRun.load(run)
    config = trained.config
    objects = plugins.build("data", config.data, config.acquisition, "test")
    coil_images = objects[len(objects) // 2][None]
    quiet = config.training.model_copy(update={"noise": 0.0})
    with torch.no_grad():
        image, _ = evaluation.reconstruct(coil_images, trained.encoding, trained.network, quiet, torch.zeros(1).long())
    return image[0, 0].numpy(), coil_images[0].numpy()


def as_image(images, kind):
    """Return an image (z or frame, y, x) of a reconstruction (frame, slice, y, x)."""
    return images[:, 0] if kind == "film" else images[0]


def sums(coil_images, k, fov):
    """Return samples (coil, sample) of an object (coil, [z,] y, x) at k (sample, dim), by exact sums."""
    waves = [
        np.exp(-2j * np.pi * k[:, axis, None] * (np.arange(n) - n // 2) * fov[axis] / n)
        for axis, n in enumerate(coil_images.shape[:0:-1])
    ]
    axes = "cyx,sx,sy->cs" if len(waves) == 2 else "czyx,sx,sy,sz->cs"
    return np.einsum(axes, coil_images, *waves, optimize=True)


def sampled(coil_images, file, acquisition, k):
    """Return what a file samples of an object (coil, event, sample), by exact sums; of a film by the label PHS."""
    fov, n_dims = acquisition.fov, acquisition.n_dims
    seen = [coil_images[:, f] for f in file.label("PHS")] if acquisition.n_frames > 1 else [coil_images] * len(k)
    return np.stack([sums(one, at[:, :n_dims], fov) for one, at in zip(seen, k, strict=True)], axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_of_the_raw_data_is_what_the_run_makes_of_the_object(made, kind):
    folder, scanned, found = made(kind)
    wanted, _ = promised(folder / "run")
    image = as_image(found.images["network"], kind)
    assert image.shape == wanted.shape == scanned.image.shape
    assert nrmse(image, wanted) < 1e-4
    assert nrmse(scanned.image, wanted) < 1e-4
    assert nrmse(wanted, wanted[::-1]) > 0.02  # slices and frames are not alike
    assert scanned.facts["is_of_run"]
    assert found.facts.is_export
    assert found.facts.warnings == []
    assert (scanned.facts.get("n_frames") == N_FRAMES) == (kind == "film")


@pytest.mark.parametrize("kind", KINDS)
def test_the_raw_data_are_the_sums_over_the_object_of_each_shot(made, kind):
    folder, *_ = made(kind)
    acquisition = RunFolder(folder / "run").trajectory().acquisition
    _, coil_images = promised(folder / "run")
    file = player.read(folder / "x.seq")
    wanted = sampled(coil_images.astype(complex), file, acquisition, file.k)
    with ismrmrd.Dataset(str(folder / "scan" / "raw.h5"), create_if_needed=False) as raw:
        events = [raw.read_acquisition(i) for i in range(raw.number_of_acquisitions())]
    assert nrmse(np.stack([event.data for event in events], axis=1), wanted) < 1e-5
    n_of_frame = acquisition.n_shots // acquisition.n_frames
    counted = [(event.idx.phase, event.idx.kspace_encode_step_1) for event in events]
    assert counted == [divmod(shot, n_of_frame) for shot in range(acquisition.n_shots)]
    k = np.stack([event.traj for event in events]) / acquisition.fov
    assert k == pytest.approx(np.stack(file.k)[..., : acquisition.n_dims], abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_files_tell_where_volumes_and_films_lie(made, kind):
    folder, _, found = made(kind)
    acquisition, out = RunFolder(folder / "run").trajectory().acquisition, folder / "out"
    images, kept = found.images["network"], np.load(out / "image.npz")
    assert np.array_equal(kept["network"], images)
    facts = json.loads((out / "reconstruct.json").read_text())
    assert (facts["n_frames"], facts["n_slices"]) == images.shape[:2]
    assert facts["matrix"] == list(acquisition.matrix)
    nifti = nibabel.load(out / "network.nii")
    wanted = images.transpose(3, 2, 1, 0)
    assert np.array_equal(np.asarray(nifti.dataobj), wanted if kind == "film" else wanted[..., 0])
    middle = [n // 2 for n in (*acquisition.matrix, 1)[:3]]
    assert nifti.affine @ [*middle, 1] == pytest.approx([0, 0, 0, 1], abs=1e-4)
    steps = 1e3 * np.array(acquisition.voxel)
    assert np.linalg.norm(nifti.affine[:3, : len(steps)], axis=0) == pytest.approx(steps, rel=1e-6)
    assert kept["affine_mm"] == pytest.approx(nifti.affine)
    with ismrmrd.Dataset(str(out / "images.h5"), create_if_needed=False) as file:
        numbers = [
            (i.repetition, i.slice) for i in (file.read_image("image_0", n) for n in range(images[:, :, 0, 0].size))
        ]
    assert numbers == list(np.ndindex(*images.shape[:2]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_in_the_same_file_gives_the_coil_maps_of_the_object(made, monkeypatch, tmp_path, kind):
    folder, *_ = made(kind)
    written(folder / "run", tmp_path / "x.seq", kind=SEQUENCES[kind], calibration=10)
    scan(tmp_path / "x.seq", run=folder / "run", out=tmp_path / "scan")
    seen, wanted = [], calibration.wanted
    monkeypatch.setattr(calibration, "wanted", lambda *given: seen.append(wanted(*given)) or seen[-1])
    options = {"run": folder / "run", "seq": tmp_path / "x.seq"}
    found = reconstruct(tmp_path / "scan" / "raw.h5", out=tmp_path / "out", **options)
    assert found.facts.coil_maps == {
        "cg_sense": "prescan", "network": "self", "calibration": str(tmp_path / "scan" / "raw.h5"), "lines": 10,
    }  # fmt: skip
    acquisition = RunFolder(folder / "run").trajectory().acquisition
    images = seen[0].coil_images(acquisition)
    # of the object itself; of a film what stands still in it
    _, objects = promised(folder / "run")
    objects = (objects.mean(1, keepdims=True) if kind == "film" else objects)[None]
    space = tuple(range(2, objects.ndim))
    centre = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(objects, axes=space), axes=space), axes=space)
    inner = tuple(slice(n // 2 - 5, n // 2 + 5) if n > 10 else slice(None) for n in centre.shape[2:])
    spectrum = torch.fft.fftn(torch.fft.ifftshift(images, dim=space), dim=space)
    measured = torch.fft.fftshift(spectrum, dim=space).numpy()
    truth = centre[(..., *inner)]
    assert measured.shape == truth.shape
    size = np.vdot(measured, truth) / np.vdot(measured, measured)
    assert nrmse(size * measured, truth) < 1e-4
    # the images made with them are those of the object, as well as with maps of the measurement itself
    plain = reconstruct(tmp_path / "scan" / "raw.h5", out=tmp_path / "self", coil_maps="self", **options)
    shown = np.sqrt((np.abs(promised(folder / "run")[1]) ** 2).sum(0))
    errors = []
    for image in (as_image(of.images["cg_sense"], kind) for of in (found, plain)):
        errors.append(nrmse(np.vdot(image, shown) / np.vdot(image, image) * image, shown))
    assert errors[0] < errors[1]


@pytest.mark.parametrize("kind", ["free", "film"])
def test_a_network_of_maps_from_a_prescan_has_those_of_the_calibration(tmp_path, kind):
    more = ("training.coil_maps=prescan", "reconstructor.kind=unrolled", "reconstructor.iterations=2")
    run, seq = tmp_path / "run", tmp_path / "x.seq"
    optimize(load_config(None, [*SETTINGS, *KINDS[kind], *more]), run, device="cpu", baseline=False)
    written(run, seq, kind=SEQUENCES[kind], calibration=24)
    scan(seq, run=run, out=tmp_path / "scan")
    found = reconstruct(tmp_path / "scan" / "raw.h5", run=run, seq=seq, out=tmp_path / "out")
    wanted, _ = promised(run)
    assert nrmse(as_image(found.images["network"], kind), wanted) < 1e-4
    alone = reconstruct(tmp_path / "scan" / "raw.h5", run=run, seq=seq, out=tmp_path / "self", coil_maps="self")
    assert nrmse(as_image(alone.images["network"], kind), wanted) > 1e-2


@pytest.mark.parametrize("kind", ["gre_2d", "bssfp_2d"])
def test_frames_are_played_in_their_order_by_both_readers(made, tmp_path, kind):
    trajectory = RunFolder(made("film")[0] / "run").trajectory()
    more = {"n_slices": 2} if kind == "gre_2d" else {}
    export(
        trajectory, tmp_path / "x.seq", options={"sequence": {"kind": kind, "n_dummies": 1, "n_averages": 2, **more}}
    )
    ours, theirs = player.read(tmp_path / "x.seq"), pp.Sequence()
    theirs.read(str(tmp_path / "x.seq"))
    k = theirs.calculate_kspace()[0].T.reshape(len(ours.adcs), -1, 3)
    labels = theirs.evaluate_labels(evolution="adc")
    n_slices, n_of_frame = more.get("n_slices", 1), 12 // N_FRAMES
    times = [adc.times[0] for adc in ours.adcs]
    assert times == sorted(times)
    for of, k_of_events in ((ours.labels, ours.k), (labels, k)):
        order = list(zip(of["AVG"], of["PHS"], of["LIN"], strict=True))
        assert order[::n_slices] == list(np.ndindex(2, N_FRAMES, n_of_frame))
        for frame, line, place in zip(of["PHS"], of["LIN"], k_of_events, strict=True):
            wanted = trajectory.frame(frame).k_adc[line].numpy()
            assert place[:, :2] == pytest.approx(wanted, abs=1e-3)


def test_slices_averages_and_noise_of_a_film(made, tmp_path):
    folder, scanned, _ = made("film")
    seq = written(folder / "run", tmp_path / "x.seq", n_slices=2, n_averages=2, noise_scan=True)
    scan(seq, run=folder / "run", out=tmp_path / "scan")
    found = reconstruct(tmp_path / "scan" / "raw.h5", run=folder / "run", seq=seq, out=tmp_path / "out")
    assert found.images["network"].shape == (N_FRAMES, 2, N, N)
    assert found.facts.n_averages == 2
    for number in range(2):
        assert nrmse(found.images["network"][:, number], scanned.image) < 1e-5


def test_a_film_of_several_heartbeats_is_the_same_film(made, tmp_path):
    folder, scanned, _ = made("film")
    seq = written(folder / "run", tmp_path / "x.seq", n_beats=3, rr=1.0)
    scan(seq, run=folder / "run", out=tmp_path / "scan")
    found = reconstruct(tmp_path / "scan" / "raw.h5", run=folder / "run", seq=seq, out=tmp_path / "out")
    assert nrmse(found.images["network"][:, 0], scanned.image) < 1e-5


def test_beats_that_agree_with_the_labels_give_the_film_of_the_labels(made, tmp_path):
    folder, _, wanted = made("film")
    file = player.read(folder / "x.seq")
    repetition = (file.excitations[-1] - file.excitations[-12]) / 11  # of the shots after the dummy
    start = file.excitations[-12] - repetition / 2
    np.savetxt(tmp_path / "beats.txt", [start - 0.5, start, start + 12 * repetition])
    options = {"run": folder / "run", "beats": tmp_path / "beats.txt", "out": tmp_path / "out"}
    found = reconstruct(folder / "scan" / "raw.h5", seq=folder / "x.seq", **options)
    assert (found.facts.gating["shots"], found.facts.gating["left_out"]) == ([3, 3], 0)
    assert found.facts.is_export
    for name, images in wanted.images.items():
        assert nrmse(found.images[name], images) < 1e-4
    # of a file that does not play the run nothing is sorted
    turned = replace(RunFolder(folder / "run").trajectory().acquisition, fov=(0.21, 0.21))
    other = plugins.build("init", {"kind": "planes", "pattern": {"kind": "radial"}}, turned, Scanner())
    export(other, tmp_path / "x.seq", options={"sequence": {"kind": "gre_2d", "n_dummies": 1}})
    with pytest.raises(InputError, match="it is another run's, or does not play it"):
        reconstruct(folder / "scan" / "raw.h5", seq=tmp_path / "x.seq", overwrite=True, **options)


def test_a_heart_of_its_own_clock_does_not_speak_against_the_file(made, tmp_path):
    folder, *_ = made("film")
    np.savetxt(tmp_path / "beats.txt", [0.0, 0.0151, 0.0282])
    facts = scan(folder / "x.seq", run=folder / "run", beats=tmp_path / "beats.txt", out=tmp_path / "scan").facts
    assert facts["nrmse_to_promised"] > 0.01  # the image of the scan is sorted by labels
    assert facts["is_of_run"]
    assert facts["departure"] is None
    assert facts["beats"] == str(tmp_path / "beats.txt")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_run_the_file_tells_what_it_is(made, tmp_path, kind):
    folder, *_ = made(kind)
    trajectory = RunFolder(folder / "run").trajectory()
    scanned = scan(folder / "x.seq", out=tmp_path / "scan", n_coils=N_COILS)
    raw = tmp_path / "scan" / "raw.h5"
    file = player.read(folder / "x.seq")
    found = reconstruct(raw, seq=folder / "x.seq", out=tmp_path / "out")
    assert tuple(scanned.facts["matrix"]) == found.facts.matrix == trajectory.acquisition.matrix
    assert as_image(found.images["adjoint"], kind).shape == scanned.image.shape == trajectory.acquisition.image_shape
    assert nrmse(as_image(found.images["adjoint"], kind), scanned.image) < 1e-4
    by_k = reconstruct(raw, k=folder / "x_k.npz", out=tmp_path / "by_k")
    assert nrmse(by_k.images["cg_sense"], found.images["cg_sense"]) < 1e-3
    told = reception.acquisition_of(
        file, np.arange(len(file.adcs))[:, None], folder / "x.seq", trajectory.acquisition.n_frames
    )
    assert told.matrix == trajectory.acquisition.matrix


@pytest.mark.parametrize("kind", ["free", "film"])
def test_a_known_field_is_that_of_the_scan(made, tmp_path, kind):
    folder, *_ = made(kind)
    acquisition = RunFolder(folder / "run").trajectory().acquisition
    *depth, n_rows, n_columns = acquisition.matrix[::-1]
    field = 60.0 * np.linspace(-1, 1, n_rows)[:, None] * np.ones((*depth, 1, n_columns))
    run, seq = folder / "run", folder / "x.seq"
    scan(seq, run=run, off_resonance=field, out=tmp_path / "scan")
    np.save(tmp_path / "field.npy", field)
    raw = reading.read(tmp_path / "scan" / "raw.h5")
    found, encodings = places.by_file(raw, seq, TrainedRun.load(run), run, {})
    there, maps = field_map.in_field(found, encodings, tmp_path / "field.npy")
    _, coil_images = promised(run)
    plain, turned = (one[0].forward(torch.from_numpy(coil_images)[None])[0] for one in (encodings, there))
    assert nrmse(turned.numpy(), found.kspace[0, 0].numpy()) < 1e-3
    assert nrmse(plain.numpy(), found.kspace[0, 0].numpy()) > 0.1
    assert np.array_equal(maps, field if kind == "free" else field[None])
    if kind == "film":
        reconstruct(raw.path, run=run, seq=seq, off_resonance=tmp_path / "field.npy", out=tmp_path / "out")
        assert np.array_equal(np.load(tmp_path / "out" / "image.npz")["off_resonance"], field[None])


def test_a_shift_moves_a_volume_in_its_planes(made, tmp_path):
    folder, *_ = made("free")
    options = {"raw": folder / "scan" / "raw.h5", "seq": folder / "x.seq"}
    x, y, _ = RunFolder(folder / "run").trajectory().acquisition.voxel
    plain = reconstruct(out=tmp_path / "plain", **options).images["adjoint"]
    moved = reconstruct(out=tmp_path / "moved", shift=(2 * x, -y), **options).images["adjoint"]
    assert moved[..., 1:, :-2] == pytest.approx(plain[..., :-1, 2:], abs=1e-4 * float(plain.max()))
    turned = reconstruct(out=tmp_path / "turned", rotate=180.0, **options).images["adjoint"]
    assert turned[..., 1:, 1:] == pytest.approx(plain[..., :0:-1, :0:-1], abs=1e-4 * float(plain.max()))


def test_the_delay_of_three_axes_is_found(made, tmp_path):
    folder, *_ = made("free")
    trajectory = RunFolder(folder / "run").trajectory()
    acquisition, file, late = trajectory.acquisition, player.read(folder / "x.seq"), [3e-6, 3e-6, 1e-6]
    _, coil_images = promised(folder / "run")
    k = torch.from_numpy(np.stack(file.k))
    data = {
        name: sampled(coil_images, file, acquisition, delays.delayed(k, acquisition.dwell, axes).numpy())
        for name, axes in (("told", [0.0] * 3), ("late", late))
    }
    for name, samples in data.items():
        np.save(tmp_path / f"{name}.npy", samples.astype(np.complex64))
    options = {"seq": folder / "x.seq"}
    told = reconstruct(tmp_path / "told.npy", out=tmp_path / "told", **options)
    given = reconstruct(tmp_path / "late.npy", delay=late, out=tmp_path / "given", **options)
    assert nrmse(given.images["cg_sense"], told.images["cg_sense"]) < 0.02
    found = reconstruct(tmp_path / "late.npy", delay="auto", out=tmp_path / "auto", **options)
    assert found.facts.delay["axes"] == pytest.approx(late, abs=1.001e-6)  # a step of the search
    one = reconstruct(tmp_path / "late.npy", delay=[2e-6], out=tmp_path / "one", **options)
    assert one.facts.delay["axes"] == [2e-6] * 3
    with pytest.raises(ConfigError, match="of x, y and z"):
        reconstruct(tmp_path / "late.npy", delay=late[:2], out=tmp_path / "two", **options)


@pytest.mark.parametrize("kind", ["free", "film"])
def test_what_volumes_and_films_have_not_is_refused(made, tmp_path, kind):
    folder, *_ = made(kind)
    run, raw = folder / "run", folder / "scan" / "raw.h5"
    options = {"run": run, "seq": folder / "x.seq", "out": tmp_path / "out"}
    np.save(tmp_path / "lines.npy", np.zeros((N_COILS, 12, 12), np.complex64))
    if kind == "free":
        with pytest.raises(InputError, match=r"is to be of a volume: give the \.seq file"):
            reconstruct(raw, calibration=tmp_path / "lines.npy", **options)
    with pytest.raises(InputError, match="third axis" if kind == "free" else "values of the counter phase"):
        reconstruct(raw, out=tmp_path / "out")
    seq = written(run, tmp_path / "x.seq", kind=SEQUENCES[kind], calibration=8)
    scan(seq, run=run, out=tmp_path / "scan")
    options = {"run": run, "seq": seq, "out": tmp_path / "out"}
    found = reconstruct(tmp_path / "scan" / "raw.h5", coil_maps="self", **options)
    assert nrmse(as_image(found.images["network"], kind), promised(run)[0]) < 1e-4


def test_a_volume_is_no_slice_and_the_frames_are_those_of_the_run(made, tmp_path):
    folder, *_ = made("free")
    acquisition = RunFolder(folder / "run").trajectory().acquisition
    flat = replace(acquisition, fov=acquisition.fov[:2], matrix=acquisition.matrix[:2])
    with pytest.raises(InputError, match="it is no file of slices"):
        ScannedFile.read(folder / "x.seq", Response({}), flat)
    film, path = made("film")[0], tmp_path / "x.seq"
    acquisition = RunFolder(film / "run").trajectory().acquisition
    file = player.read(film / "x.seq")
    everything = np.ones(len(file.adcs), dtype=bool)
    for labels in ({"PHS": np.zeros(12)}, {"PHS": file.labels["PHS"] + 1}, {"PHS": np.minimum(file.labels["PHS"], 2)}):
        other = replace(file, labels={**file.labels, **{name: of.astype(int) for name, of in labels.items()}})
        if labels["PHS"].any():
            with pytest.raises(InputError, match="label PHS"):
                reception.as_film(other, everything, path, acquisition)
        else:  # as files of before the label, in which LIN counts all
            assert reception.as_film(other, everything, path, acquisition) == (other, N_FRAMES)
    slices = replace(acquisition, n_shots=3, n_frames=1)  # to a run of slices PHS is nothing
    assert reception.as_film(file, everything, path, slices) == (file, 1)


def test_an_array_has_the_shots_of_a_film_in_the_order_of_playing(made, tmp_path):
    folder, *_ = made("film")
    trajectory = RunFolder(folder / "run").trajectory()
    _, coil_images = promised(folder / "run")
    file = player.read(folder / "x.seq")
    np.save(tmp_path / "x.npy", sampled(coil_images, file, trajectory.acquisition, file.k).astype(np.complex64))
    wanted, _ = promised(folder / "run")
    for name, seq in (("array", None), ("file", folder / "x.seq")):
        found = reconstruct(tmp_path / "x.npy", run=folder / "run", seq=seq, out=tmp_path / name)
        assert nrmse(as_image(found.images["network"], "film"), wanted) < 1e-4


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Return the folder of a run of slices."""
    run = tmp_path_factory.mktemp("flat") / "run"
    settings = [*SETTINGS, f"acquisition.matrix=[{N},{N}]", "acquisition.n_shots=2", "acquisition.fov=[0.2,0.2]"]
    settings += ["init.kind=spiral", "parameterization.kind=bspline"]
    optimize(load_config(None, settings), run, device="cpu", baseline=False)
    return run


@pytest.mark.parametrize("n", [4, 5])
def test_a_stack_of_slices_gives_what_the_run_makes_of_each(flat, tmp_path, n):
    run, seq, thickness = flat, tmp_path / "x.seq", 4e-3
    table = {"n_partitions": n, "partition_thickness": thickness, "n_averages": 2, "noise_scan": True, "calibration": 8}
    written(run, seq, kind="gre_3d", **table)
    facts = scan(seq, run=run, out=tmp_path / "scan").facts
    assert facts["is_of_run"]
    assert facts["n_slices"] == n
    trained = TrainedRun.load(run)
    acquisition = trained.trajectory.acquisition
    objects = plugins.build("data", trained.config.data, acquisition, "test")
    slices = [objects[(1 + i - n // 2) % 3] for i in range(n)]
    found = reconstruct(tmp_path / "scan" / "raw.h5", run=run, seq=seq, out=tmp_path / "out")
    wanted = [trained.promised(one)[0, 0].detach().numpy() for one in slices]
    assert max(nrmse(*pair) for pair in zip(found.images["network"][0], wanted, strict=True)) < 1e-4
    assert max(facts["nrmse_of_slices"]) < 1e-4
    assert nrmse(wanted[0], wanted[1]) > 0.1
    file, volume = player.read(seq), torch.stack(slices, dim=1).numpy()
    with ismrmrd.Dataset(str(tmp_path / "scan" / "raw.h5"), create_if_needed=False) as raw:
        events = [raw.read_acquisition(i) for i in range(raw.number_of_acquisitions())]
    for event, k, partition in list(zip(events, file.k, file.label("PAR"), strict=True))[1:]:  # the first is noise
        assert nrmse(event.data, sums(volume.astype(complex), k, (*acquisition.fov, n * thickness))) < 1e-4
        assert (event.idx.slice, event.idx.kspace_encode_step_2) == (0, partition)


def test_a_mosaic_has_its_images_row_by_row():
    images = np.arange(5 * 2 * 3, dtype=float).reshape(5, 2, 3) + 1
    found = drawing.mosaic(images)
    assert found.shape == (4, 9)
    for number, image in enumerate(images):
        row, column = divmod(number, 3)
        assert np.array_equal(found[2 * row : 2 * row + 2, 3 * column : 3 * column + 3], image)
    assert not found[2:, 6:].any()
    assert np.array_equal(drawing.mosaic(images[:1]), images[0])
