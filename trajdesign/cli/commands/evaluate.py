"""``trajdesign evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import Device, Force, Json, Quiet, Set, note_unsealed


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; nothing without.", show_default=False)] = None,
    stage: Annotated[
        str | None, typer.Option(help="Only this one: fixed or learned.", show_default="all that were trained")
    ] = None,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Test a finished run on other data, as --set 'data.test=["other/*.nii.gz"]', and train nothing."""
    from trajdesign.learning import progress
    from trajdesign.reporting.evaluate import evaluate as of_run

    note_unsealed(run)
    with console.images(quiet=quiet) as watch:
        found = of_run(
            run, set_ or [], out=out, stage=stage, device=device, overwrite=force, watch=watch,
            say=lambda sentence: console.note(f"trajdesign: {sentence}"), quiet=quiet,
        )  # fmt: skip
    if json:
        console.show_json("evaluate", {"out": None if out is None else str(out), **found.tables()})
    elif not quiet:
        n_images = progress.count(found.test, found.config)
        console.show_scores(found.results, f"{run}: {n_images}", "test (s)", with_interval=True)
        if out is not None:
            console.say(f"Evaluation: {out} (evaluation.json, reconstruction.png)")
        console.suggest(("export", run, "--format", "pulseq", "--out", run / "trajectory.seq"))
