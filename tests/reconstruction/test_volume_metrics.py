"""Metrics of volumes and films against scikit-image, slice by slice, and sums over whole volumes."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from trajdesign.reconstruction.metrics import (
    fingerprints,
    has_signal,
    image_loss,
    nrmse,
    nrmse_of_motion,
    psnr,
    ssim,
)


@pytest.fixture
def pair():
    """Two volumes (batch, 1, n, y, x), of slices that are not equally bright, with noise."""
    generator = np.random.default_rng(2)
    reference = np.abs(gaussian_filter(generator.normal(size=(2, 1, 5, 30, 21)), (0, 0, 1, 2, 2)))
    reference *= np.linspace(0.2, 1, 5)[:, None, None] * np.array([1.0, 40.0])[:, None, None, None, None]
    return reference + 0.1 * reference.mean() * generator.normal(size=reference.shape), reference


def test_metrics_of_a_volume_are_those_of_scikit_image(pair):
    image, reference = pair
    tensors = [torch.from_numpy(array) for array in pair]
    for n, (x, y) in enumerate(zip(image[:, 0], reference[:, 0], strict=True)):
        peak = y.max()
        expected = np.mean([structural_similarity(a, b, data_range=peak) for a, b in zip(x, y, strict=True)])
        assert ssim(*tensors)[n].item() == pytest.approx(expected, abs=1e-10)
        assert psnr(*tensors)[n].item() == pytest.approx(peak_signal_noise_ratio(y, x, data_range=peak), rel=1e-10)
        assert nrmse(*tensors)[n].item() == pytest.approx(normalized_root_mse(y, x), rel=1e-10)
        expected = np.mean([structural_similarity(a, b, data_range=3.0) for a, b in zip(x, y, strict=True)])
        assert ssim(*tensors, 3.0)[n].item() == pytest.approx(expected, abs=1e-10)


def test_the_loss_of_a_volume_passes_gradients():
    generator = torch.Generator().manual_seed(0)
    image, reference = (torch.rand(2, 1, 3, 8, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: image_loss(x, reference, 0.7), image.requires_grad_())


def test_motion_is_what_changes_from_frame_to_frame(pair):
    image, reference = pair
    tensors = [torch.from_numpy(array) for array in pair]
    changes = [np.diff(np.concatenate([film, film[:, :, :1]], axis=2), axis=2)[:, 0] for film in pair]
    for n in range(2):
        expected = normalized_root_mse(changes[1][n], changes[0][n])
        assert nrmse_of_motion(*tensors)[n].item() == pytest.approx(expected, rel=1e-10)
    # what is alike in all frames does not count, and their mean has 1
    still = torch.from_numpy(reference + image[:, :, 2:3])
    assert nrmse_of_motion(still, tensors[1]).tolist() == pytest.approx([0, 0], abs=1e-12)
    assert nrmse_of_motion(tensors[1].mean(2, keepdim=True).expand_as(tensors[1]), tensors[1]).tolist() == [1, 1]
    plain, weighted = (image_loss(*tensors, 0.0, motion_weight=weight).item() for weight in (0.0, 0.5))
    assert weighted - plain == pytest.approx(0.5 * np.abs(changes[0] - changes[1]).mean(), rel=1e-10)


def test_a_volume_has_signal_if_any_slice_has():
    volumes = torch.full((2, 1, 3, 8, 8), 0.3)
    volumes[1, 0, 2, 4, 4] = 0.4
    assert has_signal(volumes).tolist() == [False, True]


def test_a_volume_is_known_again_and_its_slices_have_an_order():
    volume = torch.randn(1, 2, 4, 6, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    assert fingerprints(volume) == fingerprints(volume.clone())
    assert abs(fingerprints(volume) - fingerprints(volume.flip(2))) > 0.01
