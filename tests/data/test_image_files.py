"""Images as pydicom, h5py and BART write them."""

import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from trajdesign import Acquisition
from trajdesign.data.sources.images import images
from trajdesign.data.sources.volumes import volumes
from trajdesign.errors import ConfigError, InputError, ResourceError

ACQUISITION = Acquisition(fov=(0.22, 0.22), matrix=(48, 48), n_samples=600)


def magnitude(dataset):
    return np.stack([np.linalg.norm(item.numpy(), axis=0) for item in dataset])


def volume(n_slices=5, shape=(48, 48), contrasts=1):
    """Smooth bright images with all frequencies well inside the band, the last one the brightest."""
    y, x = (np.linspace(0, 1, n)[:, None] for n in shape)
    bump = 2 + np.sin(2 * np.pi * y) * np.cos(2 * np.pi * x.T) + y
    heights = np.arange(1, n_slices * contrasts + 1).reshape(n_slices, contrasts, 1, 1)
    return np.round(100 * (1 + 0.1 * heights) * bump)


def scaled(array):
    """Return what the images are to be: each contrast as part of its maximum."""
    array = np.asarray(array, dtype=float).reshape(len(array), -1, *array.shape[-2:])
    return (array / array.max((0, 2, 3), keepdims=True)).reshape(-1, *array.shape[-2:])


# --- DICOM ---


def write_dicom(
    folder, array, *, order=None, spacing=(1.0, 1.0), orientation=(1, 0, 0, 0, 1, 0), slopes=None, **changes
):
    """Write (slice, contrast, y, x) as one file an image, numbered in an `order` that is not that of the slices."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    folder.mkdir(exist_ok=True)
    series = generate_uid()
    array = array.reshape(len(array), -1, *array.shape[-2:])
    normal = np.cross(orientation[:3], orientation[3:])
    flat = [(z, echo) for echo in range(array.shape[1]) for z in range(len(array))]
    for number, (z, echo) in enumerate(flat if order is None else [flat[i] for i in order]):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
        data.SeriesInstanceUID, data.InstanceNumber, data.EchoTime = series, number + 1, 10.0 * (echo + 1)
        data.ImageOrientationPatient, data.PixelSpacing = list(orientation), list(spacing)
        data.ImagePositionPatient = [float(x) for x in 3.5 * (z - 2) * normal]
        data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "MR", "MONOCHROME2", 1
        data.Rows, data.Columns = array.shape[-2:]
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        slope = 1 if slopes is None else slopes[z]
        data.RescaleSlope, data.RescaleIntercept = slope, 0
        data.PixelData = np.round(array[z, echo] / slope).astype("<u2").tobytes()
        for key, value in changes.items():
            setattr(data, key, value)
        data.save_as(folder / f"IM{number:04}", enforce_file_format=True)
    return str(folder)


def test_a_folder_is_a_volume_whose_slices_are_evenly_apart(tmp_path):
    acquisition = Acquisition(fov=(0.22, 0.22, 0.22), matrix=(24, 24, 24))
    folder, half = (write_dicom(tmp_path / name, volume(15), spacing=(1.0, 1.0)) for name in ("a", "b"))
    found = magnitude(volumes(acquisition, "test", test=[folder]))[0]
    np.save(tmp_path / "a.npy", volume(15))
    wanted = volumes(acquisition, "test", test=[str(tmp_path / "a.npy")], voxel=[3.5, 1, 1])
    np.testing.assert_allclose(found, magnitude(wanted)[0], atol=1e-4)
    (tmp_path / "b" / "IM0004").unlink()
    for name, n_left in (("b", 14), ("c", 1)):
        folder = half if name == "b" else write_dicom(tmp_path / name, volume(1))
        with pytest.raises(InputError, match=f"{name} has slices that are not evenly apart, or a single one"):
            volumes(acquisition, "test", test=[folder])
        assert len(images(ACQUISITION, "test", test=[folder], slices_min_signal=0.0)) == n_left


def test_values_that_do_not_keep_to_the_standard_are_no_warning(tmp_path):
    folder = write_dicom(tmp_path / "a", volume())
    for path in (tmp_path / "a").iterdir():
        content = path.read_bytes()
        assert b"1.2.826" in content, "as pydicom's own identities start"
        path.write_bytes(content.replace(b"1.2.826", b"1.2.x26"))
    found = magnitude(images(ACQUISITION, "test", test=[folder]))
    np.testing.assert_allclose(found, scaled(volume()), atol=1e-4)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0.8, 0.6, 0, -0.6, 0.8, 0)])
def test_a_folder_is_a_volume_in_the_order_of_its_positions(tmp_path, orientation):
    array = volume()
    folder = write_dicom(tmp_path / "a", array, order=[3, 0, 4, 1, 2], orientation=orientation)
    found = magnitude(images(ACQUISITION, "test", test=[folder]))
    np.testing.assert_allclose(found, scaled(array), atol=1e-5)


def test_echoes_are_contrasts_and_slices_have_slopes_of_their_own(tmp_path):
    array = volume(4, contrasts=2)
    folder = write_dicom(tmp_path / "a", array, order=[5, 1, 7, 0, 2, 6, 4, 3], slopes=[0.5, 1, 0.25, 1])
    found = magnitude(images(ACQUISITION, "test", test=[folder], slices_min_signal=0.0))
    np.testing.assert_allclose(found, scaled(array), atol=2e-3)


def test_the_pixel_size_is_that_of_the_header(tmp_path):
    # rows twice as far apart: 24 of them fill the field of view that 48 columns do
    array = volume(3, (24, 48))
    found = magnitude(images(ACQUISITION, "test", test=[write_dicom(tmp_path / "a", array, spacing=(2.0, 1.0))]))
    assert (found[-1].min(axis=1) > 0.1 * found.max()).all()
    square = magnitude(images(ACQUISITION, "test", test=[write_dicom(tmp_path / "b", array)]))
    assert square[-1, :10].max() < 0.2 * square.max()


def test_a_glob_names_folders_and_a_patient_is_in_one_split(tmp_path):
    for patient in (1, 2):
        (tmp_path / f"sub-{patient}").mkdir()
        write_dicom(tmp_path / f"sub-{patient}" / "t1", volume(8))
    assert len(images(ACQUISITION, "test", test=[str(tmp_path / "*" / "t1")])) == 16
    shutil.copytree(tmp_path / "sub-1" / "t1", tmp_path / "sub-1" / "t2")
    with pytest.raises(ConfigError, match=r"patient 'sub-1' is in data\.test"):
        images(ACQUISITION, "test", train=[str(tmp_path / "sub-1/t1")], test=[str(tmp_path / "sub-1/t2")])


@pytest.mark.parametrize(
    ("same", "refused"),
    [
        ({"PatientID": "P01"}, "p01"),
        ({"PatientName": "Doe^Jane"}, r"doe\^jane"),
        ({"PatientID": "P01", "PatientName": "Doe^Jane"}, "p01"),
        ({"StudyInstanceUID": "1.2.840.1"}, r"1\.2\.840\.1"),
        ({"PatientID": "ANONYMOUS", "StudyInstanceUID": "1.2.840.1"}, r"1\.2\.840\.1"),
        ({"PatientID": "ANONYMOUS", "PatientName": "XXXX"}, None),
        ({}, None),
    ],
)
def test_series_of_one_patient_are_not_split(tmp_path, same, refused):
    folders = [write_dicom(tmp_path / name, volume(8) + n, **same) for n, name in enumerate("ab")]
    files = {"train": folders[:1], "test": folders[1:]}
    if refused is None:
        assert len(images(ACQUISITION, "test", **files)) == 8
    else:
        with pytest.raises(ConfigError, match=rf"patient '{refused}' is in data\.test .* and in data\.train"):
            images(ACQUISITION, "train", **files)


def test_a_deflated_file_is_not_inflated_to_see_whose_it_is(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    folders = [write_dicom(tmp_path / name, volume(2) + n) for n, name in enumerate("ab")]
    for path in (tmp_path / "a").iterdir():
        data = pydicom.dcmread(path)
        data.PixelData = bytes(2**27)  # 128 MiB that deflate to 128 KiB
        data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        data.save_as(path, enforce_file_format=True)
    script = (
        "import resource, sys; from pathlib import Path; from trajdesign.data import dicom; import pydicom;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; dicom.people(Path(sys.argv[1]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    shown = subprocess.run([sys.executable, "-c", script, folders[0]], capture_output=True, text=True, check=True)
    assert int(shown.stdout) < 2**15, "KiB"
    with pytest.raises(InputError, match="is deflated"):
        images(ACQUISITION, "train", train=folders[:1], test=folders[1:])


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        (r"has 2 frames, .* convert it with dcm2niix", {"NumberOfFrames": 2}),
        ("3 colours", {"SamplesPerPixel": 3}),
        ("the type 'P'", {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}),
        ("the type 'PHASE'", {"ImageType": "PHASE"}),
        ("the type 'PHASE MAP'", {"ImageType": ["ORIGINAL", "PRIMARY", "FFE", "PHASE MAP"]}),
        ("the type 'REAL'", {"ComplexImageComponent": "REAL"}),
        (r"1 colours \(PALETTE COLOR\)", {"PhotometricInterpretation": "PALETTE COLOR"}),
        (r"1 colours \(MONOCHROME1\)", {"PhotometricInterpretation": "MONOCHROME1"}),
        ("IM0000 is no DICOM image, or damaged", {"ImagePositionPatient": None}),
        ("cannot be read", {"PixelData": b"\0" * 10}),
        ("no magnitudes", {"RescaleIntercept": -1024}),
    ],
)
def test_what_is_no_magnitude_image_is_refused(tmp_path, sentence, changes):
    folder = write_dicom(tmp_path / "a", volume(), **changes)
    with pytest.raises(InputError, match=sentence) as caught:
        images(ACQUISITION, "test", test=[folder])
    assert "\n" not in str(caught.value)


def test_compressed_pixels_that_need_another_package_are_refused(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    (tmp_path / "a").mkdir()
    shutil.copy(get_testdata_file("MR_small_jpeg_ls_lossless.dcm"), tmp_path / "a")
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEGLSLossless)
    if decoder.is_available:
        pytest.skip("a decoder for JPEG-LS is installed")
    with pytest.raises(InputError, match=r"JPEG-LS .* decompress them with dcmdjpeg, gdcmconv or dcm2niix"):
        images(ACQUISITION, "test", test=[str(tmp_path / "a")])


def test_a_file_of_a_real_scanner_is_read(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    (tmp_path / "a").mkdir()
    shutil.copy(get_testdata_file("MR_small.dcm"), tmp_path / "a")
    acquisition = Acquisition(fov=(0.22, 0.22), matrix=(64, 64), n_samples=600)
    found = magnitude(images(acquisition, "test", test=[str(tmp_path / "a")]))
    pixels = pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array
    np.testing.assert_allclose(found[0], pixels / pixels.max(), atol=1e-5)


def test_a_folder_of_several_volumes_is_refused(tmp_path):
    write_dicom(tmp_path / "a", volume(3))
    other = write_dicom(tmp_path / "b", volume(3))
    shutil.copy(tmp_path / "b" / "IM0001", tmp_path / "a" / "other")
    with pytest.raises(InputError, match="differ in series"):
        images(ACQUISITION, "test", test=[str(tmp_path / "a")])
    shutil.copy(tmp_path / "b" / "IM0001", tmp_path / "b" / "again")
    with pytest.raises(InputError, match="4 images at 3 positions"):
        images(ACQUISITION, "test", test=[other])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no DICOM file"):
        images(ACQUISITION, "test", test=[str(tmp_path / "empty")])
    (tmp_path / "b" / "again").write_text("no image")
    with pytest.raises(InputError, match="again is no DICOM image"):
        images(ACQUISITION, "test", test=[other])


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "image").touch()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ResourceError, match=r'pip install -e "\.\[dicom\]"'):
        images(ACQUISITION, "test", test=[str(tmp_path / "a")])


# --- HDF5 and BART ---


def test_raw_data_are_called_so(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("dataset/xml", data="<ismrmrdHeader/>", dtype=h5py.string_dtype())
    with pytest.raises(InputError, match=r"holds raw data of ISMRMRD; use data\.kind = 'fastmri'"):
        images(ACQUISITION, "test", test=[str(tmp_path / "a.h5")])


def test_hdf5_holds_arrays_by_name(tmp_path):
    array = volume()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["only"] = array[:, 0]
        file["number"] = 3
    np.testing.assert_allclose(
        magnitude(images(ACQUISITION, "test", test=[str(tmp_path / "a.h5")])), scaled(array), atol=1e-5
    )
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["other"] = array[:2, 0]
        file["kspace"] = array[:, 0] * 1j
        file["link"] = h5py.ExternalLink(str(tmp_path / "b.h5"), "only")
        file.create_dataset("huge", (2**15, 2**8, 2**8), np.uint8, chunks=(1, 64, 64))
    for name, sentence in (
        ("", r"name one of them in data\.array"),
        ("kspace", "magnitude images are real"),
        ("link", r"name one of them in data\.array"),
        ("huge", "at most 1073741824"),
    ):
        with pytest.raises(InputError, match=sentence):
            images(ACQUISITION, "test", test=[str(tmp_path / "a.h5")], array=name)
    assert len(images(ACQUISITION, "test", test=[str(tmp_path / "a.h5")], array="other")) == 2


def test_images_of_bart(tmp_path):
    if not shutil.which("bart"):
        pytest.skip("bart is not installed (Debian: apt install bart)")

    def bart(*words):
        subprocess.run(["bart", *words], cwd=tmp_path, check=True)

    bart("phantom", "-x", "48", "image")
    bart("scale", "2", "image", "bright")
    bart("join", "13", "image", "bright", "slices")
    wanted = np.abs(np.fromfile(tmp_path / "slices.cfl", dtype="<c8").reshape(2, 48, 48))
    found = magnitude(images(ACQUISITION, "test", test=[str(tmp_path / "slices.cfl")]))
    np.testing.assert_allclose(found, wanted / wanted.max(), atol=1e-5)
    bart("transpose", "2", "13", "slices", "deep")
    np.testing.assert_array_equal(magnitude(images(ACQUISITION, "test", test=[str(tmp_path / "deep.cfl")])), found)
    bart("phantom", "-x", "48", "-s", "2", "coils")
    with pytest.raises(InputError, match="combine coils with 'bart rss 8'"):
        images(ACQUISITION, "test", test=[str(tmp_path / "coils.cfl")])
    (tmp_path / "coils.cfl").write_bytes(b"1234")
    with pytest.raises(InputError, match=r"4 bytes, which are not the dimensions \(48, 48"):
        images(ACQUISITION, "test", test=[str(tmp_path / "coils.cfl")])


@pytest.mark.parametrize("others", [{"PatientID": "P02"}, {"PatientID": ""}, {"StudyInstanceUID": "1.2.840.2"}])
@pytest.mark.parametrize("number", [0, 5])
def test_a_folder_of_two_patients_is_refused(tmp_path, others, number):
    pydicom = pytest.importorskip("pydicom")
    folder = write_dicom(tmp_path / "a", volume(8), PatientID="P01", StudyInstanceUID="1.2.840.1")
    file = tmp_path / "a" / f"IM{number:04}"
    data = pydicom.dcmread(file)
    for key, value in others.items():
        setattr(data, key, value)
    data.save_as(file)
    with pytest.raises(InputError, match=r"differ in series, .*, patient or study; keep"):
        images(ACQUISITION, "test", test=[folder])
