"""A house of rooms, one staircase: a room imports only from lines below its own, and nothing goes round."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trajdesign
from trajdesign.config import plugins

ROOT = Path(trajdesign.__file__).parent

#: From the top to the bottom. A folder is one room, a file at the root is one; rooms of one line do not meet.
STAIRCASE = [
    "__main__",
    "cli",
    "measuring",
    "exporting",
    "reporting",
    "studies",
    "learning",
    "trajectories",
    "pulseq",
    "physics",
    "config reconstruction",
    "interfaces",
    "encoding",
    "trajectory data",
    "acquisition",
    "scanner",
    "files runtime units",
    "errors",
]

#: Plug-ins that are used as functions, not as a user's choice: networks correct the adjoint image, scans are MRD.
AS_FUNCTIONS = {
    *(
        (f"reconstruction.reconstructors.{name}", "reconstruction.reconstructors.adjoint")
        for name in ("cg_sense", "unet", "unrolled")
    ),
    ("learning.evaluation", "reconstruction.reconstructors.adjoint"),
    ("measuring.virtual_scan", "reconstruction.reconstructors.adjoint"),
    ("measuring.raw_data", "trajectories.formats.mrd"),
    ("measuring.virtual_scan", "trajectories.formats.mrd"),
    ("reporting.plots", "physics.constraints.gradient"),
    ("reporting.plots", "physics.constraints.receiver"),
    ("reporting.plots", "physics.constraints.slew"),
}

#: Packages that are heavy or could be replaced: the only modules that may import them.
ONLY_USERS = {
    "typer": {"cli.app", "cli.commands"},
    "rich": {"cli.console"},
    "matplotlib": {"reporting.drawing", "reporting.measured", "reporting.plots", "reporting.study_plots"},
    "jinja2": {"reporting.page"},
    "markupsafe": {"reporting.page"},
    "torchkbnufft": {"encoding.nufft"},
    "finufft": {"encoding.nufft"},
    "torchdiffeq": {"learning.parameterizations.neural_ode"},
    "clarabel": {"pulseq.writer.bridges"},
    "pypulseq": {
        "pulseq.writer.calibration",
        "pulseq.writer.labels",
        "pulseq.writer.lobes",
        "pulseq.writer.parts",
        "trajectories.formats.pulseq",
    },
    "safetensors": {"learning.run_folder"},
    "tomli_w": {"config.toml"},
    "mrinufft": {"trajectories.inits.mrinufft"},
    "sigpy": {"reconstruction.coils"},
    "ismrmrd": {"measuring.mrd_images", "trajectories.formats.mrd"},
    "h5py": {"data.hdf5.chunks", "data.hdf5.reader", "data.hdf5.sandbox", "data.mrd", "data.raw"},
    "pydicom": {"data.dicom", "measuring.dicom_images"},
    "twixtools": {"data.measured.twix_blocks"},
    "nibabel": {"data.nifti", "measuring.outputs"},
    "pydantic": {"config.models", "config.plugins"},
}
#: Modules that read files which the program itself, or its system, has made.
OWN_FILES = {
    "reporting.page",
    "runtime.memory",
    "runtime.processes",
    "trajectories.formats.bart",
    "trajectories.formats.mrd",
    "trajectories.formats.pulseq",
}


def modules():
    """Return the dotted name inside the package -> its file."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "sequences" or parts == ("__init__",):
            continue
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()
PLUGIN_FOLDERS = [folder for folder, _ in plugins.KINDS.values() if folder != "sequences"]


def imports(path):
    """Return every dotted name that a file imports, also inside functions and for type checks."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def inside(path):
    """Return the modules of the package that a file imports."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "trajdesign" or len(parts) == 1:
            continue
        inner = parts[1:]
        while inner and ".".join(inner) not in MODULES:
            inner = inner[:-1]
        if inner:
            found.add(".".join(inner))
    return found


def room(module):
    """Return the folder at the top, or the file at the root, that a module is in."""
    return module.partition(".")[0]


def step(module):
    """Return the line of a module's room, 0 at the top."""
    lines = [i for i, line in enumerate(STAIRCASE) if room(module) in line.split()]
    assert len(lines) == 1, f"{room(module)} must be on one line of STAIRCASE"
    return lines[0]


def test_every_room_has_a_step_and_every_name_is_a_room():
    for module in MODULES:
        step(module)
    assert {word for line in STAIRCASE for word in line.split()} == {room(module) for module in MODULES}
    assert len({room(module) for module in MODULES}) <= 26


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    for other in inside(MODULES[module]):
        assert room(module) == room(other) or step(module) < step(other), f"{module} imports {other}"


def without_docstring(function):
    """Return how many lines a function has, its decorators and signature among them."""
    first, doc = function.body[0], ast.get_docstring(function)
    start = min(node.lineno for node in [function, *function.decorator_list])
    return function.end_lineno - start + 1 - (0 if doc is None else first.end_lineno - first.lineno + 1)


FILES = [*MODULES.values(), ROOT / "__init__.py", *(ROOT.parent / "sequences").glob("*.py")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT.parent).as_posix())
def test_what_one_reads_at_once_is_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {one.name: without_docstring(one) for one in functions if without_docstring(one) > 60} == {}


def test_dictionaries_of_anything_are_few():
    """State has a class; a dictionary is for an edge: TOML, JSON, the options of a plug-in."""
    assert sum(path.read_text(encoding="utf-8").count("dict[str, Any]") for path in FILES) <= 60


def test_few_arrows_run_between_rooms():
    """What a person can follow: each room that imports from another counts once, also benchmarks and templates."""
    files = [(room(module), path) for module, path in MODULES.items()] + [("__init__", ROOT / "__init__.py")]
    files += [(folder, path) for folder in ("benchmarks", "sequences") for path in (ROOT.parent / folder).glob("*.py")]
    arrows = {(name, room(other)) for name, path in files for other in inside(path) if room(other) != name}
    assert len(arrows) <= 160


def test_there_is_no_circle():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path, module])
        if module in done:
            return
        path.append(module)
        for other in sorted(inside(MODULES[module])):
            visit(other)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)
    assert done == set(MODULES)


def test_reader_and_writer_of_sequences_do_not_know_each_other():
    for module, path in MODULES.items():
        for here, there in (("pulseq.reader", "pulseq.writer"), ("pulseq.writer", "pulseq.reader")):
            assert not module.startswith(here) or not any(other.startswith(there) for other in inside(path)), module


def test_a_plugin_is_imported_by_name_alone():
    # so that adding one touches one file
    found = {
        (module, other)
        for module, path in MODULES.items()
        for other in inside(path)
        if other.rpartition(".")[0] in PLUGIN_FOLDERS
    }
    assert found <= AS_FUNCTIONS


@pytest.mark.parametrize(("folder", "kind"), [(folder, kind) for kind, (folder, _) in plugins.KINDS.items()])
def test_a_folder_of_plugins_holds_plugins_alone(folder, kind):
    if folder != "sequences":
        assert plugins.names(kind) == sorted(m.rpartition(".")[2] for m in MODULES if m.rpartition(".")[0] == folder)


def test_files_and_data_alone_open_what_a_stranger_wrote():
    """Whoever opens a file by itself forgets the walls around a hostile one: others ask `files.untrusted`."""
    opens = re.compile(r"(?<!untrusted)\.read_(bytes|text)\(|\bopen\([^)]*[\"']rb|np\.load\(|h5py\.File\(")
    found = {name for name, path in MODULES.items() if opens.search(path.read_text(encoding="utf-8"))}
    assert {name for name in found if room(name) not in ("files", "data")} == OWN_FILES


@pytest.mark.parametrize("package", ONLY_USERS)
def test_a_foreign_package_has_one_user(package):
    users = {
        "cli.commands" if m.startswith("cli.commands.") else m
        for m, path in MODULES.items()
        if any(n.split(".")[0] == package for n in imports(path))
    }
    assert users == ONLY_USERS[package]


def test_the_package_itself_imports_nothing_of_its_own_at_once():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {a.name for n in top if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in top if isinstance(n, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


def test_every_public_name_of_the_package_is_there():
    for name in dir(trajdesign):
        assert getattr(trajdesign, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        trajdesign.nothing_such  # noqa: B018


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("trajdesign.cli.app", "torch numpy scipy matplotlib pypulseq pydantic"),
        ("trajdesign.units", "torch numpy scipy matplotlib"),
        ("trajdesign.learning.optimize", "matplotlib pypulseq typer h5py nibabel clarabel torchdiffeq"),
        ("trajdesign.exporting.proof", "matplotlib pypulseq typer torchdiffeq"),
    ],
)
def test_heavy_packages_are_imported_when_needed(module, heavy):
    code = f"import sys, {module}; print(*[m for m in {heavy.split()!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_one_function_tells_kinds_of_files_by_name():
    """Whoever asks for ``.suffix`` or ``endswith(".x")`` itself would forget that names may be in capitals."""
    asks = re.compile(r"""\.suffix\b|endswith\(\(?["']\.(?!kind)""")
    # names of temporary files, an ending that pypulseq demands, members of archives
    may = {"files.untrusted", "files.atomic", "files.arrays", "trajectories.formats.pulseq"}
    found = {name for name, path in modules().items() if name not in may and asks.search(path.read_text())}
    assert found == set(), "use trajdesign.files.untrusted.ending"
