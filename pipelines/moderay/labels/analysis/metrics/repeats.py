"""The same judge on the same contents several times: how often it contradicts itself.

And whether two versions of it differ by more than that. A verdict is a small number here, such as 1
where it violates; (contents, repeats) each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import comb

from moderay.labels.analysis.intervals import interval
from moderay.labels.analysis.metrics.confusion import Floats, Ints
from moderay.labels.analysis.metrics.estimate import CONFIDENCE, Estimate, share

# No p value is told that is smaller: what is added up has errors of some 1e-12.
SMALLEST_P = 1e-9


@dataclass(frozen=True, eq=False)
class Repeats:
    """Contents that one judge has judged several times.

    Attributes:
        pairs: int64, (contents,): of how many pairs of its verdicts on a content the two differ.
        repeats: Verdicts on each content, 2 at least.
        kinds: Different verdicts that there are: 2 of what violates or does not.
    """

    pairs: Ints
    repeats: int
    kinds: int

    @classmethod
    def of(cls, verdicts: Ints, kinds: int) -> Repeats:
        """Count verdicts (contents, repeats), each from 0 to `kinds` - 1."""
        repeats = verdicts.shape[1]
        same = np.zeros(len(verdicts), np.int64)
        for kind in range(kinds):
            times = (verdicts == kind).sum(axis=1)
            same += times * (times - 1) // 2
        return cls(repeats * (repeats - 1) // 2 - same, repeats, kinds)

    def contradicted(self, confidence: float = CONFIDENCE) -> Estimate | None:
        """The share of contents on which not all verdicts are the same; None of no content.

        It grows with the number of repeats. The interval is exact: contents are a sample, and so
        are the verdicts on each.
        """
        return share(int((self.pairs > 0).sum()), len(self.pairs), confidence)

    def contradiction(self, confidence: float = CONFIDENCE) -> Estimate | None:
        """How often two verdicts on one content differ; None of no content.

        What two versions that are the same differ by, whatever the number of repeats.

        The pairs of one content are not independent, contents are: the figure is the mean over
        contents of the share of pairs that differ. That mean is a sum, over the values that the
        share can have, of how far each is above the one before times how many contents reach it;
        how many do is a binomial share each time, with an exact interval. By Bonferroni all hold at
        once, the tail being given out by the height of the steps; so the interval is exact too, and
        somewhat wider than need be (not at all with 2 or 3 repeats of two kinds).
        """
        n = len(self.pairs)
        if not n:
            return None
        total = self.repeats * (self.repeats - 1) // 2
        levels = _pairs_that_can_differ(self.repeats, self.kinds)
        low = high = 0.0
        for below, level in pairwise(levels):
            step = level - below
            tail = (1 - confidence) * step / levels[-1]
            ends = interval(int((self.pairs >= level).sum()), n, 1 - tail)
            low, high = low + step * ends[0], high + step * ends[1]
        return Estimate(float(self.pairs.mean()) / total, low / total, high / total, "exact")


def _pairs_that_can_differ(repeats: int, kinds: int) -> list[int]:
    """The numbers of pairs of verdicts that can differ, rising from 0."""
    # By the number of verdicts and kinds that are left: pairs of different verdicts among those.
    reached = {(repeats, 0)}
    for _ in range(kinds - 1):
        reached |= {
            (left - times, pairs + times * (left - times))
            for left, pairs in reached
            for times in range(left)
        }
    return sorted({pairs for _, pairs in reached})


def beyond_contradiction(a: Ints, b: Ints) -> float:
    """Whether two versions differ by more than each of them contradicts itself.

    A permutation test within contents, exact and one-sided. Where both say of each content with the
    same probability that it violates, whatever that is, any of all verdicts on it may as well be
    the other version's: of m that violate, those of version a are hypergeometric. Such draws differ
    from those of version b, in squares and over all contents, as much as the verdicts do or more
    with this probability. Given m, the square rises with the pairs of verdicts, one of each
    version, that differ: it is flips that are beyond what the versions' own contradictions make.

    Args:
        a: 1 where it violates, else 0; (contents, repeats), in repeats that were drawn
            independently.
        b: another version's verdicts on the same contents, as many.

    Returns:
        The p value, not below `SMALLEST_P`.
    """
    repeats = a.shape[1]
    of_a, of_b = a.sum(axis=1), b.sum(axis=1)
    together = of_a + of_b
    contents = np.bincount(together, minlength=2 * repeats + 1)
    # Squares of odd numbers are odd, of even ones even: of both the same steps of 4 are counted.
    found = int((((of_a - of_b) ** 2 - together % 2) // 4).sum())
    chances = {m: _steps(m, repeats) for m in range(1, 2 * repeats) if contents[m]}
    size = 1 + sum(int(contents[m]) * (len(chance) - 1) for m, chance in chances.items())
    spectrum = np.ones(size // 2 + 1, np.complex128)
    for m, chance in chances.items():
        spectrum *= np.fft.rfft(chance, size) ** contents[m]
    tail = float(np.fft.irfft(spectrum, size)[found:].sum())
    return min(1.0, max(SMALLEST_P, tail))


def _steps(m: int, repeats: int) -> Floats:
    """Of m verdicts that violate: the probability of each number of steps between the versions."""
    of_a = np.arange(max(0, m - repeats), min(m, repeats) + 1)
    chance = comb(repeats, of_a) * comb(repeats, m - of_a) / comb(2 * repeats, m)
    steps = ((2 * of_a - m) ** 2 - m % 2) // 4
    return np.asarray(np.bincount(steps, weights=chance), np.float64)
