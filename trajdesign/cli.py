"""The command line: parse, call one function, print."""

import math
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trajdesign import console, errors, interrupt, lock
from trajdesign.errors import ConfigError

if TYPE_CHECKING:
    from trajdesign.scanner import Scanner
    from trajdesign.trajectory import Trajectory

app = typer.Typer(
    name="trajdesign",
    help="Learn MRI k-space trajectories under a real scanner's physics, check them, and export them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Profile = Annotated[
    str | None,
    typer.Option(help="Scanner of a .seq or foreign .npz file: siemens, ge, philips, multi, or a TOML file."),
]
RunPath = Annotated[Path, typer.Argument(help="Run folder or .npz file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no table.")]
Ignore = Annotated[
    list[str] | None,
    typer.Option(help="Limit of the image, not of the hardware, that need not hold: receiver, extent."),
]
KUnit = Annotated[str | None, typer.Option(help="Foreign .npz: unit of its k: 1/m, rad/m, 1/fov or normalized.")]
Dwell = Annotated[float | None, typer.Option(help="Foreign .npz: dwell time, s.")]
Fov = Annotated[str | None, typer.Option(help="Foreign .npz: field of view, m; one number or x,y[,z].")]
Matrix = Annotated[str | None, typer.Option(help="Foreign .npz: pixels; one number or x,y[,z].")]
MaxGradient = Annotated[float | None, typer.Option(help="Of that scanner, T/m.", show_default="50e-3")]
MaxSlew = Annotated[float | None, typer.Option(help="Of that scanner, T/m/s.", show_default="200")]


@app.command()
def optimize(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; the embedded default without one.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/first"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=V", help="Change one setting; repeatable.")
    ] = None,
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
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Learn a trajectory together with a reconstruction network, and compare it with its fixed start."""
    if resume and force:
        raise ConfigError("--resume goes on with a run and --force replaces it; give one of them.")
    lock.require_free(out)  # before the imports, which take seconds
    from trajdesign import config as config_module
    from trajdesign import runtime
    from trajdesign.run import RunFolder

    options = {"seed": seed, "training.precision": precision, "training.compile": compile_}
    given = [f"{key}={str(value).lower()}" for key, value in options.items() if value is not None]
    changes = [*(set_ or []), *given]
    goes_on_as_it_was = resume and config is None and not changes
    settings = RunFolder(out).config() if goes_on_as_it_was else config_module.load_config(config, changes)
    if devices > 1 and not runtime.is_launched():
        runtime.Ranks(size=devices).require_shares(settings.training.batch_size)
        runtime.local_device(device, 0, devices)
        raise typer.Exit(runtime.launch(["-m", "trajdesign", *sys.argv[1:]], devices))
    from trajdesign import report
    from trajdesign.optimize import optimize as run

    first = runtime.is_first()
    with console.resumable(quiet=not first) as say, console.steps(quiet=quiet or not first) as watch:
        metrics = run(
            settings, out, device=device, baseline=baseline, overwrite=force, resume=resume, report=watch, say=say
        )
    if not first:
        return
    report.draw(out)
    if quiet:
        return
    console.show_results(metrics)
    limits = metrics["limits"]
    console.say(
        f"Limits: gradient {limits['max_gradient'] * 1e3:.2f} mT/m, slew {limits['max_slew']:.1f} T/m/s, "
        f"{'0 violations' if limits['ok'] else 'VIOLATED'}, smallest margin {limits['margin']:.2%}.\n"
        f"Run folder: {out} (open {out / 'report.html'}; figures in {out / 'figures'})\n\n"
        f"Next:\n"
        f"  trajdesign check {quote(str(out))}\n"
        f"  trajdesign export {quote(str(out))} --format pulseq --out {quote(str(out / 'trajectory.seq'))}\n"
        f"  trajdesign psf {quote(str(out))} --compare {quote(str(out / 'initial.npz'))} "
        f"--out {quote(str(out / 'psf.png'))}"
    )


@app.command()
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
) -> None:
    """Train a grid of runs, learned and fixed, and collect their tables and figures."""
    from trajdesign import cells, report, study_table
    from trajdesign.study import load

    asked = load(config, set_ or [])
    own = cells.of_share(asked, cell)
    with console.resumable(quiet=False), console.cells(len(own), quiet=quiet) as watch:
        cells.train(asked, out, share=cell, jobs=jobs, resume=resume, device=device, report=watch)
    if own == asked.cells or all(cells.outcome(one, out).is_final for one in asked.cells):
        table = study_table.collect(asked, out)
        report.draw_study(asked, table["rows"], out)
        if not quiet:
            console.show_study(table, out)
    cells.require(own, out)


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="Run folder, .npz file or any .seq file.", show_default=False)],
    json: Json = False,
    ignore: Ignore = None,
    profile: Profile = None,
    max_gradient: MaxGradient = None,
    max_slew: MaxSlew = None,
    nerves: Annotated[
        str | None, typer.Option(help=".seq: nerve model, a coil (xrm, whole, ...) or a site's .asc file.")
    ] = None,
    nerve_limit: Annotated[float, typer.Option(help=".seq: part of its limit that is allowed.")] = 0.8,
    bands: Annotated[
        str | None, typer.Option(help=".seq: where the coil rings: CENTRE:WIDTH,... in Hz, or a site's .asc file.")
    ] = None,
    band_limit: Annotated[float, typer.Option(help=".seq: amplitude allowed there, T/m.")] = math.inf,
    out: Annotated[Path | None, typer.Option(help=".seq: figure to write.", show_default=False)] = None,
    k_unit: KUnit = None,
    dwell: Dwell = None,
    fov: Fov = None,
    matrix: Matrix = None,
) -> None:
    """Check every limit: the worst value, where it is, and the margin. Exit code 4 if one is broken."""
    from trajdesign import limits
    from trajdesign.run import to_json

    if path.suffix == ".seq":
        scanner = _scanner(profile, max_gradient, max_slew)
        _check_file(path, scanner, json, nerves, nerve_limit, bands, band_limit, out)
        return
    trajectory = _open(path, k_unit, dwell, fov, matrix, profile, max_gradient, max_slew)
    findings = limits.check(trajectory, limits.without(ignore or []))
    if json:
        typer.echo(to_json({"schema_version": 1, "path": str(path), **limits.summary(trajectory, findings)}))
    else:
        rows = [
            (f.name, f"{f.value:.5g}", f"{f.limit:.5g}", f.unit, f"{f.margin:.2%}", str(f.shot),
             f"{f.time * 1e3:.3f}", "ok" if f.ok else "BROKEN")
            for f in findings
        ]  # fmt: skip
        title = f"{trajectory.name}: limits ({trajectory.scanner.limit_norm} norm)"
        headings = ("limit", "worst", "allowed", "unit", "margin", "shot", "time (ms)", "")
        console.show(title, headings, rows, left=("limit", "unit", ""))
    if not all(f.ok for f in findings):
        raise typer.Exit(4)


@app.command()
def export(
    path: RunPath,
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False)],
    format: Annotated[
        str, typer.Option(help="An exporter: pulseq, neurospin, mrd, bart, csv, npz, or your own.")
    ] = "pulseq",
    pulseq_version: Annotated[str | None, typer.Option(help="Pulseq: 1.5.0 or 1.4.1.")] = None,
    sequence: Annotated[str | None, typer.Option(help="Pulseq: template, or a .py file of yours.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=V", help="Of the exporter, or sequence.OPTION=V; repeatable."),
    ] = None,
    force: Force = False,
    json: Json = False,
    ignore: Ignore = None,
    k_unit: KUnit = None,
    dwell: Dwell = None,
    fov: Fov = None,
    matrix: Matrix = None,
    profile: Profile = None,
    max_gradient: MaxGradient = None,
    max_slew: MaxSlew = None,
) -> None:
    """Write the trajectory for a scanner, and prove from the written file that it will be played."""
    from trajdesign import config as config_module
    from trajdesign.export import export as write
    from trajdesign.run import RunFolder, to_json

    trajectory = _open(path, k_unit, dwell, fov, matrix, profile, max_gradient, max_slew)
    options = config_module.parse_options(set_ or [])
    if pulseq_version is not None:
        options["pulseq_version"] = pulseq_version
    if sequence is not None:
        options["sequence"] = {**options.get("sequence", {}), "kind": sequence}
    response = RunFolder(path).config().response if path.is_dir() else None
    facts = write(trajectory, out, format=format, options=options, overwrite=force, ignore=ignore, response=response)
    if json:
        typer.echo(to_json({"schema_version": 1, **facts}))
        return
    rows = [
        (key, f"{value:.6g}" if isinstance(value, float) else str(value))
        for key, value in facts.items()
        if not isinstance(value, dict)
    ]
    console.show(f"{out}, as read back", ("fact", "value"), rows, left=("fact",))


@app.command()
def scan(
    path: Annotated[Path, typer.Argument(metavar="FILE.seq", help="Pulseq file, 2D.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    object: Annotated[str, typer.Option(help="phantom, or an image file.")] = "phantom",
    reconstruct: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run whose network reconstructs.", show_default=False)
    ] = None,
    n_coils: Annotated[int | None, typer.Option(min=1, help="Number of coils.", show_default=False)] = None,
    t2_star: Annotated[float | None, typer.Option(help="T2* of the object, s; no decay without.")] = None,
    off_resonance: Annotated[str, typer.Option(help="Hz, or an .npy file of each pixel's (y, x).")] = "0",
    noise: Annotated[
        float, typer.Option(min=0, help="Noise of a pixel of one coil, as part of the brightest pixel.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Scan an object with a written Pulseq file, reconstruct it, and compare with what was promised."""
    from trajdesign.run import to_json
    from trajdesign.scan import scan as scan_object
    from trajdesign.signal import read_off_resonance

    facts = scan_object(
        path,
        out=out,
        object=object,
        run=reconstruct,
        n_coils=n_coils,
        t2_star=t2_star,
        off_resonance=read_off_resonance(off_resonance),
        noise=noise,
        seed=seed,
        overwrite=force,
    ).facts
    if json:
        typer.echo(to_json({"schema_version": 1, "out": str(out), **facts}))
        return
    labels = {"image": "file", "promised": "promised by the run"}
    rows = [
        (label, f"{facts[name]['psnr']:.2f}", f"{facts[name]['ssim']:.4f}", f"{facts[name]['nrmse']:.4f}")
        for name, label in labels.items()
        if name in facts
    ]
    console.show(f"{path}: virtual scan, in {out}", ("image", "PSNR (dB)", "SSIM", "NRMSE"), rows, left=("image",))
    if reconstruct is not None:
        console.say(
            f"The image differs from the promised one by {facts['nrmse_to_promised']:.2%} (NRMSE), "
            f"k in the file from the run's by at most {facts['max_k_error_fov']:.2g}/FOV."
        )


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
    rows = []
    for p, r in zip(paths, reports, strict=True):
        values = (r.fwhm_x * 1e3, r.fwhm_y * 1e3, r.peak_side_lobe, r.integrated_side_lobe)
        rows.append((str(p), *(f"{value:.2f}" for value in values)))
    headings = ("", "FWHM x (mm)", "FWHM y (mm)", "peak side lobe (dB)", "integrated side lobes (dB)")
    console.show(f"Point spread function, drawn in {out}", headings, rows)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders; RUN:fixed is the fixed start of one.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option(help="Figure to write.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Compare runs, image by image, with the first one on the same test set."""
    from trajdesign import compare as comparison
    from trajdesign.run import to_json

    stages = comparison.open_stages(runs)
    rows = comparison.table(stages)
    if out is not None:
        from trajdesign import report

        report.draw_comparison(stages, out)
    if json:
        typer.echo(to_json({"schema_version": 1, "figure": None if out is None else str(out), "runs": rows}))
        return
    headings = ("", "PSNR (dB)", "SSIM", "NRMSE", "gain (dB, p)", "gain SSIM (p)", "limits")
    shown = [
        (
            row["run"],
            *(comparison.spread(row, key) for key in comparison.KEYS),
            *("" if row is rows[0] else comparison.gain(row["over_first"], key) for key in ("psnr", "ssim")),
            ", ".join(row["broken_limits"]) or "ok",
        )
        for row in rows
    ]
    console.show(f"Test images (n = {rows[0]['n']}), compared with {rows[0]['run']}", headings, shown)


@app.command("report")
def report_(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="File to write, .html or .pdf.", show_default="RUN/report.html")
    ] = None,
) -> None:
    """Write the report of a run: a page in which the shots play, or its figures as a PDF."""
    from trajdesign import report

    out = out or path / "report.html"
    report.write(path, out)
    console.say(f"Report: {out}")


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
    for kind, entries in catalogue.items():
        rows = [
            (name, entry["summary"], "\n".join(f"{key} = {value}" for key, value in entry["options"].items()))
            for name, entry in entries.items()
        ]
        console.show_list(kind, rows)
    measured = [
        (device, name, f"{1e3 * seconds:.2g} ms for a small image", "auto takes it" if name == fastest else "")
        for device, times in backends.items()
        for fastest in [nufft.fastest(torch.device(device))]
        for name, seconds in times.items()
    ]
    console.show_list("NUFFT backend", measured)


def _open(
    path: Path,
    k_unit: str | None,
    dwell: float | None,
    fov: str | None,
    matrix: str | None,
    profile: str | None = None,
    max_gradient: float | None = None,
    max_slew: float | None = None,
) -> "Trajectory":
    """Open a trajectory of ours, or with `k_unit` a foreign one, whose fit is reported on stderr."""
    from trajdesign import run, trajectory

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
        scanner=_scanner(profile, max_gradient, max_slew),
        matrix=None if matrix is None else _numbers("--matrix", matrix, int),
    )
    typer.echo(
        f"Fitted {path} onto the {foreign.scanner.gradient_raster * 1e6:g} us raster: "
        f"largest residual {largest:.3g}/FOV, rms {rms:.3g}/FOV.",
        err=True,
    )
    return foreign


def _scanner(profile: str | None, max_gradient: float | None, max_slew: float | None) -> "Scanner":
    """Return the scanner that a file without one is meant for."""
    from trajdesign.config import with_profile
    from trajdesign.scanner import Scanner

    given = {"profile": profile, "max_gradient": max_gradient, "max_slew": max_slew}
    return Scanner(**with_profile({key: value for key, value in given.items() if value is not None}))


def _check_file(
    path: Path,
    scanner: "Scanner",
    json: bool,
    nerves: str | None,
    nerve_limit: float,
    bands: str | None,
    band_limit: float,
    out: Path | None,
) -> None:
    """Check a whole Pulseq file, and print every rule."""
    from trajdesign import acoustics, inspection, plots, seqfile
    from trajdesign.exposure import expose
    from trajdesign.run import to_json
    from trajdesign.stimulation import nerve_model

    ringing = [] if bands is None else acoustics.parse_bands(bands)
    model = nerve_model(nerves or "whole")
    file = seqfile.read(path, signed=False)
    own = nerves is not None
    exposure = expose(
        file, scanner, model, nerve_limit=nerve_limit, is_own_coil=own, bands=ringing, band_limit=band_limit
    )
    checks = [*inspection.inspect(file, scanner), *exposure.checks]
    if out is not None:
        plots.save(plots.exposure_figure(exposure, ringing), out)
    broken = [check for check in checks if check.verdict == "broken"]
    if json:
        rules = [{**asdict(check), "verdict": check.verdict} for check in checks]
        document = {"path": str(path), "ok": not broken, "figure": None if out is None else str(out), "checks": rules}
        typer.echo(to_json({"schema_version": 1, **document}))
    else:
        console.show_checks(path, checks)
    if broken:
        raise typer.Exit(4)


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a number or a comma-separated list of numbers.") from None


def main() -> None:
    """Run the command line; every known error is one sentence on stderr and its exit code."""
    try:
        with interrupt.Signals().caught():
            app()
    except errors.Interrupted as end:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a further one ends what is left to do without a word
        if end.sentence:
            sys.stderr.write(f"trajdesign: {end.sentence}\n")
        raise
    except Exception as error:
        known = errors.known(error)
        if known is None:
            raise
        sys.stderr.write(f"trajdesign: {known}\n")
        sys.exit(known.exit_code)


if __name__ == "__main__":
    main()
