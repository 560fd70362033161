"""Magnitude images from DICOM, NIfTI, NumPy, HDF5 and BART's files, with simulated coils and phase."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.acquisition import Acquisition
from trajdesign.data.copies import Mark, mark
from trajdesign.data.grid import fit_matrix, require_slices
from trajdesign.data.identity import NAMES
from trajdesign.data.magnitudes import Reading, is_hdf5
from trajdesign.data.nifti import Plane
from trajdesign.data.receiver import receive
from trajdesign.data.splits import VAL_FRACTION, Split, Splits
from trajdesign.data.variation import varied
from trajdesign.errors import ConfigError

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
    tissue_phase: float = 0.0,
    vary: float = 0.0,
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
    tissue_phase
        By how much the phase differs from tissue to tissue, as of fat, iron and flow, in rad: the standard deviation of
        a random smooth function of the magnitude that is added to the smooth phase, in all splits. Gradient echoes in
        vivo have it; a network that has seen smooth phases alone takes such a phase for an error.
    vary
        How much a training image differs each time it is read, 0 to 1: turned, scaled, shifted, mirrored along x, of
        another contrast and brightness as `trajdesign.data.variation.varied` says, with other coils and phase. It is
        meant for few volumes, and takes more epochs.
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
    require_slices(acquisition)
    parts = 0 <= slices_min_signal <= 1 and 0 <= vary <= 1
    if n_coils < 1 or seed < 0 or not 0 <= tissue_phase < math.inf or not parts:
        raise ConfigError(
            f"n_coils is {n_coils}, seed {seed}, tissue_phase {tissue_phase}, slices_min_signal {slices_min_signal}, "
            f"vary {vary}; n_coils starts at 1, seed and tissue_phase at 0, and the last two are parts of 1."
        )
    reading = Reading(plane, slice_axis, transpose, array)
    splits = Splits(
        train, val, test, val_fraction, test_fraction, patient_pattern, dataset=array, is_hdf5=is_hdf5, folders=True
    )
    files = splits.of(split)
    reading.refuse_idle(splits.every)
    people = splits.people(split)
    whose: list[int] = []
    stream = (seed, ("train", "val", "test").index(split))
    vary = vary if split == "train" else 0.0
    dataset = _Slices(n_coils, stream, tissue_phase, vary, acquisition.fov, splits.origin(split, people))
    n_weak = 0
    for path in files:
        volume, (_, *pixel) = reading.read(path)
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


class _Slices(Dataset[Tensor]):
    """Magnitudes in memory; coils and phase are simulated anew for each item, the same ones unless they `vary`."""

    def __init__(
        self,
        n_coils: int,
        stream: tuple[int, int],
        roughness: float,
        vary: float,
        fov: Sequence[float],
        origin: str,
    ) -> None:
        self.magnitudes: list[NDArray[np.floating]] = []
        self.marks: list[Mark] = []
        self.places: list[str] = []
        self.people: list[int] | None = None
        self.n_coils, self.stream, self.origin = n_coils, stream, origin
        self.roughness, self.vary, self.fov = roughness, vary, fov

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
        magnitude, generator = self.magnitudes[index], np.random.default_rng((*self.stream, index))
        if self.vary:
            generator = np.random.default_rng(torch.randint(2**32, (4,)).tolist())
            magnitude = varied(magnitude, self.fov, self.vary, generator)
        return receive(magnitude, self.n_coils, generator, roughness=self.roughness)


def _with_signal(volume: NDArray[np.float32], least: float) -> list[int]:
    """Return the slices whose RMS is, in every contrast, at least this part of the strongest slice's.

    Values far above nearly all of the contrast's, as of a hot pixel, count as less: one would hide all other slices.
    """
    most = _HOT * np.percentile(volume, _NEARLY_ALL, axis=(0, 2, 3))
    volume = np.minimum(volume, np.where(most > 0, most, np.inf).astype(np.float32)[:, None, None])
    rms = np.sqrt(np.square(volume, dtype=np.float64).mean((2, 3)))
    part = (rms / np.maximum(rms.max(0), np.finfo(float).tiny)).min(1)
    return [int(k) for k in np.flatnonzero((part >= least) & (rms.min(1) > 0))]
