"""BART's ``.cfl`` and ``.hdr``: k at the ADC samples, for ``bart nufft`` and ``bart pics -t``."""

from pathlib import Path
from typing import Any

import numpy as np

from trajdesign.errors import LimitError
from trajdesign.trajectory import Trajectory

SUFFIX = ".cfl"

#: The other file of the pair.
BESIDE = ".hdr"

_N_AXES = 3


def bart(trajectory: Trajectory, path: Path) -> dict[str, Any]:
    """Write k in cycles per field of view, of the dimensions (3, sample, shot); a 2D trajectory has k_z = 0.

    Parameters
    ----------
    trajectory
        What was played.
    path
        The ``.cfl`` file; the ``.hdr`` file stands beside it.

    Returns
    -------
    dict
        ``dimensions`` of the array.
    """
    acquisition = trajectory.acquisition
    cycles = trajectory.k_adc.detach().cpu().double().numpy() * np.array(acquisition.fov)
    filled = np.pad(cycles, ((0, 0), (0, 0), (0, _N_AXES - acquisition.n_dims)))
    path.write_bytes(filled.astype("<c8").tobytes())  # BART counts the first dimension fastest
    dimensions = filled.shape[::-1]
    path.with_suffix(BESIDE).write_text(
        f"# Dimensions\n{' '.join(map(str, dimensions))}\n", encoding="ascii", newline="\n"
    )
    return {"dimensions": list(dimensions)}


def read_back(path: Path, trajectory: Trajectory) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the pair of files.

    Returns
    -------
    k
        ``{"bart": k at the ADC samples (shot, sample, dim), 1/m}``.
    facts
        None.

    Raises
    ------
    LimitError
        If the two files do not belong together.
    """
    _, dimensions = path.with_suffix(BESIDE).read_text(encoding="ascii").splitlines()
    shape = tuple(map(int, dimensions.split()))[::-1]
    values = np.fromfile(path, dtype="<c8")
    if values.size != np.prod(shape) or shape[-1] != _N_AXES:
        raise LimitError(f"the written header says {dimensions}, but there are {values.size} numbers.")
    acquisition = trajectory.acquisition
    return {"bart": values.real.astype(float).reshape(shape)[..., : acquisition.n_dims] / np.array(acquisition.fov)}, {}
