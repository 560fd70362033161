"""Siemens raw data (twix, ``.dat``) of VB, VD, VE and XA.

A file holds measurements: a text about the protocol, and then blocks, each with a head that says how long it is. The
layouts of the heads are those of twixtools; the walk over the blocks is ours, because its own follows whatever a damaged
file says: for ever, or past the end.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.data.measured.measurement import Events, Measurement, Protocol, Slice, flagged, joined, slices
from trajdesign.errors import InputError, missing
from trajdesign.files import untrusted

# What a directory of measurements starts with is less, what a VB file starts with is more: as twixtools tells them.
_LEAST_TEXT, _MOST_TEXT, _MOST_SCANS = 10_000, 2**26, 64

# Parameters of the part "Dicom" of the text.
_SYSTEM = ("Manufacturer", "ManufacturersModelName", "SoftwareVersions")
_OF_SYSTEM = ("flMagneticFieldStrength", "flReadoutOSFactor", "tPatientPosition")

# Of the first slice, mm, in the protocol.
_SIZES = ("dReadoutFOV", "dPhaseFOV", "dThickness")

# A block says of itself; and whose length is its own or follows from its samples.
_END, _FEEDBACK, _SYNCHRONOUS = ("ACQEND",), ("RTFEEDBACK", "HPFEEDBACK"), ("SYNCDATA",)
_FLAGS = {
    "NOISEADJSCAN": "noise",
    "PATREFSCAN": "calibration",
    "PATREFANDIMASCAN": "calibration and image",
    "REFLECT": "reversed",
    "PHASCOR": "phase correction",
    "REFPHASESTABSCAN": "phase stabilisation",
    "PHASESTABSCAN": "phase stabilisation",
    "RETRO_DUMMYSCAN": "dummy",
}


@dataclass(frozen=True, eq=False)
class _Layout:
    """How blocks are laid out: a head of its own, before the channels, and a head of each channel.

    In VB a channel's head is the whole one, and the block has none of its own.
    """

    head: np.dtype
    own: int
    per_channel: int
    bits: dict[str, int]

    def mask(self, names: tuple[str, ...]) -> int:
        """Return the word of these flags."""
        return sum(1 << self.bits[name] for name in names)


@dataclass(frozen=True, eq=False)
class _Scan:
    """A measurement: its text, where its events start, and their heads."""

    text: bytes
    at: list[int]
    heads: NDArray


def read(path: Path) -> Measurement:
    """Read the last measurement of a file, and the noise scan before it.

    Raises
    ------
    InputError
        If it is no twix file, cut off, damaged, or holds no ADC event.
    ResourceError
        If twixtools is not installed.
    """
    library = _library()
    with untrusted.opened(path, untrusted.MOST_RAW) as (stream, size):
        if size < _LEAST_TEXT:
            raise InputError(f"{path} of {size} bytes is no Siemens raw data file (twix).")
        content = np.asarray(np.memmap(stream, np.uint8, "r"))
        layout, bounds = _directory(content, path, library)
        scans = [_scan(content, bound, layout, path) for bound in bounds]
        scan = scans[-1]
        if not scan.at:
            raise InputError(f"{path} holds no ADC event in its last measurement.")
        flags = flagged(scan.heads["EvalInfoMask"], {layout.bits[key]: name for key, name in _FLAGS.items()})
        noise, of = _noise(content, scans, layout)
        events = _events(content, scan, np.arange(len(scan.at)), layout)
    dwell, oversampling, protocol = _told(scan)
    cut = scan.heads["CutOff"]
    return Measurement(
        path=path,
        kind="twix",
        events=events,
        flags=flags,
        discard=np.stack([cut["Pre"], cut["Post"]], axis=1).astype(np.int64),
        dwell=dwell,
        noise=noise,
        noise_dwell=None if of is None else _told(of)[0],
        oversampling=oversampling,
        protocol=protocol,
    )


def _library() -> Any:
    try:
        import twixtools.hdr_def
        import twixtools.mdh_def
    except ImportError:
        raise missing("a Siemens raw data file (.dat)", "twixtools", "twix") from None
    return twixtools


def _directory(content: NDArray[np.uint8], path: Path, library: Any) -> tuple[_Layout, list[tuple[int, int]]]:
    """Return the layout, and the first byte of each measurement that is not empty and the one after its last."""
    size, (first, n) = len(content), content[:8].view("<u4").tolist()
    bits, definitions = library.mdh_def.mask_dict, library.mdh_def
    if first >= _LEAST_TEXT:
        head = np.dtype(definitions.VB17_header)
        return _Layout(head, 0, head.itemsize, bits), [(0, size)]
    if not 1 <= n <= _MOST_SCANS:
        raise InputError(f"{path} is no Siemens raw data file (twix), or damaged: it announces {n} measurements.")
    directory = library.hdr_def.MultiRaidFileHeader
    entries = content[: directory.itemsize].view(directory)[0]["entry"]
    starts, lengths = (entries[name][:n].tolist() for name in ("off_", "len_"))
    lengths[-1] = lengths[-1] or size - starts[-1]  # some scanners leave it at zero
    bounds = [(start, start + length) for start, length in zip(starts, lengths, strict=True) if length]
    for start, stop in bounds:
        if start < directory.itemsize or stop <= start or stop > size:
            raise InputError(
                f"{path} has {size} bytes, and announces a measurement from byte {start} to {stop}: it is cut off or "
                "damaged; copy it from the scanner again."
            )
    if sum(lengths) > size:
        raise InputError(f"{path} is damaged: its measurements overlap.")
    head = np.dtype(definitions.Scan_header)
    return _Layout(head, head.itemsize, np.dtype(definitions.Channel_header).itemsize, bits), bounds


def _scan(content: NDArray[np.uint8], bound: tuple[int, int], layout: _Layout, path: Path) -> _Scan:
    """Walk over the blocks of a measurement, from its text to the block that says that it is the end."""
    start, stop = bound
    n_text = int(content[start : start + 4].view("<u4")[0]) if stop - start > layout.head.itemsize else 0
    if not 8 <= n_text <= min(stop - start, _MOST_TEXT):
        raise InputError(f"{path} is no Siemens raw data file (twix), or damaged: a text of {n_text} bytes at {start}.")
    end, feedback, other = (layout.mask(names) for names in (_END, _FEEDBACK, _SYNCHRONOUS))
    at, found, number = start + n_text, [], None
    while at + layout.head.itemsize <= stop:
        head = content[at : at + layout.head.itemsize].view(layout.head)[0]
        mask, n_samples, n_coils = int(head["EvalInfoMask"]), int(head["SamplesInScan"]), int(head["UsedChannels"])
        length = layout.own + n_coils * (layout.per_channel + 8 * n_samples)
        if mask & end:
            _require_end(content, at, length, stop, number, layout, path)
            text = content[start : start + n_text].tobytes()
            heads = np.empty(len(found), layout.head)
            for i, place in enumerate(found):
                heads[i] = content[place : place + layout.head.itemsize].view(layout.head)[0]
            return _Scan(text, found, heads)
        if mask & other:
            length = int(head["FlagsAndDMALength"]) % 2**25
            is_sound = length >= layout.head.itemsize
        else:
            number = int(head["MeasUID"]) if number is None else number
            cut = head["CutOff"]
            is_sound = n_samples > 0 and n_coils > 0 and int(head["MeasUID"]) == number
            is_sound = is_sound and int(cut["Pre"]) + int(cut["Post"]) <= n_samples
        if at + length > stop:
            break
        if not is_sound:
            raise InputError(
                f"{path} is damaged: at byte {at}, after {len(found)} ADC events, is no block of the measurement."
            )
        if not mask & (other | feedback):
            found.append(at)
        at += length
    raise InputError(
        f"{path} is cut off or damaged: after {len(found)} ADC events, at byte {at}, the file or its measurement ends "
        "without the mark of its end; copy it from the scanner again."
    )


def _require_end(
    content: NDArray[np.uint8], at: int, length: int, stop: int, number: int | None, layout: _Layout, path: Path
) -> None:
    """Refuse an end of another measurement, or one that events follow, which a damaged flag makes of an event."""
    is_other = number is not None and int(
        content[at : at + layout.head.itemsize].view(layout.head)[0]["MeasUID"]
    ) not in (
        number,
        0,  # as twixtools writes it
    )
    following = at + max(length, layout.head.itemsize)
    if not is_other and following + layout.head.itemsize <= stop:
        head = content[following : following + layout.head.itemsize].view(layout.head)[0]
        is_other = int(head["MeasUID"]) == number and bool(head["SamplesInScan"]) and bool(head["UsedChannels"])
    if is_other:
        raise InputError(f"{path} is damaged: its measurement is said to end at byte {at}, where it does not.")


def _events(content: NDArray[np.uint8], scan: _Scan, which: NDArray[np.intp], layout: _Layout) -> Events:
    """Return the samples of events, of which is one at least."""
    sizes = np.stack([scan.heads["UsedChannels"], scan.heads["SamplesInScan"]], axis=1)[which].astype(int)

    def samples(i: int) -> NDArray[np.complex64]:
        n_coils, n_samples = map(int, sizes[i])
        return np.ndarray(
            (n_coils, n_samples),
            "<c8",
            content.data,
            scan.at[which[i]] + layout.own + layout.per_channel,
            (layout.per_channel + 8 * n_samples, 8),
        )

    if (sizes != sizes[0]).any():
        return [np.array(samples(i)) for i in range(len(which))]
    events = np.empty((len(which), *sizes[0]), np.complex64)
    for i in range(len(which)):
        events[i] = samples(i)
    return events


def _noise(
    content: NDArray[np.uint8], scans: list[_Scan], layout: _Layout
) -> tuple[NDArray[np.complex64] | None, _Scan | None]:
    """Return the samples of the last noise scan before the measurement, or in it, and of which scan they are."""
    for scan in [*scans[-2::-1], scans[-1]]:
        which = np.flatnonzero(scan.heads["EvalInfoMask"] >> np.uint64(layout.bits["NOISEADJSCAN"]) & np.uint64(1))
        if len(which):
            return joined(_events(content, scan, which, layout)), scan
    return None, None


def _told(scan: _Scan) -> tuple[float | None, float | None, Protocol]:
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
        phase = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=1)
        read = np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], axis=1)
        normal = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)
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
