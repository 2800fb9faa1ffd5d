"""What changed between two decisions on each row: counts of flips, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.verdicts import Origin, trace
from moderay.labels.analysis.metrics.estimate import Estimate
from moderay.labels.analysis.metrics.mcnemar import Paired, mcnemar, per_million

# Positions in the tables of sides.
SAFE, VIOLATING, NOT_JUDGED = 0, 1, 2

Flip = Literal["to_violating", "to_safe", "flipped"]


@dataclass(frozen=True, eq=False)
class DiffTally:
    """Rows that two outputs hold, counted; the counts of two parts add up to those of both.

    Attributes:
        rows: int64 (3, 3): rows by what a and b say: safe, violating, not judged.
        contents: The same, each content counted once, or its copies would pass for evidence: rows
            that output a does not call a duplicate.
        labels: Rows that both judged and gave different labels, by these: (a's, b's).
        gold: Contents that both judged and of which people said whether they violate; None
            where nobody was asked.
    """

    rows: np.ndarray
    contents: np.ndarray
    labels: Mapping[tuple[str, str], int]
    gold: Paired | None = None

    @classmethod
    def empty(cls) -> DiffTally:
        """Of no rows."""
        return cls(np.zeros((3, 3), np.int64), np.zeros((3, 3), np.int64), {})

    def __add__(self, other: DiffTally) -> DiffTally:
        """Of both parts."""
        names = dict.fromkeys([*self.labels, *other.labels])
        labels = {name: self.labels.get(name, 0) + other.labels.get(name, 0) for name in names}
        return DiffTally(
            self.rows + other.rows,
            self.contents + other.contents,
            labels,
            self.gold + other.gold if self.gold and other.gold else self.gold or other.gold,
        )

    @property
    def judged(self) -> int:
        """Rows that both judged."""
        return int(self.rows[:NOT_JUDGED, :NOT_JUDGED].sum())

    @property
    def flips(self) -> dict[Flip, int]:
        """Rows in which `violates` is not the same, and those of either direction."""
        return _flips(self.rows)

    @property
    def judged_contents(self) -> int:
        """Different contents that both judged."""
        return int(self.contents[:NOT_JUDGED, :NOT_JUDGED].sum())

    @property
    def p_value(self) -> float:
        """McNemar's exact test: whether one direction of flips is commoner than chance makes it."""
        flips = _flips(self.contents)
        return mcnemar(flips["to_violating"], flips["to_safe"])

    @property
    def per_million(self) -> dict[Flip, Estimate | None]:
        """Flips in a million different contents, with exact 95% intervals; None of no content."""
        judged = self.judged_contents
        return {name: per_million(count, judged) for name, count in _flips(self.contents).items()}


def _flips(table: np.ndarray) -> dict[Flip, int]:
    worse, better = int(table[SAFE, VIOLATING]), int(table[VIOLATING, SAFE])
    return {"to_violating": worse, "to_safe": better, "flipped": worse + better}


def tally(a: pa.StructArray, b: pa.StructArray, gold: np.ndarray | None = None) -> DiffTally:
    """Count rows.

    Args:
        a: Decisions: of `verdicts.decision_type`, or with `violates`, `label` and `trace.origin` of
            it at least.
        b: Another output's, parallel to them.
        gold: int8, what people said of each row: `SAFE`, `VIOLATING`, or `NOT_JUDGED` where
            nothing; None where nobody was asked.
    """
    before, after = sides(a), sides(b)
    duplicate = pc.equal(trace(a, "origin"), Origin.DUPLICATE.value).fill_null(False)
    once = ~duplicate.to_numpy(zero_copy_only=False)
    return DiffTally(
        _table(before, after),
        _table(before[once], after[once]),
        _labels(a, b),
        None if gold is None else _paired(gold[once], before[once], after[once]),
    )


def _paired(gold: np.ndarray, before: np.ndarray, after: np.ndarray) -> Paired:
    known = np.logical_and.reduce(
        [np.isin(side, (SAFE, VIOLATING)) for side in (gold, before, after)]
    )
    return Paired.of(*[side[known] == VIOLATING for side in (gold, before, after)])


def sides(decisions: pa.StructArray) -> np.ndarray:
    """int8: `SAFE`, `VIOLATING` or `NOT_JUDGED`."""
    violates = decisions.field("violates").cast(pa.int8()).fill_null(NOT_JUDGED)
    return np.asarray(violates.to_numpy(zero_copy_only=False))


def changed(a: pa.StructArray, b: pa.StructArray) -> np.ndarray:
    """Bool: rows that both judged and gave another label, or decided otherwise."""
    before, after = sides(a), sides(b)
    judged = (before != NOT_JUDGED) & (after != NOT_JUDGED)
    return np.asarray(judged & ((before != after) | _relabelled(a, b)))


def _relabelled(a: pa.StructArray, b: pa.StructArray) -> np.ndarray:
    """Bool: where both have a label, and not the same one."""
    differ = pc.not_equal(a.field("label"), b.field("label")).fill_null(False)
    return np.asarray(differ.to_numpy(zero_copy_only=False))


def _table(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    places = before.astype(np.int64) * 3 + after
    return np.asarray(np.bincount(places, minlength=9).reshape(3, 3))


def _labels(a: pa.StructArray, b: pa.StructArray) -> dict[tuple[str, str], int]:
    differ = pa.array(_relabelled(a, b))
    pairs = pa.table({"a": a.field("label").filter(differ), "b": b.field("label").filter(differ)})
    counts = pairs.group_by(["a", "b"]).aggregate([([], "count_all")])
    return {(row["a"], row["b"]): row["count_all"] for row in counts.to_pylist()}


def largest_change(a: pa.StructArray, b: pa.StructArray) -> np.ndarray:
    """Positions, the rows first in which `violates` differs, then by the change of P(violates).

    A judge that gives no P counts as one that is sure.
    """
    change = np.abs(_probability(b) - _probability(a))
    same_side = sides(a) == sides(b)
    return np.asarray(np.lexsort((-change, same_side)))


def _probability(decisions: pa.StructArray) -> np.ndarray:
    sure = decisions.field("violates").cast(pa.float32())
    return np.asarray(
        pc.coalesce(decisions.field("probability"), sure).to_numpy(zero_copy_only=False)
    )
