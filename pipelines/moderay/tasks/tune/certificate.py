"""What can be certified of a frozen cascade, exactly, from contents it was not chosen on.

Misses among n violations are binomial, whatever the cascade, where these violations are a fair
sample of those to come; so are false flags among the flagged. A goal is certified where so few
misses would have a chance of at most 1 - confidence if the goal were not reached: the lower end of
the one-sided interval of Clopper and Pearson (1934) is then at or above it.

Recall and precision together: a cascade is certified where both tests pass, each at the stated
confidence. Where one goal is not reached, its own test passes in at most 1 - confidence of all
draws, and so do both: "both goals are reached" holds at the stated confidence without a correction
(an intersection-union test; Berger 1982, https://doi.org/10.1080/00401706.1982.10487790). The two
lower ends as a pair hold together at 1 - 2 (1 - confidence) only.

Several cascades: in an order that was fixed beforehand, each is tested at the full level until the
first that fails; the last that passed is certified. A wrong one must be the first wrong one in the
order, so the chance is the same (Learn then Test: https://arxiv.org/abs/2110.01052).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Not scipy.stats, whose import takes more than half a second.
from scipy.special import betainc, betaincinv

from moderay.labels.analysis import intervals

# With this chance a cascade passes that is as good as the power says.
POWER = 0.8
# Of a mean over quantiles.
NODES = 16


@dataclass(frozen=True)
class Goal:
    """What a cascade is to reach.

    Attributes:
        recall: Share of violations that are flagged; between 0 and 1, as the others.
        precision: Share of the flagged that violate.
        confidence: How sure that is.
    """

    recall: float
    precision: float
    confidence: float = 0.95


@dataclass(frozen=True)
class Counts:
    """Contents by what is known of them and what a cascade says.

    Attributes:
        violations: That violate; those without a verdict are among them, and not flagged.
        flagged: That are flagged.
        hits: That are both.
    """

    violations: int
    flagged: int
    hits: int

    @property
    def missed(self) -> int:
        """Violations that are not flagged."""
        return self.violations - self.hits

    @property
    def wrongly_flagged(self) -> int:
        """Flagged contents that do not violate."""
        return self.flagged - self.hits

    @property
    def recall(self) -> float | None:
        """None where nothing violates."""
        return self.hits / self.violations if self.violations else None

    @property
    def precision(self) -> float | None:
        """None where nothing is flagged."""
        return self.hits / self.flagged if self.flagged else None


def counts(violates: np.ndarray, flagged: np.ndarray) -> Counts:
    """Count contents; both are bool."""
    return Counts(int(violates.sum()), int(flagged.sum()), int((violates & flagged).sum()))


@dataclass(frozen=True)
class Bounds:
    """Lower ends of one-sided intervals, each at the goal's confidence for itself.

    Attributes:
        recall: 0 where nothing violates.
        precision: 0 where nothing is flagged.
    """

    recall: float
    precision: float


def bounds(found: Counts, confidence: float) -> Bounds:
    """What counts say of recall and precision at least."""
    return Bounds(
        intervals.lower_end(found.hits, found.violations, confidence),
        intervals.lower_end(found.hits, found.flagged, confidence),
    )


def passes(found: Counts, goal: Goal) -> bool:
    """Whether counts of contents that a cascade was not chosen on certify both goals."""
    return _within(found.missed, found.violations, goal.recall, goal.confidence) and _within(
        found.wrongly_flagged, found.flagged, goal.precision, goal.confidence
    )


def _within(wrong: int, of: int, floor: float, confidence: float) -> bool:
    allowed = intervals.allowed_misses(of, 1 - floor, confidence)
    return allowed is not None and wrong <= allowed


def last_certified(found: Iterable[Counts], goal: Goal) -> int | None:
    """Test cascades in a fixed order, each from its counts, up to the first that fails.

    Returns:
        Position of the last that passed; None where the first fails.
    """
    last = None
    for position, each in enumerate(found):
        if not passes(each, goal):
            break
        last = position
    return last


def recall_needed(violations: int, goal: Goal) -> float | None:
    """The power of a certificate: the true recall that passes with a chance of `POWER`.

    Returns:
        None where so few violations certify nothing.
    """
    allowed = intervals.allowed_misses(violations, 1 - goal.recall, goal.confidence)
    if allowed is None:
        return None
    # P(Binomial(n, miss) <= k) = 1 - I_miss(k + 1, n - k).
    return 1 - float(betaincinv(allowed + 1, violations - allowed, 1 - POWER))


def chances(
    wrong: np.ndarray, of: np.ndarray, others: np.ndarray, floor: float, confidence: float
) -> np.ndarray:
    """How likely cascades pass one of their tests on other contents, as far as counts tell.

    Under a flat prior on the share that is wrong. It orders candidates; no promise hangs on it.

    Args:
        wrong: int64, any shape: misses, or false flags, where candidates are chosen.
        of: int64, as `wrong`: violations, or flagged contents, there.
        others: int64, as `wrong`: the same among the others; what is to be tested.
        floor: Of the share that is right.
        confidence: Of the test.
    """
    several, which = np.unique(others, return_inverse=True)
    allowed = [intervals.allowed_misses(int(n), 1 - floor, confidence) for n in several]
    can = np.array([each is not None for each in allowed])
    k = np.array([each or 0 for each in allowed])
    # P(pass | share) = P(Beta(k + 1, n - k) > share): the chance is that this exceeds the posterior
    # of the share, its mean over quantiles.
    quantiles = (np.arange(NODES) + 0.5) / NODES
    passed = betaincinv(k + 1, np.maximum(several - k, 1), quantiles[:, None])
    mean = betainc(wrong + 1, of - wrong + 1, passed[:, which.reshape(wrong.shape)]).mean(axis=0)
    return np.asarray(np.where(can[which.reshape(wrong.shape)], mean, 0.0))


def wrong_certificates(violations: int, others: int, goal: Goal) -> float:
    """The largest chance that a recall is certified and missed on a finite number of others.

    Contents are drawn for the certificate from a finite number, the others are the rest: the misses
    among the drawn are hypergeometric. Over all numbers of misses, the largest chance that few
    enough are drawn and too many are left. Others are a sample too, so this is above 1 - confidence
    where they are few.

    Args:
        violations: That are drawn.
        others: Violations that are left.
        goal: For its recall.
    """
    from scipy.stats import hypergeom  # noqa: PLC0415  # slow to import, and only benchmarks ask

    allowed = intervals.allowed_misses(violations, 1 - goal.recall, goal.confidence)
    if allowed is None:
        return 0.0
    # The most misses that are no more than the share, whatever the rounding of the product.
    fine = int(np.floor((1 - goal.recall) * others + 1e-9))
    total = np.arange(fine + 1, fine + allowed + 1 + others)
    total = total[total <= violations + others]
    # Too many are left where fewer than total - fine are drawn.
    most = np.minimum(allowed, total - fine - 1)
    return float(hypergeom.cdf(most, violations + others, total, violations).max())
