"""Who and what is in which split: the same in every format."""

import re

import h5py
import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from trajdesign import Acquisition
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.data.sources.fastmri import fastmri
from trajdesign.data.sources.images import images
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning.evaluation import evaluate, look_at
from trajdesign.learning.results import StageResult
from trajdesign.runtime.processes import Ranks

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


def heads(n_slices, seed=0):
    """Slices (slice, y, x) of objects on a black background, with a maximum of 1000."""
    draw = gaussian_filter(np.random.default_rng(seed).uniform(size=(n_slices, 48, 40)), (0, 3, 3))
    draw = (draw - draw.min()) / np.ptp(draw)
    y, x = np.ogrid[-1:1:48j, -1:1:40j]
    return np.round(1000 * (0.2 + 0.8 * draw) * ((y / 0.7) ** 2 + (x / 0.6) ** 2 < 1))


def saved(path, volume):
    """Write a volume (slice, y, x) in the format of the ending, and return its path."""
    if path.suffix == ".npy":
        np.save(path, volume)
    elif path.suffix == ".npz":
        np.savez(path, volume=volume)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["volume"] = volume
    else:
        nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-1, -1, 3, 1])), path)
    return str(path)


def look_at_files(tmp_path, said=None, kind="images", **files):
    """Look at all images as a run does, of files by split."""
    table = {"kind": kind, **{split: list(paths) for split, paths in files.items()}}
    data = {split: plugins.build("data", table, ACQUISITION, split) for split in files}
    config = load_config(None, ["acquisition.matrix=[16,16]"])
    return look_at(data, config, Ranks(), [].append if said is None else said)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("b.npy", lambda volume: volume.astype(np.uint16)),
        ("b.npz", lambda volume: (volume / 1000).astype(np.float32)),
        ("b.h5", lambda volume: (volume * 3.7).astype(">f4")),
        ("b.nii.gz", lambda volume: volume.astype(np.int16)),
        ("b.nii", lambda volume: np.round(volume * 0.255).astype(np.uint8)),  # of which only 256 greys are left
        ("b.npy", lambda volume: volume[3:4]),
        ("b.npy", lambda volume: np.pad(volume, ((0, 0), (9, 0), (1, 30)))),
        ("b.npy", lambda volume: volume[:, 5:-4, 5:-5]),
        ("b.npy", lambda volume: volume[::-1, ::-1]),
        ("b.npy", lambda volume: volume.swapaxes(1, 2)[:, ::-1]),
    ],
)
def test_a_copy_is_known_in_whatever_format_type_scale_frame_and_orientation(tmp_path, name, change, split):
    train = saved(tmp_path / "a.npy", heads(6).astype(np.float32))
    files = {"train": [train], split: [saved(tmp_path / name, change(heads(6)))]}
    which = (
        rf"[1-6] of [1-6] images to {split} on are in data\.train too: number ([0-9]) \(.*{name}, slice \1\) .*a\.npy,"
    )
    with pytest.raises(ConfigError, match=which):
        look_at_files(tmp_path, **files)


def test_a_slice_of_raw_data_in_two_files_is_refused(tmp_path):
    y = np.arange(16) - 8
    fourier = np.exp(-2j * np.pi * np.outer(y, y) / 16)
    images = np.random.default_rng(0).uniform(size=(5, 1, 16, 16))
    for name, part in (("a", images[:4]), ("b", 7 * images[3:]), ("c", images[4:])):
        write(tmp_path / f"{name}.h5", (fourier @ part @ fourier.T).astype(np.complex64))
    files = [[str(tmp_path / f"{name}.h5")] for name in "abc"]
    assert [len(v) for v in look_at_files(tmp_path, kind="fastmri", val=files[0], test=files[2]).values()] == [4, 1]
    with pytest.raises(
        ConfigError,
        match=r"1 of 2 images to test on .* data.val too: number 0 .*b\.h5, slice 0\) .* 3 .*a\.h5, slice 3",
    ):
        look_at_files(tmp_path, kind="fastmri", val=files[0], test=files[1])


def test_objects_neighbours_and_blank_slices_are_no_copies(tmp_path):
    volume = heads(6)
    near = volume[:, ::-1] * 0.98 + 0.02 * heads(6, 1)  # hardly to be told by eye
    blank = np.concatenate([volume, np.zeros((2, 48, 40)), np.full((2, 48, 40), 7.0)])
    files = {"train": [saved(tmp_path / "a.npy", blank)], "test": [saved(tmp_path / "b.npy", near)]}
    assert [len(prints) for prints in look_at_files(tmp_path, **files).values()] == [4, 6]
    config = load_config(None, ["acquisition.matrix=[16,16]", "data.n_train=30", "data.n_val=5", "data.n_test=5"])
    data = {split: plugins.build("data", config.data, ACQUISITION, split) for split in ("train", "val", "test")}
    assert [len(prints) for prints in look_at(data, config, Ranks()).values()] == [30, 5, 5]


@pytest.mark.parametrize("kind", ["images", "fastmri"])
def test_an_image_has_the_number_of_its_person_and_no_name(tmp_path, kind):
    dtype = complex if kind == "fastmri" else np.float32
    names = ["sub-2_a", "sub-2_b", "sub-7", "sub-9"]
    for number, name in enumerate(names):
        write(tmp_path / f"{name}.h5", objects(number).astype(dtype))
    write(tmp_path / "sub-7.h5", objects(7)[:4].astype(dtype))
    # who is 9 by name is 2 by the header
    write(tmp_path / "sub-9.h5", objects(9)[:2].astype(dtype), patient_id="sub-02")
    files = [str(tmp_path / f"{name}.h5") for name in names]
    found = plugins.build("data", {"kind": kind, "test": files}, ACQUISITION, "test").people
    one, other = found[0], found[18]
    assert found == [one] * 18 + [other] * 4 + [one] * 2
    assert {one, other} == {0, 1}
    write(tmp_path / "other.h5", objects(8).astype(dtype))
    files.append(str(tmp_path / "other.h5"))
    assert plugins.build("data", {"kind": kind, "test": files}, ACQUISITION, "test").people is None


def test_results_keep_whose_the_images_are_that_count(tmp_path):
    volumes = {"sub-1": heads(4), "sub-2": heads(3, 5)}
    volumes["sub-2"][1] = volumes["sub-1"][2]  # a copy, which does not count
    files = [saved(tmp_path / f"{name}.npy", volume) for name, volume in volumes.items()]
    config = load_config(None, ["acquisition.matrix=[16,16]", "reconstructor.kind=adjoint", "training.normal=chain"])
    trajectory = plugins.build("init", config.init, config.acquisition, config.scanner)
    network = plugins.build("reconstructor", config.reconstructor)
    found = evaluate(trajectory, network, images(ACQUISITION, "test", test=files), config)
    assert (found.left_out, found.people) == ([5], [0, 0, 0, 0, 1, 1])
    assert StageResult.from_tables(found.tables()).people == found.people


def test_a_copy_within_the_test_counts_once(tmp_path):
    volume, said = heads(4), []
    files = [saved(tmp_path / "a.npy", volume), saved(tmp_path / "b.nii", volume[1:3].astype(np.uint16))]
    look_at_files(tmp_path, said.append, test=files)
    assert said == [
        "test split: 2 of 6 images are copies of earlier ones (number 4, 5, counted from 0); each counts once in all "
        "results."
    ]
    config = load_config(None, ["acquisition.matrix=[16,16]", "reconstructor.kind=adjoint", "training.normal=chain"])
    trajectory = plugins.build("init", config.init, config.acquisition, config.scanner)
    network = plugins.build("reconstructor", config.reconstructor)
    scores = [evaluate(trajectory, network, images(ACQUISITION, "test", test=files[:n]), config) for n in (1, 2)]
    assert [found.left_out for found in scores] == [[], [4, 5]]
    assert scores[1].psnr_list == pytest.approx(scores[0].psnr_list, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("images", {"test_fraction": 0.2}, "data.test_fraction counts for nothing, because data.test has files"),
        ("images", {"val_fraction": 0.2}, "data.val_fraction counts for nothing, because data.val has files"),
        ("images", {"plane": "sagittal"}, "data.plane counts for nothing, because there is no NIfTI file"),
        ("images", {"array": "a"}, "data.array counts for nothing, because there is no file .npz or .h5"),
        ("fastmri", {"val_fraction": 0.2}, "data.val_fraction counts for nothing"),
    ],
)
def test_an_option_that_counts_for_nothing_is_refused(tmp_path, kind, options, sentence):
    ending = ".npy" if kind == "images" else ".h5"
    for n, name in enumerate(("a", "b", "c")):
        np.save(tmp_path / f"{name}.npy", objects(n))
        write(tmp_path / f"{name}.h5", objects(n) + 0j)
    files = {
        split: [str(tmp_path / f"{name}{ending}")] for split, name in zip(("train", "val", "test"), "abc", strict=True)
    }
    for split in files:
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            plugins.build("data", {"kind": kind, **files, **options}, ACQUISITION, split)
    assert len(plugins.build("data", {"kind": kind, **files, "val_fraction": 0.0}, ACQUISITION, "train")) == 9


@pytest.mark.parametrize("options", [{"slice_axis": 2}, {"transpose": True}])
def test_an_option_of_arrays_is_refused_of_nifti(tmp_path, options):
    file = saved(tmp_path / "a.nii", objects(0))
    with pytest.raises(ConfigError, match=r"data\.(slice_axis|transpose) counts for nothing"):
        images(ACQUISITION, "test", test=[file], **options)


@pytest.mark.parametrize("name", ["patient_id", "PatientID", "subject", "Subject-ID", "participant_id"])
@pytest.mark.parametrize("place", ["file", "dataset", "group", "text"])
def test_a_patient_of_hdf5_is_found_under_other_names_and_beside_the_data(tmp_path, name, place):
    for n in range(2):
        with h5py.File(tmp_path / f"{n}.h5", "w") as file:
            file["kspace"] = objects(n) + 0j
            of = {"file": file, "dataset": file["kspace"], "group": file.create_group("meta")}.get(place)
            if of is None:
                file[name] = "P07"
            else:
                of.attrs[name] = "P07"
    with pytest.raises(ConfigError, match=r"patient 'p07' is in data\.test"):
        fastmri(ACQUISITION, "train", train=[str(tmp_path / "0.h5")], test=[str(tmp_path / "1.h5")])


def test_a_home_of_nobody_is_refused():
    with pytest.raises(InputError, match=r"'~no_such_user/a\.npy' names the home of nobody"):
        images(ACQUISITION, "test", test=["~no_such_user/a.npy"])
