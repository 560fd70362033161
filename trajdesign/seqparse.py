"""The text of a Pulseq file as tables of numbers, strictly: what is damaged or unknown is refused.

Specification: https://pulseq.github.io/specification.pdf.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trajdesign.errors import InputError

VERSIONS = ("1.4.0", "1.4.1", "1.4.2", "1.5.0", "1.5.1")

#: A bound that no sensible file reaches, so that a hostile one cannot fill the memory: samples and vertices.
MOST_POINTS = 50_000_000

#: Columns of each table after the id, in versions 1.4 and 1.5.
_TABLES = {
    "BLOCKS": (7, 7),
    "RF": (7, 11),
    "GRADIENTS": (4, 6),
    "TRAP": (5, 5),
    "ADC": (5, 8),
    "EXTENSIONS": (3, 3),
}

#: Extensions that leave pulses, gradients and times as they are; a wait for a trigger counts as no time.
_HARMLESS = ("LABELSET", "LABELINC", "TRIGGERS")

#: Samples of all shapes: so many, and so many for each line that holds them, as what is constant takes three lines.
_FREE_POINTS, _MOST_RATIO = 2**20, 100

_MOST_LABELS = 64

#: Ends of lines that readers take differently, and other characters that are no text.
_STRANGE = re.compile("[^\t\n\x20-\x7e\xa0-\U0010ffff]|[\u2028\u2029]")

_SIGNATURE = re.compile(rb"\r?\n\[SIGNATURE\][ \t]*\r?\n")


@dataclass(frozen=True)
class Parsed:
    """The tables of a file.

    Parameters
    ----------
    version
        Of the file format.
    definitions
        As text.
    tables
        Per table, id -> the other columns, as text.
    shapes
        Id -> decompressed samples (sample,).
    md5
        The signature, which fits the content; empty if the file has none.
    labels
        Type of an extension -> whether it adds to labels (or sets them), and id -> label and number.
    larmor
        Frequency of which the file may give offsets in ppm, Hz; not a number if it is unknown.
    """

    version: str
    definitions: dict[str, str]
    tables: dict[str, dict[int, list[str]]]
    shapes: dict[int, np.ndarray]
    md5: str
    labels: dict[int, tuple[bool, dict[int, tuple[str, int]]]]
    larmor: float

    @property
    def is_old(self) -> bool:
        """Whether the file is of version 1.4, which stores no edges of gradients and no use of pulses."""
        return self.version.startswith("1.4")

    def raster(self, name: str) -> float:
        """Return a definition that is one time, s."""
        if name not in self.definitions:
            raise InputError(f"the definition {name} is missing.")
        value = number(self.definitions[name])
        if not 1e-9 <= value < 1:
            raise InputError(f"the definition {name} is {value}.")
        return value


def parse(content: bytes, *, signed: bool, larmor: float) -> Parsed:
    """Parse the bytes of a text file.

    Parameters
    ----------
    content
        The whole file.
    signed
        Whether a signature is demanded. One that is there has to fit either way.
    larmor
        As of `Parsed`.

    Raises
    ------
    InputError
        If anything is damaged, contradicts the format or is unknown.
    """
    body, md5 = _verified(content, signed)
    sections = _sections(body.decode("utf-8"))
    if "VERSION" not in sections:
        raise InputError("the section [VERSION] is missing; this is no Pulseq text file.")
    parts = _pairs(sections["VERSION"])
    version = ".".join(parts.get(part, "?") for part in ("major", "minor", "revision"))
    if version not in VERSIONS:
        raise InputError(f"the format version is {version}; this reader knows {', '.join(VERSIONS)}.")
    tables = {}
    for name, columns in _TABLES.items():
        rows = [line.split() for line in sections.get(name, [])]
        n_columns = 1 + columns[not version.startswith("1.4")]
        if any(len(row) != n_columns for row in rows):
            raise InputError(f"a line of [{name}] has not {n_columns} columns.")
        if any("_" in line for line in sections.get(name, [])):  # which Python takes for part of a number
            raise InputError(f"a line of [{name}] holds an underscore.")
        tables[name] = {int(row[0]): row[1:] for row in rows}
        if len(tables[name]) != len(rows):
            raise InputError(f"[{name}] holds the same id twice.")
    definitions = _pairs(sections.get("DEFINITIONS", []))
    for extension in definitions.get("RequiredExtensions", "").split():
        _require_harmless(extension)
    return Parsed(version, definitions, tables, _shapes(sections.get("SHAPES", [])), md5, _labels(sections), larmor)


def number(text: str) -> float:
    """Return the finite number that a word stands for."""
    value = float(text)
    if not abs(value) < 1e30 or "_" in text:
        raise InputError(f"{text} is no finite number.")
    return value


def whole(text: str) -> int:
    """Return the whole number that a word stands for."""
    if "_" in text:
        raise InputError(f"{text} is no whole number.")
    return int(text)


def _verified(content: bytes, signed: bool) -> tuple[bytes, str]:
    """Return what was signed, and the signature."""
    places = list(_SIGNATURE.finditer(content))
    if not places:
        if signed:
            raise InputError("the file has no signature; it is truncated or was not signed.")
        return content, ""
    body, signature = content[: places[-1].start()], content[places[-1].end() :]
    if any(
        line.strip() and line.split()[0] not in (b"Type", b"Hash") and line[:1] != b"#"
        for line in signature.splitlines()
    ):
        raise InputError("the file goes on after its signature, which does not cover that.")
    stored = re.search(rb"^Hash ([0-9a-f]{32})\s*$", signature, re.MULTILINE)
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    if stored is None or stored[1].decode() != md5:
        lines = " (its lines end in CR LF, which a signature of LF lines does not fit)" if b"\r\n" in body else ""
        raise InputError(f"the file does not fit its signature; it is truncated or was changed{lines}.")
    return body, md5


def _require_harmless(extension: str) -> None:
    if extension not in _HARMLESS:
        raise InputError(f"the extension {extension} may change gradients or timing; this reader does not play it.")


def _sections(text: str) -> dict[str, list[str]]:
    """Split the text into sections: name and lines without comments and blank lines.

    Lines end where every reader ends them: a line that only some see could hide what is played from a check.
    """
    text = text.replace("\r\n", "\n")
    if strange := _STRANGE.search(text):
        raise InputError(f"the file holds the character {strange[0]!r}, which readers take differently.")
    sections: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for whole_line in text.split("\n"):
        line = whole_line.strip(" \t")
        if not line or line.startswith("#"):
            continue
        if line.startswith(("[", "extension ")):
            name = _section(line)
            if name in sections:
                raise InputError(f"the section {line!r} occurs twice.")
            lines = sections[name] = []
        elif lines is None:
            raise InputError("the file has text before its first section.")
        else:
            if name != "DEFINITIONS" and not line.isascii():
                raise InputError(f"{line!r} is no line of [{name}].")
            lines.append(line)
    return sections


def _section(line: str) -> str:
    """Return the name of the section that a line starts."""
    if line.startswith("extension "):
        _require_harmless(line.split()[1])
        return line
    if line not in (f"[{name}]" for name in (*_TABLES, "VERSION", "DEFINITIONS", "SHAPES")):
        raise InputError(f"the section {line} is unknown to this reader.")
    return line[1:-1]


def _labels(sections: dict[str, list[str]]) -> dict[int, tuple[bool, dict[int, tuple[str, int]]]]:
    """Return the labels of the sections of extensions, as `Parsed` holds them."""
    labels = {}
    for section, lines in sections.items():
        _, extension, kind = section.split() if section.startswith("extension ") else ("", "", "0")
        if extension in ("LABELSET", "LABELINC"):
            rows = [line.split() for line in lines]
            labels[whole(kind)] = extension == "LABELINC", {whole(i): (name, _counter(word)) for i, word, name in rows}
    names = {name for _, rows in labels.values() for name, _ in rows.values()}
    if len(names) > _MOST_LABELS:  # each is kept for each ADC event
        raise InputError(f"the file uses {len(names)} labels; {_MOST_LABELS} are read.")
    return labels


def _counter(text: str) -> int:
    """Return the whole number that a label is given; interpreters keep it in 32 bits."""
    value = number(text)
    if value != int(value) or not abs(value) < 2**31:
        raise InputError(f"a label cannot be {text}; it is a whole number of 32 bits.")
    return int(value)


def _pairs(lines: list[str]) -> dict[str, str]:
    pairs = dict[str, str]()
    for line in lines:
        key, *rest = line.split(None, 1)
        value = rest[0] if rest else ""
        if pairs.setdefault(key, value) != value:
            raise InputError(f"the definition {key} is both {pairs[key]!r} and {value!r}.")
    return pairs


def _shapes(lines: list[str]) -> dict[int, np.ndarray]:
    starts = [i for i, line in enumerate(lines) if line.startswith("shape_id")]
    shapes = {}
    total, most = 0, min(MOST_POINTS, _FREE_POINTS + _MOST_RATIO * len(lines))
    for start, end in pairwise([*starts, len(lines)]):
        shape_id = whole(lines[start].split()[1])
        label, word = lines[start + 1].split()
        count = whole(word)
        total += count
        if label != "num_samples" or count < 1 or total > most:
            raise InputError(f"shape {shape_id} announces {label} {word}.")
        data = np.array([number(line) for line in lines[start + 2 : end]])
        shape = data if len(data) == count else _decompress(data, count, shape_id)
        if shape_id in shapes:
            raise InputError(f"shape {shape_id} occurs twice.")
        shapes[shape_id] = shape
    return shapes


def _decompress(data: np.ndarray, count: int, shape_id: int) -> np.ndarray:
    """Undo the run-length code of the derivative: after a value twice in a row comes how often it repeats."""
    steps, lengths = list[float](), list[int]()
    i = 0
    while i < len(data):
        run = 1
        if i + 1 < len(data) and data[i] == data[i + 1]:
            if i + 2 >= len(data) or data[i + 2] != round(data[i + 2]) or not 0 <= data[i + 2] <= count:
                raise InputError(f"shape {shape_id} has a damaged run length.")
            run = 2 + int(data[i + 2])
        steps.append(data[i])
        lengths.append(run)
        i += 1 if run == 1 else 3
    if sum(lengths) != count:
        raise InputError(f"shape {shape_id} has {sum(lengths)} samples instead of {count}.")
    shape = np.cumsum(np.repeat(steps, lengths))
    if not math.isfinite(float(shape @ shape)):
        raise InputError(f"shape {shape_id} leaves the finite numbers.")
    return shape
