"""``trajdesign optimize``."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import Device, Force, Json, Quiet, Set, names_of
from trajdesign.errors import ConfigError
from trajdesign.files import lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from trajdesign.config.models import Config
    from trajdesign.interfaces import Progress
    from trajdesign.learning.results import Results

    Watcher = Callable[[Progress], None]


def optimize(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; the embedded default without one.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/first"),
    set_: Set = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices of this machine to share the images of a step.")] = 1,
    precision: Annotated[str | None, typer.Option(help="Of the network: float32 or bfloat16.")] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the network.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    baseline: Annotated[bool, typer.Option(help="Also train the fixed initial trajectory.")] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; other settings need not be given again.")
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Log every step: tensorboard, or module:function; repeatable.", autocompletion=names_of("logger")
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say where it computes, and print every validation on a line.")
    ] = False,
    json: Json = False,
) -> None:
    """Learn a trajectory together with a reconstruction network, and compare it with its fixed start."""
    if resume and force:
        raise ConfigError("--resume goes on with a run and --force replaces it; give one of them.")
    if quiet and verbose:
        raise ConfigError("--quiet says nothing and --verbose more; give one of them.")
    lock.require_free(out)  # before the imports, which take seconds
    options = {"seed": seed, "training.precision": precision, "training.compile": compile_}
    settings = _settings(config, set_ or [], options, out, resume=resume)
    first = _is_first(settings, device, devices)
    from trajdesign.config import plugins
    from trajdesign.learning.optimize import optimize as run

    loggers = [plugins.find("logger", name)(out) for name in log or []] if first else []
    if verbose and first:
        console.note(_where(device))
    watching = [console.steps(quiet=quiet or not first, verbose=verbose), *loggers]
    with console.resumable(quiet=not first) as say, _together(watching) as watch:
        results = run(
            settings, out, device=device, baseline=baseline, overwrite=force, resume=resume, report=watch, say=say,
            quiet=quiet,
        )  # fmt: skip
    if first:
        _show(out, results, quiet=quiet, json=json)


def _settings(config: Path | None, set_: list[str], options: dict[str, Any], out: Path, *, resume: bool) -> "Config":
    """Return the config that is asked for; that of the run itself where it goes on as it was."""
    from trajdesign.config import models as config_module
    from trajdesign.learning.run_folder import RunFolder

    changes = [*set_, *(f"{key}={str(value).lower()}" for key, value in options.items() if value is not None)]
    goes_on_as_it_was = resume and config is None and not changes
    return RunFolder(out).config() if goes_on_as_it_was else config_module.load_config(config, changes)


def _is_first(settings: "Config", device: str, devices: int) -> bool:
    """Return whether this process is the first rank, or alone; one that is to be several ends with them."""
    from trajdesign.runtime import processes

    if devices > 1 and not processes.is_launched():
        processes.Ranks(size=devices).require_shares(settings.training.batch_size)
        processes.local_device(device, 0, devices)
        raise typer.Exit(processes.launch(["-m", "trajdesign", *sys.argv[1:]], devices))
    return processes.is_first()


def _show(out: Path, results: "Results", *, quiet: bool, json: bool) -> None:
    """Draw the figures of a run, and print its results."""
    from trajdesign.reporting import report

    if not quiet:
        console.note(f"trajdesign: Drawing the figures and {out / 'report.html'} ...")
    report.draw(out)
    if json:
        console.show_json("optimize", {"out": str(out), "report": str(out / "report.html"), **results.tables()})
    elif not quiet:
        console.show_results(results)
        console.say(f"Run folder: {out} (open {out / 'report.html'}; figures in {out / 'figures'})")
        console.suggest(
            ("check", out),
            ("export", out, "--format", "pulseq", "--out", out / "trajectory.seq"),
            ("psf", out, "--compare", out / "initial.npz", "--out", out / "psf.png"),
        )


@contextlib.contextmanager
def _together(contexts: list["AbstractContextManager[Watcher]"]) -> "Iterator[Watcher]":
    """Yield what calls all that they yield."""
    with contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(context) for context in contexts]

        def watch(progress: "Progress") -> None:
            for watcher in watchers:
                watcher(progress)

        yield watch


def _where(name: str) -> str:
    """Return a sentence on where it computes."""
    import torch

    from trajdesign.encoding import nufft
    from trajdesign.runtime import processes

    device = processes.torch_device(name)
    return f"Computing on {device} with {torch.get_num_threads()} threads, NUFFTs by {nufft.fastest(device)}."
