"""Figures of histograms of P(violates) with their intervals.

For the three that are means, a Clopper-Pearson interval of as many rows as would vary as much: an
effective sample size (Korn and Graubard, Survey Methodology 24, 1998). That of average precision is
at most the number of violating rows (https://doi.org/10.1007/978-3-642-40994-3_29). A variance is
known badly where what matters is rare: twenty rows without a miss do not vary at all. So the size
is held within what is known of it, and intervals of small samples are wider than need be rather
than narrower. No draw is needed: a million rows take milliseconds.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

from moderay.labels.analysis.intervals import interval
from moderay.labels.analysis.metrics.confusion import Floats
from moderay.labels.analysis.metrics.estimate import CONFIDENCE, Estimate
from moderay.labels.analysis.metrics.points import Score
from moderay.labels.analysis.metrics.ranking import tables
from moderay.labels.analysis.metrics.scores import ScoreHistogram

ScoreFigure: TypeAlias = Literal["average_precision", "roc_auc", "brier", "calibration_error"]
SCORE_FIGURES: tuple[ScoreFigure, ...] = get_args(ScoreFigure)

DRAWS = 2_000
# What may not have been seen, a row as bad as can be, is added to variances with this weight.
# Without it, intervals of 95% cover down to 79% of planted areas at 40 to 1,000 rows.
UNSEEN = 0.25
# The same for each bin of the calibration error; without it, down to 39%.
UNSEEN_GAP = 0.5


def score_estimates(
    histogram: ScoreHistogram, confidence: float = CONFIDENCE, seed: int = 0
) -> dict[ScoreFigure, Estimate | None]:
    """Every figure of a histogram with its interval, which allows for the error of binning.

    Args:
        histogram: of rows that are a random sample.
        confidence: of the intervals.
        seed: of the draws for the calibration error.

    Returns:
        None for a figure that is undefined.
    """
    average, area, brier = histogram.average_precision, histogram.roc_auc, histogram.brier
    error = histogram.calibration_error
    return {
        "average_precision": average
        and _mean(average, _average_precision_size(histogram), confidence),
        "roc_auc": area and _mean(area, _auc_size(histogram, area.value), confidence),
        "brier": brier and _mean(brier, _brier_size(histogram, brier.value), confidence),
        "calibration_error": error and _distance(error, histogram, confidence, seed),
    }


def _mean(score: Score, size: float, confidence: float) -> Estimate:
    low, high = interval(score.value * size, size, confidence)
    return Estimate(
        score.value, max(low - score.error, 0.0), min(high + score.error, 1.0), "approximate"
    )


def _sizes(histogram: ScoreHistogram) -> Floats:
    """How many safe and violating rows without weights would tell as much: (2,)."""
    sizes = np.zeros(2)
    squares = histogram.squares.sum(axis=1)
    np.divide(histogram.weight.sum(axis=1) ** 2, squares, out=sizes, where=squares > 0)
    return sizes


def _auc_size(histogram: ScoreHistogram, area: float) -> float:
    """From the variance of https://doi.org/10.2307/2531595 (DeLong and others).

    The area varies at most like the share of as many rows as the smaller side has (Birnbaum and
    Klose, Annals of Mathematical Statistics 28, 1957), so that the size is at least that.
    """
    safe, violating = histogram.weight
    sizes = _sizes(histogram)
    above = 1 - (np.cumsum(violating) - violating / 2) / violating.sum()
    below = (np.cumsum(safe) - safe / 2) / safe.sum()
    off = (np.stack([above, below]) - area) ** 2
    variance = (histogram.squares * off).sum(axis=1) / histogram.weight.sum(axis=1) ** 2
    variance *= sizes / np.maximum(sizes - 1, 1)
    unseen = UNSEEN * max(area, 1 - area) ** 2 / sizes**2
    return max(float(sizes.min()), _size(area, float((variance + unseen).sum())))


def _average_precision_size(histogram: ScoreHistogram) -> float:
    """From how far each row moves the figure; at most the number of violating rows."""
    squares, violating = histogram.squares, histogram.weight[1]
    tp, fp = tables(histogram.weight)
    precision = tp / (tp + fp)
    lifts = np.cumsum(violating * fp / (tp + fp) ** 2)
    sinks = np.cumsum(violating * tp / (tp + fp) ** 2)
    value = float((violating * precision).sum() / violating.sum())
    moves = np.stack([sinks, precision - value + lifts]) / violating.sum()
    return min(float(_sizes(histogram)[1]), _size(value, float((squares * moves**2).sum())))


def _brier_size(histogram: ScoreHistogram, brier: float) -> float:
    """At least the number of rows: a mean of what is from 0 to 1 varies no more than a share."""
    weight = histogram.weight
    losses = np.divide(histogram.loss, weight, out=np.zeros(weight.shape), where=weight > 0)
    squares = histogram.squares
    rows = histogram.rows**2 / squares.sum()
    variance = (squares * (losses - brier) ** 2).sum() / histogram.rows**2
    variance = variance * rows / max(rows - 1, 1) + UNSEEN * max(brier, 1 - brier) ** 2 / rows**2
    return max(float(rows), _size(brier, float(variance)))


def _size(share: float, variance: float) -> float:
    """Of how many rows a share varies like that."""
    return share * (1 - share) / variance if variance > 0 else np.inf


def _distance(score: Score, histogram: ScoreHistogram, confidence: float, seed: int) -> Estimate:
    """The calibration error is a distance, of the gaps in its bins from 0.

    By the triangle inequality it is off by at most the distance of these gaps from the true ones,
    whose distribution is drawn (a bootstrap with normal multipliers). The error itself, drawn
    again, would be too large each time: it only grows by chance.
    """
    weight, _, _, squares = histogram.calibration
    row = histogram.squares.sum() / histogram.rows
    unseen = UNSEEN_GAP * row**2 * (weight > 0)
    spread = np.sqrt(squares + unseen) / histogram.rows
    draws = np.random.default_rng(seed).standard_normal((DRAWS, len(spread)))
    off = float(np.quantile(np.abs(draws) @ spread, confidence))
    return Estimate(
        score.value, max(score.value - off, 0.0), min(score.value + off, 1.0), "bootstrap"
    )
