"""The calibration scan of every template: k, labels and rules, and that the imaging after it stays what it was."""

import re

import numpy as np
import pypulseq as pp
import pytest
from test_sequences import PATTERNS, pattern, play, volume

from trajdesign.config.models import with_profile
from trajdesign.errors import ConfigError, LimitError
from trajdesign.exporting.proof import export
from trajdesign.pulseq.checks import describe
from trajdesign.pulseq.file_rules import inspect
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.writer import parts
from trajdesign.scanner import Scanner
from trajdesign.trajectories.formats import pulseq

LINES = 12
#: How often the lines are played: options, slices, partitions, and the thickness of all partitions, m.
PARTS = {"gre_2d": ({"n_slices": 3, "slice_gap": 1e-3}, 3, 1, 5e-3), "gre_3d": ({"n_partitions": 4}, 1, 4, 16e-3)}


def options(name, **more):
    return {"sequence": {"kind": name, "noise_scan": True, "n_dummies": 2, **PARTS.get(name, ({},))[0], **more}}


def events_of(block):
    """Return what a block plays and samples, as far as a scanner sees it, but for the numbers of segments."""
    found = {"duration": block.block_duration}
    for kind in ("rf", "gx", "gy", "gz", "adc"):
        event = getattr(block, kind)
        held = {} if event is None else vars(event)
        found[kind] = {key: np.asarray(held[key]).tolist() for key in held if "id" not in key.lower()}
    labels = (getattr(block, "label", None) or {}).values()
    found["labels"] = sorted((label.label, label.value) for label in labels if label.label != "TRID")
    return found


@pytest.mark.parametrize("profile", ["siemens", "ge", "multi"])
@pytest.mark.parametrize("name", PATTERNS)
def test_calibration_is_played_before_an_imaging_that_stays_as_it_is(tmp_path, name, profile):
    scanner = Scanner(**with_profile({"profile": profile}))
    trajectory = pattern(PATTERNS[name], scanner)
    plain = export(trajectory, tmp_path / "plain.seq", options=options(name))
    report = export(trajectory, tmp_path / "x.seq", options=options(name, calibration=LINES))
    assert (report["te"], report["tr"]) == (plain["te"], plain["tr"])
    assert report["max_k_error_fov"] < 1e-6
    file = player.read(tmp_path / "x.seq")
    assert [describe(check) for check in inspect(file, scanner) if not check.ok] == []
    sequence = play(tmp_path / "x.seq", scanner)
    assert sequence.check_timing()[0]
    _, n_slices, n_partitions, slab = PARTS.get(name, ({}, 1, 1, 5e-3))

    # the labels, as pypulseq reads them
    labels = sequence.evaluate_labels(evolution="adc")
    n_played = LINES * n_slices * n_partitions
    assert labels["NOISE"].tolist() == [1] + [0] * (len(file.adcs) - 1)
    assert labels["REF"].tolist() == [0] + [1] * n_played + [0] * (len(file.adcs) - 1 - n_played)
    assert "IMA" not in labels
    calibrated = slice(1, 1 + n_played)
    zero = np.zeros(len(file.adcs), dtype=int)
    line, number, partition = (labels.get(label, zero)[calibrated] for label in ("LIN", "SLC", "PAR"))
    assert sorted(zip(partition, line, number, strict=True)) == [
        (p, i, n) for p in range(n_partitions) for i in range(LINES) for n in range(n_slices)
    ]

    # k, as both readers find it, is that of the lines
    theirs, counts = sequence.calculate_kspace()[0].T, [adc.count for adc in file.adcs]
    theirs = np.split(theirs, np.cumsum(counts)[:-1])[calibrated]
    n_samples, fov = counts[1], np.array(trajectory.acquisition.fov)
    assert n_samples >= 2 * LINES
    assert n_samples % (2 * LINES) == 0
    x = (np.arange(n_samples) - n_samples // 2) * LINES / n_samples / fov[0]
    for k in (np.stack(theirs), np.stack(file.k[calibrated])):
        assert np.abs(k[..., 0] - x).max() * fov[0] < 1e-4
        assert np.abs(k[..., 1] - (line[:, None] - LINES // 2) / fov[1]).max() * fov[1] < 1e-4
        assert np.abs(k[..., 2] - (partition[:, None] - n_partitions // 2) / slab).max() * slab < 1e-3
    assert np.abs(np.stack(theirs) - np.stack(file.k[calibrated])).max() * fov[0] < 1e-5

    # what comes after it is what it was
    without = play(tmp_path / "plain.seq", scanner)
    numbers = list(without.block_events)[2:]  # after the noise scan
    for old, new in zip(numbers, list(sequence.block_events)[-len(numbers) :], strict=True):
        assert events_of(without.get_block(old)) == events_of(sequence.get_block(new))


def test_a_volume_is_calibrated_in_three_dimensions(tmp_path):
    trajectory = volume(Scanner())
    for options_of in ({"kind": "gre_3d"}, {"kind": "ute_2d", "pulse": "hard"}):
        if options_of["kind"] == "ute_2d":  # which starts in the centre
            trajectory = trajectory.with_points((trajectory.points - trajectory.points[:, :1]) / 4)
        export(trajectory, tmp_path / "x.seq", options={"sequence": {**options_of, "calibration": 8}}, overwrite=True)
        file = player.read(tmp_path / "x.seq")
        assert [describe(check) for check in inspect(file, Scanner()) if not check.ok] == []
        chosen = np.flatnonzero(file.is_calibration)
        assert len(chosen) == 64
        kz = np.stack([file.k[i][:, 2] for i in chosen]) * 0.16
        assert kz == pytest.approx(np.broadcast_to(file.label("PAR")[chosen][:, None] - 4.0, kz.shape), abs=1e-3)


def test_of_many_partitions_the_central_ones_are_calibrated(tmp_path):
    options_of = {"kind": "gre_3d", "n_partitions": 13, "calibration": 8, "n_dummies": 0}
    export(pattern("spiral", Scanner()), tmp_path / "x.seq", options={"sequence": options_of})
    file = player.read(tmp_path / "x.seq")
    numbers = file.label("PAR")[file.is_calibration]
    assert np.unique(numbers).tolist() == list(range(2, 10))
    kz = np.stack([file.k[i][0, 2] for i in np.flatnonzero(file.is_calibration)])
    assert kz * 13 * 4e-3 == pytest.approx(numbers - 6.0, abs=1e-3)


def test_a_short_readout_does_not_make_interpreters_split_the_calibration(tmp_path):
    trajectory = pattern("radial", Scanner(), n_samples=64, dwell=10e-6)
    export(trajectory, tmp_path / "x.seq", options={"sequence": {"calibration": 16}})
    file = player.read(tmp_path / "x.seq")
    longest = max(adc.count for adc in file.adcs)
    assert longest > 64
    assert file.numbers("MaxAdcSegmentLength") == (longest,)


@pytest.mark.parametrize(
    ("n_lines", "words"),
    [(13, "an even number, at least 8"), (6, "an even number, at least 8"), (-2, "outside"), (512, "outside")],
)
def test_impossible_calibrations(tmp_path, n_lines, words):
    with pytest.raises(ConfigError, match=rf"calibration is {n_lines} lines.*{words}"):
        export(pattern("radial", Scanner()), tmp_path / "x.seq", options={"sequence": {"calibration": n_lines}})
    assert not list(tmp_path.iterdir())


def test_a_weak_gradient_system_samples_the_lines_more_often(tmp_path):
    scanner = Scanner(max_gradient=4e-3)
    trajectory = pattern("radial", scanner, n_samples=2000, matrix=(32, 32))
    table = {"kind": "gre_2d", "rf_duration": 1e-2, "slice_thickness": 10e-3, "calibration": 32}
    export(trajectory, tmp_path / "x.seq", options={"sequence": table})
    file = player.read(tmp_path / "x.seq")
    assert [describe(check) for check in inspect(file, scanner) if check.verdict == "broken"] == []
    chosen = int(np.flatnonzero(file.is_calibration)[0])
    step = np.diff(file.k[chosen][:, 0])
    assert step / scanner.gamma / 4e-6 == pytest.approx(np.full(len(step), step[0] / scanner.gamma / 4e-6), rel=1e-3)
    assert step[0] / scanner.gamma / 4e-6 <= 2e-3 * (1 + 1e-6)


def test_a_calibration_that_readers_take_differently_is_refused(tmp_path, monkeypatch):
    real = pulseq._k_of_pypulseq
    monkeypatch.setattr(pulseq, "_k_of_pypulseq", lambda *given: real(*given) + np.array([0.01 / 0.22, 0, 0]))
    with pytest.raises(LimitError, match=r"differ by 0\.01/FOV in k of calibration event 0"):
        export(pattern("radial", Scanner()), tmp_path / "x.seq", options={"sequence": {"calibration": 8}})


@pytest.mark.parametrize("name", PATTERNS)
def test_averages_are_labelled_and_play_the_same(tmp_path, name):
    trajectory, scanner = pattern(PATTERNS[name], Scanner()), Scanner()
    once = export(trajectory, tmp_path / "1.seq", options=options(name, n_averages=1))
    report = export(trajectory, tmp_path / "2.seq", options=options(name, n_averages=2, calibration=8))
    assert report["n_averages"] == 2
    assert (report["te"], report["tr"]) == (once["te"], once["tr"])
    assert not re.search(r"\bAVG\b", (tmp_path / "1.seq").read_text())
    labels = [play(tmp_path / f"{n}.seq", scanner).evaluate_labels(evolution="adc") for n in (1, 2)]
    counters = sorted({"LIN", "SLC", "PAR", "SET"} & labels[0].keys())
    one = np.stack([labels[0][counter] for counter in counters], axis=1)[1:]  # after the noise scan
    two = np.stack([labels[1][counter] for counter in counters], axis=1)[-2 * len(one) :]
    assert two.tolist() == [*one.tolist(), *one.tolist()]
    assert labels[1]["AVG"][-2 * len(one) :].tolist() == [0] * len(one) + [1] * len(one)
    files = [player.read(tmp_path / f"{n}.seq") for n in (1, 2)]
    k = [np.stack(list(file.k)[-n * len(one) :]) for n, file in enumerate(files, start=1)]
    assert np.abs(k[1] - np.concatenate([k[0], k[0]])).max() * trajectory.acquisition.fov[0] < 1e-6
    assert [describe(check) for check in inspect(files[1], scanner) if not check.ok] == []
    with pytest.raises(ConfigError, match="n_averages is 0"):
        export(trajectory, tmp_path / "0.seq", options=options(name, n_averages=0))


def test_a_fast_calibration_is_no_sign_of_late_echoes(tmp_path):
    """One of four echoes comes later than the repetition time of the calibration, which most excitations are of."""
    system = parts.system(Scanner())
    sequence, pulse = (
        pp.Sequence(system),
        pp.make_block_pulse(0.2, delay=1e-4, duration=1e-4, use="excitation", system=system),
    )
    for is_calibration, times, tr in [(1, [1e-3], 3e-3)] * 40 + [(0, [1e-3, 2e-3, 3e-3, 7e-3], 20e-3)] * 8:
        start = 0.0
        for count, time in enumerate(times):
            label = [pp.make_label("ECO", "SET", count), pp.make_label("REF", "SET", is_calibration)]
            if not count:
                sequence.add_block(pulse)
                start = pp.calc_duration(pulse)
            adc = pp.make_adc(16, dwell=1e-5, delay=time - start, system=system)
            sequence.add_block(adc, *label)
            start += parts.ceil(pp.calc_duration(adc), 1e-5)
        sequence.add_block(pp.make_delay(round(tr - start, 5)))
    sequence.write(str(tmp_path / "x.seq"))
    found = {check.name: check for check in inspect(player.read(tmp_path / "x.seq"), Scanner())}
    assert found["ADC events at another time"].ok
