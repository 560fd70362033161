"""The hard check of a trajectory: every constraint, its worst value, and where."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.errors import ConfigError, LimitError
from trajdesign.interfaces import Constraint
from trajdesign.scanner import Finding, Scanner
from trajdesign.trajectory import Trajectory
from trajdesign.units import FILE_ROUNDING, ROUNDING

Options = Mapping[str, Mapping[str, Any]]
"""The options of each constraint by its name, as in the config's tables ``[limits.options.NAME]``."""


def standard() -> list[str]:
    """Return the names of the constraints that hold for every scanner: those without an option that must be given."""
    return [name for name in plugins.names("constraint") if not plugins.required_options("constraint", name)]


def constraints(
    acquisition: Acquisition, scanner: Scanner, names: list[str] | None = None, options: Options | None = None
) -> list[Constraint]:
    """Return the constraints of the given names, or the `standard` ones.

    It raises a `ConfigError` if a name or an option is unknown, or an option that has no default is missing.
    """
    tables = [{"kind": name, **(options or {}).get(name, {})} for name in (standard() if names is None else names)]
    return [plugins.build("constraint", table, acquisition, scanner) for table in tables]


def without(ignored: list[str], more: Iterable[str] = ()) -> list[str]:
    """Return the names of the `standard` constraints, and of more, but the ignored ones.

    It raises a `ConfigError` if one that is ignored is unknown, guards the hardware rather than the image, or is none
    of them.
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
    return [name for name in names if plugins.find("constraint", name).is_enforced()]


def unseen(names: Iterable[str]) -> list[str]:
    """Return the names of the `standard` constraints that are not among some."""
    seen = set(names)
    return [name for name in standard() if name not in seen]


def unseen_sentence(names: Iterable[str]) -> str:
    """Return a sentence on the `standard` constraints that are not among some; nothing if all are."""
    left_out = unseen(names)
    return f"Not looked at: {', '.join(left_out)}." if left_out else ""


def check(
    trajectory: Trajectory, names: list[str] | None = None, options: Options | None = None, rounding: float = 0.0
) -> list[Finding]:
    """Return the worst value of `trajectory` against each limit.

    It raises a `LimitError` if the scanner's receiver cannot sample at all with the acquisition's dwell time.

    Parameters
    ----------
    trajectory
        The waveform to check; a value that is not finite breaks every limit it touches.
    names, options
        Constraints to check, the `standard` ones by default, and their options by name.
    rounding
        Part of each limit that may be passed, where it is more than the constraint itself allows.
    """
    _require_playable(trajectory)
    found = constraints(trajectory.acquisition, trajectory.scanner, names, options)
    return [constraint.check(trajectory, max(rounding, constraint.rounding)) for constraint in found]


def require(trajectory: Trajectory, names: list[str] | None = None, options: Options | None = None) -> list[Finding]:
    """Return the findings of `check` if every limit is kept.

    It raises a `LimitError` otherwise; the sentence names each broken limit and its worst place.
    """
    return _kept(trajectory.name, check(trajectory, names, options))


def require_start(start: Trajectory, names: list[str], options: Options | None = None) -> None:
    """Refuse a trajectory from which learning cannot start, as it breaks a limit or can never keep one.

    It raises a `LimitError`, or a `ConfigError` of an equality that it is too far from; see `Constraint.from_start`.
    """
    _require_playable(start)
    found = [c.from_start(start) for c in constraints(start.acquisition, start.scanner, names, options)]
    _kept(start.name, [c.check(start, c.rounding) for c in found if c.vanishing(start) is None])


def check_whole(
    gradient: NDArray[np.floating], before: int, scanner: Scanner, rounding: float = FILE_ROUNDING
) -> list[Finding]:
    """Return the worst gradient and slew rate of whole shots, which start and end at rest.

    Parameters
    ----------
    gradient
        All that is played (shot, cell, dim), T/m.
    before
        Cells before the readout; times are after its start.
    scanner
        Its limits, norm and raster.
    rounding
        Part of the limits that may be passed.
    """
    order = 2 if scanner.limit_norm == "vector" else np.inf
    slew = np.diff(np.pad(gradient, ((0, 0), (1, 1), (0, 0))), axis=1) / scanner.gradient_raster
    findings = []
    for name, vectors, limit, unit, first in (
        ("gradient, whole shot", gradient, scanner.max_gradient, "T/m", -before),
        ("slew, whole shot", slew, scanner.max_slew, "T/m/s", -before - 0.5),
    ):
        size = np.linalg.norm(vectors, ord=order, axis=-1)
        times = (first + np.arange(size.shape[1])) * scanner.gradient_raster
        findings.append(Finding.worst(name, size, limit, unit, times, rounding))
    return findings


def check_file(
    trajectory: Trajectory,
    gradient: NDArray[np.floating] | None,
    before: int,
    names: list[str] | None = None,
    options: Options | None = None,
) -> list[Finding]:
    """Return the findings of `check` for what a file plays, and where it holds whole shots those of `check_whole`.

    The digits of such a file may add to what it plays.
    """
    if gradient is None:
        return check(trajectory, names, options)
    return check(trajectory, names, options, FILE_ROUNDING) + check_whole(gradient, before, trajectory.scanner)


def require_whole(gradient: NDArray[np.floating], scanner: Scanner, rounding: float = ROUNDING) -> None:
    """Refuse whole shots that break a limit of `check_whole`, by a `LimitError` that names the place."""
    _kept("the waveform", check_whole(gradient, 0, scanner, rounding))


def _require_playable(trajectory: Trajectory) -> None:
    wrong = trajectory.scanner.unplayable(trajectory.acquisition.dwell)
    if wrong:
        raise LimitError(f"{trajectory.name}: {wrong}")


def _kept(name: str, findings: list[Finding]) -> list[Finding]:
    broken = [describe(f) for f in findings if not f.ok]
    if broken:
        raise LimitError(f"{name} breaks {len(broken)} limit(s): {'; '.join(broken)}.")
    return findings


def worst(finding: Finding) -> str:
    """Return the worst value as text; what only rounding made of zero is zero."""
    return f"{0.0 if finding.is_rounding else finding.value:.5g}"


def describe(finding: Finding) -> str:
    """Return one clause about a finding: the value, the limit and the place."""
    return (
        f"{finding.name} {finding.value:.6g} {finding.unit} against {finding.limit:.6g} {finding.unit} "
        f"at {finding.where}"
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
        "constraints": {name: f.facts for name, f in every.items()},
    }
