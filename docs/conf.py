"""Sphinx configuration; it runs the gallery, and writes the pages that list what the code holds: none goes stale."""

import inspect
import math
from pathlib import Path

import typer.main
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import trajdesign
from trajdesign import errors
from trajdesign.cli import app
from trajdesign.config import plugins

project = "trajdesign"
author = "The trajdesign developers"
copyright = "the trajdesign developers"
version = release = trajdesign.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "generated"]
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"trajdesign {release}"

# In this order: a script that is not named here fails the build.
GALLERY = [
    "starts.py",
    "spiral_speed.py",
    "point_spread.py",
    "path_or_time.py",
    "learning.py",
    "gradient_response.py",
    "forbidden_bands.py",
    "virtual_scan.py",
]
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": GALLERY.index,
    "run_stale_examples": True,  # the package may have changed, though the script has not
    "abort_on_example_error": True,
    "capture_repr": (),
    "download_all_examples": False,
    "min_reported_time": math.inf,
    "write_computation_times": False,
    "show_signature": False,
}
GENERATED = Path(__file__).parent / "generated"


def table(headings, rows):
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def plugin_page():
    """Every plug-in with its options, by kind."""
    parts = []
    for kind, entries in plugins.catalogue().items():
        where = ["init", "parameterization", "reconstructor", "data", "response", "field"]
        use = f"In the config: `{kind}.kind`." if kind in where else USES[kind]
        parts.append(f"## {kind}\n\n{use}\n")
        for name, entry in entries.items():
            options, meanings = entry["options"], entry["meanings"]
            rows = [(f"`{key} = {value}`", meanings[key]) for key, value in options.items()]
            parts.append(f"### {kind}: {name}\n\n{entry['summary']}\n")
            parts.append(table(["option and default", "what it means"], rows) if rows else "")
    return "\n".join(parts)


USES = {
    "constraint": "In the config: the list `limits.constraints`, and `limits.options.NAME` for options.",
    "exporter": "On the command line: `trajdesign export --format`.",
    "logger": "On the command line: `trajdesign optimize --log`.",
    "perturbation": "In the config: the tables `perturbation.NAME`; any number of them.",
    "sequence": "On the command line: `trajdesign export --sequence`, and `--set sequence.OPTION=VALUE`.",
}


def command_page():
    """Every command with its arguments and options."""
    parts = []
    for name, command in commands("trajdesign", typer.main.get_command(app.app)):
        rows = []
        for parameter in command.params:
            if parameter.name == "help":
                continue
            option = parameter.param_type_name == "option"
            shown = ", ".join([*parameter.opts, *parameter.secondary_opts]) if option else parameter.name.upper()
            default = parameter.default
            rest = "" if not option or default in (None, False) or callable(default) else f" Default: `{default}`."
            rows.append((f"`{shown}`", f"{parameter.help}{rest}"))
        first = (command.help or "").strip()
        parts.append(f"## {name}\n\n{first}\n\n{table(['argument or option', ''], rows)}")
    return "\n".join(parts)


def commands(name, command):
    """Yield every command with its whole name, those of a group too."""
    for word, inner in getattr(command, "commands", {}).items():
        if not hasattr(inner, "commands"):
            yield f"{name} {word}", inner
        yield from commands(f"{name} {word}", inner)


def exit_code_page():
    """Every error that ends a command."""
    rows = [(0, "Done."), (1, "A bug, with its traceback.")]
    for error in vars(errors).values():
        if inspect.isclass(error) and issubclass(error, errors.TrajdesignError) and error.exit_code != 1:
            rows.append((error.exit_code, inspect.getdoc(error)))
    rows.append(("130, 143, 129, 138", "Ended by Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, after the step in progress."))
    rows.append((141, "Nobody reads the output any more."))
    return table(["exit code", "meaning"], rows)


def setup(app):
    """Formulas stand in the pages as MathML, which browsers show without a script from elsewhere."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))


def visit_math(translator, node):
    """Write a formula in a line."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(translator, node):
    """Write a formula of its own."""
    translator.body.append(
        f'<div class="math" style="padding: 0.4em 0">{tex2mathml(node.astext(), as_block=True)}</div>'
    )
    raise nodes.SkipNode


GENERATED.mkdir(exist_ok=True)
for page, text in (("plugins", plugin_page()), ("commands", command_page()), ("exit_codes", exit_code_page())):
    (GENERATED / f"{page}.md").write_text(text, encoding="utf-8")
