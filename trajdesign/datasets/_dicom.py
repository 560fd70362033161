"""A folder of DICOM files as a volume."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError, ResourceError

# Third value of ImageType of what is no magnitude.
_NOT_MAGNITUDE = {"P", "R", "I", "PHASE", "PHASE MAP", "REAL", "IMAGINARY"}


@dataclass(frozen=True)
class _Image:
    series: tuple[Any, ...]
    """What all images of a volume share: series, size, pixel size (mm) and orientation."""
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
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name[0] != "." and p.name != "DICOMDIR"]
    images = sorted((_read(path) for path in files), key=lambda image: image.rank)
    if not images:
        raise InputError(f"{folder} holds no DICOM file.")
    if len({image.series for image in images}) > 1:
        raise InputError(
            f"{folder} holds images that differ in series, size, pixel size or orientation; "
            "keep the files of one series in a folder."
        )
    at_place = Counter(image.rank[0] for image in images)
    if len(set(at_place.values())) > 1:
        raise InputError(f"{folder} holds {len(images)} images at {len(at_place)} positions, not as many at each.")
    volume = np.stack([image.pixels for image in images])
    return volume.reshape(len(at_place), -1, *volume.shape[1:]), images[0].series[3]


def _read(path: Path) -> _Image:
    try:
        import pydicom
    except ImportError:
        raise ResourceError("DICOM needs pydicom, which is not installed: pip install trajdesign[dicom].") from None
    try:
        data = pydicom.dcmread(path)
        frames, colours = int(data.get("NumberOfFrames") or 1), int(data.SamplesPerPixel)
        kind = [*data.get("ImageType", []), "", "", ""][2]
        if frames > 1 or colours > 1 or kind in _NOT_MAGNITUDE:
            raise InputError(
                f"{path} has {frames} frames, {colours} colours and the type {kind!r}; single grey magnitude images "
                "are read: convert it with dcm2niix, and give the NIfTI file."
            )
        orientation = tuple(round(float(cosine), 4) for cosine in data.ImageOrientationPatient)
        height = np.cross(orientation[:3], orientation[3:]) @ np.array(data.ImagePositionPatient, dtype=float)
        spacing = tuple(round(float(distance), 4) for distance in data.PixelSpacing)
        series = (str(data.SeriesInstanceUID), int(data.Rows), int(data.Columns), spacing, orientation)
        rank = (round(float(height) * 100), float(data.get("EchoTime") or 0), int(data.get("InstanceNumber") or 0))
    except InputError:
        raise
    except Exception as error:  # pydicom raises many types on damaged files
        raise InputError(f"{path} is no DICOM image, or damaged ({type(error).__name__}: {error}).") from None
    try:
        pixels = data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    except Exception as error:  # whatever decoders raise
        name = data.file_meta.TransferSyntaxUID.name
        raise InputError(
            f"{path}: its pixels ({name}) cannot be read ({type(error).__name__}); if they are compressed, "
            "decompress them with dcmdjpeg, gdcmconv or dcm2niix."
        ) from None
    return _Image(series, rank, pixels.astype(np.float32))
