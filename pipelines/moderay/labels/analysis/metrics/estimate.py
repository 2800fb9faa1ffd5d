"""Figures of a binary table with their intervals, none of which covers less than it says.

The intervals hold for rows that are a random sample, whatever its size. Each is exact: it covers
the true figure with at least the stated confidence, and most cover it more often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from moderay.labels.analysis.intervals import interval
from moderay.labels.analysis.metrics.confusion import FIGURES, Binary, Figure

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure, and what it may be on all rows of which these are a sample.

    Attributes:
        value: on these rows.
        low: lower end of the interval.
        high: upper end of the interval.
        method: exact: the interval covers with at least its confidence at any number of rows.
            approximate: it does nearly, from a variance that is estimated from the rows.
            bootstrap: it does nearly, from draws of rows.
    """

    value: float
    low: float
    high: float
    method: Literal["exact", "approximate", "bootstrap"]


def share(k: int, n: int, confidence: float = CONFIDENCE) -> Estimate | None:
    """The share `k` of `n`, with its Clopper-Pearson interval; None of no rows."""
    return Estimate(k / n, *interval(k, n, confidence), "exact") if n else None


def estimates(binary: Binary, confidence: float = CONFIDENCE) -> dict[Figure, Estimate | None]:
    """Every figure of a table with its interval; None where it is undefined.

    Raises:
        ValueError: the counts are sums of weights, which have no exact interval.
    """
    return {figure: estimate(figure, binary, confidence) for figure in FIGURES}


def estimate(figure: Figure, binary: Binary, confidence: float = CONFIDENCE) -> Estimate | None:
    """One figure of a table with its interval; None where it is undefined.

    Raises:
        ValueError: the counts are sums of weights, which have no exact interval.
    """
    tp, fp, fn, tn = _whole(binary)
    value = binary.figure(figure)
    if value is None:
        return None
    match figure:
        case "precision":
            low, high = interval(tp, tp + fp, confidence)
        case "recall":
            low, high = interval(tp, tp + fn, confidence)
        case "false_positive_rate":
            low, high = interval(fp, fp + tn, confidence)
        case "accuracy":
            low, high = interval(tp + tn, tp + fp + fn + tn, confidence)
        case "f1":
            low, high = _f1(tp, fp + fn, confidence)
        case "balanced_accuracy":
            low, high = _balanced_accuracy(tp, fp, fn, tn, confidence)
        case "kappa":
            low, high = _kappa(tp, fp, fn, tn, confidence)
    return Estimate(value, low, high, "exact")


def _f1(tp: int, wrong: int, confidence: float) -> tuple[float, float]:
    """F1 = 2J/(1+J) rises with J, the share of tp in tp + fp + fn, which is a binomial share."""
    low, high = interval(tp, tp + wrong, confidence)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def _balanced_accuracy(
    tp: int, fp: int, fn: int, tn: int, confidence: float
) -> tuple[float, float]:
    """Both shares lie in their intervals at once with `confidence`, by Bonferroni."""
    each = 1 - (1 - confidence) / 2
    recall, specificity = interval(tp, tp + fn, each), interval(tn, tn + fp, each)
    return (recall[0] + specificity[0]) / 2, (recall[1] + specificity[1]) / 2


def _kappa(tp: int, fp: int, fn: int, tn: int, confidence: float) -> tuple[float, float]:
    """Kappa rises with recall r, falls with the false positive rate f, and varies with prevalence.

    The three lie in their intervals at once with `confidence`, by Bonferroni, and kappa's ends are
    its least and greatest value there. Percentiles of a multinomial bootstrap are narrower, and
    cover too seldom: no draw of 30 rows without an error has an error.
    """
    each = 1 - (1 - confidence) / 3
    recall, prevalence = interval(tp, tp + fn, each), interval(tp + fn, tp + fp + fn + tn, each)
    false_positives = interval(fp, fp + tn, each)
    low = _kappas(recall[0], false_positives[1], prevalence)
    high = _kappas(recall[1], false_positives[0], prevalence)
    return min(low), max(high)


def _kappas(r: float, f: float, prevalence: tuple[float, float]) -> list[float]:
    """Kappa at both ends of the prevalence, and where between them it is farthest from 0.

    With prevalence p and d = r - f, kappa is 2d / (2d + f/p + (1-r)/(1-p)). The sum of the two
    fractions is convex in p, and least where p is to 1-p as the root of f is to that of 1-r.
    """
    low, high = prevalence
    roots = math.sqrt(f) + math.sqrt(1 - r)
    peak = min(max(math.sqrt(f) / roots, low), high) if roots else low

    def kappa(p: float) -> float:
        terms = ((f, p), (1 - r, 1 - p))
        if any(part > 0 and whole == 0 for part, whole in terms):
            return 0.0
        return 2 * (r - f) / (2 * (r - f) + sum(part / whole for part, whole in terms if part))

    return [kappa(p) for p in (low, peak, high)]


def _whole(binary: Binary) -> tuple[int, int, int, int]:
    cells = (binary.tp, binary.fp, binary.fn, binary.tn)
    if any(count != int(count) for count in cells):
        raise ValueError(f"{binary}: sums of weights have no exact interval")
    tp, fp, fn, tn = map(int, cells)
    return tp, fp, fn, tn
