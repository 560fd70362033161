"""Heads in 3D and beating hearts that are drawn."""

import numpy as np
import pytest
import torch
from real_data import real

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.data.copies import first_copies, mark
from trajdesign.data.grid import centered_fft
from trajdesign.data.phantoms.head import head
from trajdesign.data.phantoms.heart import heart
from trajdesign.data.phantoms.shapes import capsule
from trajdesign.data.sources.phantom import phantom
from trajdesign.data.sources.volumes import volumes

HEAD = Acquisition(fov=(0.22, 0.22, 0.22), matrix=(48, 48, 48))
SLAB = Acquisition(fov=(0.22, 0.24, 0.08), matrix=(44, 48, 20))
HEART = Acquisition(fov=(0.32, 0.28), matrix=(64, 56), n_frames=12, n_shots=12)


def rss(item):
    return torch.linalg.vector_norm(item, dim=0).numpy()


@pytest.mark.parametrize("acquisition", [HEAD, SLAB, HEART])
def test_phantoms_of_any_axes_keep_the_contract(acquisition):
    table = {"kind": "phantom", "n_train": 2, "n_val": 1, "n_coils": 3}
    dataset = plugins.build("data", table, acquisition, "train")
    assert len(dataset) == 2
    items = [dataset[0], dataset[1], plugins.build("data", table, acquisition, "val")[0]]
    items.append(phantom(acquisition, "train", n_train=1, n_coils=3, seed=1)[0])
    for item in items:
        assert item.dtype == torch.complex64
        assert item.shape == (3, *acquisition.image_shape)
        assert float(rss(item).max()) == pytest.approx(1, abs=1e-6)
    again = phantom(acquisition, "train", n_train=2, n_coils=3)
    assert torch.equal(again[1], items[1])
    for n, item in enumerate(items):
        for other in items[:n]:
            assert np.abs(rss(item) - rss(other)).max() > 0.1
    marks = [mark(rss(item)) for item in items]
    assert first_copies(marks, marks) == [0, 1, 2, 3]


@pytest.mark.parametrize("acquisition", [HEAD, Acquisition(fov=(0.2, 0.26, 0.24), matrix=(40, 52, 36)), SLAB])
def test_a_head_keeps_its_proportions_and_what_is_outside_is_empty(acquisition):
    for seed in range(3):
        image = head(acquisition, np.random.default_rng(seed))
        assert image.dtype == np.float32
        assert image.shape == acquisition.image_shape
        assert image.min() >= 0
        inside = image > 0.15 * np.percentile(image, 99)
        lengths = []
        for axis, voxel in enumerate(acquisition.voxel[::-1]):
            others = tuple(other for other in range(3) if other != axis)
            lengths.append((np.ptp(np.flatnonzero(inside.any(others))) + 1) * voxel)
        height, length, width = lengths
        assert 0.7 < max(length / acquisition.fov[1], width / acquisition.fov[0]) < 0.92
        assert 1.1 < length / width < 1.5
        if acquisition is SLAB:
            assert height > 0.8 * acquisition.fov[2]
        else:
            assert 1.0 < height / width < 1.45
        for axis, most in enumerate((0.25 if acquisition is SLAB else 0.1, 0.1, 0.1)):
            assert image.take((0, -1), axis).max() < most * image.max()


def radial_spectrum(image):
    """Root mean square of the spectrum on shells of one voxel, for an image with a maximum of 1."""
    power = np.abs(centered_fft(image / image.max(), 3)) ** 2
    radius = np.sqrt(sum(axis**2 for axis in np.ix_(*(np.arange(n) - n // 2 for n in image.shape))))
    shell = radius.round().astype(int).ravel()
    return np.sqrt((np.bincount(shell, power.ravel()) / np.bincount(shell))[: min(image.shape) // 2])


def test_a_head_has_the_spectrum_of_a_real_one():
    acquisition = Acquisition(fov=(0.22, 0.22, 0.22), matrix=(64, 64, 64))
    found = radial_spectrum(rss(volumes(acquisition, "test", test=[str(real("head3d/chris_t1.nii.gz"))], n_coils=1)[0]))
    drawn = [radial_spectrum(head(acquisition, np.random.default_rng((1, n)))) for n in range(6)]
    ratio = np.exp(np.mean(np.log(drawn), 0))[3:30] / found[3:30]
    assert ratio.max() < 2.5
    assert ratio.min() > 0.4


def test_a_beat_has_a_period_and_more_frames_show_the_same_heart():
    twice = Acquisition(fov=HEART.fov, matrix=HEART.matrix, n_frames=24, n_shots=24)
    film, fine = (heart(acquisition, np.random.default_rng(3)) for acquisition in (HEART, twice))
    np.testing.assert_allclose(fine[::2], film, atol=1e-5)
    steps = np.abs(np.diff(fine, axis=0, append=fine[:1])).mean((1, 2))
    assert steps[-1] < steps.max()
    # what an edge makes of a smooth motion: slow waves hold nearly all of it
    beat = np.abs(np.fft.rfft(fine, axis=0)[1:]) ** 2
    energy = beat.sum((1, 2))
    assert energy[:6].sum() > 0.98 * energy.sum()


def test_the_heart_alone_moves_and_its_pool_shrinks():
    for seed in range(4):
        film = heart(HEART, np.random.default_rng(seed))
        peak = film.max()
        moving = np.ptp(film, axis=0) > 0.05 * peak
        assert 0.01 < moving.mean() < 0.25
        border = np.ones_like(moving)
        border[8:-8, 8:-8] = False
        assert not moving[border].any()
        # blood is the brightest: there is less of it at the smallest than at the largest, by what a heart ejects
        rows, columns = np.flatnonzero(moving.any(1)), np.flatnonzero(moving.any(0))
        part = film[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        blood = (part > 0.7 * part.max()).sum((1, 2))
        assert 0.4 < blood.min() / blood.max() < 0.92
        assert blood.argmax() in (0, 1, 9, 10, 11)
        assert 2 <= blood.argmin() <= 7


def test_a_capsule_is_as_far_as_its_rod():
    points = np.random.default_rng(0).normal(0, 3, (3, 50))
    start, end = np.array([-1.0, 0.5, 2.0]), np.array([1.5, -0.5, 0.0])
    on_rod = start[:, None] + (end - start)[:, None] * np.linspace(0, 1, 20001)
    distance = np.linalg.norm(points[:, :, None] - on_rod[:, None], axis=0)
    found = capsule(tuple(points), start, end, 0.7, 0.7)
    np.testing.assert_allclose(found, distance.min(1) - 0.7, atol=1e-6)


def test_slices_are_drawn_as_ever():
    """Numbers of the first version: runs that were begun go on with the same images."""
    image = rss(phantom(Acquisition(matrix=(48, 48)), "train", n_train=2)[1])
    assert float(image.sum()) == pytest.approx(619.0464, rel=1e-5)
    found = image[[24, 10, 30, 6], [24, 30, 12, 22]]
    np.testing.assert_allclose(found, [0.679536, 0.609013, 0.269223, 0.690054], atol=2e-5)
