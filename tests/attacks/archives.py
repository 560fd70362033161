"""Zip archives and ``.npy`` members as no library writes them."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np


def npy(array, pickled=False):
    """Return the bytes of an array as numpy writes them."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=pickled)
    return stream.getvalue()


def npy_header(text, version=(1, 0), length=None):
    """Return the start of an ``.npy`` file whose header is any text, or declares any length."""
    header = text.encode() + b"\n"
    size = len(header) if length is None else length
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version[0] == 1 else "<I", size) + header


def described(descr, shape, data=b"", **more):
    """Return an ``.npy`` file that declares a kind and shape, whatever it holds."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return npy_header(text, **more) + data


def zeros(n_mebibytes):
    """Return a deflate stream of zeros, and its CRC is not theirs; each MiB takes a thousand bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first * n_mebibytes + b"\x03\x00"


@dataclass
class Member:
    """A member of an archive; what is not given is as it should be."""

    name: str
    content: bytes = b""
    packed: bytes | None = None
    method: int = 0
    size: int | None = None
    flags: int = 0
    at: int | None = None
    """Of the member, from the start of the file."""
    comment: int = 0
    """Length that the directory announces, of none."""

    def pack(self):
        """Return the local header and content, and the entry of the directory without the place."""
        packed = self.content if self.packed is None else self.packed
        size = len(self.content) if self.size is None else self.size
        crc = zlib.crc32(self.content)
        name = self.name.encode()
        common = struct.pack("<5H3I2H", 20, self.flags, self.method, 0, 33, crc, len(packed), size, len(name), 0)
        entry = struct.pack("<4sH", b"PK\1\2", 20) + common + struct.pack("<3HI", self.comment, 0, 0, 0)
        return struct.pack("<4s", b"PK\3\4") + common + name + packed, entry, name


def archive(*members):
    """Return a zip file of members."""
    body, directory = bytearray(), bytearray()
    for member in members:
        local, entry, name = member.pack()
        place = len(body) if member.at is None else member.at
        directory += entry + struct.pack("<I", place) + name
        if member.at is None:
            body += local
    n = min(len(members), 0xFFFF)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, n, n, len(directory), len(body), 0)
    return bytes(body + directory + end)


def npz(arrays, **replaced):
    """Return an ``.npz`` of arrays; those that are bytes already are taken as they are."""
    members = {**arrays, **replaced}
    return archive(*(Member(f"{k}.npy", v if isinstance(v, bytes) else npy(v)) for k, v in members.items()))
