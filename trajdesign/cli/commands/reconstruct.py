"""``trajdesign reconstruct``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import (
    Force,
    Json,
    Options,
    Quiet,
    ResponseKind,
    ResponseSet,
    grouped,
    note_unsealed,
    response_table,
)
from trajdesign.errors import ConfigError

if TYPE_CHECKING:
    from trajdesign.reconstruction.measured import Facts

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Known(Options):
    """What tells where in k-space the samples lie: a run, the file that was played, k, or numbers for a file's own."""

    run: Annotated[Path | None, typer.Option(help="Run whose network reconstructs.", show_default=False)] = None
    seq: Annotated[
        Path | None,
        typer.Option(metavar="FILE.seq", help="Pulseq file that was played.", show_default="the one in the run folder"),
    ] = None
    k: Annotated[
        Path | None,
        typer.Option(metavar="FILE_k.npz", help="Without both: k as an export wrote it.", show_default=False),
    ] = None
    matrix: Annotated[
        str | None,
        typer.Option(metavar="NX,NY", help="Pixels, for the file's own k.", show_default="what its header says"),
    ] = None
    fov: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="Field of view for the file's own k, m.", show_default="what its header says"),
    ] = None
    stage: Annotated[
        str | None, typer.Option(help="Of the run: fixed or learned.", show_default="what was trained last")
    ] = None

    def grid(self) -> tuple[list[int] | None, list[float] | None]:
        """Return the pixels and the field of view, m; None for what is not given."""
        matrix = None if self.matrix is None else _two("matrix", self.matrix, "of pixels, as 128,128", int)
        return matrix, None if self.fov is None else _two("fov", self.fov, "in m, as 0.22,0.22", float)


@dataclass(frozen=True)
class View(Options):
    """Which part of space is to be shown."""

    shift: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="Where the image's centre lies on x and y, m.", show_default="none"),
    ] = None
    rotate: Annotated[float, typer.Option(metavar="DEG", help="Turn the image so far from x towards y.")] = 0.0

    def centre(self) -> list[float]:
        """Return where the image's centre lies, m."""
        return [0.0, 0.0] if self.shift is None else _two("shift", self.shift, "in m, as 0.02,-0.01", float)


@dataclass(frozen=True)
class Maps(Options):
    """What coil maps are made of."""

    calibration: Annotated[
        Path | None,
        typer.Option(metavar="RAW", help="Raw data of a calibration scan.", show_default="the one in RAW"),
    ] = None
    calibration_seq: Annotated[
        Path | None,
        typer.Option(metavar="FILE.seq", help="Pulseq file of the calibration.", show_default="a Cartesian array"),
    ] = None
    coil_maps: Annotated[
        str | None,
        typer.Option(
            help="Of CG-SENSE: self, or of a calibration prescan or espirit.", show_default="as in the run's training"
        ),
    ] = None


@grouped
def reconstruct(
    raw: Annotated[
        Path,
        typer.Argument(
            metavar="RAW", help="Siemens .dat, ISMRMRD .h5 or .mrd, .npy, .npz or BART .cfl.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    *,
    known: Known,
    response: ResponseKind = None,
    set_: ResponseSet = None,
    delay: Annotated[
        str | None,
        typer.Option(help="By which gradients act later than told: auto, or of each axis, s.", show_default="none"),
    ] = None,
    view: View,
    noise: Annotated[
        Path | None,
        typer.Option(metavar="RAW", help="Raw data of a noise scan.", show_default="the one in RAW"),
    ] = None,
    coils: Annotated[
        int | None, typer.Option(min=1, help="Virtual coils to compress to.", show_default="all that measured")
    ] = None,
    maps: Maps,
    off_resonance: Annotated[
        str | None,
        typer.Option(metavar="FILE.npy", help="Of each pixel, (y, x) or of slices, Hz, or auto.", show_default="none"),
    ] = None,
    beats: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Sort a film's shots by R waves (s), or stamps.", show_default="none"),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Reconstruct what a scanner measured, and tell whether the image explains the data."""
    from trajdesign.measuring.reconstruct import reconstruct as of_raw

    late = None if delay is None else "auto" if delay == "auto" else _seconds(delay)
    table, centre, (matrix, fov) = response_table(response, set_), view.centre(), known.grid()
    facts = of_raw(
        raw, out=out, run=known.run, seq=known.seq, k=known.k, matrix=matrix, fov=fov, stage=known.stage,
        response=table, delay=late, shift=centre, rotate=view.rotate, noise=noise, coils=coils,
        calibration=maps.calibration, calibration_seq=maps.calibration_seq, coil_maps=maps.coil_maps,
        off_resonance=off_resonance, beats=beats, overwrite=force,
    ).facts  # fmt: skip
    if known.run is not None:
        note_unsealed(known.run)
    if json:
        console.show_json("reconstruct", {"out": str(out), **facts.tables()})
    elif not quiet:
        _show(raw, out, facts)
    for warning in facts.warnings:
        console.note(f"trajdesign: {raw}: {warning}")


def _seconds(text: str) -> list[float]:
    """Return a delay for each axis; one number serves all."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--delay is {text!r}; it is auto, or numbers in s, one or one for each axis, as 2e-6 or 2e-6,3e-6."
        ) from None


def _two(option: str, text: str, which: str, kind: Callable[[str], _Number]) -> list[_Number]:
    """Return two numbers of an option; `which` says what they are."""
    try:
        x, y = (kind(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"--{option} is {text!r}; it is two numbers {which}.") from None
    return [x, y]


def _show(raw: Path, out: Path, facts: "Facts") -> None:
    """Print what ``reconstruct.json`` holds."""
    from trajdesign.reconstruction.measured import LABELS, by_axes, by_beats

    rows = [
        (LABELS[name], f"{found['total']:.2%}", f"{facts.promised[name]:.2%}" if name in facts.promised else "")
        for name, found in facts.residual.items()
    ]
    console.show(f"{raw}: images in {out}", ("image", "unexplained", "of its own data"), rows, left=("image",))
    averages = f", {facts.n_averages} averages" if facts.n_averages > 1 else ""
    fewer = f" compressed to {facts.n_virtual_coils}" if facts.n_virtual_coils < facts.n_coils else ""
    console.say(
        f"{facts.n_frames} x {facts.n_slices} images of {' x '.join(map(str, facts.matrix))}, "
        f"{facts.n_coils} coils{fewer}, {facts.n_shots} shots of {facts.n_samples} samples{averages}; "
        f"noise is {facts.noise:.2%} of the data{', prewhitened' if facts.prewhitened else ''}."
    )
    if facts.gating:
        console.say(f"The shots are sorted by {by_beats(facts.gating)}.")
    maps = facts.coil_maps
    if maps["calibration"] is not None:
        console.say(
            f"Coil maps of CG-SENSE are from {maps['lines']} lines of {maps['calibration']} ({maps['cg_sense']})."
        )
    if facts.response:
        console.say(f"The gradient system's response is {facts.response['kind']}.")
    if facts.delay["by"] is not None:
        console.say(f"Gradients act {by_axes(facts.delay, 'us')} later than told, by {facts.delay['by']}.")
    console.say(f"Look at {out / 'reconstruction.html'}.")
    if not facts.warnings:
        console.say("Nothing in the data speaks against k, the shots or the coils; not every fault of them shows.")
    if facts.run is None:
        console.suggest(("reconstruct", raw, "--run", "RUN", "--out", f"{out}_network"))
    else:
        console.suggest(("report", facts.run))
