"""The list of what a console minds: planted numbers come back, counted by other means than the program's."""

import math
from dataclasses import replace

import foreign
import numpy as np
import pypulseq as pp
import pytest
from real_data import real

from trajdesign.errors import ConfigError, InputError
from trajdesign.physics.nerves import nerve_model
from trajdesign.pulseq.file_rules import inspect
from trajdesign.pulseq.preflight import preflight
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.side_effects import expose
from trajdesign.scanner import Interpreter, Scanner

NOTHING_KNOWN = Interpreter()
SCANNER = Scanner(max_gradient=30e-3, max_slew=120, gamma=foreign.SYSTEM.gamma)


def listed(path, scanner=SCANNER, interpreter=NOTHING_KNOWN, **exposure):
    """Return the items by their names, each of which is there once."""
    file = player.read(path, signed=False)
    checks = [*inspect(file, scanner), *expose(file, scanner, nerve_model("xrm"), **exposure).checks]
    items = preflight(file, checks, scanner, interpreter)
    assert len({item.name for item in items}) == len(items)
    return {item.name: item for item in items}


def shapes_in(path):
    """Count shapes, their samples and the lines that store them, in the text alone."""
    words = path.read_text().split("[SHAPES]")[1].split("[SIGNATURE]")[0].split("\n")
    lines = [line for line in words if line.strip() and not line.startswith("#")]
    counts = [int(line.split()[1]) for line in lines if line.startswith("num_samples")]
    return len(counts), sum(counts), len(lines) - 2 * len(counts)


def train(counts=(64, 64, 64), dwell=10e-6, te=None, tr=None, labels=()):
    """Return excitations 20 ms apart, each followed by a trapezoid and an ADC event of one of the lengths."""
    sequence = foreign.fresh()
    rf = pp.make_block_pulse(
        0.2, duration=1e-3, delay=foreign.SYSTEM.rf_dead_time, system=foreign.SYSTEM, use="excitation"
    )
    for i, count in enumerate(counts):
        adc = pp.make_adc(count, dwell=dwell, delay=100e-6, system=foreign.SYSTEM)
        gx = pp.make_trapezoid("x", amplitude=200e3, rise_time=100e-6, flat_time=count * dwell, system=foreign.SYSTEM)
        back = pp.make_trapezoid("x", area=-gx.area / 2, duration=2e-3, system=foreign.SYSTEM)
        first = [rf, *(pp.make_label(*label) for label in labels if not i)]
        duration = sum(sequence.block_durations.values())
        sequence.add_block(*first)
        sequence.add_block(back)
        sequence.add_block(gx, adc, pp.make_label("LIN", "SET", i))
        played = sum(sequence.block_durations.values()) - duration
        sequence.add_block(pp.make_delay(20e-3 - round(played, 6)))
    for name, value in (("TE", te), ("TR", tr)):
        if value is not None:
            sequence.set_definition(name, value)
    return sequence


@pytest.mark.parametrize("kind", foreign.KINDS)
def test_sizes_are_those_of_the_file_and_its_text(tmp_path, kind):
    sequence = foreign.KINDS[kind]()
    path = foreign.written(sequence, tmp_path / "x.seq")
    found = listed(path)
    n_shapes, n_samples, n_numbers = shapes_in(path)
    assert n_shapes > 0
    assert found["file size"].value == path.stat().st_size
    assert found["blocks"].value == len(sequence.block_events)
    assert (found["shapes"].value, found["samples of all shapes"].value) == (n_shapes, n_samples)
    assert f"stored as {n_numbers} numbers" in found["samples of all shapes"].note
    tables = {name: path.read_text().split(f"\n[{name}]\n")[1:] for name in ("TRAP", "GRADIENTS", "RF", "ADC")}
    rows = {
        name: sum(line.strip()[:1].isdigit() for line in part[0].split("\n[")[0].split("\n# ")[0].split("\n"))
        if part
        else 0
        for name, part in tables.items()
    }
    assert found["distinct gradients"].value == rows["TRAP"] + rows["GRADIENTS"]
    assert found["distinct RF pulses"].value == rows["RF"]
    assert found["distinct ADC events"].value == rows["ADC"]
    assert found["total time"].value == pytest.approx(sequence.duration()[0])


def test_what_an_interpreter_is_reported_to_take_is_compared_and_else_unknown(tmp_path):
    path = foreign.written(train(), tmp_path / "x.seq")
    size, names = path.stat().st_size, ("file size", "blocks", "excitations")
    for interpreter, mark in (
        (Interpreter(), "unknown"),
        (Interpreter(slow_bytes=size, watched_blocks=12, most_excitations=3), "ok"),
        (Interpreter(slow_bytes=size - 1, watched_blocks=11, most_excitations=2), "look"),
    ):
        found = listed(path, interpreter=interpreter)
        assert [found[name].mark for name in names] == [mark] * 3
    assert [found[name].value for name in names] == [size, 12, 3]


def test_adc_events_of_one_kind_and_of_several(tmp_path):
    found = listed(foreign.written(train((64, 64)), tmp_path / "x.seq"))
    assert (found["ADC events"].value, found["ADC samples in one segment"].value) == (2, 64)
    kinds = found["ADC lengths and dwell times"]
    assert (kinds.value, kinds.mark, kinds.note) == (1, "ok", "64 of 10 us")
    kinds = listed(foreign.written(train((64, 32)), tmp_path / "y.seq"))["ADC lengths and dwell times"]
    assert (kinds.value, kinds.mark) == (2, "look")
    assert kinds.note.startswith("64 of 10 us, 32 of 10 us; ")
    odd = listed(foreign.written(train((66, 66)), tmp_path / "z.seq"))["ADC samples in one segment"]
    assert (odd.value, odd.mark) == (66, "look")
    assert "NOT a multiple of 4" in odd.note


@pytest.mark.parametrize(
    ("length", "in_one", "n_pieces", "marks"),
    [(None, 10_000, 1, ("look", "ok")), (5_000, 5_000, 2, ("ok", "ok")), (20, 20, 500, ("ok", "look"))],
)
def test_adc_segments_are_those_that_the_file_asks_for(tmp_path, length, in_one, n_pieces, marks):
    sequence = train((10_000,), dwell=1e-6)
    if length:
        sequence.set_definition("MaxAdcSegmentLength", length)
    found = listed(foreign.written(sequence, tmp_path / "x.seq"))
    one, pieces = found["ADC samples in one segment"], found["ADC segments of an event"]
    assert (one.value, one.limit, pieces.value, pieces.limit) == (in_one, 8192, n_pieces, 128)
    assert (one.mark, pieces.mark) == marks


def test_te_and_tr_are_met_or_not_or_not_declared(tmp_path):
    centre = foreign.SYSTEM.rf_dead_time + 0.5e-3
    blocks = foreign.SYSTEM.rf_dead_time + 1e-3 + foreign.SYSTEM.rf_ringdown_time
    blocks = math.ceil(round(blocks * 1e5, 3)) * 1e-5
    te = blocks + 2e-3 + 100e-6 + 32 * 10e-6 - centre  # k is 0 in the middle of the trapezoid
    for told, marks in (({"te": te, "tr": 20e-3}, ["ok", "ok"]), ({"te": 2 * te, "tr": 21e-3}, ["look", "look"])):
        found = listed(foreign.written(train(**told), tmp_path / "x.seq"))
        assert [found[name].mark for name in ("TE", "TR")] == marks
        assert [found[name].value for name in ("TE", "TR")] == pytest.approx(list(told.values()), rel=1e-6)
    found = listed(foreign.written(train(), tmp_path / "y.seq"))
    assert [(math.isnan(found[name].value), found[name].mark) for name in ("TE", "TR")] == [(True, "unknown")] * 2


def test_margins_are_those_of_a_trapezoid_in_closed_form(tmp_path):
    sequence = foreign.fresh()
    slew, rise = 100.0, 200e-6  # T/m/s, s: 20 mT/m
    amplitude = slew * rise * foreign.SYSTEM.gamma
    gx, gy = (
        pp.make_trapezoid(axis, amplitude=amplitude, rise_time=rise, flat_time=1e-3, system=foreign.SYSTEM)
        for axis in "xy"
    )
    sequence.add_block(gx, gy)
    path = foreign.written(sequence, tmp_path / "x.seq")
    vector = math.sqrt(2) * slew
    for scanner, mark, margin in (
        (replace(SCANNER, max_slew=vector / 0.96), "look", "4.0%"),
        (replace(SCANNER, max_slew=vector / 0.94), "ok", "6.0%"),
    ):
        item = listed(path, scanner)["largest slew rate"]
        assert (item.mark, item.note) == (mark, f"margin {margin} (vector)")
        assert item.value == pytest.approx(vector, rel=1e-5)
    found = listed(path, replace(SCANNER, limit_norm="axis"))
    assert found["largest slew rate"].value == pytest.approx(slew, rel=1e-5)
    turned = found["slew rate, if turned"]
    assert (turned.mark, turned.value) == ("look", pytest.approx(vector, rel=1e-5)), "141 of 120 T/m/s on one axis"
    assert found["gradient, if turned"].mark == "ok", "28.3 of 30 mT/m"
    # xrm: a constant slew reaches alpha / rheobase * S * t / (t + chronaxie) in the time t (IEC 60601-2-33, AA.21);
    # sampled at raster centres the ramp is half a raster shorter, which is 1.6 %
    top = 0.333 / 23.4 * vector * rise / (rise + 334e-6)
    for factor, mark in ((1 / 0.92, "look"), (1 / 0.88, "ok")):
        item = listed(path, nerve_limit=top * factor)["nerve stimulation"]
        assert (item.value, item.mark) == (pytest.approx(top, rel=2e-2), mark)
    item = listed(path, nerve_limit=0.99, is_own_coil=False)["nerve stimulation"]
    assert (item.mark, "of another coil" in item.note) == ("unknown", True)
    assert found["RMS gradient"].value == pytest.approx(
        slew * rise * math.sqrt((1e-3 + 2 / 3 * rise) / 1.4e-3), rel=1e-5
    )


def test_labels_that_are_set_late_are_named(tmp_path):
    late = listed(foreign.written(train(), tmp_path / "x.seq"))["labels set after the first ADC event"]
    assert (late.value, late.mark) == (0, "ok"), "LIN is set in the block that samples first"
    sequence = train()
    sequence.add_block(pp.make_label("SLC", "SET", 1), pp.make_delay(1e-3))
    late = listed(foreign.written(sequence, tmp_path / "y.seq"))["labels set after the first ADC event"]
    assert (late.value, late.mark, late.note[:4]) == (1, "look", "SLC:")


def test_segments_cost_time_where_a_scanner_has_them(tmp_path):
    ge, gap = replace(SCANNER, label_segments=True), Interpreter(segment_gap=117e-6)
    path = foreign.written(train(labels=[("TRID", "SET", 7)]), tmp_path / "x.seq")
    found = listed(path, ge, gap)
    assert (found["distinct segments (TRID)"].value, found["distinct segments (TRID)"].mark) == (1, "unknown")
    added = found["time added between segments"]
    assert (added.value, added.mark) == (pytest.approx(117e-6), "look")
    assert "distinct segments (TRID)" not in listed(path)
    bare = listed(foreign.written(train(), tmp_path / "y.seq"), ge, gap)["distinct segments (TRID)"]
    assert (bare.value, bare.mark) == (0, "look")


def test_values_are_shown_as_people_write_them(tmp_path):
    path = foreign.written(train(), tmp_path / "x.seq")
    found = listed(path, interpreter=Interpreter(slow_bytes=40e6))
    assert found["file size"].shown == (f"{path.stat().st_size:,} bytes", "40,000,000 bytes")
    assert found["TE"].shown == ("-", "")
    assert found["file format"].shown == ("1.5.0", "")


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "many"])
def test_an_interpreter_that_takes_nothing_is_refused(value):
    with pytest.raises(ConfigError, match=r"slow_bytes of an interpreter is .*; it is a positive number"):
        Interpreter(slow_bytes=value)


@pytest.mark.parametrize("name", ["epi_basic_pe", "epi_basic_pe0", "se_phantom"])
def test_files_that_scanners_have_played(name):
    path = real(f"pulseq_raw/{name}.seq")
    found = listed(path, Scanner())
    assert (found["file size"].value, found["shapes"].value) == (path.stat().st_size, shapes_in(path)[0])
    assert found["ADC lengths and dwell times"].mark == "ok"


def test_files_of_other_programs_pass_through():
    cases = sorted(real("pulseq_raw/se_phantom.seq").parents[2].glob("cases/*.[sS][eE][qQ]"))
    if not cases:
        pytest.skip("no cases of other programs beside the real data")
    n_read = 0
    for path in cases:
        try:
            found = listed(path, Scanner(label_segments=True))
        except InputError:
            continue  # a file that is refused has no list
        n_read += 1
        assert found["file size"].value == path.stat().st_size
        assert all(np.isfinite(item.value) for item in found.values() if item.name not in ("TE", "TR", "file format"))
    assert n_read > len(cases) / 2
