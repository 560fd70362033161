"""What commands show on a terminal: tables, and how far they are."""

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from trajdesign.errors import Interrupted

if TYPE_CHECKING:
    from trajdesign.cells import Outcome
    from trajdesign.inspection import Check
    from trajdesign.optimize import Progress
    from trajdesign.study import Cell


def show(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[str] = ("",)) -> None:
    """Print a table whose columns are justified to the right, but for those of the headings `left`."""
    table = Table(title=title)
    for heading in headings:
        justify, overflow = ("left", "fold") if heading in left else ("right", "ellipsis")
        table.add_column(heading, justify=justify, overflow=overflow)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    say(table)


def show_list(title: str, rows: Iterable[Sequence[str]]) -> None:
    """Print a table without headings."""
    table = Table(title=title, title_justify="left", show_header=False, expand=False)
    for row in rows:
        table.add_row(*row)
    say(table)


def say(what: str | Table) -> None:
    """Print on standard output; names in files are printed as they are, not as markup."""
    Console(markup=False, emoji=False, highlight=False).print(what, soft_wrap=isinstance(what, str))


def show_results(metrics: dict[str, Any]) -> None:
    """Print what ``metrics.json`` holds."""
    stages = [stage for stage in ("fixed", "learned") if stage in metrics]
    rows = [(stage, *(format(metrics[stage][key], form) for key, form in _FORMS.items())) for stage in stages]
    if len(stages) == 2:
        gain = {key: metrics["learned"][key] - metrics["fixed"][key] for key in ("psnr", "ssim", "nrmse")}
        p = metrics["wilcoxon_p"]
        rows.append(("gain", f"{gain['psnr']:+.2f}", f"{gain['ssim']:+.4f}", f"{gain['nrmse']:+.4f}", ""))
        rows.append(("Wilcoxon p", f"{p['psnr']:.1e}", f"{p['ssim']:.1e}", "", ""))
    title = f"{metrics['name']}: test images (n = {metrics[stages[0]]['n']})"
    show(title, ("", "PSNR (dB)", "SSIM", "NRMSE", "training (s)"), rows)


_FORMS = {"psnr": ".2f", "ssim": ".4f", "nrmse": ".4f", "seconds": ".0f"}


def show_study(table: dict[str, Any], out: Path) -> None:
    """Print the means of a study's table."""
    rows = [
        (
            " ".join(str(value) for value in row["axes"].values()),
            str(row["n"]),
            f"{row['gain_over_fixed']['psnr']:+.2f}",
            f"{row['gain_over_fixed']['ssim']:+.4f}",
            str(row["n_significant"]),
            f"{row['gain_over_strong']['psnr']:+.2f}",
            str(row["violations"]),
        )
        for row in table["summary"]
    ]
    gains = ("gain (dB)", "gain SSIM", "better, p < 0.05", "over best fixed (dB)", "broken limits")
    show(f"{table['name']}: means over patterns and shots", ("", "cells", *gains), rows)
    say(f"Tables: {out / 'table.md'}, table.csv, table.json. Figures: {out / 'figures'}.")


def show_checks(path: Path, checks: Sequence["Check"]) -> None:
    """Print the verdicts on a Pulseq file."""
    from trajdesign.inspection import text

    rows = [
        (
            check.name,
            text(check.value, check.unit),
            "" if check.limit is None else f"{check.rule} {text(check.limit, check.unit)}",
            check.where,
            check.verdict.upper() if check.verdict == "broken" else check.verdict,
        )
        for check in checks
    ]
    show(str(path), ("rule", "worst", "allowed", "where", ""), rows, left=("rule", "allowed", "where", ""))
    n_broken = sum(check.verdict == "broken" for check in checks)
    say(
        f"{n_broken or 'No'} rule{'s' if n_broken != 1 else ''} broken. These are estimates: keeping them does not "
        "establish that the sequence is safe for a patient."
    )


@contextlib.contextmanager
def resumable(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield what prints a sentence; if a signal ends the block, add the command that goes on from there to its own."""

    def say(sentence: str) -> None:
        if not quiet:
            sys.stderr.write(f"trajdesign: {sentence}\n")
            sys.stderr.flush()

    try:
        yield say
    except Interrupted as end:
        words = [word for word in sys.argv[1:] if word not in ("--force", "--resume")]
        end.sentence = "" if quiet else f"{end.sentence} To go on:\n  {shlex.join(['trajdesign', *words, '--resume'])}"
        raise


@contextlib.contextmanager
def steps(*, quiet: bool) -> Iterator[Callable[["Progress"], None]]:
    """Yield a watcher of a training: a live bar on a terminal, a line every ten seconds elsewhere."""
    from rich import progress as bars

    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
        return
    if not console.is_terminal:
        yield _line_printer(10.0)
        return
    columns = ("{task.description:8}", bars.BarColumn(), bars.MofNCompleteColumn(), "{task.fields[facts]}")
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=console) as display:
        tasks: dict[str, Any] = {}

        def watch(p: "Progress") -> None:
            if p.stage not in tasks:
                tasks[p.stage] = display.add_task(p.stage, total=p.n_steps, facts="")
            display.update(tasks[p.stage], completed=p.step, facts=_facts(p))

        yield watch


@contextlib.contextmanager
def cells(n_cells: int, *, quiet: bool) -> Iterator[Callable[["Cell", "Outcome"], None]]:
    """Yield a watcher of a study: a live bar over its cells on a terminal, a line for each elsewhere."""
    from rich import progress as bars

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if quiet:
        yield lambda *_: None
        return
    columns = (bars.BarColumn(), bars.MofNCompleteColumn(), "{task.description}", bars.TimeRemainingColumn())
    with bars.Progress(*columns, console=console, disable=not console.is_terminal) as display:
        task = display.add_task("", total=n_cells)
        done = 0

        def watch(cell: "Cell", outcome: "Outcome") -> None:
            nonlocal done
            done += 1
            if console.is_terminal:
                display.update(task, completed=done, description=cell.name)
            if not console.is_terminal or outcome.status != "finished":
                console.print(f"{done}/{n_cells} {cell.name}: {_became(outcome)}", soft_wrap=True)

        yield watch


def _became(outcome: "Outcome") -> str:
    if outcome.metrics is None:
        return f"{outcome.status}: {outcome.sentence}"
    scores = outcome.metrics.get("learned") or outcome.metrics["fixed"]
    return f"PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}, {scores['seconds']:.0f} s"


def _line_printer(seconds: float) -> Callable[["Progress"], None]:
    last = time.monotonic()

    def watch(p: "Progress") -> None:
        nonlocal last
        if p.step == p.n_steps or time.monotonic() - last >= seconds:
            last = time.monotonic()
            sys.stderr.write(f"{p.stage} {p.step}/{p.n_steps} {_facts(p)}\n")
            sys.stderr.flush()

    return watch


def _facts(p: "Progress") -> str:
    psnr = "" if p.psnr != p.psnr else f"  val {p.psnr:.2f} dB"
    return f"loss {p.loss:.4f}{psnr}"
