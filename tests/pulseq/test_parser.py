"""The text of Pulseq files: what other readers would take otherwise is refused, and the sentence names the place."""

import hashlib
import re

import numpy as np
import pypulseq as pp
import pytest
from test_player import FILES, signed, write

from trajdesign.errors import InputError
from trajdesign.pulseq.reader import player

TABLES = ("BLOCKS", "RF", "GRADIENTS", "TRAP", "ADC")
RASTERS = ("AdcRasterTime", "BlockDurationRaster", "GradientRasterTime", "RadiofrequencyRasterTime")


def read(tmp_path, text):
    return player.read(write(tmp_path, signed(text)))


def refused(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read(tmp_path, text)


def pypulseq_block(path):
    theirs = pp.Sequence()
    theirs.read(str(path))
    return theirs.get_block(1)


def rows(text, table):
    """Return the numbers of the lines of a table, from 1, and the lines."""
    lines = text.split("\n")
    first = lines.index(f"[{table}]") + 1
    return [(i + 1, lines[i]) for i in range(first, first + lines[first:].index(""))]


def with_line(text, number, line):
    lines = text.split("\n")
    lines[number - 1] = line
    return "\n".join(lines)


# --- blocks ---


@pytest.mark.parametrize("version", FILES)
def test_blocks_play_in_the_order_in_which_they_stand(tmp_path, version):
    text, plain = FILES[version], read(tmp_path, FILES[version])
    with_gaps = read(tmp_path, text.replace("\n3 5 1", "\n7 5 1").replace("\n4 8 0", "\n9 8 0"))
    assert with_gaps.block_numbers.tolist() == [1, 2, 7, 9]
    np.testing.assert_array_equal(with_gaps.k_adc, plain.k_adc)
    # Pulseq's C++ interpreter plays this as 1 2 4 3, its toolbox for MATLAB as 1 2 3 4
    (third, a), (fourth, b) = rows(text, "BLOCKS")[2:]
    swapped = with_line(with_line(text, third, b), fourth, a)
    refused(tmp_path, swapped, r"\[BLOCKS\] is out of order: block 3 stands after block 4\..* number them")


@pytest.mark.parametrize(
    ("column", "name"), [(2, "RF"), (3, r"TRAP\] or \[GRADIENTS"), (5, r"TRAP\] or"), (6, "ADC"), (7, "EXTENSIONS")]
)
@pytest.mark.parametrize("event", [99, -1])
def test_a_block_plays_what_the_file_has(tmp_path, column, name, event):
    number, line = rows(FILES["1.5.0"], "BLOCKS")[1]
    words = line.split()
    words[column] = str(event)
    text = with_line(FILES["1.5.0"], number, " ".join(words))
    refused(tmp_path, text, rf"block 2 plays event {event} of \[{name}.*\], which lacks it")


def test_events_that_no_block_plays_change_nothing(tmp_path):
    more = (
        FILES["1.5.0"]
        .replace("[TRAP]\n", "[TRAP]\n8 9e9 10 10 10 0\n")
        .replace("[ADC]\n", "[ADC]\n8 1 1 0 0 0 0 0 0\n")
    )
    np.testing.assert_array_equal(read(tmp_path, more).k_adc, read(tmp_path, FILES["1.5.0"]).k_adc)


# --- tables ---


@pytest.mark.parametrize("version", FILES)
@pytest.mark.parametrize("table", TABLES)
def test_no_column_may_be_no_number(tmp_path, version, table):
    text = FILES[version]
    (number, line), *_ = rows(text, table)
    words = line.split()
    for column in range(len(words) - (table == "RF" and version == "1.5.0")):  # the last is the use of the pulse
        for word in ("nan", "1e400", "-inf", "0x1", "1_0"):
            changed = with_line(text, number, " ".join([*words[:column], word, *words[column + 1 :]]))
            refused(tmp_path, changed, rf"line {number}, in \[{table}\], ")


@pytest.mark.parametrize(("version", "other"), [("1.5.0", "1.4.1"), ("1.4.1", "1.5.0")])
@pytest.mark.parametrize(("table", "n_columns"), [("RF", (12, 8)), ("GRADIENTS", (7, 5)), ("ADC", (9, 6))])
def test_a_section_of_another_version_is_refused(tmp_path, version, other, table, n_columns):
    (number, _), *_ = rows(FILES[version], table)
    (_, foreign), *_ = rows(FILES[other], table)
    right, wrong = n_columns if version == "1.5.0" else n_columns[::-1]
    sentence = rf"line {number}, in \[{table}\], has {wrong} columns; version {version} has {right} columns there"
    refused(tmp_path, with_line(FILES[version], number, foreign), sentence)


@pytest.mark.parametrize("table", TABLES[1:])
@pytest.mark.parametrize("event", [0, -3])
def test_ids_start_at_1(tmp_path, table, event):
    (number, line), *_ = rows(FILES["1.5.0"], table)
    added = with_line(FILES["1.5.0"], number, f"{event} {line.split(None, 1)[1]}\n{line}")
    refused(tmp_path, added, rf"line {number}, in \[{table}\], has the id {event}; ids start at 1")


@pytest.mark.parametrize("table", TABLES)
def test_a_table_goes_on_up_to_a_blank_line(tmp_path, table):
    # where Pulseq's C++ interpreter ends it, so that it would play no block behind it
    (number, line), *_ = rows(FILES["1.5.0"], table)
    for blank in ("\n", " \t\n", "# a comment\n\n"):
        refused(tmp_path, with_line(FILES["1.5.0"], number, blank + line), rf"in \[{table}\], follows a blank line")


def test_a_shape_goes_on_up_to_a_blank_line(tmp_path):
    text = FILES["1.5.0"].replace("num_samples 4\n0.5\n1\n1", "num_samples 4\n0.5\n\n1\n1")
    refused(tmp_path, text, r"in \[SHAPES\], follows a blank line, where a shape ends")


@pytest.mark.parametrize("version", FILES)
def test_tabs_and_trailing_blanks_change_nothing(tmp_path, version):
    text = FILES[version]
    plain = read(tmp_path, text)
    for changed in (re.sub(r"(?<=\d) (?=\d)", "\t", text), re.sub(r"(?<=[^]\n])\n", " \t\n", text)):
        assert changed != text
        played = read(tmp_path, changed)
        np.testing.assert_array_equal(played.k_adc, plain.k_adc)
        assert [pulse.energy for _, pulse in played.pulses] == [pulse.energy for _, pulse in plain.pulses]


@pytest.mark.parametrize("line", ["[EXTENSIONS] ", " [EXTENSIONS]", "\t[RF]"])
def test_blanks_around_the_name_of_a_section_are_refused(tmp_path, line):
    # Pulseq's C++ interpreter does not find it, and plays the blocks without their extensions
    refused(
        tmp_path, FILES["1.5.0"].replace(f"\n{line.strip()}\n", f"\n{line}\n"), "has blanks around a section's name"
    )


@pytest.mark.parametrize("name", ["ROTATIONS", "RF_SHIMS"])
def test_an_extension_of_a_later_version_is_refused(tmp_path, name):
    row = {"ROTATIONS": "1 1 0 0 0", "RF_SHIMS": "1 1 0.5 0"}[name]
    new = FILES["1.5.0"].replace("[SHAPES]", f"extension {name} 2\n{row}\n\n[SHAPES]")
    refused(tmp_path, new, f"the extension {name} is none of version 1.5.0; it came with 1.5.1")
    plain = read(tmp_path, FILES["1.5.0"])
    np.testing.assert_array_equal(read(tmp_path, new.replace("revision 0", "revision 1")).k_adc, plain.k_adc)


def test_a_byte_order_mark_and_bare_returns_are_named(tmp_path):
    body = FILES["1.5.0"].encode()
    for content, sentence in (
        (b"\xef\xbb\xbf" + body, "starts with a byte order mark"),
        (body.replace(b"\n", b"\r"), r"the character '\\r'"),
    ):
        with pytest.raises(InputError, match=sentence):
            player.read(write(tmp_path, content), signed=False)


# --- definitions ---


@pytest.mark.parametrize("name", RASTERS)
@pytest.mark.parametrize("value", ["nan", "0", "-1e-06", "1e400", "1", "1e-05 1e-05", "ten", ""])
def test_a_raster_is_one_time(tmp_path, name, value):
    text = re.sub(rf"(?m)^{name} .*$", f"{name} {value}", FILES["1.5.0"])
    refused(tmp_path, text, f"the definition {name} is ")


@pytest.mark.parametrize("name", [*RASTERS, "Name", "FOV"])
def test_a_definition_has_one_value(tmp_path, name):
    old = re.search(rf"(?m)^{name} (.*)$", FILES["1.5.0"])
    value = old[1] if old else "0.2 0.2 0.005"
    again = FILES["1.5.0"].replace("[DEFINITIONS]\n", f"[DEFINITIONS]\n{name}  {value}\n")
    assert read(tmp_path, again).definitions[name] == value
    twice = again.replace("\n[BLOCKS]", f"{name} 3e-06\n\n[BLOCKS]")
    refused(tmp_path, twice, f"the definition {name} is both '{value}' and '3e-06'")


@pytest.mark.parametrize("name", ["B0", "Gamma"])
def test_ppm_are_of_one_number(tmp_path, name):
    text = FILES["1.5.0"].replace("[DEFINITIONS]\n", "[DEFINITIONS]\nB0 3\nGamma 42.577478518e6\n")
    refused(tmp_path, re.sub(rf"(?m)^{name} .*$", f"{name} nan", text), f"{name} is 'nan', which is not one finite")


# --- shapes of events ---


@pytest.mark.parametrize("version", FILES)
def test_a_pulse_without_a_shape_of_phases_is_refused(tmp_path, version):
    # pypulseq, MRzero and Pulseq's C++ interpreter all look shape 0 up, and no file has it
    path = write(tmp_path, signed(FILES[version].replace("1 10 2 3 0", "1 10 2 0 0")))
    with pytest.raises(InputError, match=r"the phase of RF pulse 1 has the shape 0, which \[SHAPES\] lacks"):
        player.read(path)
    with pytest.raises(KeyError, match="0"):
        pypulseq_block(path)


@pytest.mark.parametrize("version", FILES)
def test_the_phase_of_a_pulse_is_that_of_pypulseq(tmp_path, version):
    # quarters of a turn
    text = FILES[version].replace("1 10 2 3 0", "1 10 2 6 0") + "\nshape_id 6\nnum_samples 4\n0\n0.25\n0.5\n0.75\n"
    path = write(tmp_path, signed(text))
    (_, pulse), *_ = player.read(path).pulses
    assert pulse.amplitude == pytest.approx(10 * np.array([0.5, 1j, -1, -0.5j]))
    assert pulse.amplitude == pytest.approx(pypulseq_block(path).rf.signal)


def test_a_pulse_has_as_many_phases_as_magnitudes(tmp_path):
    text = FILES["1.5.0"].replace("1 10 2 3 0", "1 10 2 6 0") + "\nshape_id 6\nnum_samples 1\n0.25\n"
    refused(tmp_path, text, "RF pulse 1 has 4 magnitudes and 1 phases")


def test_the_stored_edges_of_sampled_gradients_are_played(tmp_path):
    # from 800 Hz/m at 0 to 0 at 5 us, though the first samples, 0 and 1000 Hz/m, go on to -500 Hz/m
    plain, played = (
        read(tmp_path, FILES["1.5.0"].replace("2 1000 0 0", edges)) for edges in ("2 1000 0 0", "2 1000 800 -200")
    )
    assert played.k_adc[:, :, 0] == pytest.approx(plain.k_adc[:, :, 0] + 800 * 5e-6 / 2, abs=1e-15)
    assert [(j.block, j.before, j.after) for j in played.jumps] == [
        (2, 0, 800),
        (2, -200, 0),
        (4, 0, 800),
        (4, -200, 0),
    ]
    slopes = np.concatenate([slope[:, 0] for *_, slope in played.pieces()])
    assert slopes.min() == pytest.approx(-800 / 5e-6)  # and no other line of x is as steep


@pytest.mark.parametrize(
    ("edges", "sentence"),
    [
        ("5 0", r"gradient 3 stores 5 Hz/m as its first value, and 0 Hz/m in its shape; readers play either"),
        ("0 -5", r"gradient 3 stores -5 Hz/m as its last value, and 0 Hz/m in its shape"),
        ("0.007 -0.007", None),
    ],
)
def test_the_stored_edges_of_other_gradients_are_those_of_the_shape(tmp_path, edges, sentence):
    text = FILES["1.5.0"].replace("3 400 0 0", f"3 400 {edges}")  # its peak is 400 Hz/m, of which 2e-5 are rounding
    if sentence:
        refused(tmp_path, text, sentence)
    else:
        np.testing.assert_array_equal(read(tmp_path, text).k_adc, read(tmp_path, FILES["1.5.0"]).k_adc)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("1 10 2 3 0 2 3", "1 10 2 3 0 2 -3", "after -3e-06 s"),
        ("2 1000 0 0 1 0 0", "2 1000 0 0 1 0 -10", "gradient 2 starts before its block"),
        ("3 400 0 0 5 4 0", "3 400 0 0 5 4 -10", "gradient 3 starts before its block"),
        ("1 1e5 10 10 10 0", "1 1e5 10 10 10 -10", "gradient 1 starts before its block"),
        ("1 10 2000 20", "1 10 2000 -20", "after -2e-05 s"),
    ],
)
def test_delays_are_not_negative(tmp_path, old, new, sentence):
    assert old in FILES["1.5.0"]
    refused(tmp_path, FILES["1.5.0"].replace(old, new), sentence)


# --- signatures ---


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256", "sha512"])
def test_a_signature_may_be_any_common_hash(tmp_path, kind):
    body = FILES["1.5.0"].encode()
    digest = hashlib.new(kind, body).hexdigest()
    for written in (digest, digest.upper()):
        content = body + f"\n[SIGNATURE]\nType {kind}\nHash {written}\n".encode()
        assert player.read(write(tmp_path, content)).md5 == digest
        with pytest.raises(InputError, match="does not fit its signature"):
            player.read(write(tmp_path, content.replace(b"by hand", b"by foot")))


def test_signatures_of_unknown_types_and_two_hashes_are_refused(tmp_path):
    body = FILES["1.5.0"].encode()
    md5, sha1 = (hashlib.new(kind, body).hexdigest() for kind in ("md5", "sha1"))
    for lines, sentence in (
        (f"Type crc32\nHash {md5}", "of the type 'crc32'; those that can be verified are md5, sha1"),
        (f"Type sha1\nHash {md5}", "does not fit"),
        (f"Type md5\nHash {sha1}", "does not fit"),
        (f"Type md5\nHash {md5}\nHash {sha1}", "goes on after its signature"),
        (f"Type md5\nType sha1\nHash {md5}", "goes on after its signature"),
        (f"Hash {md5}\n1 9e9 10 10 10 0", "goes on after its signature"),
    ):
        with pytest.raises(InputError, match=sentence):
            player.read(write(tmp_path, body + f"\n[SIGNATURE]\n{lines}\n".encode()), signed=False)
