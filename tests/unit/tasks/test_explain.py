"""`moderay explain`: nothing that an output holds of a row's verdict is missing, and hostile
content stays inert.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel
from support.browser import chromium, opened
from support.label_forms import in_former_form
from support.outputs import labels
from support.project import ROOT
from support.scripted import SCRIPT, write_job

import moderay
from moderay.config.policy import GoldenCase, load_policy
from moderay.core.errors import UserError
from moderay.core.verdicts import Status, Verdict, decision_type, verdict_array
from moderay.corpus.content import content_hash
from moderay.labels.corrections import ReviewedPolicy
from moderay.labels.decisions import decide
from moderay.labels.layout import Layout
from moderay.labels.manifest_record import Manifest, ReusedOutput, RunOrigin
from moderay.labels.overruling import ANSWER, corrected
from moderay.labels.records import ShardMarker
from moderay.labels.review_records import Review, review_id, review_time, session_id
from moderay.labels.reviews import ReviewStore
from moderay.tasks.explain.decisions import decision_parts, judged_by, judged_scores
from moderay.tasks.explain.explain import Explainer
from moderay.tasks.explain.golden_cases import policy_folders
from moderay.tasks.explain.output import open_output
from moderay.tasks.explain.records import (
    AuditPart,
    DecisionPart,
    Explanation,
    GoldenPart,
    JudgedPart,
    OriginPart,
    OutputPart,
    OverruledPart,
    ReviewPart,
    RowPart,
    TracePart,
)
from moderay.tasks.explain.sections import sections

Cli = Callable[..., subprocess.CompletedProcess[str]]
SPAM = load_policy(ROOT / "policies/spam")
HOSTILE = "claim your prize \x1b[2J\x9b31m \u202eereh\u202c <script>alert(1)</script>"
TEXTS = [HOSTILE, "visit my shop", "a quiet day", "a quiet day", None, "broken", "f4f anyone"]
LATER = ["one more prize", *TEXTS]
# What was judged of each shard; of a number, nothing.
SHARDS = {
    "a.parquet": LATER,
    "b.parquet": TEXTS[:2],
    "c.parquet": ["a prize from a line", None],
}


def _names(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


def _fields(kind: pa.DataType) -> set[str]:
    return {field.name for field in kind}


def test_every_field_of_a_decision_has_its_place() -> None:
    decision = decision_type(SPAM.label_names)
    trace = decision.field("trace").type
    assert _names(DecisionPart) == _fields(decision)
    assert _names(TracePart) == _fields(trace)
    assert _names(AuditPart) == _fields(trace.field("audit").type)
    assert _names(OverruledPart) == _fields(trace.field("overruled").type)


@pytest.mark.parametrize(
    ("source", "told", "renamed", "of_others"),
    [
        pytest.param(
            _names(Manifest),
            _names(OutputPart) | _names(JudgedPart),
            {"id": "manifest", "policies": "policy", "judges": "judge_report", "runs": "run"},
            # Of other rows, or of all together; and the version of a file that is not handed on.
            {"histograms", "unreadable", "failed", "gone", "schema_version"},
            id="manifest",
        ),
        pytest.param(
            _names(ShardMarker),
            _names(RowPart) | _names(JudgedPart),
            {"run": "published_by", "judges": "judge_keys", "thresholds": "threshold"},
            {
                "rows",
                "policies",
                "new",
                "histograms",
                "flagged_without_p",
                "chosen",
                "schema_version",
            },
            id="marker",
        ),
        pytest.param(
            _names(Review),
            _names(ReviewPart),
            {},
            # What it is looked up by.
            {"content_hash", "policy", "schema_version"},
            id="review",
        ),
        pytest.param(_names(GoldenCase), _names(GoldenPart), {}, set(), id="golden"),
        pytest.param(
            _names(ReusedOutput),
            _names(OriginPart),
            {"policies": "policy"},
            set(),
            id="reused",
        ),
        pytest.param({"row", "content_hash", "flagged"}, _names(RowPart), {}, set(), id="row"),
    ],
)
def test_every_field_of_a_source_has_its_place(
    source: set[str], told: set[str], renamed: Mapping[str, str], of_others: set[str]
) -> None:
    missing = {renamed.get(name, name) for name in source - of_others} - told
    assert not missing
    # What is said to be left out must still be there.
    assert of_others <= source


def _filled(kind: Any, count: Iterator[int]) -> Any:
    """A value of a type in which each text and each number is like no other."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _filled(next(each for each in arguments if each is not type(None)), count)
    if origin is Literal:
        return arguments[0]
    if origin is dict:
        return {_filled(arguments[0], count): _filled(arguments[1], count)}
    if origin is tuple:
        each = arguments[:1] if arguments[-1] is ... else arguments
        return tuple(_filled(one, count) for one in each)
    if origin is list:
        return [_filled(arguments[0], count)]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _filled(hints[name], count) for name in kind.model_fields})
    if kind is bool:
        return True
    if kind is int:
        return 10_000_000 + next(count)
    if kind is float:
        return (1000 + next(count)) / 16384
    # Also for JsonValue, which is a name for several.
    return f"text {next(count)} ends"


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from _leaves(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, float):
        yield f"{value:.6g}"
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def test_every_value_of_an_explanation_is_told_in_its_text() -> None:
    explanation: Explanation = _filled(Explanation, itertools.count())
    told = "\n".join(
        f"{section.title}\n{entry.name}\n{entry.value}\n{section.empty}"
        for section in sections(explanation)
        for entry in section.entries
    )
    data = json.loads(explanation.to_json())
    missing = [leaf for leaf in _leaves(data) if leaf not in told]
    assert not missing
    assert len(list(_leaves(data))) > 300


def test_a_field_that_is_not_known_here_is_told_too() -> None:
    explanation: Explanation = _filled(Explanation, itertools.count())
    data = json.loads(explanation.to_json())
    [verdict] = data["verdicts"].values()
    verdict["judge"]["brand_new"] = {"deep": "unheard of"}
    verdict["decision"]["trace"]["newer"] = "as well"
    told = [
        (entry.name, entry.value)
        for section in sections(Explanation.model_validate(data))
        for entry in section.entries
    ]
    assert ("judge.brand_new.deep", "unheard of") in told
    assert ("decision.trace.newer", "as well") in told


def test_what_a_person_overruled_stands_beside_what_the_person_said() -> None:
    verdict = Verdict(Status.OK, [0.1, 0.2, 0.7], rationale="A prize.", decided_by="reason")
    judged = decide(verdict_array([verdict, verdict], 0), SPAM.rule)
    people = pa.table({"content_hash": ["a"], "label": ["SP0"], "note": ["I asked."]}, ANSWER)
    column = corrected(judged, pa.array(["a", "b"]), people, SPAM.rule)
    by_person, by_judge = decision_parts(pa.chunked_array([column]))
    assert (by_person.label, by_person.rationale, by_person.scores) == ("SP0", "I asked.", None)
    assert by_person.trace.decided_by == "human" and judged_by(by_person) == "reason"
    overruled = by_person.trace.overruled
    assert overruled is not None and overruled.scores == by_judge.scores
    assert (overruled.label, overruled.probability) == ("SP4", by_judge.probability)
    assert judged_scores(by_person) == judged_scores(by_judge)
    assert by_judge.trace.overruled is None and judged_by(by_judge) == "reason"
    # A file of the form before.
    [former] = decision_parts(pa.chunked_array([in_former_form(judged[:1])]))
    assert former == decision_parts(pa.chunked_array([judged[:1]]))[0]


@dataclass(frozen=True)
class Nights:
    """Two outputs, the second of which takes verdicts from the first, and the job of that."""

    first: Path
    second: Path
    job: Path

    def explained(self, output: Path, **options: Any) -> Explanation:
        return moderay.explain(output, job=self.job, **options)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory, joined_ray: None) -> Nights:
    folder = tmp_path_factory.mktemp("nights")
    (folder / "in").mkdir()
    for name, texts in (("a.parquet", LATER), ("b.parquet", TEXTS[:2])):
        table = pa.table({"id": [f"{name} {i}" for i in range(len(texts))], "text": texts})
        pq.write_table(table, folder / "in" / name)
    lines = [{"id": "c 0", "text": "a prize from a line"}, {"id": "c 1", "text": 5}]
    (folder / "in/c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shared = {"cascade": [{"rules": {}}, {"reason": {"budget": 64}}]}
    first = {"output": {"path": "first"}, "input": {"path": "in/b.parquet", "content": "text"}}
    second = {"output": {"path": "second", "columns": ["id"]}, "reuse": [str(folder / "first")]}
    moderay.run(write_job(folder, SCRIPT, "first-", **shared, **first))
    job = write_job(folder, SCRIPT, **shared, **second)
    moderay.run(job)
    return Nights(folder / "first", folder / "second", job)


@pytest.mark.slow
def test_every_verdict_of_an_output_is_explained(nights: Nights) -> None:
    folders = policy_folders([ROOT / "policies/spam"])
    explainer = Explainer(open_output(str(nights.second), {}), folders)
    for shard, table in labels(nights.second).items():
        explained = list(explainer.explanations(shard, None, ["spam"]))
        rows = table.select(["row", "content_hash", "flagged", "spam"]).to_pylist()
        assert len(explained) == len(rows)
        for row, each in zip(rows, explained, strict=True):
            [judged] = each.verdicts.values()
            assert judged.decision.model_dump() == row["spam"]
            assert (each.row.row, each.row.content_hash) == (row["row"], row["content_hash"])
            expected = SHARDS[shard][row["row"]]
            assert each.row.content == (expected or "") and not each.row.content_missing
            assert judged.run is not None and judged.run.libraries["moderay"]
            assert (judged.judge is None) == (row["spam"]["trace"]["decided_by"] is None)
            assert judged.judge_keys["reason"] and judged.policy.cascade[-1].policy


def test_verdict_of_a_rule_names_the_rule(nights: Nights) -> None:
    at = LATER.index("f4f anyone")
    judged = nights.explained(nights.second, row=at, shard="a.parquet").verdicts["spam"]
    assert judged.decision.trace.decided_by == "rules"
    assert judged.rule is not None
    assert (judged.rule["id"], judged.rule["label"]) == ("follow-back", "SP2")


def test_reused_verdict_names_the_output_and_the_run_that_judged_it(nights: Nights) -> None:
    judged = nights.explained(nights.second, row=1, shard="a.parquet").verdicts["spam"]
    assert judged.decision.trace.origin == "reused"
    [origin] = judged.origin
    assert (origin.output, origin.certain) == (str(nights.first), True)
    assert origin.decision is not None and origin.decision.trace.origin == "judged"
    assert [run.run for run in origin.runs] == [0]
    assert isinstance(origin.runs[0], RunOrigin) and origin.runs[0].libraries["moderay"]
    assert origin.policy is not None and origin.policy.cascade[-1].policy


def test_origin_that_is_gone_is_still_named_from_the_manifest(
    nights: Nights, tmp_path: Path
) -> None:
    away = nights.first.with_name("away")
    nights.first.rename(away)
    try:
        judged = nights.explained(nights.second, row=1, shard="a.parquet").verdicts["spam"]
    finally:
        away.rename(nights.first)
    [origin] = judged.origin
    assert (origin.output, origin.certain, origin.decision) == (str(nights.first), False, None)
    assert origin.runs[0].model is not None and origin.policy is not None


def test_golden_cases_like_the_content_come_first(nights: Nights) -> None:
    golden = nights.explained(nights.second, row=0, shard="a.parquet").verdicts["spam"].golden
    assert golden.searched and golden.same_policy and golden.cases > 10
    likeness = [case.likeness for case in golden.nearest]
    assert likeness == sorted(likeness, reverse=True)
    alone = moderay.explain(nights.second, row=0, shard="a.parquet").verdicts["spam"].golden
    assert not alone.searched and "--job" in alone.why_not


def _review(text: str, label: str | None, **changes: Any) -> Review:
    given: dict[str, Any] = {
        "id": review_id(),
        "session": session_id(),
        "reviewer": "ada",
        "time": review_time(),
        "policy": "spam",
        "policy_hash": ReviewedPolicy.of(SPAM).hash,
        "content_hash": content_hash([text]),
        "shard": "a.parquet",
        "row": 2,
        "label": label,
        "queue": "borderline",
    }
    return Review(**(given | changes))


def test_reviews_are_told_with_what_voids_them(nights: Nights) -> None:
    store = ReviewStore(Layout(str(nights.second)))
    first = _review("visit my shop", "SP4", note="It lies.")
    reviews = [
        first,
        _review("visit my shop", None, withdraws=first.id),
        _review("visit my shop", "SP0", note="\x1b[31mred"),
        _review("visit my shop", "SP2", policy_hash="0" * 16, reviewer="bob"),
    ]
    for review in reviews:
        store.add(review)
    found = nights.explained(nights.second, row=2, shard="a.parquet").verdicts["spam"].reviews
    by_id = {review.id: review for review in found}
    assert [by_id[each.id].standing for each in reviews] == [False, False, True, True]
    assert [by_id[each.id].same_policy for each in reviews] == [True, True, True, False]
    assert by_id[first.id].note == "It lies."


def test_content_is_found_by_its_hash_and_read_from_the_input(nights: Nights, cli: Cli) -> None:
    key = content_hash(["one more prize"])
    done = cli("explain", nights.second, "--hash", key, "--json")
    assert done.returncode == 0, done.stderr
    explanation = Explanation.from_json(done.stdout.encode(), "stdout")
    # The labels carry the column id alone.
    assert explanation.row.content == "one more prize"
    assert explanation.row.carried == {"id": "a.parquet 0"}


def test_content_of_a_line_is_found_where_nothing_is_known_of_its_file(nights: Nights) -> None:
    kept = nights.second / "_moderay" / "footers.json"
    assert kept.exists()
    kept.rename(kept.with_suffix(".away"))
    try:
        explanation = nights.explained(nights.second, row=0, shard="c.parquet")
    finally:
        kept.with_suffix(".away").rename(kept)
    assert explanation.row.content == "a prize from a line"


def test_reasoning_of_a_confirmed_verdict_is_exported(nights: Nights, tmp_path: Path) -> None:
    review = _review("one more prize", "SP4", row=0)
    ReviewStore(Layout(str(nights.second))).add(review)
    moderay.export_sft(nights.second, out=tmp_path / "sft", split="1/0/0")
    rows = pq.read_table(tmp_path / "sft/train.parquet").to_pylist()
    [row] = [row for row in rows if row["content_hash"] == review.content_hash]
    assert (
        row["has_reasoning"]
        and row["whole"]
        and all(row["completion_mask"][len(row["prompt_ids"]) :])
    )
    assert row["text"].endswith(
        "<|start|>assistant<|channel|>analysis<|message|>A prize.<|end|><|start|>assistant"
        '<|channel|>final<|message|>{"label": "SP4", "rationale": "A prize."}<|return|>'
    )


def test_content_that_changed_since_is_not_taken_for_the_judged_one(
    nights: Nights, tmp_path: Path
) -> None:
    explainer = Explainer(open_output(str(nights.second), {}))
    marker = explainer.output.marker("a.parquet")
    other = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["another", *LATER[1:]]}), other)
    moved = marker.model_copy(update={"source": str(other)})
    hashes = explainer.output.rows("a.parquet").column("content_hash").to_pylist()
    found = explainer.output.contents.read(moved, np.array([0, 1]), hashes[:2])
    assert found[0].text is None and found[0].missing
    assert found[1].text == LATER[1]


def test_what_a_terminal_would_obey_is_shown_as_symbols(nights: Nights, cli: Cli) -> None:
    done = cli("explain", nights.second, "--row", 1, "--shard", "a.parquet")
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout) & set("\x1b\x9b\u202e\u202c")
    assert "\u241b[2J" in done.stdout and "<script>" in done.stdout
    assert "Violates: SP4 Deceptive or malicious, decided by reason" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either --row N or --hash HASH"),
        ({"row": 0}, "--shard is missing"),
        ({"row": 0, "shard": "d.parquet"}, "--shard d.parquet: no published label file"),
        ({"row": 99, "shard": "a.parquet"}, "--row 99: a.parquet has no such label row"),
        ({"row": 0, "shard": "a.parquet", "policy": "spma"}, "did you mean 'spam'"),
        ({"content_hash": "ab"}, "--hash ab: no label row"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    nights: Nights, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        moderay.explain(nights.second, **options)


def test_page_escapes_what_is_hostile_and_holds_every_section(
    nights: Nights, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    explanation = nights.explained(nights.second, row=1, shard="a.parquet", page=page)
    text = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text and "<script>alert(1)" not in text
    assert not set(text) & set("\x1b\x9b\u202e\u202c")
    for section in sections(explanation):
        for entry in section.entries:
            assert entry.is_long or f"<bdi>{entry.name}</bdi>" in text
    # The content, and the golden cases that are like it.
    shown = len(explanation.verdicts["spam"].golden.nearest)
    assert text.count('<div class="veil"') == 1 + shown


@pytest.mark.slow
def test_page_in_a_browser_asks_nobody_and_shows_content_when_asked(
    nights: Nights, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    nights.explained(nights.second, row=1, shard="a.parquet", page=page)
    with chromium() as browser, opened(browser, page) as seen:
        assert not seen.errors and not seen.dialogs and not seen.serious()
        assert seen.foreign(page.as_uri()) == []
        content = seen.page.locator("#content-1-1")
        assert content.get_attribute("aria-hidden") == "true"
        seen.page.get_by_role("button", name="Show the content").first.click()
        assert content.get_attribute("aria-hidden") != "true"
        assert "\u241b[2J" in content.inner_text()
