"""Raw data from strangers: nothing outside the file is read, nothing fills the memory, and damage ends no process."""

import os
import resource
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from attacks import mrds
from attacks.archives import zeros
from attacks.hdf5s import ACQUISITION, outcome
from attacks.mutants import mutants

from trajdesign.data.hdf5 import chunks, reader, sandbox
from trajdesign.data.raw import inspect
from trajdesign.data.sources.fastmri import fastmri
from trajdesign.errors import InputError

KSPACE = np.random.default_rng(0).standard_normal((2, 2, 16, 16)).astype(np.float32) * np.complex64(1 + 1j)
HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>16</x><y>16</y></matrixSize><fieldOfView_mm><x>220</x><y>220</y></fieldOfView_mm>
</encodedSpace><reconSpace><fieldOfView_mm><x>220</x><y>220</y></fieldOfView_mm></reconSpace>
</encoding></ismrmrdHeader>"""
LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (1, 2, 16, 16)},
    "gzip": {"chunks": (1, 2, 16, 16), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "newest format": {"chunks": (1, 2, 8, 8), "compression": "gzip"},
}
MRD_LAYOUTS = {"a row a chunk": {}, "packed": {"chunks": (5,), "compression": "gzip", "shuffle": True}}


def write(path, **options):
    libver = "latest" if options.get("chunks") == (1, 2, 8, 8) else "earliest"
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("kspace", data=KSPACE, **options)
        file["ismrmrd_header"] = HEADER
        file.attrs["patient_id"] = "p1"
    return path


def read_in_children(folder):
    """Return what each file of a folder gives; None where it ended the process, which is started again behind it."""
    found, n = {}, len(list(folder.glob("*.h5")))
    while len(found) < n:
        words = [sys.executable, Path(__file__).with_name("hdf5s.py"), str(len(found)), folder]
        done = subprocess.run(words, capture_output=True, text=True, timeout=1000)
        lines = [line.split("\t") for line in done.stdout.split("\n") if line]
        assert lines, done.stderr
        found |= {name: said or None for name, said in lines}
    return found


# --- damage ---


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("n", [100, pytest.param(2000, marks=pytest.mark.nightly)])
def test_mutants_are_refused_or_numbers_and_end_no_process(tmp_path, n):
    wholes = [write(tmp_path / "whole", **options).read_bytes() for options in LAYOUTS.values()]
    wholes += [mrds.write(tmp_path / "whole", **options).read_bytes() for options in MRD_LAYOUTS.values()]
    for i, whole in enumerate(wholes):
        for j, data in enumerate(mutants(whole, n // len(wholes), seed=i)):
            (tmp_path / f"{i}-{j:05d}.h5").write_bytes(data)
    left, unsound = sorted(tmp_path.glob("*.h5")), []
    while left:
        try:
            sandbox.require_sound(left, "kspace")
        except InputError as error:
            unsound.append(next(path for path in left if str(error).startswith(f"{path} is damaged")))
            left = left[left.index(unsound[-1]) + 1 :]
            unsound[-1].unlink()
        else:
            break
    found = read_in_children(tmp_path)
    bad = {name: said for name, said in found.items() if said is None or not said.startswith(("finite", "refused"))}
    assert not bad
    assert len(unsound) < 0.02 * n
    assert sum(said.startswith("refused") for said in found.values()) > 0.1 * len(found)


def test_a_file_that_keeps_the_library_busy_for_ever_is_refused(tmp_path):
    good, path = write(tmp_path / "good.h5"), write(tmp_path / "a.h5")
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL") + 16  # the size of its first object, so that the next one is where it is
    data[heap + 8 : heap + 16] = (2**64 - 16).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.h5 is damaged: the HDF5 library fails"):
        fastmri(ACQUISITION, "test", test=[str(good), str(path)])
    assert outcome(good) == "finite"


# --- malice ---


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "secret.h5"
    return write(path)


def pointing(folder, secret):
    """Write files that point at another one, or at themselves without end."""
    with h5py.File(folder / "external.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink(str(secret), "/kspace")
    with h5py.File(folder / "storage.h5", "w") as file:
        file.create_dataset("kspace", (1, 1, 4, 4), np.complex64, external=[(str(secret), 0, 128)])
    with h5py.File(folder / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((2, 2, 16, 16), np.complex64)
        layout[:] = h5py.VirtualSource(str(secret), "kspace", (2, 2, 16, 16))
        file.create_virtual_dataset("kspace", layout)
    with h5py.File(folder / "soft.h5", "w") as file:
        file["kspace"] = h5py.SoftLink("/kspace")
    with h5py.File(folder / "loop.h5", "w") as file:
        file["kspace"] = h5py.SoftLink("/b")
        file["b"] = h5py.SoftLink("/kspace")
    with h5py.File(folder / "group.h5", "w") as file:
        file.create_group("kspace")["kspace"] = file["/"]
    for name, pointer in (("header", h5py.ExternalLink(str(secret), "/ismrmrd_header")), ("soft", h5py.SoftLink("/x"))):
        with h5py.File(folder / f"{name}-elsewhere.h5", "w") as file:
            file["kspace"] = KSPACE
            file["ismrmrd_header"] = pointer


def packed(path, chunk, chunks=(2, 2, 16, 16), **options):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("kspace", KSPACE.shape, np.complex64, chunks=chunks, **options)
        data.id.write_direct_chunk((0,) * 4, chunk)


def swollen(folder):
    """Write files that declare or unpack to more than they hold, or less than the library will read."""
    for name, shape, options in (
        ("seven-tebibytes", (100, 96, 10**4, 10**4), {"chunks": (1, 1, 64, 64)}),
        ("slices", (10**5, 8, 64, 64), {"chunks": (1, 1, 64, 64)}),
        ("too-many-slices", (10**6, 1, 4, 4), {"chunks": (1, 1, 4, 4)}),
        ("one-gibibyte", (1, 128, 1024, 1024), {"chunks": (1, 1, 64, 64)}),
        ("chunk", (1, 1, 4, 4), {"chunks": (1, 1, 2**13, 2**13), "maxshape": (None,) * 4}),
    ):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("kspace", shape, np.complex64, **options)
    bomb = b"\x78\xda" + zeros(1024)  # the library takes whatever a chunk inflates to
    packed(folder / "bomb.h5", bomb, compression="gzip")
    packed(folder / "short.h5", zlib.compress(bytes(64)), compression="gzip")  # and beyond its end
    packed(folder / "cut.h5", zlib.compress(KSPACE.tobytes())[:-20], compression="gzip")
    packed(folder / "noise.h5", bytes(range(256)) * 8, compression="gzip")
    packed(folder / "short-checksum.h5", bytes(64), fletcher32=True)
    packed(folder / "short-shuffle.h5", bytes(64), shuffle=True)
    with h5py.File(folder / "lzf.h5", "w") as file:
        file.create_dataset("kspace", data=KSPACE, compression="lzf")
    with h5py.File(folder / "unknown-filter.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((1, 1, 16, 16))
        plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        kind = h5py.h5t.py_create(np.dtype(np.complex64), logical=True)
        h5py.h5d.create(file.id, b"kspace", kind, h5py.h5s.create_simple(KSPACE.shape), plan)
    with h5py.File(folder / "twice.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((1, 1, 16, 16))
        plan.set_deflate(9)
        plan.set_deflate(9)
        kind = h5py.h5t.py_create(np.dtype(np.complex64), logical=True)
        h5py.h5d.create(file.id, b"kspace", kind, h5py.h5s.create_simple(KSPACE.shape), plan)


def measured(folder, secret):
    """Write files of ISMRMRD's layout that point elsewhere, swell, or contradict themselves."""
    heads = {
        "samples": {"number_of_samples": 17},
        "fewer-samples": {"number_of_samples": 15},
        "channels": {"active_channels": 2**16 - 1},
        "left-out": {"discard_pre": 9, "discard_post": 9},
        "places": {"center_sample": 2**16 - 1},
    }
    for name, fields in heads.items():
        mrds.write(folder / f"mrd-{name}.h5", mrds.acquisitions(**fields))
    lies = {
        "four-gibibytes": {"n": 2**32 - 1},
        "shorter": {"n": 2},
        "other-collection": {"collection": 0},
        "beyond": {"collection": 2**63},
        "other-object": {"number": 60_000},
        "one-object": {"collection": 2048, "number": 1, "of": None},
    }
    for name, lie in lies.items():
        mrds.lying(folder / f"mrd-{name}.h5", **lie)
    kind = mrds.acquisitions().dtype
    few = mrds.acquisitions(n_lines=2)
    mrds.write(folder / "mrd-gibibyte.h5", few, mrds.HEADER.format(n_lines=30_000).replace("<x>16<", "<x>2000<"))
    mrds.write(folder / "mrd-laughs.h5", header=f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>')
    mrds.write(folder / "mrd-lzf.h5", compression="lzf")
    mrds.write(folder / "mrd-checksum.h5", fletcher32=True)
    mrds.write(folder / "mrd-numbers.h5", np.zeros((4, 4)), chunks=(1, 1), maxshape=None)
    mrds.write(folder / "mrd-heads.h5", np.zeros(4, [("head", "f4"), ("data", "f4")]))
    texts = [("head", kind["head"]), ("traj", kind["traj"]), ("data", h5py.string_dtype())]
    mrds.write(folder / "mrd-texts.h5", np.array([(head, few["traj"][0], "a") for head in few["head"]], texts))
    for name, n_rows, chunk in (("rows", 10**6, 100), ("chunks", 10**6, 1), ("chunk", 10**6, 10**6), ("empty", 16, 1)):
        mrds.write(folder / f"mrd-{name}.h5")
        with h5py.File(folder / f"mrd-{name}.h5", "a") as file:
            del file["dataset"]["data"]
            file["dataset"].create_dataset("data", (n_rows,), kind, chunks=(chunk,))
    for name, chunk in (("short", zlib.compress(bytes(64))), ("bomb", b"\x78\xda" + zeros(1024))):
        mrds.write(folder / f"mrd-{name}.h5", chunks=(16,), compression="gzip")
        with h5py.File(folder / f"mrd-{name}.h5", "a") as file:
            file["dataset"]["data"].id.write_direct_chunk((0,), chunk)
    for name in ("xml", "data", "dataset"):
        whole = mrds.write(folder / f"mrd-elsewhere-{name}.h5")
        with h5py.File(whole, "a") as file:
            of = file if name == "dataset" else file["dataset"]
            del of[name]
            of[name] = h5py.ExternalLink(str(secret), "/kspace")


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))


def wrong(folder, secret):
    """Write files of other kinds and headers."""
    holed = KSPACE.copy()
    holed[1, 0, 3, 4] = np.nan
    half_holed = KSPACE.copy()
    half_holed.imag[1, 0, 3, 4] = np.nan
    for name, value in {
        "text": np.array([b"k"] * 4),
        "flat": KSPACE[0, 0],
        "empty": KSPACE[:0],
        "nan": holed,
        "nan-imaginary": half_holed,
        "real": KSPACE.real,
        "zero": 0 * KSPACE,
    }.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["kspace"] = value
    with h5py.File(folder / "variable.h5", "w") as file:
        file.create_dataset("kspace", (2, 2), h5py.string_dtype())
    with h5py.File(folder / "lists.h5", "w") as file:
        file.create_dataset("kspace", (2, 2, 16, 16), h5py.vlen_dtype(np.complex64))
    with h5py.File(folder / "none.h5", "w") as file:
        file["other"] = KSPACE
    headers = {
        "laughs": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>',
        "entity": f'<!DOCTYPE a [<!ENTITY s SYSTEM "file://{secret}">]><a>&s;</a>',
        "utf16": np.bytes_('<?xml version="1.0" encoding="utf-16"?><a/>'.encode("utf-16")),
        "long-header": "<a>" + " " * 2**20 + "</a>",
        "deep-header": "<a>" * 10**5,
        "no-xml": "field of view: 220",
        "number": 1.5,
        "many": np.array([b"a"] * 3),
    }
    for name, value in headers.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["kspace"] = KSPACE
            file["ismrmrd_header"] = value
    whole = write(folder / "whole.h5").read_bytes()
    (folder / "whole.h5").unlink()
    (folder / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    (folder / "start.h5").write_bytes(whole[:100])
    (folder / "nothing.h5").write_bytes(b"")


def test_crafted_files_are_refused_in_a_sentence(secret, tmp_path):
    pointing(tmp_path, secret)
    swollen(tmp_path)
    wrong(tmp_path, secret)
    measured(tmp_path, secret)
    found = read_in_children(tmp_path)
    assert len(found) == 70
    assert {name: said for name, said in found.items() if said is None or not said.startswith("refused")} == {}
    assert "repack it" in found["unknown-filter.h5"]
    assert "entities" in found["laughs.h5"]


def first_slice(path):
    with reader.opened(path) as file:
        data = reader.member(file, "kspace")
        reader.require_slices(data)
        return chunks.read(data, 0)


def test_the_memory_that_a_bomb_takes(secret, tmp_path):
    swollen(tmp_path)
    measured(tmp_path, secret)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in sorted(tmp_path.glob("*.h5")):
        with pytest.raises(InputError):
            inspect(path, "kspace", ()).read(0) if path.name.startswith("mrd") else first_slice(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10, "KiB"


def test_a_link_on_the_way_is_not_followed(secret, tmp_path):
    with h5py.File(tmp_path / "way.h5", "w") as file:
        file["group"] = h5py.ExternalLink(str(secret), "/")
        file.create_group("own")["kspace"] = KSPACE
    for name in ("group/kspace", "/group/kspace", "own/kspace", "..", ".", "/", ""):
        with pytest.raises(InputError), reader.opened(tmp_path / "way.h5") as file:
            reader.member(file, name)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not there")
def test_the_other_file_is_never_opened(secret, tmp_path):
    pointing(tmp_path, secret)
    log = tmp_path / "log"
    program = (
        "import sys; from pathlib import Path; from trajdesign.errors import *\n"
        "from trajdesign.data.hdf5 import chunks, reader\n"
        "for path in sorted(Path(sys.argv[1]).glob('*.h5')):\n"
        "    try:\n"
        "        with reader.opened(path) as file:\n"
        "            reader.people(file)\n"
        "            chunks.read(reader.member(file, 'kspace'), 0)\n"
        "            reader.text(file, 'ismrmrd_header')\n"
        "    except InputError:\n"
        "        pass\n"
    )
    words = ["strace", "-f", "-e", "trace=open,openat,openat2", "-o", log, sys.executable, "-c", program, tmp_path]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("processes cannot be traced here")
    opened = log.read_text()
    assert "external.h5" in opened
    assert "secret" not in opened


@pytest.mark.parametrize("text", ["p1", HEADER], ids=["attribute", "header"])
def test_a_text_that_announces_four_gibibytes_is_refused(tmp_path, text):
    path = write(tmp_path / "a.h5")
    content = path.read_bytes()
    reference = len(text).to_bytes(4, "little") + content.index(b"GCOL").to_bytes(8, "little")
    assert content.count(reference) == 1
    path.write_bytes(content.replace(reference, b"\xff" * 4 + reference[4:]))
    with pytest.raises(InputError, match=r"a\.h5 is damaged|no text of at most"):
        fastmri(ACQUISITION, "test", test=[str(path)])
    # the process that looked at it, once more, from a small one: a process inherits the peak of what starts it
    words = [sys.executable, "-c", STARTED, sys.executable, "-m", "trajdesign.data.hdf5.sandbox", "kspace"]
    looked = subprocess.run(words, input=os.fsencode(path), capture_output=True, check=True)
    assert 2**14 < int(looked.stdout) < 2**20, "KiB"


STARTED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], input=sys.stdin.buffer.read(), stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_unusual_layouts_give_the_numbers(tmp_path):
    odd = {"chunks": (2, 1, 10, 7), "compression": "gzip", "shuffle": True}
    for name, options in {**LAYOUTS, "odd": odd, "odd, with sums": {**odd, "fletcher32": True}}.items():
        with reader.opened(write(tmp_path / f"{name}.h5", **options)) as file:
            data = reader.member(file, "kspace")
            reader.require_slices(data)
            np.testing.assert_array_equal(chunks.read(data, 1), KSPACE[1])
            np.testing.assert_array_equal(chunks.read(data), KSPACE)
            assert reader.text(file, "ismrmrd_header") == HEADER
            assert reader.people(file) == ["p1"]
    rows = mrds.acquisitions()
    wanted = np.stack([values.view(np.complex64).reshape(2, 16) for values in rows["data"]], axis=-1)
    for options in MRD_LAYOUTS.values():
        volume = inspect(mrds.write(tmp_path / "again.mrd", **options), "kspace", ())
        np.testing.assert_array_equal(volume.read(0), wanted)
