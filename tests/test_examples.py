"""Every example runs, on tiny settings, and leaves what it says."""

import ast
import importlib
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import trajdesign as td
from trajdesign.cli import app
from trajdesign.config import plugins, toml
from trajdesign.config.models import from_tables
from trajdesign.config.toml import parse_options
from trajdesign.learning.optimize import optimize
from trajdesign.studies import study
from trajdesign.trajectory import n_points

EXAMPLES = Path(__file__).parents[1] / "examples"
DOCS = EXAMPLES.with_name("docs")
GALLERY = sorted(EXAMPLES.glob("gallery/*.py"))

TINY = [
    "acquisition.matrix=[32, 32]",
    "acquisition.n_shots=2",
    "acquisition.n_samples=300",
    "training.epochs=1",
    "training.validations=1",
    "training.batch_size=2",
]
TINY_PHANTOM = ["data.kind=phantom", "data.n_train=2", "data.n_val=1", "data.n_test=2", "data.n_coils=1"]


def script(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_arguments(settings):
    return [argument for setting in settings for argument in ("--set", setting)]


@pytest.fixture
def in_process(monkeypatch):
    """Runs the program's commands here: a process for each would import torch each time."""

    def run(command):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["trajdesign", *command[3:]])
            try:
                app.main()
            except SystemExit as end:
                if end.code:
                    raise subprocess.CalledProcessError(end.code, command) from None

    return run


def test_learn_and_export(tmp_path, capsys):
    script("learn_and_export").main(tmp_path)
    printed = capsys.readouterr().out
    assert "BROKEN" not in printed
    assert "learned" in printed
    assert (tmp_path / "learned.seq").stat().st_size > 0
    assert all(finding.ok for finding in td.check(td.load(tmp_path / "run")))


def test_measure_accuracy_keeps_the_promised_bounds(capsys):
    script("measure_accuracy").main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == 8
    for kernel, *words in rows:
        values = [float(word) for word in words if "e-" in word]
        dot_test = words[1] == "dot"
        assert len(values) == (1 if dot_test else 3)
        assert max(values) <= (1e-3 if kernel == "torchkbnufft" and not dot_test else 1e-5)


def test_check_your_trajectory_shows_and_repairs_broken_limits(tmp_path, capsys):
    script("check_your_trajectory").main(tmp_path)
    before, after = capsys.readouterr().out.split("moved onto the limits")
    assert "slew" in next(line for line in before.splitlines() if "BROKEN" in line and "slew" in line)
    assert "BROKEN" not in after
    for file in ("rosette.seq", "rosette.csv", "rosette.npz"):
        assert (tmp_path / file).exists()


def test_animate_plays_the_whole_shots(tmp_path, monkeypatch):
    acquisition = td.Acquisition((0.2, 0.2), (16, 16), n_shots=3, n_samples=100, dwell=4e-6)
    for kind, name in (("radial", "initial"), ("spiral", "trajectory")):
        plugins.build("init", {"kind": kind}, acquisition, td.Scanner()).save(tmp_path / f"{name}.npz")
    animate = script("animate")
    monkeypatch.setattr(animate, "N_FRAMES", 6)
    animate.main(tmp_path, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        inked, durations = [], []
        for frame in ImageSequence.Iterator(film):
            inked.append(int((np.asarray(frame.convert("L")) < 250).sum()))
            durations.append(frame.info["duration"])
    assert sum(durations) == (animate.N_FRAMES - 1) * animate.DURATION + animate.REST
    # the paths only grow, but for the points at their ends
    assert inked[len(inked) // 2] > inked[0]
    assert inked[-1] > inked[len(inked) // 2]


def test_comfortable_tells_what_the_runs_keep(tmp_path, capsys):
    tiny = [*TINY, "data.n_train=2", "data.n_val=1", "data.n_test=2"]
    script("comfortable").main(tmp_path, tiny)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["free", "comfortable"]
    found = json.loads((tmp_path / "comfortable" / "metrics.json").read_text())["limits"]["constraints"]["stimulation"]
    assert found["limit"] == 0.77
    assert f"-> {found['value']:.1%}" in lines[1]
    assert (tmp_path / "comfortable.png").stat().st_size > 0


def test_echo_tells_what_the_files_keep(tmp_path, capsys):
    script("echo").main(tmp_path, [*TINY, "data.n_train=4", "data.n_val=1", "data.n_test=2"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    keeping = [(start.strip(), kept.strip()) for start, kept, *_ in rows]
    starts = ("radial", "spiral", "spiral, in-out")
    assert keeping == [*((start, kept) for start in starts for kept in ("no", "yes")), (starts[-1], "with `moment`")]
    folders = [f"{start.replace(', ', '-')}-{kept.replace('`', '').replace(' ', '-')}" for start, kept in keeping]
    for (_, kept, psnr, _, distance, spread), folder in zip(rows, folders, strict=True):
        found = json.loads((tmp_path / folder / "metrics.json").read_text())
        assert float(psnr) == pytest.approx(found["learned"]["psnr"], abs=0.006)
        assert (float(distance) < 1e-6) == (kept.strip() != "no")
        assert float(spread) >= 0


def test_start_runs_the_whole_road_and_can_be_repeated(tmp_path, monkeypatch, capfd, in_process):
    start = script("start")
    monkeypatch.setattr(start, "run", in_process)
    monkeypatch.setattr(start, "install", lambda extra="": sys.executable)
    monkeypatch.chdir(tmp_path)
    assert start.main(tiny_arguments([*TINY, *TINY_PHANTOM])) == 0
    written = {path.name for path in (tmp_path / "runs" / "first").iterdir()}
    assert {"trajectory.npz", "trajectory.seq", "trajectory_k.npz", "psf.png", "metrics.json"} <= written
    assert "Next:" in capfd.readouterr().out
    commands = []
    monkeypatch.setattr(start, "run", commands.append)
    assert start.main([]) == 0
    assert all("--force" in command for command in commands if "optimize" in command or "export" in command)


def test_start_stops_with_the_exit_code_of_the_command_that_fails(tmp_path, monkeypatch, capfd):
    start = script("start")
    monkeypatch.setattr(start, "install", lambda extra="": sys.executable)
    monkeypatch.chdir(tmp_path)
    assert start.main(["--set", "training.epoch=1"]) == 2
    assert "epochs" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_start_installs_once(tmp_path, monkeypatch):
    start = script("start")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(start, "ROOT", tmp_path)
    for name in start.SOURCES:
        (tmp_path / name).write_text(name)
    commands = []

    def run(command):
        commands.append(command)
        if "venv" in command:
            python = Path(command[-1], "Scripts/python.exe" if sys.platform == "win32" else "bin/python")
            python.parent.mkdir(parents=True)
            python.touch()

    monkeypatch.setattr(start, "run", run)
    python = start.install("[dev]")
    assert Path(python).is_relative_to(tmp_path / ".venv")
    assert [command[2] for command in commands] == ["venv", "pip"]
    assert commands[1][-1] == f"{tmp_path}[dev]"
    assert start.install() == python
    assert len(commands) == 2
    (tmp_path / "constraints.txt").write_text("other")
    start.install()
    assert commands[2][-1] == str(tmp_path)
    assert len(commands) == 3


def test_start_fails_where_the_install_fails(monkeypatch, capsys):
    start = script("start")

    def install():
        raise subprocess.CalledProcessError(3, ["pip", "install"])

    monkeypatch.setattr(start, "install", install)
    assert start.main([]) == 3
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_and_study_loads(path):
    load = study.load if "grid" in tomllib.loads(path.read_text(encoding="utf-8")) else td.load_config
    assert load(path).name


def test_the_peers_differ_in_method_alone_and_only_theirs_may_break_limits():
    peers = study.load(EXAMPLES / "peers.toml")
    learned = [cell for cell in peers.cells if cell.values["parameterization"] != study.FIXED]
    broken = {cell.values["parameterization"] for cell in learned if not cell.config.limits.repair}
    assert broken == {"pilot", "bjork", "paper"}
    same = ("scanner", "acquisition", "training", "data", "reconstructor", "seed")
    assert len({str([getattr(cell.config, key) for key in same]) for cell in peers.cells}) == 1
    assert len({str(cell.config.limits.constraints) for cell in peers.cells}) == 1
    for cell in learned:
        if cell.values["parameterization"] == "paper":
            assert cell.config.limits.from_epoch == cell.config.training.epochs / 4


def test_what_runs_ask_for_at_their_ends(tmp_path, capsys):
    acquisition, scanner = td.Acquisition(matrix=(32, 32), n_shots=2, n_samples=300), td.Scanner()
    time = torch.linspace(-1, 1, n_points(acquisition, scanner), dtype=torch.float64)
    spokes = 60 * torch.stack([time, 0 * time], dim=-1).repeat(2, 1, 1)
    for name, k in (("spokes", spokes), ("torn", spokes.roll(5, dims=1))):
        td.Trajectory(k, acquisition, scanner, name).save(tmp_path / f"{name}.npz")
    script("peers_ends").main([str(tmp_path / f"{name}.npz") for name in ("spokes", "torn")])
    whole_line, torn = capsys.readouterr().out.splitlines()[1:]
    gradient, slew, from_rest, whole, ends = (float(word.strip(",")) for word in whole_line.split()[1:])
    step = 120 / (len(time) - 1) / (scanner.gamma * scanner.gradient_raster)
    assert gradient == pytest.approx(1e3 * step, abs=0.01)
    assert slew == pytest.approx(0, abs=0.1)
    assert from_rest == pytest.approx(step / scanner.gradient_raster, abs=0.1)
    assert from_rest > scanner.max_slew > whole
    assert 0.1 < ends < 2
    assert "none: the waveform breaks 2 limit(s): gradient, whole shot" in torn


def test_the_papers_protocol_trains_and_is_projected(tmp_path):
    cells = study.load(EXAMPLES / "paper.toml").cells
    whole = next(cell.config for cell in cells if cell.name == "cartesian-04-paper-unet-s0-brain")
    assert whole.start == {}, "the paper's lines start straight"
    assert whole.parameterization["method"] == "dopri5"
    assert whole.parameterization["adjoint"]
    assert whole.limits.method == "penalty"
    small = [*TINY, *TINY_PHANTOM, "limits.from_epoch=0", "parameterization.n_control=10"]
    config = from_tables(toml.merge(whole.to_dict(), parse_options(small)))
    results = optimize(config, tmp_path / "run", baseline=False)
    assert results.limits["ok"]


def test_brain_config_trains_on_files_named_as_in_it(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "brain"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for patient in ("01", "09", "10"):
        volume = generator.uniform(50, 100, (40, 40, 4)).astype(np.float32)
        image = nibabel.Nifti1Image(volume, np.diag([5.5, 5.5, 6.0, 1.0]))
        nibabel.save(image, folder / f"sub-{patient}_T1w.nii.gz")
    monkeypatch.chdir(tmp_path)
    results = optimize(td.load_config(EXAMPLES / "brain.toml", TINY), tmp_path / "run")
    assert results.last.n == 4
    assert results.limits["ok"]


def test_reconstruct_kspace(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    optimize(td.load_config(None, [*TINY, *TINY_PHANTOM]), "run")
    generator = np.random.default_rng(0)
    image = np.zeros((2, 3, 40, 40), dtype=np.complex64)
    image[..., 8:32, 8:32] = generator.uniform(0.5, 1, (2, 3, 24, 24))
    with h5py.File("slices.h5", "w") as file:
        file["kspace"] = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=(-2, -1))), axes=(-2, -1))
    script("reconstruct_kspace").main("slices.h5", "run:fixed", "run")
    printed = capsys.readouterr().out
    for i in range(2):
        for label in ("run:fixed", "run"):
            assert f"slice {i}, 3 coils, {label}: " in printed
    assert (tmp_path / "reconstruct_kspace.png").stat().st_size > 0


def test_the_commands_of_start_are_commands_of_the_program():
    start = script("start")
    assert {command[0] for command in start.commands("runs/first", [])} <= {
        command.name or command.callback.__name__ for command in app.app.registered_commands
    }


def test_exchanging_trajectories_compares_each_with_the_one_at_home(tmp_path, capsys):
    for name, seed in (("here", 0), ("there", 1)):
        settings = [*TINY, *TINY_PHANTOM, f"data.seed={seed}", f"init.angle={'golden' if seed else 'uniform'}"]
        optimize(td.load_config(None, settings), tmp_path / name, baseline=False)
    script("exchange").main(str(tmp_path / "here"), str(tmp_path / "there"), str(tmp_path / "out"))
    table = json.loads((tmp_path / "out" / "exchange.json").read_text())
    assert [(row["trajectory"], row["images"]) for row in table] == [
        (owner, images) for images in ("here", "there") for owner in ("here", "there")
    ]
    for row in table:
        folder = td.load(tmp_path / "out" / f"{row['trajectory']}_on_{row['images']}")
        assert torch.equal(folder.points, td.load(tmp_path / row["trajectory"]).points)
        if row["trajectory"] == row["images"]:
            assert row["psnr_lost"] == 0
            assert row["psnr_p"] == 1
    assert table[1]["psnr_lost"] == pytest.approx(table[0]["psnr"] - table[1]["psnr"])
    assert capsys.readouterr().out.count("dB, SSIM") == 4


def test_the_docs_run_every_script_of_the_gallery():
    conf = ast.parse((DOCS / "conf.py").read_text(encoding="utf-8"))
    values = {ast.unparse(node.targets[0]): node.value for node in conf.body if isinstance(node, ast.Assign)}
    listed = ast.literal_eval(values["GALLERY"])
    assert sorted(listed) == [path.name for path in GALLERY]
    assert "\ngallery/index\n" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_a_script_of_the_gallery_asks_imports_what_there_is_and_shows(path):
    # the build of the docs runs it; here is what would fail there late
    tree = ast.parse(path.read_text(encoding="utf-8"))
    title, underline = ast.get_docstring(tree).splitlines()[:2]
    assert title.endswith("?")
    assert underline == "=" * len(title)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("trajdesign"):
            home = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                assert not name.startswith("_")
                assert hasattr(home, name) or importlib.util.find_spec(f"{node.module}.{name}")
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "td"]
    assert {"Acquisition", "Scanner"} <= {node.attr for node in used} <= set(dir(td))
    assert ast.unparse(tree.body[-1]) == "plt.show()"


def test_reconstruct_kspace_says_in_one_sentence_what_is_wrong(tmp_path):
    def ended(*words):
        command = [sys.executable, EXAMPLES / "reconstruct_kspace.py", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    without = ended()
    assert without.returncode == 2
    assert "required: FILE.h5, RUN" in without.stderr
    missing = ended("none.h5", "run")
    assert missing.returncode == 3
    assert len(missing.stderr.splitlines()) == 1
    assert missing.stderr.startswith("run")
