import math

import numpy as np
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.data.sources.images import images
from trajdesign.data.variation import varied
from trajdesign.errors import ConfigError
from trajdesign.runtime.randomness import drawn_from

FOV = (0.2, 0.3)
SHAPE = (120, 64)
#: Standard deviations of the ellipse below along its axes, m, and the angle of its long axis to x, rad.
LONG, SHORT, ANGLE = 0.022, 0.012, 0.5


def places():
    """Positions x and y (2, y, x) of the pixels, m, from the middle of the field of view."""
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n - 0.5 for n in SHAPE), indexing="ij")
    return np.stack([FOV[0] * x, FOV[1] * y])


def ellipse():
    """A Gaussian, of pixels that are not square."""
    x, y = places()
    along, across = math.cos(ANGLE) * x + math.sin(ANGLE) * y, math.cos(ANGLE) * y - math.sin(ANGLE) * x
    return np.exp(-((along / LONG) ** 2 + (across / SHORT) ** 2) / 2).astype(np.float32)


def moments(image):
    """Mean (2,), standard deviations along the axes, and the angle of the long one within half a turn, of an image."""
    weights, at = image.ravel() / image.sum(), places().reshape(2, -1)
    mean = at @ weights
    covariance = (weights * (at - mean[:, None])) @ (at - mean[:, None]).T
    values, vectors = np.linalg.eigh(covariance)
    return mean, np.sqrt(values[::-1]), math.remainder(math.atan2(vectors[1, 1], vectors[0, 1]), math.pi)


def turned(angle):
    """By how much an ellipse is turned, mirrored or not."""
    return min(abs(math.remainder(sign * angle - ANGLE, math.pi)) for sign in (1, -1))


def draws(strength, n=60):
    return [varied(ellipse(), FOV, strength, np.random.default_rng(seed)) for seed in range(n)]


def test_no_strength_leaves_an_image_or_mirrors_it():
    image = ellipse() * (1 + places()[0] / 0.2).astype(np.float32)
    found = [varied(image, FOV, 0.0, np.random.default_rng(seed)) for seed in range(20)]
    same = [np.allclose(one, image, atol=2e-5) for one in found]
    mirrored = [np.allclose(one, image[:, ::-1], atol=2e-5) for one in found]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(mirrored) < len(found)


def test_objects_keep_their_form_within_the_bounds_and_use_them():
    found = [moments(one) for one in draws(1.0)]
    brightest = [one.max() for one in draws(1.0)]
    assert 0.81 < min(brightest) < 0.9 < 1.1 < max(brightest) < 1.23
    for mean, (long, short), _ in found:
        assert long / short == pytest.approx(LONG / SHORT, rel=5e-3)
        assert np.all(np.abs(mean / FOV) <= 0.031)
    # raising a Gaussian to a power divides its variance by it
    sizes = np.array([math.log(long / LONG) for _, (long, _), _ in found])
    assert 0.15 < np.abs(sizes).max() <= 0.1 + 0.35 / 2 + 0.01
    turns = np.array([turned(angle) for *_, angle in found])
    assert 0.22 < turns.max() <= 0.262
    assert {math.copysign(1, angle) for *_, angle in found} == {1.0, -1.0}


def test_half_the_strength_is_half_the_bounds():
    found = [moments(one) for one in draws(0.5)]
    assert max(np.abs(mean / FOV).max() for mean, *_ in found) <= 0.0155
    assert max(turned(angle) for *_, angle in found) <= 0.132


def test_all_slices_vary_alike():
    one, other = varied(np.stack([ellipse(), 0.5 * ellipse()]), FOV, 1.0, np.random.default_rng(3))
    ratio = other[one > 0.1] / one[one > 0.1]
    assert np.ptp(ratio) < 1e-4


def read(vary, split, tmp_path, epoch=0, **options):
    path = tmp_path / "p1_a.npy"
    if not path.exists():
        for number in (1, 2, 3):
            np.save(tmp_path / f"p{number}_a.npy", np.stack([ellipse()] * 3))
    named = {name: [str(tmp_path / f"p{n}_a.npy")] for n, name in enumerate(("train", "val", "test"), start=1)}
    options |= {"vary": vary, "patient_pattern": "p([0-9])"}
    data = images(Acquisition(matrix=(32, 32), fov=(0.2, 0.2)), split, **named, **options)
    with drawn_from(0, epoch, 1):
        return data[1]


def test_training_images_alone_vary_and_alike_for_the_same_seed(tmp_path):
    still, first, again = (read(vary, "train", tmp_path) for vary in (0.0, 1.0, 1.0))
    assert torch.equal(first, again)
    assert not torch.allclose(first, still, atol=1e-2)
    assert not torch.allclose(first, read(1.0, "train", tmp_path, epoch=1), atol=1e-2)
    for split in ("val", "test"):
        assert torch.equal(read(1.0, split, tmp_path), read(0.0, split, tmp_path))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_phase_of_tissues_is_in_all_splits(split, tmp_path):
    smooth, rough = (read(0.0, split, tmp_path, tissue_phase=strength) for strength in (0.0, 0.8))
    torch.testing.assert_close(rough.abs(), smooth.abs(), rtol=1e-5, atol=1e-6)
    assert float((rough / smooth)[smooth.abs() > 0.1].angle().std()) > 0.1


@pytest.mark.parametrize("strength", [-0.1, math.inf, math.nan])
def test_a_phase_of_no_size_is_refused(strength, tmp_path):
    with pytest.raises(ConfigError, match="tissue_phase"):
        read(0.0, "train", tmp_path, tissue_phase=strength)


@pytest.mark.parametrize("vary", [-0.1, 1.5, math.nan])
def test_a_strength_beyond_its_range_is_refused(vary, tmp_path):
    with pytest.raises(ConfigError, match="vary"):
        read(vary, "train", tmp_path)
