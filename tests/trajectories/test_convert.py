"""Each library's own transform at our coordinates is the exact sum at the trajectory's k."""

import shutil
import subprocess
from dataclasses import replace

import mrinufft
import numpy as np
import pytest
import torch
import torchkbnufft

from trajdesign import Acquisition, Scanner
from trajdesign.encoding.operator import Encoding
from trajdesign.errors import InputError
from trajdesign.trajectories import convert
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectory import Trajectory, n_points

N_PIXELS = 16 * 13
SQRT = np.sqrt(N_PIXELS)


@pytest.fixture(scope="module")
def trajectory():
    """Neither axis like the other, one of an odd number of pixels."""
    acquisition, scanner = Acquisition(fov=(0.2, 0.15), matrix=(16, 13), n_shots=3, n_samples=300), Scanner()
    t = np.linspace(0, 1, n_points(acquisition, scanner))
    phase = np.arange(3)[:, None]
    k = np.stack([35 * np.cos(4 * t + phase), 38 * np.sin(6 * t + 0.5 * phase)], axis=-1)
    return Trajectory(torch.from_numpy(k), acquisition, scanner)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    return rng.normal(size=(13, 16)) + 1j * rng.normal(size=(13, 16))


@pytest.fixture(scope="module")
def exact(trajectory, image):
    return exact_sum(trajectory, image)


def exact_sum(trajectory, image):
    kx, ky = trajectory.k_adc.numpy().transpose(2, 0, 1)
    y, x = ((np.arange(n) - n // 2) * extent / n for n, extent in zip(image.shape, (0.15, 0.2), strict=True))
    return np.einsum(
        "nsx,nsy,yx->ns", np.exp(-2j * np.pi * kx[..., None] * x), np.exp(-2j * np.pi * ky[..., None] * y), image
    )


def error(found, exact):
    return np.linalg.norm(np.asarray(found).reshape(exact.shape) - exact) / np.linalg.norm(exact)


def test_our_own_transform(trajectory, image, exact):
    own = Encoding(trajectory, dtype=torch.float64).forward(torch.from_numpy(image)[None, None])
    assert error(own, exact) < 1e-8


def test_mri_nufft_samples_where_we_do(trajectory, image, exact):
    samples = convert.to_mrinufft(trajectory)
    assert np.abs(samples).max() < 0.5
    with pytest.warns(UserWarning, match="rescaled"):
        operator = mrinufft.get_operator("finufft")(samples, shape=trajectory.acquisition.image_shape)
    assert error(operator.op(image.astype(np.complex64)) * 2 * SQRT, exact) < 1e-5


def test_three_axes_are_z_y_x():
    acquisition = Acquisition(fov=(0.2, 0.15, 0.3), matrix=(8, 7, 12), n_shots=5, n_samples=200)
    trajectory = radial(acquisition, Scanner())
    volume = np.random.default_rng(0).normal(size=(12, 7, 8)).astype(np.complex64)
    with pytest.warns(UserWarning, match="rescaled"):
        operator = mrinufft.get_operator("finufft")(convert.to_mrinufft(trajectory), shape=(12, 7, 8))
    waves = [
        np.exp(-2j * np.pi * k[..., None] * (np.arange(n) - n // 2) * extent / n)
        for k, n, extent in zip(trajectory.k_adc.numpy().transpose(2, 0, 1), (8, 7, 12), acquisition.fov, strict=True)
    ]
    exact = np.einsum("snx,sny,snz,zyx->sn", *waves, volume)
    assert error(operator.op(volume) * np.sqrt(8 * volume.size), exact) < 1e-5
    again = convert.from_bart(convert.to_bart(trajectory), acquisition, Scanner())
    assert np.abs((again.points - trajectory.points).numpy()).max() * 0.3 < 1e-4


def test_torchkbnufft_samples_where_we_do(trajectory, image, exact):
    omega = convert.to_torchkbnufft(trajectory)
    assert omega.shape == (2, 900)
    kaiser_bessel = torchkbnufft.KbNufft(im_size=(13, 16), dtype=torch.complex128)
    assert error(kaiser_bessel(torch.from_numpy(image)[None, None], omega), exact) < 2e-3


def test_sigpy_samples_where_we_do(trajectory, image, exact):
    sigpy = pytest.importorskip("sigpy", reason="pip install sigpy")
    found = sigpy.nufft(image, convert.to_sigpy(trajectory), oversamp=2, width=8)
    assert error(found * SQRT, exact) < 1e-5


def test_bart_samples_where_we_do(trajectory, tmp_path):
    if not shutil.which("bart"):
        pytest.skip("bart is not installed (Debian: apt install bart)")
    image = np.random.default_rng(0).normal(size=(26, 34))  # twice as fine, and even
    for name, array in (("traj", convert.to_bart(trajectory)), ("image", image.T[..., None])):
        array.astype("<c8").ravel(order="F").tofile(tmp_path / f"{name}.cfl")
        (tmp_path / f"{name}.hdr").write_text(f"# Dimensions\n{' '.join(map(str, array.shape))}\n")
    subprocess.run(["bart", "nufft", "traj", "image", "kspace"], cwd=tmp_path, check=True)
    found = np.fromfile(tmp_path / "kspace.cfl", dtype="<c8")
    assert error(found * np.sqrt(image.size), exact_sum(trajectory, image)) < 2e-3


@pytest.mark.parametrize("name", ["mrinufft", "sigpy", "torchkbnufft", "bart"])
def test_back_again_is_the_same_trajectory(trajectory, name):
    there, back = (getattr(convert, f"{way}_{name}") for way in ("to", "from"))
    again = back(there(trajectory), trajectory.acquisition, trajectory.scanner)
    assert np.abs((again.k_adc - trajectory.k_adc).numpy()).max() * 0.2 < 1e-5


@pytest.mark.parametrize("name", ["mrinufft", "sigpy", "torchkbnufft", "bart"])
def test_a_film_is_the_shots_of_its_frames(trajectory, name):
    points = trajectory.points.repeat(2, 1, 1)
    film = Trajectory(points, replace(trajectory.acquisition, n_shots=6, n_frames=2), trajectory.scanner)
    there, back = (getattr(convert, f"{way}_{name}") for way in ("to", "from"))
    again = back(there(film), film.acquisition, film.scanner)
    assert np.abs((again.k_adc - film.k_adc).numpy()).max() * 0.2 < 1e-5


def test_what_is_no_trajectory_of_the_acquisition_is_refused(trajectory):
    samples = convert.to_mrinufft(trajectory)
    flat = convert.from_mrinufft(samples.reshape(-1, 2), trajectory.acquisition, trajectory.scanner)
    assert np.abs((flat.k_adc - trajectory.k_adc).numpy()).max() * 0.2 < 1e-5
    with pytest.raises(InputError, match=r"\(2, 300, 2\) are not those of \(shot, sample, dim\) = \(3, 300, 2\)"):
        convert.from_mrinufft(samples[:2], trajectory.acquisition, trajectory.scanner)
    jagged = np.random.default_rng(0).uniform(-0.5, 0.5, size=samples.shape)
    with pytest.raises(InputError, match="the coordinates of mri-nufft: straight gradients on a raster"):
        convert.from_mrinufft(jagged, trajectory.acquisition, trajectory.scanner)
