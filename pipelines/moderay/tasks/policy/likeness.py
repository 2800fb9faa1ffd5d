"""How alike texts are, by the share of their shingles that they have in common."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Characters of a shingle: long enough to be rare, short enough for a word that differs.
SHINGLE = 5
# Texts that are compared with all others at once: bounds the memory.
_BLOCK = 200


class Pair(NamedTuple):
    """Two texts that are alike.

    Attributes:
        first: The number of one, from 0.
        second: The number of the other.
        likeness: Jaccard's index of their shingles, up to 1.
    """

    first: int
    second: int
    likeness: float


def normal(text: str) -> str:
    """A text without what does not change its meaning: case, marks, kinds of blanks and letters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # A text of marks alone is what it is.
    return " ".join(re.findall(r"\w+", folded)) or folded.strip()


def shingles(text: str) -> set[str]:
    """Every run of `SHINGLE` characters of a text's normal form; all of it where it is shorter."""
    plain = f" {normal(text)} "
    return {plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1))}


def alike(first: Sequence[str], second: Sequence[str], least: float) -> Iterator[Pair]:
    """Pairs of texts of two lists whose likeness is at least this, by `first`, then `second`."""
    if not first or not second:
        return
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415  takes a second

    counter = CountVectorizer(analyzer=shingles, binary=True, dtype=np.int32)
    counter.fit([*first, *second])
    right = counter.transform(second).T.tocsc()
    right_sizes = np.asarray(right.sum(axis=0)).ravel()
    for start in range(0, len(first), _BLOCK):
        left = counter.transform(first[start : start + _BLOCK])
        left_sizes = np.asarray(left.sum(axis=1)).ravel()
        common = (left @ right).tocoo()
        union = left_sizes[common.row] + right_sizes[common.col] - common.data
        likeness = common.data / union
        for at in np.lexsort((common.col, common.row)):
            if likeness[at] >= least:
                row, column = int(common.row[at]), int(common.col[at])
                yield Pair(start + row, column, float(likeness[at]))
