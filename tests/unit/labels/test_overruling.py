"""What people say lies over what judges said, and comes off again."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import given
from support.label_forms import in_former_form
from support.outputs import flat

from moderay.core.decision_rule import DecisionRule
from moderay.core.verdicts import (
    Origin,
    Status,
    Verdict,
    decision_type,
    is_decision,
    todays_form,
    verdict_array,
)
from moderay.labels.counts import PolicyCounts
from moderay.labels.decisions import decide, summary, verdicts
from moderay.labels.overruling import ANSWER, corrected, redecide

SPAM = DecisionRule("spam", ("SP0", "SP2", "SP4"), (False, True, True), 0.5)
HASHES = pa.array(["a", "b", "c", "d", None, "f"])
BATCH = verdict_array(
    [
        Verdict(
            Status.OK,
            [0.1, 0.2, 0.7],
            rationale="sells",
            reasoning="because",
            answer="SP2",
            decided_by="reason",
            origin=Origin.JUDGED,
            audit={"judge": "glance", "probability": 0.2, "violates": None},
            prompt_tokens=9,
        ),
        Verdict(
            Status.OK,
            [0.9, 0.1, 0.0],
            answer="SP0",
            decided_by="glance",
            origin=Origin.DUPLICATE,
        ),
        Verdict(Status.OK, decided_by="screen", origin=Origin.JUDGED),
        Verdict(Status.ENGINE_ERROR, detail="it failed"),
        Verdict(Status.INVALID, detail="no text"),
        # A person settled it, and no judge was asked.
        Verdict(Status.OK, answer="SP4", decided_by="human", rationale="old"),
    ],
    0,
)
ANSWERS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "f", "elsewhere"]),
    st.tuples(st.sampled_from(SPAM.labels), st.none() | st.just("a note")),
)
THRESHOLDS = st.floats(1e-4, 1)


def people(answers: dict[str, tuple[str, str | None]]) -> pa.Table:
    rows = [
        {"content_hash": content, "label": label, "note": note}
        for content, (label, note) in answers.items()
    ]
    return pa.Table.from_pylist(rows, schema=ANSWER)


def said(answers: dict[str, tuple[str, str | None]], rule: DecisionRule = SPAM) -> pa.StructArray:
    return corrected(decide(BATCH, rule), HASHES, people(answers), rule)


def rows(decisions: pa.StructArray) -> list[dict[str, Any]]:
    return [flat(row) for row in decisions.to_pylist()]


@given(ANSWERS, THRESHOLDS, THRESHOLDS)
def test_taken_off_again_nothing_is_left_of_what_people_said(
    answers: dict[str, tuple[str, str | None]], before: float, after: float
) -> None:
    over = said(answers, SPAM.under(before))
    assert over.type == decision_type(SPAM.labels)
    over.validate(full=True)
    judged = [number for number, content in enumerate(HASHES.to_pylist()) if content != "f"]
    expected = verdicts(decide(BATCH, SPAM.under(before))).take(judged)
    assert verdicts(over).take(judged).equals(expected)
    again = redecide(over, SPAM.under(after))
    if "f" in answers:  # else a withdrawn row stays one
        assert again.equals(said(answers, SPAM.under(after)))
    # Applied twice is applied once.
    bare = decide(verdicts(over), SPAM.under(before))
    assert corrected(bare, HASHES, people(answers), SPAM).equals(over)


def test_person_decides_and_what_the_judges_said_stays_beside() -> None:
    first, second, third, failed, invalid, alone = rows(
        said(
            {
                "a": ("SP0", "a recipe"),
                "b": ("SP4", None),
                "c": ("SP0", None),
                "d": ("SP2", None),
                "f": ("SP0", "new"),
            }
        )
    )
    assert [row["label"] for row in (first, second, third, failed, alone)] == [
        *("SP0", "SP4", "SP0", "SP2", "SP0")
    ]
    assert (first["violates"], second["violates"], failed["violates"]) == (False, True, True)
    assert {row["probability"] for row in (first, second, failed)} == {None}
    assert {row["status"] for row in (first, failed, alone)} == {"ok"}
    assert (first["rationale"], second["rationale"], alone["rationale"]) == (
        *("a recipe", None),
        "new",
    )
    assert first["reasoning"] == "because" and first["prompt_tokens"] == 9
    overruled = first["overruled"]
    assert overruled["decided_by"] == "reason" and overruled["violates"] is True
    assert overruled["label"] == "SP4" and round(overruled["probability"], 3) == 0.9
    assert overruled["rationale"] == "sells" and len(overruled["scores"]) == 3
    assert failed["overruled"]["status"] == "engine_error" and failed["detail"] == "it failed"
    assert alone["overruled"] is None and alone["decided_by"] == "human"
    assert invalid["status"] == "invalid" and invalid["overruled"] is None


def test_row_that_only_a_person_judged_is_withdrawn_with_the_answer() -> None:
    alone = rows(said({"a": ("SP0", None)}))[-1]
    assert (alone["status"], alone["violates"], alone["label"]) == ("withdrawn", None, None)
    assert alone["decided_by"] is None and alone["rationale"] is None


def test_counts_say_whom_people_corrected() -> None:
    decisions = said({"a": ("SP0", None), "b": ("SP0", None), "d": ("SP4", None)})
    counts = PolicyCounts.of(summary(decisions))
    assert counts.settled == {"human": 3, "screen": 1}
    assert counts.corrected == {"reason": 1, "glance": 1} and counts.reversed == {"reason": 1}
    assert (counts.ok, counts.withdrawn, counts.engine_error) == (4, 1, 0)
    assert counts.rows == len(BATCH) and counts.failed == 1
    assert sum(counts.settled.values()) == counts.ok
    # An audit is of what judges said.
    assert counts.audited == {"glance": 1} and counts.missed == {"glance": 1}


def test_label_files_of_the_form_before_are_read() -> None:
    today = decide(BATCH, SPAM)
    before = in_former_form(today)
    assert before.type != today.type and is_decision(before.type)
    assert todays_form(before).equals(today) and todays_form(today) is today
    assert verdicts(before).equals(verdicts(today))
    assert redecide(before, SPAM.under(0.99)).equals(redecide(today, SPAM.under(0.99)))
    assert summary(before) == summary(today)
    answers = people({"a": ("SP0", None), "f": ("SP4", "old")})
    over = corrected(decide(verdicts(before), SPAM), HASHES, answers, SPAM)
    assert over.equals(corrected(today, HASHES, answers, SPAM))
