"""Chunks of HDF5 datasets, unpacked to exactly the size that they should have; another one is an `InputError`."""

import contextlib
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trajdesign.errors import InputError
from trajdesign.files import untrusted

_GZIP, _CHECKSUM, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SHUFFLE

#: The filters whose unpacked size is known before they unpack.
FILTERS = {_GZIP, _CHECKSUM, _SHUFFLE}

# The rows of a table have at most so many bytes.
_MOST_BYTES = 2**30

# A stored chunk takes at least so many bytes of the file for its place in the index; so many more may be left out.
_LEAST_CHUNK, _FREE_CHUNKS = 8, 2**14


def filters(data: h5py.Dataset) -> list[int]:
    """Return the filters that pack the chunks of a dataset, in the order of packing."""
    plan = data.id.get_create_plist()
    return [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]


def require_modest(data: h5py.Dataset, most: int) -> None:
    """Refuse, by an `InputError`, a dataset of more than `most` bytes, or of more than the file can fill."""
    path = Path(data.file.filename)
    size = path.stat().st_size
    chunk = math.prod(data.chunks or ())
    untrusted.require_modest(path, max(chunk, data.size or 0) * data.dtype.itemsize, size, most)
    n_chunks = math.prod(-(-n // m) for n, m in zip(data.shape, data.chunks, strict=True)) if data.chunks else 0
    if n_chunks > _FREE_CHUNKS + size // _LEAST_CHUNK:
        raise InputError(f"{path} of {size} bytes declares {n_chunks} chunks of {data.name[1:]!r}.")


def read(data: h5py.Dataset, number: int | None = None) -> NDArray:
    """Return a dataset of numbers, or its slice of this number, in native byte order."""
    if data.chunks and set(filters(data)) in ({_GZIP}, {_GZIP, _SHUFFLE}):
        values = _inflated_once(data, number)
    else:
        for corner, applied, size in _stored(data, number) if data.chunks else ():
            _content(data, corner, applied, size, data.dtype.itemsize)  # the library does not compare sizes
        values = data[()] if number is None else data[number]
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _inflated_once(data: h5py.Dataset, number: int | None) -> NDArray:
    """Return numbers that have no checksum, which the library would inflate a second time."""
    first, n = (0, data.shape[0]) if number is None else (number, 1)
    values = np.full((n, *data.shape[1:]), data.fillvalue, data.dtype)
    for corner, content in _unpacked(data, number, data.dtype.itemsize):
        chunk = np.frombuffer(content, data.dtype).reshape(data.chunks)
        here = corner[0] - first
        inside = chunk[max(0, -here) : n - here]
        place = (slice(max(0, here), None), *(slice(at, None) for at in corner[1:]))
        part = values[place][tuple(slice(0, m) for m in inside.shape)]
        part[...] = inside[tuple(slice(0, m) for m in part.shape)]
    return values if number is None else values[0]


def rows(data: h5py.Dataset, row: np.dtype) -> NDArray:
    """Return the rows of a table as the file stores them, as the type `row`, which may hold references."""
    path, n_rows = Path(data.file.filename), len(data)
    if not data.chunks or not is_usual(data) or _CHECKSUM in filters(data):
        raise InputError(f"{path}: {data.name[1:]!r} is stored in another way than by the libraries of ISMRMRD.")
    require_modest(data, _MOST_BYTES)
    untrusted.require_modest(path, max(n_rows, data.chunks[0]) * row.itemsize, path.stat().st_size, _MOST_BYTES)
    found = np.zeros(n_rows, row)
    for (first,), content in _unpacked(data, None, row.itemsize):
        found[first : first + data.chunks[0]] = np.frombuffer(content, row)[: n_rows - first]
    return found


def is_usual(data: h5py.Dataset) -> bool:
    """Return whether the file counts places from its start, as numbers of 8 bytes."""
    return not data.file.userblock_size and data.file.id.get_create_plist().get_sizes() == (8, 8)


def _stored(data: h5py.Dataset, number: int | None) -> Iterator[tuple[tuple[int, ...], list[int], int]]:
    """Yield corner, filters and bytes of each chunk in the file; with a `number`, of those that touch that slice."""
    found: list[Any] = []
    data.id.chunk_iter(found.append)
    packed_by = filters(data)
    for chunk in found:
        first = chunk.chunk_offset[0]
        if number is None or first <= number < first + data.chunks[0]:
            yield chunk.chunk_offset, [k for i, k in enumerate(packed_by) if not chunk.filter_mask >> i & 1], chunk.size


def _content(data: h5py.Dataset, corner: tuple[int, ...], applied: list[int], size: int, itemsize: int) -> bytes:
    """Return the inflated bytes of a chunk of the right size; of a chunk without gzip, nothing is read."""
    n_bytes = math.prod(data.chunks) * itemsize
    if _GZIP not in applied:
        n_bytes += 4 * applied.count(_CHECKSUM)
        content = b""
    else:
        n_bytes += 4 * applied[: applied.index(_GZIP)].count(_CHECKSUM)
        packed = data.id.read_direct_chunk(corner)[1] if size <= 2 * n_bytes + 64 else b""
        inflater, content = zlib.decompressobj(), b""
        with contextlib.suppress(zlib.error):
            content = inflater.decompress(packed, n_bytes + 1)
        size = len(content) if inflater.eof else -1
    if size != n_bytes:
        raise InputError(
            f"{data.file.filename}: the chunk at {corner} of {data.name[1:]!r} does not unpack to its size."
        )
    return content


def _unpacked(data: h5py.Dataset, number: int | None, itemsize: int) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yield the corner and the unpacked bytes of each chunk; it has no checksum."""
    for corner, applied, size in _stored(data, number):
        content = _content(data, corner, applied, size, itemsize)
        if _GZIP not in applied:
            content = data.id.read_direct_chunk(corner)[1]
        if _SHUFFLE in applied:
            content = np.frombuffer(content, np.uint8).reshape(itemsize, -1).T.tobytes()
        yield corner, content
