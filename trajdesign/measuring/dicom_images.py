"""Images as DICOM files (MR Image Storage), for viewers and archives; needs the extra ``dicom``.

Nothing is invented: what neither the raw file nor the sequence tells stays empty, and of the patient nothing is told.
"""

import datetime
import io
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.data.measured.measurement import Measurement, Protocol
from trajdesign.errors import missing
from trajdesign.measuring import image_geometry
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.image_geometry import ImageGeometry, PlacedImages
from trajdesign.reconstruction.measured import LABELS

_Pixels = NDArray[np.float32]
_Attributes = dict[str, str | float | list[str] | list[float] | None]

# How a viewer shows a slice: the directions of its rows and of its columns, by the axis that is nearest to its normal.
_SHOWN = {0: ((0, 1, 0), (0, 0, -1)), 1: ((1, 0, 0), (0, 0, -1)), 2: ((1, 0, 0), (0, 1, 0))}
_LARGEST = 2**16 - 1
_POSITIONS = ("HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL")
# Attributes that every such file has, and that nobody knows here.
_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Laterality",
    "PositionReferenceIndicator",
    "ScanOptions",
    "RepetitionTime",
    "EchoTime",
    "EchoTrainLength",
)


def hindrance(found: Assigned, measured: Measurement) -> str | None:
    """Return why there are no DICOM files of a measurement, in a sentence; None if there are."""
    unknown = image_geometry.unknown(found, measured)
    if unknown is not None:
        return f"no DICOM is written: {unknown}."
    if find_spec("pydicom") is None:
        return f"no DICOM is written: {missing('DICOM', 'pydicom', 'dicom')}"
    return None


def encoded(placed: PlacedImages) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file: a series of each reconstruction in a folder of its name.

    Pixels are turned to the rows and columns in which such slices are shown, as scanners do.
    """
    from pydicom.uid import generate_uid

    study = {"StudyInstanceUID": generate_uid(None), "FrameOfReferenceUID": generate_uid(None)}
    for series, (name, stack) in enumerate(placed.images.items(), start=1):
        low, top = min(0.0, float(stack.min())), float(stack.max())
        shared: _Attributes = {
            **_of_protocol(placed.protocol),
            "MRAcquisitionType": "3D" if placed.geometry.is_volume else "2D",
            **study,
            "SeriesInstanceUID": generate_uid(None),
            "SeriesNumber": series,
            "SeriesDescription": f"trajdesign {LABELS[name]}",
            "NumberOfTemporalPositions": len(stack),
        }
        for frame, slices in enumerate(stack):
            of_frame = f"f{frame:03d}_" if len(stack) > 1 else ""
            for number, image in enumerate(slices):
                shared["InstanceNumber"] = frame * len(slices) + number + 1
                shared["TemporalPositionIdentifier"] = frame + 1
                pixels, lies = _placed(image, placed.geometry, number)
                file = _file(pixels, shared | lies, low, (top - low) or 1.0)
                yield f"{name}/{of_frame}s{number:03d}.dcm", file


def _of_protocol(protocol: Protocol) -> _Attributes:
    """Return attributes of every file."""
    return {
        **dict.fromkeys(_EMPTY),
        "SpecificCharacterSet": "ISO_IR 192",
        "Modality": "MR",
        "Manufacturer": _line(protocol.system),
        "SoftwareVersions": f"trajdesign {version('trajdesign')}",
        "ProtocolName": _line(protocol.name),
        "MagneticFieldStrength": protocol.field_strength,
        "PatientPosition": protocol.patient_position if protocol.patient_position in _POSITIONS else "",
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER", "M"],
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
    }


def _placed(image: _Pixels, geometry: ImageGeometry, number: int) -> tuple[_Pixels, _Attributes]:
    """Return the pixels of a slice as they are shown, and where they lie."""
    ways = geometry.directions
    normal = np.cross(ways[:, 0], ways[:, 1])
    products = np.array(_SHOWN[int(np.abs(normal).argmax())]) @ ways[:, :2]  # of rows and columns with x and y
    turned = abs(products[0, 0]) + abs(products[1, 1]) < abs(products[0, 1]) + abs(products[1, 0])
    along = (1, 0) if turned else (0, 1)  # the axis of the pixels, x or y, along a row, and along a column
    signs = [1.0 if products[i, axis] >= 0 else -1.0 for i, axis in enumerate(along)]
    shown = (image.T if turned else image)[:: int(signs[1]), :: int(signs[0])]
    pixel = [0, 0, number]
    for axis, sign in zip(along, signs, strict=True):
        pixel[axis] = 0 if sign > 0 else geometry.matrix[axis] - 1
    position = geometry.at(*pixel)
    across, down = (sign * ways[:, axis] for axis, sign in zip(along, signs, strict=True))
    return shown, {
        "ImagePositionPatient": position.tolist(),
        "ImageOrientationPatient": [*across.tolist(), *down.tolist()],
        "PixelSpacing": [float(geometry.steps[along[1]]), float(geometry.steps[along[0]])],
        "SliceThickness": geometry.thickness,
        "SpacingBetweenSlices": abs(float(geometry.steps[2])),
        "SliceLocation": float(position @ np.cross(across, down)),
    }


def _file(pixels: _Pixels, attributes: _Attributes, low: float, span: float) -> bytes:
    """Return a file of its attributes, and of pixels from `low` on, which keep 1/65535 of `span`."""
    from pydicom import Dataset, dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    data, now = Dataset(), datetime.datetime.now()
    slope, intercept = _short(span / _LARGEST), _short(low)
    stored = np.rint((pixels - float(intercept)) / float(slope)).clip(0, _LARGEST).astype("<u2")
    # linear as it stands: the older rule asks for a width of 1 at least, and data may be of any size
    window: _Attributes = {"WindowCenter": low + span / 2, "WindowWidth": span, "VOILUTFunction": "LINEAR_EXACT"}
    for name, value in (attributes | window).items():
        if isinstance(value, list) and isinstance(value[0], float):
            value = [_short(one) for one in value]
        setattr(data, name, _short(value) if isinstance(value, float) else value)
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid(None)
    data.InstanceCreationDate, data.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = slope, intercept, "US"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def _line(text: str) -> str:
    """Return a line as DICOM has them: at most 64 bytes, of which a backslash would begin another value."""
    line = "".join(c for c in text.replace("\\", "/") if c.isprintable()).strip()
    return line.encode()[:64].decode(errors="ignore")


def _short(value: float) -> Any:
    """Return a number of at most 16 letters, as DICOM has them."""
    from pydicom.valuerep import DS

    return DS(value, auto_format=True)
