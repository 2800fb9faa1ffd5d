"""How well P(violates) ranks rows, from counts by bin, and what ties within a bin leave open.

Counts are (..., 2, bins): of safe rows and of violating ones, by bin of P(violates), ascending.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma

from moderay.labels.analysis.metrics.confusion import Floats


def tables(counts: Floats) -> tuple[Floats, Floats]:
    """Violating and safe rows at or above the lower edge of each bin: (..., bins) each."""
    above = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return above[..., 1, :], above[..., 0, :]


def auc(counts: Floats) -> Floats:
    """Area under the ROC curve, a pair in one bin counting half: (...,).

    NaN where there are no violating rows, or no safe ones.
    """
    safe, violating = counts[..., 0, :], counts[..., 1, :]
    below = np.cumsum(safe, axis=-1) - safe / 2
    pairs = safe.sum(axis=-1) * violating.sum(axis=-1)
    return _over((violating * below).sum(axis=-1), pairs)


def auc_error(counts: Floats) -> Floats:
    """How far the area may lie from `auc`, whatever the order within bins: (...,)."""
    safe, violating = counts[..., 0, :], counts[..., 1, :]
    pairs = safe.sum(axis=-1) * violating.sum(axis=-1)
    return _over((violating * safe).sum(axis=-1) / 2, pairs)


def average_precision(counts: Floats) -> Floats:
    """Precision at the lower edge of each bin, weighted by its violating rows: (...,).

    NaN where there are no violating rows.
    """
    violating = counts[..., 1, :]
    tp, fp = tables(counts)
    return _over(_over(violating * tp, tp + fp, 0.0).sum(axis=-1), violating.sum(axis=-1))


def average_precision_error(counts: Floats, weighted: bool) -> Floats:
    """How far average precision may lie from `average_precision`, whatever the order within bins.

    The j-th violating row of a bin, after T violating rows and F safe ones in higher bins, has a
    precision of (T+j)/(T+j+F+n) at least: all n safe rows of the bin come first, and it is tied
    with none. The sum of that over j has a closed form. The most there can be is (T+k)/(T+k+F)
    for each of the k, tied with one another above all safe rows.

    Args:
        counts: (..., 2, bins).
        weighted: rows count for other than 1. The sum over j is then replaced by its integral,
            which is lower for every way in which weights can be shared out.

    Returns:
        (...,); NaN where there are no violating rows.
    """
    k = counts[..., 1, :]
    tp, fp = tables(counts)
    value = _over(k * tp, tp + fp, 0.0)
    best = _over(k * tp, tp + fp - counts[..., 0, :], 0.0)
    higher = tp - k + fp
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.log1p(k / higher) if weighted else digamma(tp + fp + 1) - digamma(higher + 1)
        worst = k - np.where((fp > 0) & (k > 0), fp * spread, 0.0)
    off = np.maximum(np.sum(best - value, axis=-1), np.sum(value - worst, axis=-1))
    return _over(np.maximum(off, 0.0), k.sum(axis=-1))


def _over(part: Floats, whole: Floats, empty: float = np.nan) -> Floats:
    """Their ratio; `empty` where the whole is 0."""
    ratio = np.full(np.shape(part), empty)
    np.divide(part, whole, out=ratio, where=whole != 0)
    return ratio
