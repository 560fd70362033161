"""The text of a Pulseq file as tables of numbers, strictly: what is damaged or unknown is refused.

Specification: https://pulseq.github.io/specification.pdf.
"""

import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trajdesign.errors import InputError
from trajdesign.pulseq.reader.shapes import decompressed
from trajdesign.pulseq.reader.signature import verified

VERSIONS = ("1.4.0", "1.4.1", "1.4.2", "1.5.0", "1.5.1", "1.5.2")

#: Since when a file names the extensions that a reader must know: the others may be passed over.
_NAMES_REQUIRED = "1.5.1"

#: A bound that no sensible file reaches, so that a hostile one cannot fill the memory: samples and vertices.
MOST_POINTS = 50_000_000

#: Extensions that came with it, and that interpreters of older files play otherwise or not at all.
_NEW = frozenset({"ROTATIONS", "RF_SHIMS"})

#: Columns of each table with the id, in versions 1.4 and 1.5: whole numbers, numbers, text.
_TABLES = {
    "BLOCKS": ("wwwwwwww", "wwwwwwww"),
    "RF": ("wnwwwnnn", "wnwwwnnnnnnt"),
    "GRADIENTS": ("wnwwn", "wnnnwwn"),
    "TRAP": ("wnnnnn", "wnnnnn"),
    "ADC": ("wwnnnn", "wwnnnnnnw"),
    "EXTENSIONS": ("wwww", "wwww"),
}

#: Tables that other readers take to end at a blank line: what follows it they do not play.
_ENDING = ("BLOCKS", "RF", "GRADIENTS", "TRAP", "ADC")

#: Which columns of a block are of which tables.
_PLAYED = {(2,): ("RF",), (3, 4, 5): ("TRAP", "GRADIENTS"), (6,): ("ADC",), (7,): ("EXTENSIONS",)}

_SECTIONS = {f"[{name}]": name for name in (*_TABLES, "VERSION", "DEFINITIONS", "SHAPES")}

#: Columns of the extensions that are played, as above (of RF shims it depends on the channels). A wait for a trigger
#: counts as no time.
EXTENSIONS = {
    **{"LABELSET": "wnt", "LABELINC": "wnt", "TRIGGERS": "wnnnn", "DELAYS": "wnnnt", "ROTATIONS": "wnnnn"},
    "RF_SHIMS": None,
}

#: Samples of all shapes: so many, and so many for each line that holds them, as what is constant takes three lines.
_FREE_POINTS, _MOST_RATIO = 2**20, 100

_MOST_LABELS = 64

#: Ends of lines that readers take differently, and other characters that are no text.
_STRANGE = re.compile("[^\t\n\x20-\x7e\xa0-\U0010ffff]|[\u2028\u2029]")

_HEADER = re.compile(r"^[ \t]*(?:\[|extension ).*$", re.MULTILINE)

#: What is neither blank nor a comment.
_LINE = re.compile(r"^[ \t]*([^ \t\n#].*)$", re.MULTILINE)

_BLANK = re.compile(r"\n[ \t]*\n")

_VERSION = re.compile(rb"^\[VERSION\]\s+major\s+(\w+)\s+minor\s+(\w+)\s+revision\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Extension:
    """A section of one type of extension, as ``LABELSET``."""

    name: str
    #: Id -> the other columns, as text.
    rows: dict[int, str]


@dataclass(frozen=True)
class Parsed:
    """The tables of a file."""

    #: Version of the file format.
    version: str
    #: As text.
    definitions: dict[str, str]
    #: Id, duration in rasters, and ids of the events (block, 8).
    blocks: np.ndarray
    #: Name of a table of events -> id -> the other columns, as text.
    tables: dict[str, dict[int, str]]
    #: Id -> decompressed samples (sample,).
    shapes: dict[int, np.ndarray]
    #: In how many numbers the file stores them.
    n_numbers: int
    #: The hash of its signature, which fits the content; empty if the file has none.
    md5: str
    #: Number of a type of extension -> its section.
    extensions: dict[int, Extension]
    #: Frequency of which the file may give offsets in ppm, Hz; not a number if it is unknown.
    larmor: float

    @property
    def is_old(self) -> bool:
        """Whether the file is of version 1.4, which stores no edges of gradients and no use of pulses."""
        return self.version.startswith("1.4")

    def raster(self, name: str) -> float:
        """Return a definition that is one time, s."""
        if name not in self.definitions:
            raise InputError(f"the definition {name} is missing.")
        value = _defined(self.definitions, name)
        if not 1e-9 <= value < 1:
            raise InputError(f"the definition {name} is {value:g} s; a raster has from 1e-09 to 1 s.")
        return value

    def shape(self, shape: int, event: str) -> np.ndarray:
        """Return the samples of a shape (sample,) that an event names."""
        if shape not in self.shapes:
            raise InputError(f"{event} has the shape {shape}, which [SHAPES] lacks.")
        return self.shapes[shape]


def parse(content: bytes, *, signed: bool, larmor: float) -> Parsed:
    """Parse the whole content of a text file; what the arguments mean says `player.read`.

    Raises
    ------
    InputError
        If anything is damaged, contradicts the format or is unknown.
    """
    if content.startswith(b"\xef\xbb\xbf"):
        raise InputError("the file starts with a byte order mark, which interpreters do not skip; save it without.")
    body, md5 = verified(content)
    if signed and not md5:
        if found := _VERSION.search(content):
            _require_known(b".".join(found.groups()).decode())
        raise InputError("the file has no signature; it is truncated or was not signed.")
    text = _Text(body.decode("utf-8").replace("\r\n", "\n"))
    if "VERSION" not in text.spans:
        raise InputError("the section [VERSION] is missing; this is no Pulseq text file.")
    parts = _pairs(text.lines("VERSION"))
    version = ".".join(parts.get(part, "?") for part in ("major", "minor", "revision"))
    _require_known(version)
    text.version = version
    text.require_sections()
    column = not version.startswith("1.4")
    definitions = _pairs(text.lines("DEFINITIONS"))
    tables = {name: text.rows(name, n[column]) for name, n in _TABLES.items() if name != "BLOCKS"}
    if both := sorted(tables["TRAP"].keys() & tables["GRADIENTS"].keys()):
        raise InputError(f"gradient {both[0]} is both in [TRAP] and in [GRADIENTS]; readers play either.")
    extensions = _extensions(text, version, definitions.get("RequiredExtensions", "").split())
    if math.isnan(larmor) and {"B0", "Gamma"} <= definitions.keys():
        larmor = _defined(definitions, "B0") * _defined(definitions, "Gamma")
    blocks = _blocks(text, tables)
    return Parsed(version, definitions, blocks, tables, *_shapes(text), md5, extensions, larmor)


def _require_known(version: str) -> None:
    if version not in VERSIONS:
        raise InputError(f"the format version is {version}; this reader knows {', '.join(VERSIONS)}.")


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


def _defined(definitions: dict[str, str], name: str) -> float:
    """Return the one finite number that a definition is."""
    try:
        return number(definitions[name])
    except (InputError, ValueError):
        raise InputError(f"the definition {name} is {definitions[name]!r}, which is not one finite number.") from None


class _Text:
    """The text of a file, whose lines (they end in LF) are taken one by one: a list would take many times the file.

    Lines end where every reader ends them: a line that only some see could hide what is played from a check.
    """

    def __init__(self, text: str) -> None:
        if strange := _STRANGE.search(text):
            raise InputError(f"the file holds the character {strange[0]!r}, which readers take differently.")
        self.text, self.version = text, ""
        self.place, self.is_apart = 0, False  # of the last line: where it starts, and whether a blank line precedes it
        headers = list(_HEADER.finditer(text))
        self.spans = {"": (0, headers[0].start() if headers else len(text))}
        for header, following in zip(headers, [*headers[1:], None], strict=True):
            line = header[0].strip(" \t")
            name = _SECTIONS.get(line, " ".join(line.split()))
            if not line.isascii():
                raise InputError(f"the section {line!r} is unknown to this reader.")
            if name in self.spans:
                raise InputError(f"the section {line!r} occurs twice.")
            if line.startswith("[") and line != header[0]:
                what = "has blanks around a section's name, which others do not find"
                raise InputError(f"the line {header[0]!r} {what}.")
            self.spans[name] = header.end(), following.start() if following else len(text)
        if any(self.lines("")):
            raise InputError("the file has text before its first section.")

    def require_sections(self) -> None:
        """Refuse a section that no reader knows."""
        for name in self.spans:
            if name and name not in _SECTIONS.values() and not name.startswith("extension "):
                raise InputError(f"the section {name} is unknown to this reader.")

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a section without comments and blank lines; none if it is missing."""
        end, stop = self.spans.get(name, (0, 0))
        for found in _LINE.finditer(self.text, end, stop):
            self.is_apart = found.start() > end + 1 and bool(_BLANK.search(self.text, end, found.start()))
            self.place, end = found.start(1), found.end()
            line = found[1].rstrip(" \t")
            if name != "DEFINITIONS" and not line.isascii():
                raise InputError(f"{line!r} is no line of [{name}].")
            yield line

    def fault(self, name: str, what: str) -> InputError:
        """Return the error that names the last line."""
        line = self.text.count("\n", 0, self.place) + 1
        return InputError(f"line {line}, in {f'[{name}]' if name in _SECTIONS.values() else name}, {what}.")

    def words(self, name: str, n_columns: int | None) -> Iterator[list[str]]:
        """Yield the columns of the lines of a table."""
        for line in self.lines(name):
            words = line.split()
            if n_columns not in (len(words), None):
                raise self.fault(
                    name, f"has {len(words)} columns; version {self.version} has {n_columns} columns there"
                )
            if self.is_apart and name in _ENDING:
                raise self.fault(name, "follows a blank line, where other readers end the table; remove the blank line")
            if "_" in line and name in _TABLES:  # which Python takes for part of a number
                raise self.fault(name, "holds an underscore")
            yield words

    def rows(self, name: str, kinds: str | None) -> dict[int, str]:
        """Return the rows of a table by their ids."""
        rows = dict[int, str]()
        for words in self.words(name, None if kinds is None else len(kinds)):
            for kind, word in zip(kinds or "w", words, strict=False):
                try:
                    _ = whole(word) if kind == "w" else number(word) if kind == "n" else word
                except (InputError, ValueError):
                    what = "finite" if kind == "n" else "whole"
                    raise self.fault(name, f"holds {word}, which is no {what} number") from None
            event = int(words[0])
            if event < 1:
                raise self.fault(name, f"has the id {event}; ids start at 1")
            if event in rows:
                raise self.fault(name, f"has the same id twice, {event}")
            rows[event] = " ".join(words[1:])
        return rows


def _blocks(text: _Text, tables: dict[str, dict[int, str]]) -> np.ndarray:
    n_columns = len(_TABLES["BLOCKS"][0])
    numbers = array("q")
    for words in text.words("BLOCKS", n_columns):
        try:
            numbers.extend(map(int, words))
        except (ValueError, OverflowError):
            raise text.fault("BLOCKS", "holds what is no whole number") from None
    blocks = np.frombuffer(numbers, dtype=np.int64).reshape(-1, n_columns)
    ids = blocks[:, 0]
    for i in np.flatnonzero(np.diff(ids) <= 0)[:1]:
        what = "holds the same id twice" if ids[i] == ids[i + 1] else "is out of order"
        raise InputError(
            f"[BLOCKS] {what}: block {ids[i + 1]} stands after block {ids[i]}. Some interpreters play blocks as they "
            "stand, others by id: number them as they are to be played."
        )
    for columns, names in _PLAYED.items():
        known = np.array([0, *(event for name in names for event in tables[name])])
        unknown = np.argwhere(~np.isin(blocks[:, columns], known))
        for index, column in unknown[:1]:
            event = blocks[index, columns[column]]
            raise InputError(f"block {ids[index]} plays event {event} of [{'] or ['.join(names)}], which lacks it.")
    return blocks


def _extensions(text: _Text, version: str, required: list[str]) -> dict[int, Extension]:
    """Return the sections of extensions by their numbers.

    Refused are those that change what is played in a way that is unknown: what the file requires, and any of a file
    that is too old to say what it requires.
    """
    sections = [name for name in text.spans if name.startswith("extension ")]
    found = [name.split()[1] for name in sections]
    for name in (*required, *(() if version >= _NAMES_REQUIRED else found)):
        if name not in EXTENSIONS:
            raise InputError(f"the extension {name} may change gradients or timing; this reader does not play it.")
    for name in _NEW.intersection(found) if version < _NAMES_REQUIRED else ():
        raise InputError(f"the extension {name} is none of version {version}; it came with {_NAMES_REQUIRED}.")
    extensions = dict[int, Extension]()
    for section, name in zip(sections, found, strict=True):
        _, _, kind = section.split()
        if whole(kind) in extensions or found.count(name) > 1:
            raise InputError(f"the extension {name} or the number {kind} of an extension occurs twice.")
        rows = text.rows(section, EXTENSIONS[name]) if name in EXTENSIONS else {}
        extensions[whole(kind)] = Extension(name, rows)
    labels = {row.split()[1] for e in extensions.values() if e.name.startswith("LABEL") for row in e.rows.values()}
    if len(labels) > _MOST_LABELS:  # each is kept for each ADC event
        raise InputError(f"the file uses {len(labels)} labels; {_MOST_LABELS} are read.")
    return extensions


def counter(text: str) -> int:
    """Return the whole number that a label is given; interpreters keep it in 32 bits."""
    value = number(text)
    if value != int(value) or not abs(value) < 2**31:
        raise InputError(f"a label cannot be {text}; it is a whole number of 32 bits.")
    return int(value)


def _pairs(lines: Iterator[str]) -> dict[str, str]:
    pairs = dict[str, str]()
    for line in lines:
        key, *rest = line.split(None, 1)
        value = rest[0] if rest else ""
        if pairs.setdefault(key, value) != value:
            raise InputError(f"the definition {key} is both {pairs[key]!r} and {value!r}.")
    return pairs


def _shapes(text: _Text) -> tuple[dict[int, np.ndarray], int]:
    shapes, n_numbers = dict[int, np.ndarray](), 0
    n_lines = text.text.count("\n", *text.spans.get("SHAPES", (0, 0)))
    total, most = 0, min(MOST_POINTS, _FREE_POINTS + _MOST_RATIO * n_lines)
    lines = text.lines("SHAPES")
    line = next(lines, "")
    while line:
        word, shape_id, *_ = line.split()
        label, count = next(lines, "").split()
        total += whole(count)
        if (word, label) != ("shape_id", "num_samples") or min(whole(shape_id), whole(count)) < 1 or total > most:
            raise InputError(f"{word} {shape_id} announces {label} {count}.")
        data = array("d")
        for line in lines:
            if line.startswith("shape_id"):
                break
            if text.is_apart:
                raise text.fault("SHAPES", "follows a blank line, where a shape ends; remove the blank line")
            try:
                data.append(number(line))
            except (InputError, ValueError):
                raise text.fault("SHAPES", f"holds {line}, which is no finite number") from None
        else:
            line = ""
        shape = np.array(data) if len(data) == whole(count) else decompressed(data, whole(count), shape_id)
        if whole(shape_id) in shapes:
            raise InputError(f"shape {shape_id} occurs twice.")
        shapes[whole(shape_id)] = shape
        n_numbers += len(data)
    return shapes, n_numbers
