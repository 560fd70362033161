"""The blocks of a Siemens raw data file (twix) of VB, VD, VE and XA.

A file holds measurements: a text about the protocol, and then blocks, each with a head that says how long it is. The
layouts of the heads are those of twixtools; the walk over the blocks is ours, because its own follows whatever a
damaged file says: for ever, or past the end.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError, missing

# What a directory of measurements starts with is less, what a VB file starts with is more: as twixtools tells them.
_LEAST_TEXT, _MOST_TEXT, _MOST_SCANS = 10_000, 2**26, 64

# Of the length that a block of no samples says that it has.
_LENGTH_BITS = 25


@dataclass(frozen=True, eq=False)
class Blocks:
    """The bytes of a file, and how a block is laid out: its head, and then a head and samples of each channel.

    In VB a channel's head is like that of a block, which has none of its own.
    """

    content: NDArray[np.uint8]
    head: np.dtype
    channel: np.dtype
    own: int
    bits: dict[str, int]
    """Of the flags of a head, from 0, by the names of twixtools."""

    def flag(self, heads: Any, *names: str) -> Any:
        """Return whether a head has one of some flags, or which of many heads do."""
        return heads["EvalInfoMask"] & np.uint64(sum(1 << self.bits[name] for name in names)) != 0

    def head_at(self, at: int) -> Any:
        """Return the head of a block."""
        return self.content[at : at + self.head.itemsize].view(self.head)[0]

    def length(self, head: Any) -> int:
        """Return the bytes of a block, which of synchronous data are its own, and else follow from its samples."""
        if self.flag(head, "SYNCDATA") and not self.flag(head, "ACQEND"):
            return int(head["FlagsAndDMALength"]) % 2**_LENGTH_BITS
        return self.own + int(head["UsedChannels"]) * self._stride(head)

    def samples(self, at: int, head: Any) -> NDArray[np.complex64]:
        """Return the samples (coil, sample) of an event, where they lie in the file."""
        shape = int(head["UsedChannels"]), int(head["SamplesInScan"])
        start = at + self.own + self.channel.itemsize
        return np.ndarray(shape, "<c8", self.content.data, start, (self._stride(head), 8))

    def is_event(self, at: int, head: Any) -> bool:
        """Return whether the heads of the channels of an event agree, which they do in no other place of a file."""
        shape = (int(head["UsedChannels"]),)
        heads: NDArray = np.ndarray(shape, self.channel, self.content.data, at + self.own, (self._stride(head),))
        same = [name for name in ("MeasUID", "SamplesInScan", "UsedChannels") if name in (self.channel.names or ())]
        return bool(shape[0] and head["SamplesInScan"]) and all((heads[name] == heads[name][0]).all() for name in same)

    def _stride(self, head: Any) -> int:
        return self.channel.itemsize + 8 * int(head["SamplesInScan"])


@dataclass(frozen=True, eq=False)
class Scan:
    """A measurement: its text, where its ADC events start, and their heads (event,)."""

    text: bytes
    at: list[int]
    heads: NDArray


def walk(content: NDArray[np.uint8], path: Path) -> tuple[Blocks, list[Scan]]:
    """Return the measurements of a file that are not empty, in its order.

    Raises
    ------
    InputError
        If it is no twix file, cut off, or damaged.
    ResourceError
        If twixtools is not installed.
    """
    try:
        from twixtools.hdr_def import MultiRaidFileHeader
        from twixtools.mdh_def import Channel_header, Scan_header, VB17_header, mask_dict
    except ImportError:
        raise missing("a Siemens raw data file (.dat)", "twixtools", "twix") from None
    if len(content) < _LEAST_TEXT:
        raise InputError(f"{path} of {len(content)} bytes is no Siemens raw data file (twix).")
    head = np.dtype(VB17_header)
    if int(content[:4].view("<u4")[0]) >= _LEAST_TEXT:
        blocks, bounds = Blocks(content, head, head, 0, mask_dict), [(0, len(content))]
    else:
        head = np.dtype(Scan_header)
        blocks = Blocks(content, head, np.dtype(Channel_header), head.itemsize, mask_dict)
        bounds = _directory(content, MultiRaidFileHeader, path)
    return blocks, [_scan(blocks, start, stop, path) for start, stop in bounds]


def _directory(content: NDArray[np.uint8], directory: np.dtype, path: Path) -> list[tuple[int, int]]:
    """Return the first byte of each measurement that is not empty, and the one after its last."""
    size, found = len(content), content[: directory.itemsize].view(directory)[0]
    n = int(found["hdr"]["count_"])
    if not 1 <= n <= _MOST_SCANS:
        raise InputError(f"{path} is no Siemens raw data file (twix), or damaged: it announces {n} measurements.")
    starts, lengths = (found["entry"][name][:n].tolist() for name in ("off_", "len_"))
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
    return bounds


def _scan(blocks: Blocks, start: int, stop: int, path: Path) -> Scan:
    """Walk over the blocks of a measurement, from its text to the block that says that it is the end."""
    least = blocks.head.itemsize
    n_text = int(blocks.content[start : start + 4].view("<u4")[0]) if stop - start > least else 0
    if not 8 <= n_text <= min(stop - start, _MOST_TEXT):
        raise InputError(f"{path} is no Siemens raw data file (twix), or damaged: a text of {n_text} bytes at {start}.")
    found: list[int] = []
    at, number = start + n_text, None
    while at + least <= stop:
        head = blocks.head_at(at)
        length, is_end = blocks.length(head), blocks.flag(head, "ACQEND")
        is_other = is_end or blocks.flag(head, "SYNCDATA")
        if at + length > stop and not is_end:
            break
        if not is_other:
            number = int(head["MeasUID"]) if number is None else number
            cut = int(head["CutOff"]["Pre"]) + int(head["CutOff"]["Post"])
            is_sound = int(head["MeasUID"]) == number and cut <= head["SamplesInScan"] and blocks.is_event(at, head)
        else:
            is_sound = _is_end(blocks, at, stop, number) if is_end else length >= least
        if not is_sound:
            raise InputError(
                f"{path} is damaged: at byte {at}, after {len(found)} ADC events, is no block of the measurement."
            )
        if is_end:
            heads = np.empty(len(found), blocks.head)
            for i, place in enumerate(found):
                heads[i] = blocks.head_at(place)
            return Scan(blocks.content[start : start + n_text].tobytes(), found, heads)
        # what the scanner plays for itself is in no sequence
        if not is_other and not blocks.flag(head, "RTFEEDBACK", "HPFEEDBACK"):
            found.append(at)
        at += length
    raise InputError(
        f"{path} is cut off or damaged: after {len(found)} ADC events, at byte {at}, the file or its measurement ends "
        "without the mark of its end; copy it from the scanner again."
    )


def _is_end(blocks: Blocks, at: int, stop: int, number: int | None) -> bool:
    """Return whether a block ends its measurement, and is no event with a damaged flag, which others follow."""
    head = blocks.head_at(at)
    as_twixtools_writes = head["MeasUID"] == 0 and head["EvalInfoMask"] == 1
    if number is not None and int(head["MeasUID"]) != number and not as_twixtools_writes:
        return False
    at += max(blocks.length(head), blocks.head.itemsize)
    if at + blocks.head.itemsize > stop:
        return True
    following = blocks.head_at(at)
    is_one = int(following["MeasUID"]) == number and following["SamplesInScan"] > 0 and following["UsedChannels"] > 0
    return not is_one
