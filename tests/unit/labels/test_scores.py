"""Figures of histograms are those of scikit-learn, but for the error that they state."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from moderay.labels.analysis.metrics.confusion import Binary
from moderay.labels.analysis.metrics.scores import BINS, ScoreHistogram

# Many within a bin, many equal, on edges, and at both ends.
P = st.one_of(
    st.floats(0, 1),
    st.floats(0.5, 0.5001),
    st.sampled_from([0.0, 0.29, 0.3, 1 / 3, 0.5, 0.99999, 1.0]),
)
WEIGHTS = st.sampled_from([0.25, 1.0, 1.5, 7.0])
ROWS = st.lists(st.tuples(P, st.booleans(), WEIGHTS), min_size=1, max_size=60)
ROUND = 1e-9


def _columns(rows: Any, weighted: bool) -> Any:
    p, y, weights = map(np.array, zip(*rows, strict=True))
    return p, y, weights if weighted else None


def _mean_distance(p: Any, y: Any, weights: Any) -> float:
    """The calibration error by its definition, bin by bin."""
    weights = np.ones(len(p)) if weights is None else weights
    bins = np.minimum(np.searchsorted(np.arange(1, 15) / 15, p, side="right"), 14)
    gaps = (abs((weights * (p - y))[bins == b].sum()) for b in range(15))
    return float(sum(gaps) / weights.sum())


@given(ROWS, st.booleans())
@settings(deadline=None)
def test_figures_of_a_histogram_are_within_their_error_of_those_of_its_rows(
    rows: Any, weighted: bool
) -> None:
    p, y, weights = _columns(rows, weighted)
    histogram = ScoreHistogram.of(p, y, weights)
    if y.all() or not y.any():
        assert histogram.roc_auc is None
    else:
        area = metrics.roc_auc_score(y, p, sample_weight=weights)
        assert histogram.roc_auc
        assert abs(histogram.roc_auc.value - area) <= histogram.roc_auc.error + ROUND
    if not y.any():
        assert histogram.average_precision is None
    else:
        mean = metrics.average_precision_score(y, p, sample_weight=weights)
        assert histogram.average_precision
        off = abs(histogram.average_precision.value - mean)
        assert off <= histogram.average_precision.error + ROUND
    brier = np.average((p - y) ** 2, weights=weights)
    assert histogram.brier == (pytest.approx(brier), 0)
    assert histogram.calibration_error == (pytest.approx(_mean_distance(p, y, weights)), 0)


@given(st.lists(st.tuples(st.integers(0, BINS - 1), st.booleans(), WEIGHTS), min_size=1))
@settings(deadline=None)
def test_figures_of_a_histogram_are_exact_where_bins_hold_one_value_each(rows: Any) -> None:
    bins, y, weights = map(np.array, zip(*rows, strict=True))
    p = (bins + 0.5) / BINS
    histogram = ScoreHistogram.of(p, y, weights)
    if y.any() and not y.all():
        expected = metrics.roc_auc_score(y, p, sample_weight=weights)
        assert histogram.roc_auc and histogram.roc_auc.value == pytest.approx(expected)
    if y.any():
        expected = metrics.average_precision_score(y, p, sample_weight=weights)
        average = histogram.average_precision
        assert average and average.value == pytest.approx(expected)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.randoms())
@settings(deadline=None)
def test_rows_in_bins_of_their_own_have_no_error(y: list[bool], random: Any) -> None:
    p = (np.array(random.sample(range(BINS), len(y))) + 0.5) / BINS
    histogram = ScoreHistogram.of(p, np.array(y))
    assert histogram.roc_auc is None or histogram.roc_auc.error == 0
    average = histogram.average_precision
    assert average is None or average.error == pytest.approx(0, abs=ROUND)


def test_stated_errors_are_reached() -> None:
    y = np.array([True] * 3 + [False] * 5)
    best = np.where(y, 0.50007, 0.50002)
    histogram = ScoreHistogram.of(best, y)
    assert histogram.roc_auc == (0.5, 0.5)
    average = histogram.average_precision
    assert average and average.value + average.error == 1
    apart = np.r_[0.50001, 0.50002, 0.50003, np.full(5, 0.50007)]
    worst = metrics.average_precision_score(y, apart)
    assert average.value - worst <= average.error


@given(ROWS, ROWS, st.booleans(), st.booleans())
@settings(deadline=None)
def test_histograms_of_parts_add_up_to_the_histogram_of_the_whole(
    first: Any, second: Any, weighted: bool, also: bool
) -> None:
    parts = ScoreHistogram.of(*_columns(first, weighted)) + ScoreHistogram.of(
        *_columns(second, also)
    )
    one = [(p, y, w if weighted else 1.0) for p, y, w in first]
    two = [(p, y, w if also else 1.0) for p, y, w in second]
    whole = ScoreHistogram.of(*_columns(one + two, weighted or also))
    assert parts.bins.tolist() == whole.bins.tolist()
    assert (parts.square is None) == (whole.square is None)
    for name in ("weight", "squares", "loss", "calibration"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-12)


@given(ROWS, st.integers(0, BINS), st.booleans())
@settings(deadline=None)
def test_table_at_a_threshold_is_that_of_the_rows(rows: Any, edge: int, weighted: bool) -> None:
    p, y, weights = _columns(rows, weighted)
    histogram = ScoreHistogram.of(p, y, weights)
    table, expected = histogram.at(edge / BINS), Binary.of(y, p >= edge / BINS, weights)
    assert [table.tp, table.fp, table.fn, table.tn] == pytest.approx(
        [expected.tp, expected.fp, expected.fn, expected.tn]
    )


def test_float32_is_held_against_a_threshold_as_decisions_hold_it() -> None:
    edges = np.arange(BINS + 1) / BINS
    p: npt.NDArray[np.float32] = edges.astype(np.float32)
    histogram = ScoreHistogram.of(p, np.ones(len(p), bool))
    for threshold in (0.0, 0.29, 0.3, 0.7, 0.9999, 1.0):
        assert histogram.at(threshold).tp == (p >= np.float32(threshold)).sum()


@given(ROWS)
@settings(deadline=None)
def test_curve_is_that_of_scikit_learn_at_its_thresholds(rows: Any) -> None:
    p, y, _ = _columns([(round(p * 100) / 100, y, w) for p, y, w in rows], False)
    curve = ScoreHistogram.of(p, y).curve
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, thresholds = metrics.precision_recall_curve(y, p)
    assert curve.threshold == pytest.approx(thresholds)
    assert curve.precision == pytest.approx(precision[:-1])
    assert curve.recall == pytest.approx(
        recall[:-1] if y.any() else np.full(len(thresholds), np.nan), nan_ok=True
    )


@given(ROWS, st.sampled_from(["recall", "precision"]), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
@settings(deadline=None)
def test_best_threshold_holds_its_goal_and_no_other_one_is_better(
    rows: Any, goal: Any, floor: float
) -> None:
    p, y, _ = _columns(rows, False)
    histogram = ScoreHistogram.of(p, y)
    other = "precision" if goal == "recall" else "recall"
    tables = [histogram.at(threshold) for threshold in histogram.curve.threshold]
    fits = [t for t in tables if (t.figure(goal) or 0) >= floor and y.any()]
    best = histogram.best_threshold(goal, floor)
    if best is None:
        assert not fits
        return
    chosen = histogram.at(best)
    assert (chosen.figure(goal) or 0) >= floor
    assert chosen.figure(other) == max(t.figure(other) or 0 for t in fits)


def test_reliability_and_pictures_count_every_row() -> None:
    p = np.array([0.0, 0.05, 0.05, 0.9, 0.95, 1.0])
    histogram = ScoreHistogram.of(p, np.array([False, False, True, True, True, False]))
    points = histogram.reliability
    assert points.rows.tolist() == [3, 1, 2]
    assert points.probability == pytest.approx([0.1 / 3, 0.9, 0.975])
    assert points.violating == pytest.approx([1 / 3, 1, 0.5])
    assert histogram.counts(10).tolist() == [
        [2, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    ]


def test_what_cannot_be_told_is_refused() -> None:
    one = ScoreHistogram.of(np.array([0.5]), np.array([True]))
    with pytest.raises(ValueError, match=r"multiples of 0\.0001"):
        one.at(0.12345)
    with pytest.raises(ValueError, match="10000 cannot be divided"):
        one.counts(3)
    for p in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            ScoreHistogram.of(np.array([p]), np.array([True]))
    with pytest.raises(ValueError, match="weights must be above 0"):
        ScoreHistogram.of(np.array([0.5]), np.array([True]), np.array([0.0]))


def test_no_rows_have_no_figures() -> None:
    nothing = ScoreHistogram.of(np.array([]), np.array([], bool))
    assert nothing.rows == 0 and nothing.at(0.5) == Binary()
    assert nothing.roc_auc is nothing.average_precision is None
    assert nothing.brier is nothing.calibration_error is None
    assert nothing.best_threshold("recall", 0.9) is None and not len(nothing.curve.threshold)
