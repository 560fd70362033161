"""Samples that are ready to be reconstructed: what theory says that prewhitening gains, and that compression keeps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.data import receiver
from trajdesign.errors import ConfigError, InputError
from trajdesign.measuring import calibration, preparing, solving
from trajdesign.measuring.assignment import Assigned
from trajdesign.reconstruction.coils import calibration_scan, smooth_maps
from trajdesign.reconstruction.sense import conjugate_gradients

N, N_COILS = 16, 16
ACQUISITION = Acquisition((0.2, 0.2), (N, N), 10, 24, 4e-6)


def drawn(shape, seed):
    parts = np.random.default_rng(seed).standard_normal((2, *shape)) / math.sqrt(2)
    return parts[0] + 1j * parts[1]


def spokes():
    """Return k (shot, sample, 2) of spokes, 1/m, too few for a whole image of one coil."""
    angle = np.arange(ACQUISITION.n_shots) * np.pi / ACQUISITION.n_shots
    radius = np.linspace(-1, 1, ACQUISITION.n_samples, endpoint=False) * ACQUISITION.k_max[0]
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]


@pytest.fixture(scope="module")
def scene():
    """Return coil images (coil, y, x), the encoding, and the root of the covariance of the coils' noise."""
    y, x = np.mgrid[:N, :N] - N // 2
    magnitude = ((x / 6) ** 2 + (y / 7) ** 2 < 1) * np.random.default_rng(0).uniform(0.5, 1, (N, N))
    images = receiver.receive(magnitude.astype(np.float32), N_COILS, np.random.default_rng(1))
    # neighbours share a third of their noise, and some coils have three times that of others
    apart = np.abs(np.subtract.outer(np.arange(N_COILS), np.arange(N_COILS)))
    size = 1 + 2 * (np.arange(N_COILS) % 3 == 0)
    root = np.linalg.cholesky(size[:, None] * 0.6**apart * size)
    return images, solving.encoding_at(torch.from_numpy(spokes()), ACQUISITION), root


def dense():
    """Return the Fourier sums (sample, pixel) of all samples."""
    position = (np.arange(N) - N // 2) * ACQUISITION.voxel[0]
    ky, kx = (spokes()[..., axis].reshape(-1, 1) for axis in (1, 0))
    along = [np.exp(-2j * np.pi * k * position) for k in (ky, kx)]
    return np.einsum("sy,sx->syx", *along).reshape(-1, N * N)


def assigned(kspace, noise):
    samples = torch.from_numpy(np.asarray(kspace)).to(torch.complex64)[None, None]
    return Assigned(samples, ACQUISITION, noise=noise)


def calibrated(images):
    kspace = calibration_scan(images[None], 0.0, [])
    n = kspace.shape[-1]
    ky, kx = np.mgrid[:n, :n] - n // 2
    k = torch.from_numpy(np.stack([kx, ky], axis=-1) / np.array(ACQUISITION.fov))
    return calibration.Calibration(kspace, k[None], "cal")


def predicted(seen, weights, mixed):
    """Return image and standard deviation of each pixel of regularized SENSE of coil images (coil, y, x), by matrices.

    x = (sum_c S_c^H A^H W A S_c + r)^-1 sum_c S_c^H A^H W y_c, with noise of covariance mixed mixed^H between coils.
    """
    maps = smooth_maps(calibration_scan(torch.from_numpy(seen)[None], 0.0, []), (N, N))[0].numpy()
    a, s = dense(), maps.reshape(len(maps), -1).astype(complex)
    weighted = a.conj().T * weights
    gram = weighted @ a
    normal = (s.conj().T @ s) * gram + solving.REGULARIZATION * np.eye(N * N)
    inverse = np.linalg.inv(normal)
    image = inverse @ np.einsum("cp,cp->p", s.conj(), seen.reshape(len(s), -1) @ gram.T)
    # x = sum_d inverse (sum_c S_c^H mixed_cd) A^H W e_d of independent e_d
    of_coils = mixed.T @ s.conj()
    variance = sum((np.abs((inverse * one) @ weighted) ** 2).sum(axis=1) for one in of_coils)
    return image.reshape(N, N), np.sqrt(variance).reshape(N, N)


def measured(images, encoding, root, scan):
    """Return image and standard deviation of each pixel as `reconstruct` has them, by 100 scans of noise alone."""
    signal = encoding.forward(images[None])[0]
    ready = preparing.prepared(assigned(signal, scan), [encoding], calibrated(images))
    solver = solving.Solver(encoding, None, ready.calibration[0], "prescan")
    noise = torch.from_numpy(np.einsum("dc,ncst->ndst", root, drawn((100, *signal.shape), 3)))
    matrix = preparing.noise.whitening(scan)
    noise = noise if matrix is None else calibration.transformed(noise, matrix)
    # the solver is linear in the samples once it has its maps
    maps, sense = solver.sense.coil_maps, solver.sense
    adjoints = encoding.coil_images(encoding.weights * noise.to(torch.complex64)), ready.adjoints[0][0] * ready.scale
    image, noisy = (
        conjugate_gradients(
            lambda v: sense.normal(v) + solving.REGULARIZATION * v,
            (maps.conj() * one).sum(dim=1, keepdim=True),
            solving.ITERATIONS,
        )[:, 0].numpy()
        for one in reversed(adjoints)
    )
    return image[0], np.sqrt(np.mean(np.abs(noisy) ** 2, axis=0))


def test_prewhitening_gains_what_theory_says(scene):
    images, encoding, root = scene
    inside = np.linalg.norm(images.numpy(), axis=0) > 0
    scan = (root @ drawn((N_COILS, 20_000), 2)).astype(np.complex64)
    whitening = np.linalg.inv(root) * math.sqrt(np.mean(np.diag(root @ root.T)))
    weights = encoding.weights.double().numpy().ravel()
    snr = {}
    for name, matrix, of_scan in (("plain", np.eye(N_COILS), None), ("white", whitening, scan)):
        seen = np.einsum("dc,cyx->dyx", matrix, images.numpy()).astype(np.complex64)
        wanted, found = predicted(seen, weights, matrix @ root), measured(images, encoding, root, of_scan)
        assert np.linalg.norm(np.abs(found[0]) - np.abs(wanted[0])) < 0.02 * np.linalg.norm(wanted[0])
        assert found[1][inside].mean() == pytest.approx(wanted[1][inside].mean(), rel=0.02)
        snr[name] = [(np.abs(image) / deviation)[inside] for image, deviation in (found, wanted)]
    gain, theory = (white.mean() / plain.mean() for white, plain in zip(snr["white"], snr["plain"], strict=True))
    assert theory > 1.3
    assert gain == pytest.approx(theory, rel=0.05)


def test_compression_keeps_what_coils_share(scene):
    images, encoding, _ = scene
    mixed = torch.from_numpy(drawn((N_COILS, 3), 5)).to(torch.complex64)  # 16 coils that see three images
    kspace = torch.einsum("dc,csn->dsn", mixed, encoding.forward(images[None, :3])[0])
    ready = preparing.prepared(assigned(kspace, None), [encoding], n_coils=3)
    whole = preparing.prepared(assigned(kspace, None), [encoding])
    assert ready.kspace.shape == (1, 1, 3, 10, 24)
    assert ready.kept == pytest.approx(1, abs=1e-6)
    size = [one.kspace.norm(dim=2) * one.scale for one in (ready, whole)]
    assert torch.allclose(*size, atol=1e-5 * float(size[1].max()))
    # two of them hold what the singular values say
    values = np.linalg.svd(kspace.numpy().reshape(N_COILS, -1), compute_uv=False) ** 2
    fewer = preparing.prepared(assigned(kspace, None), [encoding], n_coils=2)
    assert fewer.kept == pytest.approx(values[:2].sum() / values.sum(), rel=1e-5)


def test_white_noise_stays_white_in_virtual_coils(scene):
    images, encoding, root = scene
    scan = (root @ drawn((N_COILS, 50_000), 2)).astype(np.complex64)
    noise = np.einsum("dc,csn->dsn", root, drawn((N_COILS, 10, 24), 3))
    signal = encoding.forward(images[None])[0].numpy() * 1e3
    ready = preparing.prepared(assigned(signal + noise, scan), [encoding], n_coils=8)
    clean = preparing.prepared(assigned(signal, scan), [encoding], n_coils=8)
    # of both the same coils, but for their phases
    left = [one.kspace[0, 0].numpy().reshape(8, -1) * one.scale for one in (ready, clean)]
    left[1] *= np.exp(1j * np.angle((left[0] * left[1].conj()).sum(axis=1, keepdims=True)))
    assert np.mean(np.abs(left[0] - left[1]) ** 2) == pytest.approx(np.mean(np.diag(root @ root.T)), rel=0.15)


def test_a_calibration_has_the_coils_of_the_measurement(scene):
    images, encoding, root = scene
    scan = (root @ drawn((N_COILS, 20_000), 2)).astype(np.complex64)
    kspace = encoding.forward(images[None])[0]
    ready = preparing.prepared(assigned(kspace, scan), [encoding], calibrated(images), n_coils=6)
    low = ready.calibration[0]
    # the calibration has 16 lines, as the image: they are the image, as the virtual coils see it
    again = encoding.forward(low)[0]
    scale = (again.conj() * ready.kspace[0, 0]).sum() / again.abs().square().sum()
    assert float((again * scale - ready.kspace[0, 0]).norm() / ready.kspace[0, 0].norm()) < 1e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"noise": np.ones((3, 99), np.complex64)}, "the noise scan has 3 coils, the measurement 16"),
        ({"kspace": torch.zeros(1, 1, 16, 10, 24)}, "zeros alone"),
    ],
)
def test_what_does_not_fit_is_refused(scene, change, words):
    images, encoding, _ = scene
    found = replace(assigned(encoding.forward(images[None])[0], None), **change)
    with pytest.raises(InputError, match=words):
        preparing.prepared(found, [encoding])


def test_other_numbers_of_coils_are_refused(scene):
    images, encoding, _ = scene
    found = assigned(encoding.forward(images[None])[0], None)
    with pytest.raises(InputError, match="the calibration has 3 coils, the measurement 16"):
        preparing.prepared(found, [encoding], calibrated(images[:3]))
    for n_coils in (0, 17):
        with pytest.raises(ConfigError, match=f"coils is {n_coils}; 16 were measured"):
            preparing.prepared(found, [encoding], n_coils=n_coils)
