"""`moderay.spark.label` with vLLM itself on the executors: `tiny`, on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from support.executors import count, python_processes
from support.outputs import labels
from support.project import ROOT, SHARED
from support.scripted import write_job

import moderay.spark

# Texts that tiny never saw make it write as long as it may.
CASCADE = [{"rules": {}}, {"reason": {"budget": 48}}]
POLICIES = [str(ROOT / "policies" / "spam")]
TWEETS = 120
MADE_UP = [
    "claim your prize at example.com now",
    "the train to the coast leaves at nine",
    "ok",
    "buy 500 followers",
    "cheap watches, message me",
    "thanks, see you tomorrow",
]
SAME = ("status", "violates", "label", "probability", "scores", "rationale", "reasoning")
IDLE_S = 120


@pytest.fixture(scope="module")
def by_a_run(tmp_path_factory: pytest.TempPathFactory, cli: Any) -> Callable[[str], pa.Table]:
    """Label files of a run over made-up texts, and over tweets where they are there."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "in").mkdir()
    texts = [f"{text} {number // 12}" for number, text in enumerate(MADE_UP * 10)]
    pq.write_table(
        pa.table({"text": pa.array(texts, pa.large_string())}), folder / "in" / "made-up.parquet"
    )
    if tweets := sorted((SHARED / "tweets").glob("*.parquet")):
        some = pq.read_table(tweets[0], columns=["text"]).slice(0, TWEETS)
        pq.write_table(some, folder / "in" / "tweets.parquet")
    job = write_job(folder, model={"source": "tiny"}, cascade=CASCADE, unit={"rows": 32})
    result = cli("run", job, RAY_ADDRESS="local")
    assert result.returncode in (0, 1), result.stderr
    made = labels(folder / "out")

    def of(name: str) -> pa.Table:
        if name not in made:
            pytest.skip(f"no tweets in {SHARED}")
        return made[name]

    return of


def labelled(spark: SparkSession, table: pa.Table) -> list[dict[str, Any]]:
    """The texts of a label file, labelled on two executors."""
    texts = [(row, text) for row, text in enumerate(table.column("text").to_pylist())]
    df = spark.createDataFrame(spark.sparkContext.parallelize(texts, 4), "row long, text string")
    done = moderay.spark.label(
        df, "text", POLICIES, "tiny", cascade=CASCADE, unit={"rows": 32}
    ).collect()
    return [row.asDict(recursive=True) for row in done]


@pytest.mark.parametrize("name", ["made-up.parquet", "tweets.parquet"])
def test_verdicts_are_those_of_a_run_row_by_row(
    spark: SparkSession, by_a_run: Callable[[str], pa.Table], name: str
) -> None:
    wanted = by_a_run(name)
    rows = labelled(spark, wanted)
    assert [row["row"] for row in rows] == list(range(len(wanted)))
    for row, other in zip(rows, wanted.to_pylist(), strict=True):
        for column in ("text", "content_hash", "flagged"):
            assert row[column] == other[column]
        for field in SAME:
            assert row["spam"][field] == other["spam"][field], (row["text"], field)
    statuses = {row["spam"]["status"] for row in rows}
    assert "ok" in statuses
    assert count(spark, "engine started") >= 1


@pytest.mark.slow
def test_idle_worker_is_ended_by_spark_and_its_engine_with_it(
    spark: SparkSession, by_a_run: Callable[[str], pa.Table]
) -> None:
    labelled(spark, by_a_run("made-up.parquet"))
    rested = time.monotonic()
    engines = [one for one in python_processes() if "vllm" in " ".join(_words(one)).lower()]
    assert engines
    gone, alive = psutil.wait_procs(engines, timeout=IDLE_S)
    print(f"an idle worker's engine was gone after {time.monotonic() - rested:.0f} s")
    assert gone and not alive


def _words(process: psutil.Process) -> list[str]:
    try:
        return [process.name(), *process.cmdline()]
    except psutil.Error:
        return []
