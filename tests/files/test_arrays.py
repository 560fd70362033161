"""What the readers of arrays take to the last byte, and the first that they refuse."""

import sys
import zipfile

import numpy as np
import pytest

from trajdesign.errors import InputError
from trajdesign.files.arrays import read_cfl, read_npy, read_npz, require_arrays
from trajdesign.files.untrusted import read_bytes, read_text, require_modest


def npy(header, data=b"", version=1):
    """Return the bytes of a file as numpy describes its format."""
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header + data


def described(dtype="<f8", shape=(2,), order="False"):
    return f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()


def test_an_archive_has_64_members_at_most(tmp_path):
    arrays = {f"a{i}": np.full(3, i) for i in range(65)}
    np.savez(tmp_path / "all.npz", **arrays)
    with pytest.raises(InputError, match=r"all\.npz has more than 64 members"):
        read_npz(tmp_path / "all.npz")
    arrays.popitem()
    np.savez(tmp_path / "most.npz", **arrays)
    found = read_npz(tmp_path / "most.npz")
    assert list(found) == list(arrays)
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_an_archive_unpacks_to_what_is_allowed_and_no_byte_more(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1000), b=np.zeros(500, np.int8))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    assert read_npz(tmp_path / "a.npz", unpacked)["a"].shape == (1000,)
    with pytest.raises(InputError, match=f"would unpack to {unpacked}; such a file may unpack to {unpacked - 1}"):
        read_npz(tmp_path / "a.npz", unpacked - 1)


def archive(folder, name="a.npy", method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(folder / "x.npz", "w", method) as members:
        members.writestr(name, npy(described(), bytes(16)))
    return folder / "x.npz"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_packed_as_numpy_packs_them(method, tmp_path):
    with pytest.raises(InputError, match=r"x\.npz: 'a\.npy' is encrypted, or packed in another way than numpy does\.$"):
        read_npz(archive(tmp_path, method=method))
    for right in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert read_npz(archive(tmp_path, method=right))["a"].tolist() == [0, 0]


@pytest.mark.parametrize("flag", [0x1, 0x20, 0x40])
def test_members_are_not_encrypted(flag, tmp_path):
    path = archive(tmp_path)
    content = bytearray(path.read_bytes())
    content[6] |= flag
    content[content.index(b"PK\1\2") + 8] |= flag
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"'a\.npy' is encrypted, or packed in another way"):
        read_npz(path)


@pytest.mark.parametrize("name", ["a.txt", "b/a.npy", "b\\a.npy", "..a.npy", "a\n.npy"])
def test_members_are_arrays_of_this_folder(name, tmp_path):
    with pytest.raises(InputError, match="holds members that are not arrays"):
        read_npz(archive(tmp_path, name))


def test_32_mib_and_a_hundred_times_the_file_are_modest():
    require_modest("x", 2**25 + 100 * 7, 7)
    with pytest.raises(
        InputError, match=r"^x of 7 bytes would unpack to 33555133; such a file may unpack to 33555132\.$"
    ):
        require_modest("x", 2**25 + 100 * 7 + 1, 7)
    require_modest("x", 50, 7, most=50)
    with pytest.raises(InputError, match="may unpack to 50"):
        require_modest("x", 51, 7, most=50)
    require_modest("x", 2**30, 2**30)
    with pytest.raises(InputError, match=f"may unpack to {2**30}"):
        require_modest("x", 2**30 + 1, 2**30)


def test_a_file_has_the_size_that_is_allowed_and_no_byte_more(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(5.0))
    size = path.stat().st_size
    assert read_npy(path, size).tolist() == [0, 1, 2, 3, 4]
    assert read_bytes(path, size) == path.read_bytes()
    for read in (read_npy, read_bytes):
        with pytest.raises(InputError, match=rf"x\.npy has {size} bytes; at most {size - 1} are read"):
            read(path, size - 1)


@pytest.mark.parametrize("version", [1, 2])
def test_a_header_has_10000_bytes_at_most(version, tmp_path):
    path = tmp_path / "x.npy"
    header = described().rstrip().ljust(9999) + b"\n"
    path.write_bytes(npy(header, np.array([1.5, -2.0]).tobytes(), version))
    assert read_npy(path).tolist() == [1.5, -2]
    path.write_bytes(npy(b" " + header, np.array([1.5, -2.0]).tobytes(), version))
    with pytest.raises(InputError, match="has a header of 10001 bytes; at most 10000 are read"):
        read_npy(path)


def test_orders_of_bytes_and_axes_are_numpys(tmp_path):
    array = np.arange(6, dtype=">i4").reshape(2, 3)
    for name, given in (("c", array), ("f", np.asfortranarray(array)), ("text", np.array(["a", "bc"]))):
        np.save(tmp_path / f"{name}.npy", given)
        found = read_npy(tmp_path / f"{name}.npy")
        assert found.dtype.isnative
        assert np.array_equal(found, given)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npy(described(), bytes(16), version=3), "is no array as numpy writes them"),
        (npy(described(), bytes(15)), r"declares float64 of shape \(2,\) in 15 bytes"),
        (npy(described(), bytes(17)), r"declares float64 of shape \(2,\) in 17 bytes"),
        (npy(described(shape=(-2, -1)), bytes(16)), r"declares float64 of shape \(-2, -1\) in 16 bytes"),
        (npy(described("|O"), bytes(16)), r"holds pickled objects or records \(object\)"),
        (
            npy(described("<M8[s]"), bytes(16)),
            r"holds pickled objects or records \(datetime64\[s\]\); numbers and text are read",
        ),
        (npy(b"{}\n"), r"is not an \.npy file, or damaged \(ValueError\)"),
        (npy(described("<U1"), (sys.maxunicode + 1).to_bytes(4, "little") * 2), "holds what is no text"),
    ],
    ids=["version", "short", "long", "negative", "object", "time", "empty", "text"],
)
def test_what_is_no_array_is_refused(content, sentence, tmp_path):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.npy {sentence}"):
        read_npy(tmp_path / "x.npy")


def test_the_last_character_is_text(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy(described("<U1"), sys.maxunicode.to_bytes(4, "little") * 2))
    assert read_npy(tmp_path / "x.npy").tolist() == [chr(sys.maxunicode)] * 2


def cfl(folder, shape, values, comment=b""):
    values.astype("<c8").tofile(folder / "x.cfl")
    dimensions = " ".join(map(str, shape)).encode()
    (folder / "x.hdr").write_bytes(b"# Dimensions\n" + dimensions + b"\n# Command\n" + comment)
    return folder / "x.cfl"


def test_a_cfl_has_its_first_axis_in_a_row(tmp_path):
    found = read_cfl(cfl(tmp_path, (2, 3, *[1] * 14), np.arange(6) * (1 + 2j), b"bart \xe4\xff\n"))
    assert found.shape == (2, 3, *[1] * 14)
    assert np.array_equal(found.reshape(2, 3), np.array([[0, 2, 4], [1, 3, 5]]) * (1 + 2j))


@pytest.mark.parametrize("shape", [(2, 3, *[1] * 15), (), (0,), (-2, -3), (2, 2), (6, 2)])
def test_a_cfl_is_as_long_as_its_header_says(shape, tmp_path):
    with pytest.raises(InputError, match=r"x\.cfl has 48 bytes, which are not the dimensions \("):
        read_cfl(cfl(tmp_path, shape, np.arange(6)))


def test_the_header_of_a_cfl_has_a_mib_at_most(tmp_path):
    path = cfl(tmp_path, (6,), np.arange(6), b"x" * (2**20 - 25))
    assert path.with_suffix(".hdr").stat().st_size == 2**20
    assert read_cfl(path).shape == (6,)
    cfl(tmp_path, (6,), np.arange(6), b"x" * (2**20 - 24))
    with pytest.raises(InputError, match=r"x\.hdr has 1048577 bytes; at most 1048576 are read"):
        read_cfl(path)


def test_text_is_of_its_encoding(tmp_path):
    (tmp_path / "x.txt").write_bytes("grün".encode())
    assert read_text(tmp_path / "x.txt") == "grün"
    (tmp_path / "x.txt").write_bytes("grün".encode("latin-1"))
    assert read_text(tmp_path / "x.txt", encoding="latin-1") == "grün"
    with pytest.raises(InputError, match=r"x\.txt is no text in utf-8: .* at byte 2\.$"):
        read_text(tmp_path / "x.txt")


def test_arrays_are_of_the_kind_that_is_asked_for():
    arrays = {
        "real": np.zeros((2, 3)), "whole": np.arange(3), "flag": np.array(True), "text": np.array("a"),
        "complex": np.zeros(2, complex),
    }  # fmt: skip
    right = {"real": ("real", 2), "whole": ("whole", 1), "flag": ("true or false", 0), "text": ("text", 0)}
    require_arrays(arrays, "f", right, {"missing": ("real", 1)})
    require_arrays(arrays, "f", {"whole": ("real", 1)}, {})
    wrong = {
        "real": [("real", 1), ("whole", 2)], "flag": [("whole", 0)], "text": [("real", 0)], "complex": [("real", 1)],
    }  # fmt: skip
    for key, kinds in wrong.items():
        for kind in kinds:
            for keys, optional in (({key: kind}, {}), ({}, {key: kind})):
                with pytest.raises(InputError, match=f"^f: {key} is .*, not {kind[0]} with {kind[1]} axes"):
                    require_arrays(arrays, "f", keys, optional)
    with pytest.raises(InputError, match=r"^f lacks the key 'missing'\.$"):
        require_arrays(arrays, "f", {"missing": ("real", 1)}, {})
