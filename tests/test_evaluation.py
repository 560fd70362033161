"""What the field would compute from the same images."""

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from trajdesign import plugins
from trajdesign.config import load_config
from trajdesign.encoding import Encoding
from trajdesign.evaluation import evaluate, reconstruct


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
