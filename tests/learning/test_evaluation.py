"""What the field would compute from the same images."""

import json

import h5py
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from trajdesign.cli import console
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.data.sources.phantom import phantom
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, DivergedError, InputError
from trajdesign.interfaces import Reconstructor
from trajdesign.learning import compare
from trajdesign.learning.evaluation import evaluate, look_at, reconstruct
from trajdesign.learning.optimize import optimize
from trajdesign.learning.run_folder import RunFolder
from trajdesign.learning.trained import TrainedRun
from trajdesign.reconstruction import metrics
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reporting import report
from trajdesign.runtime.processes import Ranks


@pytest.fixture
def volume():
    """Slices (slice, y, x) of different brightness; the maximum is neither 1 nor in the first one."""
    fine = np.random.default_rng(3).normal(size=(4, 32, 32))
    smooth = np.abs(gaussian_filter(fine, (0, 2, 2)))
    return smooth / smooth.max((1, 2), keepdims=True) * np.array([150.0, 900.0, 40.0, 600.0])[:, None, None]


def write_kspace(path, volume):
    y = np.arange(32) - 16
    fourier = np.exp(-2j * np.pi * np.outer(y, y) / 32) / np.sqrt(32)
    phases = np.exp(1j * np.random.default_rng(4).normal(size=(3, 32, 32)))
    coils = volume[:, None] * phases / np.sqrt(3)
    with h5py.File(path, "w") as file:
        file["kspace"] = (fourier @ coils @ fourier.T).astype(np.complex64)


@pytest.mark.parametrize("source", ["images", "fastmri"])
def test_scores_are_those_of_scikit_image_with_the_maximum_of_the_volume(tmp_path, volume, source):
    path = tmp_path / ("a.npy" if source == "images" else "a.h5")
    np.save(path, volume) if source == "images" else write_kspace(path, volume)
    overrides = ["acquisition.matrix=[32,32]", "acquisition.n_shots=6", "acquisition.n_samples=128"]
    overrides += [f"data.kind={source}", "reconstructor.kind=adjoint", "training.normal=chain"]
    config = load_config(None, [*overrides, *(["data.slices_min_signal=0.0"] if source == "images" else [])])
    data = plugins.build("data", {**config.data, "test": [str(path)]}, config.acquisition, "test")
    trajectory = plugins.build("init", config.init, config.acquisition, config.scanner)
    network = plugins.build("reconstructor", config.reconstructor)
    encoding = Encoding(trajectory, normal="chain")
    scores = evaluate(trajectory, network, data, config)
    for n, reference in enumerate(volume):
        image = reconstruct(data[n][None], encoding, network, config.training)[0][0, 0].double().numpy() * 900
        psnr = peak_signal_noise_ratio(reference, image, data_range=900)
        ssim = structural_similarity(reference, image, data_range=900)
        assert scores.psnr_list[n] == pytest.approx(psnr, rel=1e-5)
        assert scores.ssim_list[n] == pytest.approx(ssim, abs=1e-5)
        assert scores.nrmse_list[n] == pytest.approx(normalized_root_mse(reference, image), abs=1e-5)


def fingerprints(data, config, ranks):
    return look_at({"train": data}, config, ranks)["train"]


def test_images_are_known_again_however_they_are_read_and_rounded(monkeypatch):
    overrides = ["acquisition.matrix=[32,32]", "acquisition.n_shots=6", "acquisition.n_samples=128", "data.n_test=5"]
    overrides += ["reconstructor.kind=adjoint", "training.normal=chain"]
    config = load_config(None, overrides)
    data = plugins.build("data", config.data, config.acquisition, "test")
    trajectory = plugins.build("init", config.init, config.acquisition, config.scanner)
    network = plugins.build("reconstructor", config.reconstructor)
    found = evaluate(trajectory, network, data, config).fingerprints
    signs = 2 * torch.randint(2, (*data[0].shape, 2), generator=torch.Generator().manual_seed(0)).double() - 1
    wanted = [float((torch.view_as_real(image) * signs).sum()) / np.sqrt(signs.numel()) for image in data]
    assert found == pytest.approx(wanted, abs=1e-6)
    for at_once in (1, 3):
        other = load_config(None, [*overrides, f"training.slices_at_once={at_once}"])
        assert fingerprints(data, other, Ranks()) == found
        with monkeypatch.context() as patch:
            patch.setattr(Ranks, "gather", lambda ranks, values: values)
            parts = [fingerprints(data, other, Ranks(rank, 2)) for rank in range(2)]
        assert [*parts[0], *parts[1]] == found
    images = torch.stack(list(data))
    metrics.require_same(fingerprints(images * (1 + 1e-6), config, Ranks()), found)
    with pytest.raises(InputError, match="number 0 "):
        metrics.require_same(fingerprints(images.flip(-1), config, Ranks()), found)


class Shown(Reconstructor):
    """Keeps the encoding that it is given."""

    def forward(self, images, encoding):
        self.encoding = encoding
        return images.abs().sum(dim=1, keepdim=True)


def test_networks_are_given_the_maps_of_a_scan_before_if_asked():
    overrides = ["acquisition.matrix=[32,32]", "acquisition.n_shots=6", "acquisition.n_samples=128"]
    overrides += ["data.n_train=3", "training.noise=0.02"]
    plain = load_config(None, overrides)
    config = load_config(None, [*overrides, "training.coil_maps=prescan"])
    data = plugins.build("data", config.data, config.acquisition, "train")
    encoding = Encoding(plugins.build("init", config.init, config.acquisition, config.scanner))
    images, seeds, network = torch.stack([data[i] for i in range(3)]), torch.tensor([4, 5, 6]), Shown()
    reconstruct(images, encoding, network, plain.training, seeds)
    assert network.encoding.coil_maps is None
    reconstruct(images, encoding, network, config.training, seeds)
    maps = network.encoding.coil_maps
    assert maps.shape == images.shape
    assert encoding.coil_maps is None
    reconstruct(images[1:2], encoding, network, config.training, seeds[1:2])
    torch.testing.assert_close(network.encoding.coil_maps, maps[1:2])


@pytest.mark.parametrize("coil_maps", ["self", "prescan"])
def test_maps_from_another_scan_make_cg_sense_better_than_the_adjoint(coil_maps):
    overrides = ["acquisition.matrix=[48,48]", "acquisition.n_shots=4", "acquisition.n_samples=300", "init.kind=spiral"]
    overrides += ["data.n_test=2", "data.n_coils=8", f"training.coil_maps={coil_maps}", "training.noise=0.002"]
    scores = {}
    for kind in ("adjoint", "cg_sense"):
        config = load_config(None, [*overrides, f"reconstructor.kind={kind}"])
        trajectory = plugins.build("init", config.init, config.acquisition, config.scanner)
        network = plugins.build("reconstructor", config.reconstructor)
        data = plugins.build("data", config.data, config.acquisition, "test")
        scores[kind] = evaluate(trajectory, network, data, config).psnr
    assert scores["cg_sense"] > scores["adjoint"] + 3


def with_blanks(acquisition, split):
    """Four objects; of those to test on one is black, one nearly, one grey all over."""
    images = torch.stack([phantom(acquisition, split, n_test=4, n_coils=2)[n] for n in range(4)])
    if split == "test":
        images[0], images[2] = 0, images[2] * 1e-8
        images[3] = 0.5
    return images


def without_numbers(acquisition, split):
    images = with_blanks(acquisition, split)
    images[1, 0, 3, 4] *= float("nan") if split == "test" else 1
    return images


def black(acquisition, split):
    return with_blanks(acquisition, split) * (split != "val")


BLANKS = ["acquisition.matrix=[32,32]", "acquisition.n_shots=4", "acquisition.n_samples=128", "acquisition.dwell=8e-6"]
BLANKS += ["training.epochs=1", "training.batch_size=2", "training.validations=1", "training.normal=chain"]
BLANKS += ["reconstructor.kind=adjoint", "name=blanks"]


def test_images_without_signal_are_in_no_mean_and_named(tmp_path, capsys):
    config = load_config(None, [*BLANKS, f"data.kind={__name__}:with_blanks"])
    said = []
    written = optimize(config, tmp_path / "run", device="cpu", say=said.append, quiet=True)
    assert said == [
        "test split: 3 of 4 images have no signal (number 0, 2, 3, counted from 0: their pixels differ by less than "
        "1% of the volume's maximum); they are left out of all results."
    ]
    data = with_blanks(config.acquisition, "test")
    network = plugins.build("reconstructor", config.reconstructor)
    for stage, name in (("fixed", "initial"), ("learned", "trajectory")):
        trajectory = RunFolder(tmp_path / "run").trajectory(name)
        image, reference = reconstruct(data[1:2], Encoding(trajectory, normal="chain"), network, config.training)
        psnr = peak_signal_noise_ratio(reference.double().numpy(), image.double().numpy(), data_range=1)
        assert (written.stages[stage].n, written.stages[stage].left_out) == (1, [0, 2, 3])
        assert written.stages[stage].psnr == pytest.approx(psnr, rel=1e-5)
        assert written.stages[stage].psnr_list == [written.stages[stage].psnr]
    report.draw(tmp_path / "run")
    assert "no signal or are copies: 3 (number 0, 2, 3)" in (tmp_path / "run" / "report.html").read_text()
    console.show_results(RunFolder(tmp_path / "run").results())
    assert "n = 1; 3 left out (no signal, or copies)" in capsys.readouterr().out
    rows = compare.table(compare.open_stages([f"{tmp_path / 'run'}:fixed", str(tmp_path / "run")]))
    assert [row.stage.result.left_out for row in rows] == [[0, 2, 3]] * 2


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("black", r"val split: 4 of 4 images have no signal .*; there is nothing to compare\."),
        ("without_numbers", r"image 1 of the test split has values that are not finite\."),
    ],
)
def test_images_that_nothing_can_be_compared_with_are_refused_before_the_training(tmp_path, kind, sentence):
    config = load_config(None, [*BLANKS, f"data.kind={__name__}:{kind}"])
    with pytest.raises(InputError, match=sentence):
        optimize(config, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


class Perfect(Reconstructor):
    def forward(self, images, encoding):
        return root_sum_of_squares(with_blanks(load_config(None, BLANKS).acquisition, "val")[: len(images)])


class NoNumbers(Reconstructor):
    """As long as it is tested."""

    def forward(self, images, encoding):
        return images.abs().sum(1, keepdim=True) * (1 if self.training else float("nan"))


def test_equal_images_have_a_finite_score():
    config = load_config(None, BLANKS)
    trajectory = plugins.build("init", config.init, config.acquisition, config.scanner)
    scores = evaluate(trajectory, Perfect(), with_blanks(config.acquisition, "val")[:1], config)
    assert scores.psnr == pytest.approx(-20 * np.log10(2.0**-23))  # no number of single precision differs by less


def test_a_test_image_that_is_not_finite_ends_the_run(tmp_path):
    config = load_config(None, [*BLANKS[:-2], f"reconstructor.kind={__name__}:NoNumbers", "data.n_train=2"])
    with pytest.raises(DivergedError, match="a test image as the fixed network shows it is not finite"):
        optimize(config, tmp_path / "run", device="cpu")


lists = {f"{key}_list": [0.5, 0.7] for key in ("ssim", "nrmse")}
OLDER = {"n": 2, "psnr": None, "ssim": 0.6, "nrmse": 0.6, "psnr_list": [20.5, None], **lists}


def test_scores_that_earlier_versions_could_not_write_are_no_numbers(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"name": "a", "fixed": OLDER}))
    found = RunFolder(tmp_path).results().last
    np.testing.assert_equal([found.psnr, found.psnr_list, found.left_out], [np.nan, [20.5, np.nan], []])


def test_the_motion_of_a_film_is_scored_and_weighs_in_its_loss(tmp_path):
    film = ["acquisition={matrix=[16,16], n_shots=4, n_samples=160, n_frames=4}", "data={n_train=2, n_val=1, n_test=3}"]
    film += ["training={epochs=2, batch_size=1, validations=1}", "reconstructor={channels=4, levels=1}"]
    runs = [
        optimize(load_config(None, [*film, f"training.motion_weight={weight}"]), tmp_path / str(weight), device="cpu")
        for weight in (0.0, 5.0)
    ]
    config = load_config(None, film)
    trained = TrainedRun.load(tmp_path / "5.0")
    found = []
    for number, images in enumerate(plugins.build("data", config.data, config.acquisition, "test")):
        image, reference = reconstruct(
            images[None], trained.encoding, trained.network, config.training, torch.tensor([number])
        )
        change, wanted = ((x.roll(-1, 2) - x).detach().numpy().ravel() for x in (image, reference))
        found.append(np.linalg.norm(change - wanted) / np.linalg.norm(wanted))
    assert runs[1].last.motion == pytest.approx(np.mean(found), rel=1e-4)
    assert runs[1].last.motion < runs[0].last.motion
    again = RunFolder(tmp_path / "5.0").results()
    assert again.last.motion == runs[1].last.motion


def test_motion_weighs_in_films_alone():
    with pytest.raises(ConfigError, match="films alone"):
        load_config(None, ["training.motion_weight=1.0"])
