"""Identity is a hash that refuses to lie: canonical JSON, and an error for whatever has no stable
form.
"""

from __future__ import annotations

import hashlib
import json


def digest(value: object) -> str:
    """16 hexadecimal digits (BLAKE2b) of a value made of dicts with string keys, lists, tuples,
    strings, finite numbers, booleans and None. Raises TypeError or ValueError for anything else.
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()


def number(text: str) -> int:
    """A stable 63-bit number for a text: seeds and samples."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big") >> 1
