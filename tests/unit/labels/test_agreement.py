"""Agreement of people is that of statsmodels, scikit-learn and definitions."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from moderay.labels.analysis.metrics.agreement import (
    MISSING,
    agreement,
    alpha_estimate,
    confusion,
    kappa_estimate,
    krippendorff_alpha,
    vote_counts,
)
from moderay.labels.analysis.metrics.confusion import Binary, Confusion
from moderay.labels.analysis.metrics.estimate import estimate

LABELS = ("A", "B", "C")
VOTE = st.integers(MISSING, 2)
VOTES = st.integers(2, 4).flatmap(
    lambda people: st.lists(
        st.lists(VOTE, min_size=people, max_size=people), min_size=1, max_size=30
    )
)
# Four observers of twelve units; some units have one vote or two.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@given(VOTES)
@settings(deadline=None)
def test_alpha_is_that_of_its_coincidence_matrix(rows: Any) -> None:
    coincidences = np.zeros((3, 3))
    for row in rows:
        given = [vote for vote in row if vote != MISSING]
        for a, b in permutations(given, 2):
            coincidences[a, b] += 1 / (len(given) - 1)
    totals, n = coincidences.sum(axis=0), coincidences.sum()
    actual = krippendorff_alpha(vote_counts(np.array(rows), 3))
    if np.count_nonzero(totals) < 2:
        assert actual is None
        return
    observed = sum(coincidences[a, b] for a, b in permutations(range(3), 2)) / n
    expected = sum(totals[a] * totals[b] for a, b in permutations(range(3), 2)) / (n * (n - 1))
    assert actual == pytest.approx(1 - observed / expected)


def test_alpha_is_the_published_one_of_an_example_with_missing_votes() -> None:
    votes = np.array([[MISSING if v is None else v for v in row] for row in OBSERVERS]).T
    assert krippendorff_alpha(vote_counts(votes, 6)) == pytest.approx(0.743, abs=5e-4)


@given(st.lists(st.tuples(VOTE, VOTE), min_size=1, max_size=40))
@settings(deadline=None)
def test_kappa_of_two_raters_is_of_the_rows_that_both_have_judged(rows: Any) -> None:
    a, b = map(np.array, zip(*rows, strict=True))
    both = (a != MISSING) & (b != MISSING)
    actual = confusion(a, b, LABELS).kappa
    if len({*a[both].tolist(), *b[both].tolist()}) < 2:
        assert actual is None
    else:
        assert actual == pytest.approx(cohen_kappa_score(a[both], b[both]))


@given(VOTES)
@settings(max_examples=30, deadline=None)
def test_intervals_of_agreement_have_their_value_in_them(rows: Any) -> None:
    votes = np.array(rows)
    counts = vote_counts(votes, 3)
    alpha, table = alpha_estimate(counts), confusion(votes[:, 0], votes[:, 1], LABELS)
    kappa = kappa_estimate(table)
    for found, value in ((alpha, krippendorff_alpha(counts)), (kappa, table.kappa)):
        assert (found is None) == (value is None)
        if found:
            assert found.value == pytest.approx(value) and found.low <= found.value <= found.high
            assert found.low < 1


def test_intervals_of_many_rows_are_those_of_statsmodels() -> None:
    counts = np.array([[900, 60, 40], [80, 500, 30], [10, 60, 320]])
    expected = cohens_kappa(counts)
    ends = (expected.kappa_low, expected.kappa_upp)
    near = (expected.kappa_upp - expected.kappa_low) * 0.1
    kappa = kappa_estimate(Confusion(LABELS, counts))
    assert kappa and (kappa.low, kappa.high) == pytest.approx(ends, abs=near)
    a, b = np.repeat(np.indices((3, 3)).reshape(2, 9), counts.ravel(), axis=1)
    # With two raters who use labels equally often, and many rows, alpha is kappa.
    alpha = alpha_estimate(vote_counts(np.stack([a, b], axis=1), 3))
    assert alpha and (alpha.low, alpha.high) == pytest.approx(ends, abs=near)


def test_kappa_of_two_labels_is_that_of_the_table_of_both() -> None:
    table = Confusion(("A", "B"), np.array([[20, 3], [2, 15]]))
    assert kappa_estimate(table) == estimate("kappa", Binary(tp=15, fp=3, fn=2, tn=20))


def test_model_stands_beside_people_and_people_beside_each_other() -> None:
    votes = np.array([[0, 0, 1], [1, 1, MISSING], [2, 2, 2], [0, 1, 0], [2, 2, 1], [1, 1, 1]])
    said = np.array([0, 1, 2, MISSING, 2, 1])
    found = agreement(votes, said, LABELS)
    assert list(found.model) == [0, 1, 2] and list(found.people) == [(0, 1), (0, 2), (1, 2)]
    for person, kappa in found.model.items():
        assert kappa == kappa_estimate(confusion(votes[:, person], said, LABELS))
    for (a, b), kappa in found.people.items():
        assert kappa == kappa_estimate(confusion(votes[:, a], votes[:, b], LABELS))
    assert found.alpha == alpha_estimate(vote_counts(votes, 3))
    assert found.model[0] and found.model[0].value == 1
