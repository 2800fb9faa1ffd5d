"""Two versions of a judge on the same rows: whether they differ, and which is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from moderay.labels.analysis.intervals import interval
from moderay.labels.analysis.metrics.bootstrap import bootstrap
from moderay.labels.analysis.metrics.confusion import Binary, Bools, Figure, Floats, Ints, ratio
from moderay.labels.analysis.metrics.estimate import CONFIDENCE, Estimate


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact test: how often chance alone makes versions differ at least as one-sidedly.

    Without gold, the two counts are of the rows that flipped, by direction; with gold, of the rows
    that only one version is right about.

    Args:
        only_a: rows of the first kind.
        only_b: rows of the second kind.

    Returns:
        The two-sided p value: 1 where nothing flipped.
        https://doi.org/10.1007/BF02295996
    """
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def per_million(k: int, n: int, confidence: float = CONFIDENCE) -> Estimate | None:
    """What `k` of `n` sampled rows mean for a million: rows, with the exact interval.

    None of no rows.
    """
    if not n:
        return None
    low, high = interval(k, n, confidence)
    return Estimate(1e6 * k / n, 1e6 * low, 1e6 * high, "exact")


@dataclass(frozen=True, eq=False)
class Paired:
    """Rows with gold that two versions, a and b, have judged.

    Attributes:
        counts: int64 (2, 2, 2), rows by [gold, a, b], each 1 where it violates.
    """

    counts: Ints

    @classmethod
    def of(cls, gold: Bools, a: Bools, b: Bools) -> Paired:
        """Count rows; each argument is (rows,)."""
        cells = np.asarray(gold, np.int64) * 4 + np.asarray(a, np.int64) * 2 + b
        return cls(np.bincount(cells, minlength=8).reshape(2, 2, 2).astype(np.int64))

    def __add__(self, other: Paired) -> Paired:
        """The rows of both."""
        return Paired(self.counts + other.counts)

    @property
    def a(self) -> Binary:
        """Version a against gold."""
        return _binary(self.counts.sum(axis=2))

    @property
    def b(self) -> Binary:
        """Version b against gold."""
        return _binary(self.counts.sum(axis=1))

    @property
    def p_value(self) -> float:
        """McNemar's exact test of whether one version is right about more rows than the other."""
        safe, violating = self.counts.tolist()
        return mcnemar(safe[0][1] + violating[1][0], safe[1][0] + violating[0][1])

    def difference(
        self, figure: Figure, confidence: float = CONFIDENCE, seed: int = 0
    ) -> Estimate | None:
        """How much more version b has of a figure than a, by a paired bootstrap.

        One row is put into each cell beforehand: with less, versions that differ on a handful of
        rows have intervals that cover too seldom.

        Returns:
            None where the figure is undefined of one of them.
        """

        def gained(tables: Floats) -> Floats:
            tables = tables.reshape(-1, 2, 2, 2)
            return _figures(figure, tables.sum(axis=2)) - _figures(figure, tables.sum(axis=3))

        found = bootstrap(self.counts.ravel(), np.ones(8), gained, confidence, seed)
        return found and Estimate(*found, "bootstrap")


def _binary(table: Ints) -> Binary:
    """Of a table by [gold, said]."""
    (tn, fp), (fn, tp) = table.tolist()
    return Binary(tp, fp, fn, tn)


def _figures(figure: Figure, tables: Floats) -> Floats:
    """A figure of tables (tables, 2, 2) by [gold, said]; NaN where it is undefined."""
    tn, fp, fn, tp = tables.reshape(-1, 4).T
    part, whole = ratio(figure, tp, fp, fn, tn)
    figures = np.full(len(tables), np.nan)
    np.divide(part, whole, out=figures, where=whole != 0)
    return figures
