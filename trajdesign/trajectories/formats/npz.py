"""NumPy's ``.npz``: the package's own file, whose keys carry their units, and arrays of other programs.

The key ``k`` means control points in a file of trajdesign, and samples in any other; the key ``format``, which only
trajdesign writes, tells the two apart.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError, InputError, LimitError
from trajdesign.files import untrusted
from trajdesign.files.arrays import Kind, read_npy, read_npz, require_arrays
from trajdesign.interfaces import Format, Samples
from trajdesign.scanner import Scanner
from trajdesign.trajectories.fitting import fit_residual
from trajdesign.trajectory import FORMAT, TIMINGS, Trajectory, not_finite

# The kind and number of axes of every array of a file of our own.
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
    "n_frames": ("whole", 0),
    "label_segments": ("true or false", 0),
    **{f"{timing}_s": ("real", 0) for timing in TIMINGS},
}

# K beyond so many times the edge of k-space is in another unit.
_MOST_REACH = 1000
_LONGEST_NAME = 200
# k_adc of a file is what its k plays to so many 1/FOV.
_SAME_K = 1e-6


class Npz(Format):
    """The package's own ``.npz``: control points and k at the ADC samples, with units in the keys."""

    ending = ".npz"
    reads = (".npz", ".npy")

    def write(self, trajectory: Trajectory, path: Path) -> Mapping[str, object]:
        """Save the trajectory, and return ``n_points``, the control points of a shot."""
        trajectory.save(path)
        return {"n_points": trajectory.points.shape[1]}

    def read_back(self, path: Path, trajectory: Trajectory) -> tuple[dict[str, NDArray], Mapping[str, object]]:
        """Read the file as any of our own."""
        try:
            loaded = _own(read_npz(path), path)
        except InputError as error:
            raise LimitError(f"the written file does not read back: {error}") from None
        facts = {
            "max_gradient": float(loaded.gradient.norm(dim=-1).max()),
            "max_slew": float(loaded.slew.norm(dim=-1).max()),
        }
        return {"npz": loaded.k_adc.numpy()}, facts

    def read(self, path: Path) -> Samples | Trajectory:
        """Read a trajectory of our own, or the array (shot, sample, dim) of another program: the one named ``k``.

        An array that is alone in its file may have any name; ``.npy`` holds one.
        """
        if untrusted.ending(path) == ".npy":
            return Samples(read_npy(path))
        arrays = read_npz(path)
        if "format" in arrays:
            return _own(arrays, path)
        if "k" in arrays:
            return Samples(arrays["k"])
        candidates = [a for a in arrays.values() if a.ndim == 3 and a.dtype.kind == "f"]
        if len(candidates) != 1:
            raise InputError(
                f"{path} must hold one real array (shot, sample, dim), or one named k; it has {len(candidates)}."
            )
        return Samples(candidates[0])


def _own(arrays: dict[str, NDArray], path: Path) -> Trajectory:
    """Return the trajectory of a file of our own."""
    if str(arrays.get("format")) != FORMAT:
        raise InputError(f"{path} has the format {str(arrays.get('format'))[:40]!r}; this version reads {FORMAT!r}.")
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
            n_frames=int(arrays.get("n_frames", 1)),
        )
        # without what a terminal would obey
        name = "".join(c for c in str(arrays.get("name", "trajectory"))[:_LONGEST_NAME] if c.isprintable())
        trajectory = Trajectory(torch.from_numpy(k), acquisition, scanner, name)
    except (ConfigError, InputError) as error:
        raise InputError(f"{path}: {error}") from None
    _require_believable(trajectory, torch.from_numpy(k_adc), path)
    return trajectory


def _require_believable(trajectory: Trajectory, k_adc: Tensor, path: Path) -> None:
    """Refuse a trajectory that is not finite, in another unit, or does not play the file's `k_adc`."""
    k, edge = trajectory.points.numpy(), np.array(trajectory.acquisition.k_max)
    if wrong := not_finite(k):
        raise InputError(f"{path}: k {wrong}.")
    if (np.abs(k) > _MOST_REACH * edge).any():
        raise InputError(
            f"{path}: k reaches {np.abs(k).max():.3g} 1/m, and the edge of k-space is at {edge.max():.3g}; "
            "is it in 1/m?"
        )
    mismatch = fit_residual(trajectory, k_adc)[0]
    if not mismatch <= _SAME_K:
        raise InputError(f"{path}: k_adc is not what k plays (they differ by {mismatch:.3g}/FOV).")
