"""The command line: the commands in their order, and how each ends."""

import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from trajdesign import errors
from trajdesign.cli import console
from trajdesign.cli.commands.check import check
from trajdesign.cli.commands.compare import compare
from trajdesign.cli.commands.config import config
from trajdesign.cli.commands.doctor import doctor
from trajdesign.cli.commands.evaluate import evaluate
from trajdesign.cli.commands.export import export
from trajdesign.cli.commands.list import list_
from trajdesign.cli.commands.optimize import optimize
from trajdesign.cli.commands.psf import psf
from trajdesign.cli.commands.reconstruct import reconstruct
from trajdesign.cli.commands.report import report
from trajdesign.cli.commands.scan import scan
from trajdesign.cli.commands.study import study
from trajdesign.runtime import interrupt

_NO_READER = 141  # 128 + SIGPIPE, as a shell says of a command whose output nobody reads

app = typer.Typer(
    name="trajdesign",
    help="Learn MRI k-space trajectories under a real scanner's physics, check them, and export them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (optimize, study, evaluate, compare, check, export, scan, reconstruct, psf, report):
    app.command()(command)
app.add_typer(config)
app.command("list")(list_)
app.command()(doctor)


def _print_version(asked: bool) -> None:
    if asked:
        console.say(f"trajdesign {version('trajdesign')}")
        raise typer.Exit


@app.callback()
def program(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Say what is common to all commands."""
    try:
        Path.cwd()
    except OSError:  # libraries that are loaded later end the process where it is gone
        raise errors.ResourceError("the working directory was removed; change to one that is there.") from None


def main() -> None:
    """Run the command line; every known error is one sentence on stderr and its exit code."""
    console.open_streams()
    try:
        with interrupt.Signals().caught():
            _run()
    except errors.Interrupted as end:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a further one ends what is left to do without a word
        if end.sentence:
            console.note(f"trajdesign: {end.sentence}")
        raise
    except Exception as error:
        known = errors.known(error)
        if known is None:
            raise
        console.note(f"trajdesign: {known}")
        sys.exit(known.exit_code)


def _run() -> None:
    """Run the command; where nobody reads what it prints, it ends without a word."""
    stdout, stderr = sys.stdout, sys.stderr
    try:
        app()
    except (SystemExit, BrokenPipeError) as end:
        # typer and rich both end a command with 1 where a pipe is closed, the first after it wrapped the streams
        sys.stdout, sys.stderr = stdout, stderr
        if not isinstance(end, BrokenPipeError) and not isinstance(end.__context__, BrokenPipeError):
            console.flush()
            raise
    except OSError:
        console.flush()  # says so if standard output is what cannot be written
        raise
    console.drop(sys.stdout)
    sys.exit(_NO_READER)


if __name__ == "__main__":
    main()
