"""Trajectories from files: what `Trajectory.save` wrote, and samples of other programs, fitted onto the raster."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError
from trajdesign.files import untrusted
from trajdesign.files.arrays import Kind, read_npz, require_arrays
from trajdesign.scanner import Scanner, with_nucleus
from trajdesign.tolerances import RASTER_ROUNDING
from trajdesign.trajectories import foreign_files
from trajdesign.trajectories.fitting import fit, fit_residual
from trajdesign.trajectory import FORMAT, TIMINGS, Trajectory, n_points, not_finite
from trajdesign.units import plausible

# The kind and number of axes of every array of a file.
_SCALARS = ("raster_s", "dwell_s", "gamma_hz_per_t", "max_gradient_t_per_m", "max_slew_t_per_m_s")
_KEYS: dict[str, tuple[Kind, int]] = {
    "k": ("real", 3),
    "k_adc": ("real", 3),
    "fov_m": ("real", 1),
    "matrix": ("whole", 1),
    "nucleus": ("text", 0),
    "limit_norm": ("text", 0),
    **dict.fromkeys(_SCALARS, ("real", 0)),
}
_OPTIONAL: dict[str, tuple[Kind, int]] = {
    "name": ("text", 0),
    "label_segments": ("true or false", 0),
    **{f"{timing}_s": ("real", 0) for timing in TIMINGS},
}

# Times the edge of k-space: what is further out is in another unit.
_MOST_REACH = 1000
_LONGEST_NAME = 200


def load(path: Path | str, scanner: Scanner | None = None) -> Trajectory:
    """Read a trajectory that `Trajectory.save` wrote, or one of another program that needs no explanation.

    Parameters
    ----------
    path
        The ``.npz`` file, or a Pulseq ``.seq`` file or NeuroSpin's ``.bin``.
    scanner
        Of those two, which do not tell; by default `Scanner` as it is, for the nucleus of the file.

    Raises
    ------
    InputError
        If the file is missing, damaged, lacks a key, holds a value that is not finite, or its `k_adc` is not what
        its `k` plays; if the samples of a foreign one cannot be met on the raster to a tenth of 1/FOV.
    """
    if untrusted.ending(path) in foreign_files.COMPLETE:
        try:
            found = foreign_files.read(path)
            return require_close(*placed(found, path, _for_nucleus(scanner, found, path)), path)
        except ConfigError as error:
            raise InputError(f"{path} cannot be read by itself: {error}") from None
    arrays = read_npz(path)
    if "format" not in arrays:
        raise InputError(
            f"{path} is not a trajdesign file (no key 'format'); to read sampled k from elsewhere, "
            "give --k-unit, --dwell and --fov."
        )
    if str(arrays["format"]) != FORMAT:
        raise InputError(f"{path} has the format {str(arrays['format'])[:40]!r}; this version reads {FORMAT!r}.")
    require_arrays(arrays, path, _KEYS, _OPTIONAL)
    k, k_adc = (arrays[key].astype(np.float64) for key in ("k", "k_adc"))
    if k.shape[2] != k_adc.shape[2]:
        raise InputError(f"{path}: k has {k.shape[2]} axes and k_adc {k_adc.shape[2]}.")
    try:
        scanner = Scanner(
            max_gradient=float(arrays["max_gradient_t_per_m"]),
            max_slew=float(arrays["max_slew_t_per_m_s"]),
            limit_norm=str(arrays["limit_norm"]),  # type: ignore[arg-type]
            nucleus=str(arrays["nucleus"]),
            gamma=float(arrays["gamma_hz_per_t"]) or math.nan,  # 0 would stand for that of the nucleus
            gradient_raster=float(arrays["raster_s"]),
            label_segments=bool(arrays.get("label_segments", False)),
            **{timing: float(arrays[f"{timing}_s"]) for timing in TIMINGS if f"{timing}_s" in arrays},
        )
        acquisition = Acquisition(
            fov=tuple(arrays["fov_m"]),
            matrix=tuple(arrays["matrix"]),
            n_shots=k_adc.shape[0],
            n_samples=k_adc.shape[1],
            dwell=float(arrays["dwell_s"]),
        )
        trajectory = Trajectory(torch.from_numpy(k), acquisition, scanner, _name(arrays))
    except (ConfigError, InputError) as error:
        raise InputError(f"{path}: {error}") from None
    _require_believable(trajectory, torch.from_numpy(k_adc), path)
    return trajectory


def _require_believable(trajectory: Trajectory, k_adc: Tensor, path: Path | str) -> None:
    """Refuse a trajectory that is not finite, in another unit, or does not play the file's `k_adc`."""
    k, acquisition = trajectory.k.numpy(), trajectory.acquisition
    if wrong := not_finite(k):
        raise InputError(f"{path}: k {wrong}.")
    if (np.abs(k) > _MOST_REACH * np.array(acquisition.k_max)).any():
        raise InputError(
            f"{path}: k reaches {np.abs(k).max():.3g} 1/m, and the edge of k-space is at {max(acquisition.k_max):.3g}; "
            "is it in 1/m?"
        )
    mismatch = fit_residual(trajectory, k_adc)[0]
    if not mismatch <= 1e-6:
        raise InputError(f"{path}: k_adc is not what k plays (they differ by {mismatch:.3g}/FOV).")


def _name(arrays: dict[str, np.ndarray]) -> str:
    """Return the name without what a terminal would obey."""
    name = str(arrays.get("name", "trajectory"))[:_LONGEST_NAME]
    return "".join(character for character in name if character.isprintable())


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
    scanner = _for_nucleus(scanner, found, path)
    return placed(found, path, scanner, given)


def _for_nucleus(scanner: Scanner | None, found: foreign_files.Samples, path: Path | str) -> Scanner:
    """Return a scanner for the nucleus of a file; refuse one for another."""
    return Scanner(**with_nucleus({} if scanner is None else asdict(scanner), found.nucleus, path))


def placed(
    found: foreign_files.Samples, path: Path | str, scanner: Scanner, given: Given = _NOTHING
) -> tuple[Trajectory, tuple[float, float]]:
    """Fit what was read of a file onto the gradient raster, as `load_sampled` does, for whatever nucleus."""
    if is_ours(path):
        raise ConfigError(f"{path} says its unit, dwell time and field of view itself; leave them out.")
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
    dwell = _agreed("dwell time", given.dwell, None if found.raster and given.dwell else found.dwell, path)
    acquisition, wanted = Acquisition(tuple(fov), matrix, k.shape[0], k.shape[1], dwell), torch.from_numpy(k)
    if found.raster is not None:
        return _on_raster(wanted, found.raster, acquisition, scanner, Path(path)), (0.0, 0.0)
    trajectory = fit(wanted, acquisition, scanner, Path(path).stem)
    residual = fit_residual(trajectory, wanted)
    if known is None:  # what is played around the samples is to fit too
        reach = trajectory.k.abs().amax(dim=(0, 1)).numpy() * fov
        holds = tuple(map(max, matrix, smallest_matrix(reach)))
        trajectory = replace(trajectory, acquisition=replace(acquisition, matrix=holds))
    return trajectory, residual


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


def is_ours(path: Path | str) -> bool:
    """Whether a file is an ``.npz`` with a format of its own, as `Trajectory.save` writes it.

    It raises an `InputError` if it is an ``.npz`` file that cannot be read.
    """
    return untrusted.ending(path) == ".npz" and "format" in read_npz(path)


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
