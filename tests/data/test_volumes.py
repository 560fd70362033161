"""Whole volumes and films: on the matrix, in their coils, and known again."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from real_data import real
from scipy.ndimage import gaussian_filter

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.data.copies import first_copies, mark
from trajdesign.data.grid import fit_matrix
from trajdesign.data.sources.fastmri import fastmri
from trajdesign.data.sources.images import images
from trajdesign.data.sources.volumes import volumes
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning.evaluation import look_at
from trajdesign.reconstruction import metrics
from trajdesign.runtime.processes import Ranks

VOLUME = Acquisition(fov=(0.2, 0.2, 0.1), matrix=(20, 20, 10))
FILM = Acquisition(matrix=(24, 24), n_frames=6, n_shots=6)


def rss(item):
    return torch.linalg.vector_norm(item, dim=0).numpy()


def objects(seed, shape=(12, 16, 18)):
    """Blurred random numbers, 0 to 1."""
    found = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return ((found - found.min()) / np.ptp(found)).astype(np.float32)


def positions(shape):
    """Positions along each axis, -1/2 to 1/2 over the field of view."""
    return np.ix_(*((np.arange(n) - n // 2) / n for n in shape))


def waves(shape):
    """A positive function of the position with at most 4 periods along an axis."""
    z, y, x = (2 * np.pi * axis for axis in positions(shape))
    return 4 + np.cos(2 * z) + np.sin(3 * y + 1) * np.cos(4 * x) + np.sin(z + y + x)


# ---- onto the matrix


@pytest.mark.parametrize("old", [(12, 30, 32), (10, 20, 20), (25, 24, 9)])
def test_a_volume_is_sampled_at_the_voxels_of_the_matrix(old):
    voxel = tuple(extent / n for extent, n in zip((0.1, 0.2, 0.2), old, strict=True))
    found = fit_matrix(waves(old).astype(np.float32), voxel, VOLUME)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, waves((10, 20, 20)), atol=2e-5)


@pytest.mark.parametrize("acquisition", [VOLUME, Acquisition(fov=(0.2, 0.26, 0.18), matrix=(40, 32, 30))])
@pytest.mark.parametrize(("shape", "voxel"), [((20, 50, 60), (3, 1.1, 1)), ((60, 60, 60), (1, 1, 1))])
def test_a_ball_stays_round(tmp_path, acquisition, shape, voxel):
    at = [axis * n * size for axis, n, size in zip(positions(shape), shape, voxel, strict=True)]
    blob = np.exp(-sum(axis**2 for axis in at) / (2 * 7.0**2)).astype(np.float32)
    np.save(tmp_path / "a.npy", blob)
    item = volumes(acquisition, "test", test=[str(tmp_path / "a.npy")], voxel=voxel)[0]
    assert item.shape == (8, *acquisition.image_shape)
    assert item.dtype == torch.complex64
    image = rss(item)
    assert image.max() == pytest.approx(1, abs=1e-6)
    at = [axis * extent for axis, extent in zip(positions(image.shape), acquisition.fov[::-1], strict=True)]
    spread = [float((image * axis**2).sum() / image.sum()) for axis in at]
    np.testing.assert_allclose(spread, np.mean(spread), rtol=0.03)
    # the image fills the field of view along the tightest axis, and no further
    extents = [n * size / extent for n, size, extent in zip(shape, voxel, acquisition.fov[::-1], strict=True)]
    assert np.sqrt(np.mean(spread)) == pytest.approx(7 / max(extents), rel=0.03)


def test_pixels_of_implausible_shape_are_refused():
    with pytest.raises(InputError, match="too many; are the pixel sizes right"):
        fit_matrix(np.ones((8, 8, 8), np.float32), (1e-6, 1, 1), VOLUME, "a.nii")
    with pytest.raises(ConfigError, match="the data have 2 axes"):
        fit_matrix(np.ones((8, 8, 8), np.float32), (1, 1), VOLUME)


def film(n_frames, shape=(24, 24)):
    """A film whose brightness is a function of the time with at most 2 periods in a beat."""
    time = 2 * np.pi * np.arange(n_frames) / n_frames
    beat = 2 + np.cos(time) + 0.5 * np.sin(2 * time)
    return (beat[:, None, None] * (1 + objects(0, shape))).astype(np.float32)


@pytest.mark.parametrize("n_frames", [5, 6, 9, 12])
def test_a_beat_of_any_number_of_frames_is_sampled_at_those_of_the_film(tmp_path, n_frames):
    np.save(tmp_path / "a.npy", film(n_frames)[None])
    found = rss(volumes(FILM, "test", test=[str(tmp_path / "a.npy")])[0])
    wanted = film(6)
    np.testing.assert_allclose(found / found[0, 0, 0], wanted / wanted[0, 0, 0], rtol=2e-5)


# ---- files


def save(path, array):
    """Write (z, y, x) or (slice, frame, y, x) to a file of any kind."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, volume=array)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["volume"] = array
    else:
        axes = (2, 1, 0) if array.ndim == 3 else (3, 2, 0, 1)
        nibabel.save(nibabel.Nifti1Image(array.transpose(axes), np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return str(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.nii", "a.nii.gz"])
def test_volumes_and_films_of_any_file(tmp_path, name):
    volume, frames = 1 + objects(0, (10, 20, 20)), 1 + objects(1, (3, 6, 24, 24))
    table = {"kind": "volumes", "test": [save(tmp_path / name, volume)], "n_coils": 3}
    item = plugins.build("data", table, VOLUME, "test")[0]
    np.testing.assert_allclose(rss(item), volume / volume.max(), atol=1e-5)
    found = volumes(FILM, "test", test=[save(tmp_path / name, frames)], n_coils=2)
    assert [found[n].shape for n in range(len(found))] == [(2, 6, 24, 24)] * 3
    np.testing.assert_allclose([rss(image) for image in found], frames / frames.max(), atol=1e-5)
    assert found.places == [f"{tmp_path / name}, slice {n}" for n in range(3)]


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAL", "PIR"])
def test_nifti_volumes_are_upright_whatever_the_file_order(tmp_path, codes):
    left, back, up = np.ix_(np.arange(20), np.arange(18), np.arange(8))
    image = nibabel.Nifti1Image((left + 2.0 * back + 4 * up).astype(np.float32), np.diag([-1.0, -1.0, 2.0, 1]))
    turn = [nibabel.orientations.axcodes2ornt(tuple(of)) for of in ("LPS", codes)]
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(*turn)), tmp_path / "a.nii")
    acquisition = Acquisition(fov=(0.2, 0.18, 0.16), matrix=(20, 18, 8))
    found = rss(volumes(acquisition, "test", test=[str(tmp_path / "a.nii")])[0])
    steps = [float(np.diff(found, axis=axis).mean()) for axis in range(3)]
    np.testing.assert_allclose(np.array(steps) / steps[2], [4, 2, 1], rtol=1e-3)


def test_contrasts_are_items_of_their_own_maximum(tmp_path):
    volume = np.stack([objects(0), 0.1 * objects(1)], axis=1)
    found = volumes(VOLUME, "test", test=[save(tmp_path / "a.npy", volume)])
    assert [float(rss(image).max()) for image in found] == pytest.approx([1, 1], abs=1e-6)
    assert found.places == [f"{tmp_path / 'a.npy'}, contrast {n}" for n in (0, 1)]


def test_empty_slices_of_a_film_are_left_out(tmp_path):
    frames = 1 + objects(1, (4, 6, 24, 24))
    frames[[0, 2]] = 0
    found = volumes(FILM, "test", test=[save(tmp_path / "a.npy", frames)])
    assert found.places == [f"{tmp_path / 'a.npy'}, slice {n}" for n in (1, 3)]


def test_the_same_seed_draws_the_same_coils(tmp_path):
    file = save(tmp_path / "a.npy", objects(0))
    first, again, other = (volumes(VOLUME, "test", test=[file], seed=seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_tissues_of_volumes_differ_in_phase(tmp_path):
    file = save(tmp_path / "a.npy", objects(0))
    smooth, rough = (volumes(VOLUME, "test", test=[file], tissue_phase=strength)[0] for strength in (0.0, 0.8))
    torch.testing.assert_close(rough.abs(), smooth.abs(), rtol=1e-5, atol=1e-6)
    assert float((rough / smooth)[smooth.abs() > 0.1].angle().std()) > 0.1


def test_training_volumes_alone_are_mirrored(tmp_path):
    file, other = save(tmp_path / "a.npy", objects(0)), save(tmp_path / "b.npy", objects(1))
    plain = rss(volumes(VOLUME, "train", train=[file])[0])
    dataset = volumes(VOLUME, "train", train=[file], val=[other], flip=True)
    torch.manual_seed(0)
    found = [rss(dataset[0]) for _ in range(20)]
    mirrored = [np.allclose(image, plain[..., ::-1], atol=1e-6) for image in found]
    assert all(np.allclose(image, plain, atol=1e-6) != is_one for image, is_one in zip(found, mirrored, strict=True))
    assert 0 < sum(mirrored) < 20
    val = volumes(VOLUME, "val", train=[file], val=[other], flip=True)
    assert all(torch.equal(val[0], val[0]) for _ in range(10))


def test_people_of_two_splits_are_refused_and_numbered(tmp_path):
    files = [save(tmp_path / f"sub-0{n}_{part}.npy", objects(n)) for n, part in ((1, "a"), (1, "b"), (2, "a"))]
    with pytest.raises(ConfigError, match=r"patient 'sub-01' is in data\.test"):
        volumes(VOLUME, "train", train=files[:1], test=files[1:2])
    found = volumes(VOLUME, "train", train=files)
    assert (found.people, found.origin) == ([0, 0, 1], "2 people")


def test_what_is_no_volume_or_film_is_refused(tmp_path):
    volume, frames = save(tmp_path / "a.npy", objects(0)), save(tmp_path / "b.npy", objects(1, (3, 6, 24, 24)))
    for error, match, acquisition, options in [
        (ConfigError, "of single slices", Acquisition(matrix=(24, 24)), {}),
        (ConfigError, r"data\.val is empty; give it files", VOLUME, {"split": "val", "train": [volume], "test": []}),
        (ConfigError, "n_coils is 0", VOLUME, {"n_coils": 0}),
        (ConfigError, "voxel is", VOLUME, {"voxel": (1.0, 0.0, 1.0)}),
        (ConfigError, "voxel is", VOLUME, {"voxel": (1.0, 1.0)}),
        (ConfigError, "slice_axis is 1", VOLUME, {"slice_axis": 1}),
        (ConfigError, r"data\.plane counts for nothing", VOLUME, {"plane": "axial"}),
        (InputError, "a.npy has no frames", FILM, {}),
        (InputError, "no magnitudes", VOLUME, {"test": [save(tmp_path / "c.npy", objects(0) - 0.5)]}),
    ]:
        table = {"split": "test", "test": [volume], **options}
        with pytest.raises(error, match=match):
            volumes(acquisition, table.pop("split"), **table)
    assert len(volumes(FILM, "test", test=[frames])) == 3
    for source in (images, fastmri):
        with pytest.raises(ConfigError, match="a film of 6 frames"):
            source(FILM, "test", test=[frames])
        with pytest.raises(ConfigError, match="has 3 axes"):
            source(VOLUME, "test", test=[volume])


# ---- copies


@pytest.mark.parametrize(
    "change",
    [
        lambda volume: 37 * volume.astype(np.float64),
        lambda volume: np.round(255 * volume).astype(np.uint8),
        lambda volume: np.pad(volume, ((0, 3), (7, 0), (1, 1))),
        lambda volume: volume[:, ::-1],
        lambda volume: volume[::-1, ::-1, ::-1],
        lambda volume: volume.transpose(2, 0, 1)[::-1],
    ],
)
def test_a_copy_of_a_volume_is_known_however_it_is_stored(change):
    bright = [0.3 + objects(seed, (20, 30, 25)) for seed in range(4)]
    bright = [volume / volume.max() for volume in bright]
    marks = [mark(volume, trims=True) for volume in bright]
    assert first_copies([mark(change(bright[2]), trims=True)], marks) == [2]
    assert first_copies(marks, marks, turned=False) == [0, 1, 2, 3]


def test_other_volumes_are_no_copies():
    volume = objects(0)
    near = 0.97 * volume + 0.03 * objects(1)
    assert first_copies([mark(near), mark(np.ones_like(volume))], [mark(volume)]) == [None, None]


def test_a_mark_is_the_lowest_part_of_the_fourier_series():
    volume = objects(3).astype(np.float64)
    found = mark(volume)
    assert found[:3].tolist() == [12, 16, 18]
    at = [2 * np.pi * (np.arange(n) - (n - 1) / 2) / n for n in volume.shape]
    by_hand = (volume * np.cos(2 * at[0])[:, None, None] * np.sin(3 * at[1])[:, None] * np.cos(at[2])).sum()
    other = (volume * np.sin(at[0])[:, None, None] * np.cos(at[1])[:, None] * np.sin(4 * at[2])).sum()
    grid = found[3:].reshape(11, 11, 11)
    assert grid[2, 8, 1] / grid[6, 1, 9] == pytest.approx(by_hand / other, rel=1e-4)
    assert np.linalg.norm(grid) == pytest.approx(1, rel=1e-5)


def look_at_volumes(acquisition, **files):
    """Look at all images of each split as a run does before it trains."""
    table = {"kind": "volumes", "n_coils": 2, **files}
    axes = ["acquisition.fov=[0.2,0.2,0.1]"] if acquisition is VOLUME else [f"acquisition.n_frames={FILM.n_frames}"]
    words = [*axes, f"acquisition.matrix={list(acquisition.matrix)}", f"acquisition.n_shots={acquisition.n_shots}"]
    data = {split: plugins.build("data", table, acquisition, split) for split in files}
    return look_at(data, load_config(None, words), Ranks())


@pytest.mark.parametrize(("acquisition", "shape"), [(VOLUME, (12, 16, 18)), (FILM, (1, 6, 24, 24))])
def test_an_image_in_two_splits_is_refused_before_training(tmp_path, acquisition, shape):
    files = [save(tmp_path / f"{n}.npy", 0.2 + objects(n, shape)) for n in range(3)]
    again = save(tmp_path / "again.nii.gz", np.round(9000 * (0.2 + objects(0, shape))).astype(np.int16)[..., ::-1])
    found = look_at_volumes(acquisition, train=files[:1], val=files[1:2], test=files[2:])
    assert [len(prints) for prints in found.values()] == [1, 1, 1]
    with pytest.raises(
        ConfigError, match=r"1 of 1 images to test on are in data\.train too: number 0 .*again\.nii\.gz"
    ):
        look_at_volumes(acquisition, train=files[:1], val=files[1:2], test=[again])


@pytest.mark.parametrize("shape", [(2, 5, 9, 8), (2, 6, 9, 8)])
def test_fingerprints_are_of_items_of_any_axes(shape):
    items = torch.view_as_complex(torch.randn(3, *shape, 2, generator=torch.Generator().manual_seed(0)))
    found = metrics.fingerprints(items).tolist()
    metrics.require_same(metrics.fingerprints(items * (1 + 1e-7)).tolist(), found)
    with pytest.raises(InputError, match="number 1 "):
        metrics.require_same(metrics.fingerprints(torch.stack([items[0], items[1].flip(1), items[2]])).tolist(), found)


# ---- real heads


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("head3d/chris_t1.nii.gz", (0.22, 0.22, 0.16)),
        ("head3d/fernando_t2.nii.gz", (0.24, 0.24, 0.12)),
        ("brain_ms/patient03_study2_T1W.nii.gz", (0.24, 0.24, 0.15)),
    ],
)
def test_real_heads_on_a_matrix(name, size):
    path: Path = real(name)
    acquisition = Acquisition(fov=size, matrix=(96, 96, 48))
    dataset = volumes(acquisition, "test", test=[str(path)])
    item = dataset[0]
    assert item.shape == (8, 48, 96, 96)
    image = rss(item)
    assert image.max() == pytest.approx(1, abs=1e-5)
    assert dataset.origin == ("1 person" if "patient" in name else "1 file")
    # the centre of what is bright lies where it does in the file, which has its own voxels
    header = nibabel.as_closest_canonical(nibabel.load(path))
    volume = np.maximum(np.asanyarray(header.dataobj, dtype=np.float64), 0)
    sides = np.array(volume.shape) * header.header.get_zooms()[:3]
    scale = max(sides / acquisition.fov)  # of the nominal field of view
    for axis, (extent, step) in enumerate(zip(acquisition.fov, acquisition.voxel, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        profile, wanted = image.sum(tuple(2 - other for other in others)), volume.sum(others)
        middle = ((np.arange(len(profile)) - len(profile) // 2) * profile).sum() / profile.sum() * step * scale
        zoom = header.header.get_zooms()[axis]
        true = ((np.arange(len(wanted)) - len(wanted) // 2) * wanted).sum() / wanted.sum() * zoom
        # right is left in the image, and back is front
        assert middle == pytest.approx(true if axis == 2 else -true, abs=1.2 * zoom + 0.01 * extent * scale)
