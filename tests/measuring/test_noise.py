"""Noise of a receiver: what is known by construction is found again."""

import numpy as np
import pytest
import torch

from trajdesign.measuring import noise


def drawn(n_coils, n_samples, seed=0):
    parts = np.random.default_rng(seed).standard_normal((2, n_coils, n_samples)) / np.sqrt(2)
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def test_whitened_noise_is_uncorrelated_and_as_strong_as_before():
    mixing = np.array([[2, 0, 0], [1, 1, 0], [0.5j, -1, 3]])  # variances 4, 2, 10.25
    scan = (mixing @ drawn(3, 100_000)).astype(np.complex64)
    matrix = noise.whitening(scan).numpy()
    other = matrix @ mixing @ drawn(3, 100_000, seed=1)
    covariance = other @ other.conj().T / other.shape[1]
    assert covariance == pytest.approx(np.eye(3) * 16.25 / 3, abs=0.1)


def test_a_coil_that_receives_nothing_is_left_alone():
    scan = drawn(3, 10_000)
    scan[1] = 0
    matrix = noise.whitening(scan).numpy()
    assert np.isfinite(matrix).all()
    assert matrix[1].tolist() == matrix[:, 1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("scan", [None, np.zeros((2, 100), np.complex64), drawn(8, 79)])
def test_what_tells_nothing_whitens_nothing(scan):
    assert noise.whitening(scan) is None


def test_variance_goes_with_the_bandwidth():
    scan = drawn(4, 50_000) * 3  # variance 9 at 10 us
    assert noise.variance(scan, 10e-6, 4e-6) == pytest.approx(22.5, rel=0.02)
    assert noise.variance(scan, None, 4e-6) == pytest.approx(9, rel=0.02)


def test_noise_is_found_beneath_a_signal_that_is_sampled_finely():
    time = np.linspace(-1, 1, 512)
    signal = 200 * np.exp(-50 * time**2) * np.exp(12j * time)
    kspace = torch.from_numpy(signal[None, None] + 2 * drawn(6 * 8, 512).reshape(6, 8, 512))
    assert noise.estimated_variance(kspace) == pytest.approx(4, rel=0.1)
    assert noise.estimated_variance(torch.from_numpy(signal)[None, None]) < 1e-6
