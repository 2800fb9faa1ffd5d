"""Intervals are those of statsmodels and SciPy, or what their definition says."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
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


@given(TABLES)
@settings(deadline=None)
def test_balanced_accuracy_and_kappa_have_their_extremes_within_the_boxes_of_their_shares(
    table: Binary,
) -> None:
    tp, fp, fn, tn = table.tp, table.fp, table.fn, table.tn
    if not (tp + fn and fp + tn):
        return

    def box(alpha: float) -> list[np.ndarray]:
        shares = ((tp, tp + fn), (fp, fp + tn), (tp + fn, table.rows))
        ends = (proportion_confint(k, n, alpha, method="beta") for k, n in shares)
        return [np.linspace(low, high, 41) for low, high in ends]

    recall, false_positives, _ = box(0.05 / 2)
    balanced = [(r + 1 - f) / 2 for r, f in itertools.product(recall, false_positives)]
    found = estimate("balanced_accuracy", table)
    assert found and (found.low, found.high) == pytest.approx((min(balanced), max(balanced)))
    r, f, p = np.meshgrid(*box(0.05 / 3), indexing="ij")
    kappas = 2 * p * (1 - p) * (r - f) / (p + (p * r + (1 - p) * f) * (1 - 2 * p))
    found = estimate("kappa", table)
    assert found and found.low <= kappas.min() + 1e-9 and found.high >= kappas.max() - 1e-9
    # The grid has 41 points of prevalence, and may just miss the extreme.
    assert (found.low, found.high) == pytest.approx((kappas.min(), kappas.max()), abs=0.02)


def test_sums_of_weights_have_no_exact_interval() -> None:
    with pytest.raises(ValueError, match="sums of weights"):
        estimates(Binary(1.5, 0, 0, 2))
    assert all(value is None for value in estimates(Binary()).values())
    assert tuple(estimates(Binary())) == FIGURES
