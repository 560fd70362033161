"""``trajdesign compare``."""

from pathlib import Path
from typing import Annotated

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import Json, Quiet, note_unsealed


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders; RUN:fixed is the fixed start of one.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option(help="Figure to write.", show_default=False)] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Compare runs, image by image, with the first one on the same test set."""
    from trajdesign.learning import compare as comparison

    stages = comparison.open_stages(runs)
    rows = comparison.table(stages)
    note_unsealed(*dict.fromkeys(stage.folder.path for stage in stages))
    if out is not None:
        from trajdesign.reporting import report

        report.draw_comparison(stages, out)
    if json:
        console.show_json(
            "compare", {"figure": None if out is None else str(out), "runs": [row.tables() for row in rows]}
        )
    elif not quiet:
        first = stages[0]
        headings = ("", "PSNR (dB)", "SSIM", "NRMSE", "gain (dB, p)", "95 %", "gain SSIM (p)", "95 %", "limits")
        shown = [
            (
                row.stage.label,
                *(row.stage.result.spread(key) for key in ("psnr", "ssim", "nrmse")),
                *([""] * 4 if row is rows[0] else row.over_first.texts()),
                ", ".join([*(row.broken_limits or ["ok"]), *(f"{name} not checked" for name in row.not_checked)]),
            )
            for row in rows
        ]
        title = f"Test images ({console.images_of(first.result)}), compared with {first.label}"
        console.show(f"{title}; 95 % over {rows[-1].over_first.resampled}", headings, shown)
        console.suggest(("report", stages[-1].folder.path))
