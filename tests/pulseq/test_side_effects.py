"""Nerve stimulation and acoustic drive of whole files: against the models on pypulseq's own waveforms."""

import json

import numpy as np
import pypulseq as pp
import pytest
import torch
from typer.testing import CliRunner

from trajdesign.acquisition import Acquisition
from trajdesign.cli import app
from trajdesign.config import plugins
from trajdesign.exporting.proof import export
from trajdesign.physics.nerves import nerve_model, stimulation
from trajdesign.physics.resonances import Band
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.side_effects import expose
from trajdesign.pulseq.writer import parts
from trajdesign.scanner import Scanner

SCANNER = Scanner()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A spiral with pauses, longer than the parts in which a file is taken."""
    trajectory = plugins.build("init", {"kind": "spiral"}, Acquisition(n_shots=12, n_samples=500), SCANNER)
    path = tmp_path_factory.mktemp("exposure") / "x.seq"
    export(trajectory, path, options={"sequence": {"n_dummies": 0, "tr": 0.9}})
    return path


def whole(path):
    """The gradient of the file at every raster centre (time, 3), T/m, by pypulseq."""
    sequence = pp.Sequence(parts.system(SCANNER))
    sequence.read(str(path))
    centres = (np.arange(round(sequence.duration()[0] / 10e-6)) + 0.5) * 10e-6
    axes = [np.interp(centres, t, g, left=0, right=0) for t, g in sequence.waveforms()]
    return torch.from_numpy(np.stack(axes, axis=1)) / SCANNER.gamma


@pytest.mark.parametrize("model", ["whole", "hrmw"])
def test_a_long_file_is_taken_in_parts_that_see_what_the_whole_has(written, model):
    file = player.read(written)
    assert file.duration > 10
    found = expose(file, SCANNER, nerve_model(model))
    response = stimulation(nerve_model(model), whole(written), 10e-6)
    check = found.checks[0]
    assert check.value == pytest.approx(float(response.max()), rel=1e-3)
    # every shot responds nearly alike, so the place is one of twelve
    worst = float(check.where.split(", ")[1].removesuffix(" ms")) * 1e-3
    assert float(response[round(worst / 10e-6 - 0.5)]) == pytest.approx(check.value, rel=1e-3)
    assert found.response.max() == pytest.approx(check.value, rel=1e-3)
    nearest = found.gradient[np.argmin(np.abs(found.times - worst))]
    assert nearest == pytest.approx(whole(written)[round(worst / 10e-6 - 0.5)].numpy(), abs=1e-4)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("ramp", [50e-6, 190e-6])
def test_nerves_do_not_know_where_the_file_starts_and_ends(tmp_path, ramp, is_last):
    found = []
    for pause in (0.0, 10e-6):
        sequence = pp.Sequence(parts.system(SCANNER))
        rise, fall = (1e-3, ramp) if is_last else (ramp, 1e-3)
        pulse = pp.make_trapezoid(
            "x",
            amplitude=180 * SCANNER.gamma * ramp,
            rise_time=rise,
            flat_time=2e-3,
            fall_time=fall,
            system=sequence.system,
        )
        events = [pulse, pp.make_delay(pause)] if is_last else [pp.make_delay(pause), pulse]
        for event in events if pause else [pulse]:
            sequence.add_block(event)
        sequence.write(str(tmp_path / "x.seq"))
        found.append(expose(player.read(tmp_path / "x.seq"), SCANNER, nerve_model("xrm")).checks[0].value)
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    if not is_last:  # AA.21: t of a slew rate has t / (chronaxie + t) of the effect; half of it in the outer two cells
        less, one, more, cell = ((ramp + t) / (334e-6 + ramp + t) for t in (-10e-6, 0, 10e-6, 10e-6 - ramp))
        effect = max(one + less, one + more - cell) / 2
        assert found[0] == pytest.approx(180 * 0.333 / 23.4 * effect, rel=1e-5)


def test_a_known_tone_is_heard_where_it_is(tmp_path):
    sequence = pp.Sequence(parts.system(SCANNER))
    t = (np.arange(20_000) + 0.5) * 10e-6
    tone = 5e-3 * SCANNER.gamma * np.sin(2 * np.pi * 600 * t)
    sequence.add_block(pp.make_arbitrary_grad("x", tone, first=0, last=0, system=sequence.system))
    sequence.write(str(tmp_path / "tone.seq"))
    file = player.read(tmp_path / "tone.seq")
    bands = [Band(600, 50), Band(1200, 50)]
    found = expose(file, SCANNER, nerve_model("xrm"), bands=bands, band_limit=4e-3)
    drive = found.checks[1:]
    assert [check.ok for check in drive] == [False, True]
    assert drive[0].value == pytest.approx(5e-3, rel=1e-2)
    assert drive[1].value < 5e-6
    (strongest,) = expose(file, SCANNER, nerve_model("xrm")).checks[1:]
    assert strongest.where == "600 Hz"


def test_from_the_command_line(written, tmp_path):
    run = CliRunner().invoke
    words = ["check", str(written), "--json", "--out", str(tmp_path / "x.png")]
    result = run(app.app, [*words, "--nerves", "xrm", "--nerve-limit", "1"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"]) == (0, True)
    assert {"gradient vector", "nerve stimulation", "k-space extent"} <= {rule["name"] for rule in document["checks"]}
    assert (tmp_path / "x.png").stat().st_size > 10_000
    # another coil's model only warns, one's own breaks
    result = run(app.app, ["check", str(written), "--nerve-limit", "0.1", "--nerves", "whole"])
    assert result.exit_code == 4
    file = player.read(written)
    for is_own_coil, verdict in ((False, "warning"), (True, "broken")):
        found = expose(file, SCANNER, nerve_model("whole"), nerve_limit=0.1, is_own_coil=is_own_coil)
        assert found.checks[0].verdict == verdict
    assert "does not establish" in result.stdout
    result = run(app.app, ["check", str(written), "--max-slew", "50", "--json"])
    broken = {rule["name"] for rule in json.loads(result.stdout)["checks"] if rule["verdict"] == "broken"}
    assert (result.exit_code, "slew rate vector" in broken) == (4, True)
    result = run(app.app, ["check", str(written), "--profile", "ge", "--json"])
    broken = {rule["name"] for rule in json.loads(result.stdout)["checks"] if rule["verdict"] == "broken"}
    assert "gradient raster" in broken
