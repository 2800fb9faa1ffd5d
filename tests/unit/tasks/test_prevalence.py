"""Rows are drawn from an output, people answer, and the figures follow from what counts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.label_folders import label_folder
from support.label_forms import table_in_former_form
from support.outputs import plain
from support.project import ROOT

from moderay.cli.trend_table import show_trend
from moderay.config.job import Alarms
from moderay.config.policy import load_policy
from moderay.core.errors import UserError
from moderay.core.records import record_schema
from moderay.core.verdicts import structs
from moderay.labels.analysis.prevalence.interval import StratumHits, stratified_interval
from moderay.labels.analysis.prevalence.strata import Strata
from moderay.labels.analysis.trend import read_prevalence, trend, trend_json
from moderay.labels.layout import Layout
from moderay.labels.overruling import ANSWER, corrected
from moderay.labels.prevalence_records import PrevalenceEstimate, PrevalencePlan
from moderay.labels.prevalence_store import latest_estimates, read_estimates, read_plan, read_plans
from moderay.labels.review_records import Review, review_id
from moderay.labels.reviews import ReviewStore
from moderay.tasks.filter.dataset_card import _prevalence
from moderay.tasks.prevalence import draw as drawing
from moderay.tasks.prevalence.draw import DrawRequest, draw, places
from moderay.tasks.prevalence.estimate import estimate, estimate_prevalence
from moderay.tasks.prevalence.plan import PlanRequest, plan_reviews

SPAM = load_policy(str(ROOT / "policies/spam"))
SHARDS, ROWS = ("day=1/a.parquet", "day=2/b.parquet", "c.parquet"), 400
COPIES, FAILED = 30, 20


def scores(p: float) -> list[float]:
    """Of all the policy's labels, so that they add up to this P(violates)."""
    violating = [label.violates for label in SPAM.labels.values()]
    each = {True: p / sum(violating), False: (1 - p) / (len(violating) - sum(violating))}
    return [each[violates] for violates in violating]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each shard some rows are copies of one content, and some failed."""
    rng = np.random.default_rng(0)
    shards = {
        name: [
            (
                f"{name} {0 if row < COPIES else row}",
                {
                    SPAM.id: scores(0.01)
                    if row < COPIES
                    else None
                    if row >= ROWS - FAILED
                    else given
                },
            )
            for row, given in enumerate(map(scores, rng.beta(0.3, 2, ROWS)))
        ]
        for name in SHARDS
    }
    return label_folder(tmp_path_factory.mktemp("out") / "labels", [SPAM], shards)


@pytest.fixture
def plan(output: Path) -> PrevalencePlan:
    return plan_reviews(str(output), {}, PlanRequest(reviews=120))


def answers(
    of: PrevalencePlan, violates: Callable[[int], bool | None], **fields: Any
) -> Iterator[Review]:
    """One for each drawn row, in order: by its number, a label or none."""
    label = {True: "SP4", False: "SP0", None: None}
    for number, row in enumerate(of.rows):
        yield Review.model_validate(
            {
                "id": review_id(),
                "session": "ab" * 8,
                "reviewer": "ann",
                "time": f"2026-11-20T08:00:00.{number:06}+00:00",
                "policy": of.policy,
                "policy_hash": of.policy_hash,
                "content_hash": row.content_hash,
                "shard": row.shard,
                "row": row.row,
                "label": label[violates(number)],
                "queue": "prevalence",
                "plan": of.id,
                **fields,
            }
        )


def test_plan_counts_every_row_and_draws_each_once(output: Path, plan: PrevalencePlan) -> None:
    assert plan.unjudged == FAILED * len(SHARDS)
    assert plan.judged == sum(each.rows for each in plan.strata) == (ROWS - FAILED) * len(SHARDS)
    assert len(plan.rows) == len({(row.shard, row.row) for row in plan.rows}) == 120
    drawn = np.bincount([row.stratum for row in plan.rows])
    assert drawn.tolist() == [each.reviews for each in plan.strata]
    assert [each.removed for each in plan.strata] == [False] * 4 + [True] * 2
    labels = {name: pq.read_table(output / name).to_pylist() for name in SHARDS}
    for row in plan.rows:
        verdict = labels[row.shard][row.row]
        stratum = plan.strata[row.stratum]
        assert verdict["content_hash"] == row.content_hash
        assert verdict[SPAM.id]["violates"] == stratum.removed
        assert stratum.low <= verdict[SPAM.id]["probability"] <= stratum.high


def test_review_asks_about_the_rows_of_a_plan_in_its_order(
    output: Path, plan: PrevalencePlan
) -> None:
    asked = read_plan(Layout(str(output)), plan.id).rows
    assert [(each.shard, each.row, each.content_hash, each.policy) for each in asked] == [
        (row.shard, row.row, row.content_hash, plan.policy) for row in plan.rows
    ]


def test_plan_is_the_same_each_time_and_another_seed_draws_others(
    output: Path, plan: PrevalencePlan
) -> None:
    again = plan_reviews(str(output), {}, PlanRequest(reviews=120))
    other = plan_reviews(str(output), {}, PlanRequest(reviews=120, seed=1))
    assert again == plan and other.id != plan.id
    both = {(row.shard, row.row) for row in plan.rows} & {
        (row.shard, row.row) for row in other.rows
    }
    assert len(both) < 40


def test_any_beginning_of_a_plan_is_spread_over_its_strata(plan: PrevalencePlan) -> None:
    strata = np.array([row.stratum for row in plan.rows])
    reviews = np.array([each.reviews for each in plan.strata])
    for count in (30, 60, 90):
        begun = np.bincount(strata[:count], minlength=len(reviews))
        assert np.abs(begun - reviews * count / len(strata)).max() <= 1.5


def test_draw_depends_neither_on_batches_nor_on_the_order_of_files(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = DrawRequest(SPAM.id, Strata((100,), (700,)), 20, "salt")
    layout = Layout(str(output))
    first = draw(layout, SHARDS, request)
    monkeypatch.setattr(drawing, "STEP", 7)
    monkeypatch.setattr(drawing, "READ_AHEAD", 1)
    second = draw(layout, SHARDS[::-1], request)
    assert first.candidates.equals(second.candidates) and first.unjudged == second.unjudged
    assert (first.rows == second.rows).all()
    assert np.allclose(first.uncertainty, second.uncertainty)
    # By hand: of each stratum the rows that come first.
    for number in range(4):
        mine = first.candidates.filter(pa.array(first.candidates["stratum"].to_numpy() == number))
        assert len(mine) == 20 and mine["place"].to_pylist() == sorted(mine["place"].to_pylist())
    every = draw(layout, SHARDS, DrawRequest(SPAM.id, request.strata, 10**6, "salt")).candidates
    assert len(every) == first.rows.sum()
    number = every["stratum"].to_numpy()
    smallest = np.sort(every["place"].to_numpy()[number == 0])[:20]
    assert first.candidates["place"].to_numpy()[:20].tolist() == smallest.tolist()


def test_places_in_a_draw_are_even_and_differ_by_salt_and_file() -> None:
    rows = np.arange(100_000)
    found = [places("a", "x", rows), places("b", "x", rows), places("a", "y", rows)]
    for each in found:
        counts, _ = np.histogram(each.astype(float), 50, (0, 2.0**64))
        assert np.abs(counts - 2_000).max() < 6 * np.sqrt(2_000)
    assert len(np.unique(np.concatenate(found))) == 300_000
    ranks = [np.argsort(np.argsort(each)) for each in found]
    assert abs(np.corrcoef(ranks)[0, 1:]).max() < 0.02
    assert abs(np.corrcoef(ranks[0][1:], ranks[0][:-1])[0, 1]) < 0.02


def test_what_people_said_since_moves_no_row_to_another_stratum(
    output: Path, tmp_path: Path
) -> None:
    """Strata are of what the model said, in label files of today's form and of the one before."""
    request = DrawRequest(SPAM.id, Strata((100,), (700,)), 10**6, "salt")
    name = SHARDS[2]
    labels = pq.read_table(output / name)
    expected = draw(Layout(str(output)), [name], request)
    hashes = labels["content_hash"].combine_chunks()
    contents = sorted({each for each in hashes.to_pylist() if each is not None})
    people = pa.Table.from_pylist(
        [
            {"content_hash": content, "label": ("SP0", "SP4")[number % 2], "note": None}
            for number, content in enumerate(contents)
        ],
        schema=ANSWER,
    )
    decisions = corrected(structs(labels.column(SPAM.id)), hashes, people, SPAM.rule)
    at = labels.schema.get_field_index(SPAM.id)
    for folder, table in {
        "corrected": labels.set_column(at, labels.schema.field(at), decisions),
        "former": table_in_former_form(labels),
    }.items():
        (tmp_path / folder).mkdir()
        pq.write_table(table, tmp_path / folder / name)
        found = draw(Layout(str(tmp_path / folder)), [name], request)
        assert found.candidates.equals(expected.candidates), folder
        assert found.unjudged == expected.unjudged


def test_width_is_planned_from_the_markers_and_met(output: Path) -> None:
    wide = plan_reviews(str(output), {}, PlanRequest(width=0.2))
    narrow = plan_reviews(str(output), {}, PlanRequest(width=0.1))
    assert wide.expected_width <= 0.205 and narrow.expected_width <= 0.105
    assert len(wide.rows) < len(narrow.rows) < narrow.judged
    # All rows: nothing is left to chance.
    whole = plan_reviews(str(output), {}, PlanRequest(reviews=50_000))
    assert len(whole.rows) == whole.judged and whole.expected_width == 0


def test_estimate_is_that_of_the_counted_answers(plan: PrevalencePlan) -> None:
    # By content, since one may be in several rows.
    violates = [int(row.content_hash[:8], 16) % 3 == 0 for row in plan.rows]
    found = estimate(plan, answers(plan, violates.__getitem__))
    strata = np.array([row.stratum for row in plan.rows])
    hits = np.bincount(strata[np.array(violates)], minlength=len(plan.strata))
    assert [each.hits for each in found.strata] == hits.tolist()
    rows = np.array([each.rows for each in plan.strata])
    reviews = np.array([each.reviews for each in plan.strata])
    for share, part in ((found.corpus, slice(0, 6)), (found.kept, slice(0, 4)), (found.removed, slice(4, 6))):  # fmt: skip  # noqa: E501
        sample = StratumHits.of(rows[part], reviews[part], hits[part])
        low, high = stratified_interval(sample)
        assert share is not None and share.rows == rows[part].sum()
        assert (share.share, share.low, share.high) == pytest.approx(
            (float(sample.share), float(low), float(high))
        )
        assert share.hits == hits[part].sum() and share.effective > 0
        assert share.classical[0] <= share.share <= share.classical[1]
    assert found.reviewers == ("ann",) and found.unanswered == 0


def test_copies_of_a_content_are_asked_once_and_count_as_often_as_they_were_drawn(
    output: Path,
) -> None:
    plan = plan_reviews(str(output), {}, PlanRequest(reviews=400))
    contents = [row.content_hash for row in plan.rows]
    copied = max(contents, key=contents.count)
    assert contents.count(copied) > 3
    once = {review.content_hash: review for review in answers(plan, lambda number: False)}
    said = [
        review.model_copy(update={"label": "SP4"}) if content == copied else review
        for content, review in once.items()
    ]
    found = estimate(plan, said)
    assert sum(each.reviewed for each in found.strata) == 400
    assert sum(each.hits for each in found.strata) == contents.count(copied)


def test_only_answers_to_what_the_plan_drew_count(plan: PrevalencePlan) -> None:
    valid = list(answers(plan, lambda number: False))
    other = [
        *list(answers(plan, lambda n: True, plan=None, queue="flagged"))[:5],
        *list(answers(plan, lambda n: True, plan="0" * 16))[:4],
        *list(answers(plan, lambda n: True, content_hash="f" * 32))[:3],
        *list(answers(plan, lambda n: True, policy_hash="0" * 16))[:2],
        *list(answers(plan, lambda n: True, policy="hate"))[:1],
    ]
    found = estimate(plan, [*valid, *other])
    assert found.left_out.model_dump() == {
        "picked": 5, "other_plan": 4, "not_drawn": 3, "other_text": 2,
    }  # fmt: skip
    assert found.corpus is not None and found.corpus.hits == 0
    assert found.corpus.low == 0 < found.corpus.high
    only_others = estimate(plan, other)
    assert only_others.corpus is None and only_others.unanswered == 120


def test_skipped_disputed_and_withdrawn_answers_are_told_and_not_counted(
    plan: PrevalencePlan,
) -> None:
    contents = [row.content_hash for row in plan.rows]
    alone = [n for n, content in enumerate(contents) if contents.count(content) == 1]
    skipped, disputed, taken_back = alone[:12], alone[12:15], alone[15]
    mine = list(answers(plan, lambda number: None if number in skipped else False))
    theirs = list(answers(plan, lambda number: True, reviewer="bob"))
    undo = {"id": review_id(), "label": None, "withdraws": mine[taken_back].id}
    given = [*mine, *(theirs[n] for n in disputed), mine[taken_back].model_copy(update=undo)]
    found = estimate(plan, given)
    assert (found.skipped, found.disputed, found.unanswered) == (12, 3, 1)
    assert sum(each.reviewed for each in found.strata) == 120 - 16
    assert found.reviewers == ("ann", "bob") and found.assisted == 0
    seen = estimate(plan, answers(plan, lambda number: False, assisted=True))
    assert seen.assisted == 120


def test_stratum_without_an_answer_leaves_its_side_without_a_figure(plan: PrevalencePlan) -> None:
    given = [
        review
        for review, row in zip(answers(plan, lambda number: False), plan.rows, strict=True)
        if row.stratum != 5
    ]
    found = estimate(plan, given)
    assert found.corpus is None and found.removed is None
    assert found.kept is not None and found.kept.reviews == len(given) - plan.strata[4].reviews


def test_estimates_are_kept_once_each_and_the_last_is_read(output: Path, tmp_path: Path) -> None:
    copy = tmp_path / "labels"
    copy.mkdir()
    for name in SHARDS:
        (copy / name).parent.mkdir(exist_ok=True)
        pq.write_table(pq.read_table(output / name), copy / name)
    layout = Layout(str(copy))
    plan = plan_reviews(str(output), {}, PlanRequest(reviews=60))
    (copy / "_moderay/prevalence").mkdir(parents=True)
    (copy / f"_moderay/prevalence/{plan.id}.json").write_bytes(plan.to_json())
    store = ReviewStore(layout)
    assert estimate_prevalence(str(copy), {})[0].corpus is None and not read_estimates(layout)
    given = list(answers(plan, lambda number: number % 5 == 0))
    store.add_all("ab" * 8, given[:50])
    first = estimate_prevalence(str(copy), {})[0]
    assert estimate_prevalence(str(copy), {})[0].strata == first.strata
    assert len(list((copy / "_moderay/prevalence").glob("*-*.json"))) == 1
    store.add_all("ab" * 8, given[50:])
    second = estimate_prevalence(str(copy), {}, plan.id, SPAM.id)[0]
    assert [each.strata for each in read_estimates(layout)] == [second.strata]
    assert latest_estimates(layout)[SPAM.id].corpus == second.corpus
    assert read_plans(layout) == [plan]
    for record, model in ((plan, PrevalencePlan), (second, PrevalenceEstimate)):
        content = json.loads(record.to_json())
        assert model.from_json(record.to_json(), "x") == record
        assert set(content) == set(record_schema(model)["properties"])


def test_what_was_planned_and_found_is_shown(
    output: Path,
    cli: Callable[..., subprocess.CompletedProcess[str]],
    golden: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    first = cli("prevalence", output, "--plan", "--reviews", 100, "--seed", 7)
    plan = PrevalencePlan.from_json(
        cli(
            "prevalence", output, "--plan", "--reviews", 100, "--seed", 7, "--json"
        ).stdout.encode(),
        "stdout",
    )
    nothing = cli("prevalence", output, "--id", plan.id)
    store = ReviewStore(Layout(str(output)))
    removed = [plan.strata[row.stratum].removed for row in plan.rows]
    store.add_all("ab" * 8, answers(plan, removed.__getitem__))
    store.add_all("cd" * 8, answers(plan, removed.__getitem__, plan=None, session="cd" * 8))
    found = cli("prevalence", output, "--id", plan.id)
    assert (first.returncode, nothing.returncode, found.returncode) == (0, 1, 0)
    told = "\n".join([first.stdout, nothing.stdout, nothing.stderr, found.stdout])
    told = told.replace(plan.id, "<plan>").replace(plan.created[:10], "<day>")
    golden("prevalence", plain(told, output))
    [estimate] = json.loads(cli("prevalence", output, "--id", plan.id, "--json").stdout)
    assert PrevalenceEstimate.model_validate(estimate).corpus is not None
    _shown_elsewhere(output, capsys)


def _shown_elsewhere(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By `trend`, and on the card of a filter."""
    [estimate] = read_prevalence([str(output)], {})
    compared = replace(trend([], Alarms()), prevalence=(estimate,))
    assert json.loads(trend_json(compared))["prevalence"] == [estimate.model_dump(mode="json")]
    show_trend(compared, None)
    kept, corpus = estimate.kept, estimate.corpus
    assert kept is not None and corpus is not None
    assert f"{corpus.share:.2%}" in (line := capsys.readouterr().out) and "truly violate" in line
    card = "\n".join(_prevalence([estimate]))
    assert (
        f"| spam | 0.5 | kept | {kept.reviews} | 0.00% | 0.00% to {kept.high:.2%} (95%) |" in card
    )
    assert not list(_prevalence([]))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (PlanRequest(), "either --width W, such as 0.02, or --reviews N"),
        (PlanRequest(width=0.1, reviews=5), "either --width W, such as 0.02, or --reviews N"),
        (PlanRequest(width=1.5), "--width 1.5: a share above 0 and below 1"),
        (PlanRequest(reviews=10**7), "--reviews 10,000,000: a number from 1 to 100,000"),
        (PlanRequest(policy="spma", reviews=9), "--policy spma: .* did you mean 'spam'?"),
    ],
)
def test_plans_that_cannot_be_made_are_one_sentence(
    output: Path, request_: PlanRequest, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_reviews(str(output), {}, request_)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "no plan says which rows"), (("0" * 16,), "there is no such plan")],
)
def test_estimate_without_a_plan_is_one_sentence(
    tmp_path: Path, arguments: Sequence[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        estimate_prevalence(str(tmp_path), {}, *arguments)


def test_output_without_labels_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no labels of moderay"):
        plan_reviews(str(tmp_path), {}, PlanRequest(reviews=9))
