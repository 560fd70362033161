"""The tables of a study: what each trajectory gains over its fixed start, and over the best classical pattern."""

import csv
import io
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trajdesign.errors import InputError
from trajdesign.files.atomic import atomic_path
from trajdesign.learning.run_folder import to_json
from trajdesign.studies import compare, training
from trajdesign.studies.study import FIXED, Cell, Study
from trajdesign.studies.training import Outcome

_SIGNIFICANT = 0.05
_LAST_PART = 0.2  # of the steps, over which a training that has reached its plateau gains no more


def collect(study: Study, out: Path | str) -> dict[str, Any]:
    """Write ``table.json``, ``table.csv`` and ``table.md`` from the cells that are finished.

    Parameters
    ----------
    study
        Whose cells.
    out
        Folder of the study.

    Returns
    -------
    dict
        What ``table.json`` holds: ``rows``, one a learned cell; ``summary``, one a parameterization, for each value of
        the axes other than pattern and shots; ``fixed``, one a fixed cell; and ``skipped``, ``failed`` and ``missing``.

    Raises
    ------
    InputError
        If a cell's files are damaged, or cells that are compared were tested on other images.
    """
    outcomes = {cell.name: training.outcome(cell, out) for cell in study.cells}
    fixed: dict[str, tuple[Cell, dict[str, Any]]] = {}
    learned: dict[str, tuple[Cell, dict[str, Any]]] = {}
    for cell in study.cells:
        if outcomes[cell.name].status == "finished":
            kind = fixed if cell.is_fixed else learned
            kind[cell.name] = (cell, _result(cell, outcomes[cell.name], out))
    rows = [row for cell, result in learned.values() if (row := _row(cell, result, list(fixed.values())))]
    table: dict[str, Any] = {
        "schema_version": 1,
        "name": study.name,
        "axes": study.axes,
        "rows": rows,
        "summary": _summaries(rows),
        "fixed": [{"cell": name, "axes": cell.values, **result} for name, (cell, result) in fixed.items()],
    }
    for status in ("skipped", "failed", "missing"):
        table[status] = [
            {"cell": name, "reason": found.sentence} for name, found in outcomes.items() if found.status == status
        ]
    for ending, text in (("json", to_json(table) + "\n"), ("csv", _csv(rows)), ("md", _markdown(table))):
        with atomic_path(Path(out) / f"table.{ending}") as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return table


def plateau(steps: np.ndarray, values: np.ndarray) -> float:
    """Return the rise of a value over the last fifth of the steps; not a number if it was not known before.

    Parameters
    ----------
    steps, values
        Of the validations (validation,).
    """
    before = (1 - _LAST_PART) * steps[-1]
    return float(values[-1] - np.interp(before, steps, values)) if steps[0] <= before else float("nan")


def _result(cell: Cell, found: Outcome, out: Path | str) -> dict[str, Any]:
    """Return the test scores of a cell with what its training says about them."""
    measured = found.metrics or {}
    history = [(row["step"], row["val_psnr"]) for row in training.folder(cell, out).history()]
    steps, val_psnr = (np.array(column) for column in zip(*history, strict=True))
    return {
        **compare.result(measured["learned" if "learned" in measured else FIXED]),
        "val_psnr": float(val_psnr[-1]),
        "plateau": plateau(steps, val_psnr),
        "violations": sum(not limit["ok"] for limit in measured["limits"]["constraints"].values()),
    }


def _row(cell: Cell, learned: dict[str, Any], fixed: list[tuple[Cell, dict[str, Any]]]) -> dict[str, Any] | None:
    """Return a row of the table; None while the fixed start of the cell is not finished."""
    start = next((result for other, result in fixed if cell.shares(other, "parameterization")), None)
    if start is None:
        return None
    # under the same limits and read-out, and chosen by the validation images, so that the test images do not choose
    rivals = [
        (other, result)
        for other, result in fixed
        if cell.shares(other, "parameterization", "pattern")
        and (other.config.acquisition, other.config.scanner) == (cell.config.acquisition, cell.config.scanner)
    ]
    best, strong = max(rivals, key=lambda rival: rival[1]["val_psnr"])
    try:
        over = {"over_fixed": compare.paired(learned, start), "over_strong": compare.paired(learned, strong)}
    except InputError as error:
        raise InputError(f"cell {cell.name} beside its fixed start or {best.name}: {error}") from None
    return {
        "cell": cell.name,
        "axes": cell.values,
        "fixed": start,
        "learned": learned,
        "strong": {"cell": best.name, "pattern": best.values["pattern"], **strong},
        **over,
    }


def _summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over pattern and shots, for each value of the other axes."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        others = {axis: value for axis, value in row["axes"].items() if axis not in ("pattern", "shots")}
        groups.setdefault(tuple(others.items()), []).append(row)
    return [
        {
            "axes": dict(others),
            "n": len(group),
            "gain_over_fixed": _mean_gain(group, "over_fixed"),
            "n_significant": sum(is_significant(row["over_fixed"]) for row in group),
            "gain_over_strong": _mean_gain(group, "over_strong"),
            "n_over_strong": sum(row["over_strong"]["gain"]["psnr"] > 0 for row in group),
            "violations": sum(row["learned"]["violations"] for row in group),
        }
        for others, group in groups.items()
    ]


def is_significant(comparison: dict[str, Any]) -> bool:
    """Return whether both PSNR and SSIM are better, with p < 0.05 each."""
    gain, p = comparison["gain"], comparison["wilcoxon_p"]
    return all(gain[key] > 0 and p[key] < _SIGNIFICANT for key in p)


def _mean_gain(rows: list[dict[str, Any]], over: str) -> dict[str, float]:
    return {key: statistics.fmean(row[over]["gain"][key] for row in rows) for key in compare.KEYS}


def _csv(rows: list[dict[str, Any]]) -> str:
    """Return the rows without the values of each image, nested keys joined."""
    flat = [_flat({**row["axes"], **{key: row[key] for key in row if key != "axes"}}) for row in rows]
    stream = io.StringIO()
    names = dict.fromkeys(name for row in flat for name in row)  # cells of earlier versions lack some
    writer = csv.DictWriter(stream, fieldnames=list(names) or ["cell"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def _markdown(table: dict[str, Any]) -> str:
    """Return the tables for people: one a parameterization, then their means, the fixed patterns, and what is missing.

    Axes of a single value are left out.
    """
    axes = [axis for axis, values in table["axes"].items() if axis != "parameterization" and len(values) > 1]
    places = list(dict.fromkeys(["pattern", "shots", *axes]))
    parts = [f"# {table['name']}", _LEGEND]
    for kind in table["axes"]["parameterization"]:
        rows = [row for row in table["rows"] if row["axes"]["parameterization"] == kind]
        columns = {**_axis_columns(places), **_ROW_COLUMNS}
        parts += [f"## {kind}", _markdown_table(columns, rows)] if rows else []
    others = [axis for axis in axes if axis not in ("pattern", "shots")]
    for title, entries, columns in (
        ("Means", table["summary"], {**_axis_columns(["parameterization", *others]), **_SUMMARY_COLUMNS}),
        ("Fixed patterns", table["fixed"], {**_axis_columns(places), **_FIXED_COLUMNS}),
    ):
        parts += [f"## {title}", _markdown_table(columns, entries)] if entries else []
    for status in ("skipped", "failed", "missing"):
        lines = [f"- {entry['cell']}: {entry['reason']}" for entry in table[status]]
        parts += [f"## Cells {status}", "\n".join(lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def _markdown_table(columns: dict[str, Callable[[dict[str, Any]], str]], rows: list[dict[str, Any]]) -> str:
    lines = [list(columns), ["---"] * len(columns), *([write(row) for write in columns.values()] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _axis_columns(axes: list[str]) -> dict[str, Callable[[dict[str, Any]], str]]:
    return {axis: lambda row, axis=axis: str(row["axes"][axis]) for axis in axes}  # type: ignore[misc]


_ROW_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "PSNR fixed": lambda row: compare.spread(row["fixed"], "psnr"),
    "PSNR learned": lambda row: compare.spread(row["learned"], "psnr"),
    "gain, dB (p)": lambda row: compare.gain(row["over_fixed"], "psnr"),
    "SSIM fixed": lambda row: compare.spread(row["fixed"], "ssim"),
    "SSIM learned": lambda row: compare.spread(row["learned"], "ssim"),
    "gain (p)": lambda row: compare.gain(row["over_fixed"], "ssim"),
    "NRMSE fixed": lambda row: compare.spread(row["fixed"], "nrmse"),
    "NRMSE learned": lambda row: compare.spread(row["learned"], "nrmse"),
    "best fixed": lambda row: f"{row['strong']['pattern']}, {row['strong']['psnr']:.2f}",
    "gain over it, dB (p)": lambda row: compare.gain(row["over_strong"], "psnr"),
    "broken limits": lambda row: str(row["learned"]["violations"]),
    "plateau, dB": lambda row: f"{row['fixed']['plateau']:+.2f}, {row['learned']['plateau']:+.2f}",
    "training, s": lambda row: f"{row['fixed']['seconds']:.0f}, {row['learned']['seconds']:.0f}",
}
_SUMMARY_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "cells": lambda row: str(row["n"]),
    "gain PSNR, dB": lambda row: f"{row['gain_over_fixed']['psnr']:+.2f}",
    "gain SSIM": lambda row: f"{row['gain_over_fixed']['ssim']:+.4f}",
    "better in both, p < 0.05": lambda row: str(row["n_significant"]),
    "gain over best fixed, dB": lambda row: f"{row['gain_over_strong']['psnr']:+.2f}",
    "cells above it": lambda row: str(row["n_over_strong"]),
    "broken limits": lambda row: str(row["violations"]),
}
_FIXED_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "images": lambda row: str(row["n"]) + (f", {len(row['left_out'])} left out" if row.get("left_out") else ""),
    "PSNR": lambda row: compare.spread(row, "psnr"),
    "SSIM": lambda row: compare.spread(row, "ssim"),
    "NRMSE": lambda row: compare.spread(row, "nrmse"),
    "PSNR of validation": lambda row: f"{row['val_psnr']:.2f}",
    "plateau, dB": lambda row: f"{row['plateau']:+.2f}",
    "training, s": lambda row: f"{row['seconds']:.0f}",
}
_LEGEND = (
    "Mean ± standard deviation over the test images that have signal, PSNR in dB; p of the paired Wilcoxon signed-rank "
    "test. "
    "*Best fixed*: of all fixed patterns with the same shots, classical ones included, the best by the PSNR of the "
    "validation images. *Plateau*: rise of that PSNR over the last fifth of the steps, fixed and learned."
)


def _flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}_")
        elif not isinstance(value, list):
            flat[f"{prefix}{key}"] = value
    return flat
