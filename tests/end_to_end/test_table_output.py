"""A Delta table is labelled into a table, and filtered where it is, through the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

Cli = Callable[..., subprocess.CompletedProcess[str]]
KEEP = "NOT spam.violates OR spam.status = 'empty'"


def posts(first: int, rows: int) -> pa.Table:
    words = ["hello there", "claim your prize", "a quiet day", " "]
    return pa.table(
        {
            "id": pa.array(range(first, first + rows), pa.int64()),
            "text": [f"{words[row % 4]} {row}" for row in range(first, first + rows)],
            "day": [f"2026-11-{1 + row % 2:02}" for row in range(first, first + rows)],
        }
    )


def nights(table: str) -> None:
    """Two appends, an update, a delete and a compaction."""
    for night in range(2):
        write_deltalake(table, posts(night * 40, 40), mode="append", partition_by="day")
    opened = DeltaTable(table)
    opened.update(updates={"text": "'claim a prize again'"}, predicate="id = 2")
    opened.delete("id = 4")
    opened.optimize.compact(partition_filters=[("day", "=", "2026-11-01")])


def ids(table: str, version: int | None = None) -> list[int]:
    frame = pl.scan_delta(table, version=version)
    return frame.select("id").collect()["id"].sort().to_list()


def test_a_table_is_labelled_into_a_table_and_filtered_in_place(
    job, cli: Cli, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    table, out = str(tmp_path / "posts"), str(tmp_path / "out")
    nights(table)
    version = DeltaTable(table).version()
    before = ids(table)
    file = job(
        input={"path": "delta://posts", "content": "text"},
        output={"path": "out", "table": "delta"},
    )
    result = cli("run", file)
    assert result.returncode == 0, result.stderr
    assert f"table: delta://{out} version 0" in result.stdout
    labels = pl.scan_delta(out)
    joined = pl.scan_delta(table).join(labels, on=["id", "day"]).collect()
    assert sorted(joined["id"]) == before
    bad = joined.filter(pl.col("spam").struct["violates"].fill_null(False))["id"].to_list()
    assert 2 in bad and 0 < len(bad) < len(before)
    folder = cli("filter", file, "--keep", KEEP, "--out", tmp_path / "clean")
    assert folder.returncode == 0, folder.stderr
    in_table = cli("filter", file, "--keep", KEEP, "--out", f"delta://{tmp_path}/apart")
    assert in_table.returncode == 0, in_table.stderr
    result = cli("filter", file, "--keep", KEEP, "--out", tmp_path / "gone", "--in-place")
    assert result.returncode == 0, result.stderr
    assert f"{table} version {version + 1} (before: version {version}), " in result.stdout
    kept = pl.read_parquet(tmp_path / "clean/kept/**/*.parquet")["id"].sort().to_list()
    assert ids(table) == kept == ids(str(tmp_path / "apart")) == sorted(set(before) - set(bad))
    assert ids(table, version) == before
    removed = pl.read_parquet(tmp_path / "gone/removed/**/*.parquet")["id"]
    assert sorted(removed) == sorted(bad)
    # The next night takes the verdicts of the rows that are left, and finds nothing to remove.
    card = json.loads((tmp_path / "gone/filter.json").read_text())
    again = cli("filter", file, "--keep", KEEP, "--out", tmp_path / "gone", "--in-place")
    assert again.returncode == 0, again.stderr
    assert DeltaTable(table).version() == version + 1
    now = json.loads((tmp_path / "gone/filter.json").read_text())
    assert now["rows"]["kept"] == card["rows"]["kept"] and now["rows"]["removed"] == 0
    assert sorted(pl.read_parquet(tmp_path / "gone/removed/**/*.parquet")["id"]) == sorted(bad)
    # The labels' table has the rows of the table as it is now, once.
    assert sorted(pl.scan_delta(out).collect()["id"]) == kept
