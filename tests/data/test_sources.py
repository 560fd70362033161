import os
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.data.grid import center_fit, centered_fft, fit_matrix, fourier_resize
from trajdesign.data.phantoms.brain import brain
from trajdesign.data.sources.fastmri import compress_coils, fastmri
from trajdesign.data.sources.images import images
from trajdesign.data.sources.phantom import phantom
from trajdesign.errors import ConfigError, InputError

ACQUISITION = Acquisition(matrix=(48, 48))


def rss(item):
    return torch.linalg.vector_norm(item, dim=0).numpy()


def check_contract(dataset, n_coils, shape=(48, 48)):
    assert len(dataset) > 0
    for index in (0, len(dataset) - 1):
        item = dataset[index]
        assert item.dtype == torch.complex64
        assert item.shape == (n_coils, *shape)
        assert 0 < rss(item).max() <= 1 + 1e-6
        assert torch.equal(item, dataset[index])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def peaks(dataset):
    return [float(rss(dataset[n]).max()) for n in range(len(dataset))]


def real_data(folder):
    root = Path(os.environ.get("TRAJDESIGN_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / folder).is_dir():
        pytest.skip(f"no real data: {root / folder} is absent; set TRAJDESIGN_DATA to the folder that holds it")
    return root / folder


# ---- the grid


def waves(positions):
    """A function of the position over the field of view with at most 5 periods in it."""
    return 2 + np.cos(2 * np.pi * 3 * positions) + np.sin(2 * np.pi * 5 * positions)


@pytest.mark.parametrize("shape", [(24, 30), (25, 31), (64, 90), (16, 17)])
@pytest.mark.parametrize("old", [(32, 40), (33, 41)])
def test_resizing_samples_the_same_function(old, shape):
    y, x = ((np.arange(n) - n // 2) / n for n in old)
    image = np.outer(waves(y), waves(x))
    y, x = ((np.arange(n) - n // 2) / n for n in shape)
    np.testing.assert_allclose(fourier_resize(image, shape), np.outer(waves(y), waves(x)), atol=1e-5)


@pytest.mark.parametrize("present", [6, 7])
@pytest.mark.parametrize("wanted", [4, 5, 6, 7, 8, 9])
def test_the_centre_stays_the_centre(present, wanted):
    image = np.zeros((2, present, present))
    image[:, present // 2, present // 2] = 1
    fitted = center_fit(image, (wanted, wanted))
    assert fitted.shape == (2, wanted, wanted)
    assert fitted[0, wanted // 2, wanted // 2] == 1
    assert fitted.sum() == 2


@pytest.mark.parametrize(("shape", "pixel"), [((60, 80), (1, 1)), ((80, 60), (1, 1)), ((80, 40), (1, 2))])
@pytest.mark.parametrize("matrix", [(64, 64), (96, 64), (48, 64)])
def test_a_disc_stays_round(shape, pixel, matrix):
    y, x = (np.arange(n) - n // 2 for n in shape)
    blob = np.exp(-((y[:, None] * pixel[0]) ** 2 + (x * pixel[1]) ** 2) / (2 * 8**2))
    acquisition = Acquisition(fov=(0.22 * matrix[0] / 64, 0.22 * matrix[1] / 64), matrix=matrix)
    image = fit_matrix(blob, pixel, acquisition)
    assert image.shape == acquisition.image_shape
    y, x = (np.arange(n) - n // 2 for n in image.shape)
    height = (image.sum(1) * y**2).sum() / image.sum()
    width = (image.sum(0) * x**2).sum() / image.sum()
    assert height == pytest.approx(width, rel=0.02)
    assert image.max() == pytest.approx(1, abs=1e-3)


# ---- the phantom


def test_phantom_keeps_the_contract():
    dataset = plugins.build("data", {"kind": "phantom", "n_train": 3, "n_coils": 5}, ACQUISITION, "train")
    assert len(dataset) == 3
    check_contract(dataset, 5)
    assert peaks(dataset) == pytest.approx([1, 1, 1], abs=1e-6)
    assert not torch.equal(dataset[0], dataset[1])


def test_phantom_splits_and_seeds_are_apart():
    first = {split: rss(phantom(ACQUISITION, split)[0]) for split in ("train", "val", "test")}
    first["other seed"] = rss(phantom(ACQUISITION, "train", seed=1)[0])
    first["next"] = rss(phantom(ACQUISITION, "train")[1])
    values = list(first.values())
    for n, image in enumerate(values):
        for other in values[n + 1 :]:
            assert np.abs(image - other).max() > 0.1


def test_phantom_is_the_same_in_another_process_and_in_workers():
    script = (
        "import torch; from trajdesign.acquisition import Acquisition;"
        "from trajdesign.data.sources.phantom import phantom;"
        "d = phantom(Acquisition(matrix=(48, 48)), 'val', seed=7);"
        "print(torch.view_as_real(d[2]).double().abs().sum().item())"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    dataset = phantom(ACQUISITION, "val", seed=7, n_val=4)
    assert float(shown) == torch.view_as_real(dataset[2]).double().abs().sum().item()
    batch = list(DataLoader(dataset, batch_size=4, num_workers=1))[0]  # noqa: RUF015
    assert torch.equal(batch[2], dataset[2])


@pytest.mark.parametrize(("fov", "matrix"), [((0.22, 0.22), (64, 64)), ((0.2, 0.24), (80, 96))])
def test_the_head_fills_the_field_of_view_and_keeps_its_proportions(fov, matrix):
    acquisition = Acquisition(fov=fov, matrix=matrix)
    for seed in range(5):
        image = brain(acquisition, np.random.default_rng(seed))
        assert image.shape == acquisition.image_shape
        assert image.min() >= 0
        inside = image > 0.15 * np.percentile(image, 99)
        height = np.ptp(np.flatnonzero(inside.any(1))) + 1
        width = np.ptp(np.flatnonzero(inside.any(0))) + 1
        assert 0.7 < max(height / image.shape[0], width / image.shape[1]) < 0.92
        length, breadth = height * acquisition.voxel[1], width * acquisition.voxel[0]
        assert 1.1 < length / breadth < 1.5
        border = np.concatenate([image[:2].ravel(), image[-2:].ravel(), image[:, 0], image[:, -1]])
        assert border.max() < 0.1 * image.max()


def radial_spectrum(image):
    """Root mean square of the spectrum on rings of one pixel, for an image with a maximum of 1."""
    power = np.abs(centered_fft(image / image.max())) ** 2
    y, x = (np.arange(n) - n // 2 for n in image.shape)
    ring = np.hypot(y[:, None], x).round().astype(int)
    mean = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    return np.sqrt(mean[: min(image.shape) // 2])


def test_the_phantom_has_the_spectrum_of_real_brains():
    acquisition = Acquisition(matrix=(128, 128))
    paths = [str(real_data("brain_ms") / f"patient{n}_study1_T1W.nii.gz") for n in ("01", "12")]
    real = images(acquisition, "test", test=paths, n_coils=1)
    spectra = [radial_spectrum(rss(real[n])) for n in range(15, len(real), 6)]
    drawn = [radial_spectrum(brain(acquisition, np.random.default_rng((1, n)))) for n in range(12)]
    ratio = np.exp(np.mean(np.log(drawn), 0) - np.mean(np.log(spectra), 0))[4:60]
    assert ratio.max() < 2
    assert ratio.min() > 0.5


def test_phantom_refuses_nonsense():
    with pytest.raises(ConfigError, match="n_val is 0"):
        phantom(ACQUISITION, "val", n_val=0)
    with pytest.raises(ConfigError, match="n_trian"):
        plugins.build("data", {"kind": "phantom", "n_trian": 3}, ACQUISITION, "train")


# ---- magnitude images


def numbered(n_slices=20, shape=(48, 48)):
    """A volume (slice, y, x) whose slices can be told apart after scaling: slice k has k + 1 bright rows."""
    volume = np.full((n_slices, *shape), 100.0)
    for k in range(n_slices):
        volume[k, : k + 1] = 1000
    return volume


def numbers(dataset):
    return [int((rss(dataset[n])[:, 0] > 0.5).sum()) - 1 for n in range(len(dataset))]


def save(path, volume, **more):
    np.savez(path, volume=volume, **more) if path.suffix == ".npz" else np.save(path, volume)
    return str(path)


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_arrays_keep_the_contract(tmp_path, ending):
    file = save(tmp_path / f"a{ending}", numbered())
    table = {"kind": "images", "test": [file], "n_coils": 3}
    dataset = plugins.build("data", table, ACQUISITION, "test")
    assert len(dataset) == 20
    check_contract(dataset, 3)
    np.testing.assert_allclose(rss(dataset[4]), numbered()[4] / 1000, atol=1e-5)


def test_arrays_may_have_the_slices_last_and_be_transposed(tmp_path):
    volume = numbered(5)
    file = save(tmp_path / "a.npy", volume.transpose(2, 1, 0))
    dataset = images(ACQUISITION, "test", test=[file], slice_axis=2, transpose=True)
    assert numbers(dataset) == [0, 1, 2, 3, 4]


def test_validation_is_a_block_at_the_end_with_a_gap(tmp_path):
    files = {"train": [save(tmp_path / "a.npy", numbered())]}
    assert numbers(images(ACQUISITION, "train", **files)) == list(range(16))
    assert numbers(images(ACQUISITION, "val", **files)) == [17, 18, 19]
    options = {**files, "test_fraction": 0.1}
    assert numbers(images(ACQUISITION, "test", **options)) == [0, 1]
    assert numbers(images(ACQUISITION, "train", **options)) == list(range(3, 16))
    assert numbers(images(ACQUISITION, "val", **options)) == [17, 18, 19]
    files["val"] = [save(tmp_path / "b.npy", numbered(7))]
    assert len(images(ACQUISITION, "train", **files)) == 20
    assert len(images(ACQUISITION, "val", **files)) == 7


def test_the_contrasts_of_a_slice_stay_together(tmp_path):
    volume = np.stack([numbered(), 0.4 * numbered()], axis=1)
    files = {"train": [save(tmp_path / "a.npz", volume, echo_time=np.arange(2.0))]}
    assert numbers(images(ACQUISITION, "val", **files)) == [17, 17, 18, 18, 19, 19]
    assert len(images(ACQUISITION, "train", **files)) == 32


def test_each_contrast_of_a_file_is_scaled_by_the_maximum_of_its_slices(tmp_path):
    heights = np.array([[700.0, 40.0], [350.0, 80.0], [100.0, 20.0]])
    volume = heights[:, :, None, None] * numbered(3)[:, None] / 1000
    files = [save(tmp_path / "a.npy", volume), save(tmp_path / "b.npy", 3 * volume)]
    expected = [1, 0.5, 0.5, 1, 1 / 7, 0.25]
    assert peaks(images(ACQUISITION, "test", test=files, slices_min_signal=0.1)) == pytest.approx(
        2 * expected, abs=1e-5
    )


def test_the_maximum_of_a_volume_may_lie_in_another_split(tmp_path):
    volume = numbered() * np.linspace(1, 0.5, 20)[:, None, None]
    file = save(tmp_path / "a.npy", volume)
    found = images(ACQUISITION, "val", train=[file])
    assert peaks(found) == pytest.approx(np.linspace(1, 0.5, 20)[17:].tolist(), abs=1e-5)
    raw = write_h5(tmp_path / "a.h5", volume)
    assert peaks(fastmri(ACQUISITION, "val", train=[raw])) == pytest.approx(peaks(found), abs=1e-5)


def test_empty_slices_are_dropped(tmp_path):
    volume = numbered(10)
    volume[[0, 9]] = 0
    volume[1] *= 0.01
    file = save(tmp_path / "a.npy", volume)
    assert len(images(ACQUISITION, "test", test=[file])) == 7
    assert len(images(ACQUISITION, "test", test=[file], slices_min_signal=0.0)) == 8


@pytest.mark.parametrize("contrasts", [1, 2])
def test_a_hot_pixel_drops_no_other_slice(tmp_path, contrasts):
    volume = np.stack([numbered(10)] * contrasts, axis=1) + 1
    volume[0] *= 0.01
    volume[4, 0, 20, 20] = 60_000
    dataset = images(ACQUISITION, "test", test=[save(tmp_path / "a.npy", volume)], slices_min_signal=0.25)
    assert len(dataset) == 9 * contrasts  # as without the pixel
    assert dataset.origin == "1 file (1 more with less than 0.25 of the strongest's signal left out)"


def thick(n_slices, shape=(64, 60)):
    """A smooth volume (slice, y, x) whose neighbouring slices differ three times as much as neighbouring pixels."""
    z, y, x = np.ogrid[:n_slices, : shape[0], : shape[1]]
    return 3 + np.sin(0.3 * z) + np.sin(0.1 * y) + np.sin(0.1 * x)


def test_slices_of_another_direction_than_the_file_has_are_refused(tmp_path):
    volume = thick(20)
    file = save(tmp_path / "a.npy", volume)
    turned = save(tmp_path / "b.npz", volume.transpose(1, 2, 0))
    with pytest.raises(InputError, match=r"slice_axis = 0 has 64 slices of 60 x 20 .* set data\.slice_axis = 2"):
        images(ACQUISITION, "test", test=[turned])
    with pytest.raises(InputError, match=r"slice_axis = 2 has 60 slices of 20 x 64 .* set data\.slice_axis = 0"):
        images(ACQUISITION, "test", test=[file], slice_axis=2)
    found = [images(ACQUISITION, "test", test=[name], slice_axis=axis) for name, axis in ((file, 0), (turned, 2))]
    assert [len(dataset) for dataset in found] == [20, 20]
    assert torch.equal(found[0][3], found[1][3])


@pytest.mark.parametrize("shape", [(64, 60, 20), (200, 60, 25), (20, 64, 60), (200, 64, 64)])
def test_many_slices_that_are_narrow_are_taken_where_pixels_are_as_alike_as_slices(tmp_path, shape):
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    even = 3 + np.sin(0.1 * z) + np.sin(0.1 * y) + np.sin(0.1 * x)
    noise = np.random.default_rng(0).uniform(1, 2, shape)
    for n, volume in enumerate((even, noise)):
        assert len(images(ACQUISITION, "test", test=[save(tmp_path / f"{n}.npy", volume)])) == shape[0]


def write_nifti(path, codes, zooms=(1.0, 1.5, 3.0), shape=(30, 20, 8)):
    """Write the function x + 2 y + 4 z of the position, in the order of axes and directions of `codes`."""
    left, back, up = (np.arange(n) * size for n, size in zip(shape, zooms, strict=True))
    volume = left[:, None, None] + 2 * back[:, None] + 4 * up
    image = nibabel.Nifti1Image(volume.astype(np.float32), np.diag([-zooms[0], -zooms[1], zooms[2], 1]))
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    wanted = nibabel.orientations.axcodes2ornt(codes)
    start = nibabel.orientations.axcodes2ornt(("L", "P", "S"))
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(start, wanted))
    nibabel.save(nibabel.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    return str(path)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAL", "PIR"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_slices_are_upright_whatever_the_file_order(tmp_path, codes, ending):
    acquisition = Acquisition(fov=(0.2, 0.2), matrix=(30, 30))
    file = write_nifti(tmp_path / f"a{ending}", codes)
    dataset = images(acquisition, "test", test=[file], slices_min_signal=0.0)
    assert len(dataset) == 8
    slopes = [np.diff(rss(dataset[3]), axis=axis)[8:-8, 8:-8].mean() for axis in (0, 1)]
    assert slopes[0] == pytest.approx(2 * slopes[1], rel=0.05)  # down is back, right is left
    assert slopes[1] > 0
    expected = images(acquisition, "test", test=[write_nifti(tmp_path / "b.nii", "LPS")], slices_min_signal=0.0)
    assert torch.equal(dataset[5], expected[5])


@pytest.mark.parametrize(("plane", "n", "down"), [("axial", 8, 2), ("coronal", 20, -4), ("sagittal", 30, -4)])
def test_nifti_planes(tmp_path, plane, n, down):
    acquisition = Acquisition(fov=(0.2, 0.2), matrix=(30, 30))
    file = write_nifti(tmp_path / "a.nii.gz", "RAS")
    dataset = images(acquisition, "test", test=[file], plane=plane, slices_min_signal=0.0)
    assert len(dataset) == n
    slopes = [np.median(np.diff(rss(dataset[4]), axis=axis)[8:-8, 8:-8]) for axis in (0, 1)]
    right = 2 if plane == "sagittal" else 1
    assert slopes[0] / slopes[1] == pytest.approx(down / right, rel=0.1)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("patient01_study1_T1W.npy", "patient01_study2_T1W.npy"),
        ("sub-07_T1w.npy", "sub-07_T2w.npy"),
        ("sub-A3/anat.npy", "sub-A3/other.npy"),
        ("IXI012-Guys-T1.npy", "IXI012-Guys-T2.npy"),
    ],
)
def test_a_patient_on_both_sides_is_refused(tmp_path, train, test):
    for n, name in enumerate((train, test)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name, numbered(4) + n)
    files = {"train": [str(tmp_path / train)], "test": [str(tmp_path / test)]}
    with pytest.raises(ConfigError, match=r"patient '(patient01|sub-07|sub-a3|ixi012)' is in data.test"):
        images(ACQUISITION, "test", **files)
    dataset = images(ACQUISITION, "test", **files, patient_pattern="never")
    assert len(dataset) == 4


def test_different_patients_pass_and_the_same_file_never(tmp_path):
    for n, name in enumerate(("patient1_a", "patient2_a", "subset_a", "subset_b")):
        save(tmp_path / f"{name}.npy", numbered(9) + n)
    folder = str(tmp_path)
    assert images(ACQUISITION, "train", train=[f"{folder}/patient1*"], test=[f"{folder}/patient2*"])
    assert images(ACQUISITION, "train", train=[f"{folder}/subset_a*"], test=[f"{folder}/subset_b*"])
    with pytest.raises(ConfigError, match="in one only"):
        images(ACQUISITION, "train", train=[f"{folder}/subset_*"], val=[f"{folder}/subset_b.npy"])


def test_wrong_options_of_images_are_refused(tmp_path):
    file = save(tmp_path / "a.npy", numbered(3))
    for match, split, options in [
        ("data.train is empty", "train", {}),
        ("data.test is empty", "test", {"train": [file]}),
        ("is a list", "train", {"train": file}),
        ("val_fraction is 0", "val", {"train": [file], "val_fraction": 0.0}),
        ("val_fraction is 1.5", "val", {"train": [file], "val_fraction": 1.5}),
        ("too few", "train", {"train": [file], "val_fraction": 0.7}),
        ("n_coils is 0", "train", {"train": [file], "n_coils": 0}),
        ("slice_axis is 1", "train", {"train": [file], "slice_axis": 1}),
        ("regular expression", "train", {"train": [file], "test": [file], "patient_pattern": "("}),
    ]:
        if "patient_pattern" in options:
            options["test"] = [save(tmp_path / "b.npy", numbered(3) + 1)]
        with pytest.raises(ConfigError, match=match):
            images(ACQUISITION, split, **options)


def test_wrong_image_files_are_refused(tmp_path):
    good = numbered(3)
    holed = good.copy()
    holed[1, 2, 3] = np.nan
    (tmp_path / "text.nii.gz").write_text("no image")
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.nii").touch()
    (tmp_path / "folder.npy").mkdir()
    whole = Path(write_nifti(tmp_path / "whole.nii.gz", "LPS")).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5), np.float32), np.eye(4)), tmp_path / "flat.nii")
    for match, name, array in [
        ("names no file", "absent.npy", None),
        ("names no file", "nothing*.npy", None),
        ("no DICOM", "folder.npy", None),
        ("damaged", "text.nii.gz", None),
        ("damaged", "text.npy", None),
        ("damaged", "empty.nii", None),
        ("damaged", "cut.nii.gz", None),
        ("pickled objects", "objects.npy", None),
        ("shape", "flat.nii", None),
        ("no known kind", "a.dat", b""),
        ("shape", "two.npy", good[0]),
        ("real", "complex.npy", good + 1j),
        ("slice 1", "holed.npy", holed),
        ("no magnitudes", "scores.npy", good - 200),
        ("no magnitudes", "zero.npy", 0 * good),
        ("data.array", "two.npz", {"a": good, "b": good}),
    ]:
        path = tmp_path / name
        if isinstance(array, dict):
            np.savez(path, **array)
        elif isinstance(array, bytes):
            path.write_bytes(array)
        elif array is not None:
            np.save(path, array)
        with pytest.raises(InputError, match=match) as raised:
            images(ACQUISITION, "test", test=[str(path)])
        assert name in str(raised.value)
    assert len(images(ACQUISITION, "test", test=[str(tmp_path / "two.npz")], array="b")) == 3


@pytest.mark.parametrize("shape", [(0, 8, 8), (4, 0, 8), (4, 8, 0), (4, 0, 8, 8)])
@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5"])
def test_arrays_without_numbers_are_refused(tmp_path, ending, shape):
    path = tmp_path / f"a{ending}"
    if ending == ".h5":
        with h5py.File(path, "w") as file:
            file["a"] = np.zeros(shape)
    else:
        save(path, np.zeros(shape))
    with pytest.raises(InputError, match=r"slices of . x . pixels"):
        images(ACQUISITION, "test", test=[str(path)])


def test_pixels_of_implausible_shape_are_refused(tmp_path):
    file = write_nifti(tmp_path / "a.nii", "LPS", zooms=(1e-6, 1.0, 3.0))
    with pytest.raises(InputError, match=r"a\.nii: 20 x 30 pixels of 1 x 1e-06"):
        images(ACQUISITION, "test", test=[file], plane="axial")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".npy"])
def test_damaged_files_give_an_image_or_a_sentence(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        np.save(path, numbered(4))
    else:
        write_nifti(path, "LPS")
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for n in range(100):
        data = bytearray(whole if n % 5 else whole[: generator.integers(len(whole))])
        for _ in range(generator.integers(1, 8)):
            if data:
                data[generator.integers(min(len(data), 1200))] = generator.integers(256)
        path.write_bytes(data)
        try:
            dataset = images(ACQUISITION, "test", test=[str(path)])
            assert dataset[0].isfinite().all()
        except InputError:
            refused += 1
    assert refused > 20


def test_images_of_real_brains():
    folder = real_data("brain_ms")
    files = {"train": [f"{folder}/patient03*T2W*"], "test": [f"{folder}/patient04*T2W*"]}
    sets = {split: images(ACQUISITION, split, **files) for split in ("train", "val", "test")}
    for dataset in sets.values():
        check_contract(dataset, 4)
    middle = rss(sets["test"][len(sets["test"]) // 2])
    assert middle[:2].max() < 0.1
    assert 0.25 < (middle > 0.1).mean() < 0.6


# ---- raw data


def fourier(n):
    """Matrix of the centred orthonormal discrete Fourier transform."""
    at = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(at, at) / n) / np.sqrt(n)


def write_h5(path, image, name="kspace", **attributes):
    """Write the k-space of an image (slice, ..., y, x) by matrix products."""
    ny, nx = image.shape[-2:]
    kspace = fourier(ny) @ image @ fourier(nx).T
    with h5py.File(path, "w") as file:
        file[name] = kspace.astype(np.complex64)
        file.attrs.update(attributes)
    return str(path)


def coil_images(n_slices=3, n_coils=4, shape=(48, 48), seed=0):
    parts = np.random.default_rng(seed).normal(size=(2, n_slices, n_coils, *shape))
    return parts[0] + 1j * parts[1]


def header(encoded, encoded_fov, fov):
    def size(part, values):
        return f"<{part}><x>{values[0]}</x><y>{values[1]}</y><z>1</z></{part}>"

    return (
        '<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>'
        f"<encodedSpace>{size('matrixSize', encoded)}{size('fieldOfView_mm', encoded_fov)}</encodedSpace>"
        f"<reconSpace>{size('matrixSize', encoded)}{size('fieldOfView_mm', fov)}</reconSpace>"
        "</encoding></ismrmrdHeader>"
    )


def test_kspace_becomes_the_image(tmp_path):
    image = coil_images()
    table = {"kind": "fastmri", "test": [write_h5(tmp_path / "a.h5", image)]}
    dataset = plugins.build("data", table, ACQUISITION, "test")
    check_contract(dataset, 4)
    peak = np.sqrt((np.abs(image) ** 2).sum(1)).max()
    for n in range(3):
        np.testing.assert_allclose(dataset[n].numpy(), image[n] / peak, atol=1e-5)
    assert torch.equal(dataset[1], fastmri(ACQUISITION, "test", test=table["test"], cache_bytes=0)[1])


def test_one_coil_needs_no_coil_axis(tmp_path):
    image = coil_images()[:, 0]
    dataset = fastmri(ACQUISITION, "test", test=[write_h5(tmp_path / "a.h5", image)])
    check_contract(dataset, 1)


def test_kspace_is_cropped_to_the_matrix(tmp_path):
    image = coil_images(1, 2, (96, 96))
    dataset = fastmri(ACQUISITION, "test", test=[write_h5(tmp_path / "a.h5", image)])
    kspace = (fourier(96) @ image[0] @ fourier(96).T)[:, 24:72, 24:72]
    expected = fourier(48).conj().T @ kspace @ fourier(48).conj()
    expected /= np.sqrt((np.abs(expected) ** 2).sum(0)).max()
    np.testing.assert_allclose(dataset[0].numpy(), expected, atol=1e-5)


def test_oversampling_is_cut_off_where_the_header_tells(tmp_path):
    image = coil_images(1, 2, (96, 48))
    file = write_h5(tmp_path / "a.h5", image)
    with h5py.File(file, "a") as opened:
        opened["ismrmrd_header"] = header((96, 48), (440, 220), (220, 220))
    expected = image[0, :, 24:72]
    expected = expected / np.sqrt((np.abs(expected) ** 2).sum(0)).max()
    np.testing.assert_allclose(fastmri(ACQUISITION, "test", test=[file])[0].numpy(), expected, atol=1e-5)
    with h5py.File(file, "a") as opened:
        del opened["ismrmrd_header"]
    padded = fastmri(ACQUISITION, "test", test=[file])[0].numpy()
    assert np.abs(padded[:, :, :10]).max() < 0.2 * np.abs(padded).max()


def test_slices_and_validation_blocks_of_raw_data(tmp_path):
    file = write_h5(tmp_path / "a.h5", coil_images(20, 1, (8, 8)))
    assert len(fastmri(ACQUISITION, "train", train=[file])) == 16
    assert len(fastmri(ACQUISITION, "val", train=[file])) == 3
    assert len(fastmri(ACQUISITION, "train", train=[file], val_fraction=0.0)) == 20
    assert len(fastmri(ACQUISITION, "test", test=[file], slices=[2, -2])) == 16
    with pytest.raises(ConfigError, match="none of them"):
        fastmri(ACQUISITION, "test", test=[file], slices=[30, 40])
    with pytest.raises(ConfigError, match="one after the last"):
        fastmri(ACQUISITION, "test", test=[file], slices=[3])
    with pytest.raises(ConfigError, match=r"data\.train is empty"):
        fastmri(ACQUISITION, "train", test=[file])


def test_coils_are_compressed_or_filled_up(tmp_path):
    image = coil_images(1, 3)
    files = [write_h5(tmp_path / "a.h5", image), write_h5(tmp_path / "b.h5", coil_images(1, 6))]
    with pytest.raises(InputError, match="n_coils = 3"):
        fastmri(ACQUISITION, "test", test=files)
    dataset = fastmri(ACQUISITION, "test", test=files, n_coils=5)
    check_contract(dataset, 5)
    peak = np.sqrt((np.abs(image[0]) ** 2).sum(0)).max()
    np.testing.assert_allclose(rss(dataset[0]), np.sqrt((np.abs(image[0]) ** 2).sum(0)) / peak, atol=1e-5)


def test_compression_keeps_all_that_few_coils_hold():
    generator = np.random.default_rng(2)
    sources = generator.normal(size=(2, 10, 12)) + 1j * generator.normal(size=(2, 10, 12))
    mixed = np.einsum("cs,syx->cyx", generator.normal(size=(7, 2)), sources)
    few = compress_coils(mixed, 2)
    np.testing.assert_allclose((np.abs(few) ** 2).sum(0), (np.abs(mixed) ** 2).sum(0), rtol=1e-6)
    assert (np.abs(few[0]) ** 2).sum() >= (np.abs(few[1]) ** 2).sum()


def test_a_patient_in_two_raw_files_is_refused(tmp_path):
    files = [write_h5(tmp_path / f"{n}.h5", coil_images(1, 1, (8, 8)), patient_id="p1") for n in "ab"]
    with pytest.raises(ConfigError, match="patient 'p1'"):
        fastmri(ACQUISITION, "test", train=files[:1], test=files[1:])


def test_wrong_raw_files_are_refused(tmp_path):
    good = write_h5(tmp_path / "good.h5", coil_images(2, 2, (16, 16)))
    secret = write_h5(tmp_path / "secret.h5", coil_images(2, 2, (16, 16)))
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "cut.h5").write_bytes(Path(good).read_bytes()[:1500])
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink(secret, "kspace")
    with h5py.File(tmp_path / "soft.h5", "w") as file:
        file["kspace"] = h5py.SoftLink("/kspace")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((2, 2, 16, 16), np.complex64)
        layout[:] = h5py.VirtualSource(secret, "kspace", (2, 2, 16, 16))
        file.create_virtual_dataset("kspace", layout)
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("kspace", (1, 1, 4, 4), np.complex64, external=[(secret, 0, 128)])
    with h5py.File(tmp_path / "real.h5", "w") as file:
        file["kspace"] = np.ones((1, 1, 4, 4))
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["kspace"] = np.ones((4, 4), np.complex64)
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("kspace", (1, 64, 2**16, 2**16), np.complex64, chunks=(1, 1, 64, 64))
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("kspace")
    for match, name in [
        ("names no file", "absent.h5"),
        ("damaged", "text.h5"),
        ("damaged", "cut.h5"),
        ("of its own", "link.h5"),
        ("of its own", "soft.h5"),
        ("of its own", "group.h5"),
        ("other files", "virtual.h5"),
        ("other files", "outside.h5"),
        ("complex", "real.h5"),
        ("shape", "flat.h5"),
        ("bytes", "huge.h5"),
    ]:
        with pytest.raises(InputError, match=match) as raised:
            fastmri(ACQUISITION, "test", test=[str(tmp_path / name)])
        assert raised.value.exit_code == 3
        assert name in str(raised.value)
    with pytest.raises(InputError, match="no dataset 'nothing'"):
        fastmri(ACQUISITION, "test", test=[good], key="nothing")
    with h5py.File(good, "a") as file:
        file["ismrmrd_header"] = "<not xml"
    with pytest.raises(InputError, match="ismrmrd_header"):
        fastmri(ACQUISITION, "test", test=[good])


def test_slices_without_numbers_are_named(tmp_path):
    file = write_h5(tmp_path / "a.h5", coil_images(3, 2, (16, 16)))
    with h5py.File(file, "a") as opened:
        opened["kspace"][1, 0, 3, 4] = np.nan
        opened["kspace"][2] = 0
    assert fastmri(ACQUISITION, "test", test=[file], slices=[0, 1])[0].isfinite().all()
    with pytest.raises(InputError, match=r"a\.h5: slice 1 .* not finite"):
        fastmri(ACQUISITION, "test", test=[file])[0]
    with pytest.raises(InputError, match=r"a\.h5: slice 2 .* is zero"):
        fastmri(ACQUISITION, "test", test=[file], slices=[2, 3])[0]


def test_the_volume_is_read_once_and_kept_within_bounds(tmp_path):
    image = coil_images(4) * np.array([1e-20, 1, 2, 1e-3])[:, None, None, None]
    file = write_h5(tmp_path / "a.h5", image)
    slice_bytes = 4 * 48 * 48 * 8
    whole, two = (fastmri(ACQUISITION, "test", test=[file], cache_bytes=n * slice_bytes) for n in (4, 2))
    expected = [whole[n] for n in range(4)]
    assert peaks(whole)[0] == pytest.approx(
        rss(torch.from_numpy(image[0])).max() / rss(torch.from_numpy(image[2])).max()
    )
    assert all(torch.equal(two[n], expected[n]) for n in (3, 1, 0, 2))
    assert len(two.cache) == 2
    Path(file).unlink()
    assert all(torch.equal(whole[n], expected[n]) for n in range(4))


def test_real_raw_data_give_the_publishers_reconstruction():
    folder = real_data("brain_8ch")
    acquisition = Acquisition(fov=(0.18, 0.23), matrix=(180, 230))
    path = folder / "brain_8ch_clean.h5"
    dataset = fastmri(acquisition, "test", test=[str(path)])
    check_contract(dataset, 8, (230, 180))
    with h5py.File(path) as file:
        published = file["reconstruction_rss"][0]
    np.testing.assert_allclose(rss(dataset[0]), published / published.max(), atol=1e-5)
    check_contract(fastmri(ACQUISITION, "test", test=[f"{folder}/*.h5"]), 8)
