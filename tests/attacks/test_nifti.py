"""Images from strangers: the header says how much there is before it is unpacked, and checksums are compared."""

import contextlib
import gzip
import resource
import struct

import nibabel
import numpy as np
import pytest
import torch
from attacks.archives import described, npy, npz, zeros
from attacks.mutants import mutants, taken

from trajdesign.acquisition import Acquisition
from trajdesign.data.sources.images import images
from trajdesign.data.sources.volumes import volumes
from trajdesign.errors import InputError

ACQUISITION = Acquisition(matrix=(16, 16))
VOLUME = np.random.default_rng(0).integers(1, 1000, (12, 10, 4)).astype(np.int16)


def nifti(volume=VOLUME, kind=nibabel.Nifti1Image, **fields):
    """Return the bytes of a NIfTI file, with fields of its header as they are given."""
    image = kind(volume, np.diag([2.0, 2.0, 5.0, 1.0]))
    content = bytearray(image.to_bytes())
    header = image.header_class(bytes(content[: image.header.sizeof_hdr]), check=False)
    for name, value in fields.items():
        header._structarr[name] = value
    content[: image.header.sizeof_hdr] = header.binaryblock
    return bytes(content)


def load(path):
    dataset = images(ACQUISITION, "test", test=[str(path)], n_coils=1)
    return torch.stack([dataset[i] for i in range(len(dataset))])


def refusal(path):
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value).isprintable()
    assert path.name in str(caught.value)
    return str(caught.value)


# --- damage ---


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".npz"])
@pytest.mark.parametrize("n", [40, pytest.param(1000, marks=pytest.mark.nightly)])
def test_mutants_are_refused_or_images(tmp_path, n, ending):
    whole = {".nii": nifti(), ".nii.gz": gzip.compress(nifti(), mtime=0), ".npz": npz({"a": VOLUME.T})}[ending]
    path = tmp_path / f"a{ending}"
    path.write_bytes(whole)
    original, n_loaded = load(path), 0
    for loaded in taken(path, mutants(whole, n), load):
        n_loaded += 1
        assert loaded.isfinite().all()
        if ending != ".nii":  # which has no checksum
            assert torch.equal(loaded, original)
    assert n_loaded < n if ending == ".nii" else n_loaded < 0.2 * n


@pytest.mark.parametrize("n", [40, pytest.param(1000, marks=pytest.mark.nightly)])
def test_mutants_are_refused_or_volumes(tmp_path, n):
    whole, path = nifti(), tmp_path / "a.nii"
    path.write_bytes(whole)
    acquisition = Acquisition(fov=(0.2, 0.2, 0.2), matrix=(16, 16, 8))

    def read(path):
        dataset = volumes(acquisition, "test", test=[str(path)], n_coils=2)
        return torch.stack([dataset[i] for i in range(len(dataset))])

    original, n_loaded = read(path), 0
    for loaded in taken(path, mutants(whole, n), read):
        n_loaded += 1
        assert loaded.isfinite().all()
        assert loaded.shape[1:] == original.shape[1:]
    assert 0 < n_loaded < n


# --- malice ---


def crafted():
    """Return the ending and bytes of each file that is no image."""
    plain, bomb = nifti(), b"\x1f\x8b\x08\0\0\0\0\0\0\3" + zeros(4096)
    packed = gzip.compress(plain, mtime=0)
    # an extension that announces 2 GiB, and unpacks to it
    extended = bytearray(nifti(vox_offset=2**31))
    extended[348:352] = b"\1\0\0\0"
    extended[352:360] = struct.pack("<2i", 2**31 - 368, 0)
    first = gzip.compress(bytes(extended[:360]), mtime=0)
    nested = described("<i2", (2**31,))
    return {
        "bomb": (".nii.gz", bomb),
        "bomb behind a header": (".nii.gz", gzip.compress(plain, mtime=0) + bomb),
        "voxels that are a bomb": (
            ".nii.gz",
            gzip.compress(nifti(dim=[3, 4096, 4096, 60, 1, 1, 1, 1]), mtime=0) + bomb,
        ),
        "extension of 2 GiB": (".nii.gz", first + bomb),
        "extension that is not there": (".nii", bytes(extended)),
        "declares 7 TB": (".nii", nifti(dim=[4, 32767, 32767, 3276, 1, 1, 1, 1])),
        "declares more than there is": (".nii", nifti(dim=[3, 120, 100, 40, 1, 1, 1, 1])),
        "negative axis": (".nii", nifti(dim=[3, -12, -10, 4, 1, 1, 1, 1])),
        "empty axis": (".nii", nifti(dim=[3, 12, 0, 4, 1, 1, 1, 1])),
        "seven axes": (".nii", nifti(dim=[7, 2, 2, 2, 2, 2, 2, 2])),
        "minus one axis": (".nii", nifti(dim=[-1, 12, 10, 4, 1, 1, 1, 1])),
        "overflow": (".nii", nifti(kind=nibabel.Nifti2Image, dim=[3, 2**62, 2**62, 16, 1, 1, 1, 1])),
        "negative axes of 64 bits": (".nii", nifti(kind=nibabel.Nifti2Image, dim=[3, -12, -10, 4, 1, 1, 1, 1])),
        "offset inside the header": (".nii.gz", gzip.compress(nifti(vox_offset=347, magic=b"ni1"), mtime=0) + bomb),
        "offset inside the header of NIfTI-2": (
            ".nii.gz",
            gzip.compress(nifti(kind=nibabel.Nifti2Image, vox_offset=539, magic=b"ni2"), mtime=0) + bomb,
        ),
        "offset of another file": (".nii", nifti(vox_offset=0, magic=b"ni1")),
        "offset of 8 EiB": (".nii", nifti(kind=nibabel.Nifti2Image, vox_offset=2**63 - 16)),
        "negative offset": (".nii", nifti(kind=nibabel.Nifti2Image, vox_offset=-544)),
        "offset that is no number": (".nii", nifti(vox_offset=np.nan)),
        "endless scale": (".nii", nifti(scl_slope=3e38, scl_inter=3e38)),
        "affine of no numbers": (".nii", nifti(srow_x=[np.nan] * 4, srow_y=[np.nan] * 4)),
        "affine with one that is none": (".nii", nifti(srow_y=[0, 2, np.nan, 0])),
        "rotation of no numbers": (".nii", nifti(sform_code=0, qform_code=1, quatern_b=np.nan)),
        "complex": (".nii", nifti(VOLUME.astype(np.complex64))),
        "colours": (".nii", nifti(datatype=128, bitpix=24)),
        "unknown kind": (".nii", nifti(datatype=77)),
        "cut": (".nii.gz", packed[:-20]),
        "cut in its checksum": (".nii.gz", packed[:-6]),
        "another checksum": (".nii.gz", packed[:-8] + b"\0\0\0\0" + packed[-4:]),
        "packed twice": (".nii.gz", gzip.compress(packed)),
        "not packed": (".nii.gz", plain),
        "much behind the end": (".nii", plain + bytes(2**21)),
        "header alone": (".nii", plain[:348]),
        "no header": (".nii", b"image" * 100),
        "empty": (".nii.gz", b""),
        "array that declares 4 GiB": (".npy", nested),
        "archive that declares 4 GiB": (".npz", npz({}, a=nested)),
        "array of objects": (".npy", npy(np.array([{}]), pickled=True)),
    }


def test_crafted_files_are_refused_in_a_sentence(tmp_path):
    files = crafted()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i, (ending, content) in enumerate(files.values()):
        path = tmp_path / f"{i}{ending}"
        path.write_bytes(content)
        refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10, "KiB"


def test_a_crafted_file_is_all_that_is_said(tmp_path, capfd, recwarn):
    for i, (ending, content) in enumerate(crafted().values()):
        path = tmp_path / f"{i}{ending}"
        path.write_bytes(content)
        refusal(path)
    for fields in ({"pixdim": [3, 2, 2, 5, 0, 0, 0, 0]}, {"qform_code": 77}, {"bitpix": 7}, {"intent_code": 9}):
        path = tmp_path / "odd.nii"
        path.write_bytes(nifti(**fields))
        with contextlib.suppress(InputError):
            load(path)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_what_is_unusual_and_harmless_is_read(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(nifti())
    original = load(path)
    swapped = nibabel.Nifti1Image(
        VOLUME.astype(">i2"), np.diag([2.0, 2.0, 5.0, 1.0]), nibabel.Nifti1Header(endianness=">")
    )
    extended = nibabel.Nifti1Image(VOLUME, np.diag([2.0, 2.0, 5.0, 1.0]))
    extended.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a" * 5000))
    # what an extension says is nobody's business: DICOM's would be parsed
    damaged = extended.to_bytes().replace(b"aaaa", b"\xff\xfe\0\0")
    for content in (
        nifti(kind=nibabel.Nifti2Image),
        swapped.to_bytes(),
        extended.to_bytes(),
        damaged,
        nifti(VOLUME.astype(np.float64)),
        nifti(scl_slope=2.0),
        nifti() + bytes(100),
    ):
        path.write_bytes(content)
        torch.testing.assert_close(load(path), original)
