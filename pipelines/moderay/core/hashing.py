"""Identity is a hash that refuses to lie: of canonical JSON, and nothing without a stable form."""

from __future__ import annotations

import hashlib
import json


def digest(value: object) -> str:
    """A value's hash: 16 hexadecimal digits of BLAKE2b.

    Args:
        value: Made of dicts with string keys, lists, tuples, strings, finite numbers, booleans and
            None.

    Raises:
        TypeError: It holds something else.
        ValueError: It holds a number that is not finite, or that refers to itself.
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return hashlib.blake2b(_bytes(text), digest_size=8).hexdigest()


def number(text: str) -> int:
    """A stable 63-bit number for a text: seeds and samples."""
    return int.from_bytes(hashlib.blake2b(_bytes(text), digest_size=8).digest(), "big") >> 1


def _bytes(text: str) -> bytes:
    """In UTF-8, also what is no Unicode: names of files may hold any bytes, as lone surrogates."""
    return text.encode("utf-8", "surrogatepass")
