import sys

import numpy as np
import pytest
import torch

from trajdesign.data.receiver import (
    coil_sensitivities,
    finite_loop_field,
    grid,
    loop_field,
    receive,
    smooth_phase,
    tissue_phase,
)
from trajdesign.errors import ConfigError, ResourceError
from trajdesign.reconstruction.coils import calibration_scan, espirit_maps, low_pass, normalised, smooth_maps


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n_coils", [1, 2, 4, 12])
@pytest.mark.parametrize("shape", [(32, 32), (33, 24)])
def test_sensitivities_are_normalised(shape, n_coils):
    maps = coil_sensitivities(shape, n_coils, rng())
    assert maps.shape == (n_coils, *shape)
    assert maps.dtype == np.complex64
    np.testing.assert_allclose(np.sqrt((np.abs(maps) ** 2).sum(0)), 1, rtol=1e-5)


def test_sensitivities_are_smooth_but_not_flat():
    maps = coil_sensitivities((64, 64), 6, rng())
    y, x = grid((64, 64))
    head = np.hypot(y, x)[1:, 1:] < 0.85
    steps = np.abs(np.diff(maps, axis=1))[:, :, 1:], np.abs(np.diff(maps, axis=2))[:, 1:]
    assert max(step[:, head].max() for step in steps) < 0.12
    spread = np.abs(maps).max((1, 2)) - np.abs(maps).min((1, 2))
    assert spread.min() > 0.5


def test_each_coil_sees_its_own_side_best():
    maps = np.abs(coil_sensitivities((65, 65), 8, rng(3)))
    y, x = grid((65, 65))
    rim = np.abs(np.hypot(y, x) - 0.9) < 0.05
    angles = np.arctan2(y, x)[..., :] * np.ones_like(maps[0])
    best = np.array([angles[rim][np.argmax(m[rim])] for m in maps])
    gaps = np.diff(np.sort(best), append=np.sort(best)[0] + 2 * np.pi)
    np.testing.assert_allclose(gaps, 2 * np.pi / 8, atol=0.4)


def test_the_field_is_that_of_biot_and_savart():
    p, q = 1.3 + 0.2j, 0.9 + 0.8j
    points = np.array([0.1 + 0.2j, -0.7 + 0.1j, 0.4 - 0.6j])
    heights = np.linspace(-400, 400, 800_001)
    field = np.zeros((3, 3))
    for current, wire in ((1, p), (-1, q)):
        for n, point in enumerate(points):
            to_point = np.stack(
                [
                    np.full_like(heights, (point - wire).real),
                    np.full_like(heights, (point - wire).imag),
                    -heights,
                ]
            )
            along = np.cross([0, 0, 1], to_point, axis=0) / np.linalg.norm(to_point, axis=0) ** 3
            field[n] += current * np.trapezoid(along, heights, axis=1)
    modelled = loop_field(points, np.array(p), np.array(q))
    # the integral of a straight wire is 2 / distance; the constant factor is -i in Bx - i By
    np.testing.assert_allclose(field[:, 0] - 1j * field[:, 1], -2j * modelled, rtol=1e-4)


def test_the_field_of_a_finite_loop_is_that_of_biot_and_savart():
    p, q, half = 1.3 + 0.2j, 0.9 + 0.8j, 0.6
    points = np.array([[0.1, 0.2, 0.35], [-0.7, 0.1, -0.9], [0.4, -0.6, 0.0], [1.0, 0.4, 0.7]])
    corners = np.array(
        [[p.real, p.imag, -half], [p.real, p.imag, half], [q.real, q.imag, half], [q.real, q.imag, -half]]
    )
    field = np.zeros((4, 3))
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        on_wire = start + (end - start) * (np.arange(50_000)[:, None] + 0.5) / 50_000
        for n, point in enumerate(points):
            to_point = point - on_wire
            distance = np.linalg.norm(to_point, axis=1, keepdims=True)
            field[n] += (np.cross(end - start, to_point) / distance**3).mean(0)
    modelled = finite_loop_field(points[:, 0] + 1j * points[:, 1], points[:, 2], p, q, half)
    np.testing.assert_allclose(field[:, 0] - 1j * field[:, 1], -2j * modelled, rtol=1e-6)


def test_a_long_finite_loop_is_a_long_loop():
    z = (np.random.default_rng(0).normal(size=(2, 50)) * [[1], [1j]]).sum(0)
    ends = 1.3 + 0.2j, 0.9 + 0.8j
    wanted = loop_field(z, *map(np.array, ends), 0.2)
    np.testing.assert_allclose(finite_loop_field(z, np.zeros(50), *ends, 1e4, 0.2), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n_coils", [1, 2, 4, 8, 13, 24])
@pytest.mark.parametrize(("shape", "height"), [((20, 24, 24), 1.0), ((8, 33, 24), 0.4)])
def test_sensitivities_in_3d_are_normalised_and_vary_along_every_axis(shape, height, n_coils):
    maps = coil_sensitivities(shape, n_coils, rng(), height)
    assert maps.shape == (n_coils, *shape)
    assert maps.dtype == np.complex64
    np.testing.assert_allclose(np.sqrt((np.abs(maps) ** 2).sum(0)), 1, rtol=1e-5)
    if n_coils > 2:
        ranges = [np.ptp(np.abs(maps), axis=axis).max() for axis in (1, 2, 3)]
        assert min(ranges) > 0.1


def test_sensitivities_in_3d_are_smooth_in_a_head():
    for n_coils in (4, 8, 12, 16):
        maps = coil_sensitivities((48, 48, 48), n_coils, rng(1))
        head = (np.sqrt(sum(axis**2 for axis in grid((48, 48, 48)))) < 0.85)[1:, 1:, 1:]
        steps = [np.abs(np.diff(maps, axis=axis))[:, -47:, -47:, -47:] for axis in (1, 2, 3)]
        assert max(step[:, head].max() for step in steps) < 0.25


def test_a_film_has_one_receiver():
    magnitude = rng().random((5, 20, 30), dtype=np.float32) + 0.1
    film = receive(magnitude, 4, rng(4), (0.2, 0.3))
    of_frames = film / torch.from_numpy(magnitude)
    torch.testing.assert_close(of_frames, of_frames[:, :1].expand_as(of_frames), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(film[:, 2], receive(magnitude[2], 4, rng(4)))


def test_a_slice_is_received_as_ever():
    """Numbers of the first version: runs that were begun go on with the same images."""
    found = receive(np.ones((30, 41), np.float32), 4, rng(5)).numpy()
    wanted = [0.049946 - 0.063044j, -0.272336 - 0.009292j, 0.078507 + 0.491540j, -0.025918 - 0.060950j]
    np.testing.assert_allclose([found[0, 3, 4], found[1, 20, 30], found[2, 15, 20], found[3, 29, 0]], wanted, rtol=1e-4)


def test_no_coil_is_refused():
    with pytest.raises(ConfigError, match="n_coils is 0"):
        coil_sensitivities((8, 8), 0, rng())


def test_the_phase_is_smooth_and_of_magnitude_one():
    factor = smooth_phase((64, 48), rng(2))
    assert factor.dtype == np.complex64
    np.testing.assert_allclose(np.abs(factor), 1, rtol=1e-6)
    assert np.abs(np.diff(factor, axis=0)).max() < 0.6
    assert np.abs(np.diff(factor, axis=1)).max() < 0.6
    assert np.ptp(np.angle(factor)) > 0.3


def test_what_is_received_has_the_magnitude_of_the_object():
    magnitude = rng().random((20, 30), dtype=np.float32) * 700
    images = receive(magnitude, 5, rng(4))
    assert images.dtype == torch.complex64
    rss = torch.linalg.vector_norm(images, dim=0)
    np.testing.assert_allclose(rss.numpy(), magnitude, rtol=1e-5)


def test_what_is_received_of_a_volume_has_its_magnitude():
    magnitude = rng().random((12, 20, 16), dtype=np.float32) * 700
    images = receive(magnitude, 5, rng(4), (0.2, 0.25, 0.1))
    assert images.dtype == torch.complex64
    np.testing.assert_allclose(torch.linalg.vector_norm(images, dim=0).numpy(), magnitude, rtol=1e-5)


def test_the_phase_of_tissues_is_that_of_their_magnitude_and_as_strong_as_asked():
    magnitude = np.linspace(0, 7, 301, dtype=np.float32).reshape(7, 43)
    phases = []
    for seed in range(400):
        factor = tissue_phase(magnitude, 0.2, rng(seed))
        np.testing.assert_allclose(np.abs(factor), 1, rtol=1e-6)
        phases.append(np.angle(factor))
    assert np.sqrt(np.mean(np.square(phases))) == pytest.approx(0.2, rel=0.05)
    assert np.abs(np.diff(np.reshape(phases, (400, -1)))).max() < 0.05
    twice = tissue_phase(np.array([[0.3, 1.0], [1.0, 0.3]], np.float32), 0.5, rng())
    np.testing.assert_array_equal(twice, twice.T)
    assert np.isfinite(tissue_phase(np.zeros((2, 3), np.float32), 0.5, rng())).all()


def test_a_rough_phase_comes_on_top_of_the_smooth_one():
    magnitude = rng().random((20, 30), dtype=np.float32)
    smooth, rough = (receive(magnitude, 3, rng(4), roughness=strength) for strength in (0.0, 0.7))
    torch.testing.assert_close(rough.abs(), smooth.abs(), rtol=1e-5, atol=1e-7)
    between = (rough / smooth)[:, magnitude > 0.01]
    torch.testing.assert_close(between, between[:1].expand_as(between), rtol=1e-4, atol=1e-4)
    assert float(between[0].angle().std()) > 0.1


@pytest.mark.parametrize("shape", [(20, 64, 48), (32, 32, 32)])
def test_the_phase_in_3d_is_a_polynomial_of_degree_three(shape):
    factor = smooth_phase(shape, rng(2))
    np.testing.assert_allclose(np.abs(factor), 1, rtol=1e-6)
    for axis in range(3):
        steps = np.angle(
            np.take(factor, range(1, shape[axis]), axis) * np.take(factor, range(shape[axis] - 1), axis).conj()
        )
        assert np.abs(steps).max() < np.pi / 2  # so that none of them is wrapped
        assert np.ptp(steps.sum(axis)) > 0.1
        np.testing.assert_allclose(np.diff(steps, n=3, axis=axis), 0, atol=1e-5)


def test_generators_alone_decide():
    magnitude = rng().random((16, 16), dtype=np.float32)
    assert torch.equal(receive(magnitude, 4, rng(5)), receive(magnitude, 4, rng(5)))
    assert not torch.equal(receive(magnitude, 4, rng(5)), receive(magnitude, 4, rng(6)))


# ---- maps from a calibration scan


def head(shape=(64, 48)):
    """An ellipse with structure (y, x), and the images (1, coil, y, x) and maps of six coils; no other phase."""
    y, x = grid(shape)
    magnitude = (np.hypot(y, x) < 0.8) * (0.7 + 0.3 * np.cos(9 * x) * np.cos(7 * y)).astype(np.float32)
    maps = coil_sensitivities(shape, 6, rng(1))
    return magnitude, torch.from_numpy(maps * magnitude)[None], torch.from_numpy(maps)[None]


def likeness(found, maps):
    """How much of each pixel's maps lies along the true ones, whatever the phase (y, x)."""
    along = (found.conj() * maps).sum(1).abs() / torch.linalg.vector_norm(found, dim=1).clamp_min(1e-12)
    return along[0].numpy()


@pytest.mark.parametrize("shape", [(64, 48), (33, 31), (20, 18)])
def test_a_calibration_scan_is_the_centre_of_the_dft(shape):
    _, images, _ = head(shape)
    centre = calibration_scan(images, 0.0, [0])[0, 2].numpy()
    ky, kx = (np.arange(min(n, 24)) - min(n, 24) // 2 for n in shape)
    y, x = (np.arange(n) - n // 2 for n in shape)
    dft = [np.exp(-2j * np.pi * np.outer(k, r) / len(r)) / np.sqrt(len(r)) for k, r in ((ky, y), (kx, x))]
    np.testing.assert_allclose(centre, dft[0] @ images[0, 2].numpy() @ dft[1].T, atol=1e-5)


def test_the_noise_of_a_calibration_scan_is_that_of_its_seed_and_as_strong_as_asked():
    images = torch.zeros(3, 8, 64, 64, dtype=torch.complex64)
    noise = calibration_scan(images, 0.03, [5, 6, 5])
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert float(noise.abs().square().mean().sqrt()) == pytest.approx(0.03, rel=0.02)


def test_maps_of_a_calibration_scan_are_those_of_the_coils():
    magnitude, images, maps = head()
    found = smooth_maps(calibration_scan(images, 0.01, [0]), (64, 48))
    inside = magnitude > 0
    assert likeness(found, maps)[inside].mean() > 0.998
    assert likeness(found, maps)[inside].min() > 0.95
    shown = torch.linalg.vector_norm(found, dim=1)[0].numpy()
    assert shown[inside].min() > 0.9
    assert shown[:2, :2].max() < 0.5


@pytest.mark.parametrize(("n_lines", "on_average", "anywhere"), [(24, 1e-4, 0.0015), (12, 1e-3, 0.008)])
def test_maps_are_as_sharp_as_their_calibration(n_lines, on_average, anywhere):
    magnitude, images, maps = head()
    middle = slice(12 - n_lines // 2, 12 + n_lines // 2)
    found = smooth_maps(calibration_scan(images, 0.0, [0])[..., middle, middle], (64, 48))
    unlike = 1 - likeness(found, maps)[magnitude > 0]
    assert unlike.mean() < on_average
    assert unlike.max() < anywhere


def test_maps_fade_with_the_signal():
    images = torch.tensor([1.0, 0.1, 0.0])[None, None, None] * torch.tensor([3.0, 4.0j])[None, :, None, None]
    shown = torch.linalg.vector_norm(normalised(images), dim=1).flatten()
    np.testing.assert_allclose(shown, [1 / np.sqrt(1.01), np.sqrt(0.5), 0], rtol=1e-6)
    assert torch.equal(normalised(0 * images), 0 * images)


def test_a_low_pass_is_a_gaussian_in_k_space():
    y, x = (torch.arange(n) / n for n in (40, 30))
    wave = torch.exp(2j * torch.pi * (3 * y[:, None] - 4 * x))[None, None]
    torch.testing.assert_close(low_pass(wave, 5.0), wave * np.exp(-0.5), rtol=1e-4, atol=1e-5)


def test_espirit_finds_the_maps_of_the_coils():
    pytest.importorskip("sigpy")
    magnitude, images, maps = head()
    found = espirit_maps(calibration_scan(images, 0.001, [0]), (64, 48))
    assert found.dtype == torch.complex64
    inside = (magnitude > 0) & (torch.linalg.vector_norm(found, dim=1)[0].numpy() > 0)
    assert inside.sum() > 0.95 * (magnitude > 0).sum()
    assert likeness(found, maps)[inside].mean() > 0.998


def test_espirit_names_what_it_misses(monkeypatch):
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    with pytest.raises(ResourceError, match=r'pip install -e "\.\[espirit\]"'):
        espirit_maps(torch.zeros(1, 2, 24, 24, dtype=torch.complex64), (32, 32))
