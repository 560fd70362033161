"""A trajectory from a file."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.interfaces import Samples
from trajdesign.scanner import Scanner
from trajdesign.trajectories import foreign_files
from trajdesign.trajectories.design import feasible, inside
from trajdesign.trajectories.loading import Given, path_of, placed, require_close
from trajdesign.trajectories.retiming import retime as play
from trajdesign.trajectory import Trajectory, n_points

# Without these it would be another path.
_PATH_AGREES = ("fov", "matrix", "n_shots")
# Without these the control points would not be the same path, or the samples not at the same places.
_MUST_AGREE = [
    *(("acquisition", key) for key in ("fov", "matrix", "n_shots", "n_samples", "dwell")),
    *(("scanner", key) for key in ("gradient_raster", "rf_raster")),
]


def file(
    acquisition: Acquisition,
    scanner: Scanner,
    *,
    path: str,
    k_unit: Literal["1/m", "rad/m", "1/fov", "normalized"] | None = None,
    retime: bool = False,
) -> Trajectory:
    """Return the trajectory of a file: of an earlier run or another program (Pulseq, BART, NeuroSpin, NumPy).

    A ``.npz`` file that trajdesign wrote is taken as it is. Of a Pulseq ``.seq``, BART's ``.cfl``, and ``.npy`` and
    ``.npz`` arrays (shot, sample, dim) the samples are fitted; NeuroSpin's ``.bin`` holds what is played.

    Parameters
    ----------
    acquisition
        Must be that of the file, as far as the file tells.
    scanner
        Its rasters must be those of the file; its limits and nucleus may differ.
    path
        The file, relative to the working directory.
    k_unit
        Unit of an array of another program: ``1/fov`` are cycles per field of view, ``normalized`` ends at 0.5.
    retime
        Take the path alone, whatever its times, and play it from rest to rest: as fast as the limits allow, slowed
        down evenly to fill the readout (`trajdesign.retime`). Only the field of view, the matrix and the number of
        shots must then be those of the file.
    """
    read = foreign_files.read(path)
    if isinstance(read, Trajectory) and k_unit is not None:
        raise ConfigError(f"file: {path} says itself what its k is; leave k_unit out.")
    of_config = Given(k_unit, acquisition.fov, acquisition.dwell, acquisition.matrix)
    if retime:
        k = path_of(read, path, of_config)
        theirs = read.acquisition if isinstance(read, Trajectory) else replace(acquisition, n_shots=len(k))
        for key in _PATH_AGREES:
            _require_same(path, f"acquisition.{key}", getattr(theirs, key), getattr(acquisition, key))
        return play(k, acquisition, scanner, Path(path).stem, fill_readout=True)
    found = require_close(*placed(read, path, scanner, of_config), path) if isinstance(read, Samples) else read
    given = {"acquisition": acquisition, "scanner": scanner}
    for table, key in _MUST_AGREE:
        if key == "n_samples" and found.points.shape[1] == n_points(acquisition, scanner):
            continue  # the same control points
        _require_same(path, f"{table}.{key}", getattr(getattr(found, table), key), getattr(given[table], key))
    remedy = "take the scanner that it was made for, or move it onto the limits with trajdesign.project"
    k = inside(found.points.numpy(), acquisition)
    return feasible(k, acquisition, scanner, f"file: {path}", "a shot", remedy).with_points(
        torch.from_numpy(k), found.name
    )


def _require_same(path: str, key: str, theirs: float | tuple[float, ...], ours: float | tuple[float, ...]) -> None:
    """Refuse, by a `ConfigError`, a setting of the file that is another in the config."""
    if np.shape(theirs) != np.shape(ours) or not np.allclose(theirs, ours, rtol=1e-9, atol=0):
        raise ConfigError(f"file: {path} has {key} = {theirs}, the config {ours}; make the two the same.")
