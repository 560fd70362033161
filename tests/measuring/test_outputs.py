"""The files of a reconstruction: where their pixels lie, what other readers find in them, and that all come or none."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import ismrmrd
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from typer.testing import CliRunner

from tests.real_data import real
from trajdesign.acquisition import Acquisition
from trajdesign.cli.app import app
from trajdesign.data import dicom, nifti
from trajdesign.data.measured import reading
from trajdesign.data.measured.measurement import Measurement, Protocol, Slice
from trajdesign.errors import OutputError, ResourceError
from trajdesign.exporting.proof import export
from trajdesign.measuring import dicom_images, image_geometry, mrd_images, outputs, virtual_scan
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.geometry import View
from trajdesign.measuring.image_geometry import ImageGeometry, PlacedImages
from trajdesign.measuring.reconstruct import reconstruct
from trajdesign.reconstruction.measured import LABELS
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.spiral import spiral

RAS = np.array([-1.0, -1.0, 1.0])  # of LPS
UPRIGHT = Slice((0.01, -0.02, 0.03), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
PLANES = {
    "axial": np.eye(3),
    "axial, as Siemens plays it": np.diag([-1.0, 1.0, 1.0]),
    "axial, x and y exchanged": np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]]),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0.0]]),
    "sagittal": np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0.0]]),
}


def oblique():
    """Return a rotation by angles that no axis is near to."""
    rng = np.random.default_rng(5)
    found, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return found


def lying(directions, matrix=(6, 5), thickness=4.0):
    return ImageGeometry(np.array([-31.0, 17.5, 80.25]), directions, np.array([2.0, 1.5, 5.0]), thickness, matrix)


def numbered(geometry, n_frames=1, n_slices=3):
    """Return images of which each pixel has a value of its own."""
    shape = (n_frames, n_slices, *geometry.matrix[::-1])
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def in_folder(path, images, geometry, protocol=Protocol()):  # noqa: B008
    for name, content in dicom_images.encoded(PlacedImages(images, geometry, protocol, 1)):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return sorted(path.rglob("*.dcm"))


# ---- where pixels lie


def measured_by(*slices, **of):
    protocol = Protocol(slices=slices, **of)
    return Measurement(
        Path("x.dat"), "twix", np.zeros((1, 1, 1), np.complex64), np.zeros((1, 2), int), protocol=protocol
    )


def assigned(n_slices=1, played=None):
    kspace = torch.zeros(1, n_slices, 1, 1, 1, dtype=torch.complex64)
    return Assigned(kspace, Acquisition(fov=(0.2, 0.1), matrix=(8, 5), n_shots=1, n_samples=100), played=played)


def test_the_pixel_in_the_middle_is_that_of_the_slice():
    turned = oblique()
    of = Slice((0.01, -0.02, 0.03), *map(tuple, turned.T))
    found = image_geometry.of_images(assigned(), measured_by(of))
    np.testing.assert_allclose(found.at(4, 2, 0), [10, -20, 30], atol=1e-9)
    # 200 mm in 8 pixels, 100 mm in 5
    np.testing.assert_allclose(found.at(5, 2, 0), [10, -20, 30] + 25 * turned[:, 0], atol=1e-9)
    np.testing.assert_allclose(found.at(4, 3, 0), [10, -20, 30] + 20 * turned[:, 1], atol=1e-9)
    np.testing.assert_allclose((found.affine @ [5, 3, 0, 1])[:3], RAS * found.at(5, 3, 0), atol=1e-9)


def test_images_that_are_shifted_and_turned_lie_there():
    found = image_geometry.of_images(replace(assigned(), view=View((0.007, -0.004), 90.0)), measured_by(UPRIGHT))
    np.testing.assert_allclose(found.at(4, 2, 0), [10 + 7, -20 - 4, 30], atol=1e-9)
    # what lies along x of the gradients is shown along y, and what lies along y the other way along x
    np.testing.assert_allclose(found.at(4, 3, 0), [17 + 20, -24, 30], atol=1e-9)
    np.testing.assert_allclose(found.at(5, 2, 0), [17, -24 - 25, 30], atol=1e-9)


def test_of_several_slices_the_stack_lies_in_their_middle():
    slices = [replace(UPRIGHT, position=(0.0, 0.0, z)) for z in (0.02, 0.04, 0.03)]
    found = image_geometry.of_images(assigned(n_slices=3), measured_by(*slices))
    np.testing.assert_allclose(found.at(4, 2, 1), [0, 0, 30], atol=1e-9)


def test_nobody_tells_where_images_lie():
    assert "does not tell how the slices lie" in image_geometry.unknown(assigned(), measured_by())
    assert "no Pulseq file" in image_geometry.unknown(assigned(), measured_by(UPRIGHT))
    tilted = replace(UPRIGHT, read=(0.0, 1.0, 0.0), phase=(-1.0, 0.0, 0.0))
    found = image_geometry.unknown(assigned(played=object()), measured_by(UPRIGHT, tilted))
    assert "do not lie in one direction" in found
    assert image_geometry.unknown(assigned(played=object()), measured_by(UPRIGHT, UPRIGHT)) is None


# ---- DICOM


@pytest.mark.parametrize("directions", [*PLANES.values(), oblique(), -oblique()], ids=[*PLANES, "oblique", "mirrored"])
def test_a_pixel_of_dicom_lies_where_that_of_nifti_does(tmp_path, directions):
    geometry = lying(directions)
    image = numbered(geometry)
    affine = nibabel.Nifti1Image(image[0].T, geometry.affine).affine
    n_x, n_y = geometry.matrix
    for number, path in enumerate(in_folder(tmp_path, {"adjoint": image}, geometry)):
        data = pydicom.dcmread(path)
        values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        assert np.abs(np.sort(values, axis=None) - np.sort(image[0, number], axis=None)).max() < image.max() / 65535
        row_way, column_way = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
        down, across = map(float, data.PixelSpacing)
        for y, x in ((0, 0), (0, n_x - 1), (n_y - 1, 0), (n_y - 1, n_x - 1), (1, 2)):
            row, column = np.argwhere(np.rint(values) == image[0, number, y, x])[0]
            # the formula of the standard, C.7.6.2.1.1
            place = np.array(data.ImagePositionPatient, float) + row_way * across * column + column_way * down * row
            np.testing.assert_allclose(RAS * place, (affine @ [x, y, number, 1])[:3], atol=1e-6)


@pytest.mark.parametrize("name", PLANES)
def test_the_readers_of_this_program_see_the_same_in_dicom_and_nifti(tmp_path, name):
    # a pixel along y is as long as the slices are apart in no plane
    geometry = replace(lying(PLANES[name], matrix=(6, 6)), steps=np.array([2.0, 2.0, 5.0]))
    image = numbered(geometry)
    in_folder(tmp_path, {"adjoint": image}, geometry)
    nibabel.Nifti1Image(image[0].T, geometry.affine).to_filename(tmp_path / "x.nii")
    by_dicom, spacing = dicom.read_series(tmp_path / "adjoint")
    by_nifti, zooms = nifti.read_nifti(tmp_path / "x.nii", "auto")
    assert spacing == pytest.approx(zooms)
    # slices are counted along the normal of the images, or of the patient
    same = [np.abs(by_dicom[::step] - by_nifti).max() < image.max() / 65535 for step in (1, -1)]
    assert sum(same) == 1


def test_dicom_tells_what_is_known_and_nothing_more(tmp_path):
    geometry = lying(np.eye(3))
    protocol = Protocol("SIEMENS Skyra", "spiral", 2.89362, patient_position="HFS", slices=(UPRIGHT,))
    images = {"network": numbered(geometry, n_frames=2), "adjoint": -numbered(geometry, n_frames=2) / 7}
    paths = in_folder(tmp_path, images, geometry, protocol)
    assert [str(p.relative_to(tmp_path)) for p in paths[:7]] == [
        *(f"adjoint/f{frame:03d}_s{number:03d}.dcm" for frame in range(2) for number in range(3)),
        "network/f000_s000.dcm",
    ]
    files = [pydicom.dcmread(path) for path in paths]
    for data in files:
        assert data.SOPClassUID == data.file_meta.MediaStorageSOPClassUID == pydicom.uid.MRImageStorage
        assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
        assert float(data.MagneticFieldStrength) == 2.89362
        assert (data.SliceThickness, data.SpacingBetweenSlices, data.PatientPosition) == (4, 5, "HFS")
        for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "EchoTime", "RepetitionTime"):
            assert not data[name].value, "nobody told it"
        for uid in (data.SOPInstanceUID, data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID):
            assert uid.is_valid
    assert len({data.SOPInstanceUID for data in files}) == len(files)
    assert len({data.SeriesInstanceUID for data in files}) == 2
    assert len({data.StudyInstanceUID for data in files}) == 1
    assert [data.InstanceNumber for data in files[:6]] == [1, 2, 3, 4, 5, 6]
    # values below zero, and thousandths
    shown = files[4].pixel_array * float(files[4].RescaleSlope) + float(files[4].RescaleIntercept)
    np.testing.assert_allclose(shown, images["adjoint"][1, 1], atol=numbered(geometry, 2).max() / 7 / 65535)


def test_words_of_a_raw_file_stay_words(tmp_path):
    geometry, odd = lying(np.eye(3)), "Tübingen\\\x00 \x1b<&>]]> 3 T" + 80 * "x"
    (path, *_) = in_folder(tmp_path, {"adjoint": numbered(geometry)}, geometry, Protocol(odd, odd, None, (), odd))
    data = pydicom.dcmread(path)
    assert data.Manufacturer == data.ProtocolName == ("Tübingen/ <&>]]> 3 T" + 80 * "x")[:63]  # 64 bytes
    assert not data.PatientPosition
    assert data.MagneticFieldStrength is None
    (tmp_path / "x.h5").write_bytes(
        mrd_images.encoded(PlacedImages({"adjoint": numbered(geometry)}, geometry, Protocol(odd), 1))
    )
    with ismrmrd.Dataset(tmp_path / "x.h5", create_if_needed=False) as file:
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
    assert header.acquisitionSystemInformation.systemModel.startswith("Tübingen\\ <&>]]> 3 T")


@pytest.mark.parametrize("size", [0.0, 3e-12, 4e9])
def test_dicom_keeps_images_of_any_brightness(tmp_path, size):
    geometry = lying(np.eye(3))
    image = (numbered(geometry, n_slices=1) * size).astype(np.float32)
    (path,) = in_folder(tmp_path, {"adjoint": image}, geometry)
    data = pydicom.dcmread(path)
    found = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    np.testing.assert_allclose(found, image[0, 0], atol=max(1e-30, float(image.max())) / 65535)


# ---- MRD


def test_mrd_images_are_read_back_by_its_library(tmp_path):
    directions = oblique()
    geometry = lying(directions)
    images = {"cg_sense": numbered(geometry, n_frames=2), "adjoint": 2 * numbered(geometry, n_frames=2)}
    content = mrd_images.encoded(PlacedImages(images, geometry, Protocol("SIEMENS Skyra", "", 2.89362), 32))
    (tmp_path / "images.h5").write_bytes(content)
    with ismrmrd.Dataset(tmp_path / "images.h5", "dataset", create_if_needed=False) as file:
        assert list(file.list()) == ["image_0", "image_1", "xml"]
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        found = {series: [file.read_image(f"image_{series}", i) for i in range(6)] for series in (0, 1)}
        assert file.number_of_images("image_0") == 6
    system = header.acquisitionSystemInformation
    assert (system.systemFieldStrength_T, system.receiverChannels) == (2.89362, 32)
    space = header.encoding[0].reconSpace
    assert (space.matrixSize.x, space.matrixSize.y, space.fieldOfView_mm.x, space.fieldOfView_mm.y) == (6, 5, 12, 7.5)
    for (name, stack), (series, of) in zip(images.items(), found.items(), strict=True):
        for count, image in enumerate(of):
            frame, number = divmod(count, 3)
            assert (image.slice, image.repetition, image.image_index) == (number, frame, count + 1)
            assert image.image_series_index == series
            assert image.image_type == ismrmrd.IMTYPE_MAGNITUDE
            assert np.array_equal(image.data[0, 0], stack[frame, number])
            assert tuple(image.field_of_view) == (12.0, 7.5, 4.0)
            # the middle pixel, x 3 and y 2, from the affine of the NIfTI file
            place = RAS * (geometry.affine @ [3, 2, number, 1])[:3]
            np.testing.assert_allclose(np.array(image.position), place, atol=1e-4)
            for way, column in zip((image.read_dir, image.phase_dir, image.slice_dir), directions.T, strict=True):
                np.testing.assert_allclose(np.array(way), column, atol=1e-6)
            assert ismrmrd.Meta.deserialize(image.attribute_string)["ImageComments"] == LABELS[name]


# ---- all of them


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """Return a folder with a Pulseq file of three slices and its virtual scan."""
    path = tmp_path_factory.mktemp("scanned")
    trajectory = spiral(Acquisition(matrix=(32, 32), n_shots=6, n_samples=400), Scanner())
    export(trajectory, path / "x.seq", options={"sequence": {"n_slices": 3}})
    virtual_scan.scan(path / "x.seq", out=path / "scan", n_coils=4)
    return path


@pytest.fixture
def lying_there(monkeypatch):
    """Have raw files tell how their slices lie."""
    read = reading.read
    monkeypatch.setattr(reading, "read", lambda path: replace(read(path), protocol=Protocol(slices=(UPRIGHT,))))


def names(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


PLAIN = ["adjoint.nii", "cg_sense.nii", "image.npz", "images.h5"]
PLAIN += ["reconstruct.json", "reconstruction.html", "reconstruction.png"]
DICOM = [f"dicom/{name}/s{number:03d}.dcm" for name in ("adjoint", "cg_sense") for number in range(3)]


def test_every_file_shows_the_same_images(scanned, tmp_path, lying_there):
    found = reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=tmp_path / "out")
    assert names(tmp_path / "out") == sorted(PLAIN + DICOM)
    assert found.facts.dicom is None
    for name, stack in found.images.items():
        written = nibabel.load(tmp_path / "out" / f"{name}.nii")
        np.testing.assert_array_equal(written.get_fdata().astype(np.float32), stack[0].T)
        with ismrmrd.Dataset(tmp_path / "out" / "images.h5", create_if_needed=False) as file:
            series = list(found.images).index(name)
            np.testing.assert_array_equal(file.read_image(f"image_{series}", 2).data[0, 0], stack[0, 2])
        by_dicom, _ = dicom.read_series(tmp_path / "out" / "dicom" / name)
        np.testing.assert_allclose(by_dicom[:, 0], stack[0], atol=stack.max() / 65535)
    assert json.loads((tmp_path / "out" / "reconstruct.json").read_text()) == json.loads(
        json.dumps(found.facts.tables())
    )


def test_what_tells_not_where_it_lies_has_no_dicom(scanned, tmp_path):
    found = reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=tmp_path / "out")
    assert names(tmp_path / "out") == PLAIN
    assert found.facts.dicom == "no DICOM is written: raw.h5 does not tell how the slices lie in the patient."


def test_without_its_package_there_is_no_dicom(scanned, tmp_path, lying_there, monkeypatch):
    monkeypatch.setattr(dicom_images, "find_spec", lambda name: None)
    found = reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=tmp_path / "out")
    assert names(tmp_path / "out") == PLAIN
    assert 'pip install -e ".[dicom]"' in found.facts.dicom


def test_a_later_reconstruction_replaces_all_of_an_earlier_one(scanned, tmp_path, lying_there):
    out, mine = tmp_path / "out", tmp_path / "out" / "dicom" / "adjoint" / "mine.dcm"
    reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=out)
    for left in ("network.nii", "dicom/adjoint/s003.dcm", "dicom/network/f000_s000.dcm", "dicom/adjoint/mine.dcm"):
        (out / left).parent.mkdir(exist_ok=True)
        (out / left).write_bytes(b"of an earlier one")
    (out / "image.npz").unlink()
    with pytest.raises(OutputError, match=r"network\.nii exists already"):
        reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=out)
    reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=out, overwrite=True)
    assert names(out) == sorted([*PLAIN, *DICOM, "dicom/adjoint/mine.dcm"])
    assert mine.read_bytes() == b"of an earlier one", "which nobody here has written"
    assert not (out / "dicom" / "network").exists()


def test_earlier_dicom_alone_is_not_written_over(scanned, tmp_path, lying_there):
    (tmp_path / "dicom" / "adjoint").mkdir(parents=True)
    (tmp_path / "dicom" / "adjoint" / "s009.dcm").touch()
    with pytest.raises(OutputError, match=r"s009\.dcm exists already"):
        reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=tmp_path)
    assert names(tmp_path) == ["dicom/adjoint/s009.dcm"]


def test_nothing_is_written_where_a_link_leads(scanned, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dicom").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_fails_at_last_leaves_no_file_or_the_earlier_ones(scanned, tmp_path, lying_there, monkeypatch, overwrite):
    out = tmp_path / "out"
    if overwrite:
        reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=out)
        (out / "network.nii").touch()
    before = {name: (out / name).read_bytes() for name in (names(out) if overwrite else [])}

    def fails(facts):
        raise ResourceError("no space left on the disk.")

    monkeypatch.setattr(outputs, "to_json", fails)
    with pytest.raises(ResourceError, match="no space"):
        reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=out, overwrite=overwrite)
    assert {name: (out / name).read_bytes() for name in names(out)} == before
    assert (out / "dicom").exists() == overwrite


def test_the_command_that_is_told_does_it_again(scanned, tmp_path):
    raw = tmp_path / "a raw; $HOME file.h5"
    raw.write_bytes((scanned / "scan" / "raw.h5").read_bytes())
    late = {"kind": "delay", "delays": [1e-6, 2e-6, 0.0]}
    found = reconstruct(raw, seq=scanned / "x.seq", out=tmp_path / "o", delay=[1e-6, -2.5e-7], response=late)
    words = shlex.split(found.facts.command)
    assert words[:2] == ["trajdesign", "reconstruct"]
    (tmp_path / "o" / "image.npz").write_bytes(b"")
    again = CliRunner().invoke(app, words[1:])
    assert again.exit_code == 0, again.output
    np.testing.assert_array_equal(np.load(tmp_path / "o" / "image.npz")["adjoint"], found.images["adjoint"])
    assert json.loads((tmp_path / "o" / "reconstruct.json").read_text())["command"] == found.facts.command


def test_noise_is_a_larger_part_of_weak_samples(scanned, tmp_path, monkeypatch):
    read, rng = reading.read, np.random.default_rng(2)

    def noisy(path):
        raw = read(path)
        noise = rng.standard_normal((2, *raw.events.shape)) * 2e-2 * np.abs(raw.events).max()
        return replace(raw, events=(raw.events + noise[0] + 1j * noise[1]).astype(np.complex64))

    monkeypatch.setattr(reading, "read", noisy)
    facts = reconstruct(scanned / "scan" / "raw.h5", seq=scanned / "x.seq", out=tmp_path).facts
    parts = facts.noise_parts
    assert len(parts["over_time"]) == len(facts.residual["adjoint"]["over_time"])
    assert len(parts["of_shots"]) == 6
    # a spiral starts at the centre of k-space, where the signal is
    assert parts["over_time"][0] < facts.noise < parts["over_time"][-1] <= 1
    # shots are of one object, through the same places: each has the noise of all
    assert parts["of_shots"] == pytest.approx([facts.noise] * 6, rel=0.2)


def test_a_real_spin_echo_lies_in_dicom_where_it_lies_in_nifti(tmp_path):
    raw, seq = real("pulseq_raw/se_phantom_32ch.dat"), real("pulseq_raw/se_phantom.seq")
    found = reconstruct(raw, seq=seq, out=tmp_path)
    data = pydicom.dcmread(tmp_path / "dicom" / "adjoint" / "s000.dcm")
    assert (float(data.MagneticFieldStrength), data.PatientPosition, data.SliceThickness) == (2.89362, "HFS", 30)
    assert data.ImageOrientationPatient == pytest.approx([1, 0, 0, 0, 1, 0], abs=1e-6)
    affine = nibabel.load(tmp_path / "adjoint.nii").affine
    # x of the gradients runs to the right: the first pixel of a row is the last one of the image
    np.testing.assert_allclose(
        np.array(data.ImagePositionPatient, float), RAS * (affine @ [63, 0, 0, 1])[:3], atol=1e-4
    )  # NIfTI keeps its matrix in single precision
    image = found.images["adjoint"][0, 0]
    shown = data.pixel_array * float(data.RescaleSlope)
    np.testing.assert_allclose(shown, image[:, ::-1], atol=image.max() / 65535)
    by_dicom, _ = dicom.read_series(tmp_path / "dicom" / "adjoint")
    by_nifti, _ = nifti.read_nifti(tmp_path / "adjoint.nii", "axial")
    np.testing.assert_allclose(by_dicom, by_nifti, atol=image.max() / 65535)
