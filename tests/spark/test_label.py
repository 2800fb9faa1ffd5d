"""`moderay.spark.label` on a cluster: the verdicts of a run, beside every column as it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import DataFrame, SparkSession
from support.executors import count, events, executor_processes
from support.outputs import labels
from support.project import ROOT
from support.scripted import SCRIPT, write_job

import moderay
import moderay.spark

POLICIES = [str(ROOT / "policies" / name) for name in ("spam", "harassment")]
CASCADE = [{"rules": {}}, {"glance": {"below": 0.15}}, {"reason": {}}]
SETTINGS: dict[str, Any] = {"cascade": CASCADE, "unit": {"rows": 16}, "audit": 0.2}
WORDS = ["hello there", "claim your prize", "visit my shop", "a quiet day", None, " ", "broken"]
WORDS += ["failing", "ok", "buy 500 followers", "is this a scam"]
ROWS = 600
SCHEMA = "id long, text string"
SAME = ("status", "violates", "label", "probability", "scores", "rationale", "reasoning")

Labelled = Callable[..., DataFrame]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job over 600 rows, most of them twice, and its scripted engine."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "in").mkdir()
    words = [WORDS[number % len(WORDS)] for number in range(ROWS)]
    texts = [word and f"{word} {number % 300 // 11}" for number, word in enumerate(words)]
    table = pa.table({"id": range(ROWS), "text": pa.array(texts, pa.string())})
    pq.write_table(table, folder / "in" / "a.parquet")
    write_job(
        folder,
        SCRIPT | {"log": str(folder / "asked.log"), "delay": {"mean_s": 0.002}},
        policies=POLICIES,
        **SETTINGS,
    )
    return folder


@pytest.fixture
def labelled(spark: SparkSession, corpus: Path) -> Labelled:
    """Label the corpus; keyword arguments replace those of `label`."""

    def label(partitions: int = 2, **arguments: Any) -> DataFrame:
        rows = pq.read_table(corpus / "in" / "a.parquet").to_pylist()
        # Without a shuffle, whose files would be looked for at an executor that was killed.
        texts = spark.sparkContext.parallelize([tuple(row.values()) for row in rows], partitions)
        df = spark.createDataFrame(texts, SCHEMA)
        given = {"content": "text", "policies": POLICIES, "model": f"scripted:{corpus}/script.yaml"}
        return moderay.spark.label(df, **{**given, **SETTINGS, **arguments})

    return label


def rows_of(df: DataFrame) -> list[dict[str, Any]]:
    """By position, with nested rows as dictionaries."""
    return sorted((row.asDict(recursive=True) for row in df.collect()), key=lambda row: row["id"])


def asked(corpus: Path) -> int:
    log = corpus / "asked.log"
    return log.stat().st_size if log.exists() else 0


def assert_same(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    """The same verdicts row by row; which of two equal contents was asked does not count."""
    assert [row["id"] for row in left] == [row["id"] for row in right]
    for ours, theirs in zip(left, right, strict=True):
        for name in ("text", "content_hash", "flagged"):
            assert ours[name] == theirs[name]
        for policy in ("spam", "harassment"):
            verdict, other = ours[policy], theirs[policy]
            assert {name: verdict[name] for name in SAME} == {name: other[name] for name in SAME}
            for name in ("decided_by", "forced", "answer", "audit", "windows", "detail"):
                assert verdict["trace"][name] == other["trace"][name], (ours["text"], name)


@pytest.fixture(scope="module")
def by_a_run(corpus: Path, cli: Any) -> list[dict[str, Any]]:
    """Rows of the label file that a run writes."""
    result = cli("run", corpus / "job.yaml", RAY_ADDRESS="local")
    assert result.returncode in (0, 1), result.stderr
    [table] = labels(corpus / "out").values()
    return list(table.to_pylist())


def test_verdicts_are_those_of_a_run_and_each_worker_builds_one_engine(
    spark: SparkSession, labelled: Labelled, by_a_run: list[dict[str, Any]], corpus: Path
) -> None:
    before = count(spark, "engine started")
    df = labelled(partitions=6)
    assert df.columns == ["id", "text", "content_hash", "flagged", "spam", "harassment"]
    assert count(spark, "engine started") == before  # lazy: nothing has begun
    assert_same(rows_of(df), by_a_run)
    assert_same(rows_of(df), by_a_run)  # a second action, on the same engines
    assert count(spark, "engine started") - before == len(executor_processes()) == 2


def test_contents_of_a_partition_are_asked_once_and_rows_keep_their_order(
    spark: SparkSession, labelled: Labelled, corpus: Path
) -> None:
    before = asked(corpus)
    rows = labelled(partitions=1).collect()
    assert [row["id"] for row in rows] == list(range(ROWS))
    once = asked(corpus) - before
    assert once > 0
    copies = [row for row in rows if row["spam"]["trace"]["origin"] == "duplicate"]
    assert len(copies) > 100 and not any(row["spam"]["trace"]["prompt_tokens"] for row in copies)
    # The same contents, each once: no fewer answers are given.
    distinct = {row["content_hash"]: (row["id"], row["text"]) for row in reversed(rows)}
    texts = spark.sparkContext.parallelize(list(distinct.values()), 1)
    before = asked(corpus)
    model = f"scripted:{corpus}/script.yaml"
    df = spark.createDataFrame(texts, SCHEMA)
    moderay.spark.label(df, "text", POLICIES, model, **SETTINGS).collect()
    assert asked(corpus) - before == once


def test_another_model_in_the_same_worker_ends_the_engine_before(
    spark: SparkSession, labelled: Labelled, corpus: Path
) -> None:
    labelled().collect()
    ended = count(spark, "engine ended")
    script = yaml.safe_load((corpus / "script.yaml").read_text())
    script["default"]["p"] = 0.7
    (corpus / "other.yaml").write_text(yaml.safe_dump(script))
    rows = rows_of(labelled(model=f"scripted:{corpus}/other.yaml"))
    assert rows[0]["harassment"]["status"] == "ok"
    of_engines = [line["event"] for line in events(spark) if line["event"].startswith("engine")]
    assert count(spark, "engine ended") - ended >= 1
    assert "engine ended" in of_engines


def test_executor_that_is_killed_half_way_costs_nothing_but_time(
    spark: SparkSession, labelled: Labelled, by_a_run: list[dict[str, Any]], corpus: Path
) -> None:
    script = yaml.safe_load((corpus / "script.yaml").read_text())
    script |= {"delay": {"mean_s": 0.2}, "log": str(corpus / "slow.log")}
    (corpus / "slow.yaml").write_text(yaml.safe_dump(script))
    df = labelled(partitions=4, model=f"scripted:{corpus}/slow.yaml", unit={"rows": 4})
    killed: list[int] = []

    def kill() -> None:
        log = corpus / "slow.log"
        while not log.exists() or log.stat().st_size < 150:
            time.sleep(0.05)
        victim = executor_processes()[0]
        victim.kill()
        killed.append(victim.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = rows_of(df)
    killer.join()
    assert killed
    assert_same(rows, by_a_run)


def test_engine_that_cannot_live_fails_its_task_with_a_sentence_and_the_next_has_a_new_one(
    spark: SparkSession, labelled: Labelled, by_a_run: list[dict[str, Any]], corpus: Path
) -> None:
    luck = corpus / "bad-luck"
    script = yaml.safe_load((corpus / "script.yaml").read_text())
    script["rules"].insert(0, {"content": ".", "fail": "dead", "while": str(luck)})
    (corpus / "unlucky.yaml").write_text(yaml.safe_dump(script))
    df = labelled(model=f"scripted:{corpus}/unlucky.yaml")
    luck.touch()

    def mend() -> None:
        while count(spark, "engine ended") == before:
            time.sleep(0.02)
        luck.unlink()

    before = count(spark, "engine ended")
    mender = threading.Thread(target=mend)
    mender.start()
    rows = rows_of(df)
    mender.join()
    assert_same(rows, by_a_run)
    assert count(spark, "engine ended") > before
    luck.touch()
    try:
        with pytest.raises(Exception, match=r"the engine died .*tried again has a new one"):
            df.collect()
    finally:
        luck.unlink()


def test_example_of_the_function_does_what_it_shows(
    spark: SparkSession, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import doctest

    monkeypatch.chdir(corpus)
    (corpus / "policies").symlink_to(ROOT / "policies")
    names = {"spark": spark, "moderay": moderay}
    [example] = doctest.DocTestFinder(recurse=False).find(moderay.spark.label, "label", globs=names)
    wrong: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(
        example, out=wrong.append
    )
    assert not wrong, "".join(wrong)
