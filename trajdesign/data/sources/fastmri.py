"""Fully sampled multi-coil k-space from files in the layout of the fastMRI data, of ISMRMRD or of BART."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trajdesign.acquisition import Acquisition
from trajdesign.data.coverage import require_sampled
from trajdesign.data.grid import center_fit, centered_ifft, fit_matrix, require_slices
from trajdesign.data.identity import NAMES
from trajdesign.data.raw import KEY, Volume, inspect, is_hdf5
from trajdesign.data.splits import VAL_FRACTION, Split, Splits, refuse_idle
from trajdesign.errors import ConfigError, InputError


def fastmri(
    acquisition: Acquisition,
    split: Split,
    *,
    train: Sequence[str] = (),
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    val_fraction: float = VAL_FRACTION,
    slices: Sequence[int] = (),
    n_coils: int = 0,
    key: str = KEY,
    cache_bytes: int = 2**31,
    patient_pattern: str = NAMES,
) -> Dataset[Tensor]:
    """Coil images (coil, y, x) of fully sampled Cartesian k-space: fastMRI's HDF5, ISMRMRD (MRD), or BART's ``.cfl``.

    HDF5 in the fastMRI layout (doi:10.1148/ryai.2020190007) holds k-space (slice, coil, y, x), or (slice, y, x) of a
    single coil. HDF5 of ISMRMRD (doi:10.1002/mrm.26089) holds the lines of one contrast, whose readout becomes y;
    noise, calibration and navigators are left out, and averages averaged. A ``.cfl`` has the dimensions x, y, 1, coil,
    and slices as number 13.

    It must be measured as a whole: undersampled, partial Fourier and elliptical scans are refused. Zeros around what
    was measured, as in fastMRI's files, are a lower resolution along that axis; the shorter side of the centre needs
    80 % of the longer one's samples.

    Readout oversampling is cut off where the file's header tells the field of view of the reconstruction; a header of
    another matrix is refused. Then the image keeps its whole field of view: it is padded to the aspect ratio of the
    acquisition's, and its k-space cropped or filled up with zeros to the matrix. A slice is read when it is asked for,
    and the first one of a file brings the others along, because all are scaled by the maximum of their volume.

    Parameters
    ----------
    train, val, test
        Paths or globs of the files of each split, relative to the working directory. A patient in `test` must not be
        in `train` or `val`: attribute ``patient_id``, patient and study of the ISMRMRD header, or `patient_pattern`.
    val_fraction
        Where `val` is empty: the share of each training volume, a block of slices at its end, that is validated on
        instead. The slice before the block, nearly the same image, is left out. 0 trains on all of them.
    slices
        First slice and the one after the last, counted as Python does; all where empty. The others are no part
        of the volume, and are never read.
    n_coils
        0 keeps the coils of the files. Otherwise each slice is compressed to so many by a singular value
        decomposition (Buehrer et al., MRM 2007, doi:10.1002/mrm.21237), or filled up with empty ones.
    key
        Name of the k-space in a file of fastMRI's layout.
    cache_bytes
        Finished slices are kept in memory up to this size in all, of every process that reads.
    patient_pattern
        Regular expression that finds the patient in a path, as for `trajdesign.data.sources.images.images`.

    Raises
    ------
    ConfigError, InputError
        If an option makes no sense or a file is damaged, and where `trajdesign.data.splits.Splits` says so. Reading an
        item raises it if the k-space of a slice of its file is not finite or zero.
    """
    require_slices(acquisition)
    if n_coils < 0 or cache_bytes < 0 or len(slices) not in (0, 2):
        raise ConfigError(
            f"n_coils is {n_coils}, cache_bytes {cache_bytes}, slices {list(slices)}; "
            "the first two are not negative, and slices is empty or [first, one after the last]."
        )
    splits = Splits(train, val, test, val_fraction, 0.0, patient_pattern, dataset=key, is_hdf5=is_hdf5)
    files = splits.of(split)
    refuse_idle(key=(key != KEY, "" if any(map(is_hdf5, splits.every)) else "there is no HDF5 file"))
    volumes = [inspect(path, key, slices) for path in files]
    items = [(volume, number) for volume in volumes for number in splits.share(volume.slices, split, volume.path)]
    counts = {volume.n_coils: volume.path for volume in volumes}
    if n_coils == 0 and len(counts) > 1:
        few, many = min(counts), max(counts)
        raise InputError(
            f"{counts[few]} has {few} coils and {counts[many]} has {many}, which do not fit into one batch; "
            f"set data.n_coils = {few} to compress them."
        )
    people = splits.people(split)
    dataset = _KSpaces(acquisition, items, n_coils, cache_bytes, splits.origin(split, people))
    dataset.people = None if people is None else [people[volume.path] for volume, _ in items]
    return dataset


class _KSpaces(Dataset[Tensor]):
    """The file is opened for each slice, so that worker processes share no handle."""

    def __init__(
        self, acquisition: Acquisition, items: list[tuple[Volume, int]], n_coils: int, room: int, origin: str
    ) -> None:
        self.acquisition, self.items, self.n_coils, self.room, self.origin = acquisition, items, n_coils, room, origin
        self.people: list[int] | None = None
        self.places = [f"{volume.path}, slice {number}" for volume, number in items]
        self.cache: dict[tuple[Volume, int], tuple[NDArray[np.complex64], float]] = {}
        self.peaks: dict[Volume, float] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        volume, number = self.items[range(len(self))[index]]
        if volume not in self.peaks:
            self.peaks[volume] = max(self._finished(volume, other)[1] for other in volume.slices)
        image, height = self._finished(volume, number)
        return torch.from_numpy(image * np.float32(height / self.peaks[volume]))

    def _finished(self, volume: Volume, number: int) -> tuple[NDArray[np.complex64], float]:
        """Return a slice (coil, y, x) whose largest root sum of squares is 1, and what it was."""
        if (volume, number) in self.cache:
            return self.cache[volume, number]
        kspace, size = _read_slice(volume, number)
        image = center_fit(centered_ifft(kspace), volume.crop)
        image = fit_matrix(image, volume.pixel, self.acquisition, str(volume.path))
        if self.n_coils:
            image = compress_coils(image, self.n_coils)
        height = np.linalg.norm(image, axis=0).max()
        if not 0 < height < math.inf:
            raise InputError(
                f"{volume.path}: slice {number} of its k-space has no image; leave it out with data.slices."
            )
        finished = (image / height).astype(np.complex64), float(height) * size
        if finished[0].nbytes <= self.room:
            self.room -= finished[0].nbytes
            self.cache[volume, number] = finished
        return finished


def compress_coils(images: NDArray, n_coils: int) -> NDArray:
    """Return the `n_coils` strongest combinations of coil images (coil, y, x); too few get empty ones added.

    The combinations are orthonormal: the root sum of squares shrinks only by what the left-out ones held.
    """
    if n_coils > len(images):
        return np.concatenate([images, np.zeros((n_coils - len(images), *images.shape[1:]), images.dtype)])
    flat = images.reshape(len(images), -1)
    _, vectors = np.linalg.eigh((flat @ flat.conj().T).astype(np.complex128))
    vectors = vectors[:, ::-1][:, :n_coils]
    # eigenvectors are free in phase: fixed, so that the result does not depend on the library
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], axis=0)
    vectors = vectors * (largest.conj() / np.abs(largest))
    return (vectors.conj().T @ flat).reshape(n_coils, *images.shape[1:])


def _read_slice(volume: Volume, number: int) -> tuple[NDArray[np.complex64], float]:
    """Return the k-space (coil, y, x) of one slice, divided by its largest value, and that value."""
    kspace = np.ascontiguousarray(volume.read(number))
    parts = kspace.view(kspace.real.dtype)
    peak = np.abs(parts).max()
    if not np.isfinite(peak):
        raise InputError(f"{volume.path}: slice {number} of its k-space has values that are not finite.")
    if peak < np.finfo(peak.dtype).tiny:
        raise InputError(f"{volume.path}: slice {number} of its k-space is zero; leave it out with data.slices.")
    require_sampled(kspace, number, volume.path)
    return (parts / peak).view(kspace.dtype).astype(np.complex64), float(peak)
