"""The commands, and that whatever goes wrong is one sentence on stderr and the right exit code."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import numpy as np
import pytest
import tiny_study
import torch
import typer.main
from faults.tiny import resealed

from trajdesign import __version__
from trajdesign.acquisition import Acquisition
from trajdesign.cli import app, doctor
from trajdesign.cli.commands.scan import read_off_resonance
from trajdesign.config import plugins
from trajdesign.config.models import load_config, with_profile
from trajdesign.errors import InputError
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics import limits
from trajdesign.physics.nerves import nerve_model, stimulation
from trajdesign.pulseq.reader import player
from trajdesign.runtime import processes
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.spiral import spiral
from trajdesign.trajectories.loading import load
from trajdesign.trajectory import Trajectory, n_points

TINY = [
    "acquisition.matrix=[32,32]",
    "acquisition.n_shots=4",
    "acquisition.n_samples=128",
    "acquisition.dwell=8e-6",
    "data.n_train=4",
    "data.n_val=2",
    "data.n_test=3",
    "data.n_coils=2",
    "training.epochs=2",
    "training.batch_size=2",
    "training.validations=2",
    "reconstructor.channels=4",
    "reconstructor.levels=2",
]
SETTINGS = [word for setting in TINY for word in ("--set", setting)]


STUDY = tiny_study.base("data.n_train=4", "data.n_val=2")
STUDY += """
[classic.fan]
init = {kind = "spiral"}
[classic.brief]
init = {kind = "spiral"}
acquisition = {n_samples = 16}
"""


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


def call(*words):
    """Run the command line inside this process."""
    before = sys.argv
    sys.argv = ["trajdesign", *map(str, words)]
    try:
        app.main()
    except SystemExit as end:
        return 0 if end.code is None else end.code
    finally:
        sys.argv = before
    return 0


@pytest.fixture
def trajdesign(capsys):
    def run(*words):
        capsys.readouterr()
        code = call(*words)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(trajdesign):
    """Run a command that must fail with a code and one sentence that holds some words."""

    def run(code, *words, mentions=()):
        result = trajdesign(*words)
        assert result.code == code, result.err
        assert result.out == ""
        lines = result.err.strip().splitlines()
        assert lines[-1].startswith("trajdesign: ")
        assert lines[-1].endswith((".", "'"))
        assert len(lines) == 1, result.err
        assert "Traceback" not in result.err
        for word in mentions:
            assert word in result.err
        return result

    return run


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Return a run folder, and what the command that made it said."""
    path = tmp_path_factory.mktemp("cli") / "first run"
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = call("optimize", "--out", path, *SETTINGS, "--device", "cpu", "--seed", "3")
    return path, Result(code, out.getvalue(), err.getvalue())


@pytest.fixture
def run(first):
    return first[0]


@pytest.fixture
def foreign(tmp_path):
    """A file of sampled k that only its maker's program wrote, in 1/m."""
    trajectory = spiral(Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner())
    path = tmp_path / "foreign.npz"
    np.savez(path, samples=0.95 * trajectory.k_adc.numpy())
    return path


DESCRIPTION = ("--k-unit", "1/m", "--dwell", "4e-6", "--fov", "0.22", "--matrix", "32")


# --- the commands ---


def test_no_help_has_brackets_which_a_terminal_takes_for_its_own():
    for name, command in typer.main.get_command(app.app).commands.items():
        for one in [command, *getattr(command, "commands", {}).values()]:
            assert not [(name, p.name) for p in one.params if re.search(r"\[[a-z#/@]", getattr(p, "help", None) or "")]


def test_help_names_every_command(trajdesign):
    result = trajdesign("--help")
    assert result.code == 0
    for name in [
        "optimize",
        "study",
        "compare",
        "check",
        "export",
        "scan",
        "psf",
        "report",
        "config",
        "list",
        "doctor",
    ]:
        assert name in result.out
        one = trajdesign(name, "-h")
        assert one.code == 0
        assert f"trajdesign {name}" in one.out
    assert "--install-completion" in result.out
    assert trajdesign("--version").out == f"trajdesign {__version__}\n"


def test_config_makes_shows_and_describes_files(trajdesign, refused, tmp_path):
    path = tmp_path / "my run.toml"
    result = trajdesign("config", "init", "--out", path)
    assert (result.code, result.err) == (0, "")
    assert shlex.split(result.out.splitlines()[-1])[:3] == ["trajdesign", "optimize", str(path)]
    assert trajdesign("config", "init").out == path.read_text(encoding="utf-8")
    refused(5, "config", "init", "--out", path, mentions=["--force"])
    assert trajdesign("config", "init", "--out", path, "--force", "--quiet").out == ""
    shown = trajdesign("config", "show", path, "--set", "seed=7")
    assert load_config(None, ["seed=7"]).to_dict() == tomllib.loads(shown.out)
    document = json.loads(trajdesign("config", "show", "--set", "seed=7", "--json").out)
    assert document["schema"] == "trajdesign.config/1"
    assert document["config"] == json.loads(json.dumps(tomllib.loads(shown.out)))
    refused(2, "config", "show", "--set", "init.angel=golden", mentions=["did you mean 'angle'"])
    assert trajdesign("config", "schema", "--out", tmp_path / "schema.json").code == 0
    assert json.loads((tmp_path / "schema.json").read_text()) == json.loads(trajdesign("config", "schema").out)


def test_doctor_ends_with_what_it_found(trajdesign, monkeypatch):
    for verdict, code in (("ok", 0), ("absent", 0), ("failed", 1), ("missing", 6)):
        findings = [doctor.Diagnosis("package", "thing", "not here", verdict, "pip install it")]
        monkeypatch.setattr(doctor, "examine", lambda found=findings: found)
        result = trajdesign("doctor")
        assert (result.code, result.err) == (code, "")
        assert "pip install it" in result.out
        document = json.loads(trajdesign("doctor", "--json").out)
        assert document["ok"] is (code == 0)
        assert document["findings"][0]["verdict"] == verdict
        assert trajdesign("doctor", "--quiet").out == ""


def test_quiet_prints_nothing_and_json_names_its_schema(trajdesign, run, tmp_path):
    file = tmp_path / "a.seq"
    for words in (
        ("check", run),
        ("export", run, "--out", file, "--force"),
        ("check", file),
        ("scan", file, "--out", tmp_path / "scan", "--force"),
        ("psf", run, "--out", tmp_path / "psf.png"),
        ("compare", f"{run}:fixed", run),
        ("report", run),
    ):
        assert (trajdesign(*words, "--quiet").out, words) == ("", words)
        document = json.loads(trajdesign(*words, "--json").out)
        assert document["schema"] == f"trajdesign.{words[0]}/1"
        assert document["schema_version"] == 1
        assert "Next:" not in str(document)


def test_a_scan_is_not_suggested_into_a_run(trajdesign, run, tmp_path):
    for file, folder in ((tmp_path / "a.seq", tmp_path / "a"), (run.with_suffix(".seq"), f"{run}_scan")):
        out = trajdesign("export", run, "--out", file, "--force").out
        assert f"--out {shlex.quote(str(folder))}\n" in out


def test_psf_compares_what_has_as_many_axes(refused, run, tmp_path):
    volume = Acquisition((0.2, 0.2, 0.2), (8, 8, 8), n_shots=8, n_samples=300, dwell=4e-6)
    plugins.build("init", {"kind": "radial"}, volume, Scanner()).save(tmp_path / "volume.npz")
    refused(2, "psf", run, "--compare", tmp_path / "volume.npz", mentions=["3 axes", "2;"])


def test_optimize_says_what_it_reached_and_what_to_do_next(first):
    path, result = first
    assert result.code == 0, result.err
    for words in ("PSNR", "fixed", "learned", "gain", "Wilcoxon", "0 violations"):
        assert words in result.out
    # the next commands can be pasted, whatever the folder's name
    following = [shlex.split(line)[1:] for line in result.out.splitlines() if line.startswith("  trajdesign ")]
    assert [words[0] for words in following] == ["check", "export", "psf"]
    assert all(words[1] == str(path) for words in following)
    assert "learned 4/4" in result.err
    metrics = json.loads((path / "metrics.json").read_text())
    assert f"{metrics['learned']['psnr']:.2f}" in result.out
    assert (path / "config.toml").read_text().count("seed = 3") == 1
    figures = {"learning", "psf", "reconstruction", "trajectories", "waveforms"}
    assert {p.stem for p in (path / "figures").glob("*.png")} == figures
    assert str(path / "report.html") in result.out
    assert "<!DOCTYPE html>" in (path / "report.html").read_text()


def test_optimize_quietly_without_the_baseline_for_a_logger(trajdesign, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(LOGGER)
    monkeypatch.syspath_prepend(tmp_path)
    words = ("optimize", "--out", tmp_path / "run", *SETTINGS, "--device", "cpu", "--no-baseline", "--quiet")
    result = trajdesign(*words, "--log", "mine:lines")
    assert (result.code, result.out, result.err) == (0, "", "")
    measured = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "fixed" not in measured
    *steps, last = (tmp_path / "run" / "steps.txt").read_text().splitlines()
    assert last == "end"
    assert steps == [f"learned {i + 1}/{len(steps)}" for i in range(len(steps))]


LOGGER = """
from contextlib import contextmanager

@contextmanager
def lines(run):
    steps = []
    yield lambda p: steps.append(f"{p.stage} {p.step}/{p.n_steps}")
    (run / "steps.txt").write_text("\\n".join([*steps, "end"]))
"""


def test_the_limits_of_a_run_are_checked_beside_the_standard_ones(trajdesign, refused, run, tmp_path):
    kept, file = tmp_path / "run", tmp_path / "run.seq"
    shutil.copytree(run, kept)
    before = set(json.loads(trajdesign("check", kept, "--json").out)["constraints"])
    refused(2, "check", kept, "--ignore", "stimulation", mentions=["'stimulation' is not checked here"])
    refused(2, "export", kept, "--out", file, "--ignore", "stimulation", mentions=["'stimulation' is not checked here"])
    config = (kept / "config.toml").read_text()
    trajectory = load(kept / "trajectory.npz")
    nerves = stimulation(nerve_model("xrm"), trajectory.gradient, trajectory.scanner.gradient_raster).max().item()
    for part, code in ((1.001, 0), (0.999, 4)):
        options = f'[limits.options.stimulation]\nmodel = "xrm"\nlimit = {part * nerves!r}\n\n[reconstructor]'
        edited = config.replace('    "slew",\n]', '    "slew",\n    "stimulation",\n]').replace(
            "[reconstructor]", options
        )
        (kept / "config.toml").write_text(edited)
        resealed(RunFolder(kept))
        result = trajdesign("check", kept, "--json")
        found = json.loads(result.out)["constraints"]
        assert (result.code, set(found)) == (code, before | {"stimulation"})
        assert found["stimulation"]["value"] == pytest.approx(nerves)
        assert trajdesign("export", kept, "--out", file, "--force").code == code
    refused(4, "export", kept, "--out", file, "--force", mentions=["stimulation", "of limit"])
    assert trajdesign("check", kept, "--ignore", "stimulation").code == 0


def test_a_run_that_is_not_repaired_says_so_and_is_not_exported(trajdesign, refused, tmp_path):
    settings = (
        "limits.method=none",
        "limits.repair=false",
        "training.trajectory_rate=0.1",
        "parameterization.kind=samples",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    result = trajdesign("optimize", "--out", tmp_path / "run", *SETTINGS, *words, "--device", "cpu", "--no-baseline")
    assert result.code == 0, result.err
    assert "VIOLATED" in result.out
    assert trajdesign("check", tmp_path / "run").code == 4
    refused(4, "export", tmp_path / "run", "--out", tmp_path / "run.seq", mentions=["slew"])
    assert not (tmp_path / "run.seq").exists()


def test_settings_of_speed_have_options(trajdesign, tmp_path):
    words = ("optimize", "--out", tmp_path / "run", *SETTINGS, "--device", "cpu", "--no-baseline", "--quiet")
    result = trajdesign(*words, "--precision", "bfloat16", "--no-compile", "--set", "training.compile=true")
    assert result.code == 0, result.err
    text = (tmp_path / "run" / "config.toml").read_text()
    assert 'precision = "bfloat16"' in text
    assert "compile = false" in text, "an option wins over --set"


def test_devices_run_the_same_command(trajdesign, monkeypatch, tmp_path):
    launched = []

    def launch(arguments, n_ranks):
        launched.append((arguments, n_ranks))
        return 7

    monkeypatch.setattr(processes, "launch", launch)
    words = ["optimize", "--out", str(tmp_path / "run"), *SETTINGS, "--device", "cpu", "--devices", "2"]
    result = trajdesign(*words)
    assert (result.code, result.out, result.err) == (7, "", "")
    assert launched == [(["-m", "trajdesign", *words], 2)]
    # what is wrong with the settings is said once, before any rank starts
    for wrong, code in (("seed=-1", 2), ("data.kind=nothing", 2)):
        assert trajdesign(*words, "--set", wrong).code == code
    assert trajdesign(*words, "--precision", "float8").code == 2
    assert trajdesign(*words, "--devices", "0").code == 2
    assert len(launched) == 1


def test_only_the_first_rank_reports(trajdesign, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "is_first", lambda: False)
    result = trajdesign("optimize", "--out", tmp_path / "run", *SETTINGS, "--device", "cpu", "--no-baseline")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert not (tmp_path / "run" / "figures").exists()


def test_check_passes_what_was_learned(trajdesign, run):
    result = trajdesign("check", run)
    assert result.code == 0
    for name in limits.standard():
        assert name in result.out
    assert "BROKEN" not in result.out
    document = json.loads(trajdesign("check", run, "--json").out)
    assert document["schema"] == "trajdesign.check/1"
    assert document["schema_version"] == 1
    assert document["ok"] is True
    metrics = json.loads((run / "metrics.json").read_text())
    assert document["max_slew"] == pytest.approx(metrics["limits"]["max_slew"])
    assert trajdesign("check", run / "initial.npz").code == 0


def test_the_echo_times_of_the_shots_are_told(trajdesign, run, tmp_path):
    trajectory = RunFolder(run).trajectory()
    acquisition = trajectory.acquisition
    distance = np.linalg.norm(trajectory.k_adc.numpy() * np.array(acquisition.fov), axis=-1)
    nearest = distance.argmin(axis=1) * acquisition.dwell  # to half a sample
    found = json.loads(trajdesign("check", run, "--json").out)
    assert found["echo_time_s"] == pytest.approx(np.median(nearest), abs=0.51 * acquisition.dwell)
    assert found["echo_time_spread_s"] == pytest.approx(np.ptp(nearest), abs=1.01 * acquisition.dwell)
    assert 0 < found["echo_k_fov"] <= distance.min(axis=1).max() + 1e-9
    said = f"Echo: {found['echo_time_s'] * 1e3:.4g} ms after the first sample, spread over the shots"
    assert said in " ".join(trajdesign("check", run).out.split())
    [measured] = json.loads(trajdesign("psf", run, "--out", tmp_path / "psf.png", "--json").out)["psf"]
    assert {key: found[key] for key in ("echo_time_s", "echo_time_spread_s", "echo_k_fov")}.items() <= measured.items()
    page = (run / "report.html").read_text()
    assert "spread of the echo times (us)" in page
    assert f"{found['echo_time_spread_s'] * 1e6:.2f}" in page


def test_check_finds_what_is_broken_and_export_refuses_it(trajdesign, refused, run, tmp_path):
    trajectory = load(run / "trajectory.npz")
    k = trajectory.points.clone()
    k[1, 40, 0] += 10.0
    trajectory.with_points(k).save(tmp_path / "broken.npz")
    result = trajdesign("check", tmp_path / "broken.npz")
    assert result.code == 4
    assert "BROKEN" in result.out
    result = trajdesign("check", tmp_path / "broken.npz", "--json")
    assert result.code == 4
    document = json.loads(result.out)
    assert document["ok"] is False
    assert document["constraints"]["slew"]["shot"] == 1
    for flag in ((), ("--force",)):
        refused(4, "export", tmp_path / "broken.npz", "--out", tmp_path / "b.seq", *flag, mentions=["slew", "shot 1"])
    assert not list(tmp_path.glob("*.seq"))


def test_export_writes_each_format_and_proves_it(trajdesign, run, tmp_path):
    for name, suffix in (("pulseq", ".seq"), ("csv", ".csv"), ("npz", ".npz")):
        path = tmp_path / f"scan{suffix}"
        result = trajdesign("export", run, "--format", name, "--out", path, "--json")
        assert result.code == 0, result.err
        facts = json.loads(result.out)
        assert facts["max_k_error_fov"] < 1e-3
        assert path.exists()
    assert player.read(tmp_path / "scan.seq").version == "1.5.0"
    words = ("export", run, "--out", tmp_path / "old.seq", "--pulseq-version", "1.4.1", "--set", "sequence.n_dummies=1")
    result = trajdesign(*words)
    assert result.code == 0
    assert "max_k_error_fov" in result.out
    assert player.read(tmp_path / "old.seq").version == "1.4.1"
    noted = {one.file: one.signature for one in RunFolder(run).exports()}
    assert {name: noted[name] for name in ("scan.seq", "old.seq")} == {
        name: player.read(tmp_path / name).md5 for name in ("scan.seq", "old.seq")
    }
    assert trajdesign(*words).code == 5
    assert trajdesign(*words, "--force").code == 0


def test_scan_compares_the_written_file_with_what_the_run_promised(trajdesign, refused, run, tmp_path):
    path, out = tmp_path / "scan.seq", tmp_path / "scanned"
    assert trajdesign("export", run, "--out", path).code == 0
    words = ("scan", path, "--reconstruct", run, "--out", out)
    result = trajdesign(*words)
    assert result.code == 0, result.err
    assert "the run's own k" in result.out
    assert "differs from what the run makes of the same object on its own k by 0.00% (NRMSE)" in result.out
    np.save(tmp_path / "field.npy", np.full((32, 32), 200.0))
    options = ("--t2-star", "5e-3", "--off-resonance", tmp_path / "field.npy", "--noise", "0.1", "--n-coils", "3")
    options += ("--noise-correlation", "0.3")
    document = json.loads(trajdesign(*words, "--force", "--json", *options).out)
    assert document["nrmse_to_promised"] > 0.01
    assert document["off_resonance"] == [200, 200]
    assert (document["n_coils"], document["t2_star"], document["noise"]) == (3, 5e-3, 0.1)
    assert document["noise_correlation"] == 0.3
    refused(2, *words, "--force", "--noise-correlation", "0.3", mentions=["--noise-correlation", "give --noise too"])
    refused(2, *words, "--force", "--noise", "0.1", "--noise-correlation", "1", mentions=["below 1"])
    refused(5, *words, mentions=["exists already", "--force"])
    refused(3, *words, "--force", "--off-resonance", "fifty", mentions=["'fifty'", "Hz"])


def test_evaluate_tests_a_run_on_other_data(trajdesign, refused, run, tmp_path):
    volume = np.random.default_rng(0).uniform(0.2, 1, (3, 40, 40)).astype(np.float32)
    np.save(tmp_path / "a.npy", volume)
    out, before = tmp_path / "out", {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    files = ("--set", f"data.test=['{tmp_path / 'a.npy'}']", "--set", "data.kind=images")
    words = ("evaluate", run, *files, "--out", out, "--device", "cpu")
    result = trajdesign(*words)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == f"{run}: 3 slices of 1 file (n = 3)"
    assert [line.split()[0] for line in lines[2:7]] == ["fixed", "learned", "gain", "Wilcoxon", "95"]
    kept = json.loads((out / "evaluation.json").read_text())
    ends = (f"{kept['over_fixed'][end]['psnr']:+.2f}" for end in ("ci_low", "ci_high"))
    assert lines[6].startswith(f"95 % over images, people unknown  {' to '.join(ends)}")
    refused(5, *words, mentions=["evaluation.json exists already", "--force"])
    document = json.loads(trajdesign(*words, "--json", "--force").out)
    assert document["schema"] == "trajdesign.evaluate/1"
    for stage in ("fixed", "learned"):
        assert document[stage]["psnr_list"] == kept[stage]["psnr_list"]
        assert f"{kept[stage]['psnr']:.2f}" in result.out
    alone = trajdesign("evaluate", run, "--stage", "fixed", "--device", "cpu")
    assert "learned" not in alone.out
    wanted = RunFolder(run).results().stages["fixed"]
    assert f"{wanted.psnr:.2f}  {wanted.ssim:.4f}" in alone.out
    quiet = trajdesign("evaluate", run, *files, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    refused(2, "evaluate", run, "--set", "acquisition.n_shots=8", mentions=["acquisition.n_shots", "another run"])
    refused(2, "evaluate", run, *files[:2], mentions=["set data.kind too"])
    refused(2, "evaluate", run, "--stage", "best", mentions=["fixed, learned"])
    refused(2, "evaluate", run, "--out", run / "evaluation", mentions=["--out"])
    refused(3, "evaluate", run, *files[2:], "--set", "data.test=['none.npy']", mentions=["none.npy"])
    refused(3, "evaluate", tmp_path / "none", mentions=["config.toml does not exist"])
    refused(6, "evaluate", run, "--device", "abacus", mentions=["abacus"])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_psf_draws_and_measures(trajdesign, run, tmp_path):
    out = tmp_path / "psf.png"
    words = ("psf", run, "--compare", run / "initial.npz", "--out", out)
    result = trajdesign(*words)
    assert result.code == 0, result.err
    assert "FWHM" in result.out
    assert out.read_bytes().startswith(b"\x89PNG")
    document = json.loads(trajdesign(*words, "--json").out)
    assert [entry["path"] for entry in document["psf"]] == [str(run / "initial.npz"), str(run)]
    assert all(1e-3 < entry["fwhm_x_m"] < 0.05 for entry in document["psf"])


def test_a_run_that_learns_no_trajectory_shows_the_fixed_one(trajdesign, tmp_path):
    settings = [*SETTINGS, "--set", "parameterization.kind=fixed"]
    result = trajdesign("optimize", "--out", tmp_path, *settings, "--device", "cpu")
    assert result.code == 0, result.err
    assert "fixed" in result.out
    assert "learned" not in result.out + result.err
    assert len(list((tmp_path / "figures").glob("*.png"))) == 5


def test_report_is_a_page_or_a_pdf(trajdesign, refused, run, tmp_path):
    (run / "report.html").unlink()
    result = trajdesign("report", run)
    assert (result.code, result.err) == (0, "")
    assert str(run / "report.html") in result.out
    assert (run / "report.html").exists()
    assert trajdesign("report", run, "--out", tmp_path / "report.pdf").code == 0
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    refused(2, "report", run, "--out", tmp_path / "report.txt", mentions=[".html or .pdf"])
    refused(3, "report", tmp_path, mentions=["metrics.json"])


def test_compare_pairs_the_images_of_runs(trajdesign, refused, run, tmp_path):
    out = tmp_path / "compared.png"
    result = trajdesign("compare", f"{run}:fixed", run, "--out", out)
    assert result.code == 0, result.err
    metrics = json.loads((run / "metrics.json").read_text())
    for words in ("first run", "gain", f"{metrics['learned']['psnr']:.2f}", "ok", "95 % over images, people unknown"):
        assert words in result.out
    assert out.read_bytes().startswith(b"\x89PNG")
    document = json.loads(trajdesign("compare", f"{run}:fixed", run, "--json").out)
    assert document["figure"] is None
    assert [row["run"] for row in document["runs"]] == ["first run:fixed", "first run"]
    over = document["runs"][1]["over_first"]
    assert over["wilcoxon_p"] == metrics["wilcoxon_p"]
    assert over["ci_low"]["psnr"] < over["gain"]["psnr"] < over["ci_high"]["psnr"]
    assert f"{over['ci_low']['psnr']:+.2f} to {over['ci_high']['psnr']:+.2f}" in result.out
    refused(2, "compare", f"{run}:both", mentions=["no stage 'both'"])
    refused(2, "compare", run, "--out", tmp_path / "a.xyz", mentions=["xyz"])
    refused(3, "compare", run, tmp_path / "none", mentions=["none"])


@pytest.fixture(scope="module")
def small_study(tmp_path_factory):
    """Return the file of a study, its folder, and what the command that trained it said."""
    path = tmp_path_factory.mktemp("study")
    (path / "small.toml").write_text(STUDY)
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = call("study", path / "small.toml", "--out", path / "out", "--device", "cpu")
    return path / "small.toml", path / "out", Result(code, out.getvalue(), err.getvalue())


def test_study_says_what_every_cell_reached_and_what_was_gained(small_study):
    _, out, result = small_study
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "1/4 radial-04-fixed-unet-s0",
        "2/4 fan-04-fixed-unet-s0",
        "3/4 brief-04-fixed-unet-s0",
        "4/4 radial-04-neural_ode-unet-s0",
    ]
    assert "dB" in lines[0]
    assert "skipped" in lines[2]
    table = json.loads((out / "table.json").read_text())
    assert f"{table['summary'][0]['gain_over_fixed']['psnr']:+.2f}" in result.out
    for name in ("table.md", "table.csv", "study.toml", "figures"):
        assert (out / name).exists()


def test_study_goes_on_in_shares(trajdesign, refused, small_study, tmp_path):
    file, out, _ = small_study
    words = ("study", file, "--device", "cpu", "--out")
    refused(5, *words, out, mentions=["--resume"])
    before = (out / "table.json").read_bytes()
    result = trajdesign(*words, out, "--resume", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (out / "table.json").read_bytes() == before
    part = tmp_path / "part"
    assert trajdesign(*words, part, "--cell", "1/2").code == 0
    assert not (part / "table.json").exists(), "others have not trained their share yet"
    assert trajdesign(*words, part, "--cell", "2/2").code == 0
    both = [json.loads((folder / "table.json").read_text())["rows"][0] for folder in (out, part)]
    assert both[0]["learned"]["psnr_list"] == both[1]["learned"]["psnr_list"]


def test_studies_that_cannot_be(refused, trajdesign, tmp_path):
    def study(code, text, *words, mentions):
        (tmp_path / "study.toml").write_text(text)
        refused(
            code, "study", tmp_path / "study.toml", "--out", tmp_path / "out", "--device", "cpu", *words,
            mentions=mentions,
        )  # fmt: skip

    study(2, "[grid]\nshot = [2]\n", mentions=["grid.shot", "did you mean 'shots'"])
    study(2, STUDY, "--cell", "3/2", mentions=["3/2", "no share"])
    study(3, "[grid", mentions=["TOML"])
    study(6, STUDY, "--device", "tpu", mentions=["tpu"])
    assert not (tmp_path / "out").exists()
    # one that fails does not stop the others, and its sentence comes last
    (tmp_path / "study.toml").write_text(STUDY.replace("[classic.brief]", "[choice.pattern.radial]"))
    result = trajdesign("study", tmp_path / "study.toml", "--out", tmp_path / "out", "--device", "cpu")
    assert result.code == 4
    last = result.err.splitlines()[-1]
    assert last.startswith("trajdesign: cell radial-04-fixed-unet-s0: ")
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [entry["cell"] for entry in table["fixed"]] == ["fan-04-fixed-unet-s0"]
    assert len(table["failed"]) == 2


def test_list_is_the_catalogue(trajdesign):
    document = json.loads(trajdesign("list", "--json").out)
    text = trajdesign("list").out
    for kind in plugins.KINDS:
        assert sorted(document[kind]) == plugins.names(kind)
        for name in plugins.names(kind):
            assert name in text
    lines = text.splitlines()
    cartesian = lines.index("  cartesian  " + document["init"]["cartesian"]["summary"])
    assert lines[cartesian + 2] == (
        "    power = 0.5  How fast the density of variable, random and Poisson lines falls, 0 to 4; 0 is uniform."
    )


def test_a_foreign_file_is_read_in_its_unit(trajdesign, foreign, tmp_path):
    result = trajdesign("check", foreign, *DESCRIPTION, "--ignore", "receiver", "--json")
    assert result.code == 0, result.err + result.out
    assert json.loads(result.out)["ok"] is True
    assert "largest residual" in result.err
    result = trajdesign(
        "export", foreign, *DESCRIPTION, "--nucleus", "1H", "--format", "csv", "--out", tmp_path / "f.csv"
    )
    assert result.code == 0, result.err
    assert trajdesign("psf", foreign, *DESCRIPTION, "--out", tmp_path / "psf.png").code == 0
    # the same waveform under a weaker scanner
    assert trajdesign("check", foreign, *DESCRIPTION, "--max-slew", "50").code == 4


def test_a_fit_that_is_another_trajectory_than_the_file_is_refused(trajdesign, foreign, tmp_path):
    k, file = np.load(foreign)["samples"], tmp_path / "x.csv"
    for waves, code in ((0.5, 3), (0.02, 0)):  # 1/FOV, at 125 kHz, which a raster of 10 us cannot play
        np.savez(foreign, samples=k + waves / 0.22 * np.resize([1, -1], k.shape[1])[:, None])
        words = (foreign, *DESCRIPTION, "--ignore", "receiver", "--ignore", "extent", "--max-slew", "5000")
        for command in (("check",), ("export", "--nucleus", "1H", "--format", "csv", "--out", file)):
            result = trajdesign(command[0], *words, *command[1:])
            assert result.code == code, result.err
            assert ("/FOV, limit 0.1/FOV" in result.err) == (code == 3)
        assert file.exists() == (code == 0)


# --- what goes wrong ---


@pytest.mark.parametrize("command", ["check", "export --out x.csv --format csv", "psf --out x.png"])
def test_files_that_cannot_be_read(refused, tmp_path, monkeypatch, command, run):
    monkeypatch.chdir(tmp_path)
    whole = (run / "trajectory.npz").read_bytes()
    (tmp_path / "empty.npz").touch()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    (tmp_path / "damaged.npz").write_bytes(damaged)
    (tmp_path / "text.npz").write_text("k = 1\n")
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "other.npz", k=np.zeros((2, 100, 2)))
    np.savez(tmp_path / "pickle.npz", k=np.array([{}], dtype=object))
    with np.load(run / "trajectory.npz") as file:
        arrays = {key: file[key] for key in file.files}
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        k = arrays["k"].copy()
        k[1, 7, 0] = value
        np.savez(tmp_path / f"{name}.npz", **{**arrays, "k": k})
    name, *options = command.split()
    for path in ("none.npz", "empty.npz", "cut.npz", "damaged.npz", "text.npz", "folder", "other.npz", "pickle.npz"):
        refused(3, name, path, *options, mentions=[path])
    for path in ("nan.npz", "inf.npz"):
        refused(3, name, path, *options, mentions=[path, "not finite", "shot 1", "point 7"])
    refused(6, name, "x" * 300, *options, mentions=["File name too long"])
    assert not (tmp_path / "x.csv").exists()
    assert not (tmp_path / "x.png").exists()


def test_wrong_words_about_a_foreign_file(refused, foreign):
    def change(option, value):
        words = list(DESCRIPTION)
        words[words.index(option) + 1] = value
        return "check", foreign, *words

    refused(3, "check", foreign, mentions=["--k-unit", "--dwell", "--fov"])
    refused(2, "check", foreign, "--k-unit", "1/m", mentions=["--dwell", "--fov"])
    refused(2, "check", foreign, "--dwell", "4e-6", mentions=["--k-unit"])
    refused(2, *change("--k-unit", "rad/mm"), mentions=["rad/m"])
    refused(3, *change("--k-unit", "1/fov"), mentions=["is the unit right"])
    refused(3, *change("--k-unit", "normalized"), mentions=["is the unit right"])
    refused(3, *change("--matrix", "8"), mentions=["matrix"])
    refused(2, *change("--dwell", "4"), mentions=["us"])
    refused(2, *change("--dwell", "nan"), mentions=["dwell"])
    refused(2, *change("--fov", "220"), mentions=["mm"])
    refused(2, *change("--fov", "wide"), mentions=["--fov"])
    refused(2, *change("--fov", "0.2,0.2,0.2"), mentions=["fov"])
    refused(2, *change("--matrix", "32,32,32"), mentions=["matrix"])
    refused(2, "check", foreign, *DESCRIPTION, "--max-gradient", "50", mentions=["mT/m"])
    refused(2, "check", foreign, *DESCRIPTION, "--max-slew", "inf", mentions=["max_slew"])


def test_words_about_a_file_that_needs_none(refused, trajdesign, foreign, tmp_path):
    ours = tmp_path / "ours.npz"
    spiral(Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner()).save(ours)
    for command in (("check",), ("export", "--out", tmp_path / "x.csv", "--format", "csv"), ("psf",)):
        refused(2, command[0], ours, *command[1:], *DESCRIPTION, mentions=["ours.npz", "itself"])
    # of two, they are for the one that needs them
    words = ("psf", ours, "--compare", foreign, "--json", "--out", tmp_path / "psf.png")
    both = json.loads(trajdesign(*words, *DESCRIPTION).out)["psf"]
    alone = json.loads(trajdesign("psf", ours, "--json", "--out", tmp_path / "psf.png").out)["psf"]
    assert both[1] == alone[0]
    assert [p["path"] for p in both] == [str(foreign), str(ours)]


def test_what_is_taken_from_k_is_said(trajdesign, foreign):
    result = trajdesign("check", foreign, *DESCRIPTION)
    assert "Matrix 32 x 32 at a field of view of 220 x 220 mm: voxels of 6.875 x 6.875 mm." in result.err
    assert "is the unit right" not in result.err
    assert (
        f"export {foreign} --k-unit 1/m --dwell 4e-06 --fov 0.22 --matrix 32 --nucleus 1H --format pulseq" in result.out
    )
    result = trajdesign("check", foreign, *DESCRIPTION[:-2], "--json")
    assert "Matrix 30 x 30, taken from k, at a field of view" in result.err
    assert json.loads(result.out)["matrix"] == [30, 30]
    # 2 pi too small
    result = trajdesign("check", foreign, "--k-unit", "rad/m", *DESCRIPTION[2:])
    assert "k reaches 0.15 of what that matrix holds; is the unit right?" in result.err


@pytest.mark.parametrize("name", ["ge", "multi", "siemens"])
def test_a_written_file_is_to_be_checked_for_the_scanner_that_it_is_for(name, trajdesign, tmp_path):
    scanner = Scanner(**with_profile({"profile": name, "max_slew": 123.0}))
    spiral(Acquisition((0.22, 0.22), (32, 32), 4, 300, 4e-6), scanner).save(tmp_path / "x.npz")
    result = trajdesign("export", tmp_path / "x.npz", "--out", tmp_path / "x.seq")
    assert result.code == 0, result.err
    [line] = [line for line in result.out.splitlines() if line.startswith("  trajdesign check")]
    assert ("--profile" in line) == (name != "siemens"), "which has the usual rasters"
    found = trajdesign(*shlex.split(line)[1:])
    assert found.code == 0, found.out
    assert "at most 123 T/m/s" in found.out


def test_configs_that_cannot_be(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def optimize(code, *words, mentions):
        refused(code, "optimize", *words, "--out", "run", "--device", "cpu", mentions=mentions)
        assert not (tmp_path / "run").exists()

    (tmp_path / "typo.toml").write_text("[trainning]\nepochs = 3\n")
    (tmp_path / "broken.toml").write_text("[training\n")
    optimize(3, "none.toml", mentions=["none.toml"])
    optimize(3, "broken.toml", mentions=["broken.toml", "TOML"])
    optimize(2, "typo.toml", mentions=["trainning", "did you mean 'training'"])
    optimize(2, "--set", "training.epoch=3", mentions=["training.epoch", "did you mean 'epochs'"])
    optimize(2, "--set", "training.network_rate=nan", mentions=["training.network_rate"])
    optimize(2, "--set", "scanner.max_gradient=40", mentions=["max_gradient", "mT/m", "0.04"])
    optimize(2, "--set", "init.kind=radail", mentions=["radail", "did you mean 'radial'"])
    optimize(2, "--set", "reconstructor.kind=unett", mentions=["did you mean 'unet'"])
    optimize(2, "--set", "data.kind=my.module:thing", mentions=["my.module:thing", "cannot be imported"])
    optimize(2, "--set", "seed", mentions=["a.b=value"])
    optimize(2, "--seed", "-1", mentions=["seed"])
    optimize(
        2, "--set", "parameterization.n_control=0", "--set", "parameterization.kind=neural_ode", mentions=["n_control"]
    )
    optimize(2, "--set", "reconstructor.channels=3", mentions=["channels"])
    # what the scanner cannot play: 16 samples at 4 us
    optimize(4, "--set", "acquisition.n_samples=16", mentions=["radial", "T/m"])
    optimize(4, "--set", "acquisition.n_samples=16", "--set", "init.kind=spiral", mentions=["spiral"])


def test_a_device_that_is_not_there(refused, tmp_path):
    words = ("optimize", *SETTINGS, "--out", tmp_path / "run")
    for device in ("gpu", "cuda:99"):
        for devices in (1, 2):
            refused(6, *words, "--device", device, "--devices", devices, mentions=[device, "cpu"])
    refused(6, *words, "--device", "cuda", "--devices", 200, "--set", "training.batch_size=200", mentions=["cuda"])
    refused(2, *words, "--device", "cpu", "--devices", 3, mentions=["batch of 2 images", "3 devices"])
    assert not (tmp_path / "run").exists()


def test_outputs_that_exist_are_left_alone(refused, run, tmp_path):
    before = (run / "trajectory.npz").read_bytes()
    refused(5, "optimize", *SETTINGS, "--out", run, "--device", "cpu", mentions=["--force"])
    assert (run / "trajectory.npz").read_bytes() == before
    (tmp_path / "scan.seq").write_text("mine")
    refused(5, "export", run, "--out", tmp_path / "scan.seq", mentions=["--force"])
    assert (tmp_path / "scan.seq").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["scan.seq"]


def test_exports_that_cannot_be(refused, run, tmp_path):
    refused(2, "export", run, "--out", tmp_path / "a.seq", "--format", "pulsek", mentions=["did you mean 'pulseq'"])
    refused(2, "export", run, "--out", tmp_path / "a.txt", mentions=[".seq"])
    refused(2, "export", run, "--out", tmp_path / "a.seq", "--pulseq-version", "2.0", mentions=["1.5.0"])
    refused(2, "export", run, "--out", tmp_path / "a.seq", "--sequence", "gre_4d", mentions=["gre_2d"])
    refused(
        2,
        "export",
        run,
        "--out",
        tmp_path / "a.seq",
        "--set",
        "sequence.tee=0.01",
        mentions=["tee", "did you mean 'te'"],
    )
    refused(2, "export", run, "--out", tmp_path / "a.seq", "--set", "tee", mentions=["a.b=value"])
    refused(2, "export", run, "--out", tmp_path / "a.seq", "--ignore", "slew", mentions=["hardware"])
    refused(2, "export", run, "--out", tmp_path / "a.seq", "--ignore", "sleww", mentions=["did you mean 'slew'"])
    (tmp_path / "file").touch()
    refused(6, "export", run, "--out", tmp_path / "file" / "a.seq", mentions=["cannot write"])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_figures_that_cannot_be(refused, run, tmp_path):
    refused(2, "psf", run, "--out", tmp_path / "psf.xyz", mentions=["xyz"])
    refused(3, "psf", run, "--compare", tmp_path / "none", "--out", tmp_path / "psf.png", mentions=["none"])
    (tmp_path / "file").touch()
    refused(6, "psf", run, "--out", tmp_path / "file" / "psf.png", mentions=["cannot write"])


def test_a_wrong_option_or_command_is_a_usage_error(trajdesign):
    for words in (
        ("chekc",),
        ("check",),
        ("check", "a", "b"),
        ("check", "a", "--jsno"),
        ("check", "a", "--dwell", "x"),
    ):
        result = trajdesign(*words)
        assert result.code == 2
        assert "Traceback" not in result.err


@pytest.mark.parametrize("name", ["[/bold]", "[red]scan", ":smile:", "a\nb", "<script>", "$\\foo$ü", "x" * 200])
def test_names_are_text_not_markup(trajdesign, tmp_path, name):
    acquisition, scanner = Acquisition((0.22, 0.22), (32, 32), 4, 303, 4e-6), Scanner()
    trajectory = spiral(acquisition, scanner).with_points(0.95 * spiral(acquisition, scanner).points, name)
    folder = tmp_path / name.strip("x").replace("/", "").replace("\n", "") / "[bold]"
    path = folder / "k.npz"
    trajectory.save(path)
    result = trajdesign("check", path)
    assert result.code == 0, result.err
    shown = result.out.replace("\n", "").replace(" ", "")
    assert name[:20].replace("\n", "") in shown, "not as it is"
    result = trajdesign("psf", path, "--out", folder / "psf.png")
    assert result.code == 0, result.err
    assert "[bold]" in result.out.replace("\n", "").replace(" ", "")
    result = trajdesign("export", path, "--out", folder / "k.csv", "--format", "csv")
    assert result.code == 0, result.err


def test_the_command_line_as_a_process(tmp_path, run):
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120"}

    def process(*words, **options):
        command = [sys.executable, "-m", "trajdesign", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, **options)

    result = process("check", run)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    result = process("check", "none.npz")
    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr == "trajdesign: none.npz does not exist.\n"


def test_the_command_line_starts_without_torch():
    code = (
        "import sys, trajdesign.cli.app; assert 'torch' not in sys.modules, 'torch'; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_three_dimensional_trajectory(trajdesign, refused, tmp_path):
    acquisition = Acquisition((0.22, 0.22, 0.22), (32, 32, 32), 2, 300, 4e-6)
    line = torch.linspace(-0.9, 0.9, n_points(acquisition, Scanner()), dtype=torch.float64)
    k = line[None, :, None] * torch.tensor([[[0.6, 0.6, 0.5]], [[-0.5, 0.2, 0.8]]]) * acquisition.k_max[0]
    Trajectory(k.double(), acquisition, Scanner(), "stack").save(tmp_path / "k.npz")
    assert trajdesign("check", tmp_path / "k.npz").code == 0
    assert trajdesign("export", tmp_path / "k.npz", "--format", "csv", "--out", tmp_path / "k.csv").code == 0
    refused(2, "export", tmp_path / "k.npz", "--sequence", "gre_2d", "--out", tmp_path / "k.seq", mentions=["gre_2d"])
    assert trajdesign("export", tmp_path / "k.npz", "--out", tmp_path / "k.seq").code == 0
    assert trajdesign("psf", tmp_path / "k.npz", "--out", tmp_path / "psf.png").code == 0
    assert (tmp_path / "psf.png").exists()


def test_a_run_goes_on_without_its_settings_and_not_with_others(first, trajdesign, refused, tmp_path):
    path = first[0]
    result = trajdesign("optimize", "--out", path, "--resume", "--quiet", "--device", "cpu")
    assert (result.code, result.out) == (0, "")
    assert result.err == f"trajdesign: {path} is finished; nothing is left to train.\n"
    refused(5, "optimize", "--out", path, "--resume", *SETTINGS, "--seed", "9", mentions=["seed is 3, not 9"])
    refused(2, "optimize", "--out", path, "--resume", "--force", mentions=["--force"])
    refused(3, "optimize", "--out", tmp_path / "none", "--resume", mentions=["config.toml"])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["export", "run", "--format", "n"], ["neurospin", "npz"]),
        (["export", "run", "--sequence", "gre"], ["gre_2d", "gre_3d"]),
        (["optimize", "--set", "init.kind=r"], ["init.kind=radial", "init.kind=rosette"]),
        (["optimize", "--set", "reconstructor.k"], [f"reconstructor.kind={n}" for n in plugins.names("reconstructor")]),
        (["optimize", "--log", "t"], ["tensorboard"]),
    ],
)
def test_a_shell_completes_names_of_plugins(words, wanted):
    settings = {
        "_TRAJDESIGN_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": shlex.join(["trajdesign", *words]),
    }
    program = [sys.executable, "-c", "from trajdesign.cli.app import app; app(prog_name='trajdesign')"]
    done = subprocess.run(program, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert re.findall(r'"([\w.=]+)"', done.stdout) == wanted


def test_of_a_run_of_an_older_version_is_said_that_edits_go_unnoticed(trajdesign, run, tmp_path):
    kept = RunFolder(shutil.copytree(run, tmp_path / "run"))
    assert "older version" not in trajdesign("check", kept.path).err
    older = json.loads((kept.path / "metrics.json").read_text())
    del older["files"], older["sha256"]
    (kept.path / "metrics.json").write_text(json.dumps(older))
    for command in (["check"], ["report"], ["compare"], ["export", "--out", tmp_path / "a.seq"]):
        result = trajdesign(command[0], kept.path, *command[1:])
        assert result.code == 0, result.err
        assert result.err.count("was finished by an older version") == 1


def test_what_a_run_does_not_look_at_is_said_by_all_that_tell_of_its_limits(trajdesign, tmp_path):
    run = tmp_path / "run"
    words = ["optimize", "--out", run, *SETTINGS, "--set", 'limits.constraints=["gradient", "slew"]', "--no-baseline"]
    said = trajdesign(*words, "--device", "cpu").out
    assert "Not looked at, because limits.constraints leaves them out: extent, receiver.\n" in said
    assert json.loads((run / "metrics.json").read_text())["limits"]["not_checked"] == ["extent", "receiver"]
    assert '<p class="note">Not looked at: extent, receiver.</p>' in (run / "report.html").read_text()
    assert "ok, extent not checked, receiver not checked" in " ".join(trajdesign("compare", run).out.split())
    assert "The run did not look at: extent, receiver;" in trajdesign("check", run).out
    found = json.loads(trajdesign("check", run, "--ignore", "receiver", "--json").out)
    assert (found["not_checked"], found["not_checked_by_run"]) == (["receiver"], ["extent", "receiver"])
    assert "Not looked at: receiver.\n" in trajdesign("check", run, "--ignore", "receiver").out


def test_a_run_that_looks_at_all_limits_says_nothing_of_others(trajdesign, run):
    assert json.loads((run / "metrics.json").read_text())["limits"]["not_checked"] == []
    assert "not look" not in trajdesign("check", run).out
    assert "Not looked at" not in (run / "report.html").read_text()


def test_off_resonance_is_a_number_or_a_map(tmp_path):
    path = tmp_path / "field.npy"
    np.save(path, np.arange(6).reshape(2, 3))
    assert read_off_resonance("-35.5") == -35.5
    assert np.array_equal(read_off_resonance(str(path)), [[0, 1, 2], [3, 4, 5]])
    for broken in (np.arange(3), np.ones((2, 2), dtype=complex)):
        np.save(path, broken)
        with pytest.raises(InputError, match=r"one real array \(\[z,\] y, x\)"):
            read_off_resonance(str(path))
    with pytest.raises(InputError, match="neither a number in Hz nor a readable"):
        read_off_resonance("fifty")
