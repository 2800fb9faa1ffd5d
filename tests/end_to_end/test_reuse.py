"""Verdicts that were paid for are taken again: failed rows, changed shards, wider selections,
another policy; and pruned.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels, manifest_of, verdicts_of
from support.project import ROOT

from moderay import run

ANSWER = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing here."}


@pytest.fixture
def paid(job, tmp_path: Path) -> Callable[..., tuple[Any, int]]:  # type: ignore[no-untyped-def]
    """Run a job; its outcome, and how many answers the engine gave."""
    log = tmp_path / "answers"
    rules = [
        {"content": "unlucky", "fail": "request", "while": str(tmp_path / "bad-luck")},
        {
            "content": "prize",
            "answer": '{"label": "SP4", "rationale": "A prize."}',
            "reasoning": "A prize.",
            "p": 0.8,
        },
    ]

    def call(sections: dict[str, Any] | None = None, **options: Any) -> tuple[Any, int]:
        before = log.stat().st_size if log.exists() else 0
        outcome = run(
            job({"default": ANSWER, "rules": rules, "log": str(log)}, **(sections or {})), **options
        )
        return outcome, (log.stat().st_size if log.exists() else 0) - before

    return call


def write(tmp_path: Path, texts: list[str | None], name: str = "a.parquet") -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    pq.write_table(pa.table({"text": texts, "n": range(len(texts))}), tmp_path / "in" / name)


def spam(tmp_path: Path, name: str = "a.parquet") -> list[dict[str, Any]]:
    actual: list[dict[str, Any]] = verdicts_of(labels(tmp_path / "out")[name], "spam")
    return actual


TWICE = 2  # requests a judged row takes: the answer, and the probabilities


@pytest.mark.slow
def test_retry_failed_pays_for_failed_rows_only(paid, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"unlucky {i}" if i % 10 == 0 else f"prize {i}" for i in range(40)])
    write(tmp_path, ["fine"] * 5, "b.parquet")
    (tmp_path / "bad-luck").touch()
    assert paid()[0].manifest.counts["spam"].engine_error == 4
    assert paid(retry_failed=True)[0].manifest.counts["spam"].engine_error == 4
    before = spam(tmp_path)
    (tmp_path / "bad-luck").unlink()
    untouched = (tmp_path / "out/b.parquet").stat().st_mtime_ns
    assert paid()[0].worked is False
    outcome, answers = paid(retry_failed=True)
    after = spam(tmp_path)
    assert answers == 4 * TWICE and (tmp_path / "out/b.parquet").stat().st_mtime_ns == untouched
    assert [v["status"] for v in after] == ["ok"] * 40
    assert [v["origin"] for v in after] == [
        "judged" if i % 10 == 0 else "reused" for i in range(40)
    ]
    for i in range(40):
        if i % 10:
            assert {**before[i], "origin": ""} == {**after[i], "origin": ""} and after[i][
                "run"
            ] == 0
        else:
            assert after[i]["run"] == 2
    counts = outcome.manifest.counts["spam"]
    assert (
        counts.ok == 45 and counts.reused == 36 and outcome.manifest.last_run.reused_verdicts == 36
    )
    assert paid(retry_failed=True)[0].worked is False
    assert not [file for file in (tmp_path / "out/_moderay/units").rglob("*") if file.is_file()]


def test_shard_that_changed_in_a_few_rows_pays_for_those(paid, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    texts: list[str | None] = [f"prize {i}" if i % 3 else f"day {i}" for i in range(60)]
    write(tmp_path, texts)
    paid()
    before = spam(tmp_path)
    changed = ["new first", *texts[:20], "another prize", *texts[21:50], None, *texts[50:]]
    write(tmp_path, changed)
    outcome, answers = paid()
    after = spam(tmp_path)
    assert outcome.exit_status == 0 and answers == 2 * TWICE
    assert [v["origin"] for v in after] == [
        None if t is None else "reused" if t in texts else "judged" for t in changed
    ]
    same = (
        "status",
        "violates",
        "label",
        "probability",
        "rationale",
        "reasoning",
        "windows",
        "run",
    )
    for i, text in enumerate(changed):
        if text in texts:
            assert [after[i][name] for name in same] == [
                before[texts.index(text)][name] for name in same
            ]


@pytest.mark.slow
def test_wider_where_and_sample_pay_for_what_is_new(paid, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"prize {i}" for i in range(200)])
    assert paid({"input": {"path": "in", "content": "text", "where": "n < 50"}})[1] == 50 * TWICE
    assert paid({"input": {"path": "in", "content": "text", "where": "n < 80"}})[1] == 30 * TWICE
    assert [v["origin"] for v in spam(tmp_path)] == ["reused"] * 50 + ["judged"] * 30
    assert paid()[1] == 120 * TWICE
    assert paid({"input": {"path": "in", "content": "text", "sample": 0.2}})[1] == 0
    assert 20 <= len(spam(tmp_path)) <= 60


@pytest.mark.slow
def test_another_policy_pays_for_itself_alone(paid, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"prize {i}" for i in range(30)])
    paid()
    two = {"policies": [str(ROOT / "policies/spam"), str(ROOT / "policies/harassment")]}
    outcome, answers = paid(two, replace=True)
    table = labels(tmp_path / "out")["a.parquet"]
    assert outcome.exit_status == 0 and answers == 30 * TWICE
    assert {v["origin"] for v in verdicts_of(table, "spam")} == {"reused"}
    assert {v["origin"] for v in verdicts_of(table, "harassment")} == {"judged"}


def test_labels_of_shards_that_are_gone_stay_until_they_are_pruned(
    job, tmp_path: Path, cli
) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, ["prize"] * 3)
    write(tmp_path, ["fine"] * 2, "b.parquet")
    file = job()
    assert cli("run", file).returncode == 0
    (tmp_path / "in/b.parquet").unlink()
    result = cli("run", file)
    assert (
        result.returncode == 0
        and "no longer has 1 shard whose labels are here, such as b.parquet; --prune removes them"
        in result.stderr
    )
    assert set(labels(tmp_path / "out")) == {"a.parquet", "b.parquet"}
    result = cli("run", file, "--prune")
    assert result.returncode == 0 and "pruned: b.parquet" in result.stdout
    assert (
        not [f for f in (tmp_path / "out").rglob("*b.parquet*") if f.is_file()]
        and len(spam(tmp_path)) == 3
    )
    manifest = manifest_of(tmp_path / "out")
    assert (
        manifest["rows"] == 3
        and manifest["gone"] == []
        and manifest["runs"][-1]["pruned"] == ["b.parquet"]
    )
