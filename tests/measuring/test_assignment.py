"""Which ADC event of a raw file is which, on files whose events hold their own number."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pypulseq as pp
import pytest

from trajdesign.data.measured.measurement import Measurement
from trajdesign.errors import InputError
from trajdesign.measuring import assignment
from trajdesign.pulseq.reader import player

N = 8
SEQ = Path("x.seq")


def played(path, rows, labels=("LIN", "SLC", "NOISE", "NAV", "REP"), **definitions):
    """Return a file of one ADC event a row, with the labels of it in their order; all but noise are excited."""
    system = pp.Opts(adc_dead_time=10e-6, rf_dead_time=100e-6, rf_ringdown_time=20e-6)
    sequence = pp.Sequence(system)
    pulse = pp.make_block_pulse(0.2, duration=1e-3, delay=100e-6, system=system, use="excitation")
    adc = pp.make_adc(N, dwell=10e-6, delay=500e-6, system=system)
    for row in rows:
        told = dict(zip(labels, [*row, *[0] * (len(labels) - len(row))], strict=True))
        if not told.get("NOISE"):
            sequence.add_block(pulse)
        y = pp.make_trapezoid("y", area=10.0 * told["LIN"], duration=400e-6, system=system)
        sequence.add_block(adc, y, pp.make_delay(2e-3), *(pp.make_label(name, "SET", v) for name, v in told.items()))
    for name, value in {"FOV": [0.2, 0.2, 0.005], **definitions}.items():
        sequence.set_definition(name, value)
    sequence.write(str(path))
    return player.read(path)


def raw(n, n_samples=N, **facts):
    """Return as many events of two coils, each full of its own number."""
    events = np.arange(n, dtype=np.complex64)[:, None, None] * np.ones((2, n_samples), np.complex64)
    return Measurement(Path("raw.h5"), "ismrmrd", events, np.zeros((n, 2), np.int64), **facts)


def numbers(found):
    """Return the event of each frame, slice and shot."""
    return found.kspace[:, :, 0, :, 0].real.tolist()


ROWS = [(0, 0, 1), *((line, number) for line in (2, 0, 1) for number in (1, 0))]


def acquisition(file, n_shots=3):
    return assignment.Acquisition((0.2, 0.2), (8, 8), n_shots, N, 10e-6)


def test_labels_say_which_is_which(tmp_path):
    file = played(tmp_path / "x.seq", ROWS)
    found = assignment.by_sequence(raw(7), file, SEQ, acquisition(file))
    assert numbers(found) == [[[4, 6, 2], [3, 5, 1]]]
    assert found.noise.shape == (2, N)
    assert not found.noise.any()  # event 0
    assert found.kspace.shape == (1, 2, 2, 3, N)


def test_noise_of_the_scanner_itself_comes_beside_or_instead(tmp_path):
    file = played(tmp_path / "x.seq", ROWS)
    flags = {"noise": np.arange(9) < 2}
    own = assignment.by_sequence(
        raw(9, flags=flags, noise=np.ones((2, 90), np.complex64)), file, SEQ, acquisition(file)
    )
    assert numbers(own) == [[[6, 8, 4], [5, 7, 3]]]
    flags = {"noise": np.arange(7) == 0}
    less = assignment.by_sequence(raw(7, flags=flags), file, SEQ, acquisition(file))
    assert numbers(less) == [[[4, 6, 2], [3, 5, 1]]]
    without = raw(6, noise=np.ones((2, 90), np.complex64))  # a converter has kept it elsewhere
    found = assignment.by_sequence(without, file, SEQ, acquisition(file))
    assert numbers(found) == [[[3, 5, 1], [2, 4, 0]]]
    assert found.noise.shape == (2, 90)


def test_navigators_are_left_out_and_averages_averaged(tmp_path):
    rows = [(0, 0, 0, 1), (0, 0, 0, 0), (1, 0), (0, 0, 0, 1), (1, 0, 0, 0), (0, 0)]
    file = played(tmp_path / "x.seq", rows)
    found = assignment.by_sequence(raw(6), file, SEQ, acquisition(file, 2))
    assert numbers(found) == [[[3, 3]]]  # of 1 and 5, and of 2 and 4
    assert found.n_averages == 2


def test_repetitions_are_frames(tmp_path):
    rows = [(line, 0, 0, 0, repetition) for repetition in (0, 1) for line in (0, 1)]
    file = played(tmp_path / "x.seq", rows)
    found = assignment.by_sequence(raw(4), file, SEQ, acquisition(file, 2))
    assert numbers(found) == [[[0, 1]], [[2, 3]]]


def test_repetitions_of_another_k_are_refused(tmp_path):
    rows = [(line, 0, 0, 0, repetition) for repetition, lines in enumerate([(0, 1), (0, 3)]) for line in lines]
    file = played(tmp_path / "x.seq", rows)
    with pytest.raises(InputError, match=r"repetition 1 .* another k than the first, up to 4/FOV away"):
        assignment.by_sequence(raw(4), file, SEQ, acquisition(file, 2))


def test_an_array_is_in_the_order_of_its_shape(tmp_path):
    file = played(tmp_path / "x.seq", ROWS)
    found = assignment.by_sequence(raw(6, layout=(1, 2, 3)), file, SEQ, acquisition(file))
    assert numbers(found) == [[[0, 1, 2], [3, 4, 5]]]
    flat = assignment.by_sequence(raw(6, layout=(1, 1, 6)), file, SEQ, acquisition(file))  # as they were played
    assert numbers(flat) == [[[3, 5, 1], [2, 4, 0]]]


def test_pieces_are_put_together(tmp_path):
    file = played(tmp_path / "x.seq", [(0, 0), (1, 0)], MaxAdcSegmentLength=4)
    found = assignment.by_sequence(raw(4, 4), file, SEQ, acquisition(file, 2))
    assert found.kspace[0, 0, 1, 1].real.tolist() == [2] * 4 + [3] * 4


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (raw(5), r"raw.h5 has 5 ADC events, x.seq plays 7 \(1 of noise, navigators or calibration\)"),
        (raw(14), "has 14 ADC events"),
        (raw(7, 12), "has 12 samples in ADC event 1, x.seq asks for 8"),
        (replace(raw(7), events=[*raw(6).events, raw(1, 16).events[0]]), "has 1 to 2 times the samples"),
        (replace(raw(7), events=[*raw(6).events, raw(1).events[0][:1]]), "1 to 2 coils"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(tmp_path, measured, words):
    file = played(tmp_path / "x.seq", ROWS)
    with pytest.raises(InputError, match=words):
        assignment.by_sequence(measured, file, SEQ, acquisition(file))


def test_without_a_file_a_run_takes_its_own_shots_alone():
    whole = acquisition(None, 3)
    assert numbers(assignment.by_shape(raw(6, layout=(1, 2, 3)), whole, "run")) == [[[0, 1, 2], [3, 4, 5]]]
    flags = {"noise": np.arange(4) == 3}
    assert numbers(assignment.by_shape(raw(4, flags=flags), whole, "run")) == [[[0, 1, 2]]]
    with pytest.raises(InputError, match=r"has 6 shots of 8 samples, run 3 of 8; .* give the .seq file"):
        assignment.by_shape(raw(6), whole, "run")
