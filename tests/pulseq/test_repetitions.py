"""Films within heartbeats: which shot is played when, by two readers of the file, and what is refused."""

import numpy as np
import pypulseq as pp
import pytest

from trajdesign.config import plugins
from trajdesign.config.models import from_tables
from trajdesign.errors import ConfigError, LimitError
from trajdesign.exporting.proof import export
from trajdesign.pulseq.file_rules import inspect
from trajdesign.pulseq.reader import player

N_FRAMES, N_OF_FRAME, N_BEATS, N_DUMMIES = 4, 6, 3, 2
KINDS = ["gre_2d", "bssfp_2d"]


def film(**tables):
    acquisition = {"matrix": [16, 16], "n_frames": N_FRAMES, "n_shots": N_FRAMES * N_OF_FRAME, "n_samples": 160}
    init = {"kind": "planes", "turn": "golden"}
    config = from_tables({"acquisition": acquisition, "init": init, **tables})
    return plugins.build("init", config.init, config.acquisition, config.scanner)


def written(path, trajectory, **options):
    export(trajectory, path, options={"sequence": {"n_dummies": N_DUMMIES, **options}})
    return player.read(path)


@pytest.mark.parametrize("rr", [None, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_each_heartbeat_plays_its_part_of_all_frames(tmp_path, kind, rr):
    options = {"kind": kind, "n_beats": N_BEATS, "rr": rr, "n_averages": 2}
    trajectory = film()
    ours, theirs = written(tmp_path / "x.seq", trajectory, **options), pp.Sequence()
    theirs.read(str(tmp_path / "x.seq"))
    places = [(average, frame, 2 * beat + i) for average, beat, frame, i in np.ndindex(2, N_BEATS, N_FRAMES, 2)]
    k_theirs = theirs.calculate_kspace()[0].T.reshape(len(places), -1, 3)
    for labels, k in ((ours.labels, ours.k), (theirs.evaluate_labels(evolution="adc"), k_theirs)):
        assert list(zip(labels["AVG"], labels["PHS"], labels["LIN"], strict=True)) == places
        for (_, frame, line), of_shot in zip(places, k, strict=True):
            wanted = trajectory.frame(frame).k_adc[line].numpy()
            assert of_shot[:, :2] * trajectory.acquisition.fov == pytest.approx(
                wanted * trajectory.acquisition.fov, abs=1e-3
            )
    assert len(ours.waits) == (0 if rr is None else 2 * N_BEATS)
    if rr is not None:
        # between two waits lie the dummies and the shots of one beat, and of these the shots are sampled
        starts = ours.block_edges[list(ours.waits)]
        sampled = np.searchsorted(starts, [adc.times[0] for adc in ours.adcs])
        excited = np.searchsorted(starts, ours.excitations)
        n_shots = N_FRAMES * N_OF_FRAME // N_BEATS
        assert np.bincount(sampled).tolist() == [0] + [n_shots] * (2 * N_BEATS)
        n_pulses = n_shots + N_DUMMIES + (kind == "bssfp_2d")
        assert np.bincount(excited).tolist() == [0] + [n_pulses] * (2 * N_BEATS)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_several_beats_differ_from_frames_in_turn_by_their_order_alone(tmp_path, kind):
    trajectory = film()
    turns = written(tmp_path / "turns.seq", trajectory, kind=kind)
    beats = written(tmp_path / "beats.seq", trajectory, kind=kind, n_beats=N_BEATS)
    assert beats.duration == pytest.approx(turns.duration, abs=1e-9)
    of_turns, of_beats = (
        dict(zip(zip(file.label("PHS").tolist(), file.label("LIN").tolist(), strict=True), file.k, strict=True))
        for file in (turns, beats)
    )
    assert list(of_turns) != list(of_beats)
    assert of_turns.keys() == of_beats.keys()
    for place, k in of_turns.items():
        assert of_beats[place] == pytest.approx(k, abs=1e-6)


@pytest.mark.parametrize("profile", ["siemens", "ge"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_wrong_with_them(tmp_path, kind, profile):
    trajectory = film(scanner={"profile": profile})
    slices = {"n_slices": 2} if kind == "gre_2d" else {}
    file = written(tmp_path / "x.seq", trajectory, kind=kind, n_beats=N_BEATS, rr=1.0, **slices)
    assert [finding for finding in inspect(file, trajectory.scanner) if not finding.ok] == []


def test_a_pause_within_a_beat_is_refused(tmp_path, monkeypatch):
    add, n_pulses = pp.Sequence.add_block, 0

    def paused(sequence, *events):
        nonlocal n_pulses
        if is_pulse := any(getattr(event, "use", "") == "excitation" for event in events):
            n_pulses += 1
        if is_pulse and n_pulses == N_DUMMIES + 4:
            add(sequence, pp.make_delay(3e-3))
        add(sequence, *events)

    monkeypatch.setattr(pp.Sequence, "add_block", paused)
    with pytest.raises(LimitError, match="excitations not repeated after TR 1,"):
        written(tmp_path / "x.seq", film(), n_beats=N_BEATS, rr=1.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_beats": 5}, "n_beats is 5; each frame has 6 shots"),
        ({"rr": 1.0}, "n_beats is 0; each frame has 6 shots"),
        ({"n_beats": -1}, "n_beats is -1"),
        ({"n_beats": 1, "rr": 0.1}, "what is played in a heartbeat lasts 0.1143 s, rr is 0.1 s"),
        ({"n_beats": 1, "rr": 800}, "rr is 800 s.*is it in ms. Then write 0.8"),
    ],
)
def test_heartbeats_that_cannot_be_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        written(tmp_path / "x.seq", film(), **options)
    assert not (tmp_path / "x.seq").exists()


def test_a_still_image_has_no_heartbeats(tmp_path):
    config = from_tables({"acquisition": {"matrix": [16, 16], "n_shots": 6, "n_samples": 160}})
    still = plugins.build("init", config.init, config.acquisition, config.scanner)
    with pytest.raises(ConfigError, match=r"heartbeats .* are for films"):
        written(tmp_path / "x.seq", still, n_beats=2)
