"""Arrays in files: NumPy's ``.npz`` and ``.npy``, and BART's ``.cfl`` with its ``.hdr``."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError


def read_npz(path: Path | str) -> dict[str, NDArray]:
    """Read every array of an ``.npz`` file, without pickles.

    Raises
    ------
    InputError
        If the file is missing, no ``.npz`` file, or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not an .npz file.")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays: dict[str, Any] = {key: archive[key] for key in archive.files}
    except Exception as error:  # numpy and zipfile raise more than ten types on damaged files
        raise InputError(f"{path} is damaged or holds pickled objects ({type(error).__name__}).") from None
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise InputError(f"{path} holds members that are not arrays.")
    return arrays


def read_npy(path: Path | str) -> NDArray:
    """Read the array of an ``.npy`` file, without pickles.

    Raises
    ------
    InputError
        If the file is missing, no ``.npy`` file, or damaged.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy raises many types on damaged files
        raise InputError(f"{path} is not an .npy file, or damaged ({type(error).__name__}).") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is not an .npy file.")
    return array


def read_cfl(path: Path | str) -> NDArray[np.complex64]:
    """Map the array of BART's pair of files, with its axes in BART's order (x, y, z, coil, ...).

    Parameters
    ----------
    path
        The ``.cfl`` file; the ``.hdr`` file stands beside it.

    Raises
    ------
    InputError
        If one of the two is missing or damaged, or they do not belong together.
    """
    path = Path(path)
    try:
        lines = path.with_suffix(".hdr").read_text(encoding="ascii").splitlines()
        shape = tuple(int(n) for n in lines[lines.index("# Dimensions") + 1].split())
        size = path.stat().st_size
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path} is not a BART array with its .hdr beside it ({type(error).__name__}).") from None
    if min(shape, default=0) < 1 or math.prod(shape) * 8 != size:
        raise InputError(f"{path} has {size} bytes, which are not the dimensions {shape} of its .hdr.")
    return np.memmap(path, dtype="<c8", mode="r", shape=shape, order="F")
