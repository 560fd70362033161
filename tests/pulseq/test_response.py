"""What the response of the gradient system makes of a whole file: the phase of the field at the isocentre."""

import numpy as np
import pypulseq as pp
import pytest

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.exporting.proof import export
from trajdesign.physics.response import Response
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.response import k_of_file, phase_of_file
from trajdesign.pulseq.writer import parts
from trajdesign.scanner import Scanner

#: Field, m, and its time constant, s.
SIZES, TIME = (3e-3, -2e-3, 1e-3), 0.5e-3


def eddies(path, sizes=SIZES):
    """Write a perfect gradient system whose every change makes a field at the isocentre, which decays."""
    frequency = np.arange(0, 50e3 + 1, 5.0)
    pole = 2j * np.pi * frequency * TIME
    b0 = np.array(sizes)[:, None] * pole / (1 + pole)
    np.savez(path, frequency_hz=frequency, response=np.ones((3, len(frequency))), b0=b0)
    return {"kind": "girf", "path": str(path)}


def written(path, sequence):
    scanner, acquisition = Scanner(), Acquisition(n_shots=2, n_samples=200)
    spiral = plugins.build("init", {"kind": "spiral"}, acquisition, scanner)
    return export(spiral, path, options={"sequence": sequence}, response=eddies(path.with_suffix(".npz")))


def turned(path, when, excitation, refocusing=None):
    """Return the phase of a time, rad, in closed form: of straight lines, by pypulseq's waveforms."""
    sequence = pp.Sequence(parts.system(Scanner()))
    sequence.read(str(path))
    phase = 0.0
    for (at, value), size in zip(sequence.waveforms()[:3], SIZES, strict=True):
        slopes = np.diff(value) / np.diff(at)

        def until(end, at=at, slopes=slopes):
            # integral from 0 to `end` of (e^{-t/T} * dg/dt)
            reach = np.clip(end - at, 0, None)
            summed = reach - TIME * (1 - np.exp(-reach / TIME))
            return TIME * np.sum(slopes * (summed[:-1] - summed[1:]))

        total = until(when) - until(excitation)
        if refocusing is not None:
            total -= 2 * (until(refocusing) - until(excitation))
        phase += 2 * np.pi * size * total
    return phase


@pytest.mark.parametrize("kind", ["gre_2d", "se_2d"])
def test_a_field_that_decays_turns_the_samples_as_its_integral(tmp_path, kind):
    facts = written(tmp_path / "x.seq", {"kind": kind, "n_dummies": 0})
    file, response = player.read(tmp_path / "x.seq"), Response(eddies(tmp_path / "x.npz"))
    phase = phase_of_file(file, response)
    excitation = file.excitations[-1]
    centres = [file.block_edges[i] + pulse.centre for i, pulse in file.pulses if pulse.use == "r"]
    refocusing = centres[-1] if kind == "se_2d" else None
    assert len(centres) == (2 if kind == "se_2d" else 0)
    for sample in (0, 90, 199):
        wanted = turned(tmp_path / "x.seq", file.adcs[1].times[sample], excitation, refocusing)
        assert phase[1][sample] == pytest.approx(wanted, abs=2e-3)
    assert np.ptp(phase[1]) > 0.1
    kept = np.load(facts["k_path"])
    assert np.array_equal(kept["phase_actual"], np.stack(phase))
    assert kept["k_actual"] == pytest.approx(kept["k_adc"], abs=1e-6)


def test_a_field_of_a_gradient_itself_is_that_gradient_away_from_the_isocentre(tmp_path):
    written(tmp_path / "x.seq", {"n_dummies": 1})
    file, place = player.read(tmp_path / "x.seq"), np.array([3e-3, -2e-3, 1e-3])
    constant = np.repeat(place[:, None], 2, axis=1)
    np.savez(tmp_path / "x.npz", frequency_hz=[0.0, 5e4], response=np.ones((3, 2)), b0=constant)
    response = Response({"kind": "girf", "path": str(tmp_path / "x.npz")})
    phase, k = phase_of_file(file, response), k_of_file(file, response)
    for found, at in zip(phase, k, strict=True):
        assert found == pytest.approx(2 * np.pi * at @ place, abs=1e-3)
    assert phase_of_file(file, Response({})) is None


@pytest.mark.parametrize("kind", ["gre_2d", "se_2d"])
def test_concomitant_fields_turn_each_slice_by_the_integral_at_its_place(tmp_path, kind):
    tesla, middle = 0.1, np.array([0.02, -0.03, 0.05])
    more = {"n_slices": 3, "slice_gap": 15e-3} if kind == "gre_2d" else {}
    table = {"kind": "concomitant", "tesla": tesla, "position": middle.tolist(), "axes": [0.6, 0, -0.8, 0, 1, 0]}
    scanner, acquisition = Scanner(nucleus="23Na"), Acquisition(n_shots=2, n_samples=200, dwell=10e-6)
    spiral = plugins.build("init", {"kind": "spiral"}, acquisition, scanner)
    export(spiral, tmp_path / "x.seq", options={"sequence": {"kind": kind, **more}})
    file = player.read(tmp_path / "x.seq")
    phase, k = phase_of_file(file, Response(table)), k_of_file(file, Response(table))
    # the waveforms as pypulseq plays them, in steps of a fifth of the raster
    sequence = pp.Sequence(parts.system(scanner))
    sequence.read(str(tmp_path / "x.seq"))
    fine = 2e-6
    t = np.arange(round(file.duration / fine)) * fine + fine / 2
    told = [np.interp(t, at, value, left=0, right=0) / scanner.gamma for at, value in sequence.waveforms()[:3]]
    x_axis, y_axis = np.array([0.6, 0, -0.8]), np.array([0.0, 1, 0])
    z_axis = np.array([0.8, 0, 0.6])
    gx, gy, gz = (told[0] * x_axis[i] + told[1] * y_axis[i] + told[2] * z_axis[i] for i in range(3))

    def field(place):
        x, y, z = place[0] * x_axis + place[1] * y_axis + place[2] * z_axis
        return ((gx * z - gz * x / 2) ** 2 + (gy * z - gz * y / 2) ** 2) / (2 * tesla)

    slices = file.label("SLC")
    assert set(slices) == ({0, 1, 2} if kind == "gre_2d" else {0})
    thickness = file.numbers("SliceThickness")[0]
    centres = [(file.block_edges[i] + pulse.centre, pulse.use) for i, pulse in file.pulses]
    for event in (0, len(file.adcs) // 2, len(file.adcs) - 1):
        place = middle + np.array([0, 0, (slices[event] - 1) * (thickness + 15e-3) * (kind == "gre_2d")])
        curves = [field(place)]
        curves += [(field(place + step) - field(place - step)) / 2e-3 for step in np.eye(3) * 1e-3]
        for sample in (0, 90, 199):
            when = file.adcs[event].times[sample]
            excitation = max(at for at, use in centres if use == "e" and at < when)
            sign = np.where((t > excitation) & (t < when), 1.0, 0.0)
            for at in (at for at, use in centres if use == "r" and excitation < at < when):
                sign *= np.where(t < at, -1.0, 1.0)
            turns = [scanner.gamma * fine * np.sum(sign * curve) for curve in curves]
            assert phase[event][sample] == pytest.approx(2 * np.pi * turns[0], abs=2e-3)
            assert k[event][sample] - file.k[event][sample] == pytest.approx(turns[1:], abs=0.02)
    assert np.ptp(phase[0]) > 0.1
    assert np.abs(np.array(k) - file.k).max() > 1
    assert kind == "se_2d" or abs(phase[0][-1] - phase[-1][-1]) > 0.05
