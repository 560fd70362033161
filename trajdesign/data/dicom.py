"""A folder of DICOM files as a volume."""

import io
import math
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError, missing
from trajdesign.files import untrusted

# Of all images of a folder together.
_MOST_BYTES = 2**32

# Values of ImageType and ComplexImageComponent of what is no magnitude, and GE's own number of its kind.
_NOT_MAGNITUDE = {"P", "R", "I", "PHASE", "PHASE MAP", "PHASE_MAP", "REAL", "IMAGINARY"}
_GE_KIND, _GE_KINDS = (0x0043, 0x102F), {"1": "PHASE", "2": "REAL", "3": "IMAGINARY"}

_PEOPLE = ["PatientID", "PatientName", "StudyInstanceUID"]


@dataclass(frozen=True)
class _Image:
    series: tuple[Any, ...]
    """What all images of a volume share: series, size, pixel size (mm), orientation, patient and study."""
    rank: tuple[int, float, int]
    """Position along the normal (10 um), echo time and number."""
    pixels: NDArray[np.float32]


def read_series(folder: Path) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return a volume (slice, contrast, y, x) from the DICOM files of a folder, and its pixel size along y and x, mm.

    Slices are sorted along the normal of the images; those at one position are contrasts, by echo time and then by
    number. Each is scaled as its header says. Needs the extra ``dicom``.

    Raises
    ------
    InputError
        If a file is no single-frame grey magnitude image, or compressed in a way that needs another package; if the
        images are not of one series, or not as many at each position.
    ResourceError
        If pydicom is not installed.
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
    return volume.reshape(len(at_place), -1, *volume.shape[1:]), images[0].series[3]


def people(folder: Path) -> list[str]:
    """Return the patient and the study of a folder's first file, which `read_series` holds all others to.

    Nothing if it cannot be read, nor used then.
    """
    try:
        import pydicom
    except ImportError:
        return []
    files = _files(folder)
    if not files or _is_deflated(files[0]):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what does not keep to the standard
        try:
            content = io.BytesIO(untrusted.read_bytes(files[0]))
            data = pydicom.dcmread(content, stop_before_pixels=True, specific_tags=_PEOPLE)
            return _people(data)
        except Exception:  # pydicom raises many types on damaged files, which are refused where they are read
            return []


def _people(data: Any) -> list[str]:
    """Return the patient and the study of an image, empty where it does not tell."""
    identity, name, study = (str(data.get(tag) or "").strip() for tag in _PEOPLE)
    return [identity or name, study]


def _files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.is_file() and p.name[0] != "." and p.name != "DICOMDIR"]


def _syntax(path: Path) -> Any:
    """Return what a file says of how it is packed; None if it cannot be read."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
        except Exception:  # pydicom raises many types on damaged files
            return None


def _is_deflated(path: Path) -> bool:
    import pydicom

    return bool(_syntax(path) == pydicom.uid.DeflatedExplicitVRLittleEndian)


def _read(path: Path) -> _Image:
    try:
        import pydicom
    except ImportError:
        raise missing("DICOM", "pydicom", "dicom") from None
    content = untrusted.read_bytes(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what does not keep to the standard; what matters is refused
        try:
            if _is_deflated(path):
                raise InputError(f"{path} is deflated, and tells not to what size; inflate it with dcmconv +te.")
            data = pydicom.dcmread(io.BytesIO(content))
            series, rank = _place(data, path)
            untrusted.require_modest(path, 4 * series[1] * series[2], len(content))
        except InputError:
            raise
        except Exception as error:  # pydicom raises many types on damaged files
            raise InputError(f"{path} is no DICOM image, or damaged ({type(error).__name__}: {error}).") from None
        try:
            slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is used
                pixels = (data.pixel_array * slope + intercept).astype(np.float32)
        except MemoryError:
            raise
        except Exception as error:  # whatever decoders raise
            name = getattr(_syntax(path), "name", "of an unknown kind")
            raise InputError(
                f"{path}: its pixels ({name}) cannot be read ({type(error).__name__}); if they are compressed, "
                "decompress them with dcmdjpeg, gdcmconv or dcm2niix."
            ) from None
    if pixels.shape != series[1:3]:
        raise InputError(f"{path} is damaged: it holds pixels of the shape {pixels.shape}, not {series[1:3]}.")
    return _Image(series, rank, pixels)


def _place(data: Any, path: Path) -> tuple[tuple[Any, ...], tuple[int, float, int]]:
    """Return the series and the rank of an image, see `_Image`."""
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
    spacing = tuple(round(float(distance), 4) for distance in data.PixelSpacing)
    if not all(0 < distance < math.inf for distance in spacing):
        raise InputError(f"{path}: the pixel distances {spacing} mm of its header are not positive.")
    series = (str(data.SeriesInstanceUID), int(data.Rows), int(data.Columns), spacing, orientation, *_people(data))
    rank = (round(float(height) * 100), float(data.get("EchoTime") or 0), int(data.get("InstanceNumber") or 0))
    return series, rank
