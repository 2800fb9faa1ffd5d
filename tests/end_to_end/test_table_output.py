"""A Delta table is labelled into a table, and filtered where it is, on a disk and on S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from moderay.core.storage import filesystem

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


def nights(table: str, options: Mapping[str, str] | None = None) -> None:
    """Two appends, an update, a delete and a compaction."""
    storage = dict(options) if options else None
    for night in range(2):
        write_deltalake(
            table, posts(night * 40, 40), mode="append", partition_by="day", storage_options=storage
        )
    opened = DeltaTable(table, storage_options=storage)
    opened.update(updates={"text": "'claim a prize again'"}, predicate="id = 2")
    opened.delete("id = 4")
    opened.optimize.compact(partition_filters=[("day", "=", "2026-11-01")])


def ids(table: str, version: int | None = None, **options: str) -> list[int]:
    frame = pl.scan_delta(table, version=version, storage_options=options or None)
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


@pytest.mark.slow
def test_killed_filters_of_tables_on_s3_go_on_where_they_stopped(
    job, cli: Cli, bucket: str, s3: Mapping[str, str]
) -> None:  # type: ignore[no-untyped-def]
    table = f"{bucket}/posts"
    options = {
        "aws_access_key_id": s3["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": s3["AWS_SECRET_ACCESS_KEY"],
        "aws_region": "us-east-1",
        "aws_endpoint_url": s3["AWS_ENDPOINT_URL"],
        "aws_allow_http": "true",
    }
    for night in range(12):
        write_deltalake(table, posts(night * 40, 40), mode="append", storage_options=options)
    before = ids(table, **options)
    file = job(
        input={"path": f"delta://{table}", "content": "text"},
        output={"path": f"{bucket}/out", "table": "delta"},
    )
    result = cli("run", file, **s3)
    assert result.returncode == 0, result.stderr
    assert ids(f"{bucket}/out", **options) == before
    # Killed when some of its files are there, and once more.
    command = ["filter", str(file), "--keep", KEEP, "--out", f"{bucket}/gone", "--in-place"]
    for markers in (3, 7):
        killed_at(markers, command, f"{bucket}/gone", s3)
        assert DeltaTable(table, storage_options=options).version() == 11
        assert ids(table, **options) == before
    result = cli(*command, **s3)
    assert result.returncode == 0, result.stderr
    left = ids(table, **options)
    assert left == [row for row in before if row % 4 != 1]
    assert ids(table, 11, **options) == before
    assert DeltaTable(table, storage_options=options).version() == 12


def killed_at(markers: int, command: list[str], out: str, env: Mapping[str, str]) -> None:
    """Kill a filter when it has done so many shards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moderay", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **env},
    )
    fs, path = filesystem(out)
    while True:
        fs.invalidate_cache()
        if len(fs.glob(f"{path}/_moderay/shards/*.json")) >= markers:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
