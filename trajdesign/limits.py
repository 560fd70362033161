"""The hard check of a trajectory: every constraint, its worst value, and where."""

from trajdesign import plugins
from trajdesign.acquisition import Acquisition
from trajdesign.errors import LimitError
from trajdesign.interfaces import Constraint, Finding
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory


def constraints(
    acquisition: Acquisition, scanner: Scanner, names: list[str] | None = None
) -> list[Constraint]:
    """Return the constraints of the given names, or every built-in one."""
    chosen = plugins.names("constraint") if names is None else names
    return [plugins.find("constraint", name)(acquisition, scanner) for name in chosen]


def check(trajectory: Trajectory, names: list[str] | None = None) -> list[Finding]:
    """Return the worst value of `trajectory` against each limit.

    Parameters
    ----------
    trajectory
        The waveform to check; a value that is not finite breaks every limit it touches.
    names
        Constraints to check; every built-in one by default.
    """
    return [c.check(trajectory) for c in constraints(trajectory.acquisition, trajectory.scanner, names)]


def require(trajectory: Trajectory, names: list[str] | None = None) -> list[Finding]:
    """Return the findings of `check` if every limit is kept.

    Raises
    ------
    LimitError
        Otherwise; the sentence names each broken limit and its worst place.
    """
    findings = check(trajectory, names)
    broken = [describe(f) for f in findings if not f.ok]
    if broken:
        raise LimitError(f"{trajectory.name} breaks {len(broken)} limit(s): {'; '.join(broken)}.")
    return findings


def describe(finding: Finding) -> str:
    """Return one clause about a finding: the value, the limit and the place."""
    return (
        f"{finding.name} {finding.value:.6g} {finding.unit} against {finding.limit:.6g} {finding.unit} "
        f"at shot {finding.shot}, {finding.time * 1e3:.3f} ms"
    )
