"""Figures of rows that were drawn with unequal chances: what they are, and how often they hold."""

from __future__ import annotations

import numpy as np
import pytest

from moderay.labels.analysis.metrics.confusion import FIGURES, Binary, Floats
from moderay.labels.analysis.metrics.estimate import estimates
from moderay.labels.analysis.metrics.weighted import WeightedTable, weighted_estimates


def table(gold: np.ndarray, said: np.ndarray, weights: Floats) -> WeightedTable:
    cells = gold.astype(int) * 2 + said
    of = (np.ones(len(cells)), weights, weights**2)
    return WeightedTable(*[np.bincount(cells, each, 4).reshape(2, 2) for each in of])


def test_figures_are_those_of_the_rows_that_are_stood_for() -> None:
    gold, said = np.array([1, 0, 1, 0, 1]), np.array([1, 1, 0, 0, 1])
    weights = np.array([3, 2, 7, 40, 5])
    whole = Binary.of(np.repeat(gold, weights) == 1, np.repeat(said, weights) == 1)
    found = weighted_estimates(table(gold, said, weights.astype(float)))
    for name in FIGURES:
        if name == "kappa":
            assert name not in found
            continue
        estimate = found[name]
        assert estimate is not None and estimate.method == "approximate"
        assert estimate.value == pytest.approx(whole.figure(name))
        assert estimate.low <= estimate.value <= estimate.high


def test_equal_weights_give_the_exact_interval_of_a_share() -> None:
    gold, said = np.array([1] * 30 + [0] * 10 + [0] * 60), np.array([1] * 40 + [0] * 60)
    found = weighted_estimates(table(gold, said, np.full(100, 25.0)))["precision"]
    exact = estimates(Binary(tp=30, fp=10, fn=0, tn=60))["precision"]
    assert found is not None and exact is not None
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    # Nobody has seen a miss: recall is 1, and may be far lower.
    recall = weighted_estimates(table(gold, said, np.full(100, 25.0)))["recall"]
    assert recall is not None and recall.value == recall.high == 1 and recall.low < 0.95


@pytest.mark.parametrize(("prevalence", "answers"), [(0.25, 100), (0.05, 300), (0.01, 300)])
def test_intervals_hold_on_rows_drawn_in_strata(prevalence: float, answers: int) -> None:
    random = np.random.default_rng(7)
    gold = random.random(50_000) < prevalence
    z = random.normal(size=len(gold)) + 2 * gold
    p = 1 / (1 + np.exp(-(np.log(prevalence / (1 - prevalence)) + 2 * z - 2)))
    strata = np.digitize(p, [0.001, 0.01, 0.1, 0.5, 0.8])
    rows = [np.flatnonzero(strata == each) for each in range(6)]
    rows = [each for each in rows if len(each)]
    unsure = [len(each) * np.sqrt(p[each] * (1 - p[each])).mean() for each in rows]
    shares = [
        len(each) / len(gold) + one / sum(unsure) for each, one in zip(rows, unsure, strict=True)
    ]
    sizes = [max(4, round(answers / 2 * share)) for share in shares]
    true, held = Binary.of(gold, p >= 0.5), dict.fromkeys(("precision", "recall", "f1"), 0)
    for _ in range(400):
        drawn = np.concatenate(
            [random.choice(each, n) for each, n in zip(rows, sizes, strict=True)]
        )
        weights = np.repeat([len(each) / n for each, n in zip(rows, sizes, strict=True)], sizes)
        found = weighted_estimates(table(gold[drawn], p[drawn] >= 0.5, weights))
        for name in held:
            estimate, right = found[name], true.figure(name)
            assert estimate is not None and right is not None
            held[name] += estimate.low <= right <= estimate.high
    # Of 400, 367 or fewer have a chance of 0.3% where an interval holds in 95%.
    assert min(held.values()) > 367, held
