"""The tables of a study: what each trajectory gains over its fixed start, and over the best classical pattern."""

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trajdesign.errors import InputError
from trajdesign.files.atomic import atomic_path
from trajdesign.learning import conditions
from trajdesign.learning.results import KEYS, Comparison, Results, StageResult, to_json
from trajdesign.studies import training
from trajdesign.studies.study import Cell, Study, Value

_LAST_PART = 0.2  # of the steps, over which a training that has reached its plateau gains no more
_UNFINISHED = ("skipped", "failed", "missing")


@dataclass(frozen=True)
class FinishedCell:
    """A finished cell: its test result, and what its training says about it.

    `val_psnr` (dB) is that of the last validation, `plateau` its rise over the last fifth of the steps; `violations`
    counts the limits that the trajectory breaks. `in_conditions` has the results in other conditions.
    """

    cell: Cell
    result: StageResult
    val_psnr: float
    plateau: float
    violations: int
    in_conditions: dict[str, StageResult] = field(default_factory=dict)

    @property
    def axes(self) -> Mapping[str, Value]:
        """The values of the cell."""
        return self.cell.values

    def tables(self) -> dict[str, Any]:
        """Return its numbers for JSON."""
        numbers = {"val_psnr": self.val_psnr, "plateau": self.plateau, "violations": self.violations}
        others = {name: self._changed(result) for name, result in self.in_conditions.items()}
        return {**self.result.with_spread(), **numbers, **({"conditions": others} if others else {})}

    def _changed(self, result: StageResult) -> dict[str, Any]:
        """Return a result in a condition, and what is its difference to that of the cell's own test."""
        found = {key: result.mean(key) for key in KEYS}
        changes = {f"{key}_change": result.mean(key) - self.result.mean(key) for key in KEYS}
        return {**found, **changes, **{f"{key}_list": result.values(key) for key in KEYS}}


@dataclass(frozen=True)
class Row:
    """A learned cell beside its fixed start, and beside the best fixed pattern of the same readout (`strong`)."""

    learned: FinishedCell
    fixed: FinishedCell
    strong: FinishedCell
    over_fixed: Comparison
    over_strong: Comparison

    @property
    def axes(self) -> Mapping[str, Value]:
        """The values of the learned cell."""
        return self.learned.axes

    def tables(self) -> dict[str, Any]:
        """Return it for JSON."""
        strong = {"cell": self.strong.cell.name, "pattern": self.strong.axes["pattern"], **self.strong.tables()}
        return {
            "cell": self.learned.cell.name,
            "axes": self.axes,
            "fixed": self.fixed.tables(),
            "learned": self.learned.tables(),
            "strong": strong,
            "over_fixed": asdict(self.over_fixed),
            "over_strong": asdict(self.over_strong),
        }


@dataclass(frozen=True)
class InCondition:
    """A finished cell in a condition."""

    condition: str
    one: FinishedCell

    @property
    def axes(self) -> Mapping[str, Value]:
        """The values of the cell."""
        return self.one.axes

    @property
    def result(self) -> StageResult:
        """What the cell reached there."""
        return self.one.in_conditions[self.condition]


@dataclass(frozen=True)
class Means:
    """Means and counts over the patterns and numbers of shots, for each value of the other axes."""

    axes: dict[str, Value]
    n: int
    gain_over_fixed: dict[str, float]
    n_significant: int
    gain_over_strong: dict[str, float]
    n_over_strong: int
    violations: int


@dataclass(frozen=True)
class StudyTable:
    """What a study found.

    There is one of the `rows` for each learned cell whose fixed start is finished, one of `fixed` for each fixed cell,
    and one of `in_conditions` for each test of a cell in a condition. `unfinished` holds by ``skipped``, ``failed``,
    ``missing`` and ``untested`` the cells and the reason.
    """

    study: Study
    rows: list[Row]
    summary: list[Means]
    fixed: list[FinishedCell]
    unfinished: dict[str, dict[str, str]]
    in_conditions: list[InCondition] = field(default_factory=list)

    def tables(self) -> dict[str, Any]:
        """Return it as ``table.json`` has it."""
        unfinished = {
            status: [{"cell": name, "reason": reason} for name, reason in found.items()]
            for status, found in self.unfinished.items()
        }
        return {
            "schema_version": 1,
            "name": self.study.name,
            "axes": self.study.axes,
            "conditions": {name: asdict(condition) for name, condition in self.study.conditions.items()},
            "rows": [row.tables() for row in self.rows],
            "summary": [asdict(entry) for entry in self.summary],
            "fixed": [{"cell": one.cell.name, "axes": one.axes, **one.tables()} for one in self.fixed],
            **unfinished,
        }


def collect(study: Study, out: Path | str) -> StudyTable:
    """Write ``table.json``, ``table.csv`` and ``table.md`` from the cells in the folder `out` that are finished.

    Raises
    ------
    InputError
        If a cell's files are damaged, or cells that are compared were tested on other images.
    """
    outcomes = [(cell, training.outcome(cell, out)) for cell in study.cells]
    finished = [_finished(cell, found.results, out) for cell, found in outcomes if found.results is not None]
    fixed = [one for one in finished if one.cell.is_fixed]
    rows = [row for one in finished if not one.cell.is_fixed and (row := _row(one, fixed))]
    unfinished = {
        status: {cell.name: found.sentence for cell, found in outcomes if found.status == status}
        for status in _UNFINISHED
    }
    unfinished["untested"] = {
        cell.name: f"{', '.join(found.untested)}: {found.sentence or 'not tested yet'}"
        for cell, found in outcomes
        if found.untested
    }
    tested = [InCondition(name, one) for name in study.conditions for one in finished if name in one.in_conditions]
    table = StudyTable(study, rows, _means(rows), fixed, unfinished, tested)
    texts = {"json": to_json(table.tables()) + "\n", "csv": _csv(rows), "md": _markdown(table)}
    for ending, text in texts.items():
        with atomic_path(Path(out) / f"table.{ending}") as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return table


def plateau(steps: np.ndarray, values: np.ndarray) -> float:
    """Return the rise of a value over the last fifth of the steps (validation,).

    It is not a number if the value was not known before.
    """
    before = (1 - _LAST_PART) * steps[-1]
    return float(values[-1] - np.interp(before, steps, values)) if steps[0] <= before else float("nan")


def _finished(cell: Cell, results: Results, out: Path | str) -> FinishedCell:
    history = [(row.step, row.val_psnr) for row in training.folder(cell, out).history()]
    steps, val_psnr = (np.array(column) for column in zip(*history, strict=True))
    violations = sum(not limit["ok"] for limit in results.limits["constraints"].values())
    folder = training.folder(cell, out).path
    untested, kept = conditions.missing(folder, cell.conditions), conditions.read(folder)
    others = {name: kept[name].result for name in cell.conditions if name not in untested}
    return FinishedCell(cell, results.last, float(val_psnr[-1]), plateau(steps, val_psnr), violations, others)


def _row(learned: FinishedCell, fixed: list[FinishedCell]) -> Row | None:
    """Return a row of the table; None while the fixed start of the cell is not finished."""
    cell = learned.cell
    start = next((other for other in fixed if cell.shares(other.cell, "parameterization")), None)
    if start is None:
        return None
    # under the same limits and read-out, and chosen by the validation images, so that the test images do not choose
    rivals = [
        other
        for other in fixed
        if cell.shares(other.cell, "parameterization", "pattern")
        and (other.cell.config.acquisition, other.cell.config.scanner) == (cell.config.acquisition, cell.config.scanner)
    ]
    strong = max(rivals, key=lambda rival: rival.val_psnr)
    try:
        over_fixed, over_strong = (learned.result.over(other.result) for other in (start, strong))
    except InputError as error:
        raise InputError(f"cell {cell.name} beside its fixed start or {strong.cell.name}: {error}") from None
    return Row(learned, start, strong, over_fixed, over_strong)


def _means(rows: list[Row]) -> list[Means]:
    groups: dict[tuple[tuple[str, Value], ...], list[Row]] = {}
    for row in rows:
        others = {axis: value for axis, value in row.axes.items() if axis not in ("pattern", "shots")}
        groups.setdefault(tuple(others.items()), []).append(row)
    return [
        Means(
            dict(others),
            len(group),
            _mean_gain(row.over_fixed for row in group),
            sum(row.over_fixed.is_significant for row in group),
            _mean_gain(row.over_strong for row in group),
            sum(row.over_strong.gain["psnr"] > 0 for row in group),
            sum(row.learned.violations for row in group),
        )
        for others, group in groups.items()
    ]


def _mean_gain(comparisons: Iterable[Comparison]) -> dict[str, float]:
    gains = [comparison.gain for comparison in comparisons]
    return {key: statistics.fmean(gain[key] for gain in gains) for key in KEYS}


def _csv(rows: list[Row]) -> str:
    """Return the rows as CSV, without the values of each image; nested keys are joined."""
    flat = []
    for row in rows:
        table = row.tables()
        flat.append(_flat({**table.pop("axes"), **table}))
    stream = io.StringIO()
    names = dict.fromkeys(name for row in flat for name in row)  # cells of earlier versions lack some
    writer = csv.DictWriter(stream, fieldnames=list(names) or ["cell"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def _flat(tables: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}_")
        elif not isinstance(value, list):
            flat[f"{prefix}{key}"] = value
    return flat


def _markdown(table: StudyTable) -> str:
    """Return the tables for people: one a parameterization, their means, fixed patterns, conditions, what is missing.

    Axes of a single value are left out.
    """
    values = table.study.axes
    axes = [axis for axis in values if axis != "parameterization" and len(values[axis]) > 1]
    places = list(dict.fromkeys(["pattern", "shots", *axes]))
    others = ["parameterization", *(axis for axis in axes if axis not in ("pattern", "shots"))]
    parts = [f"# {table.study.name}", _LEGEND]
    for kind in values["parameterization"]:
        rows = [row for row in table.rows if row.axes["parameterization"] == kind]
        parts += _markdown_table(str(kind), places, _ROW_COLUMNS, rows)
    parts += _markdown_table("Means", others, _MEANS_COLUMNS, table.summary)
    parts += _markdown_table("Fixed patterns", places, _FIXED_COLUMNS, table.fixed)
    whole = [*places, "parameterization"]
    parts += _markdown_table("In other conditions", whole, _CONDITION_COLUMNS, table.in_conditions)
    for status, found in table.unfinished.items():
        lines = [f"- {name}: {reason}" for name, reason in found.items()]
        parts += [f"## Cells {status}", "\n".join(lines)] if lines else []
    return "\n\n".join(parts) + "\n"


_Entry = TypeVar("_Entry", bound=Row | Means | FinishedCell | InCondition)


def _markdown_table(
    title: str, axes: list[str], columns: dict[str, Callable[[_Entry], str]], entries: Sequence[_Entry]
) -> list[str]:
    """Return a heading and a table with a column for each axis and each of the others; nothing without entries."""
    if not entries:
        return []
    lines = [[*axes, *columns], ["---"] * (len(axes) + len(columns))]
    for entry in entries:
        lines.append([*(str(entry.axes[axis]) for axis in axes), *(text(entry) for text in columns.values())])
    cells = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return [f"## {title}", "\n".join(cells)]


_ROW_COLUMNS: dict[str, Callable[[Row], str]] = {
    "PSNR fixed": lambda row: row.fixed.result.spread("psnr"),
    "PSNR learned": lambda row: row.learned.result.spread("psnr"),
    "gain, dB (p)": lambda row: row.over_fixed.text("psnr"),
    "95 %": lambda row: row.over_fixed.interval("psnr"),
    "SSIM fixed": lambda row: row.fixed.result.spread("ssim"),
    "SSIM learned": lambda row: row.learned.result.spread("ssim"),
    "gain (p)": lambda row: row.over_fixed.text("ssim"),
    "95 % of SSIM": lambda row: row.over_fixed.interval("ssim"),
    "NRMSE fixed": lambda row: row.fixed.result.spread("nrmse"),
    "NRMSE learned": lambda row: row.learned.result.spread("nrmse"),
    "best fixed": lambda row: f"{row.strong.axes['pattern']}, {row.strong.result.psnr:.2f}",
    "gain over it, dB (p)": lambda row: row.over_strong.text("psnr"),
    "95 % of that": lambda row: row.over_strong.interval("psnr"),
    "95 % are over": lambda row: row.over_strong.resampled,
    "broken limits": lambda row: str(row.learned.violations),
    "plateau, dB": lambda row: f"{row.fixed.plateau:+.2f}, {row.learned.plateau:+.2f}",
    "training, s": lambda row: f"{row.fixed.result.seconds:.0f}, {row.learned.result.seconds:.0f}",
}
_MEANS_COLUMNS: dict[str, Callable[[Means], str]] = {
    "cells": lambda entry: str(entry.n),
    "gain PSNR, dB": lambda entry: f"{entry.gain_over_fixed['psnr']:+.2f}",
    "gain SSIM": lambda entry: f"{entry.gain_over_fixed['ssim']:+.4f}",
    "better in both, p < 0.05": lambda entry: str(entry.n_significant),
    "gain over best fixed, dB": lambda entry: f"{entry.gain_over_strong['psnr']:+.2f}",
    "cells above it": lambda entry: str(entry.n_over_strong),
    "broken limits": lambda entry: str(entry.violations),
}
_FIXED_COLUMNS: dict[str, Callable[[FinishedCell], str]] = {
    "images": lambda one: f"{one.result.n}, {len(one.result.left_out)} left out".replace(", 0 left out", ""),
    "PSNR": lambda one: one.result.spread("psnr"),
    "SSIM": lambda one: one.result.spread("ssim"),
    "NRMSE": lambda one: one.result.spread("nrmse"),
    "PSNR of validation": lambda one: f"{one.val_psnr:.2f}",
    "plateau, dB": lambda one: f"{one.plateau:+.2f}",
    "training, s": lambda one: f"{one.result.seconds:.0f}",
}
_CONDITION_COLUMNS: dict[str, Callable[[InCondition], str]] = {
    "condition": lambda entry: entry.condition,
    "PSNR (against its own test)": lambda entry: entry.result.less("psnr", entry.one.result),
    "SSIM (against its own test)": lambda entry: entry.result.less("ssim", entry.one.result),
}
_LEGEND = (
    "Mean ± standard deviation over the test images that have signal, PSNR in dB; p of the paired Wilcoxon signed-rank "
    "test over the images. *95 %*: confidence interval of the mean gain by a bootstrap of people and their images. "
    "*Best fixed*: of all fixed patterns with the same shots, classical ones included, the best by the PSNR of the "
    "validation images. *Plateau*: rise of that PSNR over the last fifth of the steps, fixed and learned."
)
