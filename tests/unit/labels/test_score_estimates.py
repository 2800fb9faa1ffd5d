"""Intervals of scores are those of resampling where rows are many, and never too sure of few."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from statsmodels.stats.weightstats import DescrStatsW

from moderay.labels.analysis.metrics.score_estimates import SCORE_FIGURES, score_estimates
from moderay.labels.analysis.metrics.scores import ScoreHistogram

ROWS = st.lists(
    st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from([0.5, 1.0, 4.0])),
    min_size=1,
    max_size=60,
)


def _planted(n: int, seed: int, prevalence: float = 0.3) -> Any:
    """Scores at both ends, with errors at both."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < prevalence
    said = y ^ (rng.random(n) < np.where(y, 0.15, 0.05))
    return np.clip(rng.normal(np.where(said, 0.8, 0.2), 0.1), 0, 1), y


@given(ROWS, st.booleans(), st.sampled_from([0.8, 0.95]))
@settings(deadline=None)
def test_every_interval_has_its_value_in_it_and_is_of_the_figures_range(
    rows: Any, weighted: bool, confidence: float
) -> None:
    p, y, weights = map(np.array, zip(*rows, strict=True))
    histogram = ScoreHistogram.of(p, y, weights if weighted else None)
    found = score_estimates(histogram, confidence)
    assert tuple(found) == SCORE_FIGURES
    for name, estimate in found.items():
        score = getattr(histogram, name)
        assert (estimate is None) == (score is None)
        if estimate:
            assert estimate.value == score.value
            assert 0 <= estimate.low <= estimate.value + 1e-12
            assert estimate.value - 1e-12 <= estimate.high <= 1
            assert estimate.low < estimate.high


def test_intervals_of_many_rows_are_those_of_resampled_rows() -> None:
    p, y = _planted(6_000, 0, 0.05)
    found = score_estimates(ScoreHistogram.of(p, y))
    rng, draws = np.random.default_rng(1), []
    for _ in range(300):
        rows = rng.integers(0, len(p), len(p))
        area = metrics.roc_auc_score(y[rows], p[rows])
        draws.append((area, metrics.average_precision_score(y[rows], p[rows])))
    spreads = 1.96 * np.std(draws, axis=0)
    area, average = found["roc_auc"], found["average_precision"]
    assert area and average
    # A spread of 300 draws is itself off by 4%.
    assert (area.high - area.low) / 2 == pytest.approx(spreads[0], rel=0.15)
    assert (average.high - average.low) / 2 == pytest.approx(spreads[1], rel=0.15)


def test_interval_of_the_brier_score_of_many_rows_is_that_of_a_mean() -> None:
    p, y = _planted(20_000, 0)
    brier = score_estimates(ScoreHistogram.of(p, y))["brier"]
    ends = DescrStatsW((p - y) ** 2).zconfint_mean()
    assert brier and (brier.low, brier.high) == pytest.approx(ends, abs=(ends[1] - ends[0]) * 0.02)


def test_rows_that_count_for_three_each_are_no_more_rows() -> None:
    p, y = _planted(200, 0)
    once = score_estimates(ScoreHistogram.of(p, y))
    thrice = score_estimates(ScoreHistogram.of(p, y, np.full(200, 3.0)))
    for name in ("roc_auc", "brier", "calibration_error"):
        a, b = once[name], thrice[name]  # type: ignore[index]
        assert a and b
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


def test_few_rows_without_a_mistake_leave_room_for_some() -> None:
    y = np.arange(20) < 10
    found = score_estimates(ScoreHistogram.of(np.where(y, 0.999, 0.001), y))
    area, average, brier = found["roc_auc"], found["average_precision"], found["brier"]
    assert area and average and brier
    # As of 10 of 10 right: 0.025 ** (1 / 10).
    assert (area.low, area.high) == (pytest.approx(0.6915, abs=1e-4), 1)
    assert (average.low, average.high) == (pytest.approx(0.6915, abs=1e-4), 1)
    assert brier.value < 1e-5 and brier.high > 0.1


def test_a_million_rows_in_every_bin_take_no_time() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(1_000_000)
    histogram = ScoreHistogram.of(p, rng.random(len(p)) < p)
    assert (histogram.weight > 0).sum() > 19_000
    found = score_estimates(histogram)["roc_auc"]
    # Of P that is right and equally likely everywhere: 5/6.
    assert found and found.low < 5 / 6 < found.high and found.high - found.low < 0.002
