"""Which contents people are asked about, and how they are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.reviewing import SPAM, items_of, spam_output, spam_rows, write_plan
from support.scripted import write_job

from moderay.core.errors import UserError
from moderay.core.verdicts import structs
from moderay.corpus.content import content_hash
from moderay.labels.corrections import ReviewedPolicy
from moderay.labels.records import ChosenRow, ChosenRows
from moderay.pipeline.check import check
from moderay.tasks.review.contents import content_of
from moderay.tasks.review.items import Item, Key
from moderay.tasks.review.opening import review_request, wanted_rows
from moderay.tasks.review.output import ReviewedOutput
from moderay.tasks.review.queues import queue_items
from moderay.tasks.review.scan import _masks, scan
from moderay.tasks.review.verdicts import verdict_of

PLAN = "0" * 16


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> ReviewedOutput:
    """Two shards; four contents of the first stand in the second too."""
    rows = spam_rows(30)
    shards = {"a.parquet": rows, "day=2/b.parquet": [*rows[:4], *spam_rows(9, ["other"])[:1]]}
    return spam_output(tmp_path_factory.mktemp("queues") / "labels", shards)


def test_each_queue_has_what_it_says_with_the_smallest_hashes(output: ReviewedOutput) -> None:
    texts = [text for text, _ in spam_rows(30)]
    wanted = {
        "safe": [*texts[0::3], *texts[2::3], "other"],
        "flagged": texts[1::3],
        "borderline": texts[2::3],
    }
    for queue, of_queue in wanted.items():
        found = items_of(output, queue, most=7)
        hashes = sorted(content_hash([text]) for text in of_queue)[:7]
        assert sorted(item.key.content_hash for item in found) == hashes
        assert found == items_of(output, queue, most=7)


def test_queues_are_mixed_and_a_content_stands_once_where_it_counts_most(
    output: ReviewedOutput,
) -> None:
    items = items_of(output, most=40)
    assert len({item.key for item in items}) == len(items) == 31
    # What is near the threshold is safe, too: it is asked about as the rarer of the two.
    assert {item.row % 3 for item in items if item.queue == "borderline"} == {2}
    order = [item.queue for item in items]
    assert order != sorted(order) and len(set(order)) == 3


def test_rows_that_markers_name_are_taken_without_a_scan(output: ReviewedOutput) -> None:
    chosen = ChosenRow(row=1, content_hash="0" * 32, status="ok", label="SP4", probability=0.9)
    markers = {
        name: marker.model_copy(update={"chosen": {"spam": ChosenRows(flagged=(chosen,))}})
        for name, marker in output.markers.items()
    }
    [item] = items_of(replace(output, markers=markers), "flagged", most=1)
    assert item == Item(Key("spam", "0" * 32), "a.parquet", 1, "flagged")


def test_audited_rows_and_those_of_people_are_told_by_their_traces(
    output: ReviewedOutput,
) -> None:
    table = pq.read_table(output.layout.label("a.parquet"), partitioning=None)
    rows = structs(table.column("spam")).to_pylist()[:4]
    for number, (row, said) in enumerate(zip(rows, (None, True, False, True), strict=True)):
        row["trace"]["audit"] = said if said is None else {"judge": "screen", "violates": said}
        row["trace"]["decided_by"] = "human" if number == 3 else "reason"
        row["violates"] = number == 1
    masks = _masks(pa.array(rows, table.column("spam").type), 0.5)
    found = {kind: masks[kind].to_pylist() for kind in masks}
    assert found["audit"] == [False, True, True, False]
    assert found["disagreement"] == [False, False, False, False]
    rows[2]["violates"] = True
    masks = _masks(pa.array(rows, table.column("spam").type), 0.5)
    assert masks["disagreement"].to_pylist() == [False, False, True, False]


def test_a_scan_reads_so_many_rows_and_no_more(
    output: ReviewedOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moderay.tasks.review.scan.SCANNED_ROWS", 1)
    found = scan(output.layout, output.markers, output.chosen([]), ["safe", "flagged"], 100)
    assert len({item.shard for item in found}) == 1


def test_a_plan_asks_about_its_rows_alone_and_says_so(output: ReviewedOutput) -> None:
    content = content_hash(["text number 1"])
    write_plan(output, PLAN, [1])
    wanted = wanted_rows([], 5, plan=PLAN)
    [item] = queue_items(output, output.chosen([]), wanted)
    assert item == Item(Key("spam", content), "a.parquet", 1, "prevalence", PLAN)
    mixed = queue_items(
        output, output.chosen([]), wanted_rows(["prevalence", "flagged"], 99, None, PLAN)
    )
    assert [each.queue for each in mixed if each.key == item.key] == ["prevalence"]


def test_a_plans_rows_are_asked_in_its_own_order(tmp_path: Path) -> None:
    planned = spam_output(tmp_path / "labels", {"a.parquet": spam_rows(12)})
    write_plan(planned, PLAN, [5, 1, 9, 0, 7, 3])
    wanted = wanted_rows(["safe", "prevalence"], 20, plan=PLAN)
    items = queue_items(planned, planned.chosen([]), wanted)
    assert [item.row for item in items[:6]] == [5, 1, 9, 0, 7, 3]
    assert {item.queue for item in items[6:]} == {"safe"}


@pytest.mark.parametrize(
    ("queues", "plan", "message"),
    [
        (["flaged"], None, "--queue flaged: there is no such queue; did you mean 'flagged'?"),
        (["import"], None, "--queue import: there is no such queue; valid: audit, borderline,"),
        (["gold"], None, "--queue gold needs what people said: name the job with --job"),
        (["prevalence"], None, "--queue prevalence needs a plan: name it with --plan"),
        ([], "f" * 16, "there is no such plan"),
        (["safe"], PLAN, "--plan is for --queue prevalence: name that queue too, or none"),
    ],
)
def test_queues_that_cannot_be_are_refused(
    output: ReviewedOutput, queues: list[str], plan: str | None, message: str
) -> None:
    with pytest.raises(UserError) as error:
        wanted = wanted_rows(queues, 5, plan=plan)
        review_request(output.layout.url, {}, ["anna"], [], wanted)
    assert message in str(error.value)


def test_what_is_not_there_is_refused(output: ReviewedOutput, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no policy 'spa'; did you mean 'spam'\?"):
        review_request(output.layout.url, {}, ["anna"], ["spa"], wanted_rows([], 5))
    with pytest.raises(UserError, match="--as: say who reviews"):
        review_request(output.layout.url, {}, [" "], [], wanted_rows([], 5))
    with pytest.raises(UserError, match="holds no labels of moderay"):
        review_request(str(tmp_path), {}, ["anna"], [], wanted_rows([], 5))


def test_the_gold_queue_has_the_rows_in_which_people_said_otherwise(tmp_path: Path) -> None:
    rows = spam_rows(9)
    (tmp_path / "in").mkdir()
    gold = [True, True, None, False, False, False, False, True, True]
    frame = pl.DataFrame({"text": [text for text, _ in rows], "is_spam": gold})
    frame.write_parquet(tmp_path / "in/a.parquet")
    output = spam_output(tmp_path / "out", {"a.parquet": rows})
    job = write_job(tmp_path, gold={"spam": "is_spam"})
    wanted = wanted_rows(["gold"], 5, check(job, ()))
    items = queue_items(output, output.chosen([]), wanted)
    assert sorted(item.row for item in items) == [0, 4, 8]
    assert {item.queue for item in items} == {"gold"}


def test_the_policy_is_shown_as_written_and_hashed_as_read(output: ReviewedOutput) -> None:
    policy = output.policies["spam"]
    assert policy.text.split() == SPAM.text.split()
    assert policy.hash == ReviewedPolicy.of(SPAM).hash
    assert policy.labels == SPAM.labels


def test_a_content_is_read_from_the_input_by_its_hash(tmp_path: Path) -> None:
    """A template over a column and a part of the path, of JSON lines."""
    name = "day=2/a.parquet"
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"body": f"text {n}"}) + "\n" for n in range(3000)))
    output = spam_output(tmp_path / "out", {name: spam_rows(3)})
    marker = output.markers[name].model_copy(update={"source": str(source)})
    output = replace(output, content="{day}: {body}", markers={name: marker})
    item = Item(Key("spam", content_hash(["2: text 2500"])), name, 2500, "safe")
    assert content_of(output, item).text == "2: text 2500"
    source.write_text(source.read_text().replace("text 2500", "other"))
    assert content_of(output, item).missing == "another content stands there now"
    source.unlink()
    assert str(source) in content_of(output, item).missing


def test_a_conversation_is_read_as_turns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}]
    source = tmp_path / "a.parquet"
    pq.write_table(pa.table({"turns": [[{"role": "u", "content": "x"}], turns]}), source)
    output = spam_output(tmp_path / "out", {"a.parquet": spam_rows(3)})
    marker = output.markers["a.parquet"].model_copy(update={"source": str(source)})
    output = replace(output, content="turns", markers={"a.parquet": marker})
    key = Key("spam", content_hash(["user", "hi", "assistant", ""]))
    shown = content_of(output, Item(key, "a.parquet", 1, "safe"))
    assert [(turn.role, turn.content) for turn in shown.turns] == [
        ("user", "hi"),
        ("assistant", ""),
    ]


def test_a_verdict_is_the_models_own_where_a_person_overruled_it(
    output: ReviewedOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    [item] = [each for each in items_of(output, most=40) if each.row == 1]
    verdict = verdict_of(output, item)
    assert verdict is not None
    assert (verdict.label, verdict.violates, verdict.decided_by) == ("SP4", True, "reason")
    assert verdict.probability == pytest.approx(0.9)
    assert verdict.rationale == "why text number 1"
    table = pq.read_table(output.layout.label(item.shard), partitioning=None)
    decision = structs(table.column("spam"))[1].as_py()
    told = ("status", "violates", "label", "probability", "rationale")
    before = {**{name: decision[name] for name in told}, "decided_by": "reason"}
    decision |= {"violates": False, "label": "SP0", "probability": None, "rationale": "no spam"}
    decision["trace"] |= {"decided_by": "human", "overruled": before}
    row = pa.table({"spam": [decision]})
    monkeypatch.setattr("moderay.tasks.review.verdicts.rows_of", lambda *_: row)
    assert verdict_of(output, item) == verdict
