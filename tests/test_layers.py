"""Imports point down: every module imports only from lines below its own."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trajdesign

ROOT = Path(trajdesign.__file__).parent

#: From the top to the bottom. Modules of one line do not import each other; a folder stands for its plug-ins,
#: or its commands, which import only lines below and the helpers of their folder whose names start with an underscore.
LAYERS = [
    "__main__",
    "cli",
    "commands/",
    "console doctor report",
    "study_table",
    "cells compare",
    "optimize export scan deploy",
    "training",
    "joint progress",
    "evaluation",
    "run",
    "plots schema study study_plots template webpage checkpoint",
    "config",
    "limits projection",
    "inits/ parameterizations/ constraints/ reconstructors/ responses/ exporters/ datasets/ loggers/",
    "blocks",
    "drawing",
    "interfaces psf waveform",
    "encoding convert",
    "response reception",
    "loading",
    "density signal toeplitz trajectory",
    "sampled",
    "nufft acquisition files lock",
    "exposure",
    "inspection stimulation acoustics prefetch",
    "declared",
    "slabs",
    "checks coherence",
    "scanner coils copies metrics seqfile plugins runtime asc arrays toml_tables",
    "seqplay",
    "seqk seqextras seqwaits",
    "units seqaxis interrupt memory walled adc randomness",
    "seqevents",
    "seqparse",
    "seqshapes seqsignature",
    "errors",
]
#: Plug-ins that build on a sibling: the networks correct the adjoint image.
SIBLINGS = {(f"reconstructors.{name}", "reconstructors.adjoint") for name in ("unet", "unrolled", "cg_sense")}

#: Packages that are heavy or could be replaced: the only modules that may import them.
ONLY_USERS = {
    "typer": {"cli", "commands/"},
    "rich": {"console"},
    "matplotlib": {"drawing", "plots", "study_plots"},
    "jinja2": {"webpage"},
    "markupsafe": {"webpage"},
    "torchkbnufft": {"nufft"},
    "finufft": {"nufft"},
    "torchdiffeq": {"parameterizations.neural_ode"},
    "clarabel": {"waveform"},
    "pypulseq": {"blocks", "exporters.pulseq"},
    "safetensors": {"run"},
    "tomli_w": {"toml_tables"},
    "mrinufft": {"inits.mrinufft"},
    "sigpy": {"coils"},
    "ismrmrd": {"exporters.mrd"},
    "h5py": {"datasets._chunks", "datasets._hdf5", "datasets._mrd", "datasets._raw"},
    "pydicom": {"datasets._dicom"},
    "nibabel": {"datasets._nifti"},
    "pydantic": {"config", "plugins"},
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


def layer(module):
    """Return the line of a module, 0 at the top."""
    head, _, rest = module.partition(".")
    word = f"{head}/" if rest or (ROOT / head).is_dir() else head
    lines = [i for i, line in enumerate(LAYERS) if word in line.split()]
    assert len(lines) == 1, f"{module} must be on one line of LAYERS"
    return lines[0]


def test_every_module_has_a_line_and_every_name_is_a_module():
    for module in MODULES:
        layer(module)
    for word in " ".join(LAYERS).split():
        assert (ROOT / word).is_dir() if word.endswith("/") else (ROOT / f"{word}.py").is_file(), word


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    for other in inside(MODULES[module]):
        folder, _, name = other.partition(".")
        sibling = module.partition(".")[0] == folder and bool(name)
        if sibling and (name.startswith("_") or (module, other) in SIBLINGS):
            continue
        assert layer(module) < layer(other), f"{module} imports {other}, which is not below it"


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


def test_a_plugin_is_imported_by_name_alone():
    # so that adding one touches one file; those named here are used as functions, not as a user's choice
    allowed = {
        *(("cli", module) for module in MODULES if module.startswith("commands.")),
        ("evaluation", "reconstructors.adjoint"),
        ("plots", "constraints.gradient"),
        ("plots", "constraints.receiver"),
        ("plots", "constraints.slew"),
        ("scan", "exporters.mrd"),
        ("scan", "reconstructors.adjoint"),
        *SIBLINGS,
    }
    for module, path in MODULES.items():
        for other in inside(path):
            folder, _, name = other.partition(".")
            if name and not name.startswith("_"):
                assert (module, other) in allowed, f"{module} imports the plug-in {other}"
            assert not name.startswith("_") or module.startswith(folder), f"{module} imports {other}"


@pytest.mark.parametrize("package", ONLY_USERS)
def test_a_foreign_package_has_one_user(package):
    users = {
        "commands/" if m.startswith("commands.") else m
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
        ("trajdesign.optimize", "matplotlib pypulseq typer h5py nibabel clarabel torchdiffeq"),
        ("trajdesign.export", "matplotlib pypulseq typer torchdiffeq"),
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
    may = {"walled", "files", "exporters.pulseq", "arrays"}
    found = {name for name, path in modules().items() if name not in may and asks.search(path.read_text())}
    assert found == set(), "use trajdesign.files.untrusted.ending"
