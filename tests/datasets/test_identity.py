"""Who and what is in which split: the same in every format."""

import gzip

import h5py
import nibabel
import numpy as np
import pytest

from trajdesign import Acquisition, plugins
from trajdesign.datasets.fastmri import fastmri
from trajdesign.datasets.images import images
from trajdesign.errors import ConfigError, InputError

ACQUISITION = Acquisition(matrix=(16, 16))


def objects(seed):
    """Nine slices (slice, y, x)."""
    return np.random.default_rng(seed).uniform(1, 2, (9, 8, 8)).astype(np.float32)


def write(path, array, **attributes):
    with h5py.File(path, "w") as file:
        file["kspace"] = array
        file.attrs.update(attributes)


@pytest.mark.parametrize(
    ("train", "test", "refused"),
    [
        ("p1", "P1", True),
        ("p1", "p2", False),
        ("xxxxxxxx", "xxxxxxxx", False),  # as the name was taken away
        ("anonymous", "anonymous", False),
        ("ANON001", "ANON001", True),
    ],
)
@pytest.mark.parametrize("kind", ["images", "fastmri"])
def test_the_identities_of_hdf5_files_are_told_apart(tmp_path, kind, train, test, refused):
    for n, name in enumerate((train, test)):
        write(tmp_path / f"{n}.h5", objects(n) if kind == "images" else objects(n) + 0j, patient_id=name)
    table = {"kind": kind, "train": [str(tmp_path / "0.h5")], "test": [str(tmp_path / "1.h5")]}
    if refused:
        with pytest.raises(ConfigError, match=rf"patient '{train.lower()}' is in data\.test"):
            plugins.build("data", table, ACQUISITION, "train")
    else:
        assert len(plugins.build("data", table, ACQUISITION, "train")) > 0


@pytest.mark.parametrize("kind", ["images", "fastmri"])
@pytest.mark.parametrize(
    "name",
    [7, np.int16(7), 7.0, np.float32(7), np.array([7]), np.array(["7"], dtype=object), np.array([b"7", b"8"]), b"7"],
)
def test_a_patient_of_hdf5_is_a_text_a_number_or_a_list_of_them(tmp_path, kind, name):
    for n, found in enumerate(("7", name)):
        write(tmp_path / f"{n}.h5", objects(n) if kind == "images" else objects(n) + 0j, patient_id=found)
    table = {"kind": kind, "train": [str(tmp_path / "0.h5")], "test": [str(tmp_path / "1.h5")]}
    with pytest.raises(ConfigError, match=r"patient '7' is in data\.test"):
        plugins.build("data", table, ACQUISITION, "train")


@pytest.mark.parametrize("name", [True, 1j, np.zeros(1, [("a", "i4")]), np.void(b"me"), np.zeros(2**20, "i2")])
def test_a_patient_of_hdf5_that_cannot_be_read_is_refused(tmp_path, name):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:  # which has room for large attributes
        file["kspace"], file.attrs["patient_id"] = objects(0), name
    with pytest.raises(InputError, match="its attribute 'patient_id' is no text, number, or list of them"):
        images(ACQUISITION, "test", test=[str(tmp_path / "a.h5")])


def test_an_empty_patient_of_hdf5_is_nobody(tmp_path):
    write(tmp_path / "a.h5", objects(0), patient_id=h5py.Empty("S1"))
    assert len(images(ACQUISITION, "test", test=[str(tmp_path / "a.h5")])) == 9


def test_a_name_counts_for_raw_data_too(tmp_path):
    for n in range(2):
        write(tmp_path / f"sub-01_run-{n}.h5", objects(n) + 0j)
    with pytest.raises(ConfigError, match="patient 'sub-01'"):
        fastmri(
            ACQUISITION, "test", train=[str(tmp_path / "sub-01_run-0.h5")], test=[str(tmp_path / "sub-01_run-1.h5")]
        )


@pytest.mark.parametrize(
    ("train", "test", "refused"),
    [
        ("patient_01_a", "patient01_b", True),
        ("patient-01a", "patient 1", True),
        ("sub-1", "sub-01", True),
        ("IXI012-Guys", "ixi_12-T2", True),
        ("pat12", "pat012", True),
        ("pat12", "pat120", False),
        ("pat12", "pat102", False),
        ("subject01", "patient01", False),  # of two studies, as far as one knows
        ("sub-a1", "sub-a10", False),
    ],
)
def test_a_patient_is_known_again_however_the_number_is_written(tmp_path, train, test, refused):
    for n, name in enumerate((train, test)):
        np.save(tmp_path / f"{name}.npy", objects(n))
    files = {"train": [str(tmp_path / f"{train}.npy")], "test": [str(tmp_path / f"{test}.npy")]}
    if refused:
        with pytest.raises(ConfigError, match=r"patient '.*' is in data\.test"):
            images(ACQUISITION, "test", **files)
    else:
        assert len(images(ACQUISITION, "test", **files)) == 9


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("ending", [".npy", ".npz", ".nii", ".nii.gz"])
def test_a_copy_under_another_name_is_refused_packed_or_not(tmp_path, ending, split):
    if ending.startswith(".nii"):
        nibabel.save(nibabel.Nifti1Image(objects(0), np.eye(4)), tmp_path / f"a{ending}")
        whole = (tmp_path / f"a{ending}").read_bytes()
        whole = gzip.decompress(whole) if ending == ".nii.gz" else whole
        (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole, 1, mtime=7))
        copy = "b.nii.gz"
    else:
        np.savez(tmp_path / "a.npz", volume=objects(0))
        np.save(tmp_path / "a.npy", objects(0))
        np.save(tmp_path / "b.npy", objects(0))
        copy = "b.npy"
    files = {"train": [str(tmp_path / f"a{ending}")], split: [str(tmp_path / copy)]}
    with pytest.raises(ConfigError, match=rf"b\.np[yz]|b\.nii\.gz in data\.{split} holds what .* in data\.train does"):
        images(ACQUISITION, "train", **files)


def test_a_home_of_nobody_is_refused():
    with pytest.raises(InputError, match=r"'~no_such_user/a\.npy' names the home of nobody"):
        images(ACQUISITION, "test", test=["~no_such_user/a.npy"])
