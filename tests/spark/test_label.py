"""`moderay.spark.label` on a cluster: the verdicts of a run, beside every column as it was."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import DataFrame, Row, SparkSession
from support.project import ROOT
from support.scripted import SCRIPT, write_job

import moderay
import moderay.spark

POLICIES = [str(ROOT / "policies" / "spam")]
WORDS = ["hello there", "claim your prize", "visit my shop", "a quiet day", None, "  ", "broken"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job over 400 rows, many of them twice, and its scripted engine."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "in").mkdir()
    words = [WORDS[number % len(WORDS)] for number in range(400)]
    texts = [
        None if word is None else f"{word} {number // 40}" for number, word in enumerate(words)
    ]
    table = pa.table({"id": range(400), "text": pa.array(texts, pa.string())})
    pq.write_table(table, folder / "in" / "a.parquet")
    script = SCRIPT | {"log": "asked.log"}
    write_job(folder, script, unit={"rows": 16}, output={"path": "out", "reasoning": "all"})
    return folder


def by_id(rows: list[Row]) -> dict[int, dict[str, object]]:
    return {row["id"]: row.asDict(recursive=True) for row in rows}


def test_verdicts_are_those_of_a_run(spark: SparkSession, corpus: Path) -> None:
    df = spark.read.parquet(str(corpus / "in")).repartition(2, "id")
    labelled = moderay.spark.label(
        df,
        "text",
        POLICIES,
        f"scripted:{corpus / 'script.yaml'}",
        unit={"rows": 16},
        output={"reasoning": "all"},
    )
    spark_rows = by_id(labelled.collect())
    assert len(spark_rows) == 400
    print(spark_rows[0], spark_rows[1])
