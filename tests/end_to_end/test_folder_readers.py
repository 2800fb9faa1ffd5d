"""Tools that read a folder read an output as it is: finished, and while a run is at work on it."""

import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow.dataset
import pytest
import yaml
from support.held import ROWS, Held
from support.outputs import labels

FLAT = ("a.parquet", "b.parquet")
HIVE = ("day=1/a.parquet", "day=2/a.parquet")

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
    duckdb = pytest.importorskip("duckdb")
    return by_day(duckdb.sql(f"FROM '{folder}/**/*.parquet'").df())


def by_day(table: pd.DataFrame) -> Rows:
    assert {"row", "flagged", "spam"} <= set(table.columns)
    days = table["day"].astype(int) if "day" in table else pd.Series([None] * len(table))
    return dict(days.value_counts(dropna=False).rename(lambda day: None if pd.isna(day) else day))


def files_for_spark(folder: Path) -> set[str]:
    """What `spark.read.parquet` would read: no name that begins with a dot, or with `_` where it
    is no hive key.
    """

    def is_hidden(name: str) -> bool:
        return name.startswith(".") or (name.startswith("_") and "=" not in name)

    return {name for name in files_below(folder) if not any(map(is_hidden, name.split("/")))}


def files_for_datasets(folder: Path) -> set[str]:
    """What `datasets.load_dataset` would read: what the folder's configuration names."""
    (config,) = yaml.safe_load((folder / ".huggingface.yaml").read_text())["configs"]
    pattern = config["data_files"].removeprefix("**/")
    return {name for name in files_below(folder) if fnmatch(name.rpartition("/")[2], pattern)}


def files_below(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


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


@pytest.mark.parametrize("read", [with_polars, with_pandas, with_arrow, with_duckdb])
@pytest.mark.parametrize("kind", ["flat", "hive", "busy"])
def test_tool_reads_the_labels_and_nothing_else(
    kind: str, read: Callable[[Path], Rows], outputs: dict[str, Path]
) -> None:
    expected: Rows = {None: 2 * ROWS} if kind == "flat" else {1: ROWS, 2: ROWS}
    assert read(outputs[kind]) == expected


@pytest.mark.parametrize("listed", [files_for_spark, files_for_datasets])
@pytest.mark.parametrize("kind", ["flat", "hive", "busy"])
def test_tool_would_list_the_label_files_and_nothing_else(
    kind: str, listed: Callable[[Path], set[str]], outputs: dict[str, Path]
) -> None:
    expected = set(FLAT if kind == "flat" else HIVE)
    assert listed(outputs[kind]) == set(labels(outputs[kind])) == expected


def test_configuration_that_somebody_wrote_is_kept(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, FLAT)
    held.out.mkdir()
    own = held.out / ".huggingface.yaml"
    own.write_text("configs: []\n")
    assert cli("run", held.job).returncode == 0
    assert own.read_text() == "configs: []\n"
