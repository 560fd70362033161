"""A config file to start from: every key with its default and what it means, every plug-in with its options."""

import inspect
import json
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from trajdesign.config import models, plugins
from trajdesign.config.models import Config

_WIDTH = 110
_HEAD = """\
# A run of trajdesign: every key with its default, in SI units. What is left out keeps its default.
#
#   trajdesign optimize FILE.toml --out runs/mine
#
# A line that starts with "#" and no space is a setting to take or leave. Of a kind of plug-ins take one.
"""
_USES = {
    "init": "The pattern to compare with, and where learning starts.",
    "response": "What the gradient system makes of what is played; without one it is perfect.",
    "field": "The static field of the objects; without one there is none.",
    "parameterization": "What of the trajectory is learned.",
    "reconstructor": "What makes the image.",
    "data": "The images.",
}
_PERTURBATION = """\
# What goes otherwise in a scan than was asked, unknown to the reconstruction: another in each step of the training;
# validation and test are without. Of these take any."""
_START = """\
# Where learning starts if not there: another init, or without a kind the same with other options. Of several, each a
# table [[start]], the one goes on that validates best after the part training.trial of the steps.
#[start]
#kind = "spiral"
"""


def template() -> str:
    """Return the text of the file, which loads as the default config."""
    parts = [_HEAD, _top()]
    for key, field in Config.model_fields.items():
        if key in _USES:
            parts.append("\n".join(_plugin_table(key, field.get_default().get("kind"))))
        elif key == "start":
            parts.append(_START)
        elif key == "perturbation":
            parts.append("\n".join(_perturbations()))
        elif not isinstance(field.default, (str, int)):
            parts.append("\n".join(_table(key, type(field.default))))
    return "\n".join(parts)


def _top() -> str:
    default = models.load_config()
    return "\n".join([
        *_line("name", default.name, "Of the run; by default the kind of its init.", commented=True),
        *_line("seed", default.seed, "Of everything random."),
        "",
    ])  # fmt: skip


def _table(key: str, model: type[Any]) -> Iterator[str]:
    """Yield the lines of a table of our own."""
    explained = plugins.explained(model)
    text = (inspect.getdoc(model) or "").partition("\n\nParameters\n")[0]
    yield from (f"# {line}".rstrip() for line in plugins.plain(text).splitlines())
    yield f"[{key}]"
    if is_dataclass(model):
        values = {f.name: f.default for f in fields(model)}
    else:
        values = {name: field.default for name, field in model.model_fields.items()}
    by_profile: set[str] = set()
    if key == "scanner":
        names = models.profiles()
        by_profile = {k for name in names for k in models.with_profile({"profile": name})} - {
            "max_gradient",
            "max_slew",
        }
        sentence = f"{', '.join(names)}, or a TOML file; gives what is commented out below."
        yield from _line("profile", "siemens", sentence, commented=True)
    for name, value in values.items():
        if name != "options":
            yield from _line(name, value, explained.get(name, ""), commented=name in by_profile)
    if key == "limits":
        for name in plugins.names("constraint"):
            yield from ("", f"#[limits.options.{name}]  # {_summary('constraint', name)}")
            yield from _options("constraint", name, commented=True)
    yield ""


def _perturbations() -> Iterator[str]:
    """Yield the lines of all perturbations, as comments."""
    yield _PERTURBATION
    for name in plugins.names("perturbation"):
        yield f"#[perturbation.{name}]  # {_summary('perturbation', name)}"
        yield from _options("perturbation", name, commented=True)
        yield ""


def _plugin_table(key: str, default: str | None) -> Iterator[str]:
    """Yield the lines of a plug-in's table: the default one, and the others as comments."""
    yield f"# {_USES[key]}"
    names = plugins.names(key)
    for name in [default, *(name for name in names if name != default)] if default else names:
        mark = "" if name == default else "#"
        yield f"{mark}[{key}]"
        yield f"{mark}kind = {json.dumps(name)}  # {_summary(key, name)}"
        yield from _options(key, name, commented=name != default)
        yield ""


def _summary(kind: str, name: str) -> str:
    return plugins.plain(plugins.summary(plugins.find(kind, name)))


def _options(kind: str, name: str, *, commented: bool) -> Iterator[str]:
    plugin = plugins.find(kind, name)
    explained = plugins.explained(plugin)
    for option, field in plugins.options(plugin).model_fields.items():
        value = MISSING if field.is_required() else field.default
        yield from _line(option, value, explained.get(option, ""), commented=commented)


def _line(key: str, value: Any, comment: str, *, commented: bool = False) -> Iterator[str]:
    """Yield a key with its value and what it means, at its end where that fits; one without a value is a comment."""
    comment = plugins.plain(comment)
    if value is MISSING:
        shown, comment = "", f"Needed. {comment}"
    else:
        shown = "" if value is None else json.dumps(value, ensure_ascii=False)
    line = f"{'#' if commented or not shown else ''}{key} = {shown}".rstrip()
    if not comment:
        yield line
    elif len(line) + len(comment) + 4 <= _WIDTH:
        yield f"{line}  # {comment}"
    else:
        yield from textwrap.wrap(comment, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        yield line
