"""The same judge several times: its contradictions are those counted pair by pair, its intervals
cover what is planted, and the test of two versions is that over all permutations.
"""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from moderay.labels.analysis.metrics.repeats import SMALLEST_P, Repeats, beyond_contradiction

SEEDS, CONFIDENCE = 200, 0.95


def _differing(row: Any) -> int:
    return sum(a != b for a, b in combinations(row, 2))


@given(
    st.integers(2, 6).flatmap(
        lambda repeats: st.lists(st.lists(st.integers(0, 3), min_size=repeats, max_size=repeats))
    )
)
def test_contradictions_are_those_of_each_pair(rows: list[list[int]]) -> None:
    if not rows:
        empty = Repeats.of(np.zeros((0, 3), np.int64), 2)
        assert empty.contradicted() is empty.contradiction() is None
        return
    found = Repeats.of(np.array(rows), 4)
    pairs = [*map(_differing, rows)]
    assert found.pairs.tolist() == pairs
    contradicted, contradiction = found.contradicted(), found.contradiction()
    assert contradicted and contradiction
    assert contradicted.value == pytest.approx(np.mean([count > 0 for count in pairs]))
    every = len(rows[0]) * (len(rows[0]) - 1) / 2
    assert contradiction.value == pytest.approx(np.mean(pairs) / every)
    assert contradiction.low <= contradiction.value <= contradiction.high


@pytest.mark.parametrize(("repeats", "kinds"), [(2, 2), (4, 2), (5, 3), (6, 4)])
def test_interval_reaches_from_nothing_to_the_most_that_can_differ(
    repeats: int, kinds: int
) -> None:
    every = repeats * (repeats - 1) / 2
    most = max(_differing(row) for row in product(range(kinds), repeat=repeats)) / every
    divided = np.arange(repeats) % kinds
    all_, none = (
        Repeats.of(np.tile(row, (5_000, 1)), kinds).contradiction()
        for row in (divided, np.zeros(repeats, np.int64))
    )
    assert all_ and none
    assert (all_.value, all_.high) == pytest.approx((most, most)) and all_.low > 0.99 * most
    assert (none.value, none.low) == (0, 0) and 0 < none.high < 0.002


def test_two_repeats_have_the_exact_interval_of_a_share() -> None:
    found = Repeats.of(np.array([[0, 1]] * 3 + [[1, 1]] * 97), 2).contradiction()
    exact = binomtest(3, 100).proportion_ci(CONFIDENCE, "exact")
    assert found and (found.low, found.high) == pytest.approx((exact.low, exact.high))


def _cells() -> Iterator[tuple[int, int, float, float]]:
    """Contents, repeats, the share of doubtful contents, and how often those are flipped."""
    yield from product((40, 500), (2, 5), (0.02, 0.3, 1.0), (0.2, 0.5))


@pytest.mark.slow
def test_intervals_cover_planted_contradictions() -> None:
    """Contents that are doubtful flip with a known share, as the scripted engine's `flip` does."""
    under = []
    for n, repeats, doubtful, flip in _cells():
        alike = flip**repeats + (1 - flip) ** repeats
        truth = (doubtful * (1 - alike), doubtful * 2 * flip * (1 - flip))
        inside = np.zeros(2, int)
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            flips = np.where(rng.random(n) < doubtful, flip, 0.0)
            found = Repeats.of((rng.random((n, repeats)) < flips[:, None]).astype(int), 2)
            for at, figure in enumerate((found.contradicted(), found.contradiction())):
                assert figure
                inside[at] += figure.low <= truth[at] <= figure.high
        under += [
            (n, repeats, doubtful, flip, name, int(count))
            for name, count in zip(("contradicted", "contradiction"), inside, strict=True)
            if binom.cdf(count, SEEDS, CONFIDENCE) < 0.001 / 48
        ]
    assert not under


@given(
    st.sampled_from([(2, 3), (3, 2)]).flatmap(
        lambda shape: st.lists(
            st.lists(st.integers(0, 1), min_size=2 * shape[0], max_size=2 * shape[0]),
            min_size=1,
            max_size=shape[1],
        )
    )
)
@settings(max_examples=40)
def test_p_value_is_the_share_of_all_permutations(rows: list[list[int]]) -> None:
    repeats = len(rows[0]) // 2

    def flips(chosen: Any) -> int:
        """Pairs, one of each version, that differ; `chosen`: by content, verdicts of version a."""
        return sum(
            row[i] != row[j]
            for row, of_a in zip(rows, chosen, strict=True)
            for i in of_a
            for j in {*range(2 * repeats)} - {*of_a}
        )

    found = flips([range(repeats)] * len(rows))
    every = [*product(*[[*combinations(range(2 * repeats), repeats)]] * len(rows))]
    verdicts = np.array(rows)
    p = beyond_contradiction(verdicts[:, :repeats], verdicts[:, repeats:])
    assert p == pytest.approx(np.mean([flips(chosen) >= found for chosen in every]))


def test_versions_that_are_the_same_are_told_apart_as_seldom_as_is_promised() -> None:
    wrong = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        chance = rng.beta(0.1, 0.3, (300, 1))
        a, b = ((rng.random((300, 5)) < chance).astype(int) for _ in range(2))
        wrong += beyond_contradiction(a, b) < 0.05
    assert binom.sf(wrong - 1, SEEDS, 0.05) > 0.001


def test_change_beyond_the_floor_is_found_and_one_that_is_too_few_is_not() -> None:
    rng = np.random.default_rng(0)
    chance = np.where(rng.random((1000, 1)) < 0.2, 0.3, 0.0)
    a = (rng.random((1000, 5)) < chance).astype(int)
    other = chance.copy()
    other[:40] = 0.9
    b, nearly = ((rng.random((1000, 5)) < each).astype(int) for each in (other, chance + 0.0005))
    assert beyond_contradiction(a, b) == SMALLEST_P
    assert beyond_contradiction(a, nearly) > 0.05
    # One that contradicts itself less is another one too, though it flips no more than the floor.
    assert beyond_contradiction(a, np.zeros_like(a)) < 1e-6


def test_no_content_and_none_that_is_doubtful_are_no_evidence() -> None:
    empty = np.zeros((0, 5), np.int64)
    assert beyond_contradiction(empty, empty) == 1
    assert beyond_contradiction(np.ones((9, 3), int), np.ones((9, 3), int)) == 1
