"""Kept rows in a Delta table: one of their own, and the input itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.transaction import AddAction, create_table_with_add_actions
from support.project import AS_ANYBODY, ROOT
from support.published import published_output

from moderay.config.policy import load_policy
from moderay.core.errors import ModerayError, TryAgainError, UserError
from moderay.core.verdicts import Status, Verdict, verdict_array
from moderay.tasks.filter import filter as filtering
from moderay.tasks.filter.filter import Filtered, filter_labels
from moderay.tasks.filter.request import FilterRequest, Labels, read_labels

SPAM = load_policy(ROOT / "policies" / "spam")
KEEP = "NOT spam.violates"
ROWS = 20
# By shard: rows that violate.
SPAMS = {
    "day=0/clean.parquet": 0,
    "day=0/some ä%20.parquet": 5,
    "day=1/most.parquet": 19,
    "day=1/all.parquet": ROWS,
}


def shard(name: str, spams: int) -> tuple[pa.Array, list[pa.StructArray]]:
    rest = [0.0] * (len(SPAM.label_names) - 2)
    verdicts = [
        Verdict(Status.OK, [1.0 - bad, *rest, float(bad)], answer="SP0", decided_by="reason")
        for bad in (row < spams for row in range(ROWS))
    ]
    return pa.array([f"{name} {row:02}" for row in range(ROWS)]), [verdict_array(verdicts, 0)]


@pytest.fixture
def labels(tmp_path: Path) -> Labels:
    """Of a Delta table of four files in two partitions."""
    layout = published_output(
        tmp_path, [SPAM], {name: shard(name, spams) for name, spams in SPAMS.items()}
    )
    source = tmp_path / "in"
    adds = [
        AddAction(
            name,
            (source / name).stat().st_size,
            {"day": name[4]},
            1,
            True,
            json.dumps({"numRecords": ROWS}),
        )
        for name in SPAMS
    ]
    schema = Schema.from_arrow(pa.schema([("text", pa.string()), ("day", pa.int32())]))
    create_table_with_add_actions(str(source), schema, adds, partition_by=["day"])
    return replace(read_labels(layout.url, {}), table=str(source))


def kept(labels: Labels, request: FilterRequest) -> Filtered:
    return filter_labels(labels, request, {})


def rows(table: str | Path, version: int | None = None) -> pl.DataFrame:
    return pl.scan_delta(str(table), version=version).collect().sort("text")


def test_in_place_is_what_a_folder_keeps_and_earlier_readers_are_left_alone(
    labels: Labels, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    before = rows(source)
    reader = DeltaTable(source).to_pyarrow_dataset().to_batches(batch_size=1)
    first = next(reader)
    kept(labels, FilterRequest(KEEP, str(tmp_path / "folder"), {}))
    with pytest.raises(UserError, match="folder holds what was removed beside kept rows"):
        kept(labels, FilterRequest(KEEP, str(tmp_path / "folder"), {}, in_place=True))
    done = kept(labels, FilterRequest(KEEP, str(tmp_path / "gone"), {}, in_place=True))
    change = done.card.table
    assert change is not None
    assert (change.before, change.version, change.added, change.removed) == (0, 1, 2, 3)
    # Who read when it was committed, reads on; and so does who asks for the version.
    assert sum(len(batch) for batch in reader) + len(first) == len(before)
    assert rows(source, 0).equals(before)
    folder = pl.read_parquet(tmp_path / "folder/kept/**/*.parquet", hive_partitioning=False)
    assert rows(source)["text"].equals(folder["text"].sort())
    assert rows(source)["day"].dtype == pl.Int32
    removed = pl.read_parquet(tmp_path / "gone/removed/**/*.parquet", hive_partitioning=False)
    assert len(removed) == sum(SPAMS.values()) and not (tmp_path / "gone/kept").exists()
    history = DeltaTable(source).history()[0]
    assert history["moderay.filter"] == KEEP and history["operation"] == "WRITE"
    [stats] = [
        each
        for each in pa.table(DeltaTable(source).get_add_actions(flatten=True)).to_pylist()
        if "most" in each["path"]
    ]
    assert stats["min.text"] == stats["max.text"] == "day=1/most.parquet 19"
    # Labels of files that are in the table no longer take nothing more away.
    with pytest.raises(UserError, match=r"2 files of the table are not labelled, such as day="):
        kept(labels, FilterRequest(KEEP, str(tmp_path / "gone"), {}, in_place=True))
    assert DeltaTable(source).version() == 1


# Filters labels of a table in place, and says what it is told.
IN_PLACE = """
import sys
from dataclasses import replace
from moderay.core.errors import UserError
from moderay.tasks.filter.filter import filter_labels
from moderay.tasks.filter.request import FilterRequest, read_labels
folder, table, keep, out = sys.argv[1:]
labels = replace(read_labels(folder, {}), table=table)
try:
    filter_labels(labels, FilterRequest(keep, out, {}, in_place=True), {})
except UserError as error:
    print(error)
"""


def test_a_table_whose_log_may_not_be_written(labels: Labels, tmp_path: Path) -> None:
    source = tmp_path / "in"
    before = sorted(source.rglob("*"))
    (source / "_delta_log").chmod(0o555)
    what = [labels.layout.url, str(source), KEEP, str(tmp_path / "gone")]
    command = [*AS_ANYBODY, sys.executable, "-c", IN_PLACE, *what]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "_delta_log cannot be written: you have no right to" in said
    assert sorted(source.rglob("*")) == before and not (tmp_path / "gone").exists()


def test_a_table_of_kept_rows_has_the_partitions_and_columns_of_its_source(
    labels: Labels, tmp_path: Path
) -> None:
    clean = tmp_path / "clean"
    request = FilterRequest(KEEP, f"delta://{clean}", {})
    change = kept(labels, request).card.table
    assert change is not None and (change.version, change.before) == (0, None)
    assert DeltaTable(clean).metadata().partition_columns == ["day"]
    assert DeltaTable(clean).schema() == DeltaTable(tmp_path / "in").schema()
    first = rows(clean)
    assert len(first) == len(SPAMS) * ROWS - sum(SPAMS.values())
    assert not kept(labels, request).worked
    # Another rule makes another version, and leaves the one before as it was.
    with pytest.raises(UserError, match="filtered by another rule"):
        kept(labels, replace(request, keep="spam.violates"))
    change = kept(labels, replace(request, keep="spam.violates", replace=True)).card.table
    assert change is not None and (change.version, change.before) == (1, 0)
    assert len(rows(clean)) == sum(SPAMS.values())
    assert rows(clean, 0).equals(first)
    # What somebody else put in is not taken out.
    write_deltalake(clean, first.to_arrow(), mode="append")
    with pytest.raises(UserError, match=r"version 2 of the table \(WRITE\) was not made by"):
        kept(labels, replace(request, replace=True))


def test_a_filter_of_files_makes_a_table_with_their_hive_folders(
    labels: Labels, tmp_path: Path
) -> None:
    clean = tmp_path / "clean"
    request = FilterRequest(KEEP, f"delta://{clean}", {}, verdicts=True)
    kept(replace(labels, table=None), request)
    read = rows(clean)
    assert read.columns == ["text", "flagged", "spam", "day"]
    assert read["day"].unique().sort().to_list() == ["0", "1"]
    assert (clean / "_filter/removed/day=1/all.parquet").is_file()


def test_a_writer_that_was_faster_leaves_the_table_as_it_made_it(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    commit = filtering.commit_kept

    def late(*args: Any) -> Any:
        DeltaTable(source).delete("text LIKE '%some%'")
        return commit(*args)

    monkeypatch.setattr(filtering, "commit_kept", late)
    request = FilterRequest(KEEP, str(tmp_path / "gone"), {}, in_place=True)
    with pytest.raises(TryAgainError, match="another writer changed the table meanwhile"):
        kept(labels, request)
    assert DeltaTable(source).version() == 1
    there = {str(file.relative_to(source)) for file in source.rglob("*.parquet")}
    assert there == set(SPAMS)


Change = Callable[[DeltaTable], Any]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda table: table.alter.set_table_properties({"delta.appendOnly": "true"}),
            r"only takes new rows",
        ),
        (
            lambda table: table.alter.set_table_properties({"delta.enableChangeDataFeed": "true"}),
            r"keeps a change data feed",
        ),
        (lambda table: _add(table, {"readerFeatures": ["x"], "writerFeatures": ["x"]}), "'x'"),
        (
            lambda table: _add(table, {"readerFeatures": [], "writerFeatures": ["rowTracking"]}),
            "rowTracking",
        ),
        (lambda table: shutil.rmtree(_log(table)), "no Delta table is there"),
    ],
)
def test_tables_that_cannot_be_changed_are_refused_and_nothing_is_written(
    labels: Labels, tmp_path: Path, change: Change, said: str
) -> None:
    change(DeltaTable(tmp_path / "in"))
    with pytest.raises(UserError, match=said):
        kept(labels, FilterRequest(KEEP, str(tmp_path / "gone"), {}, in_place=True))
    assert not (tmp_path / "gone").exists()


def _add(table: DeltaTable, features: dict[str, list[str]]) -> None:
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
    (_log(table) / "00000000000000000001.json").write_text(json.dumps({"protocol": protocol}))


def _log(table: DeltaTable) -> Path:
    return Path(table.table_uri.removeprefix("file://"), "_delta_log")


def test_what_cannot_be_filtered_into_a_table_is_said_first(labels: Labels, tmp_path: Path) -> None:
    out = str(tmp_path / "gone")
    for request, source, said in [
        (FilterRequest(KEEP, out, {}, in_place=True), None, "--in-place is for a job"),
        (FilterRequest(KEEP, "delta://x", {}, in_place=True), labels.table, "--out is a folder"),
        (FilterRequest(KEEP, out, {}, None, True, in_place=True), labels.table, "--verdicts out"),
        (FilterRequest(KEEP, "iceberg://a/b/c", {}), labels.table, "a filter writes a folder, or"),
        (FilterRequest(KEEP, f"delta://{tmp_path}/in/x", {}), None, "lies inside the input"),
    ]:
        with pytest.raises(ModerayError, match=said):
            kept(replace(labels, table=source), request)
    assert pq.read_table(tmp_path / "in/day=0/clean.parquet", partitioning=None).num_rows == ROWS
