"""Figures of a binary table whose rows were drawn with unequal chances, with their intervals.

A row counts for as many as it stands for, and what is said of the flagged and of the others is
known as well as from an effective number of rows (Korn and Graubard, Survey Methodology 24, 1998):
m(1-m)/Var, at most the number of rows; where all rows agree, Kish's, which falls with unequal
weights: what was not seen may lie where a row stands for most.
"""

from __future__ import annotations

from dataclasses import dataclass

from moderay.labels.analysis.intervals import interval
from moderay.labels.analysis.metrics.confusion import FIGURES, Binary, Figure, Floats
from moderay.labels.analysis.metrics.estimate import CONFIDENCE, Estimate


@dataclass(frozen=True, eq=False)
class WeightedTable:
    """Rows by gold and by what is said, each 0 for safe and 1 for violating.

    Attributes:
        rows: (2, 2), how many.
        weight: (2, 2), sums of their weights.
        square: (2, 2), sums of their weights, squared.
    """

    rows: Floats
    weight: Floats
    square: Floats

    def violating(self, said: int) -> tuple[float, float, float]:
        """Of what is said to be so: its weight, the share that violates, and the effective size."""
        whole = float(self.weight[:, said].sum())
        if not whole:
            return 0.0, 0.0, 0.0
        share = float(self.weight[1, said]) / whole
        square = self.square[:, said]
        variance = float(square[1] * (1 - share) ** 2 + square[0] * share**2) / whole**2
        kish = whole**2 / float(square.sum())
        size = share * (1 - share) / variance if variance > 0 else kish
        return whole, share, min(size, float(self.rows[:, said].sum()))


def weighted_estimates(
    table: WeightedTable, confidence: float = CONFIDENCE
) -> dict[Figure, Estimate | None]:
    """Every figure of a table with its interval; None where it is undefined.

    How much is flagged is known. All figures rise with the share that violates among the flagged
    and fall with that among the others, so that their ends are where both shares lie at an end of
    their intervals, which hold at once by Bonferroni.
    """
    each = 1 - (1 - confidence) / 2
    (flagged, p, p_size), (kept, q, q_size) = table.violating(1), table.violating(0)
    p_low, p_high = interval(p * p_size, p_size, each)
    q_low, q_high = interval(q * q_size, q_size, each)
    value = _table(flagged, kept, p, q)
    ends = [_table(flagged, kept, p_low, q_high), _table(flagged, kept, p_high, q_low)]
    found: dict[Figure, Estimate | None] = {
        name: _between(name, value, ends) for name in FIGURES if name != "kappa"
    }
    if found["precision"] is not None:  # it is of the flagged alone
        found["precision"] = Estimate(p, *interval(p * p_size, p_size, confidence), "approximate")
    return found


def _table(flagged: float, kept: float, p: float, q: float) -> Binary:
    return Binary(tp=flagged * p, fp=flagged * (1 - p), fn=kept * q, tn=kept * (1 - q))


def _between(name: Figure, value: Binary, ends: list[Binary]) -> Estimate | None:
    """A figure, and from where to where it is; what is undefined at an end may be anything."""
    found = value.figure(name)
    if found is None:
        return None
    at_ends = [end.figure(name) for end in ends]
    known = [each for each in at_ends if each is not None]
    low, high = (min(known), max(known)) if len(known) == len(ends) else (0.0, 1.0)
    return Estimate(found, min(low, found), max(high, found), "approximate")
