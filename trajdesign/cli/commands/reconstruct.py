"""``trajdesign reconstruct``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import Force, Json, Quiet, note_unsealed
from trajdesign.errors import ConfigError


def reconstruct(
    raw: Annotated[
        Path,
        typer.Argument(
            metavar="RAW", help="Siemens .dat, ISMRMRD .h5 or .mrd, .npy, .npz or BART .cfl.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    run: Annotated[Path | None, typer.Option(help="Run whose network reconstructs.", show_default=False)] = None,
    seq: Annotated[
        Path | None,
        typer.Option(metavar="FILE.seq", help="Pulseq file that was played.", show_default="the one in the run folder"),
    ] = None,
    k: Annotated[
        Path | None,
        typer.Option(metavar="FILE_k.npz", help="Without both: k as an export wrote it.", show_default=False),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Of the run: fixed or learned.", show_default="what was trained last")
    ] = None,
    delay: Annotated[
        str | None,
        typer.Option(help="By which gradients act later than told: auto, or of x and y, s.", show_default="none"),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(metavar="RAW", help="Raw data of a noise scan.", show_default="the one in RAW"),
    ] = None,
    coils: Annotated[
        int | None, typer.Option(min=1, help="Virtual coils to compress to.", show_default="all that measured")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="RAW", help="Raw data of a calibration scan.", show_default="the one in RAW"),
    ] = None,
    calibration_seq: Annotated[
        Path | None,
        typer.Option(metavar="FILE.seq", help="Pulseq file of the calibration.", show_default="a Cartesian array"),
    ] = None,
    coil_maps: Annotated[
        str | None,
        typer.Option(
            help="Of CG-SENSE: self, or of a calibration prescan or espirit.", show_default="as in the run's training"
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Reconstruct what a scanner measured, and tell whether the image explains the data."""
    from trajdesign.measuring.reconstruct import reconstruct as of_raw

    late = None if delay is None else "auto" if delay == "auto" else _seconds(delay)
    facts = of_raw(
        raw,
        out=out,
        run=run,
        seq=seq,
        k=k,
        stage=stage,
        delay=late,
        noise=noise,
        coils=coils,
        calibration=calibration,
        calibration_seq=calibration_seq,
        coil_maps=coil_maps,
        overwrite=force,
    ).facts
    if run is not None:
        note_unsealed(run)
    if json:
        console.show_json("reconstruct", {"out": str(out), **facts})
    elif not quiet:
        _show(raw, out, facts)
    for warning in facts["warnings"]:
        console.note(f"trajdesign: {raw}: {warning}")


def _seconds(text: str) -> list[float]:
    """Return a delay for each axis; one number serves both."""
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--delay is {text!r}; it is auto, or one or two numbers in s, as 2e-6 or 2e-6,3e-6."
        ) from None
    return numbers * 2 if len(numbers) == 1 else numbers


def _show(raw: Path, out: Path, facts: dict[str, Any]) -> None:
    """Print what ``reconstruct.json`` holds."""
    from trajdesign.measuring.solving import LABELS

    rows = [
        (LABELS[name], f"{found['total']:.2%}", f"{facts['promised'][name]:.2%}" if name in facts["promised"] else "")
        for name, found in facts["residual"].items()
    ]
    console.show(f"{raw}: images in {out}", ("image", "unexplained", "of its own data"), rows, left=("image",))
    averages = f", {facts['n_averages']} averages" if facts["n_averages"] > 1 else ""
    fewer = f" compressed to {facts['n_virtual_coils']}" if facts["n_virtual_coils"] < facts["n_coils"] else ""
    console.say(
        f"{facts['n_frames']} x {facts['n_slices']} images of {' x '.join(map(str, facts['matrix']))}, "
        f"{facts['n_coils']} coils{fewer}, {facts['n_shots']} shots of {facts['n_samples']} samples{averages}; "
        f"noise is {facts['noise']:.2%} of the data{', prewhitened' if facts['prewhitened'] else ''}."
    )
    maps = facts["coil_maps"]
    if maps["calibration"] is not None:
        console.say(
            f"Coil maps of CG-SENSE are from {maps['lines']} lines of {maps['calibration']} ({maps['cg_sense']})."
        )
    if facts["delay"]["by"] is not None:
        x, y = (1e6 * late for late in facts["delay"]["axes"])
        console.say(f"Gradients act {x:.2f} us (x) and {y:.2f} us (y) later than told, by {facts['delay']['by']}.")
    if not facts["warnings"]:
        console.say("Nothing in the data speaks against k, the shots or the coils; not every fault of them shows.")
    if facts["run"] is None:
        console.suggest(("reconstruct", raw, "--run", "RUN", "--out", f"{out}_network"))
    else:
        console.suggest(("report", facts["run"]))
