"""Magnitude images from DICOM, NIfTI, NumPy, HDF5 and BART's files, with simulated coils and phase."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.acquisition import Acquisition
from trajdesign.data import bart
from trajdesign.data.copies import Mark, mark
from trajdesign.data.dicom import read_series
from trajdesign.data.grid import fit_matrix, slice_shape
from trajdesign.data.hdf5 import chunks, reader
from trajdesign.data.identity import NAMES
from trajdesign.data.nifti import MAX_BYTES, MAX_VOXELS, Plane, is_nifti, read_nifti
from trajdesign.data.receiver import receive
from trajdesign.data.splits import VAL_FRACTION, Split, Splits, refuse_idle
from trajdesign.errors import ConfigError, InputError
from trajdesign.files import untrusted
from trajdesign.files.arrays import read_npy, read_npz

_ENDINGS = (".nii", ".nii.gz", ".npy", ".npz", ".cfl", *reader.ENDINGS)

# Neighbouring slices of a volume differ more than so many times as much as neighbouring pixels.
_ROUGHER = 1.5

# A voxel beyond _HOT times the value that _NEARLY_ALL percent of a volume keep below counts as less.
_HOT, _NEARLY_ALL = 3, 99.9


def images(
    acquisition: Acquisition,
    split: Split,
    *,
    train: Sequence[str] = (),
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    n_coils: int = 4,
    seed: int = 0,
    val_fraction: float = VAL_FRACTION,
    test_fraction: float = 0.0,
    slices_min_signal: float = 0.25,
    plane: Plane = "auto",
    slice_axis: int = 0,
    transpose: bool = False,
    array: str = "",
    patient_pattern: str = NAMES,
) -> Dataset[Tensor]:
    """Slices of magnitude volumes: DICOM, NIfTI (``.nii``, ``.nii.gz``), ``.npy``, ``.npz``, ``.h5`` and ``.cfl``.

    A folder is a volume of DICOM files, of one series: its slices are sorted by position, and those at one position
    are contrasts. BART's ``.cfl`` have the axes x, y, slice, or slices as number 13, and may be complex.

    Coils and phase are simulated. Each slice is padded to the aspect ratio of the acquisition's field of view and
    band-limited to its matrix, so that the image as a whole fills the field of view, whose size is nominal. Each
    contrast of a file is scaled by the maximum of all its slices. Slices are kept in memory, as magnitudes. Items are
    (coil, y, x), complex64.

    Parameters
    ----------
    train, val, test
        Paths or globs of the files, or folders of DICOM, of each split, relative to the working directory. No patient
        of `test` may be in `train` or `val`: DICOM's PatientID and study, attribute ``patient_id`` of HDF5, or
        `patient_pattern`.
    n_coils
        Number of simulated coils.
    seed
        Seed of the coils and the phase.
    val_fraction
        Where `val` is empty: the share of each training volume, a block of slices at its end (the top of an axial
        volume), that is validated on instead. The slice before the block, nearly the same image, is left out.
    test_fraction
        The same for `test`, at the start of each volume. It is for a single volume: a test on the patients one has
        trained on flatters. 0 asks for test files.
    slices_min_signal
        Slices whose RMS is below this part of that of the volume's strongest slice are dropped. Single pixels far
        brighter than all others hardly count.
    plane
        Of NIfTI slices, by the orientation in the header; anterior is up in axial slices, superior in the others.
        ``"auto"`` cuts across the thickest side of the voxels, and cubes axially.
    slice_axis
        Of ``.npy``, ``.npz`` and ``.h5`` arrays: 0 for (slice, y, x), or (slice, contrast, y, x) whose contrasts
        stay in one split; 2 or -1 for (y, x, slice). Pixels are square.
    transpose
        Whether y and x of such arrays are to be exchanged.
    array
        Name of the array in ``.npz`` and ``.h5`` files; it may be empty if only one has 3 or 4 axes.
    patient_pattern
        Regular expression that finds the patient in a file name or, failing that, in the nearest folder's: its last
        group, or the whole match. Files that name no patient are only refused where the same one, or a copy of it, is
        in two splits. It is Python's: one that repeats a repetition, as ``(a+)+``, can take for ever.

    Raises
    ------
    ConfigError, InputError
        If an option makes no sense or a file is damaged, and where `trajdesign.data.splits.Splits` says so.
    """
    slice_shape(acquisition)
    if n_coils < 1 or seed < 0 or not 0 <= slices_min_signal <= 1:
        raise ConfigError(
            f"n_coils is {n_coils}, seed {seed}, slices_min_signal {slices_min_signal}; "
            "n_coils starts at 1, seed at 0, and slices_min_signal is a part of 1."
        )
    if slice_axis not in (0, 2, -1):
        raise ConfigError(f"slice_axis is {slice_axis}; it is 0 for (slice, y, x), 2 for (y, x, slice).")
    splits = Splits(
        train, val, test, val_fraction, test_fraction, patient_pattern, dataset=array, is_hdf5=_is_hdf5, folders=True
    )
    files = splits.of(split)
    _refuse_idle(splits.every, plane, slice_axis, transpose, array)
    people = splits.people(split)
    whose: list[int] = []
    dataset = _Slices(n_coils, (seed, ("train", "val", "test").index(split)), splits.origin(split, people))
    n_weak = 0
    for path in files:
        if path.is_dir():
            volume, pixel = read_series(path)
        elif is_nifti(path):
            volume, pixel = read_nifti(path, plane)
        else:
            volume, pixel = _read_array(path, array, slice_axis, transpose), (1.0, 1.0)
        volume = _as_magnitude(volume, path)
        kept = _with_signal(volume, slices_min_signal)
        n_weak += len(volume) - len(kept) if splits.files[split] else 0
        fitted = np.stack([np.maximum(fit_matrix(image, pixel, acquisition, str(path)), 0) for image in volume])
        dataset.add(fitted, volume, splits.share(kept, split, path), path)
        if people is not None:
            whose += [people[path]] * (len(dataset) - len(whose))
    dataset.people = whose or None
    if not len(dataset):
        raise ConfigError(f"no slice to {split} on has enough signal; lower data.slices_min_signal.")
    if n_weak:
        dataset.origin += f" ({n_weak} more with less than {slices_min_signal:g} of the strongest's signal left out)"
    return dataset


def _refuse_idle(paths: Sequence[Path], plane: Plane, slice_axis: int, transpose: bool, array: str) -> None:
    """Refuse options that count for none of the files."""
    endings = {untrusted.ending(path) for path in paths if not path.is_dir()}
    arrays = "there is no file .npy, .npz or .h5" if not endings & {".npy", ".npz", *reader.ENDINGS} else ""
    named = "there is no file .npz or .h5" if not endings & {".npz", *reader.ENDINGS} else ""
    refuse_idle(
        plane=(plane != "auto", "" if any(map(is_nifti, paths)) else "there is no NIfTI file"),
        slice_axis=(slice_axis != 0, arrays),
        transpose=(transpose, arrays),
        array=(bool(array), named),
    )


def _is_hdf5(path: Path) -> bool:
    return untrusted.ending(path) in reader.ENDINGS


class _Slices(Dataset[Tensor]):
    """Magnitudes in memory; coils and phase are simulated anew for each item, the same ones every time."""

    def __init__(self, n_coils: int, stream: tuple[int, int], origin: str) -> None:
        self.magnitudes: list[NDArray[np.floating]] = []
        self.marks: list[Mark] = []
        self.places: list[str] = []
        self.people: list[int] | None = None
        self.n_coils, self.stream, self.origin = n_coils, stream, origin

    def add(self, fitted: NDArray[np.floating], volume: NDArray, slices: Sequence[int], path: Path) -> None:
        """Take some slices of a volume (slice, contrast, y, x), on the matrix and as it came."""
        peaks = fitted.max((0, 2, 3))[:, None, None]
        for index in slices:
            self.magnitudes.extend(fitted[index] / peaks)
            self.marks += [mark(image, trims=True) for image in volume[index]]
            self.places += [f"{path}, slice {index}"] * volume.shape[1]

    def __len__(self) -> int:
        return len(self.magnitudes)

    def __getitem__(self, index: int) -> Tensor:
        index = range(len(self))[index]
        return receive(self.magnitudes[index], self.n_coils, np.random.default_rng((*self.stream, index)))


def _read_array(path: Path, name: str, slice_axis: int, transpose: bool) -> NDArray:
    """Return a volume (slice, contrast, y, x) of an array."""
    ending = untrusted.ending(path)
    if ending == ".cfl":
        return bart.read_magnitude(path, MAX_BYTES)
    if ending == ".npz":
        arrays = read_npz(path, MAX_BYTES)
        volume = arrays[_choose({key: a.shape for key, a in arrays.items()}, name, path)]
    elif _is_hdf5(path):
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


def _with_signal(volume: NDArray[np.float32], least: float) -> list[int]:
    """Return the slices whose RMS is, in every contrast, at least this part of the strongest slice's.

    Values far above nearly all of the contrast's, as of a hot pixel, count as less: one would hide all other slices.
    """
    most = _HOT * np.percentile(volume, _NEARLY_ALL, axis=(0, 2, 3))
    volume = np.minimum(volume, np.where(most > 0, most, np.inf).astype(np.float32)[:, None, None])
    rms = np.sqrt(np.square(volume, dtype=np.float64).mean((2, 3)))
    part = (rms / np.maximum(rms.max(0), np.finfo(float).tiny)).min(1)
    return [int(k) for k in np.flatnonzero((part >= least) & (rms.min(1) > 0))]
