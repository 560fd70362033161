"""Extensions, oversampled gradients and close vertices against closed forms, rotation matrices and pypulseq."""

import math
from collections import Counter

import foreign
import numpy as np
import pypulseq as pp
import pytest
from test_player import signed, write

from trajdesign.errors import InputError
from trajdesign.pulseq.file_rules import inspect
from trajdesign.pulseq.reader import player
from trajdesign.scanner import Scanner
from trajdesign.units import GAMMA

START = """[VERSION]
major 1
minor 5
revision 1

[DEFINITIONS]
AdcRasterTime 1e-07
BlockDurationRaster 1e-05
GradientRasterTime 1e-05
RadiofrequencyRasterTime 1e-06
"""

#: One of each kind of gradient, of different delays, beside a slice gradient that a pulse cuts in its middle.
EVENTS = {
    "RF": "1 250 1 6 0 50 100 0 0 0 0 e",
    "GRADIENTS": "1 40000 0 0 2 3 20\n2 30000 10000 -20000 4 0 40\n3 30000 0 0 5 -1 0",
    "TRAP": "4 50000 100 100 100 0\n5 -40000 30 100 40 50",
    "ADC": "1 50 4000 0 0 0 0 0 0",
    "SHAPES": "\n".join(
        f"shape_id {i}\nnum_samples {len(values.split())}\n" + values.replace(" ", "\n")
        for i, values in enumerate(
            [
                " ".join(100 * ["1"]),
                "0 1 -0.5 0",
                "0 3 7.5 12",
                "0.2 0.9 1 0.1 -0.8 -0.3 0.5 -0.5 -0.7",
                "0.1 0.4 0.5 0.7 1 0.8 0.5",
                " ".join(100 * ["0"]),
            ],
            1,
        )
    ),
}


def content(blocks, extensions="", **events):
    sections = {"BLOCKS": blocks, **EVENTS, **events}
    text = START + "".join(f"\n[{name}]\n{lines}\n" for name, lines in sections.items())
    return signed(text.replace("\n[SHAPES]", f"\n{extensions}\n\n[SHAPES]"))


def quaternion(axis, degrees):
    half = math.radians(degrees) / 2
    return np.array([math.cos(half), *(math.sin(half) * np.array(axis) / np.linalg.norm(axis))])


def matrix(axis, degrees):
    """Return a rotation by Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(degrees)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def rotations(*quaternions):
    lists = "\n".join(f"{i + 1} 1 {i + 1} 0" for i in range(len(quaternions)))
    rows = "\n".join(f"{i + 1} " + " ".join(f"{v:.17g}" for v in q) for i, q in enumerate(quaternions))
    return f"[EXTENSIONS]\n{lists}\n\nextension ROTATIONS 1\n{rows}\n"


def checks(path, **scanner):
    return {check.name: check for check in inspect(player.read(path), Scanner(**scanner))}


# --- rotations ---


@pytest.mark.parametrize(("axis", "degrees"), [((0, 0, 1), 90), ((1, 2, 2), 30), ((-1, 0.5, 3), 200)])
def test_a_turned_block_plays_the_matrix_times_its_gradients(tmp_path, axis, degrees):
    blocks = "1 30 1 0 0 4 0 {0}\n2 30 0 5 1 2 1 {0}\n3 30 0 3 0 0 1 {0}\n4 30 0 0 0 5 1 0"
    plain = player.read(write(tmp_path, content(blocks.format(0))))
    turned = player.read(write(tmp_path, content(blocks.format(1), rotations(quaternion(axis, degrees)))))
    wanted = plain.k_adc @ matrix(axis, degrees).T
    k = turned.k_adc
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(k[:2], wanted[:2], rtol=0, atol=1e-12 * scale)
    # the last block is not turned, and goes on from where the others ended
    np.testing.assert_allclose(k[2] - k[2, :1], plain.k_adc[2] - plain.k_adc[2, :1], rtol=0, atol=1e-12 * scale)
    # where two axes jump, both do
    jumps = {j.time: [j.after - j.before for j in turned.jumps if j.time == j.time] for j in turned.jumps}
    assert len(jumps) == len({j.time for j in plain.jumps}) == 2
    vectors = [
        {
            time: sum((j.after - j.before) * np.eye(3)[j.axis] for j in played.jumps if abs(j.time - time) < 1e-9)
            for time in (0.34e-3, 0.43e-3)
        }
        for played in (plain, turned)
    ]
    for time, before in vectors[0].items():
        np.testing.assert_allclose(vectors[1][time], matrix(axis, degrees) @ before, rtol=0, atol=1e-6)
    assert turned.extremes(1.0)[0] == pytest.approx(plain.extremes(1.0)[0], rel=1e-9)


def test_the_limits_are_those_of_what_is_played(tmp_path):
    blocks = "1 30 0 4 0 0 0 1"
    played = player.read(write(tmp_path, content(blocks, rotations(quaternion((0, 0, 1), 45)))))
    assert played.extremes(1.0, "axis") == pytest.approx((50000 / math.sqrt(2), 5e8 / math.sqrt(2)), rel=1e-12)
    assert played.extremes(1.0) == pytest.approx((50000, 5e8), rel=1e-12)
    assert [len(t) for t, _ in played.waveforms] == [4, 4, 0]
    assert played.sampled(1e-5, 1.0)[1, 15] == pytest.approx(50000 / math.sqrt(2))


def test_a_gradient_joins_across_blocks_of_one_rotation_alone(tmp_path):
    ramps = {"GRADIENTS": "1 50000 0 50000 2 3 0\n2 50000 50000 0 4 5 0"}
    shapes = "\n".join(
        f"shape_id {i}\nnum_samples 2\n{a}\n{b}" for i, (a, b) in enumerate(((0, 1), (0, 10), (1, 0), (0, 10)), 2)
    )
    half, third = quaternion((0, 0, 1), 90), quaternion((1, 1, 1), 77)
    for second, n_jumps in ((1, 0), (2, 3)):
        blocks = f"1 10 0 1 0 0 0 1\n2 10 0 2 0 0 0 {second}"
        path = write(tmp_path, content(blocks, rotations(third, half), SHAPES=shapes, RF="", ADC="", **ramps))
        jumps = player.read(path).jumps
        assert len(jumps) == n_jumps
    before, after = matrix((1, 1, 1), 77)[:, 0] * 50000, [0, 50000, 0]
    np.testing.assert_allclose([[j.before, j.after] for j in jumps], np.stack([before, after], 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("degrees", [90, 180, 1e-5])
def test_rounding_of_a_rotation_is_no_jump(tmp_path, degrees):
    ramps = {"GRADIENTS": "1 50000 0 50000 2 3 0\n2 50000 50000 0 4 5 0\n6 -50000 -50000 0 4 5 0\n7 5 0 5 2 3 0"}
    shapes = "\n".join(
        f"shape_id {i}\nnum_samples 2\n{a}\n{b}" for i, (a, b) in enumerate(((0, 1), (0, 10), (1, 0), (0, 10)), 2)
    )
    after = {90: "0 2 0", 180: "6 0 0", 1e-5: "2 0 0"}[degrees]
    turned = rotations(quaternion((0, 0, 1), degrees))
    for first, n_jumps in (("1 0 0", 0), ("1 0 7", 1)):  # z keeps the 5 Hz/m with which it ends, a part of 1e-4
        blocks = f"1 10 0 {first} 0 1\n2 10 0 {after} 0 0"
        path = write(tmp_path, content(blocks, turned, SHAPES=shapes, RF="", ADC="", **ramps))
        assert len(player.read(path).jumps) == n_jumps


def test_rotations_are_those_of_pypulseq(tmp_path):
    # pypulseq turns gradients before it writes them; the format's extension says the same
    system, angles = foreign.SYSTEM, (0.0, 0.7, 1.9)
    rf, gz, _ = pp.make_sinc_pulse(
        0.5, duration=1e-3, slice_thickness=5e-3, delay=1e-4, system=system, return_gz=True, use="excitation"
    )
    gx = pp.make_trapezoid("x", area=1000, duration=2e-3, system=system)
    gy = pp.make_trapezoid("y", area=-400, duration=1.5e-3, delay=3e-4, system=system)
    adc = pp.make_adc(100, duration=1.6e-3, delay=2e-4, system=system)
    turned, named = foreign.fresh(), foreign.fresh()
    for angle in angles:
        turned.add_block(rf, gz)
        turned.add_block(*pp.rotate(gx, gy, angle=angle, axis="z", system=system), adc)
        named.add_block(rf, gz)
        named.add_block(gx, gy, adc)
    path = foreign.written(named, tmp_path / "x.seq")
    text = path.read_text().partition("\n[SIGNATURE]")[0]
    lines = text.split("\n")
    first = lines.index("[BLOCKS]")
    for i in range(len(angles)):
        lines[first + 2 + 2 * i] = lines[first + 2 + 2 * i][:-1] + str(i + 1)
    text = "\n".join(lines).replace("minor 5\nrevision 0", "minor 5\nrevision 1")
    text = text.replace("[SHAPES]", rotations(*(quaternion((0, 0, 1), math.degrees(a)) for a in angles)) + "[SHAPES]")
    played = player.read(write(tmp_path, signed(text)))
    k = turned.calculate_kspace()[0].T
    assert np.abs(np.concatenate(played.k) - k).max() < 2e-6 * np.abs(k).max()  # files keep six digits
    assert np.abs(k[:, :2]).max() > 1 / foreign.FOV


def test_a_rotation_of_an_old_file_is_refused(tmp_path):
    text = content("1 30 0 0 0 4 0 1", rotations([1, 0, 0, 0]), RF="", GRADIENTS="", ADC="").partition(b"\n[SIGN")[0]
    old = text.decode().replace("minor 5\nrevision 1", "minor 4\nrevision 1")
    with pytest.raises(InputError, match=r"ROTATIONS is none of version 1\.4\.1"):
        player.read(write(tmp_path, signed(old)))


# --- other extensions ---


def test_soft_delays_last_as_long_as_they_are_stored(tmp_path):
    sequence = foreign.fresh()
    adc = pp.make_adc(4, dwell=1e-5, delay=1e-4, system=foreign.SYSTEM)
    for duration in (5e-3, 7e-3):
        sequence.add_block(pp.make_soft_delay("TE_1", default_duration=duration))
        sequence.add_block(adc)
    sequence.add_block(pp.make_soft_delay("TR", offset=-1e-3, factor=2.0, default_duration=2e-3))
    path = foreign.written(sequence, tmp_path / "x.seq")
    played = player.read(path)
    assert Counter(delay.hint for delay in played.soft_delays) == {"TE_1": 2, "TR": 1}
    assert played.duration == pytest.approx(sequence.duration()[0], abs=1e-12)
    assert played.adcs[1].times[0] == pytest.approx(sequence.adc_times()[0][4], abs=1e-12)
    check = checks(path)["soft delays"]
    assert (check.value, check.verdict) == (3, "reported")
    assert check.where == "TE_1, TR, played as long as the file stores them"


def test_shims_weigh_the_pulse_of_each_channel(tmp_path):
    shims = "[EXTENSIONS]\n1 7 1 0\n\nextension RF_SHIMS 7\n1 3 0.5 0 1.5 0.25 1 0.5\n"
    path = write(tmp_path, content("1 30 1 0 0 0 0 1\n2 30 1 0 0 0 0 0", shims))
    (_, shimmed), (_, plain) = player.read(path).pulses
    assert (shimmed.peak, plain.peak) == pytest.approx((1.5 * 250, 250))
    assert (shimmed.energy, plain.energy) == pytest.approx((1.5**2 * 250**2 * 1e-4, 250**2 * 1e-4))
    assert shimmed.envelope is plain.envelope
    found = checks(path, nucleus="19F")
    assert found["B1 peak"].value == pytest.approx(1.5 * 250 / GAMMA["19F"])
    assert (found["RF shims"].value, found["RF shims"].verdict) == (1, "reported")
    with pytest.raises(InputError, match="3 channels have 4 numbers"):
        player.read(write(tmp_path, content("1 30 1 0 0 0 0 1", shims.replace(" 1 0.5\n", "\n"))))


def test_what_a_file_does_not_require_may_be_unknown(tmp_path):
    future = "[EXTENSIONS]\n1 3 1 2\n2 2 1 0\n\nextension LABELSET 2\n1 7 LIN\n\nextension FUTURE 3\n1 what ever 5\n"
    path = write(tmp_path, content("1 30 1 0 0 4 0 0\n2 30 0 5 0 0 1 1", future))
    played = player.read(path)
    assert (played.ignored, played.labels["LIN"].tolist()) == (("FUTURE",), [7])
    check = checks(path)["unknown extensions"]
    assert (check.value, check.verdict, check.where) == (1, "warning", "FUTURE")
    assert player.read(write(tmp_path, content("1 30 1 0 0 4 0 0", future))).ignored == ()
    required = (
        content("1 30 1 0 0 4 0 0", future)
        .partition(b"\n[SIGN")[0]
        .replace(b"[DEFINITIONS]", b"[DEFINITIONS]\nRequiredExtensions ROTATIONS FUTURE")
    )
    with pytest.raises(InputError, match="FUTURE may change gradients"):
        player.read(write(tmp_path, signed(required.decode())))


# --- gradients ---


def test_an_oversampled_gradient_has_its_samples_on_edges_and_centres(tmp_path):
    # 7 samples, 5 us apart, between the stored ends: 40 us; each ADC sample on a vertex or between two
    path = write(tmp_path, content("1 30 0 3 0 0 1 0", ADC="1 20 2000 0 0 0 0 0 0"))
    played = player.read(path)
    t, g = played.waveforms[0]
    values = 30000 * np.array([0, 0.1, 0.4, 0.5, 0.7, 1, 0.8, 0.5, 0])
    assert t == pytest.approx(np.arange(9) * 5e-6)
    assert g == pytest.approx(values)
    times = (np.arange(20) + 0.5) * 2e-6
    areas = np.append(0, np.cumsum(5e-6 * (values[1:] + values[:-1]) / 2))
    i = np.floor(times / 5e-6).astype(int)
    u = times - i * 5e-6
    wanted = areas[i] + u * values[i] + u**2 / 2 * np.diff(values)[i] / 5e-6
    np.testing.assert_allclose(played.k_adc[0, :, 0], wanted, rtol=1e-12)
    assert played.jumps == ()
    assert played.extremes(1.0)[1] == pytest.approx(np.abs(np.diff(values)).max() / 5e-6)
    assert checks(path)["gradient corner off its raster"].ok


def test_an_oversampled_gradient_is_that_of_pypulseq(tmp_path):
    system, n = foreign.SYSTEM, 199
    waveform = 3e5 * np.sin(np.pi * np.arange(1, n + 1) / (n + 1)) ** 2
    gx = pp.make_arbitrary_grad("x", waveform, first=0, last=0, oversampling=True, system=system)
    sequence = foreign.fresh()
    sequence.add_block(gx, pp.make_adc(90, dwell=1e-5, delay=5e-5, system=system))
    sequence.write(str(tmp_path / "x.seq"), remove_duplicates=False, check_timing=False)
    played = player.read(tmp_path / "x.seq")
    k = sequence.calculate_kspace()[0].T
    # pypulseq leaves out what leads from the stored start to the first sample
    missing = np.array([waveform[0] * 5e-6 / 2, 0, 0])
    assert np.abs(played.k_adc[0] - missing - k).max() < 1e-6 / foreign.FOV
    assert played.duration == pytest.approx((n + 1) / 2 * 1e-5)


def spikes(seed):
    """Return three gradients whose vertices are less than 0.1 ns away from the raster and from one another."""
    rng = np.random.default_rng(seed)
    rows, shapes = [], []
    for axis in range(3):
        places = np.sort(
            np.concatenate([at + rng.uniform(-0.9e-5, 0.9e-5, 1 + int(rng.integers(2))) for at in (2, 5, 9)])
        )
        places = places[np.append(True, np.diff(places) > 1.05e-5)]
        times, values = [0, *places, 12], [0, *rng.uniform(-1, 1, len(places)), 0]
        for i, numbers in enumerate((values, times)):
            lines = "\n".join(f"{v:.12g}" for v in numbers)
            shapes.append(f"shape_id {10 + 2 * axis + i}\nnum_samples {len(numbers)}\n{lines}")
        rows.append(f"{axis + 1} 1e6 0 0 {10 + 2 * axis} {11 + 2 * axis} 0")
    return "\n".join(rows), "\n".join(shapes)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("extension", ["", rotations(quaternion((1, 2, 2), 30))])
def test_no_vertex_hides_behind_one_of_another_axis(tmp_path, seed, extension):
    rows, shapes = spikes(seed)
    plays = f"1 30 0 0 0 0 0 0\n2 15 0 1 2 3 0 {int(bool(extension))}"
    path = write(tmp_path, content(plays, extension, GRADIENTS=rows, SHAPES=shapes, RF="", ADC=""))
    played = player.read(path)
    pieces = list(played.pieces())
    if not extension:
        largest = np.abs(np.concatenate([start for _, start, _, _ in pieces])).max(axis=0)
        assert largest == pytest.approx([np.abs(g).max() for _, g in played.waveforms])
        slopes = [np.abs(np.diff(g) / np.diff(t)).max() for t, g in played.waveforms]
        assert played.extremes(1.0, "axis")[1] == pytest.approx(max(slopes), rel=1e-6)
    unturned = player.read(write(tmp_path, content(plays[:-1] + "0", GRADIENTS=rows, SHAPES=shapes, RF="", ADC="")))
    peaks = [np.abs(g).max() for _, g in unturned.waveforms]
    assert played.extremes(1.0)[0] >= 0.9999 * max(peaks)


def test_a_spike_between_close_vertices_is_seen(tmp_path):
    # 0.18 ns up, within 0.09 ns of a vertex of x on both sides
    shapes = "\n".join(
        f"shape_id {i}\nnum_samples {len(v.split())}\n" + v.replace(" ", "\n")
        for i, v in enumerate(("0 0 1 0", "0 9.999991 10.000009 20", "0 0.001 0", "0 10 20"), 1)
    )
    rows = "1 4e9 0 0 1 2 0\n2 40000 0 0 3 4 0"
    for plays in ("1 30 0 2 1 0 0 0", "1 30 0 1 2 0 0 0"):
        path = write(tmp_path, content(plays, GRADIENTS=rows, SHAPES=shapes, RF="", ADC=""))
        gradient, slew = player.read(path).extremes(1.0)
        assert (gradient, slew) == pytest.approx((4e9, 4e9 / 1.8e-10), rel=1e-4)
        assert checks(path)["gradient vector"].verdict == "broken"
        assert checks(path)["slew rate vector"].verdict == "broken"


def test_ramps_that_follow_one_another_do_not_add_up(tmp_path):
    # x falls until y rises; how their times are rounded leaves them an instant together
    traps = "\n".join(f"{i} 1e5 {rise} 0 {rise} {delay}" for i, rise, delay in ((1, 30, 0), (2, 70, 60), (3, 90, 200)))
    plays = "\n".join(f"{i + 1} 38 0 1 2 3 0 0" for i in range(50))
    played = player.read(write(tmp_path, content(plays, TRAP=traps, GRADIENTS="", RF="", ADC="", SHAPES="")))
    assert played.extremes(1.0)[1] == pytest.approx(1e5 / 30e-6, rel=1e-9)


# --- pulses, and k-space that nobody encodes ---


def test_pulses_share_their_shape(tmp_path):
    # as of a saturation at many amplitudes, frequencies and phases: together they would have 5 10^7 samples
    rf = "\n".join(f"{i} {i} 1 2 0 2 100 0 0 {10 * i} {0.01 * i} s" for i in range(1, 101))
    plays = "\n".join(f"{i} 51000 {i} 0 0 0 0 0" for i in range(1, 101))
    shape = "shape_id 1\nnum_samples 500000\n1\n0\n0\n499997\n\nshape_id 2\nnum_samples 500000\n0\n0\n499998"
    played = player.read(write(tmp_path, content(plays, RF=rf, GRADIENTS="", TRAP="", ADC="", SHAPES=shape)))
    pulses = [pulse for _, pulse in played.pulses]
    assert len({id(pulse.envelope) for pulse in pulses}) == 1
    assert [(p.peak, p.frequency) for p in pulses] == [(i, 10 * i) for i in range(1, 101)]
    assert [p.energy for p in pulses] == pytest.approx([i**2 / 2 for i in range(1, 101)])


def test_spectroscopy_has_no_extent(tmp_path):
    fov = START + "FOV 0.1 0.1 0.1\n"
    for plays, verdict in (
        ("1 30 1 0 0 4 0 0\n2 30 0 0 0 0 1 0", "warning"),  # nothing plays while the ADC samples
        ("1 30 1 0 0 4 0 0\n2 30 0 4 4 0 0 0\n3 30 0 0 0 0 1 0", "warning"),
        ("1 30 1 0 0 4 0 0\n2 30 0 4 0 0 1 0", "broken"),
    ):
        path = write(tmp_path, signed(content(plays).partition(b"\n[SIGN")[0].decode().replace(START, fov)))
        check = checks(path)["k-space extent"]
        assert (check.verdict, check.unit) == (verdict, "1/FOV")
        assert check.value < 1
