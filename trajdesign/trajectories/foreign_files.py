"""Trajectories that other programs wrote: their k, and what their files say of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError
from trajdesign.files import untrusted
from trajdesign.files.arrays import read_cfl, read_npy, read_npz
from trajdesign.pulseq.reader import player, sequence
from trajdesign.pulseq.reader.parser import number
from trajdesign.scanner import told_nucleus
from trajdesign.tolerances import RASTER_ROUNDING
from trajdesign.trajectory import not_finite

#: Endings of files that say themselves what their k is.
COMPLETE = (".seq", ".bin")
#: Endings of files whose format has one unit of k, and tells neither dwell time nor field of view.
SAY_UNIT = (".cfl",)

# Of k along z beside that in the plane: less is rounding, and the trajectory 2D.
_FLAT = 1e-2
# NeuroSpin's sequence plays on this raster, s, which its files do not tell.
_NEUROSPIN_RASTER = 10e-6
# Of which dwell times are multiples on the same scanners, s: the file tells the least oversampling alone.
_DWELL_RASTER = 100e-9
_NEUROSPIN_VERSIONS = (4.1, 4.2, 5.0, 5.1)


@dataclass(frozen=True)
class Samples:
    """K of a file, and what else the file says.

    Parameters
    ----------
    k
        (shot, sample, dim), x first, in `unit`.
    unit
        See `trajdesign.trajectories.loading.Given`; None where the file does not tell.
    dwell
        Time between samples, s.
    fov, matrix
        Field of view (m) and pixels along each axis.
    raster
        Where k are control points and no samples: the gradient raster, s.
    nucleus
        ``nucleus`` and ``gamma`` of a `Scanner`, where the file tells.
    gradient
        Of whole shots (shot, cell, dim), T/m, where the file has more of them than the readout.
    before
        Cells of `gradient` before the readout.
    """

    k: NDArray[np.float64]
    unit: str | None = None
    dwell: float | None = None
    fov: tuple[float, ...] | None = None
    matrix: tuple[int, ...] | None = None
    raster: float | None = None
    nucleus: dict[str, Any] = field(default_factory=dict)
    gradient: NDArray[np.float64] | None = None
    before: int = 0


def read(path: Path | str) -> Samples:
    """Read a trajectory by the ending of its file.

    ``.npz`` and ``.npy`` hold a real array (shot, sample, dim); in an ``.npz`` of several it is named ``k``. ``.cfl``
    is BART's, of the dimensions (3, sample, shot), in cycles per field of view. ``.seq`` is any Pulseq file, of which
    every ADC event after the first excitation is a shot, but for noise scans. ``.bin`` holds NeuroSpin's gradients, as
    mri-nufft writes and reads them.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another kind, or holds a number that is not finite, or facts of no scan.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], Samples]] = {
        ".npz": lambda path: Samples(_only_array(path)),
        ".npy": lambda path: Samples(read_npy(path)),
        ".cfl": _bart,
        ".seq": _pulseq,
        ".bin": _neurospin,
    }
    if untrusted.ending(path) not in readers:
        raise InputError(f"{path} is of no known kind of trajectory; known: {', '.join(readers)}.")
    found = readers[untrusted.ending(path)](path)
    if found.k.ndim != 3 or found.k.dtype.kind != "f":
        raise InputError(f"{path} holds {found.k.dtype} of shape {found.k.shape}, not a real (shot, sample, dim).")
    if found.k.shape[-1] not in (2, 3):
        raise InputError(f"{path}: the last axis of k has length {found.k.shape[-1]}; it must be 2 or 3 (x, y[, z]).")
    for name, values in (("k", found.k), ("the gradient", found.gradient)):
        if values is not None and (wrong := not_finite(values, "sample")):
            raise InputError(f"{path}: {name} {wrong}.")
    scan = Acquisition()  # of which the field of view stays: one that is given has the last word over the file's
    n_shots, n_samples, n_dims = found.k.shape
    dwell = scan.dwell if found.dwell is None else found.dwell
    try:
        Acquisition(scan.fov[:1] * n_dims, found.matrix or scan.matrix[:1] * n_dims, n_shots, n_samples, dwell)
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None
    return found


def nucleus(played: sequence.SeqFile, path: Path | str) -> dict[str, Any]:
    """Return ``nucleus`` and ``gamma`` of a `Scanner` from the definitions of a Pulseq file, where they are there.

    Raises
    ------
    InputError
        If they make no sense.
    """
    gamma = played.definitions.get("Gamma")
    try:
        return told_nucleus(played.definitions.get("Nucleus"), None if gamma is None else number(gamma))
    except (ConfigError, InputError, ValueError) as error:
        raise InputError(f"{path}: definitions Nucleus and Gamma: {error}") from None


def _only_array(path: Path) -> NDArray:
    """Return the one array (shot, sample, dim) of an ``.npz`` file, or the one named ``k``."""
    arrays = read_npz(path)
    if "k" in arrays:
        return arrays["k"]
    candidates = [a for a in arrays.values() if a.ndim == 3 and a.dtype.kind == "f"]
    if len(candidates) != 1:
        raise InputError(
            f"{path} must hold one real array (shot, sample, dim), or one named k; it has {len(candidates)}."
        )
    return candidates[0]


def _bart(path: Path) -> Samples:
    array = read_cfl(path, untrusted.MOST_BYTES)
    if array.ndim < 3 or array.shape[0] != 3:
        raise InputError(f"{path} has the dimensions {array.shape}; a trajectory of BART has (3, sample, shot).")
    with np.errstate(invalid="ignore"):  # of what is not finite, which is refused
        k = array.real.astype(np.float64).reshape(3, array.shape[1], -1, order="F").T
        imaginary = np.abs(array.imag.reshape(3, array.shape[1], -1, order="F").T)
    if imaginary.any():
        shot, sample, axis = np.argwhere(imaginary)[0]
        place = f"shot {shot}, sample {sample}, axis {axis}"
        raise InputError(f"{path}: k is complex, first at {place}; that of a trajectory is real. Is it k-space data?")
    return Samples(k if k[..., 2].any() else k[..., :2], "1/fov")


def _pulseq(path: Path) -> Samples:
    played = player.read(path, signed=False).without_noise()
    try:
        k = played.k_adc
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    dwells = {round(adc.dwell, 12) for adc in played.adcs}
    if len(dwells) != 1:
        raise InputError(f"{path} has ADC events of {len(dwells)} dwell times after an excitation; it must be one.")
    n_dims = 2 if np.abs(k[..., 2]).max() <= _FLAT * np.abs(k).max() else 3
    try:
        fov = tuple(float(extent) for extent in played.definitions.get("FOV", "").split())[:n_dims] or None
    except ValueError:
        fov = None
    return Samples(k[..., :n_dims], "1/m", dwell=dwells.pop(), fov=fov, nucleus=nucleus(played, path))


def _count(value: float) -> int:
    """Return the whole number that a float is."""
    if not float(value).is_integer():
        raise ValueError
    return int(value)


def _neurospin(path: Path) -> Samples:
    """Integrate the gradients; k are of the readout alone, and the gradient of the whole shots."""
    content = untrusted.read_bytes(path)
    try:
        with np.errstate(invalid="ignore"):  # of what is not finite, which is refused
            values = np.frombuffer(content, dtype="<f4").astype(np.float64)
        version, n_dims = round(float(values[0]), 1), _count(values[1])
        if version not in _NEUROSPIN_VERSIONS or n_dims not in (2, 3):
            raise InputError(f"{path} is of version {version} with {n_dims} axes; {_NEUROSPIN_VERSIONS} are known.")
        fov, matrix, head = np.split(values[2:], [n_dims, 2 * n_dims])
        oversampling, gamma, n_shots, n_cells = head[0], head[1], _count(head[2]), _count(head[3])
        largest, body = head[5] * 1e-3, head[17:]  # from mT/m
        before, after = map(_count, head[8:10]) if version > 5.05 else (0, 0)
        if min(n_shots, n_cells) < 1 or not 0 <= before <= n_cells - after <= n_cells or not oversampling > 0:
            raise InputError(f"{path} is damaged: {n_shots} shots of {n_cells} steps, {oversampling:g} samples each.")
        if largest < 0:
            raise InputError(f"{path} is damaged: its largest gradient is {largest:g} T/m.")
        start = body[: n_shots * n_dims].reshape(n_shots, 1, n_dims)
        n_ends = (2 if version > 4.5 else 1) * n_shots * n_dims
        cells = body[n_ends : n_ends + n_shots * n_cells * n_dims].reshape(n_shots, n_cells, n_dims)
        with np.errstate(invalid="ignore"):
            gradient = cells * largest
            k = start + np.cumsum(np.pad(gradient, ((0, 0), (1, 0), (0, 0))), 1) * gamma * _NEUROSPIN_RASTER
        dwell = np.floor(_NEUROSPIN_RASTER / oversampling / _DWELL_RASTER + RASTER_ROUNDING) * _DWELL_RASTER
        pixels = tuple(map(_count, matrix))
        of_gamma = told_nucleus(None, float(gamma))
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path} is not NeuroSpin's file of gradients, or damaged ({type(error).__name__}).") from None
    return Samples(
        k[:, before : k.shape[1] - after],
        "1/m",
        dwell=float(dwell),
        fov=tuple(float(extent) for extent in fov),
        matrix=pixels,
        raster=_NEUROSPIN_RASTER,
        nucleus=of_gamma,
        gradient=gradient,
        before=before,
    )
