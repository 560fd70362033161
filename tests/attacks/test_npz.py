"""Trajectories from strangers: a damaged file is refused or changes nothing, a hostile one is refused."""

import io
import os
import pickle
import resource

import numpy as np
import pytest
import torch
from attacks.archives import Member, archive, described, npy, npy_header, npz, zeros
from attacks.commands import command, require_sentence
from attacks.mutants import mutants, taken

from trajdesign.acquisition import Acquisition
from trajdesign.errors import InputError
from trajdesign.files.arrays import read_npy, read_npz
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectories.loading import load

ACQUISITION = Acquisition(matrix=(16, 16), n_shots=2, n_samples=64, dwell=8e-6)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "k.npz"
    radial(ACQUISITION, Scanner()).save(path)
    return path


@pytest.fixture(scope="module")
def arrays(good):
    with np.load(good) as file:
        return {key: file[key] for key in file.files}


def same(one, other):
    return torch.equal(one.points, other.points) and (one.acquisition, one.scanner, one.name) == (
        other.acquisition,
        other.scanner,
        other.name,
    )


# --- damage ---


@pytest.mark.parametrize("packed", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_mutants_are_refused_or_change_nothing(good, arrays, tmp_path, n, packed):
    path, original = tmp_path / "k.npz", load(good)
    stream = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(stream, **arrays)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_loaded = 0
    for loaded in taken(path, mutants(stream.getvalue(), n), load):
        assert same(loaded, original)
        n_loaded += 1
    assert n_loaded < 0.1 * n
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10, "KiB"


@pytest.mark.parametrize("n", [10, pytest.param(1000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("words", [("export", "--format", "csv"), ("psf",), ("check",)], ids=lambda words: words[0])
def test_commands_refuse_mutants_in_a_sentence(good, tmp_path, n, words):
    path, out = tmp_path / "k.npz", tmp_path / ("out.csv" if words[0] == "export" else "out.png")
    whole = good.read_bytes()
    for data in [whole, *mutants(whole, n, seed=1)]:
        path.write_bytes(data)
        code, said, err = command(words[0], path, *words[1:], *(() if words[0] == "check" else ("--out", out)))
        if code == 0:
            assert "Traceback" not in err
            out.unlink(missing_ok=True)
        else:
            require_sentence(code, said, err)
        assert list(tmp_path.iterdir()) == [path] or words[0] == "export"
        for left in tmp_path.glob("out*"):  # what an export writes beside its file
            assert code == 0
            left.unlink()
        assert list(tmp_path.iterdir()) == [path]


# --- malice: the archive ---

CANARY = "canary"


class Payload:
    def __reduce__(self):
        return (open, (CANARY, "w"))


BOMB = Member("k.npy", b"", zeros(4096), 8, size=2**32 - 1)
K = Member("k.npy", npy(np.zeros((2, 60, 2))))
HUGE_HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }" + " " * 50 * 2**20


def crafted(arrays):
    """Return the name of each file that is no trajectory, and its bytes."""
    k, k_adc, first = arrays["k"], arrays["k_adc"], next(iter(arrays))
    many = np.broadcast_to(np.float64(0), (10, 10**7, 2))  # never made, only announced
    records = np.zeros(3, dtype=[("x", "f8"), ("y", "f8")])
    return {
        "bomb of 4 GiB in 4 MiB": archive(BOMB),
        "members of one content, 42 times": archive(K, *(Member(f"k{i}.npy", K.content, at=0) for i in range(42))),
        "declares 3.6 TiB": npz(arrays, k=described("<f8", (10**6, 247390, 2))),
        "declares 8 GB": npz(arrays, k=described("<f8", (10**9,))),
        "shape overflows": npz(arrays, k=described("<f8", (2**62, 2**62))),
        "shape is negative": npz(arrays, k=described("<f8", (-1, 60, 2))),
        "shape is negative twice": npz(arrays, k=described("<f8", (-2, -60, 2), npy(k)[-1920:])),
        "shape is not whole": npz(arrays, k=described("<f8", (2.5, 60, 2))),
        "shape of a hundred axes": npz(arrays, k=described("<f8", (1,) * 100, bytes(8))),
        "header of 50 MB": npz(arrays, k=npy_header(HUGE_HEADER, (2, 0))),
        "header of 4 GiB": npz(arrays, k=npy_header("{}", (2, 0), 2**32 - 1)),
        "header is code": npz(arrays, k=npy_header(f"open({CANARY!r}, 'w')")),
        "header nests": npz(arrays, k=npy_header("(" * 9000)),
        "header has another key": npz(arrays, k=npy_header("{'descr': '<f8', 'shape': (1,), 'x': 1}")),
        "objects": npz(arrays, k=npy(np.array([Payload()], dtype=object), pickled=True)),
        "pickle": pickle.dumps(Payload()),
        "records": npz(arrays, k=npy(records)),
        "kind with a shape of its own": npz(arrays, k=described(("<f8", (2,)), (2, 60), bytes(1920))),
        "dates": npz(arrays, k=npy(np.zeros((2, 60, 2), dtype="M8[s]"))),
        "numbers of no bytes": npz(arrays, k=described("|S0", (10**12,))),
        "twice": archive(K, K),
        "65,000 members": archive(*(Member(f"{i}.npy") for i in range(65_000))),
        "65 members": archive(*(Member(f"{i}.npy", npy(0.0)) for i in range(65))),
        "outside": archive(Member("../../k.npy", K.content)),
        "absolute": archive(Member("/tmp/k.npy", K.content)),
        "encrypted": archive(Member("k.npy", K.content, flags=1)),
        "lzma": archive(Member("k.npy", K.content, method=14)),
        "method 99": archive(Member("k.npy", K.content, method=99)),
        "declares less": archive(Member("k.npy", K.content, size=100)),
        "declares more": archive(Member("k.npy", K.content, size=10_000)),
        "version 4": npz(arrays, k=npy(k).replace(b"NUMPY\1", b"NUMPY\4")),
        "text as a member": archive(Member("k", b"0 1 2"), Member("l.npy", b"0 1 2")),
        "entry that swallows the others": archive(
            *(Member(f"{key}.npy", npy(a), comment=0x7FFF * (key == "label_segments")) for key, a in arrays.items())
        ),
        "zip64 without end": archive(K)[:-22] + b"PK\6\7" + bytes(16) + archive(K)[-22:],
        "directory of 4 GiB": archive(K)[:-10] + b"\xff\xff\xff\xff" + archive(K)[-6:],
        "empty": b"",
        "text": b"k = [0, 1, 2]\n" * 100,
        "cut": npz(arrays)[:-100],
        "no trajectory": npz({"a": np.zeros(3)}),
        "no array": archive(),
        # --- malice: the numbers ---
        "0 axes": npz(arrays, k=np.float64(1)),
        "2 axes": npz(arrays, k=k[0]),
        "complex k": npz(arrays, k=k + 0j),
        "complex k_adc": npz(arrays, k_adc=k_adc + 0j),
        "k as text": npz(arrays, k=k.astype("U32")),
        "another unit": npz(arrays, k=1e6 * k, k_adc=1e6 * k_adc),
        "nan": npz(arrays, k=np.where(np.arange(2) > 0, np.nan, k)),
        "inf": npz(arrays, k=np.full_like(k, np.inf)),
        "largest": npz(arrays, k=np.full_like(k, 1.7e308), k_adc=np.full_like(k_adc, 1.7e308)),
        "dwell 0": npz(arrays, dwell_s=0.0),
        "dwell negative": npz(arrays, dwell_s=-8e-6),
        "dwell complex": npz(arrays, dwell_s=8e-6 + 1j),
        "dwell as text": npz(arrays, dwell_s=np.array("8e-6")),
        "dwell of one axis": npz(arrays, dwell_s=np.array([8e-6])),
        "raster true": npz(arrays, raster_s=True),
        "gamma 0": npz(arrays, gamma_hz_per_t=0.0),
        "1 sample": npz(arrays, k=k[:, :3], k_adc=k_adc[:, :1]),
        "no sample": npz(arrays, k=k[:, :0], k_adc=k_adc[:, :0]),
        "10^8 samples": archive(Member("k_adc.npy", described("<f8", many.shape), zeros(2), 8, size=many.nbytes + 128)),
        "matrix of halves": npz(arrays, matrix=np.array([16.5, 16.0])),
        "matrix of 10^9": npz(arrays, matrix=np.array([10**9, 10**9])),
        "text beyond Unicode": npz(arrays, nucleus=described("<U1", (), b"\xff\xff\xff\x7f")),
        "text that moves the cursor": npz(arrays, nucleus=np.array("\x1b[2J\n1H")),
        "text without end": npz(arrays, nucleus=np.array("1H" * 10**6)),
        "first key lost": npz({key: value for key, value in arrays.items() if key != first}),
    }


def test_crafted_files_are_refused_in_a_sentence(arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "k.npz"
    files = crafted(arrays)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, data in files.items():
        path.write_bytes(data)
        code, out, err = command("check", path)
        assert code == 3, (name, err)
        require_sentence(code, out, err)
        assert len(err) < 1200, name
        assert not (tmp_path / CANARY).exists(), name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10, "KiB"
    path.write_bytes(files["another unit"])
    assert "is it in 1/m?" in command("check", path)[2]


def test_what_is_no_file_is_refused_at_once(good, tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    (tmp_path / "dangling.npz").symlink_to(tmp_path / "nothing")
    closed = tmp_path / "closed.npz"
    closed.write_bytes(good.read_bytes())
    closed.chmod(0)
    names = ["/dev/zero", "/dev/null", tmp_path / "pipe.npz", tmp_path / "loop.npz", tmp_path / "dangling.npz"]
    for path in [*names, tmp_path / "none.npz"]:
        require_sentence(*command("check", path))
    assert command("check", tmp_path)[0] == 3, "a folder that is no run"
    with pytest.raises(InputError, match="regular"):
        read_npz(tmp_path)
    tmp_path.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # who reads everything otherwise
    try:
        with pytest.raises(InputError, match="Permission denied"):
            read_npz(closed)
    finally:
        os.seteuid(user)


def test_what_is_unusual_and_harmless_is_read(good, arrays, tmp_path):
    path, original = tmp_path / "k.npz", load(good)
    fortran = {key: np.asarray(a, order="F") for key, a in arrays.items()}
    swapped = {key: a.astype(a.dtype.newbyteorder()) for key, a in arrays.items()}
    of_python_2 = npy(arrays["k"]).replace(b"(2, ", b"(2L,")
    for content in (npz(fortran), npz(swapped), npz(arrays, k=of_python_2), npz({**arrays, "more": np.zeros(3)})):
        path.write_bytes(content)
        loaded = load(path)
        assert same(loaded, original)
        assert loaded.points.dtype == torch.float64
    path.write_bytes(npz(arrays, name=np.array("\x1b[31mred\x07\ud800\n")))
    assert load(path).name == "[31mred"
    assert "\x1b" not in "".join(command("check", path)[1:])
    path.write_bytes(npz(arrays, name=np.array("x" * 10**6)))
    assert len(load(path).name) == 200


def test_arrays_of_one_file_are_walled_in_too(tmp_path):
    path = tmp_path / "a.npy"
    for content in (
        b"",
        b"text",
        npy(np.zeros(3))[:-1],
        npy(np.zeros(3)) + b"\0",
        npy(np.array([{}]), pickled=True),
        described("<f8", (10**12,)),
        npy_header("{}", (2, 0), 2**32 - 1),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npy"):
            read_npy(path)
    path.write_bytes(npy(np.asfortranarray(np.arange(6).reshape(2, 3).astype(">i2"))))
    np.testing.assert_array_equal(read_npy(path), [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(InputError, match="at most 100 are read"):
        read_npy(path, 100)
