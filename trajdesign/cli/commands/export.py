"""``trajdesign export``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import (
    Force,
    Foreign,
    Ignore,
    Json,
    Quiet,
    RunPath,
    ScannerOptions,
    grouped,
    names_of,
    open_trajectory,
)
from trajdesign.errors import ConfigError
from trajdesign.files import untrusted

if TYPE_CHECKING:
    from trajdesign.trajectory import Trajectory

_UNITS = {
    **dict.fromkeys(("te", "tr", "duration"), "s"),
    **dict.fromkeys(("max_k_error_fov", "rms_k_error_fov", "reader_difference_fov"), "1/FOV"),
    **{"max_gradient": "T/m", "max_slew": "T/m/s"},
}


@grouped
def export(
    path: RunPath,
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False)],
    format: Annotated[
        str,
        typer.Option(
            help="An exporter: pulseq, neurospin, mrd, bart, csv, npz, or your own.",
            autocompletion=names_of("exporter"),
        ),
    ] = "pulseq",
    pulseq_version: Annotated[
        str | None, typer.Option(help="Pulseq: 1.5.0, 1.4.1, or 1.5.1 (turned shots share shapes).")
    ] = None,
    sequence: Annotated[
        str | None,
        typer.Option(help="Pulseq: template, or a .py file of yours.", autocompletion=names_of("sequence")),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=V", help="Of the exporter, or sequence.OPTION=V; repeatable."),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
    ignore: Ignore = None,
    *,
    foreign: Foreign,
    scanner: ScannerOptions,
) -> None:
    """Write the trajectory for a scanner, and prove from the written file that it will be played."""
    from trajdesign.exporting.proof import export as write
    from trajdesign.learning.run_folder import RunFolder

    trajectory, found = open_trajectory(path, foreign, scanner)
    nucleus = scanner.nucleus_of(trajectory.scanner, None if found is None else found.nucleus)
    if nucleus["nucleus_from"] == "assumed":  # the limits depend on it, and what is written would say it as a fact
        raise ConfigError(f"{path} does not say its nucleus; give it, as --nucleus 1H or --nucleus 23Na.")
    config = RunFolder(path).config() if path.is_dir() else None
    facts = write(
        trajectory,
        out,
        format=format,
        options=_options(set_ or [], pulseq_version, sequence),
        overwrite=force,
        ignore=ignore,
        response=None if config is None else config.response,
        constraints=None if config is None else config.limits.tables,
        run=None if config is None else path,
    )
    if json:
        console.show_json("export", {**facts, **nucleus})
    elif not quiet:
        _show(path, out, trajectory, facts, scanner.profile)


def _options(settings: list[str], pulseq_version: str | None, sequence: str | None) -> dict[str, Any]:
    """Return the options of the exporter."""
    from trajdesign.config import toml

    options = toml.parse_options(settings)
    if pulseq_version is not None:
        options["pulseq_version"] = pulseq_version
    if sequence is not None:
        options["sequence"] = {**options.get("sequence", {}), "kind": sequence}
    return options


def _show(path: Path, out: Path, trajectory: "Trajectory", facts: Mapping[str, Any], profile: str | None) -> None:
    """Print what was read back of a file that was written."""
    from trajdesign.config import models

    rows = [
        (key, f"{value:.6g}" if isinstance(value, float) else str(value), _UNITS.get(key, ""))
        for key, value in facts.items()
        if not isinstance(value, dict) and key != "remark"
    ]
    console.show(f"{out}, as read back", ("fact", "value", "unit"), rows, left=("fact", "unit"))
    if "remark" in facts:
        console.say(facts["remark"])
    if untrusted.ending(out) == ".seq":
        by_its_run = ("--reconstruct", path) if path.is_dir() else ()
        check = "check", out, *models.options_of(trajectory.scanner, profile)
        scan = "scan", out, *by_its_run, "--out", console.folder_of_scan(out)
        is_scanned = facts.get("n_partitions", 4) >= 4  # stacks of fewer are not
        console.suggest(check, *([scan] if is_scanned else []))
