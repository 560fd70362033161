"""``trajdesign scan``."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import (
    Force,
    Json,
    Quiet,
    ResponseKind,
    ResponseSet,
    note_unsealed,
    refuse,
    response_table,
)
from trajdesign.errors import InputError
from trajdesign.files import untrusted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HDF5 = b"\x89HDF\r\n\x1a\n"


def scan(
    path: Annotated[Path, typer.Argument(metavar="FILE.seq", help="Pulseq file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    object: Annotated[str, typer.Option(help="phantom, or an image file.")] = "phantom",
    reconstruct: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run whose network reconstructs.", show_default=False)
    ] = None,
    n_coils: Annotated[int | None, typer.Option(min=1, help="Number of coils.", show_default=False)] = None,
    t2_star: Annotated[float | None, typer.Option(help="T2* of the object, s; no decay without.")] = None,
    t2: Annotated[float | None, typer.Option(help="T2 of the object, s, which no echo refocuses.")] = None,
    off_resonance: Annotated[str, typer.Option(help="Hz, or an .npy file of each pixel's (y, x) or (z, y, x).")] = "0",
    response: ResponseKind = None,
    set_: ResponseSet = None,
    noise: Annotated[
        float, typer.Option(min=0, help="Noise of a pixel of one coil, as part of the brightest pixel.")
    ] = 0.0,
    noise_correlation: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of the noise of neighbouring coils, below 1.", show_default="0")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the noise.", show_default="0")] = None,
    beats: Annotated[
        Path | None, typer.Option(help="Text file of R waves, s: a film's heart beats by them.", show_default=False)
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Scan an object with a written Pulseq file, reconstruct it, and compare with what was promised."""
    from trajdesign.errors import LimitError
    from trajdesign.measuring.virtual_scan import scan as scan_object

    if not noise:
        of_noise = {"--seed": seed, "--noise-correlation": noise_correlation}
        refuse(of_noise, "it is of the noise; give --noise too.")
    with untrusted.opened(path, untrusted.MOST_RAW) as (stream, _):
        if stream.read(len(_HDF5)) == _HDF5:
            raise InputError(f"{path} is raw data (HDF5, as ISMRMRD), no Pulseq file; a scan takes a .seq file.")
    facts = scan_object(
        path,
        out=out,
        object=object,
        run=reconstruct,
        n_coils=n_coils,
        t2_star=t2_star,
        t2=t2,
        off_resonance=read_off_resonance(off_resonance),
        response=response_table(response, set_),
        noise=noise,
        noise_correlation=noise_correlation or 0.0,
        seed=seed or 0,
        beats=beats,
        overwrite=force,
    ).facts
    if reconstruct is not None:
        note_unsealed(reconstruct)
    if json:
        console.show_json("scan", {"out": str(out), **facts})
    elif not quiet:
        console.show_scan(path, out, facts)
    if facts.get("departure"):
        raise LimitError(facts["departure"])


def read_off_resonance(text: str) -> "float | NDArray[np.floating]":
    """Return a number, Hz, or else the map in the ``.npy`` file of that name.

    Raises
    ------
    InputError
        If it is neither, or no real map ([z,] y, x).
    """
    from trajdesign.files.arrays import read_npy

    with suppress(ValueError):
        return float(text)
    try:
        offset = read_npy(text)
    except InputError as error:
        raise InputError(
            f"off_resonance {text!r} is neither a number in Hz nor a readable .npy file: {error}"
        ) from None
    if offset.ndim not in (2, 3) or offset.dtype.kind not in "fiu":
        raise InputError(f"{text} must hold one real array ([z,] y, x), Hz.")
    return offset.astype(float)
