"""Magnitude images from DICOM, NIfTI, NumPy, HDF5 and BART's files, with simulated coils and phase."""

import gzip
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign import walled
from trajdesign.acquisition import Acquisition
from trajdesign.arrays import read_cfl, read_npy, read_npz
from trajdesign.coils import receive
from trajdesign.datasets import _chunks, _hdf5
from trajdesign.datasets._dicom import read_series
from trajdesign.datasets._grid import fit_matrix, slice_shape
from trajdesign.datasets._identity import NAMES, people
from trajdesign.datasets._splits import Split, expand, files_of_split, origin, refuse_leaks, slices_of_split
from trajdesign.errors import ConfigError, InputError

Plane = Literal["auto", "axial", "coronal", "sagittal"]

_MAX_VOXELS, _MAX_BYTES = 2**30, 2**32
_ENDINGS = (".nii", ".nii.gz", ".npy", ".npz", ".cfl", *_hdf5.ENDINGS)

# Bytes of the two kinds of header, and what may follow the voxels.
_NIFTI_1, _NIFTI_2, _MOST_REST = 348, 540, 2**20


def images(
    acquisition: Acquisition,
    split: Split,
    *,
    train: Sequence[str] = (),
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    n_coils: int = 4,
    seed: int = 0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.0,
    slices_min_signal: float = 0.25,
    plane: Plane = "auto",
    slice_axis: int = 0,
    transpose: bool = False,
    array: str = "",
    patient_pattern: str = NAMES,
) -> Dataset[Tensor]:
    """Slices of magnitude volumes: DICOM, NIfTI (``.nii``, ``.nii.gz``), ``.npy``, ``.npz``, ``.h5`` and ``.cfl``.

    A folder is a volume of DICOM files, of one series: its slices are sorted by position, and of those at one position
    each is a contrast. BART's ``.cfl`` have the axes x, y, slice, or slices as number 13, and may be complex.

    The acquisition of such images is simulated: coils and phase are made up. Each slice is padded to the
    aspect ratio of the acquisition's field of view and band-limited to its matrix, so that the image as a
    whole fills the field of view, whose size is nominal. Each contrast of a file is scaled by the maximum of all its
    slices. Slices are kept in memory, as magnitudes.

    Parameters
    ----------
    acquisition
        2D.
    split
        ``"train"``, ``"val"`` or ``"test"``.
    train, val, test
        Paths or globs of the files, or folders of DICOM, of each split, relative to the working directory. A patient
        in `test` must not be in `train` or `val`: DICOM's PatientID and study, attribute ``patient_id`` of HDF5, or
        `patient_pattern`.
    n_coils
        Number of simulated coils.
    seed
        Seed of the coils and the phase.
    val_fraction
        Where `val` is empty: the share of each training volume, a contiguous block of slices at its end (the
        top of an axial volume), that is validated on instead. The slice before the block is left out, because
        neighbouring slices are nearly the same image.
    test_fraction
        The same for `test`, at the start of each volume. It is for a single volume: a test on the
        patients one has trained on flatters. 0 asks for test files.
    slices_min_signal
        Slices whose RMS is below this part of that of the volume's strongest slice are dropped.
    plane
        Of NIfTI slices, found from the header's orientation whatever the order of the file's axes;
        anterior is up in axial slices, superior in the others. ``"auto"`` cuts across the thickest side
        of the voxels, and cubes axially.
    slice_axis
        Of ``.npy``, ``.npz`` and ``.h5`` arrays: 0 for (slice, y, x), or (slice, contrast, y, x) whose contrasts
        stay in one split; 2 or -1 for (y, x, slice). Pixels are square.
    transpose
        Whether y and x of such arrays are to be exchanged.
    array
        Name of the array in ``.npz`` and ``.h5`` files; it may be empty if only one has 3 or 4 axes.
    patient_pattern
        Regular expression that finds the patient in a file name or, failing that, in the nearest
        folder's: its last group, or the whole match. Files that name no patient are only refused where the same
        one, or another with the same content, is in two splits. It is Python's: one that repeats a repetition, as
        ``(a+)+``, can take for ever.

    Returns
    -------
    dataset
        Items (coil, y, x), complex64.

    Raises
    ------
    ConfigError
        If an option makes no sense, the split has no images, or splits share a file or patient.
    InputError
        If a file is missing, damaged, of the wrong shape or kind, negative or not finite.
    """
    slice_shape(acquisition)
    if n_coils < 1 or seed < 0 or not 0 <= slices_min_signal <= 1:
        raise ConfigError(
            f"n_coils is {n_coils}, seed {seed}, slices_min_signal {slices_min_signal}; "
            "n_coils starts at 1, seed at 0, and slices_min_signal is a part of 1."
        )
    if slice_axis not in (0, 2, -1):
        raise ConfigError(f"slice_axis is {slice_axis}; it is 0 for (slice, y, x), 2 for (y, x, slice).")
    given = {"train": train, "val": val, "test": test}
    splits = {name: expand(patterns, name, folders=True) for name, patterns in given.items()}
    every = [path for paths in splits.values() for path in paths]
    _hdf5.require_sound([path for path in every if walled.ending(path) in _hdf5.ENDINGS], array)
    who = partial(people, pattern=patient_pattern)
    refuse_leaks(splits, who)
    files = files_of_split(splits, split, test_fraction)
    found: list[NDArray[np.floating]] = []
    for path in files:
        if path.is_dir():
            volume, pixel = read_series(path)
        elif _is_nifti(path):
            volume, pixel = _read_nifti(path, plane)
        else:
            volume, pixel = _read_array(path, array, slice_axis, transpose)
        volume = _as_magnitude(volume, path)
        kept: Sequence[int] = _with_signal(volume, slices_min_signal)
        if not splits[split] or split == "train":
            kept = slices_of_split(
                kept,
                split,
                val_fraction=0 if splits["val"] else val_fraction,
                test_fraction=0 if splits["test"] else test_fraction,
                where=path,
            )
        fitted = np.stack([np.maximum(fit_matrix(image, pixel, acquisition, str(path)), 0) for image in volume])
        peaks = fitted.max((0, 2, 3))[:, None, None]
        for index in kept:
            found.extend(fitted[index] / peaks)
    if not found:
        raise ConfigError(f"no slice to {split} on has enough signal; lower data.slices_min_signal.")
    return _Slices(found, n_coils, (seed, ("train", "val", "test").index(split)), origin(files, who))


class _Slices(Dataset[Tensor]):
    """Magnitudes in memory; coils and phase are simulated anew for each item, the same ones every time."""

    def __init__(
        self, magnitudes: list[NDArray[np.floating]], n_coils: int, stream: tuple[int, int], origin: str
    ) -> None:
        self.magnitudes = magnitudes
        self.n_coils = n_coils
        self.stream = stream
        self.origin = origin

    def __len__(self) -> int:
        return len(self.magnitudes)

    def __getitem__(self, index: int) -> Tensor:
        index = range(len(self))[index]
        return receive(self.magnitudes[index], self.n_coils, np.random.default_rng((*self.stream, index)))


def _is_nifti(path: Path) -> bool:
    inner = path.with_suffix("") if walled.ending(path) == ".gz" else path
    return walled.ending(inner) == ".nii"


def _read_nifti(path: Path, plane: Plane) -> tuple[NDArray, tuple[float, float]]:
    """Return a volume (slice, contrast, y, x) and its pixel size along y and x, mm."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):  # what is not finite is refused where it is used
            warnings.simplefilter("ignore")
            image = _nifti(path)
        if not np.isfinite(image.affine).all():
            raise InputError(f"{path}: the orientation in its header (affine) has values that are not finite.")
        found = nibabel.orientations.io_orientation(image.affine)
        wanted = nibabel.orientations.axcodes2ornt(("L", "P", "S"))
        image = image.as_reoriented(nibabel.orientations.ornt_transform(found, wanted))
        volume = np.asanyarray(image.dataobj)
        zooms = [float(size) for size in image.header.get_zooms()[:3]]
    except (InputError, MemoryError):
        raise
    except Exception as error:  # nibabel, gzip and zlib raise many types on damaged files
        raise InputError(f"{path} is not a NIfTI file, or damaged ({type(error).__name__}).") from None
    if not all(0 < size < math.inf for size in zooms):
        raise InputError(f"{path}: the voxel sizes {zooms} mm of its header are not positive.")
    if plane == "auto":
        thick = int(np.argmax(zooms)) if max(zooms) > 1.2 * min(zooms) else 2
        plane = ("sagittal", "coronal", "axial")[thick]
    if plane != "axial":
        volume = volume[:, :, ::-1]  # superior up
    axes = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[plane]
    volume = volume.reshape(*volume.shape[:3], -1).transpose(axes[0], 3, axes[1], axes[2])
    return volume, (zooms[axes[1]], zooms[axes[2]])


def _nifti(path: Path) -> Any:
    """Return a NIfTI image in memory, without what its header's extensions hold.

    The header says how much there is before anything is unpacked, and the whole file is read, so that the checksum
    at the end of a compressed one is compared.
    """
    with walled.opened(path) as (stream, size):
        content = gzip.GzipFile(fileobj=stream) if walled.ending(path) == ".gz" else stream
        start = content.read(_NIFTI_1)
        kind = nibabel.Nifti1Image
        if not kind.header_class.may_contain_header(start):
            start, kind = start + content.read(_NIFTI_2 - _NIFTI_1), nibabel.Nifti2Image
        header = kind.header_class(start, check=False)
        header.check_fix(_silent(), error_level=40)
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
        n_bytes = math.prod(shape) * dtype.itemsize
        is_large = n_bytes > _MAX_BYTES or math.prod(shape) > _MAX_VOXELS
        if len(shape) not in (3, 4) or min(shape) < 1 or is_large or dtype.kind not in "fiu":
            raise InputError(
                f"{path} holds {dtype} of shape {shape}; it must be real (x, y, z) or (x, y, z, contrast), "
                f"of at most {_MAX_VOXELS} voxels and {_MAX_BYTES} bytes."
            )
        if offset < len(start):
            raise InputError(f"{path} is damaged: its voxels start at byte {offset}, inside its header.")
        walled.require_modest(path, offset + n_bytes, size, 2 * _MAX_BYTES)
        content.read(offset - len(start))
        data = content.read(n_bytes)
        if len(data) < n_bytes or len(content.read(_MOST_REST)) == _MOST_REST:
            raise InputError(f"{path} is damaged: it holds less than its header says, or far more.")
    array = np.ndarray(shape, dtype, buffer=data, order="F")
    slope, intercept = header.get_slope_inter()
    scaled = nibabel.volumeutils.apply_read_scaling(array, slope, intercept)
    return kind(scaled, header.get_best_affine(), header)


def _silent() -> logging.Logger:
    """Return a logger that nobody hears."""
    logger = logging.Logger(__name__)
    logger.addHandler(logging.NullHandler())
    return logger


def _read_array(path: Path, name: str, slice_axis: int, transpose: bool) -> tuple[NDArray, tuple[float, float]]:
    """Return a volume (slice, contrast, y, x) and the pixel size (1, 1)."""
    ending = walled.ending(path)
    if ending == ".cfl":
        return _bart_magnitude(path), (1.0, 1.0)
    if ending == ".npz":
        arrays = read_npz(path, _MAX_BYTES)
        volume = arrays[_choose({key: a.shape for key, a in arrays.items()}, name, path)]
    elif ending in _hdf5.ENDINGS:
        with _hdf5.opened(path) as file:
            if _hdf5.is_mrd(file) and name not in _hdf5.shapes(file):
                raise InputError(f"{path} holds raw data of ISMRMRD; use data.kind = 'fastmri'.")
            data = _hdf5.member(file, _choose(_hdf5.shapes(file), name, path))
            _require_real(data.dtype, path)
            if math.prod(data.shape) > _MAX_VOXELS:
                raise InputError(f"{path} holds {data.shape} voxels; at most {_MAX_VOXELS} are read.")
            _chunks.require_modest(data, _MAX_BYTES)
            volume = _chunks.read(data)
    elif ending == ".npy":
        volume = read_npy(path, _MAX_BYTES)
    else:
        raise InputError(f"{path} is of no known kind; known: {', '.join(_ENDINGS)}, and folders of DICOM.")
    _require_real(volume.dtype, path)
    if volume.ndim != 3 and not (volume.ndim == 4 and slice_axis == 0):
        raise InputError(
            f"{path} has the shape {volume.shape}; it must be (slice, y, x) or (slice, contrast, y, x), "
            "or (y, x, slice) with slice_axis = 2."
        )
    volume = np.moveaxis(volume, slice_axis, 0)
    if transpose:
        volume = volume.swapaxes(-1, -2)
    if volume.ndim == 3:
        volume = volume[:, None]
    return volume, (1.0, 1.0)


def _require_real(dtype: np.dtype, path: Path) -> None:
    if dtype.kind not in "fiub":
        raise InputError(f"{path} holds {dtype}; magnitude images are real (np.abs of complex ones).")


def _choose(shapes: Mapping[str, tuple[int, ...]], name: str, path: Path) -> str:
    """Return the name of the array to read: the given one, or the only one with 3 or 4 axes."""
    candidates = [name] if name in shapes else [key for key, shape in shapes.items() if len(shape) in (3, 4)]
    if len(candidates) != 1 or (name and name not in shapes):
        if not shapes:
            raise InputError(f"{path} holds no array.")
        raise InputError(f"{path} holds {', '.join(shapes)}; name one of them in data.array.")
    return candidates[0]


def _bart_magnitude(path: Path) -> NDArray[np.float32]:
    """Return the magnitude (slice, 1, y, x) of BART's images, whose slices are its dimension 2 or 13."""
    array = read_cfl(path, _MAX_BYTES)
    nx, ny, *others = (*array.shape, *[1] * 16)[:16]
    n_slices = max(others)
    if math.prod(others) != n_slices or n_slices not in (others[0], others[11]):
        raise InputError(
            f"{path} has the dimensions {array.shape}; images of BART have x, y, and slices as number 2 or 13: "
            "combine coils with 'bart rss 8'."
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite
        return np.abs(array.reshape(nx, ny, 1, n_slices, order="F")).T


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
    """Return the slices whose RMS is, in every contrast, at least this part of the strongest slice's."""
    rms = np.sqrt(np.square(volume, dtype=np.float64).mean((2, 3)))
    part = (rms / np.maximum(rms.max(0), np.finfo(float).tiny)).min(1)
    return [int(k) for k in np.flatnonzero((part >= least) & (rms.min(1) > 0))]
