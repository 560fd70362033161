"""Siemens raw data, against files written byte by byte, twixtools' own reader, and the files of real scanners."""

import resource
import struct
import sys

import numpy as np
import pytest
import twix_files as files
import twixtools
from attacks.commands import require_one_line
from attacks.mutants import mutants, taken
from real_data import real
from twix_files import Block, samples

from trajdesign.data.measured.reading import read
from trajdesign.errors import InputError, ResourceError

LAYOUTS = pytest.mark.parametrize("is_vb", [True, False], ids=["vb", "vd"])


def theirs(path):
    """Return what twixtools reads: the samples of each event of the last measurement."""
    scan = twixtools.read_twix(str(path), verbose=False, parse_pmu=False, parse_geometry=False, keep_syncdata=False)[-1]
    return [block.data for block in scan["mdb"] if not block.is_flag_set("RTFEEDBACK")]


@LAYOUTS
def test_events_are_in_the_order_of_the_file_and_nothing_else_is_an_event(tmp_path, is_vb):
    wanted = samples(5)
    blocks = [Block(event) for event in wanted]
    blocks[1].mask |= files.REVERSED | files.PHASE_CORRECTION
    blocks[4].mask |= files.CALIBRATION
    blocks[3].cut = (1, 2)
    blocks.insert(4, Block(samples(1)[0], 8 | files.FEEDBACK))
    blocks.insert(2, Block(b"heart" * 13, files.SYNC))
    path = files.write(tmp_path / "a.dat", blocks, is_vb=is_vb)
    found = read(path)
    np.testing.assert_array_equal(found.events, wanted)
    np.testing.assert_array_equal(theirs(path), wanted)
    assert found.events.dtype == np.complex64
    assert {name: flag.tolist() for name, flag in found.flags.items()} == {
        "reversed": [False, True, False, False, False],
        "phase correction": [False, True, False, False, False],
        "calibration": [False, False, False, False, True],
    }
    assert found.discard.tolist() == [[0, 0], [0, 0], [0, 0], [1, 2], [0, 0]]
    assert found.stamps.tolist() == [2001, 2002, 2004, 2005, 2007]  # 2000 and the number of the block
    assert (found.kind, found.layout, found.noise, found.trajectory) == ("twix", None, None, None)


@LAYOUTS
def test_what_the_text_says_is_told_in_si(tmp_path, is_vb):
    # turned by 30 degrees about the axis to the left: phase to the left, read from the back to the head
    half = np.pi / 12
    block = Block(samples(1)[0], position=(10, -20, 30), quaternion=(np.cos(half), np.sin(half), 0, 0))
    found = read(files.write(tmp_path / "a.dat", [block, block, Block(samples(1)[0])], is_vb=is_vb, dwell_ns=2600))
    protocol = found.protocol
    assert (found.dwell, found.oversampling) == (2.6e-6, 2.0)
    assert (protocol.system, protocol.name) == ("SIEMENS Prisma syngo MR E11", "pulseq")
    assert (protocol.field_strength, protocol.patient_position) == (2.89362, "HFS")
    assert protocol.fov == (0.2205, 0.18, 0.004)
    turned, straight = protocol.slices
    np.testing.assert_allclose(turned.position, (0.01, -0.02, 0.03), atol=1e-9)
    np.testing.assert_allclose(turned.phase, (1, 0, 0), atol=1e-6)
    np.testing.assert_allclose(turned.read, (0, np.sqrt(3) / 2, 0.5), atol=1e-6)
    np.testing.assert_allclose(turned.normal, (0, -0.5, np.sqrt(3) / 2), atol=1e-6)
    assert straight.normal == (0, 0, 1)


def test_a_text_that_says_nothing_leaves_nothing_to_tell(tmp_path):
    block = Block(samples(1)[0], quaternion=(0, 0, 0, 0))
    found = read(files.write(tmp_path / "a.dat", [block], MeasYaps="", Dicom='<ParamDouble."flReadoutOSFactor"> { }'))
    assert (found.dwell, found.oversampling, found.protocol.fov, found.protocol.slices) == (None, None, (), ())
    assert (found.protocol.system, found.protocol.name, found.protocol.field_strength) == ("", "", None)


@LAYOUTS
def test_events_of_several_lengths_are_a_list(tmp_path, is_vb):
    wanted = [samples(1, 2, 5)[0], samples(1, 2, 9)[0], samples(1, 3, 5)[0]]
    found = read(files.write(tmp_path / "a.dat", [Block(event) for event in wanted], is_vb=is_vb))
    assert isinstance(found.events, list)
    assert found.sizes == [(2, 5), (2, 9), (3, 5)]
    for event, right in zip(found.events, wanted, strict=True):
        np.testing.assert_array_equal(event, right)


def test_the_noise_scan_is_a_measurement_before(tmp_path):
    noise, image = samples(4, 3, 16, seed=1), samples(2)
    before = [[Block(event, 8 | files.NOISE) for event in noise], [Block(samples(1, 2)[0])]]
    found = read(files.write(tmp_path / "a.dat", [Block(event) for event in image], before=before))
    np.testing.assert_array_equal(found.events, image)
    np.testing.assert_array_equal(found.noise, noise.transpose(1, 0, 2).reshape(3, -1))
    assert (found.noise_dwell, found.dwell) == (9e-6, 4e-6)
    assert found.flags == {}


@LAYOUTS
def test_noise_that_a_sequence_plays_stays_an_event(tmp_path, is_vb):
    wanted = samples(3)
    blocks = [Block(wanted[0], 8 | files.NOISE), *(Block(event) for event in wanted[1:])]
    found = read(files.write(tmp_path / "a.dat", blocks, is_vb=is_vb))
    np.testing.assert_array_equal(found.events, wanted)
    np.testing.assert_array_equal(found.noise, wanted[0])
    assert found.flags["noise"].tolist() == [True, False, False]
    rest = found.select(~found.flags["noise"])
    np.testing.assert_array_equal(rest.events, wanted[1:])
    assert (rest.flags, rest.discard.shape) == ({}, (2, 2))


def test_lengths_of_zero_in_the_directory_are_those_that_scanners_leave_open(tmp_path):
    path = files.write(tmp_path / "a.dat", [Block(samples(1)[0])], before=[[Block(samples(1)[0], 8 | files.NOISE)]])
    content = bytearray(path.read_bytes())
    content[8 + 152 + 16 : 8 + 152 + 24] = bytes(8)  # of the last: as long as the file
    path.write_bytes(content)
    assert read(path).noise.shape == (3, 7)
    content[8 + 16 : 8 + 24] = bytes(8)  # of the first: empty
    path.write_bytes(content)
    assert read(path).noise is None


@LAYOUTS
def test_a_file_that_is_cut_off_anywhere_is_named(tmp_path, is_vb):
    path = files.write(tmp_path / "a.dat", [Block(event) for event in samples(3)], is_vb=is_vb)
    content = path.read_bytes()
    end = len(content) - (256 if is_vb else 512)  # before the block that ends it
    for n in [*range(10_240, end, 53), end]:
        path.write_bytes(content[:n])
        with pytest.raises(InputError, match=r"cut off or damaged|no Siemens raw data") as caught:
            read(path)
        require_one_line(caught.value)
    path.write_bytes(files.write(tmp_path / "b.dat", [Block(samples(1)[0])], is_vb=is_vb, ends=False).read_bytes())
    with pytest.raises(InputError, match="after 1 ADC events, at byte"):
        read(path)


@LAYOUTS
def test_no_flipped_bit_of_a_head_moves_or_loses_an_event_silently(tmp_path, is_vb):
    wanted = samples(4, 2, 6)
    path = files.write(tmp_path / "a.dat", [Block(event) for event in wanted], is_vb=is_vb)
    content = path.read_bytes()
    n_text, block = (
        struct.unpack("<I", content[0 if is_vb else 10_240 :][:4])[0],
        2 * (128 + 48) if is_vb else 192 + 160,
    )
    start = n_text + (0 if is_vb else 10_240) + block  # the second event
    mask = start + (20 if is_vb else 40)
    not_an_event = {mask * 8 + 1, mask * 8 + 2, mask * 8 + 5}  # feedback and synchronous data
    n_refused = 0
    for bit in range(start * 8, (start + (128 if is_vb else 192)) * 8):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read(path).events
        except InputError as error:
            require_one_line(error)
            n_refused += 1
            continue
        np.testing.assert_array_equal(found, np.delete(wanted, 1, axis=0) if bit in not_an_event else wanted)
    assert n_refused >= 32 + 16 + 16 + 1  # number of the measurement, samples, channels, end


@LAYOUTS
@pytest.mark.parametrize("n", [120, pytest.param(5000, marks=pytest.mark.nightly)])
def test_mutants_are_read_or_refused_in_one_line(tmp_path, is_vb, n):
    noise = [] if is_vb else [[Block(samples(1)[0], 8 | files.NOISE)]]
    blocks = [Block(event) for event in samples(6)] + [Block(b"heart" * 13, files.SYNC)]
    whole = files.write(tmp_path / "a.dat", blocks, is_vb=is_vb, before=noise).read_bytes()
    n_start = 0 if is_vb else 10_240
    # the text is filled up with zeros, where damage does nothing
    for found in taken(tmp_path / "a.dat", mutants(whole, n), read):
        assert all(np.isfinite(event).all() for event in found.events)
    tail = (whole[: n_start + 10_240], whole[n_start + 10_240 :])
    copies = (tail[0] + copy for copy in mutants(tail[1], n, seed=1))
    assert sum(1 for _ in taken(tmp_path / "a.dat", copies, read)) < n


def refusal(path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        read(path)
    require_one_line(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 2**10, "KiB"
    return str(caught.value)


@LAYOUTS
def test_what_a_file_declares_takes_no_memory(tmp_path, is_vb):
    path = files.write(tmp_path / "a.dat", [Block(event) for event in samples(2)], is_vb=is_vb)
    content, n_start = path.read_bytes(), 0 if is_vb else 10_240
    first = n_start + 10_240

    def damaged(at, value):
        path.write_bytes(content[:at] + value + content[at + len(value) :])
        return refusal(path)

    assert "a text of 4294967280 bytes" in damaged(n_start, struct.pack("<I", 2**32 - 16))
    assert "cut off or damaged" in damaged(first + (28 if is_vb else 48), struct.pack("<HH", 65535, 65535))
    assert "no block of the measurement" in damaged(first + (28 if is_vb else 48), struct.pack("<HH", 0, 1))
    # synchronous data of no length, at which a walk would stay for ever
    head = bytearray(content[first : first + 60])
    head[:4], head[20 if is_vb else 40] = bytes(4), files.SYNC
    assert "no block of the measurement" in damaged(first, bytes(head))


def test_a_directory_that_lies_is_refused(tmp_path):
    path = files.write(tmp_path / "a.dat", [Block(samples(1)[0])], before=[[Block(samples(1)[0])]] * 3)
    content = path.read_bytes()
    whole = struct.pack("<QQ", 10_240, len(content) - 10_240)
    entries = dict.fromkeys(range(16, 16 + 4 * 152, 152), whole)
    for places, sentence in (
        ({4: struct.pack("<I", 0)}, "announces 0 measurements"),
        ({4: struct.pack("<I", 65)}, "announces 65 measurements"),
        ({16: struct.pack("<QQ", 10_240, 2**63)}, "announces a measurement from byte 10240 to"),
        ({16: struct.pack("<QQ", 2**64 - 1, 2)}, "cut off or damaged"),
        ({16: struct.pack("<QQ", 8, 100)}, "cut off or damaged"),
        (entries, "its measurements overlap"),
    ):
        damaged = bytearray(content)
        for at, value in places.items():
            damaged[at : at + len(value)] = value
        path.write_bytes(damaged)
        assert sentence in refusal(path)


def test_what_is_no_raw_data_is_refused(tmp_path):
    path = tmp_path / "a.dat"
    for content in (b"", b"text", b"\0" * 20_000, b"\xff" * 20_000, bytes(range(256)) * 100):
        path.write_bytes(content)
        assert "no Siemens raw data" in refusal(path)
    files.write(path, [Block(b"heart" * 13, files.SYNC)])
    assert "no ADC event" in refusal(path)
    values = samples(2)
    values[1, 2, 3] = np.nan
    files.write(path, [Block(event) for event in values])
    assert "sample 3 of coil 2 in event 1 is not finite" in refusal(path)


def test_without_twixtools_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "twixtools.hdr_def", None)
    with pytest.raises(ResourceError, match=r"twixtools, which is not installed: pip install -e \"\.\[twix\]\""):
        read(files.write(tmp_path / "a.dat", [Block(samples(1)[0])]))


@pytest.mark.parametrize(
    ("name", "shape", "system", "fov"),
    [
        ("epi_basic_pe", (96, 1, 96), "SIEMENS TrioTim syngo MR B19", (0.22, 0.22, 0.004)),
        ("epi_basic_pe0", (96, 1, 96), "SIEMENS TrioTim syngo MR B19", (0.22, 0.22, 0.004)),
        ("se_phantom_32ch", (64, 32, 64), "SIEMENS Skyra syngo MR E11", (0.128, 0.128, 0.03)),
    ],
)
def test_real_files_are_what_twixtools_reads(name, shape, system, fov):
    path = real(f"pulseq_raw/{name}.dat")
    found = read(path)
    assert found.events.shape == shape
    np.testing.assert_array_equal(found.events, theirs(path))
    assert (found.protocol.system, found.protocol.fov, found.oversampling) == (system, fov, 1.0)
    assert (found.noise, found.flags, found.discard.any()) == (None, {}, False)
    (only,) = found.protocol.slices
    np.testing.assert_allclose(only.normal, (0, 0, 1), atol=1e-6)


def test_a_real_file_that_is_cut_off_is_named(tmp_path):
    content = real("pulseq_raw/se_phantom_32ch.dat").read_bytes()
    path = tmp_path / "a.dat"
    for n in (len(content) // 2, len(content) - 1000):
        path.write_bytes(content[:n])
        assert f"{path} has {n} bytes, and announces a measurement from byte 10240 to 1844032" in refusal(path)
    content = real("pulseq_raw/epi_basic_pe.dat").read_bytes()
    path.write_bytes(content[:-256])
    assert "after 96 ADC events, at byte 622976, the file or its measurement ends" in refusal(path)
