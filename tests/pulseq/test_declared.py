"""What files play against what they say: faults in templates, by the numbers that were planted."""

import math
import re
from copy import copy

import foreign
import pypulseq as pp
import pytest
import torch
from test_player import signed
from test_sequences import PATTERNS, pattern

from trajdesign.config import plugins
from trajdesign.config.models import with_profile
from trajdesign.errors import InputError, LimitError
from trajdesign.exporting.proof import export
from trajdesign.pulseq.checks import describe
from trajdesign.pulseq.declared import declared
from trajdesign.pulseq.file_rules import inspect
from trajdesign.pulseq.reader import player
from trajdesign.scanner import Scanner

#: Two slices of 5 mm, 5 mm apart: at -2.5 and 2.5 mm.
TWO = {"kind": "gre_2d", "n_dummies": 0, "n_slices": 2}
SHOTS = 12


def found_in(path, scanner, signature=True):
    return {check.name: check for check in declared(player.read(path, signed=signature), scanner)}


class Faulty:
    """Adds the blocks of a template, changed by `fault(number of the excitation, events, whether it is its block)`."""

    def __init__(self, monkeypatch, fault):
        self.add, self.fault, self.n = pp.Sequence.add_block, fault, -1
        monkeypatch.setattr(pp.Sequence, "add_block", lambda sequence, *events: self(sequence, events))

    def __call__(self, sequence, events):
        events = [copy(event) for event in events]
        is_pulse = any(getattr(event, "use", "") == "excitation" for event in events)
        self.n += is_pulse
        for block in self.fault(self.n, events, is_pulse):
            self.add(sequence, *block)


def kind(events, name):
    return next((event for event in events if getattr(event, "type", "") == name), None)


def other_slice(n, events, is_pulse):
    """Excite, and label, the first slice in the last shot of the second."""
    if n == 2 * SHOTS - 1:
        if is_pulse:
            kind(events, "rf").freq_offset *= -1
        events = [event for event in events if getattr(event, "label", "") != "SLC"]
        if kind(events, "adc"):
            events.append(pp.make_label("SLC", "SET", 0))
    return [events]


def mirrored(n, events, is_pulse):
    if is_pulse:
        kind(events, "rf").freq_offset *= -1
    return [events]


def unlabelled_slices(n, events, is_pulse):
    """All of the second slice excite the first."""
    if is_pulse and n % 2:
        kind(events, "rf").freq_offset *= -1
    return [events]


def without_gradient(only):
    def fault(n, events, is_pulse):
        return [[e for e in events if not (is_pulse and n in only and getattr(e, "channel", "") == "z")]]

    return fault


def half_gradient(n, events, is_pulse):
    if is_pulse:
        gradient = kind(events, "trap")
        events[events.index(gradient)] = pp.scale_grad(gradient, 0.5)
        kind(events, "rf").freq_offset *= 0.5
    return [events]


def later(only):
    def fault(n, events, is_pulse):
        return [events, [pp.make_delay(1e-3)]] if is_pulse and n in only else [events]

    return fault


def flagged(label, only, *, on_pulse=False):
    def fault(n, events, is_pulse):
        if n in only and (is_pulse if on_pulse else kind(events, "adc")):
            return [[*events, pp.make_label(label, "SET", 1)], [pp.make_delay(1e-4), pp.make_label(label, "SET", 0)]]
        return [events]

    return fault


def without_pulse(n, events, is_pulse):
    return [[] if is_pulse and n == 7 else events] if n != 7 or not is_pulse else [[pp.make_delay(3e-3)]]


def shorter(n, events, is_pulse):
    if n == 5 and kind(events, "adc"):
        kind(events, "adc").num_samples -= 4
    return [events]


def wrong_line(n, events, is_pulse):
    """Label shot 4 as shot 3, in both slices."""
    for i, event in enumerate(events):
        if getattr(event, "label", "") == "LIN" and event.value == 4:
            events[i] = pp.make_label("LIN", "SET", 3)
    return [events]


def strong_pulse(n, events, is_pulse):
    if is_pulse:
        kind(events, "trap").amplitude *= 1.2  # thinner slices, which the prephaser does not rephase
        kind(events, "rf").freq_offset *= 1.2
    return [events]


def not_exciting(n, events, is_pulse):
    if is_pulse:
        kind(events, "rf").use = "inversion"
    return [events]


EVERY = range(2 * SHOTS)
#: Fault -> the check that tells of it, the number of ADC events, and what is said of the first.
FAULTS = {
    "slc1": (other_slice, "events of slices sampled less often", 11, "slice 1, 11 events"),
    "mirrored": (mirrored, "slices off SlicePositions", 24, "5 mm from that of its slice"),
    "one slice twice": (unlabelled_slices, "slices off SlicePositions", 12, "5 mm from that of its slice"),
    "no gradient": (without_gradient(EVERY), "slices off SliceThickness", 24, "no gradient selects one"),
    "no gradient once": (without_gradient([7]), "slices off SliceThickness", 1, "no gradient selects one"),
    "half the gradient": (half_gradient, "slices off SliceThickness", 24, "9.944 mm thick"),
    "one shot is late": (later([6]), "ADC events at another time", 1, "usual are"),
    "TE is wrong": (later(EVERY), "echo times off TE", 24, "ms where TE is"),
    "TR": (later([20]), "excitations not repeated after TR", 2, ""),  # of the two slices in whose TR it is
    "no pulse": (without_pulse, "ADC events at another time", 1, ""),
    "short ADC": (shorter, "ADC events of another length or frequency", 1, ""),
    "LIN": (wrong_line, "ADC events that share their labels", 4, "LIN 3 SLC 0"),
    "LIN left out": (wrong_line, "values of LIN left out", 1, "LIN 4"),
    "rephasing": (strong_pulse, "slices not rephased", 24, "0.4"),
    "inversion": (not_exciting, "ADC events without an excitation", 24, ""),
    "NOROT once": (flagged("NOROT", [5]), "events whose NOROT differs", 1, ""),
    "NOROT of one pulse": (flagged("NOROT", [5], on_pulse=True), "events whose NOROT differs", 1, ""),
    "ONCE": (flagged("ONCE", [3, 4]), "events whose ONCE differs", 2, ""),
    "REV": (flagged("REV", [5]), "events whose REV contradicts k", 1, ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_template_that_plays_what_it_does_not_say_is_refused_and_warned_of(tmp_path, monkeypatch, fault):
    change, name, n_off, words = FAULTS[fault]
    Faulty(monkeypatch, change)
    trajectory = pattern("radial", Scanner(), n_shots=SHOTS)
    with pytest.raises(LimitError):
        export(trajectory, tmp_path / "x.seq", options={"sequence": TWO})
    monkeypatch.undo()
    Faulty(monkeypatch, change)
    plugins.build("sequence", TWO, trajectory).write(str(tmp_path / "y.seq"))
    check = found_in(tmp_path / "y.seq", Scanner())[name]
    assert (check.value, check.verdict) == (n_off, "warning"), describe(check)
    assert words in check.where


def test_the_echo_time_that_is_measured_is_the_one_that_was_planted(tmp_path, monkeypatch):
    trajectory = pattern("radial", Scanner(), n_shots=SHOTS)
    right = export(trajectory, tmp_path / "x.seq", options={"sequence": TWO})["te"]
    Faulty(monkeypatch, later(EVERY))
    plugins.build("sequence", TWO, trajectory).write(str(tmp_path / "y.seq"))
    where = found_in(tmp_path / "y.seq", Scanner())["echo times off TE"].where
    measured, told = (float(word) for word in re.search(r"(\S+) ms where TE is (\S+) ms", where).groups())
    assert (measured, told) == pytest.approx((right * 1e3 + 1, right * 1e3), abs=2e-3)


@pytest.mark.parametrize("late", [0.0, 0.7e-6, 6e-6])
def test_the_spread_of_the_echo_times_is_the_one_that_was_planted(tmp_path, late):
    radial = pattern("radial", Scanner(), n_shots=SHOTS)
    speed = radial.gradient[:, :1] * radial.scanner.gamma
    delay = torch.zeros(SHOTS, 1, 1, dtype=torch.float64)
    delay[3] = late  # of one shot
    path = tmp_path / "x.seq"
    report = export(radial.with_points(0.95 * (radial.points - delay * speed)), path, options={"sequence": TWO})
    check = found_in(path, Scanner())["echo time spread"]
    assert (check.unit, check.verdict) == ("s", "reported")
    assert check.value == pytest.approx(late, abs=1e-9)
    assert float(re.search(r"around (\S+) ms", check.where)[1]) == pytest.approx(report["te"] * 1e3, abs=1e-5)


GE_LIKE = {"gradient_raster": 4e-6, "rf_raster": 2e-6, "adc_raster": 2e-6, "block_raster": 4e-6}


@pytest.mark.parametrize(
    ("scanner", "late", "left"),
    [
        (Scanner(), 0.0, 0.0),  # the centre is at a sample, on the raster of pulses of 1 us
        (Scanner(), 1.3e-6, 0.3e-6),
        (Scanner(), 6.8e-6, 0.2e-6),
        (Scanner(), -4.6e-6, 0.4e-6),
        (Scanner(**GE_LIKE), 0.3e-6, 0.3e-6),  # of 2 us
        (Scanner(**GE_LIKE), 2.9e-6, 0.9e-6),
    ],
)
@pytest.mark.parametrize("te", [None, 30e-3])
def test_a_spin_echo_meets_the_centre_to_half_a_raster_of_pulses(tmp_path, scanner, late, left, te):
    radial = pattern("radial", scanner, n_shots=SHOTS)
    shifted = radial.with_points(0.9 * (radial.points - late * radial.gradient[:, :1] * scanner.gamma))
    report = export(shifted, tmp_path / "x.seq", options={"sequence": {"kind": "se_2d", "te": te}})
    check = found_in(tmp_path / "x.seq", scanner)["spin echo off k = 0"]
    assert (check.unit, check.verdict) == ("s", "reported")
    assert check.value == pytest.approx(left, abs=2e-9)
    assert te is None or report["te"] == pytest.approx(te, abs=2 * scanner.block_raster)


@pytest.mark.parametrize("late", [0.0, 10e-6, -250e-6])
def test_a_spin_echo_off_the_centre_is_told_as_it_was_planted(tmp_path, late):
    system, sequence = pp.Opts(), pp.Sequence()
    for angle, phase, wait, use in ((90, 0, 4e-3, "excitation"), (180, 90, 1e-3 + late, "refocusing")):
        pulse = pp.make_block_pulse(
            math.radians(angle), duration=200e-6, phase_offset=math.radians(phase), use=use, system=system
        )
        sequence.add_block(pulse, pp.make_delay(wait))
    readout = pp.make_trapezoid("x", flat_area=1000, flat_time=4e-3, rise_time=200e-6, system=system)
    lead = pp.make_trapezoid("x", area=-readout.area / 2, duration=700e-6, system=system)
    adc = pp.make_adc(401, dwell=10e-6, delay=200e-6 - 5e-6, system=system)
    sequence.add_block(lead, pp.make_delay(900e-6))
    sequence.add_block(readout, adc)
    sequence.write(str(tmp_path / "x.seq"))
    check = found_in(tmp_path / "x.seq", Scanner())["spin echo off k = 0"]
    # the pulses are 4 ms apart, and the second 4 ms before k = 0, but for what is late
    assert check.value == pytest.approx(abs(late), abs=2e-8)  # digits of the file
    assert check.verdict == "reported"


def test_without_a_refocusing_pulse_there_is_no_spin_echo_to_be_off(tmp_path):
    export(pattern("radial", Scanner(), n_shots=SHOTS), tmp_path / "x.seq", options={"sequence": TWO})
    assert "spin echo off k = 0" not in found_in(tmp_path / "x.seq", Scanner())


@pytest.mark.parametrize("profile", ["siemens", "ge", "philips"])
@pytest.mark.parametrize("name", PATTERNS)
def test_templates_play_what_they_say(tmp_path, name, profile):
    scanner = Scanner(**with_profile({"profile": profile}))
    options = {"kind": name, "noise_scan": True, "n_dummies": 3}
    options |= {"gre_2d": {"n_slices": 3, "slice_gap": 1e-3}, "gre_3d": {"n_partitions": 4}}.get(name, {})
    plugins.build("sequence", options, pattern(PATTERNS[name], scanner)).write(str(tmp_path / "x.seq"))
    found = inspect(player.read(tmp_path / "x.seq"), scanner)
    assert [describe(check) for check in found if check.verdict in ("warning", "broken")] == []


@pytest.mark.parametrize("kind", foreign.KINDS)
def test_other_sequences_are_not_blamed(tmp_path, kind):
    found = found_in(foreign.written(foreign.KINDS[kind](), tmp_path / "x.seq"), Scanner())
    assert [describe(check) for check in found.values() if not check.ok] == []


def test_half_pulses_need_both_signs(tmp_path, monkeypatch):
    def one_sign(n, events, is_pulse):
        if is_pulse and n == 5:  # the second half of shot 2
            gradient = kind(events, "trap")
            events[events.index(gradient)] = pp.scale_grad(gradient, -1)
        return [events]

    Faulty(monkeypatch, one_sign)
    options = {"sequence": {"kind": "ute_2d", "n_dummies": 0}}
    with pytest.raises(LimitError):
        export(pattern("spiral", Scanner(), n_shots=SHOTS), tmp_path / "x.seq", options=options)


def refocusing_without_gradient(n, events, is_pulse):
    if n == 4 and getattr(kind(events, "rf"), "use", "") == "refocusing":
        events = [event for event in events if getattr(event, "channel", "") != "z"]
    return [events]


def refocusing_elsewhere(n, events, is_pulse):
    if getattr(kind(events, "rf"), "use", "") == "refocusing":
        kind(events, "rf").freq_offset = 800.0
    return [events]


@pytest.mark.parametrize(
    ("change", "name", "n_off"),
    [
        (refocusing_without_gradient, "excitations of one slice that differ", 1),
        (refocusing_elsewhere, "slices off SlicePositions", SHOTS),
    ],
)
def test_refocusing_pulses_are_of_the_slice_too(tmp_path, monkeypatch, change, name, n_off):
    Faulty(monkeypatch, change)
    trajectory = pattern("radial", Scanner(), n_shots=SHOTS)
    plugins.build("sequence", {"kind": "se_2d"}, trajectory).write(str(tmp_path / "y.seq"))
    found = {check.name: check for check in inspect(player.read(tmp_path / "y.seq"), Scanner())}
    assert (found[name].value, found[name].verdict) == (n_off, "warning")
    monkeypatch.undo()
    Faulty(monkeypatch, change)
    with pytest.raises(LimitError):
        export(trajectory, tmp_path / "x.seq", options={"sequence": "se_2d"})


#: A pulse of 90 degrees, a wait, and four samples; the places of extensions, their sections and offsets are open.
TEXT = """[VERSION]
major 1
minor 5
revision 0

[DEFINITIONS]
AdcRasterTime 1e-07
BlockDurationRaster 1e-05
GradientRasterTime 1e-05
RadiofrequencyRasterTime 1e-06
{definitions}
[BLOCKS]
1 100 1 0 0 0 0 0
2 200 0 0 0 0 0 {second}
3 100 0 0 0 0 1 {third}
4 100 1 0 0 0 0 0
5 300 0 0 0 0 0 {fifth}
6 100 0 0 0 0 2 0

[RF]
1 2500 1 3 2 50 100 {rf_ppm} 0 0 e

[ADC]
1 4 10000 100 0 0 0 0 0
2 4 10000 100 0 {ppm} 0 0 0

[EXTENSIONS]
1 1 1 0
2 1 2 0
3 2 1 0

{sections}
[SHAPES]

shape_id 1
num_samples 2
1
1

shape_id 2
num_samples 2
0
100

shape_id 3
num_samples 2
0
0
"""


def text(**changes):
    usual = {"second": 0, "third": 0, "fifth": 0, "rf_ppm": "0 0", "ppm": 0, "definitions": ""}
    return TEXT.format(**{**usual, "sections": "", **changes}).encode()


def test_soft_delays_that_contradict_themselves(tmp_path):
    """The blocks 2 and 5 last 2 and 3 ms: of one wish w they are w / factor + offset."""
    delays = (
        "soft delays of blocks that play",
        "soft delays of two names or numbers",
        "soft delays stored for two wishes",
    )
    for rows, blocks, bad in (
        (["0 0 1 TE", "0 1000 1 TE"], {}, []),  # w = 2 ms
        (["0 1000 2 TE", "0 -1000 0.5 TE"], {}, []),  # (2 - 1) 2 = (3 + 1) / 2 = 2 ms
        (["0 0 1 TE", "1 0 1 TR"], {}, []),
        (["0 0 1 TE", "0 0 1 TE"], {}, [delays[2]]),  # 2 and 3 ms
        (["0 0 1 TE", "0 1000 1 TR"], {}, [delays[1]]),
        (["0 0 1 TE", "1 1000 1 TE"], {}, [delays[1]]),
        (["0 0 1 TE", "0 -1000 -1 TE"], {}, [delays[2]]),  # 2 and -(3 + 1) ms
        (["0 0 1 TE", "0 1000 1 TE"], {"second": 0, "third": 1}, [delays[0], delays[2]]),  # 1 and 2 ms, while sampling
    ):
        section = "extension DELAYS 1\n" + "".join(f"{i + 1} {row}\n" for i, row in enumerate(rows))
        content = text(**{"second": 1, "fifth": 2, "sections": section, **blocks})
        (tmp_path / "x.seq").write_bytes(content)
        found = found_in(tmp_path / "x.seq", Scanner(), signature=False)
        assert [name for name in delays if not found[name].ok] == bad, rows
    content = text(second=1, sections="extension DELAYS 1\n1 0 0 0 TE\n2 0 0 1 TE\n")
    (tmp_path / "x.seq").write_bytes(content)
    with pytest.raises(InputError, match="factor 0"):
        player.read(tmp_path / "x.seq", signed=False)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1 2 1 500 1500", None),  # ends with its block of 2 ms
        ("1 2 1 0 0", None),
        ("1 1 1 500 1510", "a trigger ends 2.01 ms into block 2, which lasts 2 ms"),
        ("1 2 1 0 2000.5", "ends 2.0005 ms"),
        ("1 2 1 -10 100", "neither can be negative"),
        ("1 2 1 10 -100", "neither can be negative"),
    ],
)
def test_triggers_lie_in_their_blocks(tmp_path, row, words):
    (tmp_path / "x.seq").write_bytes(text(second=3, sections=f"extension TRIGGERS 2\n{row}\n"))
    if words is None:
        assert player.read(tmp_path / "x.seq", signed=False).duration == pytest.approx(9e-3)
        return
    with pytest.raises(InputError, match=words):
        player.read(tmp_path / "x.seq", signed=False)


def test_offsets_in_ppm_count_where_the_field_is_known(tmp_path):
    """At 3 T, 1 rad is 1 / (3 * 42.576) ppm of gamma B0; without the field it cannot be judged, which is said."""
    name, phase = "offsets in ppm of an unknown field", "receiver phase off the excitation's"
    for known, expected in (("B0 3\nGamma 42.576e6\n", 1.0), ("", None)):
        (tmp_path / "x.seq").write_bytes(text(definitions=known, ppm=1 / (3 * 42.576)))
        played = player.read(tmp_path / "x.seq", signed=False)
        found = {check.name: check for check in inspect(played, Scanner(gamma=42.576e6))}
        if expected is None:
            assert (found[name].value, found[name].verdict) == (1, "warning")
            assert "without the definitions B0 and Gamma" in found[name].where
        else:
            assert found[name].verdict == "ok"
            assert (found[phase].value, found[phase].verdict) == (pytest.approx(expected, abs=1e-6), "warning")


def test_segments_need_their_labels(tmp_path):
    scanner = Scanner(**with_profile({"profile": "ge"}))
    sequence = plugins.build("sequence", TWO, pattern("radial", scanner, n_shots=SHOTS))
    sequence.write(str(tmp_path / "x.seq"))
    names = ("blocks before the first TRID", "segments unlike others of their TRID")
    found = found_in(tmp_path / "x.seq", scanner)
    assert [found[name].verdict for name in names] == ["ok", "ok"]
    text = (tmp_path / "x.seq").read_text().partition("\n[SIGNATURE]")[0]
    (tmp_path / "y.seq").write_bytes(signed(text.replace(" TRID", " LIN")))
    check = found_in(tmp_path / "y.seq", scanner)[names[0]]
    assert (check.value, check.verdict) == (4 * SHOTS, "broken")  # a pulse and an ADC event of each slice and shot
    assert names[0] not in found_in(tmp_path / "y.seq", Scanner())
    # one block of one segment lasts longer
    rows = re.search(r"\[BLOCKS\]\n(.*?)\n\n", text, re.DOTALL)[1].splitlines()
    words = rows[8].split()
    rows[8] = " ".join([words[0], str(int(words[1]) + 5), *words[2:]])
    longer = re.sub(r"(\[BLOCKS\]\n).*?(?=\n\n)", lambda m: m[1] + "\n".join(rows), text, flags=re.DOTALL)
    (tmp_path / "z.seq").write_bytes(signed(longer))
    check = found_in(tmp_path / "z.seq", scanner)[names[1]]
    assert (check.value, check.verdict) == (1, "broken")
