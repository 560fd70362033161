"""Siemens raw data (twix, ``.dat``): the ADC events of the last measurement of a file, and what its text tells."""

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.data.measured.measurement import Events, Measurement, Protocol, Slice, flagged, joined, slices
from trajdesign.data.measured.twix_blocks import Blocks, Scan, walk
from trajdesign.errors import InputError
from trajdesign.files import untrusted

# Parameters of the part "Dicom" of the text.
_SYSTEM = ("Manufacturer", "ManufacturersModelName", "SoftwareVersions")
_OF_SYSTEM = ("flMagneticFieldStrength", "flReadoutOSFactor", "tPatientPosition")

# Of the first slice, mm, in the protocol.
_SIZES = ("dReadoutFOV", "dPhaseFOV", "dThickness")

_NOISE = "NOISEADJSCAN"
_FLAGS = {
    _NOISE: "noise",
    "PATREFSCAN": "calibration",
    "PATREFANDIMASCAN": "calibration and image",
    "REFLECT": "reversed",
    "PHASCOR": "phase correction",
    "REFPHASESTABSCAN": "phase stabilisation",
    "PHASESTABSCAN": "phase stabilisation",
    "RETRO_DUMMYSCAN": "dummy",
}


def read(path: Path) -> Measurement:
    """Read the last measurement of a file, and the noise scan before it.

    Raises
    ------
    InputError
        If it is no twix file, cut off, damaged, or holds no ADC event.
    ResourceError
        If twixtools is not installed.
    """
    with untrusted.opened(path, untrusted.MOST_RAW) as (stream, size):
        content = np.asarray(np.memmap(stream, np.uint8, "r")) if size else np.zeros(0, np.uint8)
        blocks, scans = walk(content, path)
        scan = scans[-1]
        if not scan.at:
            raise InputError(f"{path} holds no ADC event in its last measurement.")
        noise, of = _noise(blocks, scans)
        events = _events(blocks, scan, np.arange(len(scan.at)))
    dwell, oversampling, protocol = _told(scan)
    cut = scan.heads["CutOff"]
    return Measurement(
        path=path,
        kind="twix",
        events=events,
        discard=np.stack([cut["Pre"], cut["Post"]], axis=1).astype(np.int64),
        stamps=scan.heads["PMUTimeStamp"].astype(np.int64),
        flags=flagged(scan.heads["EvalInfoMask"], {blocks.bits[key]: name for key, name in _FLAGS.items()}),
        dwell=dwell,
        noise=noise,
        noise_dwell=None if of is None else _told(of)[0],
        oversampling=oversampling,
        protocol=protocol,
    )


def _events(blocks: Blocks, scan: Scan, which: NDArray[np.intp]) -> Events:
    """Return the samples of events, of which is one at least."""
    found = [blocks.samples(scan.at[i], scan.heads[i]) for i in which]
    if len({event.shape for event in found}) > 1:
        return [np.array(event) for event in found]
    events = np.empty((len(found), *found[0].shape), np.complex64)
    for i, event in enumerate(found):
        events[i] = event
    return events


def _noise(blocks: Blocks, scans: list[Scan]) -> tuple[NDArray[np.complex64] | None, Scan | None]:
    """Return the samples of the last noise scan before the measurement, or in it, and of which scan they are."""
    for scan in [*scans[-2::-1], scans[-1]]:
        which = np.flatnonzero(blocks.flag(scan.heads, _NOISE))
        if len(which):
            return joined(_events(blocks, scan, which)), scan
    return None, None


def _told(scan: Scan) -> tuple[float | None, float | None, Protocol]:
    """Return the dwell time (s), the oversampling, and what else a measurement's text tells."""
    texts = _texts(scan.text)
    settings = texts.get("MeasYaps", "")
    told = {name: _parameter(texts.get("Dicom", ""), name) for name in (*_SYSTEM, *_OF_SYSTEM)}
    dwell = _positive(_setting(settings, "sRXSPEC.alDwellTime[0]"), 1e9)
    sizes = [_positive(_setting(settings, f"sSliceArray.asSlice[0].{name}"), 1e3) for name in _SIZES]
    return (
        dwell,
        _positive(told["flReadoutOSFactor"]),
        Protocol(
            system=" ".join(filter(None, (told[name] for name in _SYSTEM))),
            name=_setting(settings, "tProtocolName"),
            field_strength=_positive(told["flMagneticFieldStrength"]),
            fov=tuple(size for size in sizes if size is not None) if None not in sizes else (),
            patient_position=told["tPatientPosition"],
            slices=_slices(scan.heads),
        ),
    )


def _slices(heads: NDArray) -> tuple[Slice, ...]:
    """Return the slices of events, whose rotation has the columns phase, read and normal."""
    of = heads["SliceData"]
    w, x, y, z = of["Quaternion"].astype(float).T
    position = np.stack([of["SlicePos"][name] for name in ("Sag", "Cor", "Tra")], axis=1).astype(float)
    with np.errstate(over="ignore", invalid="ignore"):
        phase = np.stack([w * w + x * x - y * y - z * z, 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=1)
        read = np.stack([2 * (x * y - w * z), w * w - x * x + y * y - z * z, 2 * (y * z + w * x)], axis=1)
        normal = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), w * w - x * x - y * y + z * z], axis=1)
    return slices(position, read, phase, normal)


def _texts(text: bytes) -> dict[str, str]:
    """Return the parts of a measurement's text by their names, as far as it can be understood."""
    found, at = {}, 8
    for _ in range(int.from_bytes(text[4:8], "little")):
        end = text.find(b"\0", at, at + 48)
        length = int.from_bytes(text[end + 1 : end + 5], "little")
        if end <= at or end + 5 + length > len(text):
            break
        found[text[at:end].decode("latin-1")] = text[end + 5 : end + 5 + length].decode("latin-1")
        at = end + 5 + length
    return found


def _parameter(text: str, name: str) -> str:
    """Return the value of a parameter, empty if there is none: ``<ParamDouble."name"> { <Precision> 6 2.89 }``."""
    at = text.find(f'."{name}">')
    body = text[at : at + 400].partition("{")[2].partition("}")[0] if at >= 0 else ""
    return re.sub(r"<\w+>\s*\S+", "", body).strip(' \t\r\n"')


def _setting(text: str, name: str) -> str:
    """Return the value of a line ``name = value``, empty if there is none."""
    found = re.search(rf"^{re.escape(name)}[ \t]*=(.*)$", text, flags=re.MULTILINE)
    return found[1].strip(' \t\r"') if found else ""


def _positive(text: str, per_unit: float = 1.0) -> float | None:
    """Return a number that is positive and finite, in SI; else None."""
    try:
        value = float(text) / per_unit
    except ValueError:
        return None
    return value if 0 < value < math.inf else None
