"""What coils receive, against direct sums."""

import math

import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.voxel_signal import receiver_noise, signal
from trajdesign.errors import ConfigError

ACQUISITION = Acquisition(fov=(0.2, 0.15), matrix=(12, 9), n_shots=2, n_samples=40)


def drawn(seed=0):
    """Return coil images (coil, y, x), k (shot, sample, 2) and times (shot, sample) with nothing in common."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(3, 9, 12)) + 1j * rng.normal(size=(3, 9, 12))
    k = rng.uniform(-1, 1, size=(2, 40, 2)) * ACQUISITION.k_max
    return images, k, 3e-3 + rng.uniform(0, 8e-3, size=(2, 40))


def direct(images, k, times, t2_star, off_resonance):
    """Sum over the voxels, as the equation is written."""
    y, x = np.meshgrid((np.arange(9) - 4) * 0.15 / 9, (np.arange(12) - 6) * 0.2 / 12, indexing="ij")
    cycles = k[..., 0, None, None] * x + k[..., 1, None, None] * y + off_resonance * times[..., None, None]
    received = np.einsum("cyx,styx->cst", images, np.exp(-2j * np.pi * cycles))
    return received * np.exp(-times / t2_star)


def received(images, k, times, **physics):
    tensors = (torch.from_numpy(array) for array in (images, k, times))
    return signal(*tensors, ACQUISITION, **physics).numpy()


@pytest.mark.parametrize("reach", [0.0, 1e-3, 60.0, 3000.0, 25e3])
@pytest.mark.parametrize("t2_star", [math.inf, 5e-3])
def test_a_rough_map_of_any_strength_is_summed_exactly(reach, t2_star):
    images, k, times = drawn()
    field = 40 + reach * np.random.default_rng(1).uniform(-1, 1, size=(9, 12))
    found = received(images, k, times, t2_star=t2_star, off_resonance=field)
    exact = direct(images, k, times, t2_star, field)
    assert np.linalg.norm(found - exact) < 1e-9 * np.linalg.norm(exact)


def test_one_frequency_is_a_map_of_it():
    images, k, times = drawn()
    one = received(images, k, times, off_resonance=-70.0)
    exact = direct(images, k, times, math.inf, -70.0)
    assert np.linalg.norm(one - exact) < 1e-10 * np.linalg.norm(exact)


def test_noise_has_the_level_of_a_pixel_in_a_fully_sampled_image():
    acquisition = Acquisition(matrix=(64, 64))
    kspace = receiver_noise((8, 64, 64), 0.03, acquisition, 5).numpy()
    pixels = np.fft.ifft2(kspace)  # each of N samples has the weight 1 / N
    assert np.std(pixels) == pytest.approx(0.03, rel=0.02)
    assert np.std(pixels.real) == pytest.approx(np.std(pixels.imag), rel=0.03)
    assert np.array_equal(kspace, receiver_noise((8, 64, 64), 0.03, acquisition, 5))
    assert not np.array_equal(kspace, receiver_noise((8, 64, 64), 0.03, acquisition, 6))


@pytest.mark.parametrize(
    ("physics", "words"),
    [
        ({"t2_star": 0.0}, "t2_star is 0 s; it must be positive"),
        ({"t2_star": math.nan}, "t2_star is nan"),
        ({"off_resonance": np.zeros((12, 9))}, r"shape \(12, 9\), the image \(y, x\) = \(9, 12\)"),
        ({"off_resonance": math.inf}, "not finite, or beyond 100000 Hz"),
        ({"off_resonance": np.full((9, 12), math.nan)}, "not finite"),
        ({"off_resonance": np.linspace(-1e5, 1e5, 108).reshape(9, 12)}, r"apart by 1[56]\d\d cycles"),  # over 8 ms
    ],
)
def test_physics_that_cannot_be(physics, words):
    with pytest.raises(ConfigError, match=words):
        received(*drawn(), **physics)
