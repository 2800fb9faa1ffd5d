"""How reviews are dealt among strata, and how many an interval of some width takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moderay.labels.analysis.prevalence.interval import StratumHits, stratified_interval

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# The share of the reviews that is dealt by the strata's rows alone; the rest goes where the model
# is unsure. The more is dealt by P, the wider is the interval where violations lie among the rows
# that the model is sure of: tests/benchmarks/prevalence.py compares it.
BY_ROWS = 0.9
# Reviews of a stratum at least, of many and of few.
LEAST, LEAST_OF_FEW = 8, 4
# Of so many reviews, one at least is due to a stratum.
LEAST_PART = 25
# Reviews of a plan at most.
MOST = 100_000


@dataclass(frozen=True)
class StratumRows:
    """The rows of each stratum, in columns.

    Attributes:
        rows: how many: (strata,), none of them 0.
        probability: their mean P: (strata,).
        uncertainty: their mean square root of P(1-P): (strata,).
    """

    rows: Counts
    probability: Floats
    uncertainty: Floats


def allocate(strata: StratumRows, reviews: int) -> Counts:
    """Reviews of each stratum: (strata,), never more than its rows.

    They add up to `reviews`, or to the least that so many strata need, or to all rows.
    """
    room = strata.rows.astype(np.float64)
    least = np.minimum(room, min(LEAST, max(LEAST_OF_FEW, reviews // LEAST_PART)))
    by_rows, by_doubt = room, room * strata.uncertainty
    share = BY_ROWS * by_rows / by_rows.sum()
    share += (1 - BY_ROWS) * (
        by_doubt / by_doubt.sum() if by_doubt.any() else by_rows / by_rows.sum()
    )
    return _rounded(_bounded(share, least, room, reviews), room)


def _bounded(share: Floats, least: Floats, most: Floats, total: float) -> Floats:
    """Parts of a total in proportion to the shares, within bounds.

    The factor of the shares is found by bisection: the sum grows with it.
    """
    total = min(max(total, least.sum()), most.sum())
    low, high = 0.0, float((most / share).max())
    for _ in range(200):
        factor = (low + high) / 2
        if np.clip(factor * share, least, most).sum() < total:
            low = factor
        else:
            high = factor
    return np.clip(high * share, least, most)


def _rounded(parts: Floats, most: Floats) -> Counts:
    """Whole numbers of the same sum, none above its bound; the largest remainders go up."""
    whole = np.floor(parts + 1e-6)
    missing = round(float(parts.sum() - whole.sum()))
    remainder = np.where(whole < most, parts - whole, -1.0)
    whole[np.argsort(-remainder, kind="stable")[: max(missing, 0)]] += 1
    return whole.astype(np.int64)


def expected_width(strata: StratumRows, reviews: int) -> float:
    """How wide the interval of the share in all rows is, where the model's P are right.

    Of the expected hits, and so about the width that is met on average.
    """
    dealt = allocate(strata, reviews)
    sample = StratumHits.of(strata.rows, dealt, dealt * strata.probability)
    low, high = stratified_interval(sample)
    return float(high - low)


def reviews_needed(strata: StratumRows, width: float) -> int | None:
    """The fewest reviews for an interval of this width, about, where the model's P are right.

    Returns:
        None where more than `MOST` would be needed.
    """
    most = int(min(MOST, strata.rows.sum()))
    if expected_width(strata, most) > width:
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if expected_width(strata, middle) > width:
            low = middle
        else:
            high = middle
    return high
