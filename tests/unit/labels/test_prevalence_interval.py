"""Prevalence from strata: the estimate, its interval, and how reviews are dealt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from moderay.labels.analysis.prevalence.allocation import (
    LEAST_OF_FEW,
    StratumRows,
    allocate,
    expected_width,
    reviews_needed,
)
from moderay.labels.analysis.prevalence.interval import StratumHits, stratified_interval
from moderay.labels.analysis.prevalence.strata import Strata, bins_of, strata_of, uncertainty

MANY = 10**9


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    """Rows, reviews and hits of some strata."""
    reviews = draw(st.lists(st.integers(1, 60), min_size=1, max_size=6))
    hits = [draw(st.integers(0, n)) for n in reviews]
    rows = [draw(st.integers(n + 1, 10**6)) for n in reviews]
    return rows, reviews, hits


@given(n=st.integers(1, 2_000), k=st.integers(0, 2_000), confidence=st.sampled_from([0.9, 0.95]))
def test_one_stratum_gives_the_exact_interval(n: int, k: int, confidence: float) -> None:
    k = min(k, n)
    low, high = stratified_interval(StratumHits.of([MANY], [n], [k]), confidence)
    expected = proportion_confint(k, n, alpha=1 - confidence, method="beta")
    assert (float(low), float(high)) == pytest.approx(expected, abs=1e-9)


@given(samples())
def test_estimate_and_effective_size_are_those_of_the_weighted_rows(
    sample: tuple[list[int], list[int], list[int]],
) -> None:
    rows, reviews, hits = sample
    found = StratumHits.of(rows, reviews, hits)
    weight = np.repeat(np.array(rows) / np.sum(rows) / np.array(reviews), reviews)
    values = np.concatenate([np.arange(n) < k for n, k in zip(reviews, hits, strict=True)])
    mean = DescrStatsW(values.astype(float), weights=weight).mean
    assert found.share == pytest.approx(mean)
    # The variance by its definition, stratum by stratum.
    parts = [
        (size / sum(rows)) ** 2 * np.var(np.arange(n) < k) / n
        for size, n, k in zip(rows, reviews, hits, strict=True)
    ]
    assert found.variance == pytest.approx(sum(parts))
    if sum(parts):
        assert found.effective_size == pytest.approx(mean * (1 - mean) / sum(parts))
    else:
        assert found.effective_size == sum(reviews)


@given(samples())
def test_interval_holds_the_estimate_and_lies_within_what_can_be(
    sample: tuple[list[int], list[int], list[int]],
) -> None:
    found = StratumHits.of(*sample)
    low, high = stratified_interval(found)
    assert 0 <= low <= found.share + 1e-12 and found.share - 1e-12 <= high <= 1
    assert low < high
    without = [size for size, _, k in zip(*sample, strict=True) if k == 0]
    if len(without) == len(sample[0]):
        assert low == 0
    shares = np.array(sample[0]) / sum(sample[0])
    assert low <= shares @ (np.array(sample[2]) > 0) + 1e-12


@given(samples())
def test_interval_of_hits_mirrors_that_of_misses(
    sample: tuple[list[int], list[int], list[int]],
) -> None:
    rows, reviews, hits = sample
    low, high = stratified_interval(StratumHits.of(rows, reviews, hits))
    misses = [n - k for n, k in zip(reviews, hits, strict=True)]
    mirrored = stratified_interval(StratumHits.of(rows, reviews, misses))
    assert (1 - float(mirrored[1]), 1 - float(mirrored[0])) == pytest.approx(
        (float(low), float(high)), abs=1e-7
    )


@given(samples())
def test_order_of_strata_does_not_matter_and_many_samples_are_as_one(
    sample: tuple[list[int], list[int], list[int]],
) -> None:
    rows, reviews, hits = sample
    one = stratified_interval(StratumHits.of(rows, reviews, hits))
    other = stratified_interval(StratumHits.of(rows[::-1], reviews[::-1], hits[::-1]))
    both = stratified_interval(StratumHits.of(rows, reviews, [hits, hits]))
    assert np.allclose(one, other)
    assert np.allclose(both[0], one[0]) and np.allclose(both[1], one[1])


def test_ends_are_quantiles_of_the_weighted_sum_of_betas() -> None:
    """Of strata with hits and misses: the matched Beta is near what is drawn of the sum itself.

    A miss more moves the third stratum most, and a hit more the first.
    """
    weights, n, k = np.array([0.7, 0.2, 0.1]), np.array([140, 40, 20]), np.array([6, 9, 15])
    low, high = stratified_interval(StratumHits.of(weights * MANY, n, k))
    rng = np.random.default_rng(0)
    hit, miss = np.array([1, 0, 0]), np.array([0, 0, 1])
    for end, a, b, quantile in ((low, k, n - k + miss, 0.025), (high, k + hit, n - k, 0.975)):
        sums = [w * rng.beta(*of, 400_000) for w, *of in zip(weights, a, b, strict=True)]
        assert end == pytest.approx(np.quantile(np.sum(sums, axis=0), quantile), rel=0.01)


def test_stratum_that_is_reviewed_in_whole_leaves_nothing_to_chance() -> None:
    low, high = stratified_interval(StratumHits.of([40, 60], [40, 60], [10, 0]))
    assert (float(low), float(high)) == pytest.approx((0.1, 0.1))
    part = StratumHits.of([40, 960], [40, 100], [10, 0])
    low, high = stratified_interval(part)
    alone = proportion_confint(0, 100, method="beta")
    assert (float(low), float(high)) == pytest.approx((0.01, 0.01 + 0.96 * alone[1]), rel=1e-3)
    drawn = StratumHits.of([40, 60], [40, 60], [10, 0], drawn=True)
    assert stratified_interval(drawn)[1] > 0.1


@pytest.mark.parametrize(
    ("rows", "reviews", "hits"),
    [([], [], []), ([5], [0], [0]), ([0], [1], [0]), ([5], [2], [3]), ([5], [2], [-1])],
)
def test_counts_that_cannot_be_are_refused(
    rows: list[int], reviews: list[int], hits: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"needs rows and reviews|are among the reviews"):
        StratumHits.of(rows, reviews, hits)


def exact_coverage(weights: np.ndarray, n: np.ndarray, rates: np.ndarray) -> float:
    """Of all outcomes with their chances, those whose interval holds the true share."""
    outcomes = np.stack(np.meshgrid(*[np.arange(m + 1) for m in n], indexing="ij"), -1)
    hits = outcomes.reshape(-1, len(n))
    chance = np.prod(stats.binom.pmf(hits, n, rates), axis=1)
    low, high = stratified_interval(StratumHits.of(weights * MANY, n, hits))
    true = weights @ rates
    return float(chance[(low <= true + 1e-12) & (true <= high + 1e-12)].sum())


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (0.98, 0.02), (0.6, 0.3, 0.1)])
def test_interval_covers_by_enumeration(weights: tuple[float, ...]) -> None:
    """Every outcome of small samples, at rates at which it is hardest: no chance, no tolerance."""
    shares = np.array(weights)
    n = np.array([30, 10] if len(weights) == 2 else [20, 10, 6])
    rng = np.random.default_rng(0)
    hard = [0.0, 0.002, 0.01, 0.05, 0.3, 0.9, 0.99, 1.0]
    for _ in range(40):
        rates = rng.choice(hard, len(n)) * rng.choice([1.0, 0.7])
        assert exact_coverage(shares, n, rates) >= 0.95, rates


@settings(deadline=None)
@given(
    rows=st.lists(st.integers(1, 10**6), min_size=1, max_size=6),
    reviews=st.integers(1, 2_000),
    data=st.data(),
)
def test_reviews_are_dealt_in_full_and_no_stratum_goes_without(
    rows: list[int], reviews: int, data: st.DataObject
) -> None:
    p = np.array([data.draw(st.floats(0, 1)) for _ in rows])
    strata = StratumRows(np.array(rows), p, uncertainty(p))
    dealt = allocate(strata, reviews)
    assert (dealt <= strata.rows).all()
    assert (dealt >= np.minimum(strata.rows, LEAST_OF_FEW)).all()
    least = sum(min(size, 8) for size in rows)
    assert dealt.sum() == min(max(reviews, dealt.sum()), sum(rows))
    assert dealt.sum() <= max(reviews, least)


def test_width_that_is_planned_is_the_width_that_is_met() -> None:
    rows = np.array([700_000, 200_000, 60_000, 30_000, 7_000, 3_000])
    p = np.array([0.001, 0.01, 0.05, 0.2, 0.6, 0.9])
    strata = StratumRows(rows, p, uncertainty(p))
    rng = np.random.default_rng(0)
    for width in (0.05, 0.02, 0.01):
        needed = reviews_needed(strata, width)
        assert needed is not None and expected_width(strata, needed) <= width
        assert expected_width(strata, needed - 5) > width
        dealt = allocate(strata, needed)
        hits = rng.binomial(dealt, p, (2_000, len(p)))
        low, high = stratified_interval(StratumHits.of(rows, dealt, hits))
        assert float((high - low).mean()) == pytest.approx(width, rel=0.06)
    assert reviews_needed(strata, 1e-4) is None


def test_strata_cut_the_cumulated_uncertainty_into_equal_parts() -> None:
    p = np.random.default_rng(0).beta(0.4, 2, 200_000)
    strata = strata_of(np.bincount(bins_of(p), minlength=1000), 0.3)
    assert len(strata) == 6 and strata.is_removed.tolist() == [False] * 4 + [True] * 2
    numbers = strata.of(p, p >= 0.3)
    mass = np.bincount(numbers, uncertainty(p))
    assert mass[:4] / mass[:4].sum() == pytest.approx([0.25] * 4, abs=0.03)
    assert mass[4:] / mass[4:].sum() == pytest.approx([0.5] * 2, abs=0.02)
    for number, (low, high) in enumerate(strata.edges(0.3)):
        inside = p[numbers == number]
        assert low <= inside.min() and inside.max() <= high


@pytest.mark.parametrize("threshold", [0.001, 0.5, 0.5005, 1.0])
def test_every_row_falls_into_one_stratum_of_its_side(threshold: float) -> None:
    p = np.array([0.0, 0.0004, 0.5, 0.5004, 0.5006, 0.9999, 1.0, np.nan, np.nan])
    removed = np.append(p[:-2] >= threshold, [False, True])
    strata = strata_of(np.bincount(bins_of(p[:-2]), minlength=1000), threshold)
    numbers = strata.of(p, removed)
    assert (strata.is_removed[numbers] == removed).all()
    assert numbers[-2] == 0 and numbers[-1] == len(strata) - 1


def test_strata_of_nothing_are_two() -> None:
    assert strata_of(np.zeros(1000), 0.5) == Strata((), ())
