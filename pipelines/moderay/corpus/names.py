"""Names of label files: those of the input's files, as far as every store can hold them."""

from __future__ import annotations

import hashlib
import re

# Bytes of a file's or folder's name on most file systems. A key of an object store may be longer.
MOST_BYTES = 255
# Bytes of an end such as `.parquet` that stays where a name is cut.
END_BYTES = 16

# What no name in an output has: bytes that are no UTF-8, as Python decodes them in local names, and
# control characters.
_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def storable(name: str) -> str:
    """The name of a file or folder as every store can hold it: nearly always the name itself.

    One that is too long, or is no text, is cut and quoted, with a hash of what it was, so that
    different names stay different.
    """
    data = name.encode("utf-8", "surrogateescape")
    if len(data) <= MOST_BYTES and not _ODD.search(name):
        return name
    stem, dot, end = _ODD.sub(_quoted, name).rpartition(".")
    if not stem or len(end.encode()) > END_BYTES:
        stem, dot, end = stem + dot + end, "", ""
    end = f"-{hashlib.blake2b(data, digest_size=16).hexdigest()}{dot}{end}"
    cut = stem.encode()[: MOST_BYTES - len(end.encode())]
    return cut.decode("utf-8", "ignore") + end


def _quoted(odd: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in odd[0].encode("utf-8", "surrogateescape"))
