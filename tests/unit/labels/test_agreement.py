"""Agreement of people is that of the published figures' other implementations."""

from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from moderay.labels.analysis.metrics.agreement import (
    MISSING,
    confusion,
    krippendorff_alpha,
    vote_counts,
)

LABELS = ("A", "B", "C")
VOTE = st.integers(MISSING, 2)
VOTES = st.integers(2, 4).flatmap(
    lambda people: st.lists(
        st.lists(VOTE, min_size=people, max_size=people), min_size=1, max_size=30
    )
)
# Four observers of twelve units, of the paper that is cited, with two rows left as they are
# where a unit has one vote or none.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@given(VOTES)
def test_alpha_is_that_of_the_package_krippendorff(rows: Any) -> None:
    votes = np.array(rows)
    actual = krippendorff_alpha(vote_counts(votes, 3))
    pairable = votes[(votes != MISSING).sum(axis=1) > 1]
    if len(set(pairable[pairable != MISSING].tolist())) < 2:
        assert actual is None
        return
    data = np.where(votes == MISSING, np.nan, votes).T
    expected = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
    assert actual == pytest.approx(expected)


def test_alpha_is_the_published_one_of_an_example_with_missing_votes() -> None:
    votes = np.array([[MISSING if v is None else v for v in row] for row in OBSERVERS]).T
    assert krippendorff_alpha(vote_counts(votes, 6)) == pytest.approx(0.743, abs=5e-4)


@given(st.lists(st.tuples(VOTE, VOTE), min_size=1, max_size=40))
def test_kappa_of_two_raters_is_of_the_rows_that_both_have_judged(rows: Any) -> None:
    a, b = map(np.array, zip(*rows, strict=True))
    both = (a != MISSING) & (b != MISSING)
    actual = confusion(a, b, LABELS).kappa
    if len({*a[both].tolist(), *b[both].tolist()}) < 2:
        assert actual is None
    else:
        assert actual == pytest.approx(cohen_kappa_score(a[both], b[both]))
