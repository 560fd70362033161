"""Magnitude volumes of files of any kind: DICOM, NIfTI, NumPy, HDF5 and BART's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.data import bart
from trajdesign.data.dicom import read_series
from trajdesign.data.hdf5 import chunks, reader
from trajdesign.data.nifti import MAX_BYTES, MAX_VOXELS, Plane, is_nifti, read_nifti
from trajdesign.data.splits import refuse_idle
from trajdesign.errors import ConfigError, InputError
from trajdesign.files import untrusted
from trajdesign.files.arrays import read_npy, read_npz

_ENDINGS = (".nii", ".nii.gz", ".npy", ".npz", ".cfl", *reader.ENDINGS)

# Neighbouring slices of a volume differ more than so many times as much as neighbouring pixels.
_ROUGHER = 1.5


@dataclass(frozen=True)
class Reading:
    """How files of volumes are read.

    Parameters
    ----------
    plane
        Of NIfTI slices.
    slice_axis
        Of arrays: 0, or 2 or -1 for (y, x, slice).
    transpose
        Whether y and x of arrays are to be exchanged.
    array
        Name of the array in files that hold several.
    voxel
        Size of the voxels of arrays along slice, y and x, in any common unit.

    Raises
    ------
    ConfigError
        If `slice_axis` is none of these, or a voxel has no size.
    """

    plane: Plane = "auto"
    slice_axis: int = 0
    transpose: bool = False
    array: str = ""
    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.slice_axis not in (0, 2, -1):
            raise ConfigError(f"slice_axis is {self.slice_axis}; it is 0 for (slice, y, x), 2 for (y, x, slice).")
        if len(self.voxel) != 3 or not all(0 < size < math.inf for size in self.voxel):
            raise ConfigError(f"voxel is {list(self.voxel)}; it has three positive sizes: along slice, y and x.")

    def refuse_idle(self, paths: Sequence[Path]) -> None:
        """Refuse, by a `ConfigError`, options that count for none of the files."""
        endings = {untrusted.ending(path) for path in paths if not path.is_dir()}
        arrays = "there is no file .npy, .npz or .h5" if not endings & {".npy", ".npz", *reader.ENDINGS} else ""
        named = "there is no file .npz or .h5" if not endings & {".npz", *reader.ENDINGS} else ""
        refuse_idle(
            plane=(self.plane != "auto", "" if any(map(is_nifti, paths)) else "there is no NIfTI file"),
            slice_axis=(self.slice_axis != 0, arrays),
            transpose=(self.transpose, arrays),
            array=(bool(self.array), named),
            voxel=(self.voxel != (1.0, 1.0, 1.0), arrays),
        )

    def read(self, path: Path) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
        """Read a file, or a folder of DICOM.

        Returns
        -------
        volume
            (slice, contrast, y, x), float32, with a maximum of 1.
        voxel
            Its size along slice, y and x, in one unit; not a number along slice where DICOM does not tell.

        Raises
        ------
        InputError
            If it is damaged, of another kind, or holds no magnitudes.
        """
        if path.is_dir():
            volume, voxel = read_series(path)
        elif is_nifti(path):
            volume, voxel = read_nifti(path, self.plane)
        else:
            volume, voxel = _read_array(path, self.array, self.slice_axis, self.transpose), self.voxel
        return _as_magnitude(volume, path), voxel


def is_hdf5(path: Path) -> bool:
    """Return whether a file is called HDF5."""
    return untrusted.ending(path) in reader.ENDINGS


def _read_array(path: Path, name: str, slice_axis: int, transpose: bool) -> NDArray:
    """Return a volume (slice, contrast, y, x) of an array."""
    ending = untrusted.ending(path)
    if ending == ".cfl":
        return bart.read_magnitude(path, MAX_BYTES)
    if ending == ".npz":
        arrays = read_npz(path, MAX_BYTES)
        volume = arrays[_choose({key: a.shape for key, a in arrays.items()}, name, path)]
    elif is_hdf5(path):
        with reader.opened(path) as file:
            if reader.is_mrd(file) and name not in reader.shapes(file):
                raise InputError(f"{path} holds raw data of ISMRMRD; use data.kind = 'fastmri'.")
            data = reader.member(file, _choose(reader.shapes(file), name, path))
            _require_real(data.dtype, path)
            if math.prod(data.shape) > MAX_VOXELS:
                raise InputError(f"{path} holds {data.shape} voxels; at most {MAX_VOXELS} are read.")
            chunks.require_modest(data, MAX_BYTES)
            volume = chunks.read(data)
    elif ending == ".npy":
        volume = read_npy(path, MAX_BYTES)
    else:
        raise InputError(f"{path} is of no known kind; known: {', '.join(_ENDINGS)}, and folders of DICOM.")
    _require_real(volume.dtype, path)
    if volume.ndim != 3 and not (volume.ndim == 4 and slice_axis == 0):
        raise InputError(
            f"{path} has the shape {volume.shape}; it must be (slice, y, x) or (slice, contrast, y, x), "
            "or (y, x, slice) with slice_axis = 2."
        )
    volume = np.moveaxis(volume, slice_axis, 0)
    _require_slices(volume, slice_axis, path)
    if transpose:
        volume = volume.swapaxes(-1, -2)
    return volume[:, None] if volume.ndim == 3 else volume


def _require_slices(volume: NDArray, slice_axis: int, path: Path) -> None:
    """Refuse a volume whose slices are along another axis: few along it, and neighbours far less alike."""
    if volume.ndim == 4:
        volume = volume[:, volume.shape[1] // 2] if volume.shape[1] else volume[..., 0]
    shape = volume.shape
    thin = 1 if shape[1] < shape[2] else 2
    if not 2 <= shape[thin] <= min(n for axis, n in enumerate(shape) if axis != thin) / 2:
        return
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is used
        steps = [float(np.abs(np.diff(volume.astype(np.float32), axis=axis)).mean()) for axis in range(3)]
    if all(steps[thin] > _ROUGHER * step for axis, step in enumerate(steps) if axis != thin):
        raise InputError(
            f"{path} read with data.slice_axis = {slice_axis} has {shape[0]} slices of {shape[1]} x {shape[2]} pixels, "
            f"whose {shape[thin]} are slices, as it seems: neighbours differ {_ROUGHER:g} times as much along that "
            f"axis as along the others; set data.slice_axis = {0 if slice_axis else 2}, or move the slices' axis first."
        )


def _require_real(dtype: np.dtype, path: Path) -> None:
    if dtype.kind not in "fiub":
        raise InputError(f"{path} holds {dtype}; magnitude images are real (np.abs of complex ones).")


def _choose(shapes: Mapping[str, tuple[int, ...]], name: str, path: Path) -> str:
    """Return the name of the array to read: the given one, or the only one with 3 or 4 axes."""
    given = [name] if name in shapes else []
    candidates = given if name else [key for key, shape in shapes.items() if len(shape) in (3, 4)]
    if len(candidates) != 1:
        remedy = "; name one of them in data.array" if shapes else ""
        raise InputError(f"{path} holds {', '.join(shapes) or 'no array'}{remedy}.")
    return candidates[0]


def _as_magnitude(volume: NDArray, path: Path) -> NDArray[np.float32]:
    """Return the volume as float32 with a maximum of 1; refuse what is not finite, or clearly negative."""
    if not volume.size or min(volume.shape[-2:]) < 2:
        raise InputError(f"{path} has {len(volume)} slices of {volume.shape[-2]} x {volume.shape[-1]} pixels.")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite
        volume = volume.astype(np.float32)
    finite = np.isfinite(volume).all((1, 2, 3))
    if not finite.all():
        raise InputError(f"{path}: slice {int(np.argmin(finite))} has values that are not finite.")
    low, high = float(volume.min()), float(volume.max())
    # interpolation overshoots a little below zero; z-scores and CT numbers go far below
    if high <= 0 or low < -0.05 * high:
        raise InputError(
            f"{path}: values from {low:g} to {high:g} are no magnitudes; give images that are not negative."
        )
    return np.maximum(volume, 0) / np.float32(high)
