"""The heap of an HDF5 file, where texts and sequences of any length are.

HDF5 file format specification, version 3, III.E: Global Heap.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError
from trajdesign.files import untrusted

#: A file refers to a sequence by the number of its values, the collection that holds it, and the object in that.
REFERENCE = np.dtype([("n", "<u4"), ("collection", "<u8"), ("object", "<u4")])

# An object, with what is kept of it, takes more bytes than this; a row that refers to two objects takes more.
_LEAST_OBJECT = 128


def read(path: Path, references: NDArray, itemsize: int) -> Iterator[bytes]:
    """Yield the bytes that each reference points at, `itemsize` for each value; refuse more than the file holds."""
    with untrusted.opened(path, untrusted.MOST_RAW) as (stream, size):
        left = size - itemsize * int(references["n"].sum(dtype=np.uint64))
        heap: dict[int, dict[int, tuple[int, int]]] = {}
        for n, collection, number in references.tolist():
            if n and collection not in heap:
                heap[collection] = _objects(stream, collection, size, path)
                left -= _LEAST_OBJECT * len(heap[collection])
            place, length = heap[collection].get(number, (0, -1)) if n else (0, 0)
            if length != itemsize * n or left < 0:
                raise InputError(f"{path} is damaged: its heap does not hold what is referred to.")
            stream.seek(place)
            yield stream.read(length)


def _objects(stream: IO[bytes], at: int, size: int, path: Path) -> dict[int, tuple[int, int]]:
    """Return place and length of each object of the collection that starts at byte `at`, by the object's number."""
    stream.seek(min(at, size))
    start = stream.read(16)
    end = at + int.from_bytes(start[8:], "little")
    if start[:8] != b"GCOL\1\0\0\0" or end > size:
        raise InputError(f"{path} is damaged: it has no heap at {at}.")
    found, at = {}, at + 16
    while at + 16 <= end:
        stream.seek(at)
        head = stream.read(16)
        number, length = int.from_bytes(head[:2], "little"), int.from_bytes(head[8:], "little")
        if number == 0 or at + 16 + length > end:  # the rest is free
            break
        found[number] = at + 16, length
        at += 16 + -(-length // 8) * 8
    return found
