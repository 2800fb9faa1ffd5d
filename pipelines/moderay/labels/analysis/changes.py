"""Whether a share, or a distribution, has changed from one night on: by more than chance makes.

A change is looked for where it is likeliest to have begun.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, chdtri, ndtri, stdtrit, xlogy

from moderay.labels.analysis.intervals import interval

Counts = np.ndarray

# How often chance alone may look like a change, over all nights from which on it may have begun.
CHANCE = 0.001
# Nights before a change: with fewer it is not known how much they differ among themselves.
BEFORE = 3
# Nights that differ among themselves by what chance makes more seldom than this do so by nature.
WOBBLE = 0.01
# Of the intervals that are shown.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """A share of rows, with its interval of 95% confidence (Clopper-Pearson).

    Attributes:
        count: rows.
        of: how many rows.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share; 0 of no rows."""
        return self.count / self.of if self.of else 0.0


@dataclass(frozen=True)
class Change:
    """A share before a night, and from it on.

    Attributes:
        since: date of that night.
        before: the share before it.
        after: the share from it on.
        ratio: of the two, as (low, estimate, high).
    """

    since: str
    before: Share
    after: Share
    ratio: tuple[float, float, float]

    def beyond(self, limit: float) -> bool:
        """Whether the change is as large as that, and not chance."""
        low, times, high = self.ratio
        return (low > 1 and times > 1 + limit) or (high < 1 and times < 1 / (1 + limit))


@dataclass(frozen=True)
class Drift:
    """How far the distribution of P(violates) from a night on is from the one before.

    Attributes:
        since: date of that night.
        distance: Jensen-Shannon; 0 for the same and 1 for nothing in common, whatever the number
            of rows.
        certain: whether it is more than chance makes.
    """

    since: str
    distance: float
    certain: bool


def shares(counts: Sequence[int], of: Sequence[int]) -> tuple[Share, ...]:
    """By night: `counts` of `of` rows."""
    return tuple(Share(k, n, *interval(k, n, CONFIDENCE)) for k, n in zip(counts, of, strict=True))


def change(dates: Sequence[str], hits: Counts, of: Counts) -> Change | None:
    """The change of a share that is likeliest among these nights.

    Its ratio has Katz's interval for a ratio of two shares (https://doi.org/10.2307/2530610), with
    half a hit more on either side, so that none is no problem, and wider where the nights before
    and after differ among themselves by more than chance: a share that goes up and down every week
    has not changed.

    Args:
        dates: of the nights.
        hits: rows by night.
        of: how many rows, by night.

    Returns:
        None where there are too few nights to compare.
    """
    table = np.stack([hits, of - hits], axis=1)
    split = _split(table)
    if split is None:
        return None
    x0, y0 = table[:split].sum(axis=0)
    x1, y1 = table[split:].sum(axis=0)
    before, after = shares([int(x0), int(x1)], [int(x0 + y0), int(x1 + y1)])
    ratio = ((x1 + 0.5) / (x1 + y1 + 0.5)) / ((x0 + 0.5) / (x0 + y0 + 0.5))
    variance = 1 / (x1 + 0.5) - 1 / (x1 + y1 + 0.5) + 1 / (x0 + 0.5) - 1 / (x0 + y0 + 0.5)
    wide = math.exp(_deviations(table, split) * math.sqrt(variance))
    return Change(dates[split], before, after, (ratio / wide, ratio, ratio * wide))


def drift(dates: Sequence[str], bins: Counts) -> Drift | None:
    """The change of a distribution that is likeliest among these nights.

    Args:
        dates: of the nights.
        bins: rows by night and bin of P(violates).

    Returns:
        None where there are too few nights to compare, or no probabilities.
    """
    bins = bins[:, bins.sum(axis=0) > 0]
    split = _split(bins)
    if split is None:
        return None
    before, after = (part.sum(axis=0) / part.sum() for part in (bins[:split], bins[split:]))
    middle = (before + after) / 2
    divergence = (_information(before) + _information(after)) / 2 - _information(middle)
    least = chdtri(max(1, bins.shape[1] - 1), CHANCE / _splits(len(bins)))
    return Drift(
        dates[split],
        math.sqrt(max(0.0, divergence / math.log(2))),
        bool(_likelihood_ratios(bins)[split - 1] > least),
    )


def _split(table: Counts) -> int | None:
    """The night from which on the counts (by night and kind) differ most from those before.

    There the likelihood ratio of two distributions against one is largest. None where there is too
    little to compare.
    """
    with_rows = np.flatnonzero(table.sum(axis=1))
    if len(with_rows) <= BEFORE:
        return None
    # Behind BEFORE nights with rows, and not behind the last.
    first = int(with_rows[BEFORE - 1])
    return first + 1 + int(np.argmax(_likelihood_ratios(table)[first : with_rows[-1]]))


def _splits(nights: int) -> int:
    return max(1, nights - BEFORE)


def _likelihood_ratios(table: Counts) -> np.ndarray:
    """For each split, at index `split - 1`: G of the summed counts before and after.

    G is twice the logarithm of the likelihood ratio.
    """
    before = np.cumsum(table, axis=0)[:-1]
    after = table.sum(axis=0) - before
    return np.asarray(
        2 * (_information(before) + _information(after) - _information(table.sum(axis=0)))
    )


def _information(counts: Counts) -> np.ndarray:
    """Sum of x ln(x / n) over the last axis."""
    return np.asarray(
        xlogy(counts, counts).sum(axis=-1) - xlogy(counts.sum(axis=-1), counts.sum(axis=-1))
    )


def _deviations(table: Counts, split: int) -> float:
    """Standard deviations of chance that a change must go beyond.

    Where the nights on either side differ among themselves by more than chance, its variance is
    multiplied by Pearson's statistic over its degrees of freedom, and the quantile is Student's,
    since that was estimated (quasi-likelihood: McCullagh and Nelder, Generalized Linear Models,
    4.5).
    """
    level = 1 - CHANCE / 2 / _splits(len(table))
    statistic, freedom = 0.0, -2
    for part in (table[:split], table[split:]):
        expected = np.outer(part.sum(axis=1), part.sum(axis=0)) / part.sum()
        likely = expected > 0
        statistic += float(((part - expected)[likely] ** 2 / expected[likely]).sum())
        freedom += int((part.sum(axis=1) > 0).sum())
    if chdtrc(freedom, statistic) > WOBBLE:
        return float(ndtri(level))
    return float(stdtrit(freedom, level)) * math.sqrt(statistic / freedom)
