"""A Delta table of ten versions, filtered in place while somebody reads it, beside the same filter
into a folder. `--rows` are those of the table; the labels are written without an engine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from support.table_labels import label_table, labels_of_table

from moderay.labels.layout import Layout
from moderay.tasks.filter.filter import filter_labels
from moderay.tasks.filter.request import FilterRequest

KEEP = "NOT spam.violates"
# Rows of which one violates; and what they say.
EACH, BAD = 50, "claim your prize"


def rows_of(first: int, count: int) -> pa.Table:
    ids = pa.array(range(first, first + count), pa.int64())
    texts = [f"{BAD if row % EACH == 0 else 'a quiet day'} {row}" for row in ids.to_pylist()]
    day = [f"2026-11-{1 + row // 7 % 4:02}" for row in ids.to_pylist()]
    return pa.table({"id": ids, "text": texts, "day": day})


def ten_versions(table: str, rows: int) -> None:
    """Appends, updates, a delete and a compaction."""
    part = rows // 6
    for night in range(6):
        write_deltalake(table, rows_of(night * part, part), mode="append", partition_by="day")
    opened = DeltaTable(table)
    opened.update(updates={"text": f"'{BAD}, changed'"}, predicate=f"id < {part} AND id % 1001 = 0")
    opened.delete(f"id >= {part} AND id < {2 * part} AND id % 977 = 3")
    opened.update(
        updates={"text": "'a day, changed'"},
        predicate=f"id >= {part} AND id < {2 * part} AND id % 1009 = 0",
    )
    opened.optimize.compact(partition_filters=[("day", "=", "2026-11-01")])


class Reader(threading.Thread):
    """Reads one version again and again, and notes what it saw."""

    def __init__(self, table: str, version: int) -> None:
        super().__init__(daemon=True)
        self.opened = DeltaTable(table, version=version)
        self.seen: list[tuple[int, int]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        dataset = self.opened.to_pyarrow_dataset()
        while not self.ended.is_set():
            ids = dataset.to_table(columns=["id"])["id"]
            self.seen.append((len(ids), pc.sum(ids).as_py()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = str(folder / "posts")
        ten_versions(table, rows)
        version = DeltaTable(table).version()
        before = pl.scan_delta(table).collect().sort("id")
        layout = Layout(str(folder / "out"))
        label_table(layout, table, BAD)
        labels = labels_of_table(layout, table)
        began = time.monotonic()
        filter_labels(labels, FilterRequest(KEEP, str(folder / "clean"), {}), {})
        in_folder = time.monotonic() - began
        reader = Reader(table, version)
        reader.start()
        began = time.monotonic()
        request = FilterRequest(KEEP, str(folder / "gone"), {}, in_place=True)
        done = filter_labels(labels, request, {})
        in_place = time.monotonic() - began
        reader.ended.set()
        reader.join()
        after = pl.scan_delta(table).collect().sort("id")
        kept = pl.read_parquet(folder / "clean/kept/**/*.parquet").sort("id")
        then = pl.scan_delta(table, version=version).collect().sort("id")
        change = done.card.table
        assert change is not None
        print(
            json.dumps(
                {
                    "rows": len(before),
                    "versions": version + 1,
                    "files": done.card.shards,
                    "replaced": change.removed,
                    "removed": done.card.rows.removed,
                    "kept_equal_folder": after["id"].equals(kept["id"])
                    and after["text"].equals(kept["text"]),
                    "earlier_version_equal": then.equals(before),
                    "reads_meanwhile": len(reader.seen),
                    "reads_alike": set(reader.seen) == {(len(before), before["id"].sum())},
                    "s_in_folder": round(in_folder, 1),
                    "s_in_place": round(in_place, 1),
                }
            )
        )


if __name__ == "__main__":
    main()
