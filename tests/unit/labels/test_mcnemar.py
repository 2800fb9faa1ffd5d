"""Two versions on the same rows: tests and intervals are those of statsmodels and SciPy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from moderay.labels.analysis.metrics.confusion import FIGURES, Binary
from moderay.labels.analysis.metrics.mcnemar import Paired, mcnemar, per_million

ROWS = st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=40)
COUNTS = st.integers(0, 400)


def _columns(rows: Any) -> Any:
    return map(np.array, zip(*rows, strict=True))


@given(COUNTS, COUNTS)
@settings(deadline=None)
def test_p_value_is_that_of_statsmodels_and_of_a_binomial_test(only_a: int, only_b: int) -> None:
    expected = statsmodels_mcnemar([[9, only_a], [only_b, 9]], exact=True).pvalue
    assert mcnemar(only_a, only_b) == pytest.approx(expected)
    if only_a + only_b:
        binomial = binomtest(only_a, only_a + only_b).pvalue
        assert mcnemar(only_a, only_b) == pytest.approx(binomial)


def test_versions_that_never_differ_are_no_evidence() -> None:
    assert mcnemar(0, 0) == 1


@given(ROWS, ROWS)
@settings(deadline=None)
def test_each_version_has_its_own_table_and_parts_add_up(first: Any, second: Any) -> None:
    gold, a, b = _columns(first)
    paired = Paired.of(gold, a, b)
    assert (paired.a, paired.b) == (Binary.of(gold, a), Binary.of(gold, b))
    right_a, right_b = a == gold, b == gold
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    assert paired.p_value == mcnemar(only_a, only_b)
    whole = Paired.of(*_columns(first + second))
    assert (paired + Paired.of(*_columns(second))).counts.tolist() == whole.counts.tolist()


@given(ROWS, st.sampled_from(FIGURES))
@settings(max_examples=40, deadline=None)
def test_difference_is_that_of_the_tables_and_lies_in_its_interval(rows: Any, figure: Any) -> None:
    paired = Paired.of(*_columns(rows))
    a, b = paired.a.figure(figure), paired.b.figure(figure)
    found = paired.difference(figure)
    if a is None or b is None:
        assert found is None
        return
    assert found and found.value == pytest.approx(b - a)
    assert found.low <= found.value <= found.high and found.low < found.high
    assert found == paired.difference(figure)


def test_difference_of_many_rows_has_the_interval_of_the_normal_distribution() -> None:
    counts = np.array([[[9_000, 300], [500, 200]], [[300, 700], [400, 8_600]]])
    found = Paired(counts).difference("accuracy")
    n, better, worse = counts.sum(), 500 + 700, 300 + 400
    spread = 1.96 * np.sqrt(better + worse - (better - worse) ** 2 / n) / n
    value = (better - worse) / n
    assert found
    actual = (found.value, found.low, found.high)
    assert actual == pytest.approx((value, value - spread, value + spread), abs=spread * 0.1)


def test_flips_are_told_per_million_with_an_exact_interval() -> None:
    found = per_million(3, 2_000)
    expected = binomtest(3, 2_000).proportion_ci(0.95, method="exact")
    assert found and found.method == "exact" and found.value == pytest.approx(1_500)
    assert (found.low, found.high) == pytest.approx((1e6 * expected.low, 1e6 * expected.high))
    assert per_million(0, 0) is None
