"""Labels decided again: by what people said, and under other thresholds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from support.label_forms import as_before
from support.outputs import labels, manifest_of
from support.project import ROOT
from support.published import published_output

import moderay
from moderay.config.policy import load_policy
from moderay.core import storage
from moderay.core.errors import Problems, TryAgainError, UserError
from moderay.core.verdicts import Status, Verdict, verdict_array
from moderay.labels import shard_writer
from moderay.labels.corrections import reviewed_policies
from moderay.labels.layout import Layout, list_state, published_markers
from moderay.labels.lease import Lease
from moderay.labels.manifest_store import append_manifest, read_manifest
from moderay.labels.review_records import Review, review_id, review_time, session_id
from moderay.labels.reviews import ReviewStore

SPAM = load_policy(ROOT / "policies" / "spam")
SHARDS = ("a.parquet", "b.parquet", "c.parquet")
ROWS = 30


def rows_of(shard: int) -> tuple[pa.Array, list[pa.StructArray]]:
    """Texts, the first of which stands in every shard, and verdicts with P rising to 1."""
    texts = ["the same text", *[f"text {shard} {row}" for row in range(1, ROWS)]]
    verdicts = [
        Verdict(
            Status.OK,
            [1 - row / ROWS, 0.0, *[0.0] * (len(SPAM.label_names) - 3), row / ROWS],
            rationale=f"why {row}",
            answer=SPAM.label_names[0],
            decided_by="reason",
            origin="judged",
        )
        for row in range(ROWS - 1)
    ]
    verdicts.append(Verdict(Status.OK, answer="SP4", decided_by="human", rationale="first"))
    return pa.array(texts), [verdict_array(verdicts, 0)]


@pytest.fixture
def output(tmp_path: Path) -> Layout:
    return published_output(
        tmp_path, [SPAM], {name: rows_of(number) for number, name in enumerate(SHARDS)}
    )


def say(layout: Layout, label: str | None, content: str, **fields: Any) -> Review:
    """A person answers on a content, by its hash."""
    manifest = read_manifest(layout)
    assert manifest is not None
    review = Review(
        **{
            "id": review_id(),
            "session": session_id(),
            "reviewer": "ann",
            "time": review_time(),
            "policy": "spam",
            "policy_hash": reviewed_policies(manifest)["spam"].hash,
            "content_hash": content,
            "shard": "a.parquet",
            "row": 0,
            "label": label,
            "queue": "borderline",
            **fields,
        }
    )
    ReviewStore(layout).add(review)
    return review


def hash_of(layout: Layout, shard: str, row: int) -> str:
    found: str = labels(Path(layout.url))[shard].column("content_hash")[row].as_py()
    return found


def keep_alone(layout: Layout) -> None:
    """People's answers on the rows that only people have judged, as they stand."""
    for shard in SHARDS:
        say(layout, "SP4", hash_of(layout, shard, ROWS - 1), note="first")


def decide(layout: Layout, *thresholds: str) -> Any:
    return moderay.decide(layout.url, thresholds)


@pytest.mark.slow
def test_answers_hold_in_every_shard_and_only_those_that_change_are_written(
    output: Layout, tmp_path: Path
) -> None:
    keep_alone(output)
    say(output, "SP4", hash_of(output, "a.parquet", 0), note="a scam")
    say(output, "SP0", hash_of(output, "b.parquet", 25))
    before = labels(Path(output.url))
    done = decide(output)
    spam = done.policies["spam"]
    assert (done.shards, done.rewritten, spam.corrections) == (3, 3, 5)
    assert (spam.by_people_before, spam.by_people, spam.reversed) == (0, 7, 4)
    assert (spam.to_flagged, spam.to_safe, spam.flagged - spam.flagged_before) == (6, 1, 5)
    after = labels(Path(output.url))
    for shard in SHARDS:
        first = after[shard].column("spam")[0].as_py()
        assert (first["label"], first["rationale"]) == ("SP4", "a scam")
        assert first["trace"]["overruled"]["label"] == "SP0"
        assert (
            after[shard].drop(["spam", "flagged"]).equals(before[shard].drop(["spam", "flagged"]))
        )
    assert decide(output).rewritten == 0
    say(output, None, "elsewhere")
    say(output, "SP0", "elsewhere")
    assert decide(output).rewritten == 0
    say(output, "SP2", hash_of(output, "c.parquet", 4))
    assert decide(output).rewritten == 1
    assert moderay.verify(output.url).findings == ()
    counts = manifest_of(Path(output.url))["counts"]["spam"]
    assert sum(counts["settled"].values()) == counts["ok"] == 3 * ROWS
    assert counts["settled"]["human"] == 8
    flagged = pl.concat(pl.from_arrow(table) for table in labels(Path(output.url)).values())
    assert counts["flagged"] == flagged["spam"].struct["violates"].sum()
    # Who filters takes what people said, and is told of the run that judged.
    clean = moderay.filter(labels=output.url, keep="NOT spam.violates", out=tmp_path / "clean")
    assert clean.card.rows.removed == counts["flagged"] and clean.card.run.run == 0


@pytest.mark.slow
def test_copy_of_an_output_in_a_bucket_is_decided(output: Layout, bucket: str) -> None:
    keep_alone(output)
    say(output, "SP4", hash_of(output, "a.parquet", 0))
    there = Layout(f"{bucket}/copy")
    there.fs.put(f"{output.url}/", there.url, recursive=True)
    done = moderay.decide(there.url, {"spam": 0.9})
    assert (done.lost, done.rewritten, done.policies["spam"].by_people) == ((), 3, 6)
    decide(output, "spam=0.9")
    here = moderay.read_labels(output.url).sort("text").collect()
    copied = moderay.read_labels(there.url).collect().sort("text")
    assert copied.equals(here.select(copied.columns))
    assert moderay.verify(there.url).findings == ()


def test_answer_taken_back_gives_the_judges_verdict_back(output: Layout) -> None:
    keep_alone(output)
    decide(output)
    before = labels(Path(output.url))
    review = say(output, "SP4", hash_of(output, "a.parquet", 0))
    decide(output)
    say(output, None, review.content_hash, withdraws=review.id)
    done = decide(output)
    assert (done.rewritten, done.policies["spam"].to_safe) == (3, 3)
    assert {name: table.to_pylist() for name, table in labels(Path(output.url)).items()} == {
        name: table.to_pylist() for name, table in before.items()
    }


def test_rows_that_only_a_person_judged_wait_for_a_judge(output: Layout) -> None:
    done = decide(output)  # nobody's answer stands
    # Nothing is looked at where nothing was said.
    assert done.rewritten == 0
    review = say(output, "SP4", hash_of(output, "a.parquet", ROWS - 1))
    done = decide(output)
    assert (done.rewritten, done.policies["spam"].withdrawn) == (1, 2)
    alone = [table.column("spam")[ROWS - 1].as_py() for table in labels(Path(output.url)).values()]
    assert [row["status"] for row in alone] == ["ok", "withdrawn", "withdrawn"]
    say(output, None, review.content_hash, withdraws=review.id)
    done = decide(output)
    assert (done.rewritten, done.policies["spam"].withdrawn) == (1, 3)
    assert moderay.verify(output.url).findings == ()


def test_thresholds_move_what_judges_decided_and_not_what_people_did(output: Layout) -> None:
    keep_alone(output)
    say(output, "SP4", hash_of(output, "a.parquet", 2))
    done = decide(output, "spam=0.9")
    spam = done.policies["spam"]
    assert (spam.threshold_before, spam.threshold, done.rewritten) == (0.5, 0.9, 3)
    # 27 and 28 of 30 in each shard, the one that only people judged, and the corrected one.
    assert spam.flagged == 3 * 3 + 1
    manifest = manifest_of(Path(output.url))
    assert manifest["policies"]["spam"]["threshold"] == 0.9
    assert manifest["runs"][-1]["decided"]["thresholds"] == {"spam": 0.9}
    assert manifest["runs"][-1]["status"] == "finished"
    markers = published_markers(output)
    assert {marker.thresholds["spam"] for marker in markers.values()} == {0.9}
    assert decide(output).rewritten == 0
    back = decide(output, "spam=0.5")
    assert back.policies["spam"].flagged == spam.flagged_before + 1 + len(SHARDS)
    for wrong, why in (("spam=2", "above 0 and at most 1"), ("hate=0.5", "no policy 'hate'")):
        with pytest.raises(Problems, match=why):
            decide(output, wrong)


def test_void_and_disputed_answers_count_for_nothing_and_are_told(output: Layout) -> None:
    keep_alone(output)
    decide(output)
    say(output, "SP4", hash_of(output, "a.parquet", 0), policy_hash="another text")
    say(output, "SP4", hash_of(output, "a.parquet", 1))
    say(output, "SP0", hash_of(output, "a.parquet", 1), reviewer="bo")
    done = decide(output)
    assert (done.rewritten, done.policies["spam"].void, done.policies["spam"].disputed) == (0, 1, 1)


def test_label_files_of_the_form_before_are_decided(output: Layout) -> None:
    keep_alone(output)
    say(output, "SP4", hash_of(output, "a.parquet", 0))
    as_before(output, "a.parquet")
    done = decide(output)
    assert (done.lost, done.rewritten) == ((), 3)
    first = labels(Path(output.url))["a.parquet"].column("spam")[0].as_py()
    assert first["trace"]["overruled"]["decided_by"] == "reason"


class KilledError(BaseException):
    """The process ends here."""


def test_decide_that_is_killed_at_any_step_loses_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(folder: Path) -> Layout:
        folder.mkdir()
        layout = published_output(folder, [SPAM], {name: rows_of(0) for name in SHARDS[:1]})
        for row in (0, 20, ROWS - 1):
            say(layout, "SP2", hash_of(layout, "a.parquet", row))
        return layout

    whole = made(tmp_path / "whole")
    decide(whole)
    expected = labels(Path(whole.url))["a.parquet"].column("spam").to_pylist()
    for steps in itertools.count():
        layout = made(tmp_path / str(steps))
        left = iter(range(steps))

        def dying(then: Callable[..., Any], left: Any = left) -> Callable[..., Any]:
            def step(*args: Any, **options: Any) -> Any:
                if next(left, None) is None:
                    raise KilledError
                return then(*args, **options)

            return step

        with monkeypatch.context() as patched:
            patched.setattr(Layout, "create", dying(Layout.create))
            patched.setattr(shard_writer, "put_file", dying(storage.put_file))
            patched.setattr(shard_writer, "remove", dying(storage.remove))
            try:
                decide(layout)
            except KilledError:
                killed = True
            else:
                killed = False
        # Whoever comes next finds a label file, and a marker that knows it.
        done = decide(layout)
        assert done.lost == () and done.rows == ROWS
        assert labels(Path(layout.url))["a.parquet"].column("spam").to_pylist() == expected
        assert len(list_state(layout).markers["a.parquet"]) == 1
        assert moderay.verify(layout.url).findings == ()
        manifest = manifest_of(Path(layout.url))
        assert {run["status"] for run in manifest["runs"]} <= {"finished", "killed"}
        if not killed:
            break
    assert steps > 6


def test_output_that_another_driver_writes_or_has_not_finished_is_left_alone(
    output: Layout,
) -> None:
    keep_alone(output)
    with Lease(output, least=1), pytest.raises(TryAgainError, match="is being written"):
        decide(output)
    with pytest.raises(UserError, match="holds no labels"):
        moderay.decide(f"{output.url}-not")

    def stopped(now: Any) -> Any:
        runs = (*now.runs[:-1], now.runs[-1].model_copy(update={"status": "stopped"}))
        return now.model_copy(update={"runs": runs})

    append_manifest(output, stopped)
    with pytest.raises(UserError, match="not finished"):
        decide(output)
