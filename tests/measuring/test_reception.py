"""What a virtual scanner receives: echoes, slices, half pulses, and receivers that do not follow or shift."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from test_coherence import SPOILED, foreign, lines, mutant
from test_sequences import pattern
from test_virtual_scan import N, bloch, misfit, raw, run, signed  # noqa: F401
from typer.testing import CliRunner

from trajdesign.cli.app import app
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.exporting.proof import export
from trajdesign.measuring.virtual_scan import scan
from trajdesign.pulseq.reader import player
from trajdesign.scanner import Scanner
from trajdesign.trajectories.formats import pulseq


def blob(path, n=16, at=(5, 9)):
    """Write an image with one bright spot (y, x)."""
    image = np.exp(-0.5 * (np.square(np.indices((n, n)) - np.array(at)[:, None, None]) / 1.0**2).sum(0))
    np.save(path, image[None])
    return str(path)


def exported(path, kind="gre_2d", init="radial", **options):
    trajectory = pattern(init, Scanner(), n_shots=24, matrix=(32, 32))
    export(trajectory, path, options={"sequence": {"kind": kind, "n_dummies": 0, **options}})
    return trajectory


def spot(image):
    """Return the centre of mass of an image's brightest part (y, x), pixels."""
    weights = np.where(image > 0.5 * image.max(), image, 0)
    return (np.indices(image.shape) * weights).sum(axis=(1, 2)) / weights.sum()


def test_a_spin_echo_refocuses_static_fields_and_t2_prime_but_not_t2(tmp_path):
    exported(tmp_path / "se.seq", "se_2d", te=30e-3)
    plain = scan(tmp_path / "se.seq", out=tmp_path / "plain").facts
    assert plain["echo_time"] == pytest.approx(30e-3, abs=10e-6)
    (signal, k), (turned, _), (decayed, _), (both, _) = [raw(tmp_path / name) for name in ("plain",)] + [
        (scan(tmp_path / "se.seq", out=tmp_path / name, **physics), raw(tmp_path / name))[1]
        for name, physics in (
            ("off", {"off_resonance": 100.0}),
            ("star", {"t2_star": 10e-3}),
            ("t2", {"t2_star": 10e-3, "t2": 40e-3}),
        )
    ]
    echo = int(np.square(k).sum(axis=(0, 2)).argmin())
    tau = (np.arange(signal.shape[-1]) - echo) * 4e-6  # the echo forms within a raster of the sample
    assert np.abs(turned - signal * np.exp(-2j * np.pi * 100 * tau)).max() < 2e-2 * np.abs(signal).max()
    assert np.abs(decayed - signal * np.exp(-np.abs(tau) / 10e-3)).max() < 2e-3 * np.abs(signal).max()
    t2_prime = 1 / (1 / 10e-3 - 1 / 40e-3)
    exact = signal * np.exp(-np.abs(tau) / t2_prime - (30e-3 + tau) / 40e-3)
    assert np.abs(both - exact).max() < 2e-3 * np.abs(exact).max()


def test_mrzero_refocuses_as_we_do(run, bloch, tmp_path):  # noqa: F811
    export(run.trajectory(), tmp_path / "se.seq", options={"sequence": {"kind": "se_2d", "te": 40e-3}})
    y, x = np.indices((N, N)) / N - 0.5
    field, fov = 300 * x + 100 * y**2 - 20, run.trajectory().acquisition.fov[0]
    np.save(tmp_path / "object.npy", np.random.default_rng(0).uniform(size=(N, N))[None])
    data = {"kind": "images", "test": [str(tmp_path / "object.npy")], "n_coils": 1}
    (image,) = plugins.build("data", data, run.trajectory().acquisition, "test")[0].numpy()
    physics = {"t2_star": 8e-3, "off_resonance": field, "n_coils": 1}
    scan(tmp_path / "se.seq", run=run.path, object=data["test"][0], out=tmp_path / "out", **physics)
    path = tmp_path / "se.seq"
    parts = [turn * bloch(path, (image / turn).real.clip(0), fov, 8e-3, field, echo=True) for turn in (1, 1j, -1, -1j)]
    # without T1 nothing recovers after the first shot
    assert misfit(sum(parts)[:600], raw(tmp_path / "out")[0][0, 0]) < 2e-3


def test_a_receiver_that_does_not_follow_shows_in_the_image(tmp_path):
    spots = blob(tmp_path / "blob.npy", foreign.N)
    still = np.zeros(foreign.N)
    good = scan(lines(tmp_path / "good.seq", SPOILED, SPOILED), object=spots, out=tmp_path / "good")
    bad = scan(lines(tmp_path / "bad.seq", SPOILED, still), object=spots, out=tmp_path / "bad")
    assert good.facts["image"]["nrmse"] < 0.03
    assert bad.facts["image"]["nrmse"] > 0.5
    turned = np.exp(-1j * np.radians(SPOILED))[:, None]
    assert np.allclose(raw(tmp_path / "bad")[0], raw(tmp_path / "good")[0] * turned, atol=1e-3)
    other = scan(lines(tmp_path / "90.seq", SPOILED, SPOILED + 90), object=spots, out=tmp_path / "90")
    assert np.allclose(other.image, good.image, atol=1e-5)


def test_a_receiver_that_shifts_the_field_of_view_moves_the_object(tmp_path):
    spots, pixel = blob(tmp_path / "blob.npy", foreign.N), foreign.FOV / foreign.N
    for name, (x, y) in {"x": (2, 0), "y": (0, 3), "xy": (-3, 1)}.items():
        path = lines(tmp_path / f"{name}.seq", SPOILED, SPOILED, shift=(x * pixel, y * pixel))
        # what lies at the new centre is shown in the middle, so that all else moves the other way
        found = spot(scan(path, object=spots, out=tmp_path / name).image)
        assert found == pytest.approx([5 - y, 9 - x], abs=0.05)


def test_a_mutated_template_is_seen_by_the_scan(run, tmp_path, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        patch.setattr(pulseq, "_require_receiver", lambda *_: None)  # as a file that nobody proved
        options = {"sequence": {"kind": mutant(tmp_path / "m.py", "gre_2d", "0.0"), "n_dummies": 3}}
        export(run.trajectory(), tmp_path / "x.seq", options=options)
    facts = scan(tmp_path / "x.seq", run=run.path, out=tmp_path / "out").facts
    assert facts["nrmse_to_promised"] > 0.1
    assert not facts["is_of_run"]
    assert "though k is the same" in facts["departure"]
    assert scan(tmp_path / "x.seq", run=run.path, out=tmp_path / "t2", t2=0.1).facts["is_of_run"]  # which may be why


@pytest.mark.parametrize(
    ("pattern", "text", "words"),
    [
        (r"(?m)^( *\d+ +)[\d.]+( .* e *)$", r"\g<1>0\g<2>", "play nothing, or differ .* in 4 of 4 ADC events"),
        (r"(?m)^Nucleus 1H *\n|^Gamma .*\n", "", r"for 23Na .* for 1H"),
    ],
)
def test_a_file_that_excites_nothing_or_another_nucleus_is_not_the_runs(run, tmp_path, pattern, text, words):  # noqa: F811
    body = (run.path / "scan.seq").read_text().partition("\n[SIGNATURE]\n")[0]
    changed, n_changed = re.subn(pattern, text, body)
    assert n_changed
    if "Gamma" in pattern:
        changed = changed.replace("[DEFINITIONS]\n", "[DEFINITIONS]\nNucleus 23Na\nGamma 11262000\n")
    (tmp_path / "x.seq").write_text(signed(changed))
    arguments = ["scan", str(tmp_path / "x.seq"), "--reconstruct", str(run.path), "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(app, arguments)
    assert isinstance(found.exception, LimitError)  # exit code 4
    assert re.search(words, str(found.exception))


def test_slices_and_half_pulses_are_sorted_by_their_labels(run, tmp_path):  # noqa: F811
    trajectory = run.trajectory()
    wanted = scan(run.path / "scan.seq", run=run.path, out=tmp_path / "one").image
    table = {"kind": "gre_2d", "n_slices": 3, "slice_gap": 2e-3, "n_dummies": 1, "noise_scan": True}
    export(trajectory, tmp_path / "slices.seq", options={"sequence": table})
    assert len(player.read(tmp_path / "slices.seq").adcs) == 13
    for given in (None, run.path):
        scanned = scan(tmp_path / "slices.seq", run=given, out=tmp_path / f"three{given is None}")
        assert (scanned.facts["n_slices"], scanned.facts["n_shots"]) == (3, 4)
        assert np.ptp(scanned.facts["nrmse_of_slices"]) < 1e-5
    assert scanned.image == pytest.approx(wanted, abs=1e-4)
    export(trajectory, tmp_path / "ute.seq", options={"sequence": {"kind": "ute_2d", "n_dummies": 1}})
    scanned = scan(tmp_path / "ute.seq", run=run.path, out=tmp_path / "ute")
    assert scanned.image == pytest.approx(wanted, abs=1e-4)
    assert scanned.facts["nrmse_to_promised"] < 1e-4
    export(trajectory, tmp_path / "stack.seq", options={"sequence": {"kind": "gre_3d", "n_partitions": 2}})
    with pytest.raises(InputError, match=r"2 partitions \(label PAR\) of 1 frame\(s\); .* has at least 4"):
        scan(tmp_path / "stack.seq", run=run.path, out=tmp_path / "stack")


def test_slices_without_labels_are_known_by_their_frequency(tmp_path):
    still, spots = np.zeros(foreign.N), blob(tmp_path / "blob.npy", foreign.N)
    one = scan(lines(tmp_path / "1.seq", still, still), object=spots, out=tmp_path / "1")
    two = scan(lines(tmp_path / "2.seq", still, still, offsets=(-5e-3, 5e-3)), object=spots, out=tmp_path / "2")
    assert (two.facts["n_slices"], two.facts["n_shots"]) == (2, foreign.N)
    assert two.image == pytest.approx(one.image, abs=1e-5)


def test_a_file_of_another_run_is_called_so(run, tmp_path):  # noqa: F811
    trajectory = run.trajectory()
    other = replace(trajectory, points=trajectory.points.flip(-1))
    export(other, tmp_path / "other.seq", options={"sequence": {"n_dummies": 1}})
    arguments = ["--reconstruct", str(run.path), "--out"]
    found = CliRunner().invoke(app, ["scan", str(tmp_path / "other.seq"), *arguments, str(tmp_path / "other")])
    assert isinstance(found.exception, LimitError)  # exit code 4
    assert "/FOV from that of" in str(found.exception)
    assert (tmp_path / "other" / "scan.json").exists()
    own = CliRunner().invoke(app, ["scan", str(run.path / "scan.seq"), *arguments, str(tmp_path / "own"), "--json"])
    assert own.exit_code == 0
    assert '"is_of_run": true' in own.output


def test_decay_and_definitions_that_cannot_be(tmp_path):
    exported(tmp_path / "x.seq")
    for physics, words in (
        ({"t2_star": 4e-7}, "t2_star is 4e-07 s, outside the plausible"),
        ({"t2_star": 30.0, "t2": 20.0}, "t2 is 20 s, below t2_star, 30 s"),
        ({"t2": math.nan}, "t2 is nan s"),
        ({"t2_star": 2e-5}, r"exp\(-\d+\.?\d*\) is left at the echo"),
    ):
        with pytest.raises(ConfigError, match=words):
            scan(tmp_path / "x.seq", out=tmp_path / "out", **physics)
    body = (tmp_path / "x.seq").read_text().partition("\n[SIGNATURE]\n")[0]
    fov = next(line for line in body.splitlines() if line.startswith("FOV "))
    for text in ("nan nan 0.005", "0.2 0.2", "0.2 0.2 -0.005", "wide"):
        (tmp_path / "y.seq").write_text(signed(body.replace(fov, f"FOV {text}")))
        with pytest.raises(InputError, match="definition FOV"):
            scan(tmp_path / "y.seq", out=tmp_path / "out")
