"""A night in which nothing has come is no mistake, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import put
from support.outputs import labels

NIGHT = {"date": "2026-11-25"}


def in_folder(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    if kind == "only a mark":
        (tmp_path / "in/_SUCCESS").touch()
    if kind == "a header":
        put(tmp_path, "a.csv", b"id,text\n")
    if kind == "no rows":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in/a.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no files", "only a mark", "a header", "no rows"])
def test_night_without_rows_ends_with_0_and_says_so(job, cli, tmp_path: Path, kind: str) -> None:  # type: ignore[no-untyped-def]
    in_folder(tmp_path, kind)
    file = job(**NIGHT)
    assert cli("check", file).returncode == 0 and cli("plan", file).returncode == 0
    for _ in range(2):
        result = cli("run", file)
        assert result.returncode == 0, result.stderr
        assert "the input is empty: no rows to label" in result.stdout
    brief = cli("run", file, "--brief")
    shards = int(kind in {"a header", "no rows"})
    expected = f"test 2026-11-25: 0 new rows; shards: {shards} new, 0 changed; the input is empty"
    assert brief.stdout.splitlines()[0] == expected and brief.returncode == 0
    assert json.loads(cli("run", file, "--json").stdout)["empty"] is True
    look = cli("run", file, "--limit", "5", "--show")
    assert (look.returncode, look.stdout) == (0, "0 rows judged, 0 flagged, nothing written\n")
    clean = ("--keep", "NOT spam.violates", "--out", tmp_path / "clean")
    assert cli("filter", file, *clean).returncode == 0
    # The rows that come later are labelled as ever.
    put(tmp_path, "late.csv", b"id,text\n1,claim your prize\n")
    result = cli("run", file)
    assert result.returncode == 0 and "is empty" not in result.stdout, result.stderr
    assert labels(tmp_path / "out")["late.parquet"]["flagged"].to_pylist() == [True]


def test_input_without_rows_is_a_mistake_where_nobody_says_otherwise(
    job, cli, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    in_folder(tmp_path, "no files")
    sections = {"input": {"path": "in", "content": "text"}}
    assert "no Parquet, Arrow, JSON lines or CSV files at" in cli("run", job(**sections)).stderr
    put(tmp_path, "a.csv", b"id,text\n")
    result = cli("run", job(**sections))
    assert result.returncode == 2 and "the input has no rows" in result.stderr
    assert "input.allow_empty: true" in result.stderr
    assert cli("run", job(**sections), "--set", "input.allow_empty=true").returncode == 0
    refused = cli("run", job(**NIGHT), "--set", "input.allow_empty=false")
    assert refused.returncode == 2 and "the input has no rows" in refused.stderr


def test_empty_input_takes_no_labels_with_it(job, cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = put(tmp_path, "a.csv", b"id,text\n1,hello\n")
    assert cli("run", job(**NIGHT)).returncode == 0
    file.unlink()
    result = cli("run", job(**NIGHT), "--prune")
    assert result.returncode == 2 and "--prune would remove all 1 label files" in result.stderr
    result = cli("run", job(**NIGHT))
    assert result.returncode == 0 and "no longer has 1 shard " in result.stderr
    assert list(labels(tmp_path / "out")) == ["a.parquet"]


def test_folder_that_cannot_be_looked_into_is_no_empty_one(job, cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    put(tmp_path, "a.csv", b"text\ncaf\xe9\n")
    result = cli("run", job(**NIGHT))
    assert result.returncode == 2 and "none of 1 file can be read" in result.stderr
