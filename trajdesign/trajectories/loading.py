"""Trajectories from files: what `Trajectory.save` wrote, and samples of other programs, fitted onto the raster."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError
from trajdesign.interfaces import Samples
from trajdesign.scanner import Scanner, with_nucleus
from trajdesign.trajectories import foreign_files
from trajdesign.trajectories.fitting import fit, fit_residual
from trajdesign.trajectory import Trajectory, n_points
from trajdesign.units import RASTER_ROUNDING, plausible

_K_UNITS = ("1/m", "rad/m", "1/fov", "normalized")
# Residual of a fit, in 1/FOV, beyond which it is another trajectory; a tenth is hardly to be seen in an image.
_CLOSE = 0.1


@dataclass(frozen=True)
class Given:
    """What is said of the samples of a file, because the file itself does not say it.

    A field of view or matrix has the last word over the file's, and so has a dwell time where the file holds gradients;
    it must be the file's where that holds samples.

    Parameters
    ----------
    k_unit
        ``"1/m"``, ``"rad/m"``, ``"1/fov"`` (cycles per field of view, +-matrix/2) or ``"normalized"`` (+-0.5).
    fov
        Field of view along each axis, m; one number serves all axes.
    dwell
        Time between samples, s.
    matrix
        Pixels along each axis; by default the smallest even matrix that holds the samples and their fit.
    """

    k_unit: str | None = None
    fov: tuple[float, ...] | None = None
    dwell: float | None = None
    matrix: tuple[int, ...] | None = None


_NOTHING = Given()


def load(path: Path | str) -> Trajectory:
    """Read a trajectory that `Trajectory.save` wrote, or one of another program that needs no explanation.

    The first is an ``.npz`` file. Pulseq's ``.seq`` and NeuroSpin's ``.bin`` tell no scanner: it is the default
    `Scanner`, for the nucleus of the file.

    Raises
    ------
    InputError
        If the file is missing, damaged, lacks a key, holds a value that is not finite, or its `k_adc` is not what
        its `k` plays; if the samples of a foreign one cannot be met on the raster to a tenth of 1/FOV.
    """
    found = foreign_files.read(path)
    if isinstance(found, Trajectory):
        return found
    require_complete(found, path)
    try:
        return require_close(*placed(found, path, Scanner(**found.nucleus)), path)
    except ConfigError as error:
        raise InputError(f"{path} cannot be read by itself: {error}") from None


def require_complete(found: Samples, path: Path | str) -> None:
    """Refuse, by an `InputError`, samples of a file that does not say what they are."""
    if not found.is_complete:
        raise InputError(
            f"{path} is not a trajdesign file; to read sampled k from elsewhere, give --k-unit, --dwell and --fov."
        )


@dataclass(frozen=True)
class Fitted:
    """What was made of a file that another program wrote: the trajectory, and its residual as `load_sampled` has it."""

    trajectory: Trajectory
    residual: tuple[float, float]
    samples: Samples


def opened(path: Path, settings: Mapping[str, Any], given: Given = _NOTHING) -> Trajectory | Fitted:
    """Read a file of any program, complete or explained.

    Parameters
    ----------
    path
        The file; a `Trajectory` is of one that trajdesign wrote.
    settings
        What is given of the `Scanner` that samples are fitted for.
    given
        What the file does not say itself.

    Raises
    ------
    ConfigError, InputError
        As `load_sampled` does, and if the fit is not the file's trajectory.
    """
    found = foreign_files.read(path)
    if isinstance(found, Trajectory):
        return found
    if not found.is_complete:
        if found.unit is None and given.k_unit is None:
            if given != _NOTHING:
                raise ConfigError("--dwell, --fov and --matrix describe a foreign file; give its --k-unit too.")
            require_complete(found, path)
        if given.dwell is None or given.fov is None:
            raise ConfigError(
                f"{path} does not say its dwell time and field of view; give --dwell (s) and --fov (m) too."
            )
    trajectory, residual = placed(found, path, Scanner(**with_nucleus(settings, found.nucleus, path)), given)
    return Fitted(require_close(trajectory, residual, path), residual, found)


def load_sampled(path: Path | str, scanner: Scanner, given: Given = _NOTHING) -> tuple[Trajectory, tuple[float, float]]:
    """Read a file of any program that `trajdesign.trajectories.foreign_files` knows, and fit it onto the raster.

    Parameters
    ----------
    path
        The file.
    scanner
        Limits and rasters to fit under; of the nucleus of the file, where that tells.
    given
        What the file does not say itself.

    Returns
    -------
    trajectory
        The fit, or exactly what is played where the file holds gradients.
    residual
        Max and rms difference to the file's samples, in 1/FOV.

    Raises
    ------
    ConfigError
        If the unit is unknown or not the file's, something is missing, ``normalized`` is used without a matrix, or the
        file is one that `load` reads, or for another nucleus than the scanner.
    InputError
        If `trajdesign.trajectories.foreign_files.read` refuses the file, or its magnitude contradicts the unit.
    """
    found = foreign_files.read(path)
    if isinstance(found, Trajectory):
        raise ConfigError(f"{path} says its unit, dwell time and field of view itself; leave them out.")
    return placed(found, path, Scanner(**with_nucleus(asdict(scanner), found.nucleus, path)), given)


def placed(
    found: Samples, path: Path | str, scanner: Scanner, given: Given = _NOTHING
) -> tuple[Trajectory, tuple[float, float]]:
    """Fit what was read of a file onto the gradient raster, as `load_sampled` does, for whatever nucleus."""
    k, fov, known, matrix = _located(found, path, given)
    dwell = _agreed("dwell time", given.dwell, None if found.raster and given.dwell else found.dwell, path)
    acquisition, wanted = Acquisition(fov, matrix, k.shape[0], k.shape[1], dwell), torch.from_numpy(k)
    if found.raster is not None:
        return _on_raster(wanted, found.raster, acquisition, scanner, Path(path)), (0.0, 0.0)
    trajectory = fit(wanted, acquisition, scanner, Path(path).stem)
    residual = fit_residual(trajectory, wanted)
    if known is None:  # what is played around the samples is to fit too
        reach = trajectory.points.abs().amax(dim=(0, 1)).numpy() * fov
        holds = tuple(map(max, matrix, smallest_matrix(reach)))
        trajectory = replace(trajectory, acquisition=replace(acquisition, matrix=holds))
    return trajectory, residual


def path_of(found: Samples | Trajectory, path: Path | str, given: Given = _NOTHING) -> np.ndarray:
    """Return points along the path of each shot of a file (shot, point, dim), 1/m, whatever its times.

    It raises what `load_sampled` does of the unit, the field of view and the matrix.
    """
    if isinstance(found, Trajectory):
        control = found.points.numpy()
    else:
        control, *_ = _located(found, path, given)
        if found.raster is None:
            return control
    played: np.ndarray = (control[:, 1:] + control[:, :-1]) / 2  # at the gradient samples
    return played


def _located(
    found: Samples, path: Path | str, given: Given
) -> tuple[np.ndarray, tuple[float, ...], tuple[int, ...] | None, tuple[int, ...]]:
    """Return k (shot, sample, dim), 1/m, the field of view, the matrix where it is known, and one that holds k."""
    unit = _agreed("k unit", given.k_unit, found.unit, path)
    if unit not in _K_UNITS:
        raise ConfigError(f"k unit {unit!r} is unknown; it is one of {', '.join(_K_UNITS)}.")
    n_dims = found.k.shape[-1]
    extents = given.fov or found.fov
    if extents is None:
        raise ConfigError(f"{path} does not tell its field of view; give it, in m.")
    fov = np.array([plausible("fov", extent) for extent in _per_axis("fov", extents, n_dims)])
    matrix = given.matrix or found.matrix
    known = None if matrix is None else _per_axis("matrix", matrix, n_dims)
    k, extent = _in_metres(found.k, unit, fov, known)
    matrix = known or smallest_matrix(extent)
    if max(extent) < 2 or max(matrix) > 4096 or bool(np.any(extent > 1.01 * np.array(matrix) / 2)):
        raise InputError(
            f"{path}: k in {unit} reaches {max(extent):.4g}/FOV, which does not fit a matrix of {max(matrix)}; "
            f"is the unit right? Choices: {', '.join(_K_UNITS)}."
        )
    return k, tuple(fov), known, matrix


def _in_metres(
    k: np.ndarray, unit: str, fov: np.ndarray, matrix: tuple[int, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return k in 1/m, and its extent along each axis, 1/FOV."""
    if unit == "normalized" and matrix is None:
        raise ConfigError("k in normalized units needs the matrix too (--matrix).")
    grid = np.ones(k.shape[-1]) if matrix is None else np.array(matrix, dtype=float)
    scale = {"1/m": 1.0, "rad/m": 1 / (2 * np.pi), "1/fov": 1 / fov, "normalized": grid / fov}[unit]
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        k = k.astype(np.float64) * scale
        return k, np.max(np.abs(k * fov), axis=(0, 1), initial=0.0)


def smallest_matrix(extent: Iterable[float]) -> tuple[int, ...]:
    """Return the smallest even matrix that holds an extent along each axis, 1/FOV."""
    return tuple(2 * max(2, math.ceil(min(e, 1e9) - 1e-3)) for e in extent)


def require_close(trajectory: Trajectory, residual: tuple[float, float], path: Path | str) -> Trajectory:
    """Return what `load_sampled` found; refuse, by an `InputError`, a fit that is not the file's trajectory."""
    if not residual[0] <= _CLOSE:
        raster = trajectory.scanner.gradient_raster
        raise InputError(
            f"{path}: straight gradients on a raster of {raster:g} s miss its samples by {residual[0]:.3g}/FOV, "
            f"limit {_CLOSE}/FOV; are its dwell time, field of view and unit right?"
        )
    return trajectory


def _on_raster(k: Tensor, raster: float, acquisition: Acquisition, scanner: Scanner, path: Path) -> Trajectory:
    """Return the trajectory of control points, with as many samples a shot as they allow."""
    if not math.isclose(raster, scanner.gradient_raster):
        raise ConfigError(f"{path} is for a gradient raster of {raster:g} s, not {scanner.gradient_raster:g} s.")
    time = (k.shape[1] - 2) * raster - acquisition.adc_delay(raster, scanner.rf_raster)
    acquisition = replace(acquisition, n_samples=math.floor(time / acquisition.dwell + RASTER_ROUNDING) + 1)
    return Trajectory(k[:, : n_points(acquisition, scanner)], acquisition, scanner, path.stem)


def _agreed(quantity: str, given: Any, found: Any, path: Path | str) -> Any:
    """Return what is given or what the file says; refuse neither of them, and both if they differ."""
    if given is None and found is None:
        raise ConfigError(f"{path} does not tell its {quantity}; give it.")
    is_same = given == found or (isinstance(found, float) and math.isclose(given or 0.0, found, rel_tol=1e-6))
    if given is not None and found is not None and not is_same:
        raise ConfigError(f"{path} has the {quantity} {found}, not {given}.")
    return found if given is None else given


def _per_axis(quantity: str, values: tuple[Any, ...], n_dims: int) -> tuple[Any, ...]:
    """Return one value for each axis; one number serves all."""
    if len(values) not in (1, n_dims):
        raise ConfigError(f"{quantity} has {len(values)} numbers, the trajectory {n_dims} axes; give 1 or {n_dims}.")
    return tuple(values) if len(values) == n_dims else tuple(values) * n_dims
