"""Reviews of an output as gold of `eval`, `calibrate` and `tune`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.label_folders import label_folder
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.errors import Problems, UserError
from moderay.core.verdicts import decision_type
from moderay.corpus.content import content_hash
from moderay.labels.cascade_verdicts import decision_of_cascade, of_cascade
from moderay.labels.corrections import ReviewedPolicy
from moderay.labels.layout import Layout
from moderay.labels.prevalence_records import PlannedRow, PlannedStratum, PrevalencePlan
from moderay.labels.prevalence_store import add_plan
from moderay.labels.review_records import Review, review_id, review_time, session_id
from moderay.labels.reviews import ReviewStore
from moderay.pipeline.check import Checked, check
from moderay.tasks.calibrate.truth import from_people
from moderay.tasks.evaluate.figures import eval_record
from moderay.tasks.evaluate.output import evaluate_output
from moderay.tasks.evaluate.records import PolicyEvalRecord
from moderay.tasks.gold import gold_problems
from moderay.tasks.gold_source import gold_option
from moderay.tasks.review_gold import PICKED

SPAM = load_policy(ROOT / "policies/spam")
SAFE, FLAGGED = (0.9, 0.08, 0.02), (0.1, 0.1, 0.8)
PERSON = {"status": "ok", "violates": False, "label": "SP0", "rationale": "note"}
TEXTS = [f"text {number}" for number in range(40)]


@pytest.fixture
def checked(job: Callable[..., Path], tmp_path: Path) -> Checked:
    """A labelled job over 40 texts, and two of them again: every fourth one is flagged."""
    (tmp_path / "in").mkdir()
    texts = [*TEXTS, TEXTS[0], TEXTS[1]]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in/a.parquet")
    rows = [(text, {"spam": FLAGGED if i % 4 == 0 else SAFE}) for i, text in enumerate(texts)]
    label_folder(tmp_path / "out", [SPAM], {"a.parquet": rows})
    return check(job(gold={"spam": "reviews"}))


def say(tmp_path: Path, answers: Sequence[tuple[int, str | None]], **fields: Any) -> list[Review]:
    """Answers on texts by their numbers."""
    store, session = ReviewStore(Layout(str(tmp_path / "out"))), session_id()
    made = [
        Review(
            **{
                "id": review_id(),
                "session": session,
                "reviewer": "ann",
                "time": review_time(),
                "policy": "spam",
                "policy_hash": ReviewedPolicy.of(SPAM).hash,
                "content_hash": content_hash([TEXTS[number]]),
                "shard": "a.parquet",
                "row": number,
                "label": label,
                "queue": "borderline",
                **fields,
            }
        )
        for number, label in answers
    ]
    store.add_all(session, made)
    return made


def evaluated(checked: Checked) -> PolicyEvalRecord:
    found = evaluate_output(checked, (), 5)
    return eval_record(found, "test", "scripted", None).policies["spam"]


def counts(found: PolicyEvalRecord) -> tuple[int, int, int, int]:
    whole = found.whole
    return (
        whole.true_positives,
        whole.false_positives,
        whole.false_negatives,
        whole.true_negatives,
    )


def test_picked_reviews_count_once_each_and_say_so(checked: Checked, tmp_path: Path) -> None:
    say(tmp_path, [(0, "SP4"), (4, "SP0"), (8, "SP2"), (1, "SP0"), (2, "SP2"), (3, None)])
    found = evaluated(checked)
    # Text 0 stands in two rows; 3 was skipped.
    assert counts(found) == (2, 1, 1, 1)
    assert found.note == PICKED and found.agreement is None and found.unknown == 42 - 5
    assert found.whole.figures["precision"].method == "exact"
    assert found.confusion[2] == [0, 0, 1, 0]


def test_answers_of_several_people_are_votes(checked: Checked, tmp_path: Path) -> None:
    numbers = range(12)
    say(tmp_path, [(i, "SP4" if i % 4 == 0 else "SP0") for i in numbers])
    say(tmp_path, [(i, "SP4" if i % 3 == 0 else "SP0") for i in numbers], reviewer="bo")
    found = evaluated(checked)
    # Of one side each nothing is decided: at 3, 4, 6, 8 and 9.
    assert counts(found) == (1, 0, 0, 6)
    assert found.agreement is not None
    assert set(found.agreement.model) == {"1", "2"} and set(found.agreement.people) == {"1-2"}
    assert found.agreement.model["1"].value == 1
    assert found.note == f"{PICKED}; people: 1 ann, 2 bo"


def test_answers_to_another_text_are_no_gold(checked: Checked, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no review under policy 'spam' as it reads today: "):
        evaluated(checked)
    say(tmp_path, [(0, "SP4")], policy_hash="0" * 32)
    with pytest.raises(UserError, match=r"reads today \(1 answer to another text\)"):
        evaluated(checked)


def test_what_is_evaluated_is_the_verdict_that_a_person_overruled() -> None:
    before = {"decided_by": "reason", "status": "ok", "violates": True, "label": "SP4"}
    before |= {"probability": 0.75, "rationale": "why", "scores": [0.1, 0.15, 0.75]}
    rows: list[dict[str, Any]] = [
        {**PERSON, "trace": {"decided_by": "human", "overruled": before}},
        {**PERSON, "trace": {"decided_by": "human", "overruled": None}},
        {**PERSON, "probability": 0.25, "trace": {"decided_by": "glance"}},
    ]
    decisions = pa.array(rows, decision_type(SPAM.label_names))
    expected = [("reason", True, "SP4", 0.75), (None,) * 4, ("glance", False, "SP0", 0.25)]
    fields = ("violates", "label", "probability")
    of_rows = [
        (row["trace"]["decided_by"], *[row[name] for name in fields])
        for row in of_cascade(decisions).to_pylist()
    ]
    assert of_rows == expected
    one_by_one = [decision_of_cascade(row) for row in decisions.to_pylist()]
    assert [
        (row["trace"]["decided_by"], *[row[name] for name in fields]) for row in one_by_one
    ] == expected


def test_screens_and_cascades_take_reviews_too(checked: Checked, tmp_path: Path) -> None:
    say(tmp_path, [(i, "SP4" if i % 5 == 0 else "SP0") for i in range(20)])
    truth = from_people(checked, checked.policies[0], "reviews", 1000)
    assert dict(zip(truth.texts.to_pylist(), truth.violates.tolist(), strict=True)) == {
        text: number % 5 == 0 for number, text in enumerate(TEXTS[:20])
    }
    assert truth.source.endswith(f"out; {PICKED}")


def test_column_that_is_named_like_reviews_is_told(
    job: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["x"], "reviews": [True]}), tmp_path / "in/a.parquet")
    with pytest.raises(Problems, match="has a column of this name"):
        check(job(gold={"spam": "reviews"}), further=gold_problems)
    named = check(job(gold={"spam": {"column": "reviews"}}), further=gold_problems)
    with pytest.raises(UserError, match="say it as a condition"):
        gold_option(named, "reviews")


def test_drawn_reviews_stand_for_their_strata(checked: Checked, tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "out"))
    strata = [(False, 900, range(1, 4)), (True, 50, (0, 4, 8, 12))]
    plan = PrevalencePlan(
        id="ab" * 8,
        created=review_time(),
        policy="spam",
        policy_hash=ReviewedPolicy.of(SPAM).hash,
        labels={},
        threshold=0.5,
        judged=950,
        unjudged=0,
        width=None,
        expected_width=0.1,
        confidence=0.95,
        strata=tuple(
            PlannedStratum(
                removed=removed, low=0, high=1, rows=rows, probability=0, reviews=len(drawn)
            )
            for removed, rows, drawn in strata
        ),
        rows=tuple(
            PlannedRow(
                policy="spam",
                content_hash=content_hash([TEXTS[number]]),
                shard="a.parquet",
                row=number,
                stratum=stratum,
            )
            for stratum, (_, _, drawn) in enumerate(strata)
            for number in drawn
        ),
    )
    add_plan(layout, plan)
    # Of the first stratum one in three violates, of the second two of the three that are answered.
    answers = [(1, "SP0"), (2, "SP0"), (3, "SP4"), (0, "SP4"), (4, "SP2"), (8, "SP0")]
    say(tmp_path, answers, plan=plan.id)
    say(tmp_path, [(5, "SP0"), (16, "SP0")])
    found = evaluated(checked)
    assert counts(found) == (2, 1, 1, 2)
    assert found.note is not None
    assert found.note.startswith("6 contents that a plan drew")
    assert "all 950 rows" in found.note and "2 contents that were picked are left out" in found.note
    figures = found.whole.figures
    assert figures["precision"].value == pytest.approx(2 / 3)
    flagged, missed = 50 * 2 / 3, 900 / 3
    assert figures["recall"].value == pytest.approx(flagged / (flagged + missed))
    assert figures["recall"].method == "approximate"
    brier = (300 * 0.9**2 + 600 * 0.1**2 + flagged * 0.1**2 + 50 / 3 * 0.9**2) / 950
    assert figures["brier"].value == pytest.approx(brier, abs=1e-6)
