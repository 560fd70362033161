"""Fully sampled Cartesian k-space in files: fastMRI's HDF5, ISMRMRD, and BART's ``.cfl``."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from trajdesign import walled
from trajdesign.arrays import read_cfl
from trajdesign.datasets import _chunks, _hdf5, _mrd
from trajdesign.errors import ConfigError, InputError

# A small file can declare far more than a machine holds.
_MAX_SLICE_BYTES = 2**30
_MAX_SLICES = 100_000


@dataclass(frozen=True)
class Volume:
    """The k-space of one file.

    Parameters
    ----------
    path
        The file.
    slices
        Those that are used.
    n_coils
        Of each slice.
    crop
        Pixels (y, x) of the field of view without oversampling.
    pixel
        Pixel size along y and x, in any common unit.
    read
        From a number to the k-space (coil, y, x) of that slice.
    """

    path: Path
    slices: range
    n_coils: int
    crop: tuple[int, int]
    pixel: tuple[float, float]
    read: Callable[[int], NDArray]


def is_hdf5(path: Path) -> bool:
    """Return whether a file is read as HDF5, to be looked at by `trajdesign.datasets._hdf5.require_sound` first."""
    return walled.ending(path) != ".cfl"


def inspect(path: Path, key: str, slices: Sequence[int]) -> Volume:
    """Return what a file holds, without its numbers; `slices` are the first and the one after the last, or empty."""
    header: str | None = None
    if not is_hdf5(path):
        shape, read = _bart_shape(read_cfl(path, walled.MOST_RAW), path), partial(_read_bart, path)
    else:
        with _hdf5.opened(path) as file:
            if _is_mrd(file, key):
                measured = _hdf5.group(file, "dataset")
                header = _hdf5.text(measured, "xml")
                index = _mrd.index(measured, _matrix(header, path), path)
                shape, read = (len(index.slices), *index.shape), partial(_mrd.read, path, index)
            else:
                shape, read = _shape(_hdf5.member(file, key), key, path), partial(_read_array, path, key)
                header = _hdf5.text(file, "ismrmrd_header")
    if math.prod(shape[1:]) * 8 > _MAX_SLICE_BYTES or shape[0] > _MAX_SLICES:
        raise InputError(
            f"{path} holds k-space of the shape {shape}; a slice may have {_MAX_SLICE_BYTES} bytes, "
            f"a file {_MAX_SLICES} slices."
        )
    walled.require_modest(path, math.prod(shape[1:]) * 8, path.stat().st_size)
    chosen = range(shape[0])[slice(*slices)] if slices else range(shape[0])
    if not chosen:
        raise ConfigError(f"{path} has {shape[0]} slices, none of them within {list(slices)}.")
    crop, pixel = _field_of_view(header, (shape[2], shape[3]), path)
    return Volume(path, chosen, shape[1], crop, pixel, read)


def patient(path: Path) -> str | None:
    """Return the patient of a file, if it tells."""
    if not is_hdf5(path):
        return None
    with _hdf5.opened(path) as file:
        name = _hdf5.attribute(file, "patient_id")
        if name is None and _hdf5.is_raw(file):
            root = _parsed(_hdf5.text(file["dataset"], "xml"), path)
            name = root.findtext("{*}subjectInformation/{*}patientID")
    return name


def _is_mrd(file: h5py.File, key: str) -> bool:
    return not _hdf5.has(file, key) and _hdf5.is_raw(file) and _hdf5.has(file["dataset"], "data")


def _shape(data: h5py.Dataset, key: str, path: Path) -> tuple[int, ...]:
    """Return the shape (slice, coil, y, x) of fastMRI's array."""
    shape = data.shape
    if data.dtype.kind != "c":
        raise InputError(f"{path}: {key!r} holds {data.dtype}, but k-space is complex.")
    if len(shape) not in (3, 4) or min(shape) < 1 or min(shape[-2:]) < 2:
        raise InputError(f"{path}: {key!r} of shape {shape} is not (slice, coil, y, x) or (slice, y, x).")
    _hdf5.require_slices(data)
    return shape if len(shape) == 4 else (shape[0], 1, *shape[1:])


def _read_array(path: Path, key: str, number: int) -> NDArray:
    with _hdf5.opened(path) as file:
        kspace = _chunks.read(_hdf5.member(file, key), number)
    return kspace.reshape(-1, *kspace.shape[-2:])


def _bart_shape(array: NDArray, path: Path) -> tuple[int, ...]:
    """Return the shape (slice, coil, y, x) of BART's array, whose slices are its dimension 13."""
    nx, ny, nz, n_coils, *others = (*array.shape, *[1] * 16)[:16]
    n_slices = others[9]
    if nz != 1 or math.prod(others) != n_slices or min(nx, ny) < 2:
        raise InputError(
            f"{path} has the dimensions {array.shape}; 2D k-space of BART has x, y, 1, coils, and slices as number 13: "
            "transform a third axis with 'bart fft -iu 4' and move it with 'bart transpose 2 13'."
        )
    return n_slices, n_coils, ny, nx


def _read_bart(path: Path, number: int) -> NDArray:
    array = read_cfl(path, walled.MOST_RAW)
    n_slices, n_coils, ny, nx = _bart_shape(array, path)
    return np.array(array.reshape(nx, ny, n_coils, n_slices, order="F")[..., number].T)


def _parsed(header: str | None, path: Path) -> ElementTree.Element:
    if "<!DOCTYPE" in (header or ""):  # entities that stand for more than any memory holds, or for other files
        raise InputError(f"{path}: its ISMRMRD header defines entities, which no such header needs.")
    try:
        return ElementTree.fromstring(header or "")
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: its ISMRMRD header (ismrmrd_header, or xml) cannot be read ({error}).") from None


def _sizes(root: ElementTree.Element, space: str, part: str, path: Path) -> list[float]:
    found = [root.findtext(f"{{*}}encoding/{{*}}{space}/{{*}}{part}/{{*}}{axis}", "nan") for axis in "xy"]
    try:
        return [float(size) for size in found]
    except ValueError as error:
        raise InputError(f"{path}: its ISMRMRD header (ismrmrd_header, or xml) cannot be read ({error}).") from None


def _matrix(header: str | None, path: Path) -> _mrd.Matrix:
    """Return what the header says of a measurement."""
    root = _parsed(header, path)
    encoding = root.find("{*}encoding")
    matrix = _sizes(root, "encodedSpace", "matrixSize", path)
    limits = "" if encoding is None else "{*}encodingLimits/{*}kspace_encoding_step_1/{*}center"
    if encoding is None or encoding.findtext("{*}trajectory", "").strip() != "cartesian":
        raise InputError(f"{path} holds no Cartesian k-space; reconstruct it, and give the images to 'images'.")
    if not all(2 <= size < 2**16 for size in matrix):
        raise InputError(f"{path}: the encoded matrix of its header is {matrix}.")
    n_readout, n_lines = (int(size) for size in matrix)
    centre = encoding.findtext(limits, str(n_lines // 2)).strip()
    return _mrd.Matrix(n_readout, n_lines, int(centre) if centre.isdigit() else n_lines // 2)


def _field_of_view(
    header: str | None, shape: tuple[int, int], path: Path
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return the pixels (y, x) without oversampling, and the pixel size along y and x.

    They come from the ISMRMRD header where it describes an encoding of this shape; its x, the readout, is the
    array's y. Otherwise pixels are square and nothing is cut off.
    """
    whole = shape, (1.0, 1.0)
    if not header:
        return whole
    root = _parsed(header, path)
    matrix, encoded, wanted = (
        _sizes(root, space, part, path)
        for space, part in (
            ("encodedSpace", "matrixSize"),
            ("encodedSpace", "fieldOfView_mm"),
            ("reconSpace", "fieldOfView_mm"),
        )
    )
    if tuple(matrix) != shape or not all(0 < size < math.inf for size in encoded + wanted):
        return whole
    rows, columns = (min(n, max(2, round(n * wanted[i] / encoded[i]))) for i, n in enumerate(shape))
    return (rows, columns), (encoded[0] / shape[0], encoded[1] / shape[1])
