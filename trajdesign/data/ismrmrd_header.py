"""The XML header of ISMRMRD: what is needed of it, whatever the version of its schema and of any library."""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from trajdesign.errors import InputError


@dataclass(frozen=True)
class Header:
    """What a header tells of its first encoding, along x, the readout, and y, and of who was measured.

    A number is NaN where the header does not tell it, and -1 where it is not finite.
    """

    trajectory: str
    encoded_matrix: tuple[float, float]
    encoded_fov: tuple[float, float]
    """mm."""
    recon_matrix: tuple[float, float]
    recon_fov: tuple[float, float]
    """mm."""
    lines: tuple[float, float, float]
    """First, last and central number of the phase encoding."""
    people: tuple[str, ...]
    """Identities of the patient and of the study."""
    system: str
    """Vendor and model."""
    protocol: str
    patient_position: str
    field_strength: float | None
    """T."""
    extent: tuple[float, ...]
    """Field of view of the reconstruction along x, y and z, m; empty where the header does not tell."""
    trajectory_unit: str

    @property
    def oversampling(self) -> float | None:
        """How many times the field of view of the reconstruction the readout encodes."""
        encoded, recon = self.encoded_fov[0], self.recon_fov[0]
        return encoded / recon if 0 < encoded < math.inf and 0 < recon < math.inf else None


def parse(text: str | None, path: Path) -> Header:
    """Read a header; no XML, entities, and a size that is no number are an `InputError`."""
    if "<!DOCTYPE" in (text or ""):  # entities that stand for more than any memory holds, or for other files
        raise InputError(f"{path}: its ISMRMRD header defines entities, which no such header needs.")
    try:
        root = ElementTree.fromstring(text or "")
        encoding = root.find("{*}encoding")
        if encoding is None:
            encoding = ElementTree.Element("encoding")
        system = "acquisitionSystemInformation/{*}"
        limits = (f"encodingLimits/kspace_encoding_step_1/{name}" for name in ("minimum", "maximum", "center"))
        first, last, centre = (_number(encoding, place) for place in limits)
        names = ("subjectInformation/{*}patientID", "studyInformation/{*}studyInstanceUID")
        return Header(
            encoding.findtext("{*}trajectory", "").strip().lower(),
            _pair(encoding, "encodedSpace/matrixSize"),
            _pair(encoding, "encodedSpace/fieldOfView_mm"),
            _pair(encoding, "reconSpace/matrixSize"),
            _pair(encoding, "reconSpace/fieldOfView_mm"),
            (first, last, centre),
            tuple(filter(None, (root.findtext("{*}" + name) for name in names))),
            " ".join(filter(None, (root.findtext("{*}" + system + name) for name in ("systemVendor", "systemModel")))),
            root.findtext("{*}measurementInformation/{*}protocolName", ""),
            root.findtext("{*}measurementInformation/{*}patientPosition", ""),
            _positive(_number(root, "acquisitionSystemInformation/systemFieldStrength_T")),
            _extent(encoding),
            _unit(encoding),
        )
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: its ISMRMRD header (ismrmrd_header, or xml) cannot be read ({error}).") from None


def _pair(encoding: ElementTree.Element, place: str) -> tuple[float, float]:
    return _number(encoding, f"{place}/x"), _number(encoding, f"{place}/y")


def _extent(encoding: ElementTree.Element) -> tuple[float, ...]:
    sizes = [_positive(_number(encoding, f"reconSpace/fieldOfView_mm/{axis}")) for axis in "xyz"]
    return tuple(1e-3 * size for size in sizes if size is not None) if None not in sizes else ()


def _unit(encoding: ElementTree.Element) -> str:
    """Return the unit of the trajectory, as `trajdesign.trajectories.formats.mrd` and others write it."""
    for parameter in encoding.iterfind("{*}trajectoryDescription/{*}userParameterString"):
        if parameter.findtext("{*}name") == "trajectory_units":
            return parameter.findtext("{*}value", "")
    return ""


def _positive(value: float) -> float | None:
    return value if 0 < value < math.inf else None


def _number(encoding: ElementTree.Element, place: str) -> float:
    """Return the number of an element, by the names on its path; NaN if there is none."""
    text = (encoding.findtext("/".join("{*}" + name for name in place.split("/"))) or "").strip()
    value = float(text) if text else math.nan
    return value if not text or math.isfinite(value) else -1.0  # no size or number of a line is negative
