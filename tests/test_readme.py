"""The README and the docs say what the program does: their commands run, their tables and code are right."""

import ast
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import typer.main
from docutils.utils.math.latex2mathml import tex2mathml
from test_examples import TINY, TINY_PHANTOM

import trajdesign as td
from trajdesign import errors
from trajdesign.cli import app
from trajdesign.config import plugins
from trajdesign.config.models import load_config
from trajdesign.studies import study

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *TUTORIALS,
    *sorted((ROOT / "examples").glob("*.toml")),
]
README = PAGES[0].read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def shell_lines(path):
    """Lines of the shell blocks of a page, and of the comments of a config."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        return [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#   ")]
    return "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()


COMMANDS = [
    pytest.param(line, id=f"{path.name}: {line}")
    for path in PAGES
    for line in shell_lines(path)
    if line.startswith("trajdesign ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line):
    program = typer.main.get_command(app.app)
    context = program.make_context("trajdesign", [], resilient_parsing=True)
    name, command, arguments = program.resolve_command(context, shlex.split(line)[1:])
    command.make_context(name, arguments, parent=context)


def test_the_pages_have_commands():
    assert len(COMMANDS) > 15


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # torch's launcher leaves its logs open
def test_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    """In the order of the README, on tiny settings, with the files that it speaks of in place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brain.toml").write_text(blocks(README, "toml")[0])
    acquisition = td.Acquisition(matrix=(32, 32), n_shots=2)
    time = np.linspace(-0.9, 0.9, acquisition.n_samples)
    k = np.stack([time, 0.5 * time], axis=-1)[None] * acquisition.k_max[0] * np.ones((2, 1, 1))
    np.savez("mine.npz", k=k)
    images = np.random.default_rng(0).uniform(0.5, 1, (2, 32, 32))
    (tmp_path / "data").mkdir()
    for patient in ("1", "2", "3"):
        np.save(f"data/sub-{patient}.npy", images ** (0.5 + 0.2 * int(patient)))
    splits = [f"data.{split}=['data/sub-{i + 1}.npy']" for i, split in enumerate(("train", "val", "test"))]
    for line in "\n".join(blocks(README, "sh")).splitlines():
        if not line.startswith("trajdesign "):
            continue
        arguments = shlex.split(line)[1:]
        if arguments[0] == "optimize":
            settings = TINY + (splits if "brain.toml" in arguments else TINY_PHANTOM)
            arguments += [argument for setting in settings for argument in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["trajdesign", *arguments])
        with pytest.raises(SystemExit) as end:
            app.main()
        assert end.value.code == 0, f"{line}: {capsys.readouterr().err}"
        monkeypatch.setattr(
            "trajdesign.reporting.report.draw", lambda *_: None
        )  # seconds a run, and the first has drawn them
    for path in ("first/report.html", "first/trajectory.seq", "first/psf.png", "brain/metrics.json", "../mine.seq"):
        assert (tmp_path / "runs" / path).exists()
    for code in blocks(README, "python"):
        (tmp_path / "script.py").write_text(code.replace('"runs/brain")\n', '"runs/brain", overwrite=True)\n', 1))
        shrink(tmp_path / "brain.toml", [*TINY, *splits])
        runpy.run_path("script.py")
    assert "slew" in capsys.readouterr().out


def test_commands_of_the_tutorials_run(tmp_path, monkeypatch, capsys):
    """One tutorial after the other, on tiny settings; their own files are taken from their blocks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "trajdesign.reporting.report.draw", lambda *_: None
    )  # seconds a run, and the README's first draws them
    learn, foreign = ((ROOT / "docs" / "tutorials" / f"{name}.md").read_text() for name in ("learn", "foreign"))
    (tmp_path / "scanner.toml").write_text(blocks(learn, "toml")[0])
    shrink(tmp_path / "scanner.toml", ["data={kind='phantom'}", *TINY, *TINY_PHANTOM])
    acquisition = td.Acquisition(matrix=(32, 32), n_shots=2, n_samples=300)
    time = np.linspace(-0.9, 0.9, acquisition.n_samples)
    np.savez("mine.npz", k=np.stack([time, 0.5 * time], axis=-1)[None] * acquisition.k_max[0] * np.ones((2, 1, 1)))
    script = blocks(foreign, "python")[1]
    for line in "\n".join(blocks(learn, "sh") + blocks(foreign, "sh")).replace("\\\n", " ").splitlines():
        if "playable.npz" in line and not Path("playable.npz").exists():
            exec(compile(script, "script.py", "exec"), {})
        if not line.startswith("trajdesign "):
            continue
        arguments = shlex.split(line)[1:]
        if "runs/playable" in arguments:
            matrix = list(td.load("playable.npz").acquisition.matrix)
            settings = [*TINY, *TINY_PHANTOM, f"acquisition.matrix={matrix}"]
            arguments += [argument for setting in settings for argument in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["trajdesign", *arguments])
        with pytest.raises(SystemExit) as end:
            app.main()
        assert end.value.code == 0, f"{line}: {capsys.readouterr().err}"
    for path in ("spiral8.seq", "scans/spiral8", "playable.seq", "playable.hdr", "playable.h5", "runs/playable"):
        assert Path(path).exists(), path


@pytest.mark.parametrize(
    ("name", "acquisition"),
    [
        ("stack", "{fov=[0.2,0.2,0.05], matrix=[16,16,4], n_shots=8, n_samples=300, dwell=4e-6}"),
        ("volume", "{fov=[0.2,0.2,0.2], matrix=[8,8,8], n_shots=8, n_samples=300, dwell=4e-6}"),
        ("cine", "{fov=[0.2,0.2], matrix=[16,16], n_frames=2, n_shots=4, n_samples=300, dwell=4e-6}"),
    ],
)
def test_commands_of_the_tutorials_of_volumes_and_films_run(name, acquisition, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trajdesign.reporting.report.draw", lambda *_: None)  # see above
    page = (ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
    (tmp_path / f"{name}.toml").write_text(blocks(page, "toml")[0])
    few = ["data={kind='phantom', n_train=2, n_val=1, n_test=1, n_coils=1}", "reconstructor={kind='adjoint'}"]
    training = [setting for setting in TINY if setting.startswith("training")]
    shrink(tmp_path / f"{name}.toml", [f"acquisition={acquisition}", *few, *training])
    for line in filter(None, "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()):
        monkeypatch.setattr(sys, "argv", ["trajdesign", *shlex.split(line)[1:]])
        with pytest.raises(SystemExit) as end:
            app.main()
        assert end.value.code == 0, f"{line}: {capsys.readouterr().err}"
    for path in (f"{name}.seq", f"{name}_k.npz", f"{name}.png", f"runs/{name}/metrics.json"):
        assert Path(path).exists(), path


def shrink(path, settings):
    """Replace a config by itself with tiny settings."""
    path.write_text(tomli_w.dumps(load_config(path, settings).to_dict()))


def test_the_two_commands_exist_and_ci_runs_the_second():
    commands = [line for line in "\n".join(blocks(README, "sh")[:2]).splitlines() if line]
    assert commands == ["python3 examples/start.py", "python3 tests/run.py"]
    for command in commands:
        assert (ROOT / command.split()[1]).is_file()
    ci = (ROOT / ".ci" / "run").read_text()
    assert "tests/run.py" in ci
    assert "pytest" not in ci


def test_start_runs_the_commands_that_the_readme_lists():
    start = runpy.run_path(str(ROOT / "examples" / "start.py"))
    listed = [line.split()[1:] for line in blocks(README, "sh")[2].splitlines()]
    run = [[a for a in command if a != "--force"] for command in start["commands"]("runs/first", [])]
    assert run == listed


def test_tests_are_the_last_step_so_that_their_closing_line_is_the_last():
    steps = runpy.run_path(str(ROOT / "tests" / "run.py"))["steps"](["-x"])
    assert list(steps) == ["lint", "format", "types", "docs", "tests"]
    assert steps["tests"][0] == "pytest"
    assert steps["tests"][-1] == "-x"
    assert {"--fail-on-warning", "--keep-going"} <= set(steps["docs"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_toml_block_is_toml(path):
    for block in blocks(path.read_text(encoding="utf-8"), "toml"):
        assert tomllib.loads(block)


def test_config_of_the_readme_loads(tmp_path):
    path = tmp_path / "brain.toml"
    path.write_text(blocks(README, "toml")[0])
    assert load_config(path).data["kind"] == "images"


def test_study_of_the_docs_loads(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(blocks((ROOT / "docs" / "study.md").read_text(encoding="utf-8"), "toml")[0])
    found = study.load(path)
    assert found.name == "brain"
    assert len(found.cells) == 3 * 3 * 2 * 3 + 3 * 2


def test_readme_lists_every_exit_code():
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)}
    known = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)}
    assert listed == known | {0}


def test_conventions_list_every_key_of_a_file(tmp_path):
    acquisition, scanner = td.Acquisition(), td.Scanner()
    config = td.Config(acquisition=acquisition, scanner=scanner)
    plugins.build("init", config.init, acquisition, scanner).save(tmp_path / "radial.npz")
    with np.load(tmp_path / "radial.npz") as file:
        saved = set(file.files)
    page = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    table = page.split("## The trajectory file")[1].split("##")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == saved


def test_the_ring_plugin_of_the_docs_works(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
    (tmp_path / "rings.py").write_text(blocks(page, "python")[0])
    (tmp_path / "rings.toml").write_text(blocks(page, "toml")[0])
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(tmp_path / "rings.toml")
    trajectory = plugins.build("init", config.init, config.acquisition, config.scanner)
    assert all(finding.ok for finding in td.check(trajectory))
    k = trajectory.points.norm(dim=-1)
    assert float((k - k[:, :1]).abs().max()) < 1e-9


def test_the_notebook_runs_and_shows_what_it_says(tmp_path, monkeypatch, capsys):
    """Cell by cell; the value at the end of a cell is shown in the way that Jupyter asks for."""
    monkeypatch.chdir(tmp_path)
    names, shown = {}, []
    for cell in blocks((ROOT / "docs" / "notebook.md").read_text(encoding="utf-8"), "python"):
        tree = ast.parse(cell)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
        if value is not None:
            shown.append(next((way for way in ("_repr_png_", "_repr_html_") if hasattr(value, way)), ""))
            if shown[-1]:
                assert getattr(value, shown[-1])()[:4] in (b"\x89PNG", "<fig", "<tab")
    assert shown == ["_repr_html_", "_repr_html_", *["_repr_png_"] * 3, "", ""]
    assert (tmp_path / names["page"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert names["facts"]["max_k_error_fov"] < 1e-6
    out = capsys.readouterr().out
    assert "Training on 16 slices, validating on 2 slices, testing on 4 slices." in out
    assert out.count("learned: done") == 1


def test_built_pages_ask_nothing_of_the_network():
    """Formulas are MathML, and every formula of the docs is one that the renderer knows."""
    conf = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    assert 'html_math_renderer = "mathml"' in conf
    assert "mathjax" not in conf
    n_formulas = 0
    for path in (ROOT / "docs").rglob("*.md"):
        text = re.sub(r"^```.*?^```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for block, inline in re.findall(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$]+?)\$", text, flags=re.DOTALL):
            n_formulas += 1
            assert tex2mathml((block or inline).strip(), as_block=bool(block)).startswith("<math")
            assert not re.search(r"frac\s*\d", block + inline), "it would take 12 for one number"
    assert n_formulas > 100


def test_no_page_speaks_of_an_index_that_has_no_such_package():
    for path in [*PAGES, *(ROOT / "trajdesign").rglob("*.py"), ROOT / "examples" / "gallery" / "README.rst"]:
        assert not re.search(r"pip install ['\"]?trajdesign", path.read_text(encoding="utf-8")), path
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for path in PAGES:
        for extra in re.findall(r"pip install -e \"\.\[(\w+)\]", path.read_text(encoding="utf-8")):
            assert extra in extras, path
