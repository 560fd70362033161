"""A trajectory from a file."""

import numpy as np

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.inits._feasible import feasible
from trajdesign.scanner import Scanner
from trajdesign.trajectory import Trajectory, load

# Without these the control points would not be the same path, or the samples not at the same places.
_MUST_AGREE = [
    *(("acquisition", key) for key in ("fov", "matrix", "n_shots", "n_samples", "dwell")),
    *(("scanner", key) for key in ("gradient_raster", "rf_raster")),
]


def file(acquisition: Acquisition, scanner: Scanner, *, path: str) -> Trajectory:
    """Return the trajectory of a ``.npz`` file that trajdesign wrote, such as that of an earlier run.

    Parameters
    ----------
    acquisition
        Must be that of the file.
    scanner
        Its rasters must be those of the file; its limits may differ.
    path
        The file, relative to the working directory.

    Returns
    -------
    Trajectory
        Control points (shot, point, dim), 1/m, and the name, as in the file.

    Raises
    ------
    InputError
        If the file is missing, damaged or not from trajdesign.
    ConfigError
        If it belongs to another acquisition or raster.
    LimitError
        If the scanner cannot play it.
    """
    found = load(path)
    given = {"acquisition": acquisition, "scanner": scanner}
    for table, key in _MUST_AGREE:
        theirs, ours = getattr(getattr(found, table), key), getattr(given[table], key)
        if np.shape(theirs) != np.shape(ours) or not np.allclose(theirs, ours, rtol=1e-9, atol=0):
            raise ConfigError(f"file: {path} has {table}.{key} = {theirs}, the config {ours}; make the two the same.")
    remedy = "take the scanner that it was made for, or move it onto the limits with trajdesign.project"
    k = found.k.numpy()
    return feasible(k, acquisition, scanner, f"file: {path}", "a shot", remedy).with_k(found.k, found.name)
