"""Plug-ins: found by file name, options read from the signature."""

import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pydantic

from trajdesign.errors import ConfigError, nearest
from trajdesign.files import untrusted

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from trajdesign import interfaces
    from trajdesign.acquisition import Acquisition
    from trajdesign.scanner import Scanner
    from trajdesign.trajectory import Trajectory

#: A config table of a plug-in: ``{"kind": name, option: value, ...}``.
Table = Mapping[str, Any]

#: Kinds of plug-in: the config's word -> the package, and the base class of those that are classes.
KINDS: dict[str, tuple[str, str | None]] = {
    "init": ("trajectories.inits", None),
    "parameterization": ("learning.parameterizations", "Parameterization"),
    "constraint": ("physics.constraints", "Constraint"),
    "reconstructor": ("reconstruction.reconstructors", "Reconstructor"),
    "exporter": ("trajectories.formats", "Format"),
    "data": ("data.sources", None),
    "response": ("physics.responses", None),
    "field": ("physics.fields", "FieldModel"),
    "perturbation": ("physics.perturbations", None),
    "logger": ("learning.loggers", None),
    "sequence": ("sequences", None),
}


def names(kind: str) -> list[str]:
    """Return the names of the built-in plug-ins of a kind."""
    if kind == "sequence":
        return sorted(_sequences())
    package = importlib.import_module(f"trajdesign.{KINDS[kind][0]}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


@overload
def find(kind: Literal["constraint"], name: str) -> "type[interfaces.Constraint]": ...
@overload
def find(kind: Literal["field"], name: str) -> "type[interfaces.FieldModel]": ...
@overload
def find(kind: Literal["exporter"], name: str) -> "type[interfaces.Format]": ...
@overload
def find(kind: Literal["logger"], name: str) -> "interfaces.Logger": ...
@overload
def find(kind: str, name: str) -> Callable[..., Any]: ...
def find(kind: str, name: str) -> Any:
    """Return the function or class of a plug-in.

    It raises a `ConfigError` if there is none; the sentence names the nearest one.

    Parameters
    ----------
    kind
        Key of `KINDS`.
    name
        File name of a built-in plug-in, or ``package.module:attribute`` for one from elsewhere; a sequence may be the
        path of a ``.py`` file.
    """
    if kind == "sequence" and (untrusted.ending(name) == ".py" or name in _sequences()):
        return _build_function(name)
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            plugin = getattr(importlib.import_module(module_name), attribute)
            inspect.signature(plugin)
        except (ImportError, NameError, SyntaxError, AttributeError, TypeError, ValueError) as error:
            raise ConfigError(f"{kind} plug-in {name!r} cannot be imported: {error}.") from None
        if not (inspect.isclass(plugin) or inspect.isroutine(plugin)):
            raise ConfigError(f"{kind} plug-in {name!r} is no function or class, but {type(plugin).__name__}.")
        return plugin
    known = names(kind)
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}{nearest(name, known)}")
    folder, base_name = KINDS[kind]
    module = importlib.import_module(f"trajdesign.{folder}.{name}")
    if base_name is None:
        return getattr(module, name)
    base = getattr(importlib.import_module("trajdesign.interfaces"), base_name)
    classes = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, base) and c.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ConfigError(f"{module.__name__} must define exactly one {base_name}, it defines {len(classes)}.")
    return classes[0]


def _sequences() -> dict[str, Path]:
    """Return the sequence templates: beside the modules in a wheel, beside the package in a checkout."""
    package = Path(__file__).parents[1]
    folders = [folder for folder in (package / "sequences", package.parent / "sequences") if folder.is_dir()]
    return {file.stem: file for folder in reversed(folders) for file in folder.glob("*.py")}


def _build_function(name: str) -> Callable[..., Any]:
    """Return the function ``build`` of a sequence template, or of a user's file."""
    file = Path(name) if untrusted.ending(name) == ".py" else _sequences()[name]
    spec = importlib.util.spec_from_file_location(f"trajdesign_sequence_{file.stem}", file)
    try:
        is_there = file.is_file()
    except OSError:  # too long for a name
        is_there = False
    if spec is None or spec.loader is None or not is_there:
        raise ConfigError(f"unknown sequence {name!r}{nearest(name, names('sequence'))}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(f"sequence {name!r} cannot be loaded: {error}.") from None
    build = getattr(module, "build", None)
    try:
        inspect.signature(build).bind_partial(None)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(f"sequence {name!r} has no function build(trajectory, ...).") from None
    return build  # type: ignore[return-value]


@functools.lru_cache(maxsize=256)
def options(plugin: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """Return the model of a plug-in's options: the keyword-only parameters of its signature.

    It raises a `ConfigError` if the type of one is not known here, as one that is imported for type checkers alone, or
    is none of a setting.
    """
    target = plugin.__init__ if inspect.isclass(plugin) else plugin
    known = getattr(inspect.unwrap(target), "__globals__", {})
    settings = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    try:
        options = [p for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY]
        fields: dict[str, Any] = {
            p.name: (_type(p.annotation, known), ... if p.default is p.empty else p.default) for p in options
        }
        return pydantic.create_model(f"{plugin.__name__}_options", __config__=settings, **fields)
    except (NameError, AttributeError, SyntaxError, TypeError, ValueError, pydantic.PydanticUserError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"the options of plug-in {plugin.__name__!r} cannot be set: {reason}. Their types are plain (float, str, "
            "list[float], ...) and imported where the program runs, not under TYPE_CHECKING alone."
        ) from None


def _type(annotation: Any, known: dict[str, Any]) -> Any:
    """Return the type that an annotation names, with the names that are known in its module."""
    if annotation is inspect.Parameter.empty:
        return Any
    return typing.get_type_hints(types.SimpleNamespace(__annotations__={"option": annotation}), known)["option"]


def resolve(kind: str, table: Table, *, at: str | None = None) -> dict[str, Any]:
    """Return a plug-in's config table with every option checked and every default written out.

    It raises a `ConfigError` if the plug-in or an option is unknown, or a value does not fit.

    Parameters
    ----------
    kind
        Key of `KINDS`.
    table
        The config table.
    at
        Its key in the config, if that is not `kind`.
    """
    given, at = dict(table), at or kind
    name = given.pop("kind", None)
    if not isinstance(name, str):
        raise ConfigError(f"[{at}] needs kind = one of {', '.join(names(kind))}.")
    model = options(find(kind, name))
    for key in given:
        if key not in model.model_fields:
            known = ["kind", *model.model_fields]
            raise ConfigError(f"{at}.{key} is no option of {name!r}{nearest(key, known)}")
    try:
        checked = model(**given)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{at}.{where}: {first['msg']} (given: {first['input']!r}).") from None
    return {"kind": name, **checked.model_dump()}


def required_options(kind: str, name: str) -> list[str]:
    """Return the options of a plug-in that have no default."""
    return [key for key, field in options(find(kind, name)).model_fields.items() if field.is_required()]


def bind(kind: str, table: Table, n_arguments: int) -> Callable[..., Any]:
    """Return a plug-in with the options of its config table, to be called with its positional arguments alone.

    It raises a `ConfigError` if the table is none that `resolve` takes, or the plug-in does not take so many arguments.
    """
    chosen = resolve(kind, table)
    name = chosen.pop("kind")
    plugin = functools.partial(find(kind, name), **chosen)
    try:
        inspect.signature(plugin).bind(*range(n_arguments))
    except TypeError as error:
        raise ConfigError(f"{kind} plug-in {name!r} cannot be called as one: {error}.") from None
    return plugin


@overload
def build(kind: Literal["init"], table: Table, acquisition: "Acquisition", scanner: "Scanner", /) -> "Trajectory": ...
@overload
def build(
    kind: Literal["constraint"], table: Table, acquisition: "Acquisition", scanner: "Scanner", /
) -> "interfaces.Constraint": ...
@overload
def build(
    kind: Literal["parameterization"], table: Table, initial: "Trajectory", /
) -> "interfaces.Parameterization": ...
@overload
def build(kind: Literal["reconstructor"], table: Table, /) -> "interfaces.Reconstructor": ...
@overload
def build(
    kind: Literal["data"], table: Table, acquisition: "Acquisition", split: Literal["train", "val", "test"], /
) -> "Dataset[Tensor]": ...
@overload
def build(kind: str, table: Table, *arguments: Any) -> Any: ...
def build(kind: str, table: Table, *arguments: Any) -> Any:
    """Call a plug-in with the positional arguments of its kind and the options of its config table; see `bind`."""
    return bind(kind, table, len(arguments))(*arguments)


def catalogue() -> dict[str, dict[str, dict[str, Any]]]:
    """Return every built-in plug-in: kind -> name -> its one-line summary, options with defaults, their meanings."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in KINDS:
        result[kind] = {}
        for name in names(kind):
            plugin = find(kind, name)
            model = options(plugin)
            meanings = explained(plugin)
            result[kind][name] = {
                "summary": summary(plugin),
                "options": {
                    key: "(required)" if field.is_required() else repr(field.default)
                    for key, field in model.model_fields.items()
                },
                "meanings": {key: meanings.get(key, "") for key in model.model_fields},
            }
    return result


def summary(plugin: Any) -> str:
    """Return the first line of a docstring, as a list of things has it: without the verb of a function."""
    first = (inspect.getdoc(plugin) or "").partition("\n")[0].removeprefix("Return ")
    return first[:1].upper() + first[1:]


def explained(target: Any) -> dict[str, str]:
    """Return what the docstring of a class or function says of each of its parameters, or that of a base class."""
    found: dict[str, str] = {}
    for documented in reversed(inspect.getmro(target)) if inspect.isclass(target) else [target]:
        section = inspect.cleandoc(documented.__doc__ or "").partition("\nParameters\n----------\n")[2]
        section = re.split(r"\n\n\S[^\n]*\n---", section)[0]
        for entry in re.split(r"\n(?=\S)", section) if section else []:
            names, _, text = entry.partition("\n")
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def plain(text: str) -> str:
    """Return a text of a docstring without its marks of code."""
    return text.replace("``", "").replace("`", "")
