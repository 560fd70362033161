"""The package's own ``.npz``: control points and k at the ADC samples, with units in the keys."""

from pathlib import Path
from typing import Any

import numpy as np

from trajdesign.errors import InputError, LimitError
from trajdesign.trajectories.loading import load
from trajdesign.trajectory import Trajectory

SUFFIX = ".npz"


def npz(trajectory: Trajectory, path: Path) -> dict[str, Any]:
    """Write the file that `trajdesign.trajectories.loading.load` reads.

    Parameters
    ----------
    trajectory
        What is to be played.
    path
        The file.

    Returns
    -------
    dict
        ``n_points``, the control points of a shot.
    """
    trajectory.save(path)
    return {"n_points": trajectory.k.shape[1]}


def read_back(path: Path, trajectory: Trajectory) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the file.

    Returns
    -------
    k
        ``{"npz": k at the ADC samples (shot, sample, dim), 1/m}``.
    facts
        The largest gradient (T/m) and slew rate (T/m/s) of the readout, as vectors.

    Raises
    ------
    LimitError
        If `trajdesign.trajectories.loading.load` refuses the file.
    """
    try:
        loaded = load(path)
    except InputError as error:
        raise LimitError(f"the written file does not read back: {error}") from None
    facts = {
        "max_gradient": float(loaded.gradient.norm(dim=-1).max()),
        "max_slew": float(loaded.slew.norm(dim=-1).max()),
    }
    return {"npz": loaded.k_adc.numpy()}, facts
