"""Decisions: verdicts under a threshold, and again under another one, from what is stored."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from support.outputs import flat

from moderay.core.decision_rule import DecisionRule
from moderay.core.verdicts import (
    VERDICTS,
    Origin,
    Status,
    Verdict,
    decision_type,
    trace,
    verdict_array,
)
from moderay.labels.decisions import (
    MOST_REASONS,
    decide,
    distribution,
    flagged,
    summary,
    verdicts,
)
from moderay.labels.overruling import redecide

SPAM = DecisionRule("spam", ("SP0", "SP2", "SP4"), (False, True, True), 0.5)
CERTAIN = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.3, 0.7], [0.0, 0.0, 1.0])
THRESHOLDS = st.one_of(st.just(1.0), st.floats(1e-4, 1))
NAMES = st.sampled_from(SPAM.labels)


def _shares(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


SCORES = st.one_of(
    st.sampled_from(CERTAIN),
    st.lists(st.floats(1e-6, 1), min_size=3, max_size=3).map(_shares),
)
AUDITS = st.fixed_dictionaries(
    {
        "judge": st.sampled_from(["screen", "glance"]),
        "violates": st.none(),
        "probability": st.none() | st.floats(0, 1, width=32),
    }
)


@st.composite
def a_verdict(draw: st.DrawFn) -> Verdict:
    """With scores and without, of a screen, audited, and failed ones."""
    kind = draw(st.sampled_from(["scored", "written", "screen", "failed"]))
    if kind == "failed":
        status = draw(st.sampled_from([status for status in Status if status is not Status.OK]))
        return Verdict(status, detail="a detail", answer=draw(st.none() | NAMES))
    if kind == "screen":
        return Verdict(Status.OK, decided_by="screen", origin=Origin.JUDGED)
    return Verdict(
        Status.OK,
        scores=draw(SCORES) if kind == "scored" else None,
        answer=draw(NAMES),
        decided_by="reason",
        reasoning="because",
        origin=draw(st.sampled_from(Origin)),
        audit=draw(st.none() | AUDITS),
    )


BATCHES = st.lists(a_verdict(), max_size=8).map(lambda batch: verdict_array(batch, 0))


def decided(*rows: Verdict, rule: DecisionRule = SPAM, reasoning: str = "all") -> list[Any]:
    return [flat(row) for row in decide(verdict_array(rows, 0), rule, reasoning).to_pylist()]


@given(BATCHES, THRESHOLDS, THRESHOLDS)
def test_deciding_again_is_deciding_under_the_other_threshold(
    batch: pa.StructArray, before: float, after: float
) -> None:
    again = redecide(decide(batch, SPAM.under(before)), SPAM.under(after))
    once = decide(batch, SPAM.under(after))
    assert again.type == decision_type(SPAM.labels) and again.equals(once)


@given(BATCHES, THRESHOLDS)
def test_nothing_but_the_label_of_a_screen_is_added_to_what_was_found_out(
    batch: pa.StructArray, threshold: float
) -> None:
    stored = verdicts(decide(batch, SPAM.under(threshold)))
    assert stored.type == VERDICTS
    for name in (field.name for field in VERDICTS):
        if name not in ("answer", "audit"):  # a label is written where none was; audits are decided
            assert stored.field(name).equals(batch.field(name)), name


@given(BATCHES, THRESHOLDS)
def test_label_lies_on_the_side_that_was_taken_and_unknown_is_never_safe(
    batch: pa.StructArray, threshold: float
) -> None:
    for row in decide(batch, SPAM.under(threshold)).to_pylist():
        assert (row["violates"] is None) == (row["label"] is None) == (row["status"] != "ok")
        if row["label"] is not None:
            assert SPAM.violating[SPAM.labels.index(row["label"])] == row["violates"]
        if row["probability"] is not None:
            assert row["violates"] == (row["probability"] >= np.float32(threshold))


@given(st.sampled_from(CERTAIN[1:]), THRESHOLDS)
def test_certain_violation_is_one_under_every_threshold(
    scores: list[float], threshold: float
) -> None:
    [row] = decided(Verdict(Status.OK, scores), rule=SPAM.under(threshold))
    assert row["violates"] is True and row["probability"] == 1


def test_without_scores_the_label_that_the_model_wrote_counts_under_any_threshold() -> None:
    rows = [Verdict(Status.OK, answer=label, decided_by="reason") for label in SPAM.labels]
    for threshold in (0.01, 1.0):
        labels = decided(*rows, rule=SPAM.under(threshold))
        assert [(row["violates"], row["label"], row["answer"]) for row in labels] == [
            (False, "SP0", None),
            (True, "SP2", None),
            (True, "SP4", None),
        ]
        assert {row["probability"] for row in labels} == {None}


def test_answer_is_kept_where_the_threshold_decided_for_another_label() -> None:
    row = Verdict(Status.OK, [0.6, 0.3, 0.1], answer="SP0")
    [lax], [strict] = decided(row), decided(row, rule=SPAM.under(0.3))
    assert (lax["label"], lax["answer"]) == ("SP0", None)
    assert (strict["label"], strict["answer"]) == ("SP2", "SP0")


@pytest.mark.parametrize(
    ("reasoning", "kept"),
    [
        ("all", ["a", "b", "c"]),
        ("flagged", [None, "b", "c"]),
        ("none", [None, None, None]),
    ],
)
def test_reasoning_is_kept_of_those_that_were_asked_for(
    reasoning: str, kept: list[str | None]
) -> None:
    audit = {"judge": "glance", "violates": None, "probability": 0.1}
    rows = [
        Verdict(Status.OK, [1, 0, 0], reasoning="a"),
        Verdict(Status.OK, [0, 1, 0], reasoning="b"),
        Verdict(Status.OK, [1, 0, 0], reasoning="c", audit=audit),
    ]
    assert [row["reasoning"] for row in decided(*rows, reasoning=reasoning)] == kept


def test_audited_judge_is_held_to_the_present_threshold_and_no_probability_said_safe() -> None:
    audits = [
        {"judge": judge, "violates": None, "probability": probability}
        for judge, probability in [("glance", 0.4), ("glance", 0.6), ("screen", None)]
    ]
    rows = [Verdict(Status.OK, [0, 1, 0], origin=Origin.JUDGED, audit=audit) for audit in audits]
    decisions = decide(verdict_array(rows, 0), SPAM)
    assert trace(decisions, "audit").field("violates").to_pylist() == [False, True, False]
    counts = summary(decisions)
    assert counts["audited.glance"] == 2 and counts["audited.screen"] == 1
    assert counts["missed.glance"] == counts["overruled.glance"] == 1
    assert counts["missed.screen"] == 1


@given(st.lists(BATCHES, min_size=1, max_size=1))
def test_counts_by_status_and_by_label_add_up(batches: list[pa.StructArray]) -> None:
    decisions = decide(batches[0], SPAM)
    counts, shown = summary(decisions), distribution(decisions)
    assert sum(counts[status.value] for status in Status) == len(decisions)
    labelled = sum(count for name, count in shown.items() if name.startswith("label."))
    assert labelled == counts["ok"]
    scored = sum(count for name, count in shown.items() if name.startswith("p."))
    assert scored == len(decisions.field("probability").drop_null())


def test_reasons_of_failures_lose_their_numbers_and_the_rare_ones() -> None:
    rows = [Verdict(Status.TIMEOUT, detail=f"no answer within {n} s") for n in range(30)]
    rows += [
        Verdict(Status.ENGINE_ERROR, detail=f"error {chr(97 + n // 26)}{chr(97 + n % 26)}")
        for n in range(50)
    ]
    rows += [Verdict(Status.UNPARSED, detail="I am"), Verdict(Status.ENGINE_ERROR)]
    rows += [Verdict(Status.UNPARSED, detail="a model")]
    reasons = distribution(decide(verdict_array(rows, 0), SPAM))
    assert len(reasons) == MOST_REASONS
    assert reasons["reason.timeout: no answer within # s"] == 30
    assert reasons["reason.unparsed: the answer is of no valid form"] == 2


def test_row_is_flagged_by_one_policy_and_unknown_where_one_that_could_is() -> None:
    safe, bad = Verdict(Status.OK, [1, 0, 0]), Verdict(Status.OK, [0, 0, 1])
    unknown = Verdict(Status.TIMEOUT)
    one = decide(verdict_array([safe, safe, safe, bad], 0), SPAM)
    other = decide(verdict_array([safe, bad, unknown, unknown], 0), SPAM)
    assert flagged([one, other]).to_pylist() == [False, True, None, True]
    assert pc.sum(flagged([one])).as_py() == 1
