"""Volumes of NIfTI files, upright."""

import gzip
import logging
import math
import warnings
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError
from trajdesign.files import untrusted

Plane = Literal["auto", "axial", "coronal", "sagittal"]

#: An image file holds at most so many voxels and bytes.
MAX_VOXELS, MAX_BYTES = 2**30, 2**32

# The two kinds of header have so many bytes, and fewer than so many follow the voxels.
_NIFTI_1, _NIFTI_2, _MOST_REST = 348, 540, 2**20

# nibabel writes what it thinks of a header to this logger, which nobody hears.
_SILENT = logging.Logger(__name__)
_SILENT.addHandler(logging.NullHandler())


def is_nifti(path: Path) -> bool:
    """Return whether a file is called NIfTI, packed or not."""
    inner = path.with_suffix("") if untrusted.ending(path) == ".gz" else path
    return untrusted.ending(inner) == ".nii"


def read_nifti(path: Path, plane: Plane) -> tuple[NDArray, tuple[float, float, float]]:
    """Return a volume (slice, contrast, y, x) and its voxel size along slice, y and x, mm.

    It must be real, and its header have sizes and an orientation; otherwise it is an `InputError`.
    """
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
    return volume, (zooms[axes[0]], zooms[axes[1]], zooms[axes[2]])


def _nifti(path: Path) -> Any:
    """Return a NIfTI image in memory, without its header's extensions.

    The size is known before anything is unpacked. The whole file is read, so that the checksum of a compressed one is
    compared.
    """
    with untrusted.opened(path) as (stream, size):
        content = gzip.GzipFile(fileobj=stream) if untrusted.ending(path) == ".gz" else stream
        start = content.read(_NIFTI_1)
        kind = nibabel.Nifti1Image
        if not kind.header_class.may_contain_header(start):
            start, kind = start + content.read(_NIFTI_2 - _NIFTI_1), nibabel.Nifti2Image
        header = kind.header_class(start, check=False)
        header.check_fix(_SILENT, error_level=40)
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
        n_bytes = math.prod(shape) * dtype.itemsize
        is_large = n_bytes > MAX_BYTES or math.prod(shape) > MAX_VOXELS
        if len(shape) not in (3, 4) or min(shape) < 1 or is_large or dtype.kind not in "fiu":
            raise InputError(
                f"{path} holds {dtype} of shape {shape}; it must be real (x, y, z) or (x, y, z, contrast), "
                f"of at most {MAX_VOXELS} voxels and {MAX_BYTES} bytes."
            )
        if offset < len(start):
            raise InputError(f"{path} is damaged: its voxels start at byte {offset}, inside its header.")
        untrusted.require_modest(path, offset + n_bytes, size, 2 * MAX_BYTES)
        content.read(offset - len(start))
        data = content.read(n_bytes)
        if len(data) < n_bytes or len(content.read(_MOST_REST)) == _MOST_REST:
            raise InputError(f"{path} is damaged: it holds less than its header says, or far more.")
    array = np.ndarray(shape, dtype, buffer=data, order="F")
    slope, intercept = header.get_slope_inter()
    scaled = nibabel.volumeutils.apply_read_scaling(array, slope, intercept)
    return kind(scaled, header.get_best_affine(), header)
