"""TOML files as tables, and changes to tables by ``--set``."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from trajdesign.errors import ConfigError, InputError
from trajdesign.files import untrusted

#: A table of TOML, with tables in it.
Table = dict[str, Any]

_MOST_TOML = 2**20
_LONG_KEY = re.compile(r"""(?:\.[ \t]*(?:[\w-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')[ \t]*){32}""")


def read_toml(path: Path | str) -> Table:
    """Read the tables of a TOML file.

    It raises an `InputError` if the file is missing or no TOML.
    """
    content = untrusted.read_bytes(path, _MOST_TOML)
    try:
        text = content.decode("utf-8-sig")
        if _LONG_KEY.search(text):  # the time that a key takes grows with its parts squared
            raise InputError(f"{path} has a key of more than 32 parts.")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no valid TOML: {error}.") from None


def to_toml(tables: Table) -> str:
    """Return tables as the text of a TOML file."""
    return tomli_w.dumps(tables)


def change(tables: Table, override: str) -> None:
    """Make one change, ``a.b=value``, in place; another kind of a plug-in drops the options of the old one."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r} is not of the form a.b=value.")
    try:
        [value] = tomllib.loads(f"value = {text}").values()
    except (ValueError, RecursionError):
        value = text.strip()
    table = tables
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override!r}: {part} is not a table.")
    if parts[-1] == "kind" and table.get("kind") != value:
        table.clear()  # another plug-in has other options
    table[parts[-1]] = value


def kinds_first(overrides: Sequence[str]) -> list[str]:
    """Return changes in the order to make them: another kind drops the options of the old one, but none given here."""
    return sorted(overrides, key=lambda text: not text.partition("=")[0].strip().endswith(".kind"))


def without_none(value: Any) -> Any:
    """Return tables without the values that TOML cannot hold."""
    if isinstance(value, dict):
        return {key: without_none(v) for key, v in value.items() if v is not None}
    return [without_none(v) for v in value] if isinstance(value, list) else value


def flattened(tables: Table, prefix: str = "") -> Table:
    """Return the values of nested tables by their whole keys, as ``a.b.c``."""
    found: Table = {}
    for key, value in tables.items():
        found |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def require_64_bits(value: Any, key: str = "") -> None:
    """Refuse, by a `ConfigError`, whole numbers that no other program could read from the file."""
    if isinstance(value, dict):
        for name, inner in value.items():
            require_64_bits(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            require_64_bits(inner, key)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"config {key}: a whole number has at most 64 bits in TOML, this one {value.bit_length()}.")


def parse_options(assignments: Sequence[str]) -> Table:
    """Return ``["a=value", "b.c=value"]`` as nested tables, the values read as TOML.

    It raises a `ConfigError` if one is not of that form.
    """
    tables: Table = {}
    for assignment in assignments:
        change(tables, assignment)
    return tables


def merge(tables: Table, changes: Table) -> Table:
    """Return config tables with changes merged into them, deeply.

    Another kind drops the options of the old one, and an empty table drops them all.
    """
    merged = dict(tables)
    for key, change in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(change, dict):
            other = "kind" in change and old.get("kind", change["kind"]) != change["kind"]
            merged[key] = change if other or not change else merge(old, change)
        else:
            merged[key] = change
    return merged
