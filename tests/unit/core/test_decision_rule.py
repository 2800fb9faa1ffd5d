"""A decision rule: labels, which of them violate, a threshold; and what follows for scores."""

from __future__ import annotations

import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from moderay.config.policy import Label, Policy
from moderay.core.decision_rule import DecisionRule, thresholds_of, under_thresholds
from moderay.core.errors import UserError

SPAM = DecisionRule("spam", ("SP0", "SP2", "SP4"), (False, True, True), 0.5)


HATE = DecisionRule("hate", ("H0", "H1"), (False, True), 0.5)


@st.composite
def rules(draw: st.DrawFn) -> DecisionRule:
    """Rules of two to six labels, in any order, some of which violate and some of which do not."""
    sides = st.lists(st.booleans(), min_size=2, max_size=6).filter(lambda both: len(set(both)) > 1)
    violating = tuple(draw(sides))
    labels = tuple(f"L{number}" for number in range(len(violating)))
    return DecisionRule("p", labels, violating, draw(st.floats(2**-20, 1, width=32)))


def scores_for(rule: DecisionRule, rows: int) -> st.SearchStrategy[np.ndarray]:
    """Float32 (rows, labels) that add up to 1, as a softmax leaves them."""
    weights = st.lists(
        st.one_of(st.just(0.0), st.floats(2**-20, 1)),
        min_size=len(rule.labels),
        max_size=len(rule.labels),
    ).filter(any)
    return st.lists(weights, min_size=rows, max_size=rows).map(
        lambda table: np.array([np.array(row) / sum(row) for row in table], np.float32)
    )


def test_policy_gives_the_rule_that_its_labels_and_threshold_make() -> None:
    labels = {
        "ok": Label(violates=False),
        "bad": Label(violates=True),
        "so-so": Label(violates=False),
    }
    policy = Policy(id="p", text="A policy.", labels=labels, threshold=0.7)
    rule = DecisionRule("p", ("ok", "bad", "so-so"), (False, True, False), 0.7)
    assert policy.rule == rule == pickle.loads(pickle.dumps(rule))
    assert policy.model_copy(update={"threshold": 0.2}).rule == rule.under(0.2) != rule


def test_mildest_label_is_the_first_that_does_not_violate() -> None:
    assert SPAM.mildest == "SP0"
    assert DecisionRule("p", ("1", "0", "00"), (True, False, False), 0.5).mildest == "0"


@pytest.mark.parametrize(
    ("labels", "violating"),
    [(("0", "1"), (True, True)), (("0", "1"), (False, False)), (("0", "1"), (True,)), ((), ())],
)
def test_labels_that_cannot_be_decided_between_are_refused(
    labels: tuple[str, ...], violating: tuple[bool, ...]
) -> None:
    with pytest.raises(ValueError, match="label"):
        DecisionRule("p", labels, violating, 0.5)


def test_probability_is_the_share_of_the_labels_that_violate() -> None:
    assert SPAM.probability([0.5, 0.25, 0.25]) == 0.5
    table = np.array([[0.5, 0.25, 0.25], [1, 0, 0], [0, 0.5, 0.5]], np.float32)
    assert SPAM.probabilities(table).tolist() == [0.5, 0, 1]
    with pytest.raises(ValueError, match="argument"):
        SPAM.probability([0.5, 0.5])


def test_threshold_is_reached_by_what_is_equal_to_it_and_by_no_unknown_probability() -> None:
    probabilities = np.array([0.69, 0.7, 0.71, np.nan], np.float32)
    assert SPAM.under(0.7).violates(probabilities).tolist() == [False, True, True, False]


@given(st.data())
def test_probabilities_of_many_are_those_of_each_within_rounding(data: st.DataObject) -> None:
    rule = data.draw(rules())
    scores = data.draw(scores_for(rule, 5))
    many = rule.probabilities(scores)
    assert many.dtype == np.float32 and ((many >= 0) & (many <= 1)).all()
    assert many == pytest.approx([rule.probability(row) for row in scores.tolist()], abs=2**-20)


@given(st.data())
def test_certain_violation_reaches_every_threshold(data: st.DataObject) -> None:
    rule = data.draw(rules())
    scores = data.draw(scores_for(rule, 5)) * np.array(rule.violating, np.float32)
    certain = scores[scores.sum(axis=1) > 0] * np.float32(0.999999)  # what rounding may take away
    assert rule.under(1.0).violates(rule.probabilities(certain)).all()


@given(st.data())
def test_label_is_the_likeliest_on_the_side_that_was_taken(data: st.DataObject) -> None:
    rule = data.draw(rules())
    scores = data.draw(scores_for(rule, 5))
    violates = rule.violates(rule.probabilities(scores))
    for row, taken, label in zip(scores, violates, rule.likeliest(scores, violates), strict=True):
        index = rule.labels.index(label)
        assert rule.violating[index] == taken
        assert row[index] == row[np.array(rule.violating) == taken].max()


@given(st.data(), st.floats(2**-20, 1), st.floats(2**-20, 1))
def test_lower_threshold_takes_no_violation_back(
    data: st.DataObject, one: float, other: float
) -> None:
    rule = data.draw(rules())
    probabilities = rule.probabilities(data.draw(scores_for(rule, 5)))
    low, high = (rule.under(value).violates(probabilities) for value in sorted((one, other)))
    assert (low | ~high).all()


def test_thresholds_of_the_command_line_are_by_policy_and_the_last_one_counts() -> None:
    options = ["spam=0.7", " hate = 1", "spam=.2"]
    assert thresholds_of(options) == {"spam": 0.2, "hate": 1.0}
    assert thresholds_of([]) == {}


@pytest.mark.parametrize("option", ["spam", "spam=", "spam=high", "0.7", "spam:0.7"])
def test_threshold_of_another_form_is_refused_with_the_form_that_is_right(option: str) -> None:
    with pytest.raises(UserError) as error:
        thresholds_of(["hate=0.5", option])
    assert f"--threshold {option!r}: give POLICY=NUMBER" in str(error.value)


def test_threshold_counts_for_its_policy_alone() -> None:
    decided, problems = under_thresholds([SPAM, HATE], {"hate": 0.9})
    assert decided == (SPAM, HATE.under(0.9)) and not problems


def test_every_threshold_that_is_wrong_is_named_and_none_of_them_counts() -> None:
    wrong = {"spma": 0.5, "spam": 0.0, "hate": 1.5}
    decided, problems = under_thresholds([SPAM, HATE], wrong)
    assert decided == (SPAM, HATE)
    assert [(problem.file, problem.message, problem.hint) for problem in problems] == [
        ("threshold spma=0.5", "no policy 'spma'", "did you mean 'spam'?"),
        ("threshold spam=0", "a threshold is above 0 and at most 1", ""),
        ("threshold hate=1.5", "a threshold is above 0 and at most 1", ""),
    ]
    assert len(under_thresholds([SPAM], {"spam": float("nan")})[1]) == 1


def test_threshold_is_not_lowered_where_a_screen_settled_rows_for_the_one_that_was() -> None:
    for policy, threshold, refused in (
        ("spam", 0.4, True),
        ("spam", 0.5, False),
        ("spam", 0.6, False),
        ("hate", 0.4, False),
    ):
        decided, problems = under_thresholds([SPAM, HATE], {policy: threshold}, {"spam"})
        assert bool(problems) == refused
        [before] = [rule for rule in (SPAM, HATE) if rule.policy == policy]
        [after] = [rule for rule in decided if rule.policy == policy]
        assert after.threshold == (before.threshold if refused else threshold)
