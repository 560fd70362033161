"""One pair of shapes for all blocks that are turned copies of each other, in the rotations of Pulseq 1.5.1."""

import hashlib
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trajdesign.pulseq.reader.parser import Parsed, parse
from trajdesign.pulseq.reader.signature import verified

_NAME = "ROTATIONS"

#: Largest difference from a turned copy, in parts of its largest gradient: the six digits of the file's amplitudes, and
#: how exactly the bridges of turned shots are turned bridges.
_SAME = 5e-6

#: Copies have norms that differ by less, as the logarithm; so only few waveforms are compared with each other.
_BIN = 1e-4

#: Columns of a block.
_GX, _GY, _EXTENSIONS = 3, 4, 7


@dataclass(frozen=True)
class _Turn:
    """The gradients along x and y that a block plays turned by an angle, rad, and their samples (sample,), Hz/m."""

    gx: int
    gy: int
    samples: NDArray[np.complex128]
    angle: float = 0.0


def with_rotations(content: bytes) -> tuple[bytes, str]:
    """Return a signed file of version 1.5.0 as one of 1.5.1 in which turned copies share shapes, and its hash.

    Copies are blocks whose arbitrary gradients along x and y, as gx + i gy, are those of an earlier block times a phase
    factor. They name that block's gradients instead of their own, and an extension ``ROTATIONS``: the quaternion of a
    turn about z, which leaves a gradient along z as it is. A file without any becomes one of 1.5.1 all the same.
    """
    parsed = parse(content, signed=True, larmor=math.nan)
    kind, free = 1 + max(parsed.extensions, default=0), 1 + max(parsed.tables["EXTENSIONS"], default=0)
    rotations: dict[float, int] = {}
    lists: dict[tuple[int, int], int] = {}
    blocks = parsed.blocks.copy()
    for number, turn in _turns(parsed).items():
        rotation = rotations.setdefault(turn.angle, len(rotations) + 1)
        following = int(blocks[number, _EXTENSIONS])
        blocks[number, _EXTENSIONS] = lists.setdefault((rotation, following), free + len(lists))
        blocks[number, [_GX, _GY]] = turn.gx, turn.gy
    text = _Text(verified(content)[0].decode())
    text.become(1)
    if rotations:
        text.add("[DEFINITIONS]", [f"RequiredExtensions {_NAME}"])
        text.add("[EXTENSIONS]", [f"{number} {kind} {rotation} {then}" for (rotation, then), number in lists.items()])
        halves = ((number, math.cos(angle / 2), math.sin(angle / 2)) for angle, number in rotations.items())
        text.add(f"extension {_NAME} {kind}", [f"{number} {w:.12g} 0 0 {z:.12g}" for number, w, z in halves])
        rows = iter(blocks.tolist())
        text.edit("[BLOCKS]", lambda _: [*map(str, next(rows))])
        text.forget(*_idle(parsed, blocks))
    body = str(text).encode()
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return body + f"\n[SIGNATURE]\nType md5\nHash {md5}\n".encode(), md5


def without_rotations(content: bytes) -> tuple[bytes, dict[int, float]]:
    """Return a file of `with_rotations` whose blocks are not turned, unsigned, and the angle of each that was, rad.

    The blocks are told by their place in the file. So a reader that knows no rotations can take it. A file of another
    version is returned as it is.
    """
    text = _Text(verified(content)[0].decode())
    if text.sections["[VERSION]"].split()[1::2] != ["1", "5", "1"]:
        return content, {}
    text.become(0)
    header = next((name for name in text.sections if name.startswith(f"extension {_NAME} ")), None)
    if header is None:
        return str(text).encode(), {}
    kind = header.split()[2]
    angles = {number: 2 * math.atan2(float(z), float(w)) for number, w, _, _, z in map(str.split, text.rows(header))}
    lists = {row[0]: row[1:] for row in map(str.split, text.rows("[EXTENSIONS]"))}
    found = dict[int, float]()
    places = itertools.count()

    def straight(words: list[str]) -> list[str]:
        place, (of, rotation, following) = next(places), lists.get(words[-1], ["", "", ""])
        if of == kind:
            found[place] = angles[rotation]
        return [*words[:-1], following] if of == kind else words

    text.edit("[BLOCKS]", straight)
    text.edit("[EXTENSIONS]", lambda words: None if words[1] == kind else words)
    text.edit("[DEFINITIONS]", lambda words: None if words[0] == "RequiredExtensions" else words)
    del text.sections[header]
    return str(text).encode(), found


def _turns(parsed: Parsed) -> dict[int, _Turn]:
    """Return what each block plays turned that is a copy of an earlier one, by its place in the file."""
    bases: dict[tuple[int, ...], list[_Turn]] = {}
    known: dict[tuple[int, int], _Turn | None] = {}
    turns = dict[int, _Turn]()
    for number, (gx, gy) in enumerate(parsed.blocks[:, [_GX, _GY]].tolist()):
        if (gx, gy) not in known:
            known[gx, gy] = _as_turn(parsed, gx, gy, bases)
        turn = known[gx, gy]
        if turn is not None and (turn.gx, turn.gy) != (gx, gy):
            turns[number] = turn
    return turns


def _as_turn(parsed: Parsed, gx: int, gy: int, bases: dict[tuple[int, ...], list[_Turn]]) -> _Turn | None:
    """Return two gradients as a turn of one of the bases, or of themselves, a new base.

    Bases are kept by their timing, number of samples and norm. None stands for none, for others than arbitrary ones,
    and for two that are not sampled at the same times.
    """
    named = [parsed.tables["GRADIENTS"].get(number, "").split() for number in (gx, gy) if number]
    timings = {tuple(map(int, row[4:])) for row in named}
    if len(timings) != 1 or timings == {()}:
        return None
    samples = [
        np.concatenate([[float(first)], float(amplitude) * parsed.shapes[int(shape)], [float(last)]])
        for amplitude, first, last, shape, *_ in named
    ]
    if len({len(of_axis) for of_axis in samples}) != 1:
        return None
    both = samples[0] + 1j * samples[1] if gx and gy else samples[0] * (1 if gx else 1j)
    timing, place = timings.pop(), round(math.log(max(float(np.linalg.norm(both)), 1e-300)) / _BIN)
    for base in itertools.chain(*(bases.get((*timing, len(both), near), []) for near in (place - 1, place, place + 1))):
        angle = float(np.angle(np.vdot(base.samples, both)))
        if np.abs(both - base.samples * np.exp(1j * angle)).max() <= _SAME * np.abs(base.samples).max():
            return _Turn(base.gx, base.gy, base.samples, angle)
    base = _Turn(gx, gy, both)
    bases.setdefault((*timing, len(both), place), []).append(base)
    return base


def _idle(parsed: Parsed, blocks: NDArray[np.int64]) -> tuple[set[int], set[int]]:
    """Return the arbitrary gradients that no block names, and the shapes that nothing else does."""
    tables = parsed.tables
    gradients = tables["GRADIENTS"].keys() - set(blocks[:, 3:6].ravel().tolist())
    played = [row.split()[3:5] for number, row in tables["GRADIENTS"].items() if number not in gradients]
    played += [row.split()[1:4] for row in tables["RF"].values()] + [row.split()[-1:] for row in tables["ADC"].values()]
    return gradients, parsed.shapes.keys() - {int(shape) for row in played for shape in row}


class _Text:
    """The text of a file, by sections."""

    def __init__(self, text: str) -> None:
        self.first, *parts = re.split(r"^(\[\w+\]|extension \w+ \d+)\n", text, flags=re.MULTILINE)
        self.sections = dict(zip(parts[::2], parts[1::2], strict=True))

    def __str__(self) -> str:
        return self.first + "".join(f"{header}\n{lines}" for header, lines in self.sections.items())

    def become(self, revision: int) -> None:
        """Become a file of version 1.5 of this revision."""
        self.edit("[VERSION]", lambda words: [words[0], str(revision)] if words[0] == "revision" else words)

    def edit(self, header: str, change: Callable[[list[str]], list[str] | None]) -> None:
        """Change the words of each line of a section, or drop it, but for blank lines and comments."""
        lines = []
        for line in self.sections[header].split("\n"):
            words = line.split()
            if not words or words[0].startswith("#"):
                lines.append(line)
            elif changed := change(words):
                lines.append(" ".join(changed))
        self.sections[header] = "\n".join(lines)

    def rows(self, header: str) -> list[str]:
        """Return the lines of a section without blank ones and comments."""
        return [line for line in self.sections[header].split("\n") if line.strip() and not line.startswith("#")]

    def add(self, header: str, lines: list[str]) -> None:
        """Add lines to the start of a section; a new one comes before the shapes, which are last."""
        if header not in self.sections:
            shapes = self.sections.pop("[SHAPES]")
            last = next(reversed(self.sections))
            # comments at the end of a section are about the next one
            self.sections[last], *comments = re.split("^(?=#)", self.sections[last], maxsplit=1, flags=re.MULTILINE)
            self.sections |= {header: "\n" + "".join(comments), "[SHAPES]": shapes}
        self.sections[header] = "".join(f"{line}\n" for line in lines) + self.sections[header]

    def forget(self, gradients: set[int], shapes: set[int]) -> None:
        """Drop arbitrary gradients and shapes."""
        self.edit("[GRADIENTS]", lambda words: None if int(words[0]) in gradients else words)
        parts = re.split(r"^(?=shape_id )", self.sections["[SHAPES]"], flags=re.MULTILINE)
        kept = [part for part in parts if not part.startswith("shape_id ") or int(part.split()[1]) not in shapes]
        self.sections["[SHAPES]"] = "".join(kept)
