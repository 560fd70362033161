"""A finished run on other data: what it says there is what the field would compute, and the run stays as it is."""

import hashlib
import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from faults.tiny import resealed, tiny
from real_data import real
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

import trajdesign as td
from trajdesign.errors import ConfigError, DivergedError, InputError, OutputError
from trajdesign.learning.optimize import optimize
from trajdesign.learning.results import StageResult
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.trained import TrainedRun
from trajdesign.reconstruction.coils import root_sum_of_squares

SHORT = ["training.epochs=1", "training.validations=1"]


def trained(path, *overrides):
    optimize(tiny(*SHORT, *overrides), path, device="cpu", quiet=True)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on phantoms of two coils, with noise."""
    return trained(tmp_path_factory.mktemp("evaluate") / "run", "training.noise=0.02", "data.n_test=5")


@pytest.fixture(scope="module")
def of_files(tmp_path_factory):
    """A run on files, one a patient; another patient's, and the folder of all."""
    path = tmp_path_factory.mktemp("of_files")
    for number, name in enumerate(("sub-1", "sub-2", "sub-3", "other")):
        np.save(path / f"{name}_a.npy", volume(number))
    files = [f"data.{split}=['{path}/sub-{n}_a.npy']" for n, split in enumerate(("train", "val", "test"), start=1)]
    trained(path / "run", "data.kind=images", "data.n_coils=3", *files)
    return path


def volume(seed, shape=(3, 40, 32)):
    """Slices (slice, y, x) of a few blobs."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    at = np.random.default_rng(seed).uniform(8, 24, (shape[0], 4, 2, 1, 1))
    return np.exp(-((y - at[:, :, 0]) ** 2 + (x - at[:, :, 1]) ** 2) / 12).sum(1).astype(np.float32)


def raw(path, n_coils=8, shape=(32, 32)):
    """Write fully sampled k-space of one slice, and return its coil images."""
    phases = np.exp(1j * np.random.default_rng(4).normal(size=(n_coils, 1, 1)))
    y, x = np.mgrid[: shape[0], : shape[1]]
    at = np.random.default_rng(5).uniform(0, 32, (n_coils, 2, 1, 1))
    sensitivities = phases * np.exp(-((y - at[:, 0]) ** 2 + (x - at[:, 1]) ** 2) / 600)
    coils = 7e-6 * volume(9, (1, *shape)) * sensitivities
    with h5py.File(path, "w") as file:
        file["kspace"] = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coils, axes=(1, 2))), axes=(1, 2))[None]
    return coils


def fourier_sum(coils, trajectory):
    """Return what coils (coil, y, x) of the field of view give at each sample (coil, shot, sample), summed exactly."""
    kx, ky = (trajectory.k_adc.detach().numpy() * np.array(trajectory.acquisition.fov)).transpose(2, 0, 1)
    at = (np.arange(32) - 16) / 32
    waves = (np.exp(-2j * np.pi * k[..., None] * at) for k in (ky, kx))
    return np.einsum("cyx,smy,smx->csm", coils, *waves)


def sums(path):
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("source", ["phantom", "faults.tiny:augmented"])
def test_its_own_data_give_the_numbers_of_the_run_to_the_last_digit(tmp_path, source):
    run = trained(tmp_path / "run", "training.noise=0.02", *([f"data.kind={source}"] if ":" in source else []))
    wanted, before = json.loads((run / "metrics.json").read_text()), sums(run)
    td.evaluate(run, out=tmp_path / "again", device="cpu", quiet=True)
    found = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    for stage in ("fixed", "learned"):
        for key in set(wanted[stage]) - {"seconds", "n_skipped"}:
            assert found[stage][key] == wanted[stage][key], (stage, key)
    assert found["wilcoxon_p"] == wanted["wilcoxon_p"]
    assert found["files"] == {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in wanted["files"]}
    assert found["is_unseen"] is True
    assert sums(run) == before


def test_raw_data_of_more_coils_are_compared_with_the_root_sum_of_squares_of_their_fourier_transform(run, tmp_path):
    coils = raw(tmp_path / "a.h5")
    set_ = ["data.kind=fastmri", f"data.test=['{tmp_path}/a.h5']", "training.noise=0"]
    found = td.evaluate(run, set_, device="cpu", quiet=True)
    reference = np.sqrt((np.abs(coils) ** 2).sum(0))
    reference /= reference.max()
    np.testing.assert_allclose(root_sum_of_squares(found.test[0][None])[0, 0], reference, atol=2e-6)
    assert found.tables()["n_coils"] == 8
    for stage, result in found.results.stages.items():
        one = TrainedRun.load(run, stage)
        kspace = fourier_sum(coils / np.sqrt((np.abs(coils) ** 2).sum(0)).max(), one.acting)
        image = one.reconstruct(torch.from_numpy(kspace), found.test[0])[0, 0].detach().double().numpy()
        assert result.psnr == pytest.approx(peak_signal_noise_ratio(reference, image, data_range=1), abs=1e-4)
        assert result.ssim == pytest.approx(structural_similarity(reference, image, data_range=1), abs=1e-5)
        assert result.nrmse == pytest.approx(normalized_root_mse(reference, image), abs=1e-5)


def test_real_raw_data_of_another_matrix_are_fitted_onto_the_runs(run):
    path = real("brain_8ch/brain_8ch_clean.h5")
    found = td.evaluate(run, ["data.kind=fastmri", f"data.test=['{path}']"], device="cpu", quiet=True)
    with h5py.File(path) as file:
        [kspace] = file["kspace"][:]
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2))), axes=(1, 2))
    square = np.pad(image, ((0, 0), (0, 0), (25, 25)))  # 230 x 180 pixels
    whole = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(square, axes=(1, 2))), axes=(1, 2))
    cut = whole[:, 115 - 16 : 115 + 16, 115 - 16 : 115 + 16]
    small = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(cut, axes=(1, 2))), axes=(1, 2))
    reference = np.sqrt((np.abs(small) ** 2).sum(0))
    np.testing.assert_allclose(root_sum_of_squares(found.test[0][None])[0, 0], reference / reference.max(), atol=1e-5)
    assert found.results.last.n == 1


def test_other_files_are_read_as_the_runs_own(of_files):
    found = td.evaluate(of_files / "run", [f"data.test=['{of_files}/other_a.npy']"], device="cpu", quiet=True)
    assert tuple(found.test[0].shape) == (3, 32, 32)
    assert found.tables()["images"] == [f"{of_files}/other_a.npy, slice {n}" for n in range(3)]
    assert found.is_unseen
    whole = np.pad(volume(3), ((0, 0), (0, 0), (4, 4)))  # 40 x 40 pixels, of whose frequencies 32 x 32 are kept
    cut = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(whole, axes=(1, 2))), axes=(1, 2))[:, 4:36, 4:36]
    wanted = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(cut, axes=(1, 2))).real, axes=(1, 2))
    references = [root_sum_of_squares(one[None])[0, 0] for one in found.test]
    np.testing.assert_allclose(references, np.maximum(wanted, 0) / wanted.max(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "save", "said"),
    [
        ("sub-1_a.npy", None, "is in data.train and in data.test"),
        ("sub-2_a.npy", None, "is in data.val and in data.test"),
        ("sub-01_later.npy", lambda path: np.save(path, volume(7)), r"patient 'sub-1' is in data\.test .*sub-01_later"),
        ("copy.npy", lambda path: np.save(path, 500 * volume(0)[:, ::-1]), "are in data.train too"),
    ],
)
def test_images_that_a_run_was_trained_on_are_refused(of_files, name, save, said):
    if save:
        save(of_files / name)
    with pytest.raises(ConfigError, match=said):
        td.evaluate(of_files / "run", [f"data.test=['{of_files}/{name}']"], device="cpu", quiet=True)


def test_a_patient_of_the_training_is_known_in_raw_data_too(of_files):
    raw(of_files / "sub_1.h5")
    with pytest.raises(ConfigError, match=r"patient 'sub-1' is in data\.test .*sub_1\.h5"):
        td.evaluate(
            of_files / "run", ["data.kind=fastmri", f"data.test=['{of_files}/sub_1.h5']"], device="cpu", quiet=True
        )


def test_it_is_said_where_the_images_of_the_training_are_gone(tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        np.save(tmp_path / f"{name}.npy", volume(number))
    files = [
        f"data.{split}=['{tmp_path}/{name}.npy']" for name, split in zip("abc", ("train", "val", "test"), strict=True)
    ]
    run = trained(tmp_path / "run", "data.kind=images", "data.n_coils=1", *files)
    (tmp_path / "a.npy").unlink()
    said = []
    found = td.evaluate(run, [f"data.test=['{tmp_path}/c.npy']"], device="cpu", quiet=True, say=said.append)
    assert [sentence for sentence in said if "not known whether" in sentence and "a.npy" in sentence]
    assert not found.is_unseen
    wanted = RunFolder(run).results().last
    assert (found.results.last.psnr_list, found.results.last.n) == (wanted.psnr_list, wanted.n)


def test_noise_and_batches_may_be_others(run):
    def psnr(*set_):
        return td.evaluate(run, set_, stage="learned", device="cpu", quiet=True).results.last.psnr_list

    own = psnr()
    assert psnr("training.batch_size=1", "training.slices_at_once=3") == pytest.approx(own, abs=1e-3)
    assert psnr("training.noise=0.02") == own
    assert all(np.array(psnr("training.noise=0.3")) < np.array(own) - 0.3)
    assert len(psnr("data.n_test=7", "data.n_coils=5")) == 7


def test_a_stage_may_be_evaluated_alone(run):
    found = td.evaluate(run, stage="fixed", device="cpu", quiet=True)
    assert list(found.results.stages) == ["fixed"]
    assert found.results.stages["fixed"].psnr == RunFolder(run).results().stages["fixed"].psnr
    assert "wilcoxon_p" not in found.tables()
    with pytest.raises(ConfigError, match="stage is 'best'"):
        td.evaluate(run, stage="best", device="cpu", quiet=True)


def test_an_evaluation_appears_whole_or_not_at_all(run, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    out, before = tmp_path / "out", sums(run)
    with pytest.raises(KeyboardInterrupt):
        td.evaluate(run, out=out, device="cpu", quiet=True, watch=stop)
    assert list(out.iterdir()) == []
    seen = []
    td.evaluate(run, out=out, device="cpu", quiet=True, watch=lambda *at: seen.append(at))
    assert seen == [(stage, done, 5) for stage in ("fixed", "learned") for done in (2, 4, 5)]
    assert {file.name for file in out.iterdir()} == {"evaluation.json", "reconstruction.png"}
    assert (out / "reconstruction.png").read_bytes().startswith(b"\x89PNG")
    made = sums(out)
    with pytest.raises(OutputError, match="exists already"):
        td.evaluate(run, out=out, device="cpu", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        td.evaluate(run, out=out, device="cpu", quiet=True, overwrite=True, watch=stop)
    assert sums(out) == made
    td.evaluate(run, ["data.n_test=2"], out=out, device="cpu", quiet=True, overwrite=True)
    assert StageResult.from_tables(json.loads((out / "evaluation.json").read_text())["learned"]).n == 2
    for inside in (run, run / "figures"):
        with pytest.raises(ConfigError, match="is in the run folder"):
            td.evaluate(run, out=inside, device="cpu", quiet=True, overwrite=True)
    assert sums(run) == before


def test_an_image_that_is_no_number_is_no_result(run, tmp_path):
    folder = RunFolder(shutil.copytree(run, tmp_path / "run"))
    network = TrainedRun.load(run).network
    for weights in network.parameters():
        weights.data.fill_(float("nan"))
    folder.save_network(network)
    resealed(folder)
    with pytest.raises(DivergedError, match="as the learned network shows it is not finite"):
        td.evaluate(folder.path, out=tmp_path / "out", device="cpu", quiet=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_no_finished_run_is_refused(tmp_path):
    RunFolder(tmp_path / "run").create(tiny())
    with pytest.raises(InputError, match=r"metrics\.json"):
        td.evaluate(tmp_path / "run", quiet=True)
