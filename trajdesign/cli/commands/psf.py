"""``trajdesign psf``."""

from pathlib import Path
from typing import Annotated

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import Foreign, Json, Quiet, RunPath, ScannerOptions, grouped, open_trajectory
from trajdesign.errors import ConfigError


@grouped
def psf(
    path: RunPath,
    compare: Annotated[Path | None, typer.Option(help="Another run folder or .npz, to set beside it.")] = None,
    out: Annotated[Path, typer.Option(help="Figure to write.")] = Path("psf.png"),
    quiet: Quiet = False,
    json: Json = False,
    *,
    foreign: Foreign,
) -> None:
    """Draw and measure the point spread function: width, peak and integrated side lobes."""
    from trajdesign.encoding.psf import psf as measure
    from trajdesign.learning.run_folder import is_complete
    from trajdesign.reporting import plots

    paths = [path] if compare is None else [compare, path]
    # of two, the options are for the one that needs them
    needy = paths if foreign == Foreign() else [p for p in paths if not is_complete(p)] or paths
    opened = [open_trajectory(p, foreign if p in needy else Foreign(), ScannerOptions())[0] for p in paths]
    n_axes = [trajectory.acquisition.n_dims for trajectory in opened]
    if len(set(n_axes)) > 1:
        raise ConfigError(f"{paths[0]} has {n_axes[0]} axes and {paths[1]} {n_axes[1]}; compare what has as many.")
    reports = [measure(trajectory) for trajectory in opened]
    plots.save(plots.psf_figure(*reports), out)
    if json:
        documents = [{"path": str(p), **r.to_dict()} for p, r in zip(paths, reports, strict=True)]
        console.show_json("psf", {"figure": str(out), "psf": documents})
    elif not quiet:
        rows = []
        for p, r in zip(paths, reports, strict=True):
            values = (r.fwhm_x * 1e3, r.fwhm_y * 1e3, r.peak_side_lobe, r.integrated_side_lobe)
            rows.append((str(p), *(f"{value:.2f}" for value in values)))
        headings = ("", "FWHM x (mm)", "FWHM y (mm)", "peak side lobe (dB)", "integrated side lobes (dB)")
        console.show(f"Point spread function, drawn in {out}", headings, rows)
