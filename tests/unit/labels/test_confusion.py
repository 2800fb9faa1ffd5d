"""Figures of tables are those of scikit-learn, and None where there are none."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from moderay.labels.analysis.metrics.confusion import FIGURES, Binary, Confusion

WEIGHTS = st.sampled_from([0.25, 1.0, 1.5, 7.0])
ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), WEIGHTS), min_size=1, max_size=40)
LABELLED = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
LABELS = ("SP0", "SP1", "SP2", "SP3")


def _same(actual: float | None, expected: float) -> bool:
    return np.isnan(expected) if actual is None else actual == pytest.approx(expected)


@given(ROWS, st.booleans())
@settings(deadline=None)
def test_figures_of_a_binary_table_are_those_of_scikit_learn(rows: Any, weighted: bool) -> None:
    gold, said, weights = map(np.array, zip(*rows, strict=True))
    table = Binary.of(gold, said, weights if weighted else None)
    also = {"sample_weight": weights if weighted else None}
    undefined = also | {"zero_division": np.nan}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _same(table.precision, metrics.precision_score(gold, said, **undefined))
        assert _same(table.recall, metrics.recall_score(gold, said, **undefined))
        assert _same(table.f1, metrics.f1_score(gold, said, **undefined))
        safe = metrics.recall_score(~gold, ~said, **undefined)
        assert _same(table.false_positive_rate, 1 - safe)
        assert _same(table.accuracy, metrics.accuracy_score(gold, said, **also))
        kappa = metrics.cohen_kappa_score(gold, said, labels=[False, True], **also)
        assert _same(table.kappa, kappa)
        both = len(set(gold.tolist())) == 2
        balanced = metrics.balanced_accuracy_score(gold, said, **also) if both else np.nan
        assert _same(table.balanced_accuracy, balanced)
    assert [table.figure(name) for name in FIGURES] == [getattr(table, name) for name in FIGURES]


@given(ROWS, ROWS)
@settings(deadline=None)
def test_tables_of_parts_add_up_to_the_table_of_the_whole(first: Any, second: Any) -> None:
    def table(rows: Any) -> Binary:
        return Binary.of(*map(np.array, zip(*rows, strict=True)))

    assert table(first) + table(second) == table(first + second)


def test_no_row_has_no_figure() -> None:
    nothing = np.array([], dtype=bool)
    table = Binary.of(nothing, nothing)
    assert table == Binary(0, 0, 0, 0)
    assert [table.figure(name) for name in FIGURES] == [None] * len(FIGURES)


@given(LABELLED)
@settings(deadline=None)
def test_figures_of_labels_are_those_of_scikit_learn(rows: Any) -> None:
    gold, said = map(np.array, zip(*rows, strict=True))
    table = Confusion.of(gold, said, LABELS)
    expected = metrics.confusion_matrix(gold, said, labels=range(4))
    assert table.counts.tolist() == expected.tolist() and table.rows == len(rows)
    assert _same(table.accuracy, metrics.accuracy_score(gold, said))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _same(table.kappa, metrics.cohen_kappa_score(gold, said, labels=range(4)))
    doubled = table + table
    assert doubled.counts.tolist() == (2 * expected).tolist()


@given(LABELLED)
@settings(deadline=None)
def test_a_cut_counts_its_label_and_what_is_graver(rows: Any) -> None:
    gold, said = map(np.array, zip(*rows, strict=True))
    table = Confusion.of(gold, said, LABELS)
    for cut, label in enumerate(LABELS):
        assert table.at(label) == Binary.of(gold >= cut, said >= cut)


def test_wrong_labels_are_refused_with_what_is_wrong() -> None:
    table = Confusion.of(np.array([0]), np.array([1]), LABELS)
    with pytest.raises(ValueError, match="'SP9' is none of the labels SP0, SP1, SP2, SP3"):
        table.at("SP9")
    with pytest.raises(ValueError, match="indices from 0 to 3"):
        Confusion.of(np.array([-1]), np.array([0]), LABELS)
    with pytest.raises(ValueError, match="have no sum"):
        table + Confusion.of(np.array([0]), np.array([1]), ("A", "B"))
