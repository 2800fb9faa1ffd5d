"""One odd file among many is left out and named; where many are odd, the job is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderay.core.errors import Problems
from moderay.corpus.scan import Scan
from moderay.pipeline.check import check

MakeJob = Callable[..., Path]
USUAL: dict[str, Any] = {"text": ["a"], "n": [1]}
TWICE = pa.Table.from_arrays([pa.array(["a"])] * 2 + [pa.array([1])], names=["text", "text", "n"])
ODD: dict[str, Any] = {
    "another type": ({"text": ["a"], "n": ["1"]}, "column 'n' is string, but int64 in "),
    "no column": ({"text": ["a"]}, "no column 'n', which "),
    "no content": ({"n": [1]}, "no column 'text'"),
    "another content": ({"text": [1], "n": [1]}, "column 'text' is int64"),
    "two columns of a name": (TWICE, "two columns are named 'text'"),
    "no columns": ({}, "no column 'text'"),
}


def put(folder: Path, name: str, table: pa.Table | dict[str, Any]) -> None:
    file = folder / "in" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), file)


def scan(file: Path) -> Scan:
    return check(file).scan


@pytest.mark.parametrize("at", ["0", "3", "9"])
@pytest.mark.parametrize("kind", ODD)
def test_one_odd_file_is_left_out_wherever_it_stands(
    kind: str, at: str, job: MakeJob, tmp_path: Path
) -> None:
    table, why = ODD[kind]
    put(tmp_path, f"{at}.parquet", table)
    for number in "1245678":
        put(tmp_path, f"{number}.parquet", USUAL)
    found = scan(job())
    assert [shard.name for shard in found.shards] == [f"{i}.parquet" for i in "1245678"]
    assert found.columns.names == ["text", "n"]
    [(name, reason)] = found.unreadable
    assert name == f"{at}.parquet" and why in reason


@pytest.mark.parametrize("kind", ODD)
def test_where_half_of_the_files_are_odd_the_job_is_refused(
    kind: str, job: MakeJob, tmp_path: Path
) -> None:
    table, why = ODD[kind]
    for number in range(4):
        put(tmp_path, f"{number}.parquet", table if number % 2 else USUAL)
    with pytest.raises(Problems) as caught:
        scan(job())
    assert why in str(caught.value)


def test_file_that_where_or_rules_cannot_be_held_against_is_odd(
    job: MakeJob, tmp_path: Path
) -> None:
    for number in range(3):
        put(tmp_path, f"{number}.parquet", {"text": ["a"], "n": [1], "lang": ["en"]})
    put(tmp_path, "3.parquet", {"text": ["a"], "n": [1], "lang": [5]})
    columns = {"path": "out", "columns": ["text"]}
    found = scan(
        job(input={"path": "in", "content": "text", "where": "lang = 'en'"}, output=columns)
    )
    assert [name for name, _ in found.unreadable] == ["3.parquet"]
    policy = tmp_path / "policies/spam"
    policy.mkdir(parents=True)
    (policy / "policy.md").write_text(
        "---\nid: spam\ntitle: Spam\nversion: 1\n---\n# Spam\n## INSTRUCTIONS\nSay 0 or 1.\n"
    )
    (policy / "rules.yaml").write_text("rules:\n  - {id: other, label: 0, where: lang <> 'en'}\n")
    found = scan(
        job(policies=["policies/spam"], output=columns, cascade=[{"rules": {}}, {"reason": {}}])
    )
    assert [name for name, _ in found.unreadable] == ["3.parquet"]
    assert "rule 'other'" in dict(found.unreadable)["3.parquet"]


def test_column_that_is_added_later_changes_nothing_and_is_named(
    job: MakeJob, tmp_path: Path
) -> None:
    for number in range(10):
        more = {"added": ["x"]} if number > 2 else {}
        put(tmp_path, f"{number}.parquet", {**USUAL, **more})
    found = scan(job())
    assert found.columns.names == ["text", "n"] and len(found.shards) == 10
    assert found.notes == ("columns not carried, as not every file has them: added",)
