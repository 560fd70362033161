import json
import math
import re
import shutil

import pytest
import torch
from faults.tiny import resealed, tiny

from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.errors import ConfigError, InputError, OutputError
from trajdesign.exporting.proof import export
from trajdesign.learning import compare
from trajdesign.learning.optimize import optimize
from trajdesign.learning.results import Results, to_json
from trajdesign.learning.run_folder import Export, RunFolder, load
from trajdesign.learning.state import Validation
from trajdesign.measuring.virtual_scan import scan
from trajdesign.reporting import report
from trajdesign.trajectories.inits.radial import radial


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "a" / "run")
    made.create(load_config(None, ["seed=4"]))
    return made


def test_a_new_folder_has_the_resolved_config(folder):
    assert folder.config() == load_config(None, ["seed=4"])
    with pytest.raises(OutputError, match="--force"):
        folder.create(load_config())
    folder.create(load_config(), overwrite=True)
    assert folder.config().seed == 0


def test_a_folder_that_holds_something_else_is_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path).create(load_config())
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        RunFolder(tmp_path / "file").create(load_config())


def test_a_run_or_a_file_opens_as_its_trajectory(folder, tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        load(folder.path)
    config = folder.config()
    trajectory = radial(config.acquisition, config.scanner)
    trajectory.save(folder.path / "trajectory.npz")
    assert torch.equal(load(folder.path).points, trajectory.points)
    assert torch.equal(load(str(folder.path / "trajectory.npz")).points, trajectory.points)
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "none")


def test_a_run_tells_the_pulseq_files_that_were_made_of_it(folder, tmp_path):
    config = folder.config()
    trajectory = radial(config.acquisition, config.scanner)
    trajectory.save(folder.path / "trajectory.npz")
    assert folder.exports() == []
    options = {"sequence": {"n_dummies": 1, "kind": "gre_2d"}}
    facts = export(trajectory, tmp_path / "a.seq", options=options, run=folder.path)
    assert facts["is_noted"]
    export(trajectory, tmp_path / "b.seq", options={"sequence": "se_2d"}, run=folder.path)
    export(trajectory, tmp_path / "c.csv", format="csv", run=folder.path)  # holds no signature
    signatures = [(tmp_path / name).read_text().split("\nHash ")[1].strip() for name in ("a.seq", "b.seq")]
    assert folder.exports() == [
        Export("a.seq", signatures[0], "gre_2d", {"n_dummies": 1}),
        Export("b.seq", signatures[1], "se_2d", {}),
    ]
    first = (folder.path / "exports.json").read_bytes()
    # the same again changes nothing but the order
    export(trajectory, tmp_path / "a.seq", options=options, run=folder.path, overwrite=True)
    assert [one.file for one in folder.exports()] == ["b.seq", "a.seq"]
    export(trajectory, tmp_path / "b.seq", options={"sequence": "se_2d"}, run=folder.path, overwrite=True)
    assert (folder.path / "exports.json").read_bytes() == first
    assert sorted(p.name for p in folder.path.iterdir()) == ["config.toml", "exports.json", "trajectory.npz"]
    with pytest.raises(ConfigError, match="is not the trajectory of the run"):
        export(trajectory.with_points(trajectory.points / 2), tmp_path / "d.seq", run=folder.path)
    for text in (
        "[]",
        '{"exports": [{"file": "a"}]}',
        '{"exports": [{"file": 1, "signature": "", "template": ""}]}',
        "{",
    ):
        (folder.path / "exports.json").write_text(text)
        with pytest.raises(InputError, match=r"exports\.json is damaged"):
            folder.exports()
        with pytest.raises(InputError, match=r"exports\.json is damaged"):
            export(trajectory, tmp_path / "d.seq", run=folder.path)
    assert not (tmp_path / "d.seq").exists()
    folder.create(config, overwrite=True)  # a new run has exported nothing
    assert folder.exports() == []


def test_an_export_of_a_run_that_cannot_be_written_is_made_all_the_same(folder, tmp_path, monkeypatch):
    config = folder.config()
    trajectory = radial(config.acquisition, config.scanner)
    trajectory.save(folder.path / "trajectory.npz")

    def fail(*_, **__):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("trajdesign.files.lock._acquire", fail)
        assert not export(trajectory, tmp_path / "a.seq", run=folder.path)["is_noted"]
    assert (tmp_path / "a.seq").exists()
    assert folder.exports() == []


def test_a_network_comes_back_and_only_into_its_own_architecture(folder):
    torch.manual_seed(0)
    network = plugins.build("reconstructor", {"kind": "unet"})
    folder.save_network(network)
    other = plugins.build("reconstructor", {"kind": "unet"})
    folder.load_network(other)
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(other.correction(image), network.correction(image))
    for wrong in ({"kind": "unet", "channels": 12}, {"kind": "unet", "levels": 1}, {"kind": "adjoint"}):
        with pytest.raises(InputError, match="cannot read the network") as caught:
            folder.load_network(plugins.build("reconstructor", wrong))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="none"):
        folder.load_network(network, "none")
    whole = (folder.path / "network.safetensors").read_bytes()
    for damaged in (b"", whole[:100], whole[:-4], b"\xff" * 100):
        (folder.path / "network.safetensors").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot read the network"):
            folder.load_network(network)


def test_metrics_are_strict_json(folder):
    results = Results("ü", limits={"a": math.nan, "b": [math.inf, 1.5, (2, -math.inf)], "c": {"d": None}})
    folder.write_results(results)
    assert folder.results().limits == {"a": None, "b": [None, 1.5, [2, None]], "c": {"d": None}}
    assert folder.results().name == "ü"
    assert "NaN" not in (folder.path / "metrics.json").read_text()
    assert json.loads(to_json([math.nan])) == [None]
    for text in ("", "{", "\xff"):
        (folder.path / "metrics.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"metrics\.json"):
            folder.results()


def test_history_is_a_table(folder):
    rows = [Validation("learned", step, step / 2, 0.5, 30.0 + step, 0.75, 0.0, 1.5) for step in (1, 2)]
    folder.write_history(rows)
    assert (folder.path / "history.csv").read_text() == (
        "stage,step,epoch,loss,val_psnr,val_ssim,penalty,seconds\n"
        "learned,1,0.5,0.5,31.0,0.75,0.0,1.5\nlearned,2,1.0,0.5,32.0,0.75,0.0,1.5\n"
    )
    assert folder.history() == rows
    (folder.path / "history.csv").write_text("stage,step,val_psnr\nfixed,3,\n")
    assert str(folder.history()[0]) == str(Validation("fixed", 3.0))


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Two finished runs of one shape, one radial and one spiral."""
    folder = tmp_path_factory.mktemp("runs")
    for name, kind in (("a", "radial"), ("b", "spiral")):
        config = tiny(f"init.kind={kind}", "training.epochs=1", "training.validations=1")
        optimize(config, folder / name, device="cpu", quiet=True)
    return folder


@pytest.mark.parametrize("name", ["trajectory.npz", "initial.npz", "network.safetensors", "network_fixed.safetensors"])
def test_a_file_of_another_run_is_not_taken_for_its_own(two_runs, tmp_path, name):
    shutil.copytree(two_runs / "a", tmp_path / "run")
    stage = "fixed" if name in ("initial.npz", "network_fixed.safetensors") else "learned"
    run = RunFolder(tmp_path / "run")
    assert run.sums() == json.loads((run.path / "metrics.json").read_text())["files"]
    run.load_stage(stage, plugins.build("reconstructor", run.config().reconstructor))
    shutil.copy(two_runs / "b" / name, run.path / name)
    with pytest.raises(InputError, match=rf"{re.escape(name)} is not the one that this run left: its SHA-256"):
        run.load_stage(stage, plugins.build("reconstructor", run.config().reconstructor))


@pytest.mark.parametrize(
    ("old", "new", "key"), [("0.22", "0.44", "acquisition.fov"), ("max_slew = 200.0", "max_slew = 100.0", "max_slew")]
)
def test_a_config_that_was_edited_is_not_that_of_the_trajectory(two_runs, tmp_path, old, new, key):
    shutil.copytree(two_runs / "a", tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    edited = config.read_text().replace(old, new)
    assert edited != config.read_text()
    config.write_text(edited)
    resealed(RunFolder(tmp_path / "run"))
    with pytest.raises(InputError, match=f"{key} = .* they are not of one run"):
        load(tmp_path / "run")


def readers(run):
    """Yield what reads a run: each command's way."""
    yield lambda: report.write(run, run / "report.html")
    yield lambda: compare.table(compare.open_stages([str(run)]))
    yield lambda: compare.table(compare.open_stages([f"{run}:fixed"]))
    yield lambda: load(run)
    yield lambda: scan(run / "run.seq", run=run, out=run / "scan")
    yield lambda: optimize(load_config(run / "config.toml"), run, device="cpu", resume=True, quiet=True)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("metrics.json", r'"psnr": (\d)', r'"psnr": 1\1'),
        ("metrics.json", r'"sha256": "\w+"', '"other": 1'),
        ("metrics.json", r'("psnr_list": \[\s*)', r"\g<1>1.5, "),
        ("config.toml", "n_test = 2", "n_test = 1"),
        ("config.toml", "noise = 0.0", "noise = 0.1"),
    ],
)
def test_a_file_of_a_finished_run_that_was_edited_is_noticed_by_all_that_read_it(two_runs, tmp_path, name, old, new):
    run = tmp_path / "run"
    shutil.copytree(two_runs / "a", run)
    export(load(run), run / "run.seq", options={"sequence": {"n_dummies": 0}})
    for read in readers(run):
        read()
    shutil.rmtree(run / "scan")
    text = (run / name).read_text()
    edited, n = re.subn(old, new, text)
    assert n
    (run / name).write_text(edited)
    for read in readers(run):
        with pytest.raises(InputError, match=rf"{re.escape(name)} is not the one that this run left: its SHA-256"):
            read()
    (run / name).write_bytes(text.replace("\n", "\r\n").encode())  # the lines of another system change nothing
    for read in readers(run):
        read()


def test_the_history_of_another_run_is_not_drawn(two_runs, tmp_path):
    run = RunFolder(shutil.copytree(two_runs / "a", tmp_path / "run"))
    assert len(run.history()) == 2
    shutil.copy(two_runs / "b" / "history.csv", run.path)
    with pytest.raises(InputError, match=r"history\.csv is not the one that this run left"):
        run.history()


def test_a_run_of_an_older_version_is_read_and_said_to_be_unsealed(two_runs, tmp_path):
    run = RunFolder(shutil.copytree(two_runs / "a", tmp_path / "run"))
    assert run.unsealed() == ""
    kept = json.loads((run.path / "metrics.json").read_text())
    for name in ("config.toml", "history.csv"):
        del kept["files"][name]
    del kept["sha256"]
    (run.path / "metrics.json").write_text(json.dumps(kept))
    assert run.unsealed().startswith(f"{run.path} was finished by an older version: an edit of its metrics.json")
    assert torch.equal(run.trajectory().points, RunFolder(two_runs / "a").trajectory().points)
    assert run.results().stages == RunFolder(two_runs / "a").results().stages
