"""P(violates) against gold, as histograms that add up: a million rows are a few thousand counts.

What binning may have changed of a figure is stated beside it, and is proven: the figure that
single rows would give lies within `error` of `value`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from moderay.labels.analysis.metrics.confusion import Binary, Bools, Floats, Ints
from moderay.labels.analysis.metrics.points import Curve, Reliability, Score
from moderay.labels.analysis.metrics.ranking import (
    auc,
    auc_error,
    average_precision,
    average_precision_error,
    tables,
)

# Of [0, 1]. P is known to about 1e-3, a batch in bf16 moves it by more.
BINS = 10_000
# Of the calibration error, as in https://arxiv.org/abs/1706.04599, section 2.
CALIBRATION_BINS = 15


@dataclass(frozen=True, eq=False)
class ScoreHistogram:
    """Rows by bin of P(violates) and by what gold says, and what is summed up of them.

    Sums are (2, bins): those of safe rows, then those of violating ones. Only bins that have rows
    are kept, so that a slice of few rows is small.

    Attributes:
        bins: (bins,), which of them, ascending. Bin b has b/BINS <= P < (b+1)/BINS, so that P = 1
            has bin BINS to itself.
        weight: rows; sums of their weights where they have weights.
        square: of the weights, squared: what a draw of other rows would change of `weight`. None
            where every row counts for 1: these are then the same.
        loss: of (P - y)^2, where y is 1 for a row that violates and 0 for one that is safe.
        calibration: (4, CALIBRATION_BINS): rows, P, y, and (P - y)^2 with the weights squared. In
            bins of their own, since the edges of fifteen are not among those of ten thousand.
    """

    bins: Ints
    weight: Floats
    square: Floats | None
    loss: Floats
    calibration: Floats

    @classmethod
    def of(
        cls, p: npt.NDArray[np.floating], violates: Bools, weights: Floats | None = None
    ) -> ScoreHistogram:
        """Sum up rows.

        Args:
            p: (rows,), P(violates). Where these are float32, so are the edges of bins that they
                are held against, as thresholds are.
            violates: (rows,), what gold says.
            weights: (rows,), above 0; 1 by default.

        Raises:
            ValueError: P is not from 0 to 1, or a weight not above 0.
        """
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("P(violates) must lie between 0 and 1")
        w = np.ones(len(p)) if weights is None else np.asarray(weights, np.float64)
        if not (w > 0).all():
            raise ValueError("weights must be above 0")
        y = np.asarray(violates, np.int64)
        cell = y * (BINS + 1) + _bin(p, np.arange(BINS + 1) / BINS)
        bins = np.unique(cell % (BINS + 1))
        coarse = _bin(p, np.arange(CALIBRATION_BINS) / CALIBRATION_BINS)
        p = p.astype(np.float64)

        def sums(of: Floats) -> Floats:
            summed = np.bincount(cell, of, minlength=2 * (BINS + 1)).astype(np.float64)
            return summed.reshape(2, -1)[:, bins]

        square, loss = w**2, (p - y) ** 2
        summed = (w, w * p, w * y, square * loss)
        return cls(
            bins,
            sums(w),
            None if weights is None else sums(square),
            sums(w * loss),
            np.stack([np.bincount(coarse, of, CALIBRATION_BINS) for of in summed]),
        )

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        """The rows of both."""
        bins = np.union1d(self.bins, other.bins)
        sums = np.zeros((3, 2, len(bins)))
        for part in (self, other):
            at = np.searchsorted(bins, part.bins)
            sums[:, :, at] += np.stack([part.weight, part.squares, part.loss])
        weight, square, loss = sums
        unweighted = self.square is None and other.square is None
        calibration = self.calibration + other.calibration
        return ScoreHistogram(bins, weight, None if unweighted else square, loss, calibration)

    @property
    def squares(self) -> Floats:
        """Sums of squared weights, (2, bins), whether rows have weights or not."""
        return self.weight if self.square is None else self.square

    @property
    def rows(self) -> float:
        """How many rows these are; the sum of their weights."""
        return float(self.weight.sum())

    @cached_property
    def roc_auc(self) -> Score | None:
        """Share of pairs, a violating row and a safe one, in which the violating one has more.

        Pairs in one bin count half, so that half of them is the error. None where gold has one
        side only.
        """
        if not self.weight.sum(axis=1).all():
            return None
        return Score(float(auc(self.weight)), float(auc_error(self.weight)))

    @cached_property
    def average_precision(self) -> Score | None:
        """Mean over the violating rows of the precision at the threshold that just finds each.

        A bin is one threshold; the error is how far the best and the worst order of its rows would
        lead. None where nothing violates.
        """
        if not self.weight[1].sum():
            return None
        error = average_precision_error(self.weight, self.square is not None)
        return Score(float(average_precision(self.weight)), float(error))

    @cached_property
    def brier(self) -> Score | None:
        """Mean of (P - y)^2, which is exact: error 0. None without rows.

        https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
        """
        return Score(float(self.loss.sum()) / self.rows, 0.0) if self.rows else None

    @cached_property
    def calibration_error(self) -> Score | None:
        """Mean distance between P and the share that violates, over bins weighted by their rows.

        With bins of equal width, as in https://arxiv.org/abs/1706.04599, equation 3; exact, so
        that its error is 0. None without rows. It is never below 0, and so with few rows it is
        above what many would show.
        """
        if not self.rows:
            return None
        _, probability, violating, _ = self.calibration
        return Score(float(np.abs(probability - violating).sum()) / self.rows, 0.0)

    @cached_property
    def reliability(self) -> Reliability:
        """Points of the reliability diagram."""
        rows, probability, violating, _ = self.calibration[:, self.calibration[0] > 0]
        return Reliability(probability / rows, violating / rows, rows)

    @cached_property
    def curve(self) -> Curve:
        """Precision and recall at the lower edge of each bin that has rows."""
        tp, fp = tables(self.weight)
        violating = self.weight[1].sum()
        recall = tp / violating if violating else np.full(len(tp), np.nan)
        return Curve(self.bins / BINS, tp / (tp + fp), recall)

    def at(self, threshold: float) -> Binary:
        """The table where rows violate at P(violates) >= `threshold`.

        Raises:
            ValueError: the threshold is no edge of a bin, that is, no multiple of 1/BINS.
        """
        edge = round(threshold * BINS)
        if not math.isclose(edge, threshold * BINS, abs_tol=1e-6):
            raise ValueError(f"threshold {threshold}: only multiples of {1 / BINS} are known")
        first = int(np.searchsorted(self.bins, edge))
        (tn, fn), (fp, tp) = self.weight[:, :first].sum(axis=1), self.weight[:, first:].sum(axis=1)
        return Binary(float(tp), float(fp), float(fn), float(tn))

    def best_threshold(self, goal: Literal["recall", "precision"], floor: float) -> float | None:
        """The threshold with the most of the other figure while `goal` is at least `floor`.

        Chosen on these rows, its figures are too good on these rows: report them on others.

        Returns:
            A multiple of 1/BINS; of equally good ones that with the most of `goal`. None where no
            threshold reaches the floor, or nothing violates.
        """
        recall, precision = self.curve.recall, self.curve.precision
        held, other = (recall, precision) if goal == "recall" else (precision, recall)
        fits = np.flatnonzero((held >= floor) & (recall >= 0))
        if not len(fits):
            return None
        best = fits[np.lexsort((held[fits], other[fits]))[-1]]
        return float(self.curve.threshold[best])

    def counts(self, bins: int) -> Floats:
        """Rows for a picture: (2, `bins`), safe and violating, in equal bins of P(violates).

        The last one has P = 1 as well.

        Raises:
            ValueError: `bins` does not divide BINS.
        """
        if BINS % bins:
            raise ValueError(f"{bins} bins: {BINS} cannot be divided into them")
        into = np.minimum(self.bins * bins // BINS, bins - 1)
        return np.stack([np.bincount(into, of, bins) for of in self.weight])


def _bin(p: npt.NDArray[np.floating], edges: Floats) -> Ints:
    """Which bin each P is in, by the bins' lower edges; the last one has no upper edge."""
    return np.searchsorted(edges.astype(p.dtype), p, side="right").astype(np.int64) - 1
