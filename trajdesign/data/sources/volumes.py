"""Whole magnitude volumes and films from files, with simulated coils and phase."""

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
from trajdesign.data.grid import fit_matrix, fourier_resize
from trajdesign.data.identity import NAMES
from trajdesign.data.magnitudes import Reading, is_hdf5
from trajdesign.data.nifti import Plane
from trajdesign.data.receiver import receive
from trajdesign.data.splits import Split, Splits
from trajdesign.errors import ConfigError, InputError


def volumes(
    acquisition: Acquisition,
    split: Split,
    *,
    train: Sequence[str] = (),
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    n_coils: int = 8,
    seed: int = 0,
    tissue_phase: float = 0.0,
    flip: bool = False,
    plane: Plane = "auto",
    slice_axis: int = 0,
    transpose: bool = False,
    array: str = "",
    voxel: Sequence[float] = (1.0, 1.0, 1.0),
    patient_pattern: str = NAMES,
) -> Dataset[Tensor]:
    """Whole volumes, and films of slices, of the files that ``images`` reads, for 3D acquisitions and for films.

    Coils and phase are simulated, in three dimensions for a volume, the same in all frames of a film. A 3D acquisition
    has an item (coil, z, y, x), complex64, for each volume, and for each of its contrasts: z goes across the slices. A
    film has an item (coil, frame, y, x) for each slice of a file (slice, frame, y, x), as NIfTI's fourth axis.

    Each is padded to the proportions of the acquisition's field of view and band-limited to its matrix, so that the
    volume as a whole fills the field of view, whose size is nominal. A film of other than the acquisition's number of
    frames is taken for one whole beat, and band-limited in time. Each contrast of a volume, and each file of films, is
    scaled by its maximum. All are kept in memory, as magnitudes.

    Parameters
    ----------
    train, val, test
        Paths or globs of the files, or folders of DICOM, of each split, relative to the working directory. No part of a
        training volume is validated on: `val` must have files of its own. No patient of `test` may be in `train` or
        `val`; see `trajdesign.data.sources.images.images`.
    n_coils
        Number of simulated coils.
    seed
        Seed of the coils and the phase.
    tissue_phase
        By how much the phase differs from tissue to tissue, rad; see `trajdesign.data.sources.images.images`.
    flip
        Whether a training image is mirrored along x, left to right in axial and coronal slices, at random each time it
        is read: more volumes where there are few.
    plane
        Of NIfTI slices, by the orientation in the header; anterior is up in axial slices, superior in the others.
        ``"auto"`` cuts across the thickest side of the voxels, and cubes axially.
    slice_axis
        Of ``.npy``, ``.npz`` and ``.h5`` arrays: 0 for (slice, y, x) and (slice, contrast or frame, y, x), 2 or -1 for
        (y, x, slice).
    transpose
        Whether y and x of such arrays are to be exchanged.
    array
        Name of the array in ``.npz`` and ``.h5`` files; it may be empty if only one has 3 or 4 axes.
    voxel
        Size of the voxels of such arrays along slice, y and x, in any common unit.
    patient_pattern
        Regular expression that finds the patient in a file name, or in the nearest folder's.

    Raises
    ------
    ConfigError, InputError
        If an option makes no sense or a file is damaged, the acquisition is of single slices, a split has no files, and
        where `trajdesign.data.splits.Splits` says so.
    """
    if acquisition.n_dims == 2 and acquisition.n_frames == 1:
        raise ConfigError("the data are volumes or films, but the acquisition is of single slices; use 'images'.")
    if n_coils < 1 or seed < 0 or not 0 <= tissue_phase < math.inf:
        raise ConfigError(
            f"n_coils is {n_coils}, seed {seed}, tissue_phase {tissue_phase}; n_coils starts at 1, the others at 0."
        )
    if len(voxel) != 3:
        raise ConfigError(f"voxel is {list(voxel)}; it has three sizes: along slice, y and x.")
    reading = Reading(plane, slice_axis, transpose, array, (voxel[0], voxel[1], voxel[2]))
    splits = Splits(train, val, test, 0.0, 0.0, patient_pattern, dataset=array, is_hdf5=is_hdf5, folders=True)
    if split == "val" and not splits.files["val"]:
        raise ConfigError("data.val is empty; give it files of their own: a part of a volume is no volume.")
    files = splits.of(split)
    reading.refuse_idle(splits.every)
    people = splits.people(split)
    stream = (seed, ("train", "val", "test").index(split))
    flips = flip and split == "train"
    dataset = _Volumes(acquisition, n_coils, stream, tissue_phase, flips, splits.origin(split, people))
    for path in files:
        dataset.add(*reading.read(path), path)
        if people is not None:
            dataset.people = dataset.people or []
            dataset.people += [people[path]] * (len(dataset) - len(dataset.people))
    return dataset


class _Volumes(Dataset[Tensor]):
    """Magnitudes in memory; coils and phase are simulated anew for each item, the same ones every time."""

    def __init__(
        self,
        acquisition: Acquisition,
        n_coils: int,
        stream: tuple[int, int],
        roughness: float,
        flips: bool,
        origin: str,
    ) -> None:
        self.magnitudes: list[NDArray[np.float32]] = []
        self.marks: list[Mark] = []
        self.places: list[str] = []
        self.people: list[int] | None = None
        self.acquisition, self.n_coils, self.stream = acquisition, n_coils, stream
        self.roughness, self.flips, self.origin = roughness, flips, origin

    def add(self, volume: NDArray[np.float32], voxel: tuple[float, float, float], path: Path) -> None:
        """Take all items of a volume (slice, contrast, y, x) with its voxel size along slice, y and x."""
        if self.acquisition.n_dims == 3:
            if not math.isfinite(voxel[0]):
                raise InputError(f"{path} has slices that are not evenly apart, or a single one: it is no volume.")
            items, kind = volume.swapaxes(0, 1), "contrast"
        else:
            if volume.shape[1] < 2:
                raise InputError(f"{path} has no frames; a film is (slice, frame, y, x), or NIfTI of four axes.")
            items, kind = volume, "slice"
        fitted = [self._fit(item, voxel, path) if item.any() else None for item in items]
        peaks = [0.0 if item is None else float(item.max()) for item in fitted]
        for number, (item, image) in enumerate(zip(items, fitted, strict=True)):
            if image is not None:
                self.magnitudes.append(image / np.float32(peaks[number] if kind == "contrast" else max(peaks)))
                self.marks.append(mark(item, trims=True))
                self.places.append(f"{path}, {kind} {number}" if len(items) > 1 else str(path))

    def _fit(self, item: NDArray[np.float32], voxel: tuple[float, float, float], path: Path) -> NDArray[np.float32]:
        """Return a volume (z, y, x), or a film (frame, y, x), on the matrix and frames of the acquisition."""
        n_dims = self.acquisition.n_dims
        fitted = fit_matrix(item, voxel[-n_dims:], self.acquisition, str(path))
        if n_dims == 2:
            fitted = _resize_beat(fitted, self.acquisition.n_frames)
        return np.maximum(fitted, 0)

    def __len__(self) -> int:
        return len(self.magnitudes)

    def __getitem__(self, index: int) -> Tensor:
        index = range(len(self))[index]
        magnitude = self.magnitudes[index]
        if self.flips and torch.rand(()) < 0.5:
            magnitude = magnitude[..., ::-1]
        generator = np.random.default_rng((*self.stream, index))
        return receive(magnitude, self.n_coils, generator, self.acquisition.fov, self.roughness)


def _resize_beat(film: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """Return a film (frame, y, x), one period of a beat, as another number of frames, band-limited in time.

    The first frame stays the first.
    """
    centred = np.moveaxis(np.fft.fftshift(film, axes=0), 0, -1)  # frame 0 is now number n // 2
    return np.fft.ifftshift(np.moveaxis(fourier_resize(centred, (n_frames,)), -1, 0), axes=0)
