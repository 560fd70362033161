"""``trajdesign study``."""

from pathlib import Path
from typing import Annotated

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import Device, Json, Quiet, note_unsealed


def study(
    config: Annotated[Path, typer.Argument(help="TOML file of a study.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=V", help="Change one setting of the base, or grid.AXIS; repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells to train at a time, each in a process of its own.")] = 1,
    cell: Annotated[
        str, typer.Option(metavar="I/N", help="Train only every N-th cell, from the I-th on; others do the rest.")
    ] = "1/1",
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished cells, and go on with the others.")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a grid of runs, learned and fixed, and collect their tables and figures."""
    from trajdesign.reporting import report
    from trajdesign.studies import tables, training
    from trajdesign.studies.study import load

    asked = load(config, set_ or [])
    own = training.of_share(asked, cell)
    with console.resumable(quiet=False), console.cells(len(own), quiet=quiet) as watch:
        training.train(asked, out, share=cell, jobs=jobs, resume=resume, device=device, report=watch)
    if own == asked.cells or all(training.outcome(one, out).is_final for one in asked.cells):
        table = tables.collect(asked, out)
        note_unsealed(*(training.folder(one, out).path for one in asked.cells))
        report.draw_study(table, out)
        if json:
            console.show_json("study", {"out": str(out), **table.tables()})
        elif not quiet:
            console.show_study(table, out)
    elif json:
        outcomes = {one.name: training.outcome(one, out).status for one in asked.cells}
        console.show_json("study", {"out": str(out), "cells": outcomes})
    training.require(own, out)
