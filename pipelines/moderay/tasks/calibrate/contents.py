"""Distinct labelled contents: what screens are trained and calibrated on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.hashing import number
from moderay.judges.screen import folded, no_text


@dataclass(frozen=True, eq=False)
class Contents:
    """Distinct contents, in a random order of their own.

    Attributes:
        texts: large_string, folded, none of them empty.
        violates: Bool, as long.
        keys: uint64, rising: hashes of the texts.
        longest: Bytes of the longest as it was before folding, those left out included.
    """

    texts: pa.Array
    violates: np.ndarray
    keys: np.ndarray
    longest: int

    @property
    def violations(self) -> int:
        """How many violate."""
        return int(self.violates.sum())

    @property
    def safe(self) -> int:
        """How many do not."""
        return len(self.violates) - self.violations

    def where(self, chosen: np.ndarray) -> Contents:
        """Those of which this is true."""
        texts = self.texts.filter(pa.array(chosen))
        return Contents(texts, self.violates[chosen], self.keys[chosen], self.longest)

    def random(self) -> np.random.Generator:
        """Random numbers, the same for the same contents."""
        return np.random.default_rng(number(self.keys.tobytes().hex()))


def distinct(texts: pa.Array, violates: np.ndarray) -> Contents:
    """The distinct contents.

    Args:
        texts: string or large_string; null and empty ones are left out, and those that differ in
            case alone are one.
        violates: Bool, as long; a content that is labelled both ways violates.
    """
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    some = ~no_text(texts)
    texts = folded(texts.filter(pa.array(some)))
    keys, first, of = np.unique(
        np.array([number(text) for text in texts.to_pylist()], np.uint64),
        return_index=True,
        return_inverse=True,
    )
    violates = np.bincount(of, np.asarray(violates, bool)[some], len(keys)) > 0
    return Contents(texts.take(pa.array(first)), violates, keys, longest)
