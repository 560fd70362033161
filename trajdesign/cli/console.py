"""What commands show on a terminal: tables, and how far they are."""

import contextlib
import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table

from trajdesign.errors import Interrupted, ResourceError

if TYPE_CHECKING:
    from trajdesign.interfaces import Progress
    from trajdesign.learning.results import Results, StageResult
    from trajdesign.pulseq.preflight import Item
    from trajdesign.scanner import Finding
    from trajdesign.studies.study import Cell
    from trajdesign.studies.tables import StudyTable
    from trajdesign.studies.training import Outcome


def show(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[str] = ("",)) -> None:
    """Print a table whose columns are justified to the right, but for those of the headings `left`.

    Where no terminal shows it, it is plain lines, one a row, none of them cut.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not Console().is_terminal:
        say("\n".join([printable(title), *_lines(headings, cells, left)]))
        return
    table = Table(title=printable(title))
    for heading in headings:
        justify, overflow = ("left", "fold") if heading in left else ("right", "ellipsis")
        table.add_column(heading, justify=justify, overflow=overflow)  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*row)
    say(table)


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str]) -> Iterator[str]:
    """Yield the lines of a table, its columns two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        columns = zip(headings, row, widths, strict=True)
        cells = (cell.ljust(width) if heading in left else cell.rjust(width) for heading, cell, width in columns)
        yield "  ".join(cells).rstrip()


def show_list(title: str, rows: Iterable[Sequence[str]]) -> None:
    """Print a table without headings; a row whose first cell is empty belongs to the one above it."""
    if not Console().is_terminal:
        lines = (("  " if row[0] else "    ") + "  ".join(filter(None, row)) for row in rows)
        say("\n".join([title, *lines, ""]))
        return
    table = Table(title=title, title_justify="left", show_header=False, expand=False)
    for row in rows:
        table.add_row(*row)
    say(table)


def say(what: str | Table) -> None:
    """Print on standard output, or raise a `ResourceError`; names in files are printed as they are, not as markup."""
    if isinstance(what, str):
        what = "\n".join(map(printable, what.split("\n")))
    with _writing():
        Console(markup=False, emoji=False, highlight=False).print(what, soft_wrap=isinstance(what, str))


def note(text: str) -> None:
    """Print on standard error; that it cannot be written is no reason to end."""
    try:
        sys.stderr.write("\n".join(map(printable, text.split("\n"))) + "\n")
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)


def show_json(command: str, document: Mapping[str, Any]) -> None:
    """Print what a command found as one JSON document, whose key ``schema`` names the command and a version."""
    from trajdesign.learning.results import to_json

    say(to_json({"schema": f"trajdesign.{command}/1", "schema_version": 1, **document}))


def folder_of_scan(file: Path) -> Path:
    """Return where to suggest that a scan of a Pulseq file is written: beside it, and in no folder of a run."""
    folder = file.with_suffix("")
    return folder.with_name(f"{folder.name}_scan") if (folder / "trajectory.npz").exists() else folder


def suggest(*commands: Sequence[object]) -> None:
    """Print the commands that may come next, ready to be pasted."""
    lines = (f"  trajdesign {shlex.join(map(str, command))}" for command in commands)
    say("\n".join(["", "Next:", *lines]))


def printable(text: str) -> str:
    """Return a text in one line, without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def open_streams() -> None:
    """Give this process all three standard streams, so that no file that it opens gets the place of a closed one.

    What the encoding of the terminal lacks is printed as an escape. A terminal that claims to have no columns, as some
    consoles do, is taken for one of unknown width.
    """
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        stream = getattr(sys, name)
        if stream is None:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  (as long as the process)
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what is left to print, or raise a `ResourceError`."""
    with _writing():
        sys.stdout.flush()


def drop(stream: TextIO) -> None:
    """Let a stream go nowhere: what it keeps for a closed pipe or a full disk would fail again when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        drop(sys.stdout)
        raise ResourceError(f"cannot write standard output: {error.strerror}.") from None


def show_results(results: "Results") -> None:
    """Print what ``metrics.json`` holds."""
    show_scores(results, f"{results.name}: test images", "training (s)")
    if results.starts:
        tried = [start["val_psnr"] for start in results.starts]
        found = ", ".join(f"{psnr:.2f}" for psnr in tried)
        say(f"Of {len(tried)} starts (validation {found} dB) number {tried.index(max(tried)) + 1} went on.")
    limits = results.limits
    say(
        f"Limits: gradient {limits['max_gradient'] * 1e3:.2f} mT/m, slew {limits['max_slew']:.1f} T/m/s, "
        f"{'0 violations' if limits['ok'] else 'VIOLATED'}, smallest margin {limits['margin']:z.2%}."
    )
    if limits.get("not_checked"):  # older versions did not say
        say(f"Not looked at, because limits.constraints leaves them out: {', '.join(limits['not_checked'])}.")


def show_scores(results: "Results", title: str, took: str, *, with_interval: bool = False) -> None:
    """Print how good each stage is, and what was gained, with its interval or not.

    `took` is the heading of their seconds.
    """
    forms = {"psnr": ".2f", "ssim": ".4f", "nrmse": ".4f"}
    rows = [
        (stage, *(format(result.mean(key), form) for key, form in forms.items()), f"{result.seconds:.0f}")
        for stage, result in results.stages.items()
    ]
    if over := results.over_fixed:
        rows.append(("gain", *(format(over.gain[key], f"+{form}") for key, form in forms.items()), ""))
        rows.append(("Wilcoxon p", *(f"{over.wilcoxon_p[key]:.1e}" for key in ("psnr", "ssim")), "", ""))
        if with_interval:
            rows.append((f"95 % over {over.resampled}", *(over.interval(key) for key in ("psnr", "ssim")), "", ""))
    show(f"{title} ({images_of(results.last)})", ("", "PSNR (dB)", "SSIM", "NRMSE", took), rows)
    if results.last.motion is not None:
        of_stages = ", ".join(f"{stage} {r.motion:.4f}" for stage, r in results.stages.items() if r.motion is not None)
        say(f"NRMSE of what changes from frame to frame: {of_stages}.")


def images_of(result: "StageResult") -> str:
    """Return how many images a result is of, and how many, without signal or copies, were left out."""
    n_left_out = len(result.left_out)
    return f"n = {result.n}" + (f"; {n_left_out} left out (no signal, or copies)" if n_left_out else "")


def show_study(table: "StudyTable", out: Path) -> None:
    """Print the means of a study's table."""
    rows = [
        (
            " ".join(map(str, entry.axes.values())),
            str(entry.n),
            f"{entry.gain_over_fixed['psnr']:+.2f}",
            f"{entry.gain_over_fixed['ssim']:+.4f}",
            str(entry.n_significant),
            f"{entry.gain_over_strong['psnr']:+.2f}",
            str(entry.violations),
        )
        for entry in table.summary
    ]
    gains = ("gain (dB)", "gain SSIM", "better, p < 0.05", "over best fixed (dB)", "broken limits")
    show(f"{table.study.name}: means over patterns and shots", ("", "cells", *gains), rows)
    say(f"Tables: {out / 'table.md'}, table.csv, table.json. Figures: {out / 'figures'}.")


def show_scan(path: Path, out: Path, facts: Mapping[str, Any]) -> None:
    """Print what ``scan.json`` holds."""
    from trajdesign.measuring.virtual_scan import LABELS

    rows = [
        (label, f"{facts[name]['psnr']:.2f}", f"{facts[name]['ssim']:.4f}", f"{facts[name]['nrmse']:.4f}")
        for name, label in LABELS.items()
        if name in facts
    ]
    slices = facts["n_slices"]
    which = f" (slice {facts['slice']} of 0 to {slices - 1}, the worst)" if slices > 1 else ""
    show(f"{path}: virtual scan{which}, in {out}", ("image", "PSNR (dB)", "SSIM", "NRMSE"), rows, left=("image",))
    if "promised" in facts:
        say(
            f"The scan of the file differs from what the run makes of the same object on its own k by "
            f"{facts['nrmse_to_promised']:.2%} (NRMSE), and k in the file from the run's by at most "
            f"{facts['max_k_error_fov']:.2g}/FOV."
        )
    if facts.get("remark"):
        say(facts["remark"])


def show_checks(title: str, checks: Sequence["Finding"]) -> None:
    """Print the verdicts on a Pulseq file."""
    from trajdesign.pulseq.checks import text

    rows = [
        (c.name, text(c.value, c.unit), "" if c.limit is None else f"{c.rule} {text(c.limit, c.unit)}", c.where,
         c.verdict.upper() if c.verdict == "broken" else c.verdict)
        for c in checks
    ]  # fmt: skip
    show(title, ("rule", "worst", "allowed", "where", ""), rows, left=("rule", "allowed", "where", ""))
    n_broken = sum(check.verdict == "broken" for check in checks)
    say(
        f"{n_broken or 'No'} rule{'s' if n_broken != 1 else ''} broken. These are estimates: keeping them does not "
        "establish that the sequence is safe for a patient."
    )


def show_preflight(items: Sequence["Item"]) -> None:
    """Print what a console minds about a Pulseq file."""
    rows = [(item.name, *item.shown, item.mark, item.note) for item in items]
    show("What a console minds", ("what", "number", "limit", "", "note"), rows, left=("what", "", "note"))
    n_look = sum(item.mark == "look" for item in items)
    say(f"{n_look or 'Nothing'} to look at before the scan; docs/scan-day.md says what to do.")


@contextlib.contextmanager
def resumable(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield what prints a sentence; if a signal ends the block, add the command that goes on from there to its own."""
    try:
        yield lambda sentence: None if quiet else note(f"trajdesign: {sentence}")
    except Interrupted as end:
        words = [word for word in sys.argv[1:] if word not in ("--force", "--resume")]
        end.sentence = "" if quiet else f"{end.sentence} To go on:\n  {shlex.join(['trajdesign', *words, '--resume'])}"
        raise


@contextlib.contextmanager
def steps(*, quiet: bool, verbose: bool = False) -> Iterator[Callable[["Progress"], None]]:
    """Yield a watcher of a training: a live bar on a terminal, a line every ten seconds elsewhere.

    If it is `verbose`, it prints every validation on a line of its own.
    """
    from rich import progress as bars

    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
        return
    if verbose or not _is_lively(console):
        yield _line_printer(10.0, verbose=verbose)
        return
    columns = ("{task.description:8}", bars.BarColumn(), bars.MofNCompleteColumn(), "{task.fields[facts]}")
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=console) as display:
        tasks: dict[str, bars.TaskID] = {}

        def watch(p: "Progress") -> None:
            if p.stage not in tasks:
                tasks[p.stage] = display.add_task(p.stage, total=p.n_steps, facts="")
            display.update(tasks[p.stage], completed=p.step, facts=p.facts)

        yield watch


@contextlib.contextmanager
def images(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a watcher of a test: a live bar over its images on a terminal, nothing elsewhere."""
    from rich import progress as bars

    console = Console(stderr=True)
    columns = ("{task.description:8}", bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*columns, console=console, disable=quiet or not _is_lively(console)) as display:
        tasks: dict[str, bars.TaskID] = {}

        def watch(stage: str, done: int, n_images: int) -> None:
            if stage not in tasks:
                tasks[stage] = display.add_task(stage, total=n_images)
            display.update(tasks[stage], completed=done)

        yield watch


def _is_lively(console: Console) -> bool:
    """Whether lines that are printed already can change."""
    return console.is_terminal and not console.is_dumb_terminal


@contextlib.contextmanager
def cells(n_cells: int, *, quiet: bool) -> Iterator[Callable[["Cell", "Outcome"], None]]:
    """Yield a watcher of a study: a live bar over its cells on a terminal, a line for each elsewhere."""
    from rich import progress as bars

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if quiet:
        yield lambda *_: None
        return
    columns = (bars.BarColumn(), bars.MofNCompleteColumn(), "{task.description}", bars.TimeRemainingColumn())
    with bars.Progress(*columns, console=console, disable=not _is_lively(console)) as display:
        task = display.add_task("", total=n_cells)
        done = 0

        def watch(cell: "Cell", outcome: "Outcome") -> None:
            nonlocal done
            done += 1
            if _is_lively(console):
                display.update(task, completed=done, description=cell.name)
            if not _is_lively(console) or outcome.results is None or outcome.untested:
                console.print(f"{done}/{n_cells} {cell.name}: {_became(outcome)}", soft_wrap=True)

        yield watch


def _became(outcome: "Outcome") -> str:
    if outcome.results is None:
        return f"{outcome.status}: {outcome.sentence}"
    found = outcome.results.last
    left = f"; not tested in {', '.join(outcome.untested)}: {outcome.sentence}" if outcome.untested else ""
    return f"PSNR {found.psnr:.2f} dB, SSIM {found.ssim:.4f}, {found.seconds:.0f} s{left}"


def _line_printer(seconds: float, *, verbose: bool) -> Callable[["Progress"], None]:
    last = time.monotonic()

    def watch(p: "Progress") -> None:
        nonlocal last
        if (verbose and p.is_validation) or p.step == p.n_steps or time.monotonic() - last >= seconds:
            last = time.monotonic()
            note(str(p))

    return watch
