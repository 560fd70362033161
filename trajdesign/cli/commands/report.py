"""``trajdesign report``."""

from pathlib import Path
from typing import Annotated

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import Json, Quiet, note_unsealed


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="File to write, .html or .pdf.", show_default="RUN/report.html")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the report of a run: a page in which the shots play, or its figures as a PDF."""
    from trajdesign.reporting import report as reports

    out = out or path / "report.html"
    reports.write(path, out)
    note_unsealed(path)
    if json:
        console.show_json("report", {"path": str(path), "report": str(out)})
    elif not quiet:
        console.say(f"Report: {out}")
