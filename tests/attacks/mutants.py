"""Damage to the bytes of a file, of a seed."""

import random

from attacks.commands import require_one_line

from trajdesign.errors import TrajdesignError

#: Bytes that numbers, lengths and texts turn on.
SPECIAL = [
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00" * 8,
    b"-1",
    b"9" * 9,
    b"nan",
]


def mutants(whole, n, seed=0):
    """Yield n damaged copies: bits flipped, bytes written over, pieces cut out, repeated or blanked, the end lost."""
    draw = random.Random(seed)
    for _ in range(n):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 1, 2, 4, 8))):
            _damage(data, draw)
        yield bytes(data)


def taken(path, copies, read, codes=(3,)):
    """Yield what is read of each damaged copy of a file; those that are refused are refused in one line."""
    for data in copies:
        path.write_bytes(data)
        try:
            found = read(path)
        except TrajdesignError as error:
            require_one_line(error, codes)
            continue
        yield found


def _damage(data, draw):
    if not data:
        return
    at = draw.randrange(len(data))
    length = draw.choice((1, 2, 4, 8, 64, 512))
    kind = draw.randrange(9)
    if kind <= 2:
        data[at] ^= 1 << draw.randrange(8)
    elif kind == 3:
        data[at] = draw.randrange(256)
    elif kind == 4:
        special = draw.choice(SPECIAL)
        data[at : at + len(special)] = special
    elif kind == 5:
        del data[at : at + length]
    elif kind == 6:
        data[at:at] = data[at : at + length]
    elif kind == 7:
        other = draw.randrange(len(data))
        data[at : at + length] = data[other : other + length]
    elif draw.random() < 0.3:
        del data[at:]
    else:
        data[at : at + length] = bytes(len(data[at : at + length]))
