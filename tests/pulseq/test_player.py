"""The reader against closed forms on files written by hand, against pypulseq, and against damage."""

import hashlib

import foreign
import numpy as np
import pypulseq as pp
import pytest

from trajdesign.errors import InputError
from trajdesign.pulseq.reader import player

_DEFINITIONS = """[DEFINITIONS]
AdcRasterTime 1e-07
BlockDurationRaster 1e-05
GradientRasterTime 1e-05
RadiofrequencyRasterTime 1e-06
Name by hand
"""

# shape 1 is [0, 1, 1, 1, 1, 1, 0, 0] in run-length code; it has fewer lines than samples
_SHAPES = """[SHAPES]

shape_id 1
num_samples 8
0
1
0
0
2
-1
0

shape_id 2
num_samples 4
0.5
1
1
0.5

shape_id 3
num_samples 4
0
0
0
0

shape_id 4
num_samples 3
0
2
5
"""

FILES = {
    "1.5.0": f"""# Pulseq sequence file

[VERSION]
major 1
minor 5
revision 0

{_DEFINITIONS}
[BLOCKS]
1 4 1 0 0 1 0 0
2 8 0 2 3 0 1 1
3 5 1 0 0 0 0 0
4 8 0 2 0 0 1 0

[RF]
1 10 2 3 0 2 3 0 0 0 0 e

[GRADIENTS]
2 1000 0 0 1 0 0
3 400 0 0 5 4 0

[TRAP]
 1 1e5 10 10 10 0

[ADC]
1 10 2000 20 0 0 0 0 0

[EXTENSIONS]
1 1 1 0

extension LABELSET 1
1 0 LIN

{_SHAPES}
shape_id 5
num_samples 3
0
1
0
""",
    "1.4.1": f"""[VERSION]
major 1
minor 4
revision 1

{_DEFINITIONS}
[BLOCKS]
1 4 1 0 0 1 0 0
2 8 0 2 3 0 1 0
3 5 1 0 0 0 0 0
4 8 0 2 0 0 1 0

[RF]
1 10 2 3 0 3 0 0

[GRADIENTS]
2 1000 1 0 0
3 400 5 4 0

[TRAP]
 1 1e5 10 10 10 0

[ADC]
1 10 2000 20 0 0

{_SHAPES}
shape_id 5
num_samples 3
0
1
0
""",
}


def signed(text):
    body = text.encode()
    return body + b"\n[SIGNATURE]\nType md5\nHash " + hashlib.md5(body).hexdigest().encode() + b"\n"


def write(tmp_path, content):
    path = tmp_path / "x.seq"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("version", FILES)
def test_closed_form(tmp_path, version):
    played = player.read(write(tmp_path, signed(FILES[version])))
    assert played.version == version
    assert played.definitions["Name"] == "by hand"
    assert played.duration == pytest.approx(250e-6)
    # the pulse: delay 3 us and centre 2 us in block 1, then the same in block 3, 120 us later
    assert played.excitations == pytest.approx([5e-6, 125e-6])
    t = 20e-6 + (np.arange(10) + 0.5) * 2e-6
    assert played.adc_times == pytest.approx(np.stack([40e-6 + t, 170e-6 + t]))
    # gx is 0 up to 5 us, reaches 1 kHz/m at 15 us and stays there until 55 us
    x = 1000 * (5e-6 + t - 15e-6)
    # gy rises to 400 Hz/m at 20 us and falls to 0 at 50 us
    y = 400 * (10e-6 + (t - 20e-6) - (t - 20e-6) ** 2 / 60e-6)
    # gz: a trapezoid of 1e5 Hz/m, of which the first 5 us of the ramp precede the pulse's centre
    z = 1e5 * 20e-6 - 1e5 / 10e-6 * (5e-6) ** 2 / 2
    k = np.stack([x, y, np.full(10, z)], axis=1)
    assert played.k_adc[0] == pytest.approx(k, rel=1e-12, abs=1e-15)
    assert played.k_adc[1, :, 0] == pytest.approx(x, rel=1e-12)
    assert not played.k_adc[1, :, 1:].any()
    assert played.edge == 0


def test_limits_are_those_of_all_axes_together(tmp_path):
    played = player.read(write(tmp_path, signed(FILES["1.5.0"])))
    gradient, slew = played.extremes(gamma=1.0)
    assert gradient == pytest.approx(1e5)
    assert slew == pytest.approx(1e10)
    without_slice = signed(FILES["1.5.0"].replace("1 4 1 0 0 1 0 0", "1 4 1 0 0 0 0 0"))
    played = player.read(write(tmp_path, without_slice))
    assert played.extremes(1.0)[0] == pytest.approx(np.hypot(1000, 400))
    assert played.extremes(1.0, "axis")[0] == pytest.approx(1000)
    assert played.extremes(1.0)[1] == pytest.approx(np.hypot(1000 / 10e-6, 400 / 20e-6))


@pytest.mark.parametrize("version", FILES)
def test_a_joint_that_is_not_zero_is_seen(tmp_path, version):
    # the last sample stays up, so the event ends above 0 (stored in one version, extrapolated in the other)
    text = FILES[version].replace("0\n0\n2\n-1\n0\n", "0\n0\n4\n").replace("2 1000 0 0 1", "2 1000 0 1000 1")
    played = player.read(write(tmp_path, signed(text)))
    assert played.edge == pytest.approx(1000)
    assert played.extremes(1.0)[1] == np.inf


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("minor 5", "minor 6", "version is 1.6.0"),
        ("num_samples 8", "num_samples 9", "8 samples instead of 9"),
        ("num_samples 8", "num_samples 999999999999", "announces"),
        ("0\n1\n0\n0\n2\n-1", "0\n1\n0\n0\n1e9\n-1", "run length"),
        ("0\n1\n0\n0\n2\n-1", "0\n1\n0\n0\n2\nnan", r"line 49, in \[SHAPES\], holds nan, which is no finite number"),
        ("2 1000 0 0 1 0 0", "2 1000 0 0 9 0 0", r"gradient 2 has the shape 9, which \[SHAPES\] lacks"),
        ("2 1000 0 0 1 0 0", "2 inf 0 0 1 0 0", r"line 25, in \[GRADIENTS\], holds inf, which is no finite number"),
        ("2 1000 0 0 1 0 0", "2 1000 0 0 1 0", "columns"),
        ("2 1000 0 0 1 0 0", "2 1000 0 0 1 -1 0", "oversampled by 2 and has 8 samples; their number must be odd"),
        ("2 1000 0 0 1 0 0", "2 1000 0 0 1 -2 0", "the shape -2 of times"),
        ("2 8 0 2 3", "2 7 0 2 3", "lasts longer"),
        ("2 8 0 2 3", "2 -8 0 2 3", "lasts"),
        ("1 10 2000 20", "1 10 2000 70", "lasts longer"),
        ("1 10 2000 20", "1 0 2000 20", "0 samples"),
        ("0 0 0 0 e", "0 0 0 0 x", "the use 'x'"),
        ("1 1e5 10 10 10 0", "1 1e5 0 0 0 0", "no duration"),
        ("1 1e5 10 10 10 0", "1 1e5 1e-9 10 10 0", "runs backwards"),
        ("2 8 0 2 3", "2 99999999999 0 2 3", "lasts at most"),
        ("1 10 2 3 0 2 3", "1 10 2 3 0 2 37", "RF pulse 1 lasts longer"),
        ("1 10 2 3 0 2 3", "1 10 2 3 0 5 3", "has its centre"),
        ("1 10 2 3 0", "1 10 2 3 4", "4 samples at 3 times"),
        (
            "extension LABELSET 1",
            "extension DELAYS 1",
            "line 38, in extension DELAYS 1, has 3 columns; version 1.5.0 has 5",
        ),
        ("extension LABELSET 1", "extension FUTURE 1", "FUTURE may change"),
        ("Name by hand", "RequiredExtensions ROTATIONS FUTURE", "FUTURE may change"),
        ("Name by hand", "GradientRasterTime 2e-05", "both"),
        ("AdcRasterTime 1e-07\nBlockDurationRaster 1e-05", "", "BlockDurationRaster is missing"),
        (
            "1 0 LIN",
            "1 0 LIN\n\nextension LABELINC 1\n1 0 LIN",
            "LABELINC or the number 1 of an extension occurs twice",
        ),
        (
            "1 0 LIN",
            "1 0 LIN\n\nextension LABELSET 2\n1 0 LIN",
            "LABELSET or the number 1 of an extension occurs twice",
        ),
        ("1 0 LIN", "1 0 LIN\n\nextension  LABELSET  1\n1 0 LIN", "occurs twice"),
        ("1 0 LIN", "1 0 LIN\n1 1 LIN", "same id twice"),
        ("extension LABELSET 1", "extension LABELSET 2", "number 1, of which the file has no section"),
        ("[TRAP]\n", "[TRAP]\n2 1e5 10 10 10 0\n", r"gradient 2 is both in \[TRAP\] and in \[GRADIENTS\]"),
        ("shape_id 5", "shape_id 4", "shape 4 occurs twice"),
        ("[SHAPES]", "[SHAPES]\n7", "damaged"),
        ("1 1 1 0", "1 1 1 1", "comes back to 1"),
        ("1 1 1 0", "1 1 2 0", "a block uses 2 of the extension LABELSET, which lacks it"),
        ("1 0 LIN", "1 0.5 LIN", "a label cannot be 0.5"),
        ("1 0 LIN", "1 3e9 LIN", "32 bits"),
        ("1 0 LIN", "1 0", "line 38, in extension LABELSET 1, has 2 columns; version 1.5.0 has 3"),
        ("1 0 LIN", "1 0 LIN\nextension LABELSET 1", "occurs twice"),
        ("[TRAP]", "[TRAPS]", "unknown"),
        ("[TRAP]", "[RF]", "twice"),
        ("GradientRasterTime 1e-05", "GradientRasterTime 0", "GradientRasterTime is 0"),
        ("1 4 1 0 0 1 0 0", "2 4 1 0 0 1 0 0", "same id twice"),
    ],
)
def test_contradictions_are_refused_in_a_signed_file(tmp_path, old, new, match):
    text = FILES["1.5.0"]
    assert old in text
    with pytest.raises(InputError, match=match):
        player.read(write(tmp_path, signed(text.replace(old, new))))


def test_every_truncation_is_refused(tmp_path):
    content = signed(FILES["1.4.1"])
    for length in range(0, len(content) - 1, 13):
        with pytest.raises(InputError):
            player.read(write(tmp_path, content[:length]))


def test_every_flipped_bit_of_the_body_is_refused(tmp_path):
    content = signed(FILES["1.5.0"])
    rng = np.random.default_rng(1)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(content.index(b"\n[SIGNATURE]"))] ^= 1 << rng.integers(8)
        with pytest.raises(InputError):
            player.read(write(tmp_path, bytes(damaged)))


def test_damage_under_a_valid_signature_is_an_error_or_a_number(tmp_path):
    text = FILES["1.5.0"]
    rng = np.random.default_rng(2)
    characters = list("0123456789.-e [x\n")
    for _ in range(400):
        at = rng.integers(len(text))
        damaged = text[:at] + rng.choice(characters) + text[at + rng.integers(4) :]
        try:
            played = player.read(write(tmp_path, signed(damaged)))
        except InputError:
            continue
        assert np.isfinite(played.k_adc).all()


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        player.read(tmp_path / "none.seq")
    with pytest.raises(InputError, match="no signature"):
        player.read(write(tmp_path, b""))
    with pytest.raises(InputError, match="no signature"):
        player.read(write(tmp_path, bytes(range(256)) * 10))


@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
@pytest.mark.parametrize("kind", foreign.KINDS)
def test_k_is_that_of_pypulseq(tmp_path, kind, version):
    path = foreign.written(foreign.KINDS[kind](), tmp_path / "x.seq", version)
    played = player.read(path)
    theirs = pp.Sequence(foreign.SYSTEM)
    theirs.read(str(path), detect_rf_use=version == "1.4.1")
    k, _, excitations, _, times = theirs.calculate_kspace()
    assert np.concatenate([adc.times for adc in played.adcs]) == pytest.approx(times, abs=1e-12)
    assert played.excitations == pytest.approx(excitations, abs=1e-12)
    assert np.abs(np.concatenate(played.k) - k.T).max() < 1e-6 / foreign.FOV
    assert np.abs(k).max() > 1 / foreign.FOV
    assert played.jumps == ()
    assert played.duration == pytest.approx(theirs.duration()[0])


@pytest.mark.parametrize("kind", ["epi", "tse"])
def test_gradients_join_at_the_borders_of_blocks(tmp_path, kind):
    played = player.read(foreign.written(foreign.KINDS[kind](), tmp_path / "x.seq"))
    assert played.edge > 5e4
    gamma = foreign.SYSTEM.gamma
    gradient, slew = played.extremes(gamma, "axis")
    assert 0 < gradient <= foreign.SYSTEM.max_grad / gamma * 1.00001
    assert 0 < slew <= foreign.SYSTEM.max_slew / gamma * 1.00001


@pytest.mark.parametrize(("use", "expected"), [("r", -1), ("i", 1), ("s", 1), ("p", 1), ("o", 1), ("e", 0), ("u", 0)])
def test_what_a_pulse_does_to_k(tmp_path, use, expected):
    # block 3 plays a second pulse, of this use, after both gradients; the first readout is played again after it
    text = FILES["1.5.0"].replace("0 0 0 0 e\n", f"0 0 0 0 e\n2 10 2 3 0 2 3 0 0 0 0 {use}\n")
    played = player.read(write(tmp_path, signed(text.replace("3 5 1 0", "3 5 2 0"))))
    whole = np.array([1000 * 50e-6, 400 * 25e-6, 1e5 * 20e-6 - 1e5 / 10e-6 * (5e-6) ** 2 / 2])
    assert played.k_adc[1] == pytest.approx(expected * whole + played.k_adc[0] * [1, 0, 0], abs=1e-12)


def test_before_the_first_excitation_k_counts_from_the_start(tmp_path):
    played = player.read(write(tmp_path, signed(FILES["1.5.0"].replace("1 4 1 0 0 1", "1 4 0 0 0 1"))))
    assert played.k_adc[0, :, 2] == pytest.approx(1e5 * 20e-6)


@pytest.mark.parametrize("version", FILES)
def test_the_pulse(tmp_path, version):
    played = player.read(write(tmp_path, signed(FILES[version])))
    (_, pulse), _ = played.pulses
    assert (pulse.use, pulse.peak) == ("e", 10)
    assert (pulse.delay, pulse.centre, pulse.end) == pytest.approx((3e-6, 5e-6, 7e-6))
    assert pulse.energy == pytest.approx(100 * 2.5e-6)


@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
def test_a_block_pulse_has_the_energy_of_its_flip_angle(tmp_path, version):
    # and the fat saturation of 110 degrees, which a 1.4 file does not name, is known by its length and frequency
    played = player.read(foreign.written(foreign.spin_echo(), tmp_path / "x.seq", version))
    uses = [pulse.use for _, pulse in played.pulses[:4]]
    assert uses == (["i", "s", "e", "r"] if version == "1.5.0" else ["r", "s", "e", "r"])
    refocus = played.pulses[3][1]
    assert refocus.energy == pytest.approx(1000**2 * 0.5e-3)
    assert refocus.centre == pytest.approx(100e-6 + 0.25e-3)


def test_events_of_different_lengths_have_no_common_array(tmp_path):
    played = player.read(foreign.written(foreign.labelled(), tmp_path / "x.seq"))
    assert [len(adc.times) for adc in played.adcs] == [len(k) for k in played.k] == [40] + 8 * [foreign.N]
    for name in ("adc_times", "k_adc"):
        with pytest.raises(InputError, match="different numbers of samples: 16, 40"):
            getattr(played, name)


@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
@pytest.mark.parametrize("kind", foreign.KINDS)
def test_labels_are_those_of_pypulseq(tmp_path, kind, version):
    path = foreign.written(foreign.KINDS[kind](), tmp_path / "x.seq", version)
    theirs = pp.Sequence(foreign.SYSTEM)
    theirs.read(str(path))
    labels = theirs.evaluate_labels(evolution="adc")
    ours = player.read(path).labels
    assert {name: values.tolist() for name, values in ours.items()} == {k: v.tolist() for k, v in labels.items()}
    assert set(labels) == ({"NOISE", "LIN", "ECO"} if kind == "labelled" else set())


def test_labels_act_before_the_adc_of_their_block_and_last(tmp_path):
    sequence = foreign.fresh()
    adc = pp.make_adc(4, dwell=1e-5, delay=1e-5, system=foreign.SYSTEM)
    for labels in (
        [("INC", "SLC", 2)],
        [("SET", "LIN", 7), ("INC", "SLC", -1), ("SET", "REV", True)],
        [],
        [("INC", "LIN", 3), ("SET", "SLC", 0), ("SET", "REV", False)],
    ):
        sequence.add_block(adc, *(pp.make_label(name, kind, value) for kind, name, value in labels))
    sequence.add_block(pp.make_delay(1e-3), pp.make_label("PAR", "SET", 5))
    played = player.read(foreign.written(sequence, tmp_path / "x.seq"))
    assert {name: values.tolist() for name, values in played.labels.items()} == {
        "SLC": [2, 1, 1, 0],
        "LIN": [0, 7, 7, 10],
        "REV": [0, 1, 1, 0],
        "PAR": [0, 0, 0, 0],
    }


def test_what_is_set_comes_before_what_is_added(tmp_path):
    # in both orders of the list of block 2, which has an ADC event; block 4 has no labels
    added = FILES["1.5.0"].replace("1 0 LIN", "1 4 LIN\n\nextension LABELINC 2\n1 2 LIN")
    for rows in ("1 1 1 2\n2 2 1 0", "1 2 1 2\n2 1 1 0"):
        played = player.read(write(tmp_path, signed(added.replace("1 1 1 0", rows))))
        assert played.labels["LIN"].tolist() == [6, 6]


def test_a_signature_may_be_missing_but_not_wrong(tmp_path):
    text = FILES["1.5.0"]
    # a comment in place of the hash is no signature
    for content in (text.encode(), text.encode() + b"\n[SIGNATURE]\n# to be done\n"):
        unsigned = write(tmp_path, content)
        with pytest.raises(InputError, match="no signature"):
            player.read(unsigned)
        played = player.read(unsigned, signed=False)
        assert played.md5 == ""
        assert len(played.adcs) == 2
    for content in (
        signed(text).replace(b"by hand", b"by foot"),
        signed(text)[:-10],
        signed(text).replace(b"Type md5\n", b"[SIGNATURE]\n"),
        signed(text) + b"[TRAP]\n1 9e9 10 10 10 0\n",
        signed(text) + signed(text),
        signed(text) + b"\n[SIGNATURE]\n# to be done\n",
        text.encode() + b"\n[SIGNATURE]\nType md5\n",
        text.encode() + b"\n[SIGNATURE]\nHash\n",
    ):
        with pytest.raises(InputError):
            player.read(write(tmp_path, content), signed=False)


def test_a_signature_covers_lines_and_not_how_they_end(tmp_path):
    plain = signed(FILES["1.5.0"])
    windows = signed(FILES["1.5.0"].replace("\n", "\r\n"))
    md5 = [
        hashlib.md5(body).hexdigest()
        for body in (FILES["1.5.0"].encode(), FILES["1.5.0"].encode().replace(b"\n", b"\r\n"))
    ]
    wanted = player.read(write(tmp_path, plain))
    # as it was signed, as text mode of Windows writes what was signed before, and as other programs take it back
    for content, signature in (
        (plain, md5[0]),
        (plain.replace(b"\n", b"\r\n"), md5[0]),
        (windows, md5[1]),
        (windows.replace(b"\r\n", b"\n"), md5[1]),
    ):
        played = player.read(write(tmp_path, content))
        assert played.md5 == signature
        np.testing.assert_array_equal(played.k_adc, wanted.k_adc)
        with pytest.raises(InputError, match="does not fit its signature"):
            player.read(write(tmp_path, content.replace(b"by hand", b"by foot")))
        with pytest.raises(InputError, match=r"readers take differently|does not fit"):
            player.read(write(tmp_path, content.replace(b"# Pulseq", b"# \rPulseq")))


@pytest.mark.parametrize("version", ["1.2.0", "1.3.1", "1.6.0"])
@pytest.mark.parametrize("is_signed", [True, False])
def test_the_sentence_about_another_version_names_it(tmp_path, version, is_signed):
    _, minor, revision = version.split(".")
    text = f"[VERSION]\nmajor 1\nminor {minor}\nrevision {revision}\n\n[BLOCKS]\n1 1 0 0 0 0 0\n\n[DELAYS]\n1 20000\n"
    for demanded in (True, False):
        with pytest.raises(InputError, match=rf"the format version is {version}; this reader knows 1\.4\.0"):
            player.read(write(tmp_path, signed(text) if is_signed else text.encode()), signed=demanded)


@pytest.mark.parametrize(
    ("like", "version"), [("1.4.1", "1.4.0"), ("1.4.1", "1.4.2"), ("1.5.0", "1.5.1"), ("1.5.0", "1.5.2")]
)
def test_sister_versions(tmp_path, like, version):
    minor, revision = version.split(".")[1:]
    text = FILES[like].replace(f"minor {minor}\nrevision {like[-1]}", f"minor {minor}\nrevision {revision}")
    played, sister = (player.read(write(tmp_path, signed(t))) for t in (FILES[like], text))
    assert sister.version == version
    assert (sister.k_adc == played.k_adc).all()


@pytest.mark.parametrize("version", FILES)
def test_a_jump_is_found(tmp_path, version):
    text = FILES[version].replace("0\n0\n2\n-1\n0\n", "0\n0\n4\n").replace("2 1000 0 0 1", "2 1000 0 1000 1")
    played = player.read(write(tmp_path, signed(text)))
    assert [(j.block, j.axis, j.before, j.after) for j in played.jumps] == [(2, 0, 1000, 0), (4, 0, 1000, 0)]
    assert [j.time for j in played.jumps] == pytest.approx([120e-6, 250e-6])
    assert {j.is_stored for j in played.jumps} == {version == "1.5.0"}
    # nothing is played between the end of block 2 and the start of block 4
    assert played.k_adc[1, :, 0] == pytest.approx(player.read(write(tmp_path, signed(text))).k_adc[0, :, 0])
    assert not played.sampled(1e-5, 1.0)[0, 12:17].any()
    (_, _, end, _), *_ = played.pieces()
    assert end[:, 0].max() == pytest.approx(1000)


def test_ramps_may_be_missing_and_events_empty(tmp_path):
    played = player.read(write(tmp_path, signed(FILES["1.5.0"].replace("1 1e5 10 10 10 0", "1 1e5 0 10 10 0"))))
    assert [(j.block, j.axis, j.time, j.before, j.after) for j in played.jumps] == [(1, 2, 0.0, 0.0, 1e5)]
    played = player.read(write(tmp_path, signed(FILES["1.5.0"].replace("1 1e5 10 10 10 0", "1 0 0 0 0 0"))))
    assert len(played.waveforms[2][0]) == 0


def test_samples_at_raster_centres(tmp_path):
    played = player.read(write(tmp_path, signed(FILES["1.5.0"])))
    x, y, z = played.sampled(1e-5, gamma=2.0) * 2
    assert x == pytest.approx([*4 * [0], 0, *5 * [1000], 0, 0, *5 * [0], 0, *5 * [1000], 0, 0])
    assert y[4:12] == pytest.approx([100, 300, *(400 - 400 / 30 * np.array([5, 15, 25])), 0, 0, 0])
    assert z[:4] == pytest.approx([5e4, 1e5, 5e4, 0])
    assert played.sampled(1e-5, 2.0, 3, 11) * 2 == pytest.approx(np.stack([x, y, z])[:, 3:11])
    with pytest.raises(InputError, match="in parts"):
        played.sampled(1e-5, 2.0, 0, 10**9)


def test_damage_to_an_unsigned_file_is_an_error_or_a_number(tmp_path):
    text = FILES["1.4.1"]
    rng = np.random.default_rng(3)
    for _ in range(200):
        at = rng.integers(len(text))
        damaged = text[:at] + rng.choice(list("0123456789.-e [x\n")) + text[at + rng.integers(4) :]
        try:
            played = player.read(write(tmp_path, damaged.encode()), signed=False)
        except InputError:
            continue
        assert all(np.isfinite(k).all() for k in played.k)
        assert all(np.isfinite(v).all() for piece in played.pieces() for v in piece)
    for length in range(0, len(text), 7):
        try:
            player.read(write(tmp_path, text[:length].encode()), signed=False)
        except InputError:
            continue
