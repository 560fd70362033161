"""``trajdesign check``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import (
    ASSUMED,
    Foreign,
    Ignore,
    Json,
    Options,
    Quiet,
    ScannerOptions,
    grouped,
    open_trajectory,
    refuse,
)
from trajdesign.files import untrusted

_OF_FILES = (
    "of whole .seq files alone; a readout has no prephaser and no repetition yet: export it, and check the file."
)
_OF_TRAJECTORIES = "of trajectories alone; a .seq file says it itself, and all of its rules hold."


@dataclass(frozen=True)
class _Exposure(Options):
    """What the options say of the nerves and the coil that a whole file drives."""

    nerves: Annotated[
        str | None, typer.Option(help=".seq: nerve model, a coil (xrm, whole, ...) or a site's .asc file.")
    ] = None
    nerve_limit: Annotated[
        float | None, typer.Option(help=".seq: part of its limit that is allowed.", show_default="0.8")
    ] = None
    bands: Annotated[
        str | None, typer.Option(help=".seq: where the coil rings: CENTRE:WIDTH,... in Hz, or a site's .asc file.")
    ] = None
    band_limit: Annotated[
        float | None, typer.Option(help=".seq: amplitude allowed there, T/m.", show_default="any")
    ] = None
    out: Annotated[Path | None, typer.Option(help=".seq: figure to write.", show_default=False)] = None


@grouped
def check(
    path: Annotated[Path, typer.Argument(help="Run folder, .npz file or any .seq file.", show_default=False)],
    quiet: Quiet = False,
    json: Json = False,
    ignore: Ignore = None,
    *,
    scanner: ScannerOptions,
    exposure: _Exposure,
    foreign: Foreign,
) -> None:
    """Check every limit: the worst value, where it is, and the margin. Exit code 4 if one is broken."""
    if untrusted.ending(path) == ".seq":
        foreign.refuse(_OF_TRAJECTORIES)
        refuse({"--ignore": ignore}, _OF_TRAJECTORIES)
        if exposure.nerves is None:
            refuse({"--nerve-limit": exposure.nerve_limit}, "it is of the model of your --nerves; give it too.")
        if exposure.bands is None:
            refuse({"--band-limit": exposure.band_limit}, "it is of the --bands; give them too.")
        ok = _check_file(path, scanner, exposure, quiet, json)
    else:
        exposure.refuse(_OF_FILES)
        ok = _check_trajectory(path, foreign, scanner, quiet, json, ignore or [])
    if not ok:
        raise typer.Exit(4)


def _check_trajectory(
    path: Path, foreign: Foreign, options: ScannerOptions, quiet: bool, json: bool, ignore: list[str]
) -> bool:
    """Check the trajectory of a run or of an .npz file, and print every limit."""
    from trajdesign.encoding.echo import EchoTimes
    from trajdesign.learning.run_folder import RunFolder
    from trajdesign.physics import limits

    trajectory, found = open_trajectory(path, foreign, options)
    scanner = trajectory.scanner
    tables = RunFolder(path).config().limits.tables if path.is_dir() else {}
    by_run = limits.unseen([*tables, "gradient", "slew"]) if path.is_dir() else []
    whole, before = (None, 0) if found is None else (found.gradient, found.before)
    findings = limits.check_file(trajectory, whole, before, limits.without(ignore, tables), tables)
    ok = all(f.ok for f in findings)
    nucleus = options.nucleus_of(scanner, None if found is None else found.nucleus)
    is_assumed = nucleus["nucleus_from"] == "assumed"
    echo = EchoTimes.of(trajectory)
    if json:
        scan = {"matrix": trajectory.acquisition.matrix, "fov": trajectory.acquisition.fov}
        of = {**scan, **nucleus, "not_checked_by_run": by_run, **echo.facts, **limits.summary(trajectory, findings)}
        console.show_json("check", {"path": str(path), **of})
    elif not quiet:
        rows = [
            (f.name, limits.worst(f), f"{f.limit:.5g}", f.unit, f"{f.margin:z.2%}", str(f.shot),
             f"{f.time * 1e3:.3f}", "ok" if f.ok else "BROKEN")
            for f in findings
        ]  # fmt: skip
        title = f"{trajectory.name}: limits ({scanner.limit_norm} norm, {scanner.nucleus})"
        headings = ("limit", "worst", "allowed", "unit", "margin", "shot", "time (ms)", "")
        console.show(title, headings, rows, left=("limit", "unit", ""))
        console.say(f"Echo: {echo}.")
        if is_assumed:
            console.say(ASSUMED)
        if by_run:
            console.say(f"The run did not look at: {', '.join(by_run)}; its limits.constraints leaves them out.")
        if sentence := limits.unseen_sentence(f.name for f in findings):
            console.say(sentence)
        if ok:
            file = path / "trajectory.seq" if path.is_dir() else path.with_suffix(".seq")
            given = [*foreign.words(), *options.words(), *(["--nucleus", scanner.nucleus] if is_assumed else [])]
            console.suggest(("export", path, *given, "--format", "pulseq", "--out", file))
    return ok


def _check_file(path: Path, options: ScannerOptions, asked: _Exposure, quiet: bool, json: bool) -> bool:
    """Check a whole Pulseq file, and print every rule and what a console minds beside them."""
    from trajdesign.pulseq.inspection import inspected
    from trajdesign.reporting import plots

    found = inspected(
        path, options.settings(), options.interpreter(),
        nerves=asked.nerves, nerve_limit=asked.nerve_limit, bands=asked.bands, band_limit=asked.band_limit,
    )  # fmt: skip
    if asked.out is not None:
        plots.save(plots.exposure_figure(found.exposure, found.bands), asked.out)
    scanner, nucleus = found.scanner, options.nucleus_of(found.scanner, found.told)
    if json:
        figure = None if asked.out is None else str(asked.out)
        lists = {"checks": [check.facts for check in found.checks], "preflight": [asdict(i) for i in found.preflight]}
        console.show_json("check", {"path": str(path), "ok": found.ok, **nucleus, "figure": figure, **lists})
    elif not quiet:
        console.show_checks(f"{path}, {scanner.nucleus} (gamma {scanner.gamma * 1e-6:.6g} MHz/T)", found.checks)
        console.show_preflight(found.preflight)
        if nucleus["nucleus_from"] == "assumed":
            console.say(ASSUMED)
        if found.ok:
            console.suggest(("scan", path, "--out", console.folder_of_scan(path)))
    return found.ok
