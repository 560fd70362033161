"""Films whose heart beats by its own clock: scanned, and sorted by the phase in which each shot was measured."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import ismrmrd
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.measuring.test_volumes_and_films import sums
from trajdesign.acquisition import Acquisition
from trajdesign.cli.app import app
from trajdesign.config import plugins
from trajdesign.data.measured import reading
from trajdesign.data.measured.measurement import Measurement
from trajdesign.errors import ConfigError, InputError
from trajdesign.exporting.proof import export
from trajdesign.measuring import consistency, gating, places, solving
from trajdesign.measuring.heartbeats import TICK, Heartbeats
from trajdesign.measuring.reconstruct import reconstruct
from trajdesign.measuring.virtual_scan import scan
from trajdesign.pulseq.reader import player
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.planes import planes

N, N_COILS, N_FRAMES, OF_FRAME, N_AVERAGES, TR = 16, 3, 4, 14, 4, 0.02
# s; the scan lasts 4.5 s and begins and ends within beats that are not whole
R_WAVES = 0.0713 + np.cumsum([0, 0.41, 0.37, 0.43, 0.39, 0.36, 0.44, 0.37, 0.42, 0.40, 0.38])


def nrmse(found, wanted):
    """Return the error after the best scale."""
    best = np.vdot(found, wanted) / np.vdot(found, found)
    return np.linalg.norm(best * found - wanted) / np.linalg.norm(wanted)


def frame_of(time, r_waves=R_WAVES, n_frames=N_FRAMES):
    """Return the frame of a time; None where it is in no whole beat."""
    for start, end in itertools.pairwise(r_waves):
        if start <= time < end:
            return int((time - start) / (end - start) * n_frames)
    return None


def excitations(file):
    """Return the time of the pulse before each ADC event, s, from the blocks of the file."""
    centres = [file.block_edges[block] + pulse.centre for block, pulse in file.pulses]
    return np.array([max(t for t in centres if t < adc.times[0]) for adc in file.adcs])


def written(path, trajectory, **sequence):
    table = {"kind": "gre_2d", "n_dummies": 1, "n_averages": N_AVERAGES, "tr": TR, **sequence}
    export(trajectory, path, options={"sequence": table})
    return path


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """Return folder, R waves in ``beats.txt``, and the scan of a film of a blob that runs round in each beat."""
    folder = tmp_path_factory.mktemp("gating")
    acquisition = Acquisition((0.25, 0.25), (N, N), OF_FRAME * N_FRAMES, 160, 4e-6, N_FRAMES)
    film = planes(acquisition, Scanner(), pattern={"kind": "radial"}, turn="golden")
    y, x = np.mgrid[:N, :N] - N // 2
    turns = 2 * np.pi * np.arange(N_FRAMES) / N_FRAMES
    body = np.exp(-(((x**2 + y**2) / 6.0**2) ** 2))
    moving = [np.exp(-((x - 3 * np.cos(turn)) ** 2 + (y - 3 * np.sin(turn)) ** 2) / 2**2) for turn in turns]
    np.save(folder / "object.npy", (0.3 * body + np.array(moving))[None].astype(np.float32))
    np.savetxt(folder / "beats.txt", R_WAVES)
    seq = written(folder / "x.seq", film, noise_scan=True)
    options = {"object": str(folder / "object.npy"), "n_coils": N_COILS, "out": folder / "scan"}
    return folder, scan(seq, beats=folder / "beats.txt", **options)


def sorted_(folder, beats, seq="x.seq"):
    """Return the samples in their places, and the encodings."""
    return places.by_file(reading.read(folder / "scan" / "raw.h5"), folder / seq, None, None, {}, beats)


def images(folder, to, beats):
    found = reconstruct(folder / "scan" / "raw.h5", seq=folder / "x.seq", beats=beats, out=to)
    return found.images["cg_sense"][:, 0], found.facts


def test_the_raw_data_are_the_frames_in_progress_and_tell_the_time_since_the_r_wave(tmp_path):
    acquisition = Acquisition((0.25, 0.25), (N, N), 3 * N_FRAMES, 160, 4e-6, N_FRAMES)
    film = planes(acquisition, Scanner(), pattern={"kind": "radial"}, turn="golden")
    seq = written(tmp_path / "x.seq", film, n_slices=2)
    r_waves = np.array([0.1002, 0.3213, 0.6034])
    np.savetxt(tmp_path / "beats.txt", r_waves)
    scan(seq, beats=tmp_path / "beats.txt", n_coils=N_COILS, out=tmp_path / "scan")
    objects = plugins.build("data", {"kind": "phantom", "n_coils": N_COILS}, acquisition, "test")
    coil_images = objects[len(objects) // 2].numpy().astype(complex)
    file = player.read(seq)
    # beats outside are as long as the nearest one
    whole = np.concatenate([0.1002 - 0.2211 * np.arange(3, 0, -1), r_waves, 0.6034 + 0.2821 * np.arange(1, 20)])
    frames = [frame_of(time, whole) for time in excitations(file)]
    assert sorted(set(frames)) == list(range(N_FRAMES))
    wanted = np.stack(
        [sums(coil_images[:, frame], k[:, :2], acquisition.fov) for frame, k in zip(frames, file.k, strict=True)]
    )
    # slices that are excited elsewhere hold the same object
    with ismrmrd.Dataset(str(tmp_path / "scan" / "raw.h5"), create_if_needed=False) as raw:
        events = [raw.read_acquisition(i) for i in range(raw.number_of_acquisitions())]
    assert np.linalg.norm(np.stack([event.data for event in events]) - wanted) < 1e-5 * np.linalg.norm(wanted)
    assert (np.array([event.idx.phase for event in events]) != frames).mean() > 0.5
    since = [adc.times[0] - whole[whole <= adc.times[0]].max() for adc in file.adcs]
    stamps = [event.physiology_time_stamp[0] for event in events]
    assert stamps == [int(time / 2.5e-3) for time in since]
    assert reading.read(tmp_path / "scan" / "raw.h5").stamps.tolist() == stamps


def test_each_shot_lies_in_the_frame_of_its_phase_at_its_own_k(scanned):
    folder, _ = scanned
    found, encodings = sorted_(folder, folder / "beats.txt")
    file, raw = player.read(folder / "x.seq").for_image(), reading.read(folder / "scan" / "raw.h5")
    events = raw.events[~raw.flags["noise"]]
    frames = [frame_of(time) for time in excitations(file)]
    groups = [[i for i, frame in enumerate(frames) if frame == one] for one in range(N_FRAMES)]
    most = max(map(len, groups))
    wanted = np.array([[one[i % len(one)] for i in range(most)] for one in groups])  # short ones repeat their own
    assert found.acquisition.n_shots == wanted.size
    kspace = found.kspace[0, 0].numpy().reshape(N_COILS, N_FRAMES, most, -1)
    k = (encodings[0].omega.double() / (2 * np.pi) * N / 0.25).numpy().reshape(N_FRAMES, most, -1, 2)
    for frame in range(N_FRAMES):
        order = np.sort(wanted[frame]), found.events[0].reshape(N_FRAMES, most)[frame]
        assert order[0].tolist() == sorted(order[1].tolist())
        assert np.array_equal(kspace[:, frame], events[order[1]].swapaxes(0, 1))
        told = np.stack([file.k[i][:, :2] for i in order[1]])
        assert np.abs(k[frame] - told).max() * 0.25 < 1e-3
    counts = [len(one) for one in groups]
    assert found.gating["shots"] == [min(counts), max(counts)]
    assert found.gating["left_out"] == frames.count(None) > 0
    assert found.gating["n_beats"] == 10
    assert found.gating["rr"] == pytest.approx([0.36, 0.44])
    assert min(counts) < max(counts)


def test_slices_are_sorted_each_by_its_own_shots(tmp_path):
    acquisition = Acquisition((0.25, 0.25), (N, N), 5 * N_FRAMES, 160, 4e-6, N_FRAMES)
    film = planes(acquisition, Scanner(), pattern={"kind": "radial"}, turn="golden")
    seq = written(tmp_path / "x.seq", film, n_slices=2)
    np.savetxt(tmp_path / "beats.txt", R_WAVES)
    file = player.read(seq)
    n = len(file.adcs)
    events = np.arange(n, dtype=np.complex64)[:, None, None] * np.ones((1, 160), np.complex64)  # their own number
    raw = Measurement(Path("raw.h5"), "ismrmrd", events, np.zeros((n, 2), np.int64))
    found, encodings = places.by_file(raw, seq, None, None, {}, tmp_path / "beats.txt")
    frames = [frame_of(time) for time in excitations(file)]
    k = [(one.omega.double() / (2 * np.pi) * N / 0.25).numpy() for one in encodings]
    counts = []
    for number in range(2):
        events_of = found.kspace[0, number, 0, :, 0].real.int().numpy().reshape(N_FRAMES, -1)
        for frame, shots in enumerate(events_of):
            of_slice = [i for i in range(n) if file.labels["SLC"][i] == number and frames[i] == frame]
            assert set(shots) == set(of_slice)
            counts.append(len(of_slice))
        told = np.stack([file.k[i][:, :2] for i in events_of.ravel()])
        assert np.abs(k[number] - told).max() * 0.25 < 1e-3
    assert found.gating["shots"] == [min(counts), max(counts)] == [min(counts), events_of.shape[1]]
    assert found.gating["left_out"] == n - sum(counts) > 0


def test_the_film_of_a_heart_of_its_own_clock_is_sharp_if_its_beats_are_known(scanned, tmp_path):
    folder, found = scanned
    truth = found.reference
    still = np.repeat(truth.mean(0, keepdims=True), N_FRAMES, 0)
    by_labels, plain = images(folder, tmp_path / "labels", None)
    by_file, facts = images(folder, tmp_path / "file", folder / "beats.txt")
    words = ["reconstruct", folder / "scan" / "raw.h5", "--seq", folder / "x.seq", "--beats", "stamps"]
    said = CliRunner().invoke(app, [str(word) for word in [*words, "--out", tmp_path / "stamps"]])
    assert said.exit_code == 0
    of_stamps = json.loads((tmp_path / "stamps" / "reconstruct.json").read_text())
    by_stamps = np.load(tmp_path / "stamps" / "image.npz")["cg_sense"][:, 0]
    blurred = nrmse(by_labels, truth)
    assert blurred > 0.8 * nrmse(still, truth)  # no more is left of the motion than in the mean
    assert nrmse(by_file, truth) < blurred / 20
    assert nrmse(by_stamps, truth) < blurred / 20
    assert plain.gating is None
    assert facts.warnings == of_stamps["warnings"] == []
    # the beat in which the scan begins is known by stamps alone, and the last one is not, to half a tick and rounding
    assert of_stamps["gating"]["rr"] == pytest.approx([0.36, 0.44], abs=2.5e-3)
    fewest, most = of_stamps["gating"]["shots"]
    assert f"to 0.44 s, {fewest} to {most} shots a frame" in " ".join(said.stdout.split())
    told = json.loads((tmp_path / "file" / "reconstruct.json").read_text())
    assert told["gating"] == facts.gating
    assert told["n_averages"] == 1
    assert f"--beats {folder / 'beats.txt'}" in told["command"]
    text = (tmp_path / "file" / "reconstruction.html").read_text()
    assert f"10 heartbeats of 0.36 to 0.44 s, {facts.gating['shots'][0]} to {facts.gating['shots'][1]} shots" in text


def test_stamps_tell_the_beats_to_half_a_tick():
    times = np.arange(0.01, 4.2, 0.007)
    last = R_WAVES[np.searchsorted(R_WAVES, times, side="right") - 1]
    inside = times > R_WAVES[0]
    stamps = np.floor((times - last) / TICK).astype(int)[inside]
    found = Heartbeats.of_stamps(stamps, times[inside], "x.h5")
    assert np.abs(found.times - R_WAVES[: len(found.times)]).max() <= TICK / 2
    assert len(found.times) == np.searchsorted(R_WAVES, times[-1])


@pytest.mark.parametrize("n_copies", [2, 3])
def test_a_shot_that_is_repeated_counts_nearly_as_one(n_copies):
    acquisition = Acquisition((0.25, 0.25), (N, N), 20, 80, 4e-6)
    spokes = plugins.build("init", {"kind": "radial"}, acquisition, Scanner()).k_adc
    once = solving.encoding_at(spokes, acquisition, torch.float64).weights
    k = torch.cat([spokes, *[spokes[[8]]] * (n_copies - 1)])
    weights = solving.encoding_at(k, replace(acquisition, n_shots=len(k)), torch.float64).weights
    assert torch.allclose(weights[20:], weights[[8]])
    # the compensation settles where the density is (mean weight / weight)^0.1: copies share what is n^0.1 of one
    together = weights[8].sum() + weights[20:].sum()
    assert float(together / once[8].sum()) == pytest.approx(n_copies**0.1, rel=0.01)
    assert float(weights[:8].sum() / once[:8].sum()) == pytest.approx(1, rel=0.01)


def test_one_k_in_two_frames_is_no_exchange_where_heartbeats_have_sorted():
    acquisition = Acquisition((0.25, 0.25), (N, N), 8, 80, 4e-6, 2)
    spokes = plugins.build("init", {"kind": "radial"}, replace(acquisition, n_shots=4, n_frames=1), Scanner()).k_adc
    rng = torch.Generator().manual_seed(0)
    film = torch.randn(1, 1, 2, N, N, generator=rng, dtype=torch.complex64)
    for k, is_gated in itertools.product((spokes, spokes.roll(1, 0)), (False, True)):
        encoding = solving.encoding_at(torch.cat([spokes, k]), acquisition)
        kspace = encoding.forward(film)[0]
        swapped = kspace.clone()
        swapped[:, [0, 4]] = kspace[:, [4, 0]]
        residual = consistency.Residual(is_gated=is_gated)
        residual.add(encoding, film, swapped)
        # at the place of the other one nothing of it is unexplained
        wanted = [0.0, 0.0] if is_gated and k is spokes else residual.of_shots[[0, 4]]
        assert residual.gained[[0, 4], [4, 0]] == pytest.approx(wanted, rel=1e-4)


def bad(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.1\nhello\n", "is no file of R waves: the time of each, s, one number a line"),
        ("0.1 0.9\n", "is no file of R waves"),
        ("0.1\n\n", r"1 R wave\(s\); a heartbeat lies between two"),
        ("", r"0 R wave\(s\)"),
        ("0.1\n0.9\n0.9\n", "each later than the one before"),
        ("0.1\nnan\n0.9\n", "are finite"),
        ("0.1\ninf\n", "are finite"),
    ],
)
def test_a_bad_file_of_r_waves_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as error:
        Heartbeats.read(bad(tmp_path / "beats.txt", text))
    assert "beats.txt" in str(error.value)


def test_what_cannot_be_sorted_is_refused(scanned, tmp_path):
    folder, _ = scanned
    raw, beats = folder / "scan" / "raw.h5", folder / "beats.txt"
    options = {"beats": beats, "out": tmp_path / "out"}
    with pytest.raises(ConfigError, match=r"beats: when each shot is measured the \.seq file alone tells"):
        reconstruct(raw, **options)
    with pytest.raises(ConfigError, match=r"\.seq file alone tells"):
        reconstruct(raw, k=folder / "x_k.npz", **options)
    with pytest.raises(InputError, match="does not exist"):
        reconstruct(raw, seq=folder / "x.seq", **{**options, "beats": tmp_path / "none.txt"})
    late = bad(tmp_path / "late.txt", "0.1\n0.13\n")
    with pytest.raises(InputError, match=r"late.txt: no shot .* frame \d of slice 0; the frames have 0 to \d+ shots"):
        reconstruct(raw, seq=folder / "x.seq", **{**options, "beats": late})
    measured = reading.read(raw)
    for stamps in (None, np.zeros_like(measured.stamps)):
        with pytest.raises(InputError, match=r"raw.h5 holds no time stamps since an R wave"):
            places.by_file(replace(measured, stamps=stamps), folder / "x.seq", None, None, {}, "stamps")
    stamps = np.floor([adc.first / TICK for adc in player.read(folder / "x.seq").adcs]).astype(int)
    with pytest.raises(InputError, match=r"1 R wave\(s\)"):  # a trigger alone, at the start
        places.by_file(replace(measured, stamps=stamps), folder / "x.seq", None, None, {}, "stamps")


def test_repetitions_are_not_sorted(scanned):
    folder, _ = scanned
    found, _ = sorted_(folder, None)
    twice = replace(found, kspace=torch.cat([found.kspace] * 2))
    with pytest.raises(ConfigError, match="plays partitions or repetitions"):
        gating.gated(twice, reading.read(folder / "scan" / "raw.h5"), folder / "x.seq", folder / "beats.txt")


def test_what_is_no_film_or_waits_for_triggers_is_refused(tmp_path):
    beats = bad(tmp_path / "beats.txt", "0.0\n1.0\n")
    flat = Acquisition((0.25, 0.25), (N, N), 4, 160, 4e-6)
    seq = written(tmp_path / "flat.seq", plugins.build("init", {"kind": "radial"}, flat, Scanner()))
    acquisition = Acquisition((0.25, 0.25), (N, N), 2 * N_FRAMES, 160, 4e-6, N_FRAMES)
    film = planes(acquisition, Scanner(), pattern={"kind": "radial"}, turn="golden")
    gated = written(tmp_path / "gated.seq", film, n_beats=2, rr=1.0, n_averages=1)
    for path, words in ((seq, "plays no film"), (gated, "waits for triggers")):
        with pytest.raises(ConfigError, match=f"beats: .* {words}"):
            scan(path, beats=beats, out=tmp_path / "scan")
        scan(path, out=tmp_path / path.stem)
        with pytest.raises(ConfigError, match=f"beats: .* {words}"):
            reconstruct(tmp_path / path.stem / "raw.h5", seq=path, beats=beats, out=tmp_path / "out")
