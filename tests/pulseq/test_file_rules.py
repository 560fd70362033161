"""The check of whole files: good sequences are called good, planted faults by their names, numbers are pypulseq's."""

import re
from dataclasses import replace

import foreign
import numpy as np
import pypulseq as pp
import pytest

from trajdesign.errors import ConfigError, InputError
from trajdesign.pulseq import adc
from trajdesign.pulseq.checks import describe
from trajdesign.pulseq.file_rules import inspect
from trajdesign.pulseq.reader import player
from trajdesign.scanner import Scanner

SCANNER = Scanner(max_gradient=30e-3, max_slew=120, gamma=foreign.SYSTEM.gamma)


def checks(path, scanner=SCANNER, signed=True):
    return {check.name: check for check in inspect(player.read(path, signed=signed), scanner)}


def names(found, verdict):
    return {name for name, check in found.items() if check.verdict == verdict}


@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
@pytest.mark.parametrize("kind", foreign.KINDS)
def test_good_sequences_are_called_good_and_measured_as_pypulseq_does(tmp_path, kind, version):
    sequence = foreign.KINDS[kind]()
    path = foreign.written(sequence, tmp_path / "x.seq", version)
    # pypulseq knows limits per axis alone, so its sequences may be beyond them as vectors
    found = checks(path, replace(SCANNER, limit_norm="axis"))
    assert names(found, "broken") | names(found, "warning") == set()
    report = sequence.test_report()
    per_axis = [
        [float(v) for v in re.search(rf"Max {name}: (.*) Hz", report)[1].split()] for name in ("gradient", "slew rate")
    ]
    vectors = [float(re.search(rf"Max absolute {name}: (\S+) Hz", report)[1]) for name in ("gradient", "slew rate")]
    for name, axes, vector in zip(("gradient", "slew rate"), per_axis, vectors, strict=True):
        for axis, value in zip("xyz", axes, strict=True):
            assert found[f"{name} {axis}"].value * SCANNER.gamma == pytest.approx(value, rel=2e-5, abs=1)
        assert found[f"{name} vector"].value * SCANNER.gamma == pytest.approx(vector, rel=2e-5, abs=1)
        assert found[f"{name} vector"].limit is None
    assert found["total time"].value == pytest.approx(sequence.duration()[0])
    assert found["signature"].ok


@pytest.mark.parametrize(
    ("plant", "broken", "where"),
    [
        (foreign.slew_across_blocks, {"slew rate x": 150, "slew rate vector": 150}, "block 70, x, "),
        (foreign.jump_into_a_delay, {"gradient jump": 1.1e-3}, "block 69, y, "),
        (foreign.jump_between_events, {"gradient jump": 1.1e-3}, "block 70, z, "),
        (foreign.beyond_the_limit_as_a_vector, {"gradient vector": 25e-3 * 2**0.5}, "block 69, "),
        (foreign.beyond_the_limit, {"gradient z": 31e-3, "gradient vector": 31e-3}, "block 69, z, "),
        (
            foreign.adc_right_after_the_pulse,
            {"RF ringdown time": 0, "ADC dead time before": 0, "time from RF to ADC": 0},
            "block 69, ",
        ),
        (foreign.adc_during_the_pulse, {"time from RF to ADC": -600e-6}, "block 69, "),
        (foreign.pulse_without_its_dead_time, {"RF dead time": 20e-6}, "block 69, "),
        (foreign.adc_up_to_the_end, {"ADC dead time after": 0}, "block 69, "),
        (foreign.dwell_off_the_raster, {"ADC dwell off its raster": 50e-9}, "block 69, "),
        (foreign.too_fast_for_the_receiver, {"k step between samples": 20e-3 * 42.576e6 * 10e-6 * 0.256}, "block 69, "),
        (foreign.samples_that_interpreters_dislike, {}, ""),
    ],
)
def test_planted_faults_are_named_and_nothing_else(tmp_path, plant, broken, where):
    sequence = foreign.gre()
    plant(sequence)
    found = checks(foreign.written(sequence, tmp_path / "x.seq"))
    assert names(found, "broken") == set(broken)
    for name, value in broken.items():
        assert found[name].value == pytest.approx(value, rel=1e-4, abs=1e-9)
        assert found[name].where.startswith("block ")
        assert describe(found[name]).endswith("broken")
    if where:
        assert found[next(iter(broken))].where.startswith(where)
    expected = {
        foreign.samples_that_interpreters_dislike: {"ADC samples", "ADC samples in one piece"},
        foreign.adc_right_after_the_pulse: {  # of another flip angle, dwell time and echo time
            "excitations of one slice that differ",
            "ADC events of another length or frequency",
            "ADC events at another time",
        },
    }
    assert names(found, "warning") == expected.get(plant, set())


def test_a_jump_that_pypulseq_lets_pass(tmp_path):
    # up to one raster of slewing; its k is then that of a line drawn through the pause, ours is not
    fast = pp.Opts(
        max_grad=30,
        grad_unit="mT/m",
        max_slew=200,
        slew_unit="T/m/s",
        rf_dead_time=100e-6,
        rf_ringdown_time=30e-6,
        adc_dead_time=10e-6,
    )
    sequence = foreign.gre(fast)
    sequence.add_block(foreign.trapezoid("y", [0, 200], [0, 1.9]))
    sequence.add_block(pp.make_delay(1e-3))
    sequence.add_block(foreign.trapezoid("y", [0, 200], [1.9, 0]), pp.make_adc(16, dwell=1e-5, delay=1e-5))
    assert sequence.check_timing()[0]
    path = foreign.written(sequence, tmp_path / "x.seq")
    found = checks(path, replace(SCANNER, max_slew=200, limit_norm="axis"))
    assert names(found, "broken") == {"gradient jump"}
    assert found["gradient jump"].value == pytest.approx(1.9e-3, rel=1e-4)
    assert "block 69, y" in found["gradient jump"].where
    assert "2 in all" in found["gradient jump"].where
    off = sequence.calculate_kspace()[0].T[-16:] - player.read(path).k[-1]
    assert np.abs(off[:, 1]) == pytest.approx(1.9e-3 * foreign.LAX.gamma * 1e-3, rel=1e-3)


def test_a_file_for_another_scanner(tmp_path):
    system = pp.Opts(
        max_grad=30,
        grad_unit="mT/m",
        max_slew=120,
        slew_unit="T/m/s",
        grad_raster_time=5e-6,
        block_duration_raster=5e-6,
        rf_dead_time=100e-6,
        rf_ringdown_time=30e-6,
        adc_dead_time=10e-6,
    )
    sequence = foreign.gre(system)
    sequence.add_block(pp.make_trapezoid("x", amplitude=1e5, rise_time=35e-6, flat_time=50e-6, system=system))
    path = foreign.written(sequence, tmp_path / "x.seq")
    found = checks(path, replace(SCANNER, limit_norm="axis"))
    off = {"gradient raster", "gradient corner off its raster"}
    assert off <= names(found, "broken") <= {*off, "block duration off its raster"}
    assert found["gradient corner off its raster"].value == pytest.approx(5e-6)
    same = replace(SCANNER, gradient_raster=5e-6, block_raster=5e-6, limit_norm="axis")
    assert names(checks(path, same), "broken") == set()
    assert names(checks(path, replace(same, rf_raster=2e-6)), "broken") >= {"RF raster"}


def test_gradients_in_the_wrong_unit_cover_no_k_space(tmp_path):
    # T/m where pypulseq takes Hz/m
    sequence = foreign.fresh()
    rf = pp.make_block_pulse(0.1, duration=1e-3, delay=100e-6, use="excitation", system=foreign.SYSTEM)
    spoke = pp.make_arbitrary_grad(
        "x", 0.02 * np.sin(np.pi * np.arange(101) / 100), first=0.0, last=0.0, system=foreign.SYSTEM
    )
    sequence.add_block(rf)
    sequence.add_block(spoke, pp.make_adc(100, dwell=1e-5, delay=1e-5, system=foreign.SYSTEM), pp.make_delay(2e-3))
    found = checks(foreign.written(sequence, tmp_path / "x.seq"))
    assert names(found, "broken") == {"k-space extent"}
    sequence.definitions.pop("FOV")  # spectroscopy, for all one knows
    found = checks(foreign.written(sequence, tmp_path / "x.seq"))
    assert (names(found, "broken"), names(found, "warning")) == (set(), {"k-space extent"})
    assert "k step between samples" not in found


@pytest.mark.parametrize(
    ("fov", "n_extents", "verdict"),
    [
        ("0.256 0.256 0.005", 3, "ok"),
        ("220 220 5", 0, "warning"),
        ("0 0 0", 0, "warning"),
        ("-0.22 0.22 0.005", 2, "warning"),
        ("0.22", 1, "warning"),
        ("0.22 0.22", 2, "warning"),
        ("0.22 0.22 0.005 7", 3, "warning"),
        ("0.22 0.22 0.005 1", 4, "warning"),
        ("foo", 0, "warning"),
        (None, 0, "reported"),
    ],
)
def test_what_is_not_checked_for_want_of_a_field_of_view_is_said(tmp_path, fov, n_extents, verdict):
    path = foreign.written(foreign.gre(), tmp_path / "x.seq")
    body = path.read_text().partition("\n[SIGNATURE]\n")[0]
    path.write_text(re.sub(r"(?m)^FOV .*\n", f"FOV {fov}\n" if fov else "", body))
    found = checks(path, signed=False)
    assert (found["FOV"].value, found["FOV"].verdict) == (n_extents, verdict)
    is_known = verdict == "ok"
    assert ("k step between samples" in found) == is_known
    assert found["FOV"].where.endswith("(the receiver's speed) is not checked") != is_known


def test_an_unsigned_file_that_was_cut_off(tmp_path):
    path = tmp_path / "x.seq"
    foreign.gre().write(str(path), create_signature=False)
    assert names(checks(path, signed=False), "warning") == {"signature"}
    text = path.read_text()
    path.write_text(re.sub(r"\n68 .*", "", text))
    assert names(checks(path, signed=False), "warning") == {"signature", "total time"}


def test_an_end_that_a_1_4_file_does_not_store_may_be_rounded(tmp_path):
    sequence = foreign.gre()
    sequence.set_definition("FOV", [0.1, 0.1, 0.1])
    values = 1e6 * (1 - np.cos(2 * np.pi * (np.arange(100) + 0.5) / 100)) / 2
    sequence.add_block(pp.make_arbitrary_grad("x", values, first=0.0, last=0.0, system=foreign.SYSTEM))
    sequence.add_block(pp.make_delay(1e-3))
    for version in ("1.5.0", "1.4.1"):
        found = checks(foreign.written(sequence, tmp_path / "x.seq", version))
        assert names(found, "broken") == set()
        jump = found.get("gradient jump from an unstored end")
        assert (jump is None) == (version == "1.5.0")
    assert jump.value * SCANNER.gamma == pytest.approx(abs(1.5 * values[-1] - 0.5 * values[-2]), rel=1e-3)
    values[-2:] = values[50]
    fast = pp.make_arbitrary_grad("x", values, first=0.0, last=0.0, system=foreign.LAX, max_slew=1e20)
    sequence.add_block(fast)
    found = checks(foreign.written(sequence, tmp_path / "x.seq", "1.4.1"))
    assert "gradient jump from an unstored end" in names(found, "broken")


def test_rms_duty_cycle_and_coverage(tmp_path):
    sequence = pp.Sequence(foreign.SYSTEM)
    trap = pp.make_trapezoid("y", amplitude=8e5, rise_time=300e-6, flat_time=1e-3, system=foreign.SYSTEM)
    rf = pp.make_block_pulse(0.1, duration=1e-3, delay=100e-6, use="excitation", system=foreign.SYSTEM)
    sequence.add_block(rf, pp.make_delay(1.4e-3))
    sequence.add_block(trap, pp.make_adc(100, dwell=1e-5, delay=300e-6, system=foreign.SYSTEM), pp.make_delay(2e-3))
    sequence.add_block(pp.make_delay(6.6e-3))
    found = checks(foreign.written(sequence, tmp_path / "x.seq"))
    assert found["RMS gradient y"].value == pytest.approx(8e5 / SCANNER.gamma * (1.2 / 10) ** 0.5)
    assert found["duty cycle y"].value == pytest.approx(0.16)
    assert found["RMS gradient x"].value == found["duty cycle x"].value == 0
    assert found["largest k y"].value == pytest.approx(8e5 * (150e-6 + 995e-6))
    assert found["k-space extent"].value == pytest.approx(8e5 * 990e-6)


def test_b1(tmp_path):
    # three pulses of 90 degrees near the middle of 40 s: 1 ms at 250 Hz
    sequence = pp.Sequence(foreign.SYSTEM)
    rf = pp.make_block_pulse(np.pi / 2, duration=1e-3, delay=100e-6, use="excitation", system=foreign.SYSTEM)
    for wait in (15, 4, 5, 15.9):
        sequence.add_block(pp.make_delay(wait))
        sequence.add_block(rf) if wait != 15.9 else None
    path = foreign.written(sequence, tmp_path / "x.seq")
    found = checks(path)
    b1 = 250 / SCANNER.gamma
    assert found["B1 peak"].value == pytest.approx(b1)
    assert found["B1+rms"].value == pytest.approx(b1 * np.sqrt(3e-3 / player.read(path).duration), rel=1e-6)
    assert found["B1+rms of the worst 10 s"].value == pytest.approx(b1 * np.sqrt(3e-3 / 10), rel=1e-6)
    assert "uT" in describe(found["B1 peak"])
    assert found["B1 peak"].verdict == "ok"  # 5.9 uT


@pytest.mark.parametrize(("peak", "verdict"), [(29.9e-6, "ok"), (30.1e-6, "warning"), (200e-6, "warning")])
def test_more_b1_than_a_body_coil_has_is_a_warning(tmp_path, peak, verdict):
    sequence = pp.Sequence(foreign.SYSTEM)
    angle = 2 * np.pi * SCANNER.gamma * peak * 100e-6
    sequence.add_block(
        pp.make_block_pulse(angle, duration=100e-6, delay=100e-6, use="excitation", system=foreign.SYSTEM),
        pp.make_delay(1e-3),
    )
    found = checks(foreign.written(sequence, tmp_path / "x.seq"))["B1 peak"]
    assert (found.value, found.limit, found.verdict) == (pytest.approx(peak, rel=1e-5), 30e-6, verdict)


def test_files_without_gradients_pulses_or_adc(tmp_path):
    sequence = pp.Sequence(foreign.SYSTEM)
    sequence.add_block(pp.make_delay(1e-3))
    found = checks(foreign.written(sequence, tmp_path / "x.seq"))
    assert (names(found, "broken"), names(found, "warning")) == (set(), {"k-space extent"})
    assert found["gradient vector"].value == 0


def test_damage_is_an_error_or_a_verdict(tmp_path):
    path = tmp_path / "x.seq"
    foreign.labelled().write(str(path), create_signature=False)
    text = path.read_text()
    rng = np.random.default_rng(4)
    n_read = 0
    for _ in range(150):
        at = rng.integers(len(text))
        path.write_text(text[:at] + rng.choice(list("0123456789.-e ")) + text[at + rng.integers(1, 4) :])
        try:
            found = checks(path, signed=False)
        except InputError:
            continue
        n_read += 1
        assert all(np.isfinite(check.value) for check in found.values())
    assert n_read > 30


def piece_checks(tmp_path, n, dwell, segment):
    sequence = foreign.gre()
    sequence.add_block(pp.make_adc(n, dwell=dwell, delay=10e-6, system=foreign.LAX), pp.make_delay(1.0))
    sequence.set_definition("MaxAdcSegmentLength", segment)
    return checks(foreign.written(sequence, tmp_path / "x.seq"))


def test_a_long_event_is_held_to_what_its_pieces_must_be(tmp_path):
    rules = {"ADC samples", "ADC samples in one piece", "ADC piece off the gradient raster", "ADC pieces"}
    for n, segment, broken in (
        (8200, 4100, set()),
        (8196, 4098, {"ADC samples", "ADC piece off the gradient raster"}),  # 4098 = 4 x 1024.5, 8196 us
        (16384, 8192, {"ADC piece off the gradient raster"}),  # 16384 us
        (16400, 8200, {"ADC samples in one piece"}),
        (20 * 129, 20, {"ADC pieces"}),
        (8200, 3000, {"ADC samples in one piece"}),  # 3000 does not divide it
    ):
        found = piece_checks(tmp_path, n, 2e-6, segment)
        assert names(found, "warning") & rules == broken, n
    assert found["ADC samples in one piece"].value == 8200


def test_pieces_are_those_of_pypulseq_and_of_every_divisor():
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(400):
        raster, dwell = rng.choice([4e-6, 10e-6, 20e-6]), round(rng.integers(10, 60) * 1e-7, 9)
        if raster == 4e-6:
            dwell = round(rng.integers(1, 4) * 2e-6, 9)
        n = int(rng.integers(8193, 60000)) // 10 * 10 if rng.random() < 0.7 else int(rng.integers(4, 60000))
        ns, cell = round(dwell * 1e9), round(raster * 1e9)
        valid = [p for p in range(4, min(n, 8192) + 1, 4) if n % p == 0 and p * ns % cell == 0 and n // p <= 128]
        if n > 8192 and not valid:
            n_refused += 1
            with pytest.raises(
                ConfigError, match=f"{n} ADC samples of {dwell * 1e6:g} us .*nearest lengths"
            ) as refusal:
                adc.segment(n, dwell, raster)
            for near in re.findall(r"are (\d+) and (\d+)", str(refusal.value))[0]:
                assert adc.segment(int(near), dwell, raster) >= 4
            continue
        found = adc.segment(n, dwell, raster)
        assert found == (n if n <= 8192 else max(valid))
        system = pp.Opts(grad_raster_time=raster, adc_raster_time=1e-7, adc_samples_limit=8192)
        count, length = pp.calc_adc_segments(n, dwell, system)
        if n > 8192 and count * length == n:
            assert found == length
    assert 50 < n_refused < 350


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("MaxAdcSegmentLength 1e25", "MaxAdcSegmentLength is '1e25'; it is a whole number of samples"),
        ("MaxAdcSegmentLength nan", "MaxAdcSegmentLength is 'nan'; its numbers must be finite"),
        ("MaxAdcSegmentLength 12.5", "whole number"),
        ("MaxAdcSegmentLength -4", "whole number"),
        ("MaxAdcSegmentLength many", "whole number"),
        ("MaxAdcSegmentLength 4 4", "whole number"),
        ("TotalDuration inf", "TotalDuration is 'inf'"),
        ("FOV nan nan 0.005", "FOV is 'nan nan 0.005'"),
        ("GradientRasterTime nan", "GradientRasterTime is 'nan', which is not one finite number"),
        ("BlockDurationRaster 1e999", "BlockDurationRaster is '1e999', which is not one finite number"),
        ("RadiofrequencyRasterTime -1", "RadiofrequencyRasterTime is -1"),
    ],
)
def test_nonsense_in_a_definition_is_one_sentence(tmp_path, definition, words):
    path = foreign.written(foreign.gre(), tmp_path / "x.seq")
    body = path.read_text().partition("\n[SIGNATURE]\n")[0]
    name = definition.split()[0]
    body = re.sub(rf"(?m)^{name} .*\n", "", body).replace("[DEFINITIONS]\n", f"[DEFINITIONS]\n{definition}\n")
    path.write_text(body)
    with pytest.raises(InputError, match=re.escape(words)):
        checks(path, signed=False)
