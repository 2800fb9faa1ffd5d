"""Labelled texts for screens: what violates shows in single words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from moderay.judges.cards import Teacher

TEACHER = Teacher(
    policy="spam", threshold=0.5, policy_key="p1", judge_key="j1", source="labels of a test"
)
SAFE = (
    "the quiet river runs past old stone houses where children read books and bake bread on "
    "sunday morning"
).split()
BAD = (
    "win free prize cash click link now urgent claim bonus casino loan offer winner jackpot".split()
)


def corpus(
    rows: int, seed: int, fewest: int = 3, stray: float = 0.05
) -> tuple[pa.Array, np.ndarray]:
    """Texts of 12 words; a quarter of them violate: `fewest` to 6 words of theirs are from BAD. Of
    the safe ones, a share `stray` has one.
    """
    random = np.random.default_rng(seed)
    violates = random.random(rows) < 0.25
    texts = []
    for bad in violates:
        count = random.integers(fewest, 7) if bad else int(random.random() < stray)
        texts.append(
            " ".join(
                random.permutation([*random.choice(BAD, count), *random.choice(SAFE, 12 - count)])
            )
        )
    return pa.array(texts, pa.large_string()), violates
