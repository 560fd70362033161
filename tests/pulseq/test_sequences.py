"""Every sequence template: what it plays, seen with pypulseq alone, and what it refuses."""

import itertools

import numpy as np
import pypulseq as pp
import pytest
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.config.models import with_profile
from trajdesign.errors import ConfigError, LimitError
from trajdesign.exporting.proof import export
from trajdesign.pulseq.writer import bridges, parts
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, n_points

PATTERNS = {"gre_2d": "radial", "gre_3d": "spiral", "bssfp_2d": "radial", "ute_2d": "spiral", "se_2d": "radial"}


def pattern(name, scanner, **changes):
    acquisition = Acquisition(**{"matrix": (64, 64), "n_shots": 3, "n_samples": 400, **changes})
    return plugins.build("init", {"kind": name}, acquisition, scanner)


def volume(scanner):
    acquisition = Acquisition((0.2, 0.2, 0.16), (32, 32, 16), n_shots=3, n_samples=400)
    line = torch.linspace(-1, 1, n_points(acquisition, scanner), dtype=torch.float64)[None, :, None]
    ends = torch.tensor([[60.0, 20, 9], [-30, 70, 40], [10, 10, 45]], dtype=torch.float64)[:, None]
    return Trajectory(line * ends, acquisition, scanner, "lines")


def play(path, scanner):
    sequence = pp.Sequence(parts.system(scanner))
    sequence.read(str(path))
    return sequence


def moments(sequence, first, last):
    """Net moment of each axis, 1/m, from one time to another."""
    waveforms = sequence.waveforms()[:3]
    found = []
    for times, values in waveforms:
        inner = times[(times > first) & (times < last)]
        grid = np.concatenate([[first], inner, [last]])
        found.append(np.trapezoid(np.interp(grid, times, values, left=0, right=0), grid))
    return np.array(found)


def test_each_template_has_a_pattern_here():
    assert set(plugins.names("sequence")) == set(PATTERNS)


@pytest.mark.parametrize("version", ["1.5.0", "1.4.1"])
@pytest.mark.parametrize("profile", ["siemens", "ge", "multi"])
@pytest.mark.parametrize("name", PATTERNS)
def test_every_template_plays_the_trajectory_on_every_raster(tmp_path, name, profile, version):
    scanner = Scanner(**with_profile({"profile": profile}))
    options = {"sequence": {"kind": name, "noise_scan": True}, "pulseq_version": version}
    report = export(pattern(PATTERNS[name], scanner), tmp_path / "x.seq", options=options)
    assert report["max_k_error_fov"] < 1e-6
    assert report["reader_difference_fov"] < 1e-6
    labels = play(tmp_path / "x.seq", scanner).evaluate_labels(evolution="adc")
    assert labels["NOISE"].sum() == 1 == labels["NOISE"][0]
    assert set(labels["LIN"][1:]) == {0, 1, 2}


@pytest.mark.parametrize("name", PATTERNS)
def test_distinct_shots_are_labelled_where_the_scanner_needs_it(tmp_path, name):
    scanner = Scanner(**with_profile({"profile": "ge"}))
    export(pattern(PATTERNS[name], scanner), tmp_path / "x.seq", options={"sequence": {"kind": name, "n_dummies": 2}})
    sequence = play(tmp_path / "x.seq", scanner)
    shapes, current = {}, 0
    for key, events in sequence.block_events.items():
        block = sequence.get_block(key)
        labels = [label.value for label in (getattr(block, "label", None) or {}).values() if label.label == "TRID"]
        current = labels[0] if labels else current
        # trapezoids may differ by a factor
        gradients = tuple(
            (event.rise_time, event.flat_time, event.fall_time, event.delay) if event.type == "trap" else int(number)
            for event, number in zip((block.gx, block.gy, block.gz), events[2:5], strict=True)
            if event is not None
        )
        shapes.setdefault(current, []).append((gradients, block.adc is not None))
    # the blocks of a label are the same every time that it occurs
    for played in shapes.values():
        period = next(n for n in range(1, len(played) + 1) if played == played[:n] * (len(played) // n))
        assert period <= 6
    assert len(shapes) >= 3


def test_one_label_serves_all_partitions(tmp_path):
    scanner, table = Scanner(**with_profile({"profile": "ge"})), {"kind": "gre_3d", "n_partitions": 4, "n_dummies": 2}
    for spoiler_cycles in (0.0, 2.0):
        table["spoiler_cycles"] = spoiler_cycles
        report = export(pattern("spiral", scanner), tmp_path / f"{spoiler_cycles}.seq", options={"sequence": table})
        assert report["n_partitions"] == 4
        sequence = play(tmp_path / f"{spoiler_cycles}.seq", scanner)
        labels = sequence.evaluate_labels(evolution="blocks")["TRID"]
        assert set(labels) == {1, 2, 3, 4}  # of the dummies and three shots, where it was 13
        kz = sequence.calculate_kspace()[0][2].reshape(12, -1)
        encoded = (sequence.evaluate_labels(evolution="adc")["PAR"] - 2) / 16e-3
        assert kz == pytest.approx(np.broadcast_to(encoded[:, None], kz.shape), abs=1e-2)
        # every repetition leaves the same moment along z, from one pulse to the next
        times = sequence.rf_times()[0]
        left = [moments(sequence, *pair)[2] for pair in itertools.pairwise(times)]
        assert np.ptp(left) < 0.02
    assert left[0] == pytest.approx(2 / 4e-3 + left_by_pulse(sequence), abs=0.1)


def test_a_slab_without_encoding_and_spoiler_is_rephased_alone():
    # nothing is to be played after the shot, and so nothing to be scaled
    trajectory = pattern("spiral", Scanner())
    options = {"n_partitions": 1, "spoiler_cycles": 0.0, "n_dummies": 0}
    sequence = plugins.find("sequence", "gre_3d")(trajectory, **options)
    left = [moments(sequence, *pair)[2] for pair in itertools.pairwise(sequence.rf_times()[0])]
    assert left == pytest.approx([left_by_pulse(sequence)] * 2, abs=0.02)


def left_by_pulse(sequence):
    """Moment of the slab gradient before the pulse's centre, which nothing rephases, 1/m."""
    block = sequence.get_block(1)
    times = np.array([0, block.gz.rise_time]) + block.gz.delay
    held = block.rf.delay + block.rf.center - times[1]
    return block.gz.amplitude * (block.gz.rise_time / 2 + held)


def test_slices_are_interleaved_and_excited_where_they_are(tmp_path):
    scanner = Scanner()
    table = {"kind": "gre_2d", "n_slices": 5, "slice_gap": 1e-3, "n_dummies": 1, "tr": 0.1}
    report = export(pattern("radial", scanner), tmp_path / "x.seq", options={"sequence": table})
    assert report["n_slices"] == 5
    assert report["tr"] == pytest.approx(0.1, abs=5 * scanner.block_raster)
    sequence = play(tmp_path / "x.seq", scanner)
    # names and meaning as in Pulseq's demonstrations, whose interpreters show and shift slices by them
    wanted = {"SlicePositions": [-12e-3, -6e-3, 0, 6e-3, 12e-3], "SliceThickness": 5e-3, "SliceGap": 1e-3}
    for name, value in {**wanted, "FOV": [0.22, 0.22, 29e-3]}.items():
        assert np.atleast_1d(sequence.definitions[name]) == pytest.approx(np.atleast_1d(value), abs=1e-9)
    pulses = [block for block in map(sequence.get_block, sequence.block_events) if block.rf is not None]
    places = [block.rf.freq_offset / block.gz.amplitude for block in pulses[:5]]
    assert places == pytest.approx([-12e-3, 0, 12e-3, -6e-3, 6e-3], abs=1e-6)
    # each slice is excited at the same phase: that of the pulse's own frequency at its centre is taken off
    phases = [block.rf.phase_offset + 2 * np.pi * block.rf.freq_offset * block.rf.center for block in pulses[:5]]
    assert np.exp(1j * np.array(phases)) == pytest.approx(np.ones(5), abs=1e-4)
    assert sequence.evaluate_labels(evolution="adc")["SLC"][:5].tolist() == [0, 2, 4, 1, 3]
    assert np.diff(sequence.rf_times()[0][::5]) == pytest.approx(report["tr"])


def test_a_stack_encodes_its_partitions_and_a_volume_itself(tmp_path):
    scanner = Scanner()
    table = {"kind": "gre_3d", "n_partitions": 4, "partition_thickness": 3e-3}
    report = export(pattern("spiral", scanner), tmp_path / "x.seq", options={"sequence": table})
    assert report["n_partitions"] == 4
    sequence = play(tmp_path / "x.seq", scanner)
    kz = sequence.calculate_kspace()[0][2].reshape(12, -1)
    encoded = (sequence.evaluate_labels(evolution="adc")["PAR"] - 2) / 12e-3
    assert kz == pytest.approx(np.broadcast_to(encoded[:, None], kz.shape), abs=1e-3)
    trajectory = volume(scanner)
    report = export(trajectory, tmp_path / "y.seq", options={"sequence": "gre_3d"})
    assert report["max_k_error_fov"] < 1e-6
    assert play(tmp_path / "y.seq", scanner).definitions["FOV"] == pytest.approx([0.2, 0.2, 0.16])


def test_bssfp_is_balanced_and_its_start_is_half_a_repetition_early(tmp_path):
    scanner = Scanner()
    table = {"kind": "bssfp_2d", "n_dummies": 2, "flip_angle_deg": 50.0}
    report = export(pattern("radial", scanner), tmp_path / "x.seq", options={"sequence": table})
    sequence = play(tmp_path / "x.seq", scanner)
    times = sequence.rf_times()[0]
    assert np.diff(times) == pytest.approx([report["tr"] / 2, *[report["tr"]] * 4], abs=1.1 * scanner.block_raster)
    for first, last in itertools.pairwise(times[1:]):
        assert moments(sequence, first, last) == pytest.approx(np.zeros(3), abs=1e-3)
    pulses = [block.rf for block in map(sequence.get_block, sequence.block_events) if block.rf is not None]
    flips = [360 * abs(pulse.signal.sum()) * scanner.rf_raster for pulse in pulses]
    assert flips == pytest.approx([25, *[50] * 5], rel=1e-4)
    assert np.cos([pulse.phase_offset for pulse in pulses]) == pytest.approx([-1, 1, -1, 1, -1, 1])


def test_ute_samples_at_once_and_half_pulses_add_up_to_a_slice(tmp_path):
    scanner = Scanner()
    trajectory = pattern("spiral", scanner)
    report = export(trajectory, tmp_path / "x.seq", options={"sequence": {"kind": "ute_2d", "n_dummies": 1}})
    assert report["te"] < 0.3e-3
    sequence = play(tmp_path / "x.seq", scanner)
    labels = sequence.evaluate_labels(evolution="adc")
    assert (labels["LIN"].tolist(), labels["SET"].tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1] * 3)
    pulses = [block for block in map(sequence.get_block, sequence.block_events) if block.rf is not None]
    assert [np.sign(block.gz.amplitude) for block in pulses] == [1, -1] * 4
    # small flip angles: the slice is the Fourier transform of the pulse over the gradient's k, from both excitations
    block = pulses[0]
    z = np.linspace(-10e-3, 10e-3, 201)
    k = block.gz.amplitude * (block.rf.shape_dur - block.rf.t)
    profile = sum(np.exp(sign * 2j * np.pi * np.outer(z, k)) @ block.rf.signal for sign in (1, -1))
    profile = np.abs(profile) / np.abs(profile[100])
    assert np.abs((np.exp(2j * np.pi * np.outer(z, k)) @ block.rf.signal).imag).max() > 100 * np.abs(profile.imag).max()
    assert profile[np.abs(z) < 1e-3].min() > 0.9
    assert profile[np.abs(z) > 6e-3].max() < 0.05
    half = np.abs(z[np.argmin(np.abs(profile[:101] - 0.5))])
    assert 2 * half == pytest.approx(5e-3, rel=0.05)
    short = export(trajectory, tmp_path / "y.seq", options={"sequence": {"kind": "ute_2d", "pulse": "hard"}})
    assert short["te"] < report["te"]


def test_the_spin_echo_forms_when_the_centre_is_sampled(tmp_path):
    scanner = Scanner()
    trajectory = pattern("radial", scanner)
    for te in (None, 0.02):
        path = tmp_path / f"{te}.seq"
        report = export(trajectory, path, options={"sequence": {"kind": "se_2d", "te": te}})
        sequence = play(path, scanner)
        k, _, excitations, refocusings, times = sequence.calculate_kspace()
        excitations = np.array(excitations)
        echoes = 2 * (np.array(refocusings) - excitations)
        assert echoes == pytest.approx(np.full(3, report["te"]), abs=1e-9)
        nearest = np.argmin(np.linalg.norm(k.reshape(3, 3, -1), axis=0).sum(axis=0))
        centres = times.reshape(3, -1)[:, nearest] - excitations
        assert centres == pytest.approx(echoes, abs=1e-9)
    assert report["te"] == pytest.approx(0.02, abs=2 * scanner.block_raster)


@pytest.mark.parametrize("name", ["gre_2d", "se_2d", "bssfp_2d"])
def test_te_is_when_all_shots_pass_the_centre_between_two_samples(tmp_path, name):
    scanner = Scanner()
    radial = pattern("radial", scanner)
    speed = radial.gradient[:, :1] * scanner.gamma
    late = radial.with_points(0.98 * (radial.points - 1.3e-6 * speed))  # of 4 us from sample to sample
    report = export(late, tmp_path / "x.seq", options={"sequence": {"kind": name}})
    sequence = play(tmp_path / "x.seq", scanner)
    k, _, excitations, refocusings, times = sequence.calculate_kspace()
    k, times = k.reshape(3, -1, 400)[:2], times.reshape(-1, 400)
    for shot in range(3):  # a line through the centre: its distance, signed, is 0 there
        line = k[:, shot, -1] - k[:, shot, 0]
        signed = line @ k[:, shot] / np.linalg.norm(line)
        passed = np.interp(0.0, signed, times[shot])
        assert (passed - times[shot]).min() != 0
        before = [time for time in excitations if time < passed]
        if name == "se_2d":  # what the raster of pulses leaves
            assert 2 * (refocusings[shot] - before[-1]) == pytest.approx(report["te"], abs=1e-9)
            assert passed - before[-1] == pytest.approx(report["te"], abs=0.501 * scanner.rf_raster)
        else:
            assert passed - before[-1] == pytest.approx(report["te"], abs=2e-9)


def test_three_dimensions_meet_the_limits_as_vectors():
    scanner = Scanner(max_slew=120.0)
    trajectory = volume(scanner)
    shots = bridges.design(trajectory, gz_prephaser=40.0, gz_rewinder=100.0)
    slew = np.diff(shots.gradient, axis=1) / scanner.gradient_raster
    assert np.linalg.norm(slew, axis=2).max() <= scanner.max_slew * 0.7 * 1.001
    moment = scanner.gamma * scanner.gradient_raster
    before = moment * shots.gradient[:, : shots.n_prephaser].sum(axis=1)
    assert before == pytest.approx(trajectory.points[:, 0].numpy() + np.array([0, 0, 40.0]), abs=1e-9)
    assert moment * shots.gradient.sum(axis=1) == pytest.approx(np.tile([0, 0, 140.0], (3, 1)), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        ("gre_2d", {"tr": 1e-3}, "tr is .*the shortest possible is"),
        ("gre_2d", {"n_slices": 0}, "n_slices is 0"),
        ("gre_3d", {"n_partitions": 0}, "n_partitions is 0"),
        ("gre_3d", {"te": 1e-4}, "te is 0.0001 s; the shortest possible is"),
        ("bssfp_2d", {"flip_angle_deg": 120.0}, "flip_angle_deg is 120"),
        ("bssfp_2d", {"te": 5e-3}, "no option"),
        ("se_2d", {"te": 2e-3}, "te is 0.002 s; the shortest possible is"),
        ("se_2d", {"rf_duration": 2.0}, "is it in ms"),
        ("se_2d", {"te": 30.0}, r"te is 30 s, outside .* 0\.5 s; is it in ms\? Then write 0\.03\."),
        ("gre_2d", {"te": 5.0}, r"te is 5 s, .* in ms\? Then write 0\.005\."),
        ("gre_3d", {"te": 5.0}, "te is 5 s, .* in ms"),
        ("gre_2d", {"tr": 20.0}, "tr is 20 s, .* in ms"),
        ("gre_2d", {"tr": 8.0}, r"tr is 8 s, .* to 4 s; is it in ms\? Then write 0\.008\."),
        ("gre_2d", {"tr": 8.0, "n_slices": 20}, r"tr is 8 s, .* to 4 s; is it in ms"),
        ("gre_2d", {"tr": 11.0, "n_slices": 500}, r"tr is 11 s, .* to 10 s; is it in ms"),
        ("se_2d", {"tr": 12.0}, "tr is 12 s, .* to 10 s; is it in ms"),
        ("se_2d", {"tr": 500.0}, "tr is 500 s, .* in ms"),
        ("gre_3d", {"tr": 8.0}, "tr is 8 s, .* to 1 s; is it in ms"),
        ("bssfp_2d", {"tr": 5.0}, r"tr is 5 s, .* to 0\.2 s; is it in ms"),
        ("ute_2d", {"tr": 5.0}, "tr is 5 s, .* to 1 s; is it in ms"),
        ("gre_2d", {"tr": float("nan")}, "tr: Input should be a finite number"),
        ("gre_2d", {"flip_angle_deg": 0.0}, "flip_angle_deg is 0 degrees"),
        ("gre_2d", {"flip_angle_deg": 0.2618}, r"flip_angle_deg is 0\.2618 degrees, .* in rad\? Then write 15\."),
        ("ute_2d", {"flip_angle_deg": 0.1}, r"flip_angle_deg is 0\.1 degrees, .* in rad\? Then write 5\.7"),
        ("gre_2d", {"slice_thickness": 5.0}, "slice_thickness is 5 m, .* in mm"),
        ("bssfp_2d", {"slice_thickness": 5.0}, "slice_thickness is 5 m, .* in mm"),
        ("gre_2d", {"slice_gap": 1.0}, "slice_gap is 1 m, .* in mm"),
        ("gre_2d", {"slice_gap": -1e-3}, "slice_gap is -0.001 m"),
        ("gre_3d", {"partition_thickness": 4.0}, "partition_thickness is 4 m, .* in mm"),
        ("gre_2d", {"spoiler_cycles": 720.0}, r"spoiler_cycles is 720 .* in degrees\? Then write 2\."),
        ("se_2d", {"crusher_cycles": -1.0}, "crusher_cycles is -1"),
        ("ute_2d", {"bridge_slew": 70.0}, r"bridge_slew is 70 .* in percent\? Then write 0\.7"),
        ("gre_2d", {"n_slices": 1000}, "n_slices is 1000"),
        ("se_2d", {"n_dummies": 10**6}, "n_dummies is 1e.06"),
        ("gre_2d", {"n_slices": 5, "tr": 0.02}, r"tr is 0\.02 s; the shortest possible is 0\.0[2-9]"),
        ("ute_2d", {}, "from the centre out; radial starts"),
        ("ute_2d", {"pulse": "soft"}, "pulse"),
    ],
)
def test_impossible_wishes(tmp_path, kind, options, match):
    with pytest.raises(ConfigError, match=match):
        export(pattern("radial", Scanner()), tmp_path / "x.seq", options={"sequence": {"kind": kind, **options}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gre_2d", {"tr": 3.0}),  # echo-planar, of a brain
        ("gre_2d", {"tr": 6.0, "n_slices": 60}),
        ("gre_2d", {"flip_angle_deg": 0.5}),  # hyperpolarized gas
        ("se_2d", {"tr": 8.0, "te": 0.1}),  # T2 weighting
        ("gre_3d", {"tr": 0.5}),
    ],
)
def test_long_repetitions_and_small_angles_that_exist_are_played(tmp_path, kind, options):
    table = {"kind": kind, "n_dummies": 0, **({"n_partitions": 2} if kind == "gre_3d" else {}), **options}
    report = export(pattern("radial", Scanner(), n_shots=2), tmp_path / "x.seq", options={"sequence": table})
    if "tr" in options:
        assert report["tr"] == pytest.approx(options["tr"], abs=1e-3)


def test_a_slice_too_thin_for_the_gradient(tmp_path):
    weak = Scanner(max_gradient=10e-3, nucleus="17O")
    still = Trajectory(torch.zeros(3, n_points(Acquisition(n_shots=3), weak), 2).double(), Acquisition(n_shots=3), weak)
    with pytest.raises(LimitError, match=r"needs 0\.06927 T/m .* rf_duration at least 0\.014 s"):
        export(still, tmp_path / "x.seq")
    table = {"kind": "gre_2d", "rf_duration": 0.014}
    assert export(still, tmp_path / "x.seq", options={"sequence": table})["max_gradient"] <= 10e-3


def test_sites_have_profiles_of_their_own(tmp_path):
    site = tmp_path / "site.toml"
    site.write_text('profile = "ge"\nmax_slew = 150.0\n')
    scanner = Scanner(**with_profile({"profile": str(site), "max_gradient": 30e-3}))
    assert (scanner.gradient_raster, scanner.max_slew, scanner.max_gradient) == (4e-6, 150.0, 30e-3)
    assert scanner.label_segments
    assert Scanner(**with_profile({"profile": "siemens"})) == Scanner()
    site.write_text(f'profile = "{site}"\n')
    for name, match in (("simens", "did you mean 'siemens'"), (str(site), "builds on a built-in one")):
        with pytest.raises(ConfigError, match=match):
            with_profile({"profile": name})
