"""Studies: a grid of trainings, each of them an ordinary run folder."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trajdesign import errors
from trajdesign.config import models as config_module
from trajdesign.config import toml
from trajdesign.config.models import Config
from trajdesign.config.toml import merge
from trajdesign.errors import ConfigError
from trajdesign.files import untrusted
from trajdesign.learning import other_data

FIXED = "fixed"
#: The axes that every study has, and the config key that a value of theirs sets.
AXES: dict[str, tuple[str, ...]] = {
    "pattern": ("init", "kind"),
    "shots": ("acquisition", "n_shots"),
    "parameterization": ("parameterization", "kind"),
    "reconstructor": ("reconstructor", "kind"),
    "seed": ("seed",),
}

_TABLES = ("name", "base", "grid", "choice", "classic", "where", "condition")
_CONDITION = ("set", "error", "size")

Value = str | int | float | bool
#: Settings as TOML has them.
Tables = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One training: `name` is that of its folder, and `values` holds the value on each axis.

    The parameterization is ``"fixed"`` where the trajectory is not learned. A `classic` one has a pattern of
    ``[classic]``, which need not be playable. `conditions` holds the config of each in which it is tested besides.
    """

    name: str
    values: dict[str, Value]
    config: Config
    classic: bool = False
    conditions: dict[str, Config] = field(default_factory=dict)

    @property
    def is_fixed(self) -> bool:
        """Whether only the network is trained."""
        return self.values["parameterization"] == FIXED

    def shares(self, other: "Cell", *free: str) -> bool:
        """Return whether both have the same value on every axis but the free ones."""
        return all(value == other.values[axis] for axis, value in self.values.items() if axis not in free)


@dataclass(frozen=True)
class Condition:
    """In what else every run of a study is tested.

    `set` holds the config tables that differ from the run's own test. Conditions with the same `error` are points of
    one curve, each at its `size`.
    """

    set: Tables
    error: str = ""
    size: float = 0.0


@dataclass(frozen=True)
class Study:
    """What to train: the cells, fixed ones first, the axes with their values, the file that says so, and conditions."""

    name: str
    axes: dict[str, list[Value]]
    cells: list[Cell]
    text: str
    conditions: dict[str, Condition] = field(default_factory=dict)

    @property
    def further(self) -> list[str]:
        """The axes that not every study has."""
        return [axis for axis in self.axes if axis not in AXES]

    def label(self, values: Mapping[str, Value], *axes: str) -> str:
        """Return the values on some axes as a part of a file's name."""
        return _label({axis: values[axis] for axis in axes}, self.axes)


def load(path: Path | str, overrides: Sequence[str] = ()) -> Study:
    """Read a study: ``name``, ``[base]``, ``[grid]``, ``[choice.AXIS.VALUE]``, ``[classic.NAME]``, ``[[where]]``, ...

    Every combination of the grid's values is a cell, and so is each without its parameterization, fixed. A value sets
    the key of `AXES`, or merges the config tables of its choice into those of the base. A classic is one more value of
    the axis ``pattern`` that is fixed only. What ``[[where]]`` sets has the last word in the cells that it names.
    Each ``[condition.NAME]`` is one in which every cell is tested too: what it sets may be set in an evaluation.

    Each of the `overrides`, ``"a.b=value"``, is set in the base; ``"grid.axis=[values]"`` sets the values of an axis,
    and what the file says of others no longer counts; ``"condition.NAME.set.a.b=value"`` is set in a condition. They
    are in the study's text too.

    Raises
    ------
    InputError
        If the file is missing or no TOML.
    ConfigError
        If a key, an axis or a value has no meaning, or the config of a cell or of its test in a condition none.
    """
    tables = _overridden(toml.read_toml(path), overrides)
    for key in tables:
        if key not in _TABLES:
            raise ConfigError(f"unknown key {key!r} of a study{errors.nearest(key, list(_TABLES))}")
    base, grid, choice, classic = (_table(tables, key) for key in _TABLES[1:5])
    axes = _axes(base, grid)
    _check_choices(axes, choice)
    where, conditions = _wheres(axes, tables.get("where", [])), _conditions(tables)
    for name in classic:
        if name in map(_word, axes["pattern"]):
            raise ConfigError(f"[classic] {name!r} is a pattern of the grid already; give it another name.")
        choice = {**choice, "pattern": {**choice.get("pattern", {}), name: _table(classic, name)}}

    fixed: dict[str, list[Value]] = {**axes, "parameterization": [FIXED]}
    classics: dict[str, list[Value]] = {**fixed, "pattern": list(classic)}
    cells: dict[str, Cell] = {}
    for part in (fixed, classics, axes):
        for combination in itertools.product(*part.values()):
            values = dict(zip(axes, combination, strict=True))
            cell = _cell(values, axes, base, choice, where, classic=part is classics)
            cell = replace(cell, conditions=_tests(cell, conditions))
            if cell.name in cells:
                raise ConfigError(f"two cells would have the folder {cell.name}; name their values differently.")
            cells[cell.name] = cell
    text = toml.to_toml(tables) if overrides else untrusted.read_text(path)
    return Study(_name(tables, path), axes, list(cells.values()), text, conditions)


def _overridden(tables: Tables, overrides: Sequence[str]) -> Tables:
    """Return the tables of a study with settings of the base changed, and axes of other values."""
    changes = toml.parse_options(list(overrides))
    grid = {axis: values if isinstance(values, list) else [values] for axis, values in changes.pop("grid", {}).items()}
    for key, change in {"condition": changes.pop("condition", {}), "base": changes}.items():
        tables = {**tables, key: merge(_table(tables, key), change)} if change else dict(tables)
    if not grid:
        return tables
    tables["grid"] = {**_table(tables, "grid"), **grid}
    choice = {axis: dict(_table(_table(tables, "choice"), axis)) for axis in _table(tables, "choice")}
    for axis in choice.keys() & grid.keys():
        choice[axis] = {value: table for value, table in choice[axis].items() if value in map(_word, grid[axis])}
    tables["choice"] = choice
    where = tables.get("where", [])
    if isinstance(where, list):
        narrowed = [_narrowed(entry, grid) if isinstance(entry, dict) else entry for entry in where]
        tables["where"] = [entry for entry in narrowed if [] not in entry.values()]
    return tables


def _narrowed(entry: Tables, grid: dict[str, list[Value]]) -> Tables:
    """Return an entry of ``[[where]]`` without the values that an axis no longer has."""
    lists = {axis: values if isinstance(values, list) else [values] for axis, values in entry.items() if axis in grid}
    return {**entry, **{axis: [v for v in values if v in grid[axis]] for axis, values in lists.items()}}


def _name(tables: Tables, path: Path | str) -> str:
    name = tables.get("name", Path(path).stem)
    if not isinstance(name, str):
        raise ConfigError(f"the name of a study is text, not {name!r}.")
    return name


def _table(tables: Tables, key: str) -> Tables:
    table = tables.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"[{key}] of a study is a table, not {table!r}.")
    return table


def _axes(base: Tables, grid: Tables) -> dict[str, list[Value]]:
    """Return every axis with its values: the grid's, and the base's or the default one where it has none."""
    defaults = Config().to_dict()
    axes: dict[str, list[Value]] = {name: [_lookup(base, key, _lookup(defaults, key))] for name, key in AXES.items()}
    for axis, values in grid.items():
        if not isinstance(values, list) or not values or not all(isinstance(value, Value) for value in values):
            raise ConfigError(f"grid.{axis} is {values!r}; it is a list of words or numbers.")
        if len(set(map(_word, values))) < len(values):
            raise ConfigError(f"grid.{axis} has a value twice: {values!r}.")
        axes[axis] = values
    if FIXED in axes["parameterization"]:
        raise ConfigError(f"grid.parameterization: {FIXED!r} is trained anyway; name those that learn.")
    return axes


def _check_choices(axes: dict[str, list[Value]], choice: Tables) -> None:
    for axis in choice:
        if axis not in axes:
            raise ConfigError(f"choice.{axis} is of no axis of the grid{errors.nearest(axis, list(axes))}")
        for value in _table(choice, axis):
            _table(choice[axis], value)
            known = [_word(v) for v in axes[axis]]
            if value not in known:
                raise ConfigError(f"choice.{axis}.{value} is of no value of grid.{axis}{errors.nearest(value, known)}")
    for axis in axes:
        if axis not in AXES and axis not in choice:
            hint = errors.nearest(axis, list(AXES))
            raise ConfigError(f"grid.{axis} has no [choice.{axis}.VALUE], and no meaning of its own{hint}")


def _wheres(axes: dict[str, list[Value]], entries: Any) -> list[tuple[Tables, Tables]]:
    """Return pairs: the values on some axes, and the config tables of the learned cells that have them."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError("where is a list of tables, each headed [[where]].")
    found = []
    for entry in entries:
        named = {key: value if isinstance(value, list) else [value] for key, value in entry.items() if key != "set"}
        for axis, chosen in named.items():
            if axis not in axes:
                raise ConfigError(f"where.{axis} is no axis of the grid{errors.nearest(axis, [*axes, 'set'])}")
            for value in chosen:
                if value not in axes[axis]:
                    raise ConfigError(f"where.{axis}: {value!r} is no value of grid.{axis}: {axes[axis]}.")
        found.append((named, _table(entry, "set")))
    return found


def _conditions(tables: Tables) -> dict[str, Condition]:
    """Return the conditions by their names."""
    found: dict[str, Condition] = {}
    for name, entry in _table(tables, "condition").items():
        table = _table({f"condition.{name}": entry}, f"condition.{name}")
        for key in table:
            if key not in _CONDITION:
                raise ConfigError(f"unknown key condition.{name}.{key}{errors.nearest(key, list(_CONDITION))}")
        error, size = table.get("error", ""), table.get("size", 0.0)
        if not isinstance(error, str) or isinstance(size, bool) or not isinstance(size, int | float):
            raise ConfigError(f"condition.{name}: error is text, as 'delay, µs', and size a number.")
        if bool(error) != ("size" in table) or not math.isfinite(size):
            raise ConfigError(f"condition.{name}: a point of a curve has an error and a size; give both, or neither.")
        for other, earlier in found.items():
            if error and (earlier.error, earlier.size) == (error, size):
                raise ConfigError(f"condition.{name} and condition.{other} are one point of the curve {error!r}.")
            if error != earlier.error and as_file_name(error) == as_file_name(earlier.error):
                raise ConfigError(f"the errors {error!r} and {earlier.error!r} would have one figure; rename one.")
        found[name] = Condition(_table(table, "set"), error, float(size))
    return found


def _tests(cell: Cell, conditions: Mapping[str, Condition]) -> dict[str, Config]:
    """Return the config under which a cell is tested in each condition."""
    found = {}
    for name, condition in conditions.items():
        try:
            found[name] = other_data.settings(cell.config, condition.set)
        except ConfigError as error:
            raise ConfigError(f"condition.{name}, of cell {cell.name}: {error}") from None
    return found


def _cell(
    values: dict[str, Value],
    axes: dict[str, list[Value]],
    base: Tables,
    choice: Tables,
    where: list[tuple[Tables, Tables]],
    *,
    classic: bool,
) -> Cell:
    tables = base
    for axis, value in values.items():
        if axis == "parameterization":
            continue  # the last word, because it is what the others are compared under
        tables = merge(tables, _meaning(axis, value, choice))
    if values["parameterization"] == FIXED:
        tables = {**tables, "parameterization": {"kind": FIXED}, "start": {}}
    else:
        tables = merge(tables, _meaning("parameterization", values["parameterization"], choice))
        for named, changes in where:
            if all(values[axis] in chosen for axis, chosen in named.items()):
                tables = merge(tables, changes)
    name = _label(values, axes)
    try:
        return Cell(name, values, config_module.from_tables({**tables, "name": name}), classic)
    except ConfigError as error:
        raise ConfigError(f"cell {name}: {error}") from None


def _meaning(axis: str, value: Value, choice: Tables) -> Tables:
    """Return the config tables that a value stands for."""
    chosen = choice.get(axis, {}).get(_word(value))
    if chosen is not None:
        return chosen
    if axis not in AXES:
        raise ConfigError(f"grid.{axis}: the value {_word(value)!r} needs a table [choice.{axis}.{_word(value)}].")
    tables: Any = value
    for key in reversed(AXES[axis]):
        tables = {key: tables}
    return tables


def _lookup(tables: Tables, key: tuple[str, ...], default: Any = None) -> Any:
    value: Any = tables
    for part in key:
        if not isinstance(value, dict) or part not in value:
            return default
        value = value[part]
    return value


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_file_name(text: str) -> str:
    """Return text as a part of a file's name."""
    return re.sub(r"[^\w.+]+", "_", text)


def _label(values: Mapping[str, Value], axes: dict[str, list[Value]]) -> str:
    """Return values as a part of a file's name, in which shots sort as numbers do."""
    words = {axis: as_file_name(_word(value)) for axis, value in values.items()}
    if "shots" in words:
        words["shots"] = words["shots"].zfill(max(2, *(len(_word(value)) for value in axes["shots"])))
    if "seed" in words:
        words["seed"] = f"s{words['seed']}"
    return "-".join(words.values())
