"""The hard check of a trajectory: every constraint, its worst value, and where."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign import plugins
from trajdesign.acquisition import Acquisition, unplayable
from trajdesign.errors import ConfigError, LimitError
from trajdesign.interfaces import Constraint, Finding
from trajdesign.scanner import Scanner
from trajdesign.tolerances import FILE_ROUNDING
from trajdesign.trajectory import Trajectory

Options = Mapping[str, Mapping[str, Any]]
"""The options of each constraint by its name, as in the config's tables ``[limits.options.NAME]``."""

_NOTHING = 1e-9  # parts of a limit that are rounding


def standard() -> list[str]:
    """Return the names of the constraints that hold for every scanner: those without an option that must be given."""
    return [name for name in plugins.names("constraint") if not plugins.required_options("constraint", name)]


def constraints(
    acquisition: Acquisition, scanner: Scanner, names: list[str] | None = None, options: Options | None = None
) -> list[Constraint]:
    """Return the constraints of the given names, or the `standard` ones.

    Raises
    ------
    ConfigError
        If a name or an option is unknown, or an option that has no default is missing.
    """
    tables = [{"kind": name, **(options or {}).get(name, {})} for name in (standard() if names is None else names)]
    return [plugins.build("constraint", table, acquisition, scanner) for table in tables]


def without(ignored: list[str], more: Iterable[str] = ()) -> list[str]:
    """Return the names of the `standard` constraints, and of more, but the ignored ones.

    Raises
    ------
    ConfigError
        If one that is ignored is unknown, guards the hardware rather than the image, or is none of them.
    """
    names = list(dict.fromkeys([*standard(), *more]))
    for name in ignored:
        if plugins.find("constraint", name).guards_hardware:
            raise ConfigError(f"the limit {name!r} guards the hardware and cannot be ignored.")
        if name not in names:
            raise ConfigError(
                f"the limit {name!r} is not checked here, so it cannot be ignored; {', '.join(names)} are."
            )
    return [name for name in names if name not in ignored]


def enforceable(names: list[str]) -> list[str]:
    """Return those of the constraints that a projection can enforce; the others lean on learning by penalty alone."""
    return [name for name in names if plugins.find("constraint", name).derivative is not None]


def unseen(names: Iterable[str]) -> list[str]:
    """Return the names of the `standard` constraints that are not among some."""
    seen = set(names)
    return [name for name in standard() if name not in seen]


def unseen_sentence(names: Iterable[str]) -> str:
    """Return a sentence on the `standard` constraints that are not among some; nothing if all are."""
    left_out = unseen(names)
    return f"Not looked at: {', '.join(left_out)}." if left_out else ""


def check(trajectory: Trajectory, names: list[str] | None = None, options: Options | None = None) -> list[Finding]:
    """Return the worst value of `trajectory` against each limit.

    Parameters
    ----------
    trajectory
        The waveform to check; a value that is not finite breaks every limit it touches.
    names
        Constraints to check; the `standard` ones by default.
    options
        Of the constraints, by name.

    Raises
    ------
    LimitError
        If the scanner's receiver cannot sample at all with the acquisition's dwell time.
    """
    wrong = unplayable(trajectory.acquisition, trajectory.scanner)
    if wrong:
        raise LimitError(f"{trajectory.name}: {wrong}")
    findings = []
    for constraint in constraints(trajectory.acquisition, trajectory.scanner, names, options):
        finding = replace(constraint.check(trajectory), rounding=constraint.rounding)
        findings.append(replace(finding, n_violations=0) if finding.ok else finding)
    return findings


def require(trajectory: Trajectory, names: list[str] | None = None, options: Options | None = None) -> list[Finding]:
    """Return the findings of `check` if every limit is kept.

    Raises
    ------
    LimitError
        Otherwise; the sentence names each broken limit and its worst place.
    """
    findings = check(trajectory, names, options)
    broken = [describe(f) for f in findings if not f.ok]
    if broken:
        raise LimitError(f"{trajectory.name} breaks {len(broken)} limit(s): {'; '.join(broken)}.")
    return findings


def worst(finding: Finding) -> str:
    """Return the worst value as text; what only rounding made of zero is zero."""
    return f"{finding.value if not abs(finding.value) < _NOTHING * finding.limit else 0.0:.5g}"


def check_whole(gradient: NDArray[np.floating], before: int, scanner: Scanner) -> list[Finding]:
    """Return the worst gradient and slew rate of whole shots, which start and end at rest.

    Parameters
    ----------
    gradient
        Of all that is played (shot, cell, dim), T/m.
    before
        Cells before the readout; times are after its start.
    scanner
        Its limits, norm and raster.
    """
    order = 2 if scanner.limit_norm == "vector" else np.inf
    at_rest = np.pad(gradient, ((0, 0), (1, 1), (0, 0)))
    slew = np.diff(at_rest, axis=1) / scanner.gradient_raster
    findings = []
    for name, vectors, limit, unit, first in (
        ("gradient, whole shot", gradient, scanner.max_gradient, "T/m", -before),
        ("slew, whole shot", slew, scanner.max_slew, "T/m/s", -before - 0.5),
    ):
        size = np.linalg.norm(vectors, ord=order, axis=-1)
        shot, index = np.unravel_index(int(np.argmax(np.nan_to_num(size, nan=np.inf))), size.shape)
        time = (first + float(index)) * scanner.gradient_raster
        n_broken = int((~(size / limit - 1 <= FILE_ROUNDING)).sum())
        findings.append(Finding(name, float(size[shot, index]), limit, unit, int(shot), time, n_broken, FILE_ROUNDING))
    return findings


def describe(finding: Finding) -> str:
    """Return one clause about a finding: the value, the limit and the place."""
    return (
        f"{finding.name} {finding.value:.6g} {finding.unit} against {finding.limit:.6g} {finding.unit} "
        f"at shot {finding.shot}, {finding.time * 1e3:.3f} ms"
    )


def summary(trajectory: Trajectory, findings: list[Finding]) -> dict[str, Any]:
    """Return the table of limits that ``metrics.json`` holds; the two maxima are in the scanner's norm.

    The hardware's limits are part of it, and of its verdict ``ok``, whether they are among the findings or not.
    ``n_broken`` counts the limits that are broken, and ``n_violations`` of each the times at which it is;
    ``not_checked`` names those of every scanner that were not looked at.
    """
    every = {f.name: f for f in [*check(trajectory, ["gradient", "slew"]), *findings]}
    return {
        "max_gradient": every["gradient"].value,
        "max_slew": every["slew"].value,
        "ok": all(f.ok for f in every.values()),
        "n_broken": sum(not f.ok for f in every.values()),
        "margin": min(f.margin for f in every.values()),
        "not_checked": unseen(every),
        "constraints": {name: {**asdict(f), "margin": f.margin, "ok": f.ok} for name, f in every.items()},
    }
