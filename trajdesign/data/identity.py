"""Who is in a file, so that no patient is in two splits: one mechanism for all formats."""

import re
from pathlib import Path

from trajdesign.data import dicom, ismrmrd_header
from trajdesign.data.hdf5 import reader
from trajdesign.errors import ConfigError
from trajdesign.files import untrusted

#: Names of patients as studies, BIDS and IXI give them to files and folders.
NAMES = r"(?i)(?<![a-z0-9])(sub-[a-z0-9]+|(?:patient|subject|case|pat|sub|ixi)[-_ ]?\d+)"

# Such words stand where a name was taken away.
_NOBODY = re.compile(
    r"[x0*_\-.?]*|anon|anonym(ous|i[sz]ed)|unknown|none|null|n/?a|no ?name|de-?identified|removed"
    r"|(healthy[ _-]?)?(volunteer|control|subject|patient)|healthy|human"
)

# Some files have these between a patient's word and number, and others do not: separators, and zeros before the number.
_SEPARATORS, _ZEROS = re.compile(r"(?<=[a-z])[-_ ]+(?=\d)"), re.compile(r"(?<![\d.])0+(?=\d)")


def people(path: Path, pattern: str) -> dict[str, str]:
    """Return who is in a file or a folder of DICOM: every identity that its header tells, or its name (`named`).

    They are names in lower case, by what tells them apart: ``patient_01`` and ``patient1`` are one. Words that stand
    for nobody, as those of anonymised files, are left out. A damaged HDF5 file is an `InputError`.
    """
    found = [named(path, pattern)]
    if path.is_dir():
        found += dicom.people(path)
    elif untrusted.ending(path) in reader.ENDINGS:
        with reader.opened(path) as file:
            found += reader.people(file)
            texts = [reader.text(file, "ismrmrd_header")]
            texts += [reader.text(file["dataset"], "xml")] if reader.is_mrd(file) else []
        found += [name for text in texts if text for name in ismrmrd_header.parse(text, path).people]
    names = [name.strip("\0 ^").lower() for name in found if name]
    return {_ZEROS.sub("", _SEPARATORS.sub("", name)): name for name in names if not _NOBODY.fullmatch(name)}


def named(path: Path, pattern: str) -> str | None:
    """Return the patient that a path names, in lower case: in the file name, else in the nearest folder that does.

    The patient is the last group of the regular expression `pattern`, or the whole match if it has none. A `pattern`
    that is none is a `ConfigError`.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.patient_pattern {pattern!r} is not a regular expression: {error}.") from None
    for part in reversed(path.absolute().parts):
        if match := compiled.search(part):
            return (match.group(match.lastindex or 0) or match.group()).lower()
    return None
