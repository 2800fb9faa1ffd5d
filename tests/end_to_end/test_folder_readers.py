"""Tools that read a folder read an output as it is: finished, and while a run is at work on it."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest
from pyspark.sql import SparkSession
from support.held import ROWS, Held

pytestmark = pytest.mark.long

FLAT = ("a.parquet", "b.parquet")
HIVE = ("day=1/a.parquet", "day=2/a.parquet")

NEEDS_JAVA = pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")

# Rows of a folder, by its hive key where there is one.
Rows = dict[int | None, int]


def with_polars(folder: Path) -> Rows:
    table = pl.read_parquet(f"{folder}/**/*.parquet", hive_partitioning=True)
    return by_day(table.to_pandas())


def with_pandas(folder: Path) -> Rows:
    return by_day(pd.read_parquet(folder))


def with_arrow(folder: Path) -> Rows:
    return by_day(pyarrow.dataset.dataset(folder, partitioning="hive").to_table().to_pandas())


def with_duckdb(folder: Path) -> Rows:
    return by_day(duckdb.sql(f"FROM '{folder}/**/*.parquet'").df())


def by_day(table: pd.DataFrame) -> Rows:
    assert {"row", "flagged", "spam"} <= set(table.columns)
    days = table["day"].astype(int) if "day" in table else pd.Series([None] * len(table))
    return dict(days.value_counts(dropna=False).rename(lambda day: None if pd.isna(day) else day))


def with_spark(folder: Path) -> Rows:
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    try:
        labels = spark.read.parquet(str(folder))
        # Nested fields by their names, and a null is neither.
        known = labels.where("spam.scores.SP4 >= 0 AND spam.trace.decided_by = 'reason'")
        assert known.count() == labels.where("spam.violates IS NOT NULL").count() > 0
        return by_day(
            pa.Table.from_pylist(
                [row.asDict(recursive=True) for row in labels.collect()]
            ).to_pandas()
        )
    finally:
        spark.stop()


def with_datasets(folder: Path) -> Rows:
    """Hive keys are no columns here."""
    with tempfile.TemporaryDirectory() as cache:
        loaded = datasets.load_dataset(str(folder), split="train", cache_dir=cache)
        return by_day(loaded.to_pandas())


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, cli) -> dict[str, Path]:  # type: ignore[no-untyped-def]
    """By their names: outputs that are finished, and one that holds all that a run leaves."""
    finished = {}
    for kind, names in (("flat", FLAT), ("hive", HIVE)):
        held = Held(tmp_path_factory.mktemp(kind), names)
        result = cli("run", held.job)
        assert result.returncode == 0, result.stderr
        finished[kind] = held.out
    held = Held(tmp_path_factory.mktemp("busy"), HIVE)
    held.killed()
    busy = held.out
    assert held.units() and list((busy / "_moderay/leases").iterdir())
    for name in HIVE:
        (busy / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(finished["hive"] / name, busy / name)
    part = (busy / HIVE[0]).read_bytes()[:500]  # a label file on its way
    (busy / "_moderay/tmp").mkdir(exist_ok=True)
    (busy / "_moderay/tmp/0123456789abcdef0123456789abcdef").write_bytes(part)
    return finished | {"busy": busy}


@pytest.mark.parametrize(
    "read",
    [
        with_polars,
        with_pandas,
        with_arrow,
        with_duckdb,
        with_datasets,
        pytest.param(with_spark, marks=NEEDS_JAVA),
    ],
)
@pytest.mark.parametrize("kind", ["flat", "hive", "busy"])
def test_tool_reads_the_labels_and_nothing_else(
    kind: str, read: Callable[[Path], Rows], outputs: dict[str, Path]
) -> None:
    has_days = kind != "flat" and read is not with_datasets
    expected: Rows = {1: ROWS, 2: ROWS} if has_days else {None: 2 * ROWS}
    assert read(outputs[kind]) == expected


def test_configuration_that_somebody_wrote_is_kept(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, FLAT)
    held.out.mkdir()
    own = held.out / ".huggingface.yaml"
    own.write_text("configs: []\n")
    assert cli("run", held.job).returncode == 0
    assert own.read_text() == "configs: []\n"
