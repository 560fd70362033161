"""What the field would compute from the same images."""

import h5py
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from trajdesign import plugins
from trajdesign.config import load_config
from trajdesign.encoding import Encoding
from trajdesign.evaluation import evaluate, reconstruct
from trajdesign.interfaces import Reconstructor


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
        image = reconstruct(data[n][None], encoding, network, config)[0][0, 0].double().numpy() * 900
        psnr = peak_signal_noise_ratio(reference, image, data_range=900)
        ssim = structural_similarity(reference, image, data_range=900)
        assert scores["psnr_list"][n] == pytest.approx(psnr, rel=1e-5)
        assert scores["ssim_list"][n] == pytest.approx(ssim, abs=1e-5)
        assert scores["nrmse_list"][n] == pytest.approx(normalized_root_mse(reference, image), abs=1e-5)


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
    reconstruct(images, encoding, network, plain, seeds)
    assert network.encoding.coil_maps is None
    reconstruct(images, encoding, network, config, seeds)
    maps = network.encoding.coil_maps
    assert maps.shape == images.shape
    assert encoding.coil_maps is None
    reconstruct(images[1:2], encoding, network, config, seeds[1:2])
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
        scores[kind] = evaluate(trajectory, network, data, config)["psnr"]
    assert scores["cg_sense"] > scores["adjoint"] + 3
