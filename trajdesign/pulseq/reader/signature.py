"""The signature of a Pulseq file: a hash of all that stands before it."""

import hashlib
import re

from trajdesign.errors import InputError

_SECTION = re.compile(rb"\r?\n\[SIGNATURE\][ \t]*\r?\n")

#: Hashes of a fixed length, by the names that a file may give them; writers know the first alone.
_TYPES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


def verified(content: bytes) -> tuple[bytes, str]:
    """Return what was signed, and the hash; an empty one if there is none.

    A file may have been written with other ends of lines than those that were signed: they change nothing.

    Raises
    ------
    InputError
        If the hash is of an unknown type or does not fit, or the file goes on after it.
    """
    places = list(_SECTION.finditer(content))
    if not places:
        return content, ""
    body, signature = content[: places[-1].start()], content[places[-1].end() :]
    stored = dict[str, str]()
    for line in signature.decode("latin-1").splitlines():
        key, *words = line.split() or ["#"]
        if key.startswith("#"):
            continue
        value = " ".join(words).lower()
        if key not in ("Type", "Hash") or stored.setdefault(key, value) != value:
            raise InputError("the file goes on after its signature, which does not cover that.")
    if not stored:
        return body, ""
    kind, found = stored.get("Type", "md5"), stored.get("Hash", "")
    if kind not in _TYPES:
        raise InputError(f"the signature is of the type {kind!r}; those that can be verified are {', '.join(_TYPES)}.")
    plain = body.replace(b"\r\n", b"\n")
    for text in (body, plain, b"\r\n".join(plain.split(b"\n"))):
        if hashlib.new(kind, text, usedforsecurity=False).hexdigest() == found:
            return body, found
    raise InputError("the file does not fit its signature; it is truncated or was changed.")
