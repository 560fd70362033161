"""The command line: parse, call one function, print."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trajdesign.errors import ConfigError, TrajdesignError

if TYPE_CHECKING:
    from trajdesign.optimize import Progress
    from trajdesign.trajectory import Trajectory

app = typer.Typer(
    name="trajdesign",
    help="Learn MRI k-space trajectories under a real scanner's physics, check them, and export them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunPath = Annotated[Path, typer.Argument(help="Run folder or .npz file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
Ignore = Annotated[
    list[str] | None,
    typer.Option(help="Limit of the image, not of the hardware, that need not hold: receiver, extent."),
]
KUnit = Annotated[str | None, typer.Option(help="Foreign .npz: unit of its k: 1/m, rad/m, 1/fov or normalized.")]
Dwell = Annotated[float | None, typer.Option(help="Foreign .npz: dwell time, s.")]
Fov = Annotated[str | None, typer.Option(help="Foreign .npz: field of view, m; one number or x,y[,z].")]
Matrix = Annotated[str | None, typer.Option(help="Foreign .npz: pixels; one number or x,y[,z].")]
MaxGradient = Annotated[float, typer.Option(help="Foreign .npz: largest gradient, T/m.")]
MaxSlew = Annotated[float, typer.Option(help="Foreign .npz: largest slew rate, T/m/s.")]


@app.command()
def optimize(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; the embedded default without one.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/first"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=V", help="Change one setting; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices of this machine to share the images of a step.")] = 1,
    precision: Annotated[str | None, typer.Option(help="Of the network: float32 or bfloat16.")] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the network.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    baseline: Annotated[bool, typer.Option(help="Also train the fixed initial trajectory.")] = True,
    force: Force = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
) -> None:
    """Learn a trajectory together with a reconstruction network, and compare it with its fixed start."""
    from trajdesign import config as config_module
    from trajdesign import runtime

    options = {"seed": seed, "training.precision": precision, "training.compile": compile_}
    given = [f"{key}={str(value).lower()}" for key, value in options.items() if value is not None]
    settings = config_module.load_config(config, [*(set_ or []), *given])
    if devices > 1 and not runtime.is_launched():
        runtime.Ranks(size=devices).require_shares(settings.training.batch_size)
        runtime.local_device(device, 0, devices)
        raise typer.Exit(runtime.launch(["-m", "trajdesign", *sys.argv[1:]], devices))
    from trajdesign import report
    from trajdesign.optimize import optimize as run

    first = runtime.is_first()
    with _progress(quiet or not first) as watch:
        metrics = run(settings, out, device=device, baseline=baseline, overwrite=force, report=watch)
    if not first:
        return
    report.draw(out)
    if quiet:
        return
    console = _console()
    console.print(_results_table(metrics))
    limits = metrics["limits"]
    console.print(
        f"Limits: gradient {limits['max_gradient'] * 1e3:.2f} mT/m, slew {limits['max_slew']:.1f} T/m/s, "
        f"{'0 violations' if limits['ok'] else 'VIOLATED'}, smallest margin {limits['margin']:.2%}.\n"
        f"Run folder: {out} (look at {out / 'figures'})\n\n"
        f"Next:\n"
        f"  trajdesign check {quote(str(out))}\n"
        f"  trajdesign export {quote(str(out))} --format pulseq --out {quote(str(out / 'trajectory.seq'))}\n"
        f"  trajdesign psf {quote(str(out))} --compare {quote(str(out / 'initial.npz'))} "
        f"--out {quote(str(out / 'psf.png'))}",
        soft_wrap=True,
    )


@app.command()
def check(
    path: RunPath,
    json: Json = False,
    ignore: Ignore = None,
    k_unit: KUnit = None,
    dwell: Dwell = None,
    fov: Fov = None,
    matrix: Matrix = None,
    max_gradient: MaxGradient = 50e-3,
    max_slew: MaxSlew = 200.0,
) -> None:
    """Check every limit: the worst value, where it is, and the margin. Exit code 4 if one is broken."""
    from trajdesign import limits
    from trajdesign.run import to_json

    trajectory = _open(path, k_unit, dwell, fov, matrix, max_gradient, max_slew)
    findings = limits.check(trajectory, limits.without(ignore or []))
    if json:
        typer.echo(to_json({"schema_version": 1, "path": str(path), **limits.summary(trajectory, findings)}))
    else:
        table = Table(title=f"{trajectory.name}: limits ({trajectory.scanner.limit_norm} norm)")
        for heading in ("limit", "worst", "allowed", "unit", "margin", "shot", "time (ms)", ""):
            table.add_column(heading, justify="left" if heading in ("limit", "unit", "") else "right")
        for f in findings:
            values = (f"{f.value:.5g}", f"{f.limit:.5g}", f.unit, f"{f.margin:.2%}", str(f.shot))
            table.add_row(f.name, *values, f"{f.time * 1e3:.3f}", "ok" if f.ok else "BROKEN")
        _console().print(table)
    if not all(f.ok for f in findings):
        raise typer.Exit(4)


@app.command()
def export(
    path: RunPath,
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False)],
    format: Annotated[str, typer.Option(help="An exporter: pulseq, csv, npz, or your own.")] = "pulseq",
    pulseq_version: Annotated[str | None, typer.Option(help="Pulseq: 1.5.0 or 1.4.1.")] = None,
    sequence: Annotated[str | None, typer.Option(help="Pulseq: template, or a .py file of yours.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=V", help="Option of the exporter; repeatable."),
    ] = None,
    force: Force = False,
    json: Json = False,
    ignore: Ignore = None,
    k_unit: KUnit = None,
    dwell: Dwell = None,
    fov: Fov = None,
    matrix: Matrix = None,
    max_gradient: MaxGradient = 50e-3,
    max_slew: MaxSlew = 200.0,
) -> None:
    """Write the trajectory for a scanner, and prove from the written file that it will be played."""
    from trajdesign import config as config_module
    from trajdesign.export import export as write
    from trajdesign.run import to_json

    trajectory = _open(path, k_unit, dwell, fov, matrix, max_gradient, max_slew)
    options = config_module.parse_options(set_ or [])
    options |= {k: v for k, v in (("pulseq_version", pulseq_version), ("sequence", sequence)) if v is not None}
    facts = write(trajectory, out, format=format, options=options, overwrite=force, ignore=ignore)
    if json:
        typer.echo(to_json({"schema_version": 1, **facts}))
        return
    table = Table(title=f"{out}, as read back")
    table.add_column("fact")
    table.add_column("value", justify="right")
    for key, value in facts.items():
        if not isinstance(value, dict):
            table.add_row(key, f"{value:.6g}" if isinstance(value, float) else str(value))
    _console().print(table)


@app.command()
def psf(
    path: RunPath,
    compare: Annotated[Path | None, typer.Option(help="Another run folder or .npz, to set beside it.")] = None,
    out: Annotated[Path, typer.Option(help="Figure to write.")] = Path("psf.png"),
    json: Json = False,
    k_unit: KUnit = None,
    dwell: Dwell = None,
    fov: Fov = None,
    matrix: Matrix = None,
) -> None:
    """Draw and measure the point spread function: width, peak and integrated side lobes."""
    from trajdesign import plots
    from trajdesign.psf import psf as measure
    from trajdesign.run import to_json

    paths = [path] if compare is None else [compare, path]
    reports = [measure(_open(p, k_unit, dwell, fov, matrix)) for p in paths]
    plots.save(plots.psf_figure(*reports), out)
    if json:
        documents = [{"path": str(p), **r.to_dict()} for p, r in zip(paths, reports, strict=True)]
        typer.echo(to_json({"schema_version": 1, "figure": str(out), "psf": documents}))
        return
    table = Table(title=f"Point spread function, drawn in {out}")
    table.add_column("", overflow="fold")
    for heading in ("FWHM x (mm)", "FWHM y (mm)", "peak side lobe (dB)", "integrated side lobes (dB)"):
        table.add_column(heading, justify="right")
    for p, r in zip(paths, reports, strict=True):
        values = (r.fwhm_x * 1e3, r.fwhm_y * 1e3, r.peak_side_lobe, r.integrated_side_lobe)
        table.add_row(str(p), *(f"{value:.2f}" for value in values))
    _console().print(table)


@app.command("list")
def list_(json: Json = False) -> None:
    """Show every plug-in with its options and their defaults, and the NUFFT backends of the devices here."""
    import torch

    from trajdesign import nufft, plugins
    from trajdesign.run import to_json

    catalogue = plugins.catalogue()
    devices = [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]
    backends = {str(device): nufft.measured(device) for device in devices}
    if json:
        typer.echo(to_json({"schema_version": 1, **catalogue, "backend": backends}))
        return
    console = _console()
    for kind, entries in catalogue.items():
        table = Table(title=kind, title_justify="left", show_header=False, expand=False)
        for name, entry in entries.items():
            options = "\n".join(f"{key} = {value}" for key, value in entry["options"].items())
            table.add_row(name, entry["summary"], options)
        console.print(table)
    table = Table(title="NUFFT backend", title_justify="left", show_header=False, expand=False)
    for device, times in backends.items():
        for name, seconds in times.items():
            chosen = "auto takes it" if name == nufft.fastest(torch.device(device)) else ""
            table.add_row(device, name, f"{1e3 * seconds:.2g} ms for a small image", chosen)
    console.print(table)


def _open(
    path: Path,
    k_unit: str | None,
    dwell: float | None,
    fov: str | None,
    matrix: str | None,
    max_gradient: float = 50e-3,
    max_slew: float = 200.0,
) -> "Trajectory":
    """Open a trajectory of ours, or with `k_unit` a foreign one, whose fit is reported on stderr."""
    from trajdesign import run, trajectory
    from trajdesign.scanner import Scanner

    if k_unit is None:
        if dwell is not None or fov is not None:
            raise ConfigError("--dwell and --fov describe a foreign file; give its --k-unit too.")
        return run.load(path)
    if dwell is None or fov is None:
        raise ConfigError("--k-unit describes a foreign file; give its --dwell (s) and --fov (m) too.")
    foreign, (largest, rms) = trajectory.load_sampled(
        path,
        k_unit=k_unit,
        acquisition_fov=_numbers("--fov", fov, float),
        dwell=dwell,
        scanner=Scanner(max_gradient=max_gradient, max_slew=max_slew),
        matrix=None if matrix is None else _numbers("--matrix", matrix, int),
    )
    typer.echo(
        f"Fitted {path} onto the {foreign.scanner.gradient_raster * 1e6:g} us raster: "
        f"largest residual {largest:.3g}/FOV, rms {rms:.3g}/FOV.",
        err=True,
    )
    return foreign


def _console() -> Console:
    """Return a console that prints the names in files as they are, not as markup."""
    return Console(markup=False, emoji=False, highlight=False)


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a number or a comma-separated list of numbers.") from None


def _results_table(metrics: dict[str, Any]) -> Table:
    table = Table(title=f"{metrics['name']}: test images (n = {metrics['learned']['n']})")
    for heading in ("", "PSNR (dB)", "SSIM", "NRMSE", "training (s)"):
        table.add_column(heading, justify="left" if not heading else "right")
    for stage in ("fixed", "learned"):
        if stage in metrics:
            m = metrics[stage]
            table.add_row(stage, f"{m['psnr']:.2f}", f"{m['ssim']:.4f}", f"{m['nrmse']:.4f}", f"{m['seconds']:.0f}")
    if "fixed" in metrics:
        gain = {key: metrics["learned"][key] - metrics["fixed"][key] for key in ("psnr", "ssim", "nrmse")}
        table.add_row("gain", f"{gain['psnr']:+.2f}", f"{gain['ssim']:+.4f}", f"{gain['nrmse']:+.4f}", "")
        p = metrics["wilcoxon_p"]
        table.add_row("Wilcoxon p", f"{p['psnr']:.1e}", f"{p['ssim']:.1e}", "", "")
    return table


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[["Progress"], None]]:
    """Yield a watcher: a live bar on a terminal, a line every ten seconds elsewhere."""
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


def _line_printer(seconds: float) -> Callable[["Progress"], None]:
    last = time.monotonic()

    def watch(p: "Progress") -> None:
        nonlocal last
        if p.step == p.n_steps or time.monotonic() - last >= seconds:
            last = time.monotonic()
            typer.echo(f"{p.stage} {p.step}/{p.n_steps} {_facts(p)}", err=True)

    return watch


def _facts(p: "Progress") -> str:
    psnr = "" if p.psnr != p.psnr else f"  val {p.psnr:.2f} dB"
    return f"loss {p.loss:.4f}{psnr}"


def main() -> None:
    """Run the command line; every known error is one sentence on stderr and its exit code."""
    try:
        app()
    except TrajdesignError as error:
        sys.stderr.write(f"trajdesign: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        where = "" if error.filename is None else f" {error.filename}"
        sys.stderr.write(f"trajdesign: cannot use{where}: {error.strerror or error}.\n")
        sys.exit(6)
    except MemoryError:
        sys.stderr.write("trajdesign: out of memory; take a smaller batch, matrix or number of coils.\n")
        sys.exit(6)


if __name__ == "__main__":
    main()
