"""Intervals are those of statsmodels and SciPy, or what their definition says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from moderay.labels.analysis.metrics.confusion import FIGURES, Binary
from moderay.labels.analysis.metrics.estimate import estimate, estimates, share

COUNTS = st.integers(0, 300)
TABLES = st.builds(Binary, COUNTS, COUNTS, COUNTS, COUNTS)
CONFIDENCES = st.sampled_from([0.8, 0.95, 0.99])


@given(TABLES, CONFIDENCES)
@settings(deadline=None)
def test_intervals_of_shares_are_those_of_statsmodels(table: Binary, confidence: float) -> None:
    tp, fp, fn, tn = (int(cell) for cell in (table.tp, table.fp, table.fn, table.tn))
    shares = {
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "false_positive_rate": (fp, fp + tn),
        "accuracy": (tp + tn, tp + fp + fn + tn),
    }
    actual = estimates(table, confidence)
    for name, (k, n) in shares.items():
        found = actual[name]  # type: ignore[index]
        if not n:
            assert found is None
            continue
        low, high = proportion_confint(k, n, 1 - confidence, method="beta")
        assert found and found == share(k, n, confidence) and found.method == "exact"
        assert (found.value, found.low, found.high) == pytest.approx((k / n, low, high))
        scipy = binomtest(k, n).proportion_ci(confidence, method="exact")
        assert (found.low, found.high) == pytest.approx((scipy.low, scipy.high))


@given(TABLES, CONFIDENCES)
@settings(deadline=None)
def test_every_interval_has_its_value_in_it_and_is_of_the_figures_range(
    table: Binary, confidence: float
) -> None:
    for name, found in estimates(table, confidence).items():
        assert (found is None) == (table.figure(name) is None)
        if found:
            assert found.value == table.figure(name)
            least = -1 if name == "kappa" else 0
            tiny = 1e-12
            assert least - tiny <= found.low <= found.value + tiny
            assert found.value - tiny <= found.high <= 1 + tiny


@given(st.integers(0, 300), st.integers(0, 300), COUNTS)
@settings(deadline=None)
def test_f1_has_the_interval_of_the_share_that_both_call_violating(
    tp: int, fp: int, fn: int
) -> None:
    found = estimate("f1", Binary(tp, fp, fn, 7))
    if not tp + fp + fn:
        assert found is None
        return
    low, high = proportion_confint(tp, tp + fp + fn, method="beta")
    # Of 1 + J rows (J that both call violating, 1 - J that one does), F1 counts 2J as found.
    assert found and (found.low, found.high) == pytest.approx(
        (low / (1 + low) * 2, 2 - 2 / (1 + high))
    )


@given(TABLES, CONFIDENCES)
@settings(deadline=None)
def test_balanced_accuracy_has_its_extremes_where_both_shares_are_in_their_intervals(
    table: Binary, confidence: float
) -> None:
    tp, fp, fn, tn = table.tp, table.fp, table.fn, table.tn
    if not (tp + fn and fp + tn):
        return
    alpha = (1 - confidence) / 2
    found = estimate("balanced_accuracy", table, confidence)
    recall = proportion_confint(tp, tp + fn, alpha, method="beta")
    specificity = proportion_confint(tn, tn + fp, alpha, method="beta")
    ends = (np.mean([recall[0], specificity[0]]), np.mean([recall[1], specificity[1]]))
    assert found and (found.low, found.high) == pytest.approx(ends)


def test_kappa_of_many_rows_has_the_interval_of_statsmodels() -> None:
    found = estimate("kappa", Binary(tp=1_800, fp=900, fn=200, tn=17_100))
    expected = cohens_kappa([[17_100, 900], [200, 1_800]])
    near = (expected.kappa_upp - expected.kappa_low) * 0.1
    assert found and found.method == "bootstrap" and found.value == pytest.approx(expected.kappa)
    actual = (found.low, found.high)
    assert actual == pytest.approx((expected.kappa_low, expected.kappa_upp), abs=near)


def test_few_rows_without_a_mistake_leave_room_for_some() -> None:
    found = estimates(Binary(tp=15, tn=15))
    assert all(one and one.low < 0.99 for name, one in found.items() if one and one.value == 1)
    kappa = found["kappa"]
    assert kappa and kappa.high == 1 and 0.5 < kappa.low < 0.9


def test_sums_of_weights_have_no_exact_interval() -> None:
    with pytest.raises(ValueError, match="sums of weights"):
        estimates(Binary(1.5, 0, 0, 2))
    assert all(value is None for value in estimates(Binary()).values())
    assert tuple(estimates(Binary())) == FIGURES
