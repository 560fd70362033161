"""``trajdesign check``."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trajdesign import console, walled
from trajdesign.commands._options import (
    Dwell,
    Foreign,
    Fov,
    Ignore,
    Json,
    KUnit,
    Matrix,
    MaxGradient,
    MaxSlew,
    Profile,
    Quiet,
)

if TYPE_CHECKING:
    from trajdesign.scanner import Scanner


def check(
    path: Annotated[Path, typer.Argument(help="Run folder, .npz file or any .seq file.", show_default=False)],
    quiet: Quiet = False,
    json: Json = False,
    ignore: Ignore = None,
    profile: Profile = None,
    max_gradient: MaxGradient = None,
    max_slew: MaxSlew = None,
    nerves: Annotated[
        str | None, typer.Option(help=".seq: nerve model, a coil (xrm, whole, ...) or a site's .asc file.")
    ] = None,
    nerve_limit: Annotated[float, typer.Option(help=".seq: part of its limit that is allowed.")] = 0.8,
    bands: Annotated[
        str | None, typer.Option(help=".seq: where the coil rings: CENTRE:WIDTH,... in Hz, or a site's .asc file.")
    ] = None,
    band_limit: Annotated[float, typer.Option(help=".seq: amplitude allowed there, T/m.")] = math.inf,
    out: Annotated[Path | None, typer.Option(help=".seq: figure to write.", show_default=False)] = None,
    k_unit: KUnit = None,
    dwell: Dwell = None,
    fov: Fov = None,
    matrix: Matrix = None,
) -> None:
    """Check every limit: the worst value, where it is, and the margin. Exit code 4 if one is broken."""
    foreign = Foreign(k_unit, dwell, fov, matrix, profile, max_gradient, max_slew)
    if walled.ending(path) == ".seq":
        ok = _check_file(path, foreign.scanner(), quiet, json, nerves, nerve_limit, bands, band_limit, out)
    else:
        ok = _check_trajectory(path, foreign, quiet, json, ignore or [])
    if not ok:
        raise typer.Exit(4)


def _check_trajectory(path: Path, foreign: Foreign, quiet: bool, json: bool, ignore: list[str]) -> bool:
    """Check the trajectory of a run or of an .npz file, and print every limit."""
    from trajdesign import limits

    trajectory = foreign.open(path)
    findings = limits.check(trajectory, limits.without(ignore))
    ok = all(f.ok for f in findings)
    if json:
        scan = {"matrix": trajectory.acquisition.matrix, "fov": trajectory.acquisition.fov}
        console.show_json("check", {"path": str(path), **scan, **limits.summary(trajectory, findings)})
    elif not quiet:
        rows = [
            (f.name, f"{f.value:.5g}", f"{f.limit:.5g}", f.unit, f"{f.margin:.2%}", str(f.shot),
             f"{f.time * 1e3:.3f}", "ok" if f.ok else "BROKEN")
            for f in findings
        ]  # fmt: skip
        title = f"{trajectory.name}: limits ({trajectory.scanner.limit_norm} norm)"
        headings = ("limit", "worst", "allowed", "unit", "margin", "shot", "time (ms)", "")
        console.show(title, headings, rows, left=("limit", "unit", ""))
        if ok:
            file = path / "trajectory.seq" if path.is_dir() else path.with_suffix(".seq")
            console.suggest(("export", path, *foreign.words(), "--format", "pulseq", "--out", file))
    return ok


def _check_file(
    path: Path,
    scanner: "Scanner",
    quiet: bool,
    json: bool,
    nerves: str | None,
    nerve_limit: float,
    bands: str | None,
    band_limit: float,
    out: Path | None,
) -> bool:
    """Check a whole Pulseq file, and print every rule."""
    from trajdesign import acoustics, inspection, plots, seqfile
    from trajdesign.exposure import expose
    from trajdesign.stimulation import nerve_model

    ringing = [] if bands is None else acoustics.parse_bands(bands)
    model = nerve_model(nerves or "whole")
    file = seqfile.read(path, signed=False)
    own = nerves is not None
    exposure = expose(
        file, scanner, model, nerve_limit=nerve_limit, is_own_coil=own, bands=ringing, band_limit=band_limit
    )
    checks = [*inspection.inspect(file, scanner), *exposure.checks]
    if out is not None:
        plots.save(plots.exposure_figure(exposure, ringing), out)
    ok = not any(check.verdict == "broken" for check in checks)
    if json:
        rules = [{**asdict(check), "verdict": check.verdict} for check in checks]
        figure = None if out is None else str(out)
        console.show_json("check", {"path": str(path), "ok": ok, "figure": figure, "checks": rules})
    elif not quiet:
        console.show_checks(path, checks)
        if ok:
            console.suggest(("scan", path, "--out", path.with_suffix("")))
    return ok
