"""A folder of DICOM files as a volume."""

import contextlib
import io
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError, TrajdesignError, missing
from trajdesign.files import untrusted

# All images of a folder together have at most so many bytes.
_MOST_BYTES = 2**32

# Positions are counted in steps of 10 um; gaps between slices that differ by this part, and less, are the same.
_PER_MM, _UNEVEN = 100, 0.02

# Values of ImageType and ComplexImageComponent of images that are no magnitudes, and GE's own number for them.
_NOT_MAGNITUDE = {"P", "R", "I", "PHASE", "PHASE MAP", "PHASE_MAP", "REAL", "IMAGINARY"}
_GE_KIND, _GE_KINDS = (0x0043, 0x102F), {"1": "PHASE", "2": "REAL", "3": "IMAGINARY"}

_PEOPLE = ["PatientID", "PatientName", "StudyInstanceUID"]


@dataclass(frozen=True)
class _Series:
    """What all images of a volume share."""

    uid: str
    shape: tuple[int, int]
    spacing: tuple[float, float]
    """Pixel size along y and x, mm."""
    orientation: tuple[float, ...]
    people: tuple[str, ...]


@dataclass(frozen=True)
class _Image:
    series: _Series
    rank: tuple[int, float, int]
    """Position along the normal (10 um), echo time and number."""
    pixels: NDArray[np.float32]


def read_series(folder: Path) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """Return a volume (slice, contrast, y, x) from the DICOM files of a folder, and its voxel size (slice, y, x), mm.

    Slices are sorted along the normal of the images; those at one position are contrasts, by echo time and then by
    number. Each is scaled as its header says. Files that are not the single-frame grey magnitude images of one series,
    as many at each position, are an `InputError`. Slices are as thick as they are apart: not a number where there is
    one only, or they are not evenly apart. Needs the extra ``dicom``.
    """
    images: list[_Image] = []
    size = n_bytes = 0
    for path in _files(folder):
        images.append(_read(path))
        size, n_bytes = size + path.stat().st_size, n_bytes + images[-1].pixels.nbytes
        untrusted.require_modest(folder, n_bytes, size, _MOST_BYTES)
    images.sort(key=lambda image: image.rank)
    if not images:
        raise InputError(f"{folder} holds no DICOM file.")
    if len({image.series for image in images}) > 1:
        raise InputError(
            f"{folder} holds images that differ in series, size, pixel size, orientation, patient or study; "
            "keep the files of one series of one patient in a folder."
        )
    at_place = Counter(image.rank[0] for image in images)
    if len(set(at_place.values())) > 1:
        raise InputError(f"{folder} holds {len(images)} images at {len(at_place)} positions, not as many at each.")
    volume = np.stack([image.pixels for image in images])
    gaps = np.diff(np.array(list(at_place), dtype=float)) / _PER_MM
    is_even = len(gaps) > 0 and float(np.ptp(gaps)) <= _UNEVEN * float(gaps.mean())
    thick = float(gaps.mean()) if is_even else math.nan
    return volume.reshape(len(at_place), -1, *volume.shape[1:]), (thick, *images[0].series.spacing)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings of what does not keep to the standard, whenever a value is asked for; what matters is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@_quiet()
def people(folder: Path) -> list[str]:
    """Return the patient and the study of a folder's first file, if it can be read; all files have the same."""
    try:
        return _people(_dataset(_files(folder)[0], stop_before_pixels=True, specific_tags=_PEOPLE))
    except Exception:  # no file, or a damaged one, which is refused where it is read
        return []


def _people(data: Any) -> list[str]:
    """Return the patient and the study of an image, empty where it does not tell."""
    identity, name, study = (str(data.get(tag) or "").strip() for tag in _PEOPLE)
    return [identity or name, study]


def _files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.is_file() and p.name[0] != "." and p.name != "DICOMDIR"]


def _dataset(path: Path, **how: Any) -> Any:
    """Return what pydicom reads of a file by `how`; refuse one that inflates to any size."""
    try:
        import pydicom
    except ImportError:
        raise missing("DICOM", "pydicom", "dicom") from None
    content = untrusted.read_bytes(path)
    syntax = None
    with contextlib.suppress(Exception):  # pydicom raises many types on damaged files, and again below
        syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
        raise InputError(f"{path} is deflated, and tells not to what size; inflate it with dcmconv +te.")
    return pydicom.dcmread(io.BytesIO(content), **how)


@_quiet()
def _read(path: Path) -> _Image:
    try:
        data = _dataset(path)
        series, rank = _place(data, path)
        untrusted.require_modest(path, 4 * math.prod(series.shape), path.stat().st_size)
    except TrajdesignError:
        raise
    except Exception as error:  # pydicom raises many types on damaged files
        raise InputError(f"{path} is no DICOM image, or damaged ({type(error).__name__}: {error}).") from None
    try:
        slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is used
            pixels = (data.pixel_array * slope + intercept).astype(np.float32)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like
        name = getattr(data.file_meta.get("TransferSyntaxUID"), "name", "of an unknown kind")
        raise InputError(
            f"{path}: its pixels ({name}) cannot be read ({type(error).__name__}); if they are compressed, "
            "decompress them with dcmdjpeg, gdcmconv or dcm2niix."
        ) from None
    if pixels.shape != series.shape:
        raise InputError(f"{path} is damaged: it holds pixels of the shape {pixels.shape}, not {series.shape}.")
    return _Image(series, rank, pixels)


def _place(data: Any, path: Path) -> tuple[_Series, tuple[int, float, int]]:
    frames, colours = int(data.get("NumberOfFrames") or 1), int(data.SamplesPerPixel)
    grey = str(data.get("PhotometricInterpretation", ""))
    values = data.get("ImageType") or []
    kinds = {str(value).strip().upper() for value in ([values] if isinstance(values, str) else values)}
    kinds |= {str(data.get("ComplexImageComponent", "")).upper()}
    if _GE_KIND in data:
        kinds |= {_GE_KINDS.get(str(data[_GE_KIND].value), "")}
    others = ", ".join(sorted(kinds & _NOT_MAGNITUDE)) or "of a magnitude"
    if frames > 1 or colours > 1 or grey != "MONOCHROME2" or kinds & _NOT_MAGNITUDE:
        raise InputError(
            f"{path} has {frames} frames, {colours} colours ({grey}) and the type {others!r}; single grey "
            "(MONOCHROME2) magnitude images are read: convert it with dcm2niix, and give the NIfTI file."
        )
    orientation = tuple(round(float(cosine), 4) for cosine in data.ImageOrientationPatient)
    height = np.cross(orientation[:3], orientation[3:]) @ np.array(data.ImagePositionPatient, dtype=float)
    dy, dx = (round(float(distance), 4) for distance in data.PixelSpacing)
    spacing = (dy, dx)
    if not all(0 < distance < math.inf for distance in spacing):
        raise InputError(f"{path}: the pixel distances {spacing} mm of its header are not positive.")
    shape = (int(data.Rows), int(data.Columns))
    series = _Series(str(data.SeriesInstanceUID), shape, spacing, orientation, tuple(_people(data)))
    rank = (round(float(height) * _PER_MM), float(data.get("EchoTime") or 0), int(data.get("InstanceNumber") or 0))
    return series, rank
