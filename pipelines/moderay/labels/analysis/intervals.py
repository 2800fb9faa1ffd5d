"""What a sample says of a share, exactly.

How many held-out violations a cut-off may miss, and intervals for counts.

The cut-off is the (k+1)-th smallest score of n held-out violations; rows strictly below it are
settled as safe. Where those violations are exchangeable with the ones to come, and no two scores
are equal, the share of violations that is missed from then on is distributed as Beta(k+1, n-k),
whatever the judge: only order counts. Equal scores can make that share smaller, never larger.
https://arxiv.org/abs/2107.07511, section 3.2, has the derivation.
"""

from __future__ import annotations

import math

import numpy as np

# scipy.special is imported where it is needed: it takes a quarter of the time of a run that has
# nothing to do. Not scipy.stats, whose import takes twice as long again.


def allowed_misses(violations: int, max_miss: float, confidence: float) -> int | None:
    """The largest k for which P(share missed <= `max_miss`) >= `confidence`.

    Args:
        violations: that were held out.
        max_miss: share, between 0 and 1.
        confidence: between 0 and 1.

    Returns:
        None where there are too few violations even for k = 0.

    Raises:
        ValueError: a number does not lie between 0 and 1.
    """
    _check(max_miss, confidence)
    if not violations:
        return None
    from scipy.special import bdtrik, betainc  # noqa: PLC0415  late

    # P(Beta(k+1, n-k) <= p) = P(Binomial(n, p) > k), so k is next to a quantile of the binomial
    # distribution.
    near = math.ceil(bdtrik(1 - confidence, violations, max_miss))
    fits = (
        k
        for k in (near + 1, near, near - 1, near - 2)
        if 0 <= k < violations and betainc(k + 1, violations - k, max_miss) >= confidence
    )
    return next(fits, None)


def violations_needed(max_miss: float, confidence: float) -> int:
    """The fewest held-out violations for which a cut-off exists: 59 for 0.05 and 0.95.

    Raises:
        ValueError: a number does not lie between 0 and 1.
    """
    _check(max_miss, confidence)
    # (1 - p) ** n <= 1 - confidence, but the logarithms are rounded: begin one below.
    needed = max(1, math.ceil(math.log1p(-confidence) / math.log1p(-max_miss)) - 1)
    while allowed_misses(needed, max_miss, confidence) is None:
        needed += 1
    return needed


def interval(k: float, n: float, confidence: float) -> tuple[float, float]:
    """The Clopper-Pearson interval of a share, where `k` of `n` were hits.

    It covers the true share with at least `confidence`; (0, 1) for n = 0. The counts are whole, but
    where `n` is an effective size.
    """
    from scipy.special import betaincinv  # noqa: PLC0415  late

    tail = (1 - confidence) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return low, high


def lower_end(k: int, n: int, confidence: float) -> float:
    """The lower end of the one-sided interval of Clopper and Pearson for a share, `k` of `n`.

    At or above `1 - max_miss` exactly where `n - k` is at most `allowed_misses`; 0 for n = 0.
    """
    from scipy.special import betaincinv  # noqa: PLC0415  late

    return float(betaincinv(k, n - k + 1, 1 - confidence)) if k else 0.0


def cut_off(scores: np.ndarray, max_miss: float, confidence: float) -> tuple[float, int] | None:
    """The cut-off for the scores of held-out violations, and how many of them it may miss.

    Args:
        scores: higher is more likely to violate.
        max_miss: share of violations that may be missed.
        confidence: of that promise.

    Returns:
        Settle what is strictly below the cut-off. None where there are too few violations.

    Raises:
        ValueError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError("a score of a held-out violation is NaN")
    allowed = allowed_misses(len(scores), max_miss, confidence)
    return None if allowed is None else (float(np.partition(scores, allowed)[allowed]), allowed)


def _check(max_miss: float, confidence: float) -> None:
    if not (0 < max_miss < 1 and 0 < confidence < 1):
        raise ValueError(
            f"max_miss {max_miss} and confidence {confidence} must lie between 0 and 1"
        )
