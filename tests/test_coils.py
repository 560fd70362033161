import numpy as np
import pytest
import torch

from trajdesign.coils import coil_sensitivities, grid, loop_field, receive, smooth_phase
from trajdesign.errors import ConfigError


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


def test_generators_alone_decide():
    magnitude = rng().random((16, 16), dtype=np.float32)
    assert torch.equal(receive(magnitude, 4, rng(5)), receive(magnitude, 4, rng(5)))
    assert not torch.equal(receive(magnitude, 4, rng(5)), receive(magnitude, 4, rng(6)))
