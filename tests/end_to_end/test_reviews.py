"""What people say once holds on later nights, in other shards and outputs, and is never lost."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels, verdicts_of
from support.project import ROOT, environment

import moderay
from moderay.config.policy import load_policy
from moderay.corpus.content import content_hash
from moderay.labels.corrections import ReviewedPolicy
from moderay.labels.layout import Layout
from moderay.labels.review_records import Review, review_id, review_time, session_id
from moderay.labels.reviews import ReviewStore

PRIZE, SHOP = "claim your prize", "visit my shop"
ANSWER = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing here."}
RULES = [
    {
        "content": "prize",
        "answer": '{"label": "SP4", "rationale": "A prize."}',
        "reasoning": "A prize.",
        "p": 0.8,
    }
]
TWICE = 2  # requests a judged row takes: the answer, and the probabilities


@pytest.fixture
def night(job, tmp_path: Path) -> Callable[..., tuple[Any, int]]:  # type: ignore[no-untyped-def]
    """Run a job; its outcome, and how many answers the engine gave."""
    log = tmp_path / "answers"

    def run(sections: dict[str, Any] | None = None, **options: Any) -> tuple[Any, int]:
        before = log.stat().st_size if log.exists() else 0
        file = job({"default": ANSWER, "rules": RULES, "log": str(log)}, **(sections or {}))
        outcome = moderay.run(file, **options)
        return outcome, (log.stat().st_size if log.exists() else 0) - before

    return run


def arrives(tmp_path: Path, name: str, texts: list[str]) -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    pq.write_table(pa.table({"text": texts}), tmp_path / "in" / name)


def say(output: Path, text: str, label: str | None, **fields: Any) -> Review:
    policy = ReviewedPolicy.of(load_policy(ROOT / "policies" / "spam"))
    review = Review(
        **{
            "id": review_id(),
            "session": session_id(),
            "reviewer": "ann",
            "time": review_time(),
            "policy": "spam",
            "policy_hash": policy.hash,
            "content_hash": content_hash([text]),
            "shard": "a.parquet",
            "row": 0,
            "label": label,
            "queue": "flagged",
            **fields,
        }
    )
    ReviewStore(Layout(str(output))).add(review)
    return review


def spam(output: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = verdicts_of(labels(output)[name], "spam")
    return rows


@pytest.mark.slow
def test_correction_of_night_one_holds_on_night_three_without_a_request(
    night, cli, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    arrives(tmp_path, "a.parquet", [PRIZE, "hello", "a quiet day"])
    assert night()[1] == 3 * TWICE
    said = say(out, PRIZE, "SP0", note="a poem about prizes")
    # Known, and not applied yet.
    outcome, answers = night()
    assert (outcome.worked, outcome.unapplied, answers) == (False, True, 0)
    result = cli("run", tmp_path / "job.yaml")
    assert f"moderay decide {out}" in result.stderr, result.stderr
    assert cli("decide", out).returncode == 0
    [first, *_] = spam(out, "a.parquet")
    assert (first["decided_by"], first["label"], first["violates"]) == ("human", "SP0", False)
    assert first["overruled"]["label"] == "SP4" and first["reasoning"] == "A prize."
    outcome, answers = night()
    assert (outcome.worked, outcome.unapplied, answers) == (False, False, 0)

    arrives(tmp_path, "b.parquet", [SHOP, "hello again"])
    assert night()[1] == 2 * TWICE
    arrives(tmp_path, "c.parquet", [PRIZE, "something new", PRIZE])
    outcome, answers = night()
    assert answers == 1 * TWICE and not outcome.unapplied
    rows = spam(out, "c.parquet")
    assert [row["decided_by"] for row in rows] == ["human", "reason", "human"]
    assert [row["label"] for row in rows] == ["SP0", "SP0", "SP0"]
    assert rows[0]["rationale"] == "a poem about prizes"
    assert rows[0]["overruled"] is None and rows[0]["prompt_tokens"] is None
    counts = outcome.manifest.counts["spam"]
    assert counts.settled == {"reason": 5, "human": 3} and counts.ok == counts.rows == 8
    assert counts.corrected == counts.reversed == {"reason": 1}
    assert moderay.verify(out).findings == ()

    # In another output that reuses this one, the answer is taken over with the verdicts.
    other = {"output": {"path": "other", "reasoning": "all"}, "reuse": ["out"]}
    outcome, answers = night(other)
    assert (answers, outcome.unapplied) == (0, False)
    assert spam(tmp_path / "other", "a.parquet")[0]["overruled"]["label"] == "SP4"
    assert {row["decided_by"] for row in spam(tmp_path / "other", "c.parquet")} == {
        *("human", "reason")
    }
    assert ReviewStore(Layout(str(tmp_path / "other"))).read() == [said]

    # Taken back: the judges' verdict stands again, and where there is none, one is asked for.
    say(out, PRIZE, None, withdraws=said.id)
    decided = moderay.decide(out).policies["spam"]
    assert (decided.by_people, decided.withdrawn, decided.to_flagged) == (0, 2, 1)
    outcome, answers = night(retry_failed=True)
    assert answers == 1 * TWICE and outcome.manifest.counts["spam"].withdrawn == 0
    assert [row["label"] for row in spam(out, "c.parquet")] == ["SP4", "SP0", "SP4"]
    assert not outcome.unapplied and moderay.verify(out).findings == ()


@pytest.mark.slow
def test_threshold_of_decide_holds_until_a_run_decides_by_the_jobs(
    night, cli, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    arrives(tmp_path, "a.parquet", [PRIZE, "hello"])
    night()
    say(out, "hello", "SP2")
    result = cli("decide", out, "--threshold", "spam=0.99")
    assert result.returncode == 0 and "0.5 -> 0.99" in result.stdout
    assert "threshold: 0.99" in result.stderr
    assert [row["violates"] for row in spam(out, "a.parquet")] == [False, True]
    again = cli("run", tmp_path / "job.yaml")
    assert again.returncode == 0 and "job's threshold, 0.5; they were under 0.99" in again.stderr
    outcome, answers = night()
    assert answers == 0 and not outcome.worked
    assert [row["violates"] for row in spam(out, "a.parquet")] == [True, True]
    assert [row["decided_by"] for row in spam(out, "a.parquet")] == ["reason", "human"]
    wrong = cli("decide", out, "--threshold", "hate=0.9")
    assert wrong.returncode == 2 and "no policy 'hate'" in wrong.stderr


@pytest.mark.slow
def test_two_reviewers_at_once_and_ten_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    url, rng = str(tmp_path / "out"), random.Random(18)
    kept: list[str] = []
    sessions = {name: session_id() for name in ("ann", "bo")}
    for _ in range(5):
        writers = [
            subprocess.Popen(
                [sys.executable, "-m", "support.review_writer", url, name, session],
                stdout=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            for name, session in sessions.items()
        ]
        for writer in writers:  # each has begun
            assert writer.stdout is not None
            kept.append(writer.stdout.readline().strip())
        time.sleep(rng.uniform(0.05, 0.5))
        for writer in writers:
            writer.kill()
        for writer in writers:
            assert writer.stdout is not None
            kept += writer.stdout.read().split()
            writer.wait()
    store = ReviewStore(Layout(url))
    found = [review.id for review in store.read()]
    assert len(found) == len(set(found)) and set(kept) <= set(found)
    # Of each kill one answer at most was kept and not yet confirmed.
    assert len(set(found) - set(kept)) <= 10
    for session in sessions.values():
        store.merge(session)
    assert [review.id for review in store.read()] == found
    assert len(kept) > 20 and {review.reviewer for review in store.read()} == {"ann", "bo"}
