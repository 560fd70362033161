"""Raw data in arrays, whose shape says which shot is which: NumPy's ``.npy`` and ``.npz``, and BART's ``.cfl``."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trajdesign.data.measured.measurement import Measurement
from trajdesign.errors import InputError
from trajdesign.files import arrays, untrusted

# What BART's axes are by their numbers: https://github.com/mrirecon/bart/blob/master/src/misc/mri.h
_AXES = [
    "readout",
    "phase encoding",
    "second phase encoding",
    "coil",
    "map",
    "echo time",
    "coefficient",
    "second coefficient",
    "iteration",
    "chemical shift",
    "time",
    "second time",
    "level",
    "slice",
    "average",
    "batch",
]
_TIME, _SLICE = 10, 13


def read_numpy(path: Path) -> Measurement:
    """Read an array (coil, shot, sample), (slice, coil, shot, sample) or (repetition, slice, coil, shot, sample).

    Raises
    ------
    InputError
        If it is none; of an ``.npz``, if it holds several arrays and none is ``kspace``.
    """
    if untrusted.ending(path) == ".npz":
        found = arrays.read_npz(path, untrusted.MOST_RAW)
        if "kspace" not in found and len(found) != 1:
            names = ", ".join(map(repr, found)) or "none"
            raise InputError(f"{path} holds the arrays {names}; call the one of raw data 'kspace'.")
        kspace = found["kspace"] if "kspace" in found else next(iter(found.values()))
    else:
        kspace = arrays.read_npy(path, untrusted.MOST_RAW)
    if kspace.dtype.kind != "c":
        raise InputError(f"{path} holds {kspace.dtype}, but raw data are complex.")
    if not 3 <= kspace.ndim <= 5 or min(kspace.shape) < 1:
        raise InputError(
            f"{path} holds an array of shape {kspace.shape}; raw data are (coil, shot, sample), or (slice, coil, shot, "
            "sample), or (repetition, slice, coil, shot, sample)."
        )
    return of_array(path, kspace.reshape(*(1,) * (5 - kspace.ndim), *kspace.shape), "array")


def read_bart(path: Path) -> Measurement:
    """Read an array with BART's axes.

    An array that is one long along axis 0 has BART's axes of a trajectory's samples: 1 is the readout, and 2 the shot;
    else 0 is the readout, and 1 the phase encoding. Coils are 3, repetitions 10 (time), slices 13.

    Raises
    ------
    InputError
        If it is longer than one along any other axis.
    """
    kspace = arrays.read_cfl(path, untrusted.MOST_RAW)
    shape = (*kspace.shape, *[1] * 16)[:16]
    readout, shot = (1, 2) if shape[0] == 1 else (0, 1)
    others = [axis for axis, n in enumerate(shape) if n > 1 and axis not in (readout, shot, 3, _TIME, _SLICE)]
    if others:
        names = " and ".join(f"{shape[axis]} of axis {axis} ({_AXES[axis]})" for axis in others)
        raise InputError(
            f"{path} of the dimensions {shape} has {names}; raw data of shots have 1, samples, shots, coils, those of "
            "Cartesian lines have samples, lines, 1, coils, with repetitions as axis 10 and slices as axis 13: move "
            "others there with 'bart transpose'."
        )
    axes = (_TIME, _SLICE, 3, shot, readout)
    kspace = kspace.reshape(shape, order="F").transpose(*axes, *(axis for axis in range(16) if axis not in axes))
    return of_array(path, kspace.reshape(*(shape[axis] for axis in axes)), "bart")


def of_array(path: Path, kspace: NDArray, kind: Literal["array", "bart", "fastmri"]) -> Measurement:
    """Return the measurement of an array (repetition, slice, coil, shot, sample)."""
    n_repetitions, n_slices, n_coils, n_shots, n_samples = kspace.shape
    n_events = math.prod((n_repetitions, n_slices, n_shots))
    with np.errstate(over="ignore"):  # what is not finite is refused by who reads any file
        events = np.ascontiguousarray(kspace.swapaxes(2, 3), np.complex64).reshape(n_events, n_coils, n_samples)
    return Measurement(
        path=path,
        kind=kind,
        events=events,
        layout=(n_repetitions, n_slices, n_shots),
        discard=np.zeros((n_events, 2), np.int64),
    )
