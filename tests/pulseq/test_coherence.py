"""Phases that receivers see, in sequences that pypulseq wrote, against rotations of a single spin."""

import math
from copy import copy
from pathlib import Path

import foreign
import numpy as np
import pypulseq as pp
import pytest
from test_sequences import pattern

from trajdesign.config import plugins
from trajdesign.errors import LimitError
from trajdesign.exporting.proof import export
from trajdesign.pulseq import coherence
from trajdesign.pulseq.file_rules import inspect
from trajdesign.pulseq.reader import player
from trajdesign.scanner import Scanner
from trajdesign.trajectories.formats import pulseq

SYSTEM = foreign.SYSTEM
NAME = "receiver phase off the excitation's"
#: The phases (degrees) of quadratic RF spoiling by 117 degrees.
SPOILED = np.cumsum(117.0 * np.arange(foreign.N)) % 360


def lines(path, pulses_deg, receivers_deg, *, frequencies=None, shift=(0.0, 0.0), offsets=(0.0,), version="1.5.0"):
    """Write a Cartesian gradient echo of given phases; the receiver moves the field of view by `shift` (x, y), m."""
    sequence = foreign.fresh()
    rf, gz, rephaser = foreign.excitation()
    gx = pp.make_trapezoid("x", flat_area=foreign.N * foreign.DK, flat_time=0.64e-3, system=SYSTEM)
    prephaser = pp.make_trapezoid("x", area=-gx.area / 2, duration=1e-3, system=SYSTEM)
    adc = pp.make_adc(foreign.N, duration=gx.flat_time, delay=gx.rise_time, system=SYSTEM)
    sequence.add_block(adc, pp.make_label("NOISE", "SET", 1))
    for line, (pulse, receiver) in enumerate(zip(pulses_deg, receivers_deg, strict=True)):
        ky = (line - foreign.N / 2) * foreign.DK
        for offset in offsets:
            rf.freq_offset = gz.amplitude * offset
            rf.phase_offset = math.radians(pulse) - 2 * math.pi * rf.freq_offset * rf.center
            adc.freq_offset = gx.amplitude * shift[0] if frequencies is None else frequencies[line]
            # the frequency turns until the centre of the readout, where k_x is 0
            turned = ky * shift[1] - adc.freq_offset * gx.flat_time / 2
            adc.phase_offset = math.radians(receiver) + 2 * math.pi * turned
            gy = pp.make_trapezoid("y", area=ky, duration=1e-3, system=SYSTEM)
            sequence.add_block(rf, gz, pp.make_label("NOISE", "SET", 0))
            sequence.add_block(prephaser, gy, rephaser)
            sequence.add_block(gx, adc)
            sequence.add_block(pp.scale_grad(gy, -1), pp.make_delay(2e-3))
    return foreign.written(sequence, path, version)


def verdict(path, signed=True):
    scanner = Scanner(gamma=SYSTEM.gamma)
    return next(check for check in inspect(player.read(path, signed=signed), scanner) if check.name == NAME)


@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
def test_a_receiver_that_does_not_follow_is_named(tmp_path, version):
    path = tmp_path / "x.seq"
    still = np.zeros(foreign.N)
    good = {
        "RF spoiling": (SPOILED, SPOILED),
        "a constant between the two": (SPOILED, SPOILED + 40),
        "balanced": (180 * np.arange(foreign.N), 180 * np.arange(foreign.N)),
        "nothing turns": (still, still),
    }
    for name, (pulses, receivers) in good.items():
        found = verdict(lines(path, pulses, receivers, version=version))
        assert (found.verdict, found.value < 1e-4) == ("ok", True), name
    for shift in ((0.03, 0.0), (0.0, -0.05), (-0.02, 0.04)):
        assert verdict(lines(path, SPOILED, SPOILED, shift=shift, version=version)).verdict == "ok"
    assert verdict(lines(path, SPOILED, SPOILED, offsets=(-0.013, 0.0, 0.02), version=version)).verdict == "ok"
    found = verdict(lines(path, SPOILED, still, version=version))
    assert found.verdict == "warning"
    # what most events share is kept: the phases of n and 39 - n repetitions are one, so none is met more than twice
    n_off = foreign.N - np.unique(SPOILED, return_counts=True)[1].max()
    assert f"({n_off} of 16 ADC events do not follow)" in found.where
    assert found.value > 1
    for pulses, receivers, n_off in (
        (180 * np.arange(foreign.N), still, 8),  # which would move the field of view by its half
        (still, np.where(np.arange(foreign.N) == 5, 20.0, 0.0), 1),
        (still, np.where(np.arange(foreign.N) == 5, 180.0, 0.0), 1),
    ):
        found = verdict(lines(path, pulses, receivers, version=version))
        assert f"({n_off} of 16" in found.where
    frequencies = np.where(np.arange(foreign.N) == 3, 200.0, 0.0)  # for one line alone, which is no shift
    assert verdict(lines(path, SPOILED, SPOILED, frequencies=frequencies, version=version)).verdict == "warning"


def turned(m, axis, angle):
    """Rotate magnetisation (3,) by an angle, rad, as fields do: clockwise about the axis."""
    axis = np.array(axis)
    return m * math.cos(angle) - np.cross(axis, m) * math.sin(angle) + axis * (axis @ m) * (1 - math.cos(angle))


def spin(pulses, free, offset):
    """Return M+ of a spin at `offset` Hz after hard pulses (flip, phase, frequency, duration), each followed by a time.

    Fields act in the frame of the nominal frequency: a spin at +f precesses clockwise, and so does B1 of a pulse at +f.
    """
    m, clock = np.array([0.0, 0.0, 1.0]), 0.0
    for (flip, phase, frequency, duration), wait in zip(pulses, free, strict=True):
        step = duration / 400
        for i in range(400):
            angle = -(phase + 2 * math.pi * frequency * (i + 0.5) * step)
            field = np.array([flip / 400 * math.cos(angle), flip / 400 * math.sin(angle), 2 * math.pi * offset * step])
            m = turned(m, field / np.linalg.norm(field), np.linalg.norm(field))
        m = turned(m, np.array([0.0, 0.0, 1.0]), 2 * math.pi * offset * wait)
        clock += duration + wait
    return complex(m[0], m[1])


def echo_file(path, excitation, refocusing, receiver, frequency=0.0):
    """Write hard pulses of 90 and 180 degrees (phase, frequency) and a receiver after each of both."""
    sequence = foreign.fresh()
    adc = pp.make_adc(4, dwell=1e-4, delay=1e-4, phase_offset=receiver, freq_offset=frequency, system=SYSTEM)
    for flip, (phase, offset), use in ((90, excitation, "excitation"), (180, refocusing, "refocusing")):
        rf = pp.make_block_pulse(
            math.radians(flip),
            duration=1e-4,
            delay=1e-4,
            phase_offset=phase,
            freq_offset=offset,
            use=use,
            system=SYSTEM,
        )
        sequence.add_block(rf, pp.make_delay(3e-4))
        sequence.add_block(adc, pp.make_delay(2e-3))
    return foreign.written(sequence, path)


@pytest.mark.parametrize("frequency", [0.0, 400.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_phases_are_those_of_a_spin_that_is_rotated(tmp_path, seed, frequency):
    """Pulses, receiver and spin are off the nominal frequency by the same, so that nothing precesses for them."""
    excitation, refocusing, receiver = np.random.default_rng(seed).uniform(0, 6, 3)
    path = echo_file(tmp_path / "x.seq", (excitation, frequency), (refocusing, frequency), receiver, frequency)
    played = player.read(path)
    (first, second), edges = (pulse for _, pulse in played.pulses), played.block_edges
    centre, gap = edges[0] + first.centre, edges[2] + second.delay - edges[0] - first.end
    pulses = [(math.pi / 2, first.phase, frequency, 1e-4), (math.pi, second.phase, frequency, 1e-4)]
    turns = coherence.dephasing(played)
    for echo, adc in enumerate(played.adcs):
        for sample, time in enumerate(adc.times):
            waits = [time - edges[0] - first.end] if echo == 0 else [gap, time - edges[2] - second.end]
            m = spin(pulses[: echo + 1], waits, frequency)
            m *= np.exp(
                1j * (adc.event.phase + 2 * math.pi * adc.event.frequency * (time - edges[adc.index] - adc.event.delay))
            )
            # the spin itself precesses by its frequency, and lags 90 degrees behind the field that excites it
            wanted = coherence.received(played)[echo][sample] + 2 * math.pi * frequency * turns[echo][sample]
            assert abs(np.angle(m * np.exp(1j * (wanted - math.pi / 2)))) < 2e-2
        assert turns[echo] == pytest.approx(
            adc.times - centre if echo == 0 else adc.times - 2 * (edges[2] + second.centre) + centre
        )


TEMPLATE = """
from types import SimpleNamespace


class Deaf(parts.Shots):
    def sampled(self, phase):
        adc = super().sampled({phase})
        adc.freq_offset = {frequency}
        return adc


parts = SimpleNamespace(**{{**vars(parts), "Shots": Deaf}})
"""


def mutant(path, name, phase="phase", frequency="0.0"):
    """Write a template whose receiver has another phase or frequency."""
    body = (Path(plugins.find("sequence", name).__code__.co_filename)).read_text()
    head, start, rest = body.partition("\n\n\ndef build(")
    path.write_text(head + TEMPLATE.format(phase=phase, frequency=frequency) + start + rest)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "phase", "frequency", "words"),
    [
        ("gre_2d", "0.0", "0.0", "in 10 of 12 ADC events"),
        ("gre_3d", "0.0", "0.0", "ADC events, first in shot"),
        ("ute_2d", "0.0", "0.0", "ADC events, first in shot"),
        ("bssfp_2d", "0.0", "0.0", "in 6 of 12"),
        ("se_2d", "phase", "40.0", "ADC events, first in shot"),
        ("gre_2d", "-phase", "0.0", "ADC events"),
        ("gre_2d", "phase", "0.0", None),
        ("gre_2d", "phase + 1.0", "0.0", None),  # a phase that all images share
    ],
)
def test_an_export_whose_receiver_does_not_follow_is_refused(tmp_path, kind, phase, frequency, words):
    template = mutant(tmp_path / "mutant.py", kind, phase, frequency)
    options = {"sequence": {"kind": template, "n_dummies": 0}}
    if kind == "gre_3d":
        options["sequence"]["n_partitions"] = 2
    trajectory = pattern("spiral" if kind in ("ute_2d", "gre_3d") else "radial", Scanner(), n_shots=12)
    if words is None:
        export(trajectory, tmp_path / "x.seq", options=options)
        return
    with pytest.raises(LimitError, match=f"does not follow the phase of the excitation.*{words}"):
        export(trajectory, tmp_path / "x.seq", options=options)
    assert not (tmp_path / "x.seq").exists()


@pytest.mark.parametrize(("scale", "offset"), [(1e-9, 0.0), (0.5, 0.0), (1.01, 0.0), (1.0, 2000.0)])
def test_excitations_of_one_slice_that_differ_are_refused_and_warned_of(tmp_path, monkeypatch, scale, offset):
    add, pulses = pp.Sequence.add_block, []

    def mutated(self, *events):
        events = [copy(event) for event in events]
        for event in events:
            if getattr(event, "type", "") == "rf":
                pulses.append(event)
                if len(pulses) == 5:  # of shot 4
                    event.signal, event.freq_offset = event.signal * scale, event.freq_offset + offset
        add(self, *events)

    monkeypatch.setattr(pp.Sequence, "add_block", mutated)
    options = {"sequence": {"kind": "gre_2d", "n_dummies": 0}}
    with pytest.raises(LimitError, match=r"excitations of one slice differ.* in 1 of 12 ADC events, first in shot 4"):
        export(pattern("radial", Scanner(), n_shots=12), tmp_path / "x.seq", options=options)
    pulses.clear()
    for rule in ("_require_receiver", "_require_declared"):
        monkeypatch.setattr(pulseq, rule, lambda *_: None)
    export(pattern("radial", Scanner(), n_shots=12), tmp_path / "y.seq", options=options)
    found = inspect(player.read(tmp_path / "y.seq"), Scanner())
    (check,) = [check for check in found if check.name == "excitations of one slice that differ"]
    assert (check.value, check.verdict) == (1, "warning")
    assert check.where.endswith("(1 of 12 ADC events)")


def test_groups_are_of_equal_rows_and_the_rest_is_unlike():
    numbers = coherence.numbered(np.array([[1, 2], [0, 5], [1, 2], [0, 5]]))
    assert numbers.tolist() == [1, 0, 1, 0]
    groups = coherence.groups_of(numbers, np.array([True, True, True, False]))
    assert [group.tolist() for group in groups] == [[1], [0, 2]]
    values = np.array([[1.0, 0.0], [1.04, 0.0], [3.0, 0.0], [1.0, 0.3], [1.0, 0.0]])
    assert coherence.unlike_most(values, np.array([0.1, 0.2])).tolist() == [False, False, True, True, False]
