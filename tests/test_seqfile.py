"""The reader against closed forms on files written by hand, and against damage."""

import hashlib

import numpy as np
import pytest

from trajdesign import seqfile
from trajdesign.errors import InputError

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
    played = seqfile.read(write(tmp_path, signed(FILES[version])))
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
    played = seqfile.read(write(tmp_path, signed(FILES["1.5.0"])))
    gradient, slew = played.extremes(gamma=1.0)
    assert gradient == pytest.approx(1e5)
    assert slew == pytest.approx(1e10)
    without_slice = signed(FILES["1.5.0"].replace("1 4 1 0 0 1 0 0", "1 4 1 0 0 0 0 0"))
    played = seqfile.read(write(tmp_path, without_slice))
    assert played.extremes(1.0)[0] == pytest.approx(np.hypot(1000, 400))
    assert played.extremes(1.0, "axis")[0] == pytest.approx(1000)
    assert played.extremes(1.0)[1] == pytest.approx(np.hypot(1000 / 10e-6, 400 / 20e-6))


@pytest.mark.parametrize("version", FILES)
def test_a_joint_that_is_not_zero_is_seen(tmp_path, version):
    # the last sample stays up, so the event ends above 0 (stored in one version, extrapolated in the other)
    text = FILES[version].replace("0\n0\n2\n-1\n0\n", "0\n0\n4\n").replace("2 1000 0 0 1", "2 1000 0 1000 1")
    played = seqfile.read(write(tmp_path, signed(text)))
    assert played.edge == pytest.approx(1000)
    assert played.extremes(1.0)[1] == np.inf


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("minor 5", "minor 6", "version is 1.6.0"),
        ("num_samples 8", "num_samples 9", "8 samples instead of 9"),
        ("num_samples 8", "num_samples 999999999999", "announces"),
        ("0\n1\n0\n0\n2\n-1", "0\n1\n0\n0\n1e9\n-1", "run length"),
        ("0\n1\n0\n0\n2\n-1", "0\n1\n0\n0\n2\nnan", "nan is no finite number"),
        ("2 1000 0 0 1 0 0", "2 1000 0 0 9 0 0", "damaged: KeyError 9"),
        ("2 1000 0 0 1 0 0", "2 inf 0 0 1 0 0", "inf is no finite number"),
        ("2 1000 0 0 1 0 0", "2 1000 0 0 1 0", "columns"),
        ("2 1000 0 0 1 0 0", "2 1000 0 0 1 -1 0", "oversampled"),
        ("2 8 0 2 3", "2 7 0 2 3", "lasts longer"),
        ("2 8 0 2 3", "2 -8 0 2 3", "lasts"),
        ("1 10 2000 20", "1 10 2000 70", "lasts longer"),
        ("1 10 2000 20", "1 0 2000 20", "0 samples"),
        ("0 0 0 0 e", "0 0 0 0 r", "only excitations"),
        ("1 4 1 0 0 1", "1 4 0 0 0 1", "before the first excitation"),
        ("extension LABELSET 1", "extension ROTATIONS 1", "does not play"),
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
        seqfile.read(write(tmp_path, signed(text.replace(old, new))))


def test_every_truncation_is_refused(tmp_path):
    content = signed(FILES["1.4.1"])
    for length in range(0, len(content) - 1, 13):
        with pytest.raises(InputError):
            seqfile.read(write(tmp_path, content[:length]))


def test_every_flipped_bit_of_the_body_is_refused(tmp_path):
    content = signed(FILES["1.5.0"])
    rng = np.random.default_rng(1)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(content.index(b"\n[SIGNATURE]"))] ^= 1 << rng.integers(8)
        with pytest.raises(InputError):
            seqfile.read(write(tmp_path, bytes(damaged)))


def test_damage_under_a_valid_signature_is_an_error_or_a_number(tmp_path):
    text = FILES["1.5.0"]
    rng = np.random.default_rng(2)
    characters = list("0123456789.-e [x\n")
    for _ in range(400):
        at = rng.integers(len(text))
        damaged = text[:at] + rng.choice(characters) + text[at + rng.integers(4) :]
        try:
            played = seqfile.read(write(tmp_path, signed(damaged)))
        except InputError:
            continue
        assert np.isfinite(played.k_adc).all()


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        seqfile.read(tmp_path / "none.seq")
    with pytest.raises(InputError, match="no signature"):
        seqfile.read(write(tmp_path, b""))
    with pytest.raises(InputError, match="no signature"):
        seqfile.read(write(tmp_path, bytes(range(256)) * 10))
