"""Fully sampled Cartesian k-space in files: fastMRI's HDF5, ISMRMRD, and BART's ``.cfl``."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from trajdesign.data import bart, ismrmrd_header, mrd
from trajdesign.data.coverage import require_sampled
from trajdesign.data.hdf5 import chunks, reader
from trajdesign.data.ismrmrd_header import Header
from trajdesign.errors import ConfigError, InputError
from trajdesign.files import untrusted

#: Name of the k-space in fastMRI's files.
KEY = "kspace"

# A field of view in mm: from an extremity of a mouse to a body with oversampling. One in metres is below.
_LEAST_FOV, _MOST_FOV = 2, 5000


@dataclass(frozen=True)
class Volume:
    """The k-space of one file."""

    path: Path
    slices: range
    """The slices that are used."""
    n_coils: int
    crop: tuple[int, int]
    """Pixels (y, x) of the field of view without oversampling."""
    pixel: tuple[float, float]
    """Pixel size along y and x, in any common unit."""
    read: Callable[[int], NDArray]
    """From the number of a slice to its k-space (coil, y, x)."""


def is_hdf5(path: Path) -> bool:
    """Return whether a file is read as HDF5."""
    return untrusted.ending(path) != ".cfl"


def inspect(path: Path, key: str, slices: Sequence[int]) -> Volume:
    """Return what a file holds, without its numbers; `slices` are the first and the one after the last, or empty.

    No slice within `slices` is a `ConfigError`; what is no fully sampled Cartesian k-space is an `InputError`.
    """
    header: Header | None = None
    if not is_hdf5(path):
        shape, read = bart.open_kspace(path, untrusted.MOST_RAW).shape, partial(_read_bart, path)
    else:
        with reader.opened(path) as file:
            is_mrd = key == KEY and not reader.has(file, key) and reader.is_mrd(file)
            if is_mrd and reader.has(file["dataset"], "data"):
                measured = reader.group(file, "dataset")
                header = ismrmrd_header.parse(reader.text(measured, "xml"), path)
                index = mrd.index(measured, header, path)
                shape, read = (len(index.lines), *index.shape), partial(mrd.read, path, index)
            else:
                shape, read = _shape(reader.member(file, key), key, path), partial(_read_array, path, key)
                _require_no_mask(file, path)
                text = reader.text(file, "ismrmrd_header")
                header = ismrmrd_header.parse(text, path) if text else None
    if math.prod(shape[1:]) * 8 > reader.MOST_BYTES or shape[0] > reader.MOST_SLICES:
        raise InputError(
            f"{path} holds k-space of the shape {shape}; a slice may have {reader.MOST_BYTES} bytes, "
            f"a file {reader.MOST_SLICES} slices."
        )
    untrusted.require_modest(path, math.prod(shape[1:]) * 8, path.stat().st_size)
    chosen = range(shape[0])[slice(*slices)] if slices else range(shape[0])
    if not chosen:
        raise ConfigError(f"{path} has {shape[0]} slices, none of them within {list(slices)}.")
    crop, pixel = _field_of_view(header, (shape[2], shape[3]), path)
    require_sampled(read(chosen[0]), chosen[0], path)
    return Volume(path, chosen, shape[1], crop, pixel, read)


def _require_no_mask(file: h5py.File, path: Path) -> None:
    """Refuse k-space whose file says which columns are left out, as fastMRI's test files do."""
    if not reader.is_own(file, "mask"):
        return
    mask = reader.member(file, "mask")
    chunks.require_modest(mask, reader.MOST_BYTES)
    if mask.dtype.kind in "fiub" and not chunks.read(mask).all():
        raise InputError(
            f"{path}: its mask leaves out columns of k-space, as in the test files of fastMRI; training needs images "
            "of full sampling."
        )


def _shape(data: h5py.Dataset, key: str, path: Path) -> tuple[int, ...]:
    """Return the shape (slice, coil, y, x) of fastMRI's array."""
    shape = data.shape
    if data.dtype.kind != "c":
        raise InputError(f"{path}: {key!r} holds {data.dtype}, but k-space is complex.")
    if len(shape) not in (3, 4) or min(shape) < 1 or min(shape[-2:]) < 2:
        raise InputError(f"{path}: {key!r} of shape {shape} is not (slice, coil, y, x) or (slice, y, x).")
    reader.require_slices(data)
    return shape if len(shape) == 4 else (shape[0], 1, *shape[1:])


def _read_array(path: Path, key: str, number: int) -> NDArray:
    with reader.opened(path) as file:
        kspace = chunks.read(reader.member(file, key), number)
    return kspace.reshape(-1, *kspace.shape[-2:])


def _read_bart(path: Path, number: int) -> NDArray:
    return np.array(bart.open_kspace(path, untrusted.MOST_RAW)[number])


def _field_of_view(
    header: Header | None, shape: tuple[int, int], path: Path
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return the pixels (y, x) without oversampling, and the pixel size along y and x.

    The header's x, the readout, is the array's y. An axis with as many samples as the encoded matrix, or as lines were
    measured, spans the encoded field of view; one with as many as the matrix of the reconstruction spans its field of
    view: the oversampling is gone. Without a header pixels are square and nothing is cut off.
    """
    if header is None:
        return shape, (1.0, 1.0)
    fovs, matrices = (header.encoded_fov, header.recon_fov), (header.encoded_matrix, header.recon_matrix)
    for size in (*fovs[0], *fovs[1]):
        if not (math.isnan(size) or _LEAST_FOV <= size <= _MOST_FOV):
            raise InputError(
                f"{path}: a field of view in its ISMRMRD header is {size:g} mm along x or y, but it is from "
                f"{_LEAST_FOV} to {_MOST_FOV} mm; is it in mm? Correct the header, or remove fieldOfView_mm."
            )
    if not all(size > 0 for size in header.encoded_matrix):
        return shape, (1.0, 1.0)
    encoded, recon = matrices if any(map(math.isnan, (*fovs[0], *fovs[1]))) else fovs
    n_measured = (math.nan, header.lines[1] - header.lines[0] + 1)
    crop, pixel = [], []
    for i, n in enumerate(shape):
        if n in (header.encoded_matrix[i], n_measured[i]):
            extent = encoded[i]
        elif n == header.recon_matrix[i]:
            extent = recon[i]
        else:
            raise InputError(
                f"{path}: its array has {shape[0]} x {shape[1]} samples, but its ISMRMRD header is of an encoded "
                f"matrix {header.encoded_matrix[0]:g} x {header.encoded_matrix[1]:g} and a reconstruction of "
                f"{header.recon_matrix[0]:g} x {header.recon_matrix[1]:g}: the field of view cannot be told; correct "
                "the header (ismrmrd_header) or remove it."
            )
        wanted = recon[i] if 0 < recon[i] < math.inf else extent
        crop.append(min(n, max(2, round(n * wanted / extent))))
        pixel.append(extent / n)
    return (crop[0], crop[1]), (pixel[0], pixel[1])
