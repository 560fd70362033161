"""Trajectories, k-space and images of other programs, from strangers: BART, NeuroSpin, NumPy and DICOM."""

import os
import resource
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from attacks.archives import npy, zeros
from attacks.commands import require_one_line
from attacks.mutants import mutants, taken

from trajdesign.acquisition import Acquisition
from trajdesign.data.sources.fastmri import fastmri
from trajdesign.data.sources.images import images
from trajdesign.errors import ConfigError, InputError
from trajdesign.exporting.proof import export
from trajdesign.files.arrays import read_cfl
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectories.loading import Given, load, load_sampled

ACQUISITION = Acquisition(matrix=(16, 16), n_shots=2, n_samples=64, dwell=8e-6)
GIVEN = {"scanner": Scanner(), "given": Given(fov=(0.22,), dwell=8e-6, matrix=(16, 16))}
IMAGES = Acquisition(matrix=(16, 16))


def refusal(read, *words, **options):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        read(*words, **options)
    require_one_line(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10, "KiB"
    return str(caught.value)


# --- trajectories ---


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the bytes of a trajectory in the formats of other programs."""
    folder, trajectory = tmp_path_factory.mktemp("files"), radial(ACQUISITION, Scanner())
    for name, kind in (("n.bin", "neurospin"), ("b.cfl", "bart")):
        export(trajectory, folder / name, format=kind)
    coordinates = trajectory.k_adc.numpy() * np.array(ACQUISITION.fov)
    return {"k.npy": npy(coordinates), **{f"k{path.suffix}": path.read_bytes() for path in folder.iterdir()}}


@pytest.mark.parametrize("n", [40, pytest.param(1000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", ["k.bin", "k.cfl", "k.hdr", "k.npy"])
def test_mutants_of_trajectories_are_refused_or_finite(files, tmp_path, n, name):
    for other in ("k.cfl", "k.hdr"):
        (tmp_path / other).write_bytes(files[other])
    path = (tmp_path / name).with_suffix(".cfl" if name == "k.hdr" else (tmp_path / name).suffix)
    for data in [files[name], *mutants(files[name], n)]:
        (tmp_path / name).write_bytes(data)
        try:
            unit = None if name == "k.bin" else "1/fov"
            found = (
                load(path) if unit is None else load_sampled(path, Scanner(), replace(GIVEN["given"], k_unit=unit))[0]
            )
        except (ConfigError, InputError) as error:  # what is given may contradict what a file turns into
            require_one_line(error, codes=(2, 3))
            assert data != files[name]
        else:
            assert found.points.isfinite().all()


def neurospin(**changes):
    """Return NeuroSpin's file of one shot of eight steps; version 5.1."""
    head = {
        "version": 5.1, "n_dims": 2, "fov_x": 0.2, "fov_y": 0.2, "matrix_x": 16, "matrix_y": 16, "oversampling": 2.5,
        "gamma": 42.576e6, "n_shots": 1, "n_cells": 8, "a": 0, "largest": 40, "b": 0, "c": 0, "before": 0, "after": 0,
        **changes,
    }  # fmt: skip
    return np.array([*head.values(), *[0] * 7, *[0] * 4, *[0.1] * 16], "<f4").tobytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"n_shots": -1}, {"n_shots": 0}, {"n_shots": 3e38}, {"n_shots": np.nan}, {"n_cells": 1e9}, {"n_cells": -8},
        {"before": -3}, {"after": -3}, {"before": 6, "after": 6}, {"before": np.inf}, {"matrix_x": np.nan},
        {"matrix_y": np.inf}, {"matrix_x": -16}, {"matrix_x": 1e9}, {"fov_x": 0}, {"fov_y": np.nan}, {"gamma": np.inf},
        {"gamma": 3e38, "largest": 3e38}, {"oversampling": 0}, {"oversampling": np.nan}, {"oversampling": -1},
        {"oversampling": 1e9}, {"oversampling": 1e-30}, {"n_dims": 1e9}, {"version": np.nan},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_of_neurospin_that_cannot_be_are_refused(tmp_path, changes):
    (tmp_path / "k.bin").write_bytes(neurospin(**changes))
    refusal(load, tmp_path / "k.bin")


HEADERS = {
    "missing": None,
    "empty": b"",
    "no dimensions": b"# Dimensions\n",
    "text": b"# Dimensions\nthree\n",
    "negative": b"# Dimensions\n-3 -64 2\n",
    "zero": b"# Dimensions\n3 64 2 0\n",
    "overflow": b"# Dimensions\n3 64 2 " + b"4294967296 " * 13,
    "five thousand digits": b"# Dimensions\n3 64 2" + b"0" * 5000,
    "seventeen axes": b"# Dimensions\n3 64 2" + b" 1" * 14,
    "a million axes": b"# Dimensions\n3 64 2" + b" 1" * 400_000,
    "without end": b"# Dimensions\n3 64 2\n" + b"\n" * 2**20,
    "more than there is": b"# Dimensions\n3 64 1000000\n",
    "less than there is": b"# Dimensions\n3 64 1\n",
    "other bytes": b"\xff\0" * 100,
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_bart_that_cannot_be_are_refused(files, tmp_path, name):
    path = tmp_path / "k.cfl"
    path.write_bytes(files["k.cfl"])
    path.with_suffix(".hdr").write_bytes(files["k.hdr"])
    assert read_cfl(path).shape[:3] == (3, 64, 2)
    path.with_suffix(".hdr").unlink()
    if HEADERS[name] is not None:
        path.with_suffix(".hdr").write_bytes(HEADERS[name])
    for read, options in ((load_sampled, GIVEN), (images, {"test": [str(path)]}), (fastmri, {"test": [str(path)]})):
        words = (path,) if read is load_sampled else (IMAGES, "test")
        refusal(read, *words, **options)


def test_what_is_no_file_of_bart_or_neurospin_is_refused_at_once(files, tmp_path):
    for name in ("k.cfl", "k.bin", "k.npy"):
        os.mkfifo(tmp_path / name)
        (tmp_path / "k.hdr").write_bytes(files["k.hdr"])
        assert "regular" in refusal(load_sampled, tmp_path / name, **GIVEN)
    path = tmp_path / "large.cfl"
    with path.open("wb") as stream:
        stream.truncate(3 * 2**40)
    path.with_suffix(".hdr").write_text(f"# Dimensions\n3 {2**37}\n")
    assert "at most" in refusal(load_sampled, path, **GIVEN)
    assert "at most" in refusal(images, IMAGES, "test", test=[str(path)])
    (tmp_path / "k.hdr").unlink()
    (tmp_path / "k.hdr").symlink_to("/dev/zero")
    assert "regular" in refusal(read_cfl, tmp_path / "k.cfl")


# --- DICOM ---

PIXELS = np.random.default_rng(0).integers(1, 1000, (16, 12)).astype("<u2")


def element(group, number, kind, value):
    """Return an element in the explicit little-endian encoding."""
    start = struct.pack("<2H2s", group, number, kind.encode())
    value = value + b"\0" * (len(value) % 2)
    if kind in ("OB", "OW", "SQ", "UN"):
        return start + struct.pack("<2xI", len(value)) + value
    return start + struct.pack("<H", len(value)) + value


def dicom(syntax="1.2.840.10008.1.2.1", pixels=None, body=None, before=b"", **changes):
    """Return a DICOM file of one image, with values that may be replaced and elements before its pixels."""
    values = {
        "type": "ORIGINAL\\PRIMARY\\M", "series": "1.2.3", "number": "1", "position": "0\\0\\0",
        "orientation": "1\\0\\0\\0\\1\\0", "rows": 16, "columns": 12, "spacing": "1\\1", "bits": 16, "slope": "1",
        **changes,
    }  # fmt: skip
    number = struct.Struct("<H").pack
    content = b"".join([
        element(8, 8, "CS", values["type"].encode()),
        element(0x20, 0xE, "UI", values["series"].encode()),
        element(0x20, 0x13, "IS", values["number"].encode()),
        element(0x20, 0x32, "DS", values["position"].encode()),
        element(0x20, 0x37, "DS", values["orientation"].encode()),
        element(0x28, 2, "US", number(1)),
        element(0x28, 4, "CS", b"MONOCHROME2"),
        element(0x28, 0x10, "US", number(values["rows"])),
        element(0x28, 0x11, "US", number(values["columns"])),
        element(0x28, 0x30, "DS", values["spacing"].encode()),
        element(0x28, 0x100, "US", number(values["bits"])),
        element(0x28, 0x101, "US", number(values["bits"])),
        element(0x28, 0x102, "US", number(values["bits"] - 1)),
        element(0x28, 0x103, "US", number(0)),
        element(0x28, 0x1053, "DS", values["slope"].encode()),
        before,
        element(0x7FE0, 0x10, "OW", PIXELS.tobytes()) if pixels is None else pixels,
    ])  # fmt: skip
    meta = element(2, 0x10, "UI", syntax.encode())
    start = b"\0" * 128 + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta
    return start + (content if body is None else body)


def encapsulated(*fragments):
    """Return pixels in fragments, the first of which is the table of offsets."""
    items = b"".join(struct.pack("<2HI", 0xFFFE, 0xE000, len(f)) + f for f in (b"", *fragments))
    return struct.pack("<2H2s2xI", 0x7FE0, 0x10, b"OB", 2**32 - 1) + items + struct.pack("<2HI", 0xFFFE, 0xE0DD, 0)


def crafted_dicoms():
    """Return each file that is no image."""
    rle, deflated, jpeg = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"
    run = struct.pack("<16I", 2, 64, 64, *[0] * 13)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    small = packer.compress(dicom()[200:]) + packer.flush()
    return {
        "empty": b"",
        "text": b"image" * 100,
        "start alone": dicom()[:140],
        "cut in its pixels": dicom()[:-20],
        "bomb": dicom(deflated, body=zeros(2048)),
        "deflated": dicom(deflated, body=small),
        "declares 8 GB": dicom(rows=65535, columns=65535),
        "declares 8 GB, packed": dicom(rle, encapsulated(run + b"\x81\0" * 200), rows=65535, columns=65535),
        "runs that are too short": dicom(rle, encapsulated(run + b"\x81\0")),
        "runs beyond the end": dicom(rle, encapsulated(struct.pack("<16I", 15, *[2**32 - 1] * 15))),
        "no runs": dicom(rle, encapsulated(b"")),
        "no picture": dicom(jpeg, encapsulated(b"\xff\xd8\xff\xd9")),
        "pixels of 4 GiB": dicom(pixels=struct.pack("<2H2s2xI", 0x7FE0, 0x10, b"OW", 2**32 - 2) + bytes(384)),
        "no pixels": dicom(pixels=b""),
        "element of 4 GiB": dicom(before=struct.pack("<2H2s2xI", 0x29, 0x10, b"UN", 2**32 - 2)),
        "no rows": dicom(rows=0),
        "bits of no number": dicom(bits=13),
        "unknown syntax": dicom("1.2.3.4"),
        "distance that is no number": dicom(spacing="nan\\nan"),
        "no distance": dicom(spacing="0\\0"),
        "endless distance": dicom(spacing="1e999\\1"),
        "negative distance": dicom(spacing="-1\\1"),
        "place that is no number": dicom(position="nan\\0\\0"),
        "endless place": dicom(position="1e999\\0\\0"),
        "one cosine": dicom(orientation="1"),
        "endless slope": dicom(slope="1e999"),
        "large slope": dicom(slope="1e308"),
        "slope that is no number": dicom(slope="nan"),
        "text that moves the cursor": dicom(type="A\\B\\\x1b[2J", rows=0),
        "number without end": dicom(number="9" * 5000),
    }


def load_folder(folder):
    dataset = images(IMAGES, "test", test=[str(folder)], n_coils=1)
    return [dataset[i] for i in range(len(dataset))]


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("pydicom")
    (tmp_path / "a").mkdir()
    return tmp_path / "a"


CRAFTED = crafted_dicoms()


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_dicoms_are_refused_in_a_sentence(folder, name):
    (folder / "1").write_bytes(CRAFTED[name])
    refusal(load_folder, folder)


def test_a_folder_without_images_is_refused(folder):
    (folder / "1").write_bytes(dicom())
    assert load_folder(folder)[0].shape == (1, 16, 16)
    (folder / "1").unlink()
    os.mkfifo(folder / "pipe")
    assert "no DICOM file" in refusal(load_folder, folder)


@pytest.mark.parametrize("n", [40, pytest.param(1000, marks=pytest.mark.nightly)])
def test_mutants_of_dicoms_are_refused_or_images(folder, n):
    n_loaded = 0
    for slices in taken(folder / "1", mutants(dicom(), n), lambda _: load_folder(folder)):
        assert all(image.isfinite().all() for image in slices)
        n_loaded += 1
    assert 0 < n_loaded < n
