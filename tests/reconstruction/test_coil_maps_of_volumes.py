"""Coil maps and corrections of volumes and films."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.reconstruction import axes
from trajdesign.reconstruction.brightness import brightness
from trajdesign.reconstruction.coils import calibration_scan, espirit_maps, low_pass, root_sum_of_squares, smooth_maps
from trajdesign.reconstruction.correction import Correction

FILM = Acquisition((0.2, 0.2), (20, 22), 8, 100, n_frames=4)


def noise(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def head(shape):
    """A ball with structure ([z,] y, x), and images and maps (1, coil, [z,] y, x) of coils about it."""
    places = torch.meshgrid(*(2 * (torch.arange(n) - n // 2) / n for n in shape), indexing="ij")
    magnitude = (sum(place.square() for place in places) < 0.6) * (0.7 + 0.3 * torch.cos(9 * places[-1]))
    angles = [2 * np.pi * n / 4 for n in range(4)]
    ways = [places[-1] * np.cos(angle) + places[-2] * np.sin(angle) + 0.3 * (-1) ** n * places[0]
            for n, angle in enumerate(angles)]  # fmt: skip
    maps = torch.stack([torch.exp((0.8 + 0.5j) * way + 1j * angle) for way, angle in zip(ways, angles, strict=True)])
    maps = maps / torch.linalg.vector_norm(maps, dim=0)
    return magnitude, (maps * magnitude)[None].to(torch.complex64), maps[None].to(torch.complex64)


def likeness(found, maps):
    """How much of each pixel's maps lies along the true ones, whatever the phase."""
    return ((found.conj() * maps).sum(1).abs() / torch.linalg.vector_norm(found, dim=1).clamp_min(1e-12))[0]


@pytest.mark.parametrize("shape", [(10, 28, 26), (26, 7, 9)])
def test_a_calibration_scan_of_a_volume_is_the_centre_of_the_dft(shape):
    image = noise(1, 1, *shape)
    matrices = []
    for n in shape:
        k, place = np.arange(min(n, 24)) - min(n, 24) // 2, np.arange(n) - n // 2
        matrices.append(np.exp(-2j * np.pi * np.outer(k, place) / n) / np.sqrt(n))
    expected = np.einsum("az,by,cx,zyx->abc", *matrices, image[0, 0].numpy())
    np.testing.assert_allclose(calibration_scan(image, 0.0, [0])[0, 0], expected, atol=1e-10)


def test_maps_of_a_volume_are_those_of_its_coils():
    magnitude, images, maps = head((16, 28, 26))
    calibration = calibration_scan(images, 0.003, [0])
    assert calibration.shape == (1, 4, 16, 24, 24)
    found = smooth_maps(calibration, magnitude.shape)
    assert likeness(found, maps)[magnitude > 0].min() > 0.99


def test_espirit_finds_the_maps_of_a_volume_and_of_a_film():
    pytest.importorskip("sigpy")
    for shape in ((12, 16, 14), (1, 36, 32)):
        magnitude, images, maps = head(shape)
        found = espirit_maps(calibration_scan(images, 0.001, [0]), shape)
        assert found.shape == maps.shape
        inside = (magnitude > 0) & (torch.linalg.vector_norm(found, dim=1)[0] > 0)
        assert inside.sum() > 0.95 * (magnitude > 0).sum()
        assert likeness(found, maps)[inside].min() > 0.99


def test_espirit_of_a_small_volume_is_refused():
    pytest.importorskip("sigpy")
    with pytest.raises(ConfigError, match="ESPIRiT needs 12 pixels along every axis"):
        espirit_maps(torch.zeros(1, 2, 8, 24, 24, dtype=torch.complex64), (8, 32, 32))


def test_a_film_stands_still_in_its_mean_and_has_the_maps_of_a_slice():
    film = noise(2, 3, 4, 22, 20)
    mean = axes.still(film, SimpleNamespace(acquisition=FILM))
    torch.testing.assert_close(mean[:, :, 0], sum(film.unbind(2)) / 4)
    maps = smooth_maps(calibration_scan(mean, 0.0, [0]), mean.shape[2:])
    assert maps.shape == (2, 3, 1, 22, 20)
    torch.testing.assert_close(maps[:, :, 0], smooth_maps(calibration_scan(mean[:, :, 0], 0.0, [0]), (22, 20)))
    volume = Acquisition((0.2, 0.2, 0.2), (20, 22, 4))
    assert axes.still(film, SimpleNamespace(acquisition=volume)) is film


def test_a_low_pass_of_a_volume_is_a_gaussian_along_all_axes():
    z, y, x = torch.meshgrid(*(torch.arange(n) / n for n in (12, 20, 14)), indexing="ij")
    wave = torch.exp(2j * torch.pi * (2 * z + 3 * y - 1 * x))[None, None]
    torch.testing.assert_close(low_pass(wave, 3.0), wave * np.exp(-0.5 * 14 / 9), rtol=1e-4, atol=1e-5)


def test_coils_of_volumes_are_combined_slice_by_slice_and_as_bright_as_their_brightest():
    volume = noise(2, 3, 5, 8, 6)
    slices = volume.movedim(2, 1).flatten(0, 1)
    combined = root_sum_of_squares(volume)
    torch.testing.assert_close(combined, root_sum_of_squares(slices).view(2, 5, 1, 8, 6).movedim(1, 2))
    assert brightness(volume).shape == (2, 1, 1, 1, 1)
    wanted = brightness(slices).view(2, 5).amax(1)
    assert torch.equal(brightness(volume).flatten(), wanted)


# ---- corrections


def correction(*args):
    torch.manual_seed(0)
    made = Correction(*args).double()
    torch.nn.init.normal_(made.head.weight)
    return made


def equally_bright(volume):
    """So that the slices by themselves are as bright as the volume."""
    return volume / volume.square().mean((1, 3, 4), keepdim=True).sqrt()


@pytest.mark.parametrize("n_parts", [1, 2])
def test_slices_are_corrected_each_by_itself(n_parts):
    network = correction(n_parts, 4, 2)
    volume = equally_bright(noise(2, n_parts, 3, 10, 9, dtype=torch.float64))
    found = network(volume)
    for n in range(3):
        torch.testing.assert_close(found[:, :, n], network(volume[:, :, n]))


@pytest.mark.parametrize("neighbours", [1, 2])
def test_a_correction_sees_as_many_neighbours_as_asked(neighbours):
    network = correction(2, 4, 1, neighbours)
    volume = noise(1, 2, 7, 8, 8, dtype=torch.float64)
    for changed in range(7):
        other = volume.clone()
        other[:, :, changed] *= -1  # the volume stays as bright
        differ = (network(other) - network(volume)).abs().amax((0, 1, 3, 4)) > 1e-9
        assert differ.tolist() == [abs(n - changed) <= neighbours for n in range(7)]


def test_beyond_the_ends_slices_are_repeated():
    network = correction(1, 4, 1, 1)
    volume = equally_bright(noise(1, 1, 4, 8, 8, dtype=torch.float64))
    longer = torch.cat([volume[:, :, :1], volume, volume[:, :, -1:]], dim=2)
    torch.testing.assert_close(network(volume), network(longer)[:, :, 1:-1])


def test_a_correction_of_a_volume_is_as_bright_as_the_volume():
    network = correction(1, 4, 1, 1)
    volume = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(network(0.01 * volume), 0.01 * network(volume), rtol=1e-6, atol=1e-9)


def test_neighbours_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="neighbours is -1"):
        Correction(1, 4, 1, -1)
    with pytest.raises(ConfigError, match="a single slice has none"):
        correction(1, 4, 1, 1)(torch.zeros(1, 1, 8, 8, dtype=torch.float64))
