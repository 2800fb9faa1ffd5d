"""What is counted of judged rows: all that figures need, whatever the number of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moderay.labels.analysis.metrics.confusion import Binary
from moderay.labels.analysis.metrics.scores import ScoreHistogram
from moderay.labels.analysis.metrics.weighted import WeightedTable
from moderay.tasks.evaluate.judged import JUDGES, JudgedRows
from moderay.tasks.gold import UNKNOWN


@dataclass(frozen=True)
class Tally:
    """Counts of judged rows under one policy; those of two parts add up to those of both.

    Attributes:
        sides: int64, 2 x 3: by what people said (safe, violates), how many were judged safe,
            judged violating, not judged.
        labels: int64, K x (K + 1): by the label that people named, how many got each label, and
            how many were not judged.
        judges: int64, J x 2 x 2: by who decided and what people said, how many were judged safe
            and violating.
        halves: Histograms of P(violates), of the half in which a threshold is chosen and of the
            one in which it is tried.
        unknown: Rows of which people said nothing.
        sums: float64, 2 x 2 x 2: of the rows with a verdict, by what people said and how they were
            judged, the weights and the squares of these.
    """

    sides: np.ndarray
    labels: np.ndarray
    judges: np.ndarray
    halves: tuple[ScoreHistogram, ScoreHistogram]
    unknown: int
    sums: np.ndarray

    def __add__(self, other: Tally) -> Tally:
        """Of both parts."""
        return Tally(
            self.sides + other.sides,
            self.labels + other.labels,
            self.judges + other.judges,
            (self.halves[0] + other.halves[0], self.halves[1] + other.halves[1]),
            self.unknown + other.unknown,
            self.sums + other.sums,
        )

    @property
    def rows(self) -> int:
        """Of which people said something."""
        return int(self.sides.sum())

    @property
    def not_judged(self) -> tuple[int, int]:
        """Rows without a verdict: those that people call safe, and those that violate."""
        return int(self.sides[0, 2]), int(self.sides[1, 2])

    @property
    def binary(self) -> Binary:
        """Of the rows with a verdict."""
        return binary_of(self.sides)

    @property
    def weighted(self) -> WeightedTable | None:
        """The same, where rows stand for others; None where each stands for itself."""
        rows = self.sides[:, :2].astype(np.float64)
        if np.array_equal(self.sums[0], rows):
            return None
        return WeightedTable(rows, *self.sums)

    @property
    def scores(self) -> ScoreHistogram:
        """Of all rows that have a P(violates)."""
        return self.halves[0] + self.halves[1]

    def of_judge(self, judge: int) -> Binary:
        """Of the rows that one judge decided."""
        return binary_of(self.judges[judge])


def tally(rows: JudgedRows, labels: int) -> Tally:
    """Count rows.

    Args:
        rows: Of one policy.
        labels: How many the policy has.
    """
    known = rows.at(rows.is_known)
    named = known.at(known.gold_label != UNKNOWN)
    judged = known.at((known.violates != UNKNOWN) & (known.judge != UNKNOWN))
    scored = known.at((known.violates != UNKNOWN) & ~np.isnan(known.probability))
    halves = [scored.at(scored.half == half) for half in (False, True)]
    chosen, tried = (
        ScoreHistogram.of(half.probability, half.gold == 1, _weights(half)) for half in halves
    )
    return Tally(
        counts((2, 3), known.gold, or_last(known.violates, 2)),
        counts((labels, labels + 1), named.gold_label, or_last(named.label, labels)),
        counts((len(JUDGES), 2, 2), judged.judge, judged.gold, judged.violates),
        (chosen, tried),
        len(rows) - len(known),
        _sums(known.at(known.violates != UNKNOWN)),
    )


def _weights(rows: JudgedRows) -> np.ndarray | None:
    """None where each row stands for itself."""
    return None if (rows.weight == 1).all() else rows.weight


def _sums(judged: JudgedRows) -> np.ndarray:
    """As `Tally.sums`."""
    cells = judged.gold.astype(np.intp) * 2 + judged.violates
    sums = [np.bincount(cells, of, 4) for of in (judged.weight, judged.weight**2)]
    return np.stack(sums).astype(np.float64).reshape(2, 2, 2)


def or_last(positions: np.ndarray, last: int) -> np.ndarray:
    """Positions with `last` for `UNKNOWN`."""
    return np.where(positions == UNKNOWN, last, positions)


def counts(shape: tuple[int, ...], *positions: np.ndarray) -> np.ndarray:
    """How often each combination of positions occurs: an array of this shape."""
    flat = np.ravel_multi_index([place.astype(np.intp) for place in positions], shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)


def binary_of(sides: np.ndarray) -> Binary:
    """What is judged of `Tally.sides`."""
    (tn, fp), (fn, tp) = sides[0, :2], sides[1, :2]
    return Binary(tp=int(tp), fp=int(fp), fn=int(fn), tn=int(tn))
