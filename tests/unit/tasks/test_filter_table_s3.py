"""A Delta table on S3, filtered in place and into another one, by processes that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from support.project import environment
from support.table_labels import label_table

from moderay.core.storage import filesystem
from moderay.labels.layout import Layout
from moderay.tasks.tables.label_table import update_table

FILES, ROWS = 8, 40
BAD = "claim your prize"
# What a process of its own does, with a Ray that has the store's environment: it may be killed.
FILTER = """
import sys
from moderay.labels.layout import Layout
from moderay.tasks.filter.filter import filter_labels
from moderay.tasks.filter.request import FilterRequest
from support.table_labels import labels_of_table
place, out, in_place = sys.argv[1:]
request = FilterRequest("NOT spam.violates", out, {}, in_place=in_place == "yes")
labels = labels_of_table(Layout(f"{place}/labels"), f"{place}/posts")
table = filter_labels(labels, request, {}).card.table
print(table.before, table.version)
"""


@pytest.mark.slow
def test_killed_filters_of_a_table_on_s3_go_on_where_they_stopped(
    bucket: str, s3: Mapping[str, str]
) -> None:
    """What readers see is the old version until it is the new one, whole."""
    table, layout = f"{bucket}/posts", Layout(f"{bucket}/labels")
    options = {"aws_endpoint_url": s3["AWS_ENDPOINT_URL"], "aws_allow_http": "true"}
    for file in range(FILES):
        write_deltalake(table, posts(file * ROWS), mode="append", storage_options=options)
    before = ids(table, options)
    label_table(layout, table, BAD)
    update_table(layout, "delta")
    assert ids(layout.url, options) == before
    for out, target, first in (
        (f"delta://{bucket}/clean", f"{bucket}/clean", None),
        (f"{bucket}/gone", table, FILES - 1),
    ):
        in_place = target == table
        folder = out if in_place else f"{target}/_filter"
        argv = [bucket, out, "yes" if in_place else "no"]
        for markers in (2, 4):
            killed_at(markers, argv, folder, s3)
            assert version(target, options) == first
        with filtering(argv, s3) as process:
            told, errors = process.communicate()
        assert told.decode() == f"{first} {version(target, options)}\n", errors
        assert ids(target, options) == [row for row in before if row % 4]
    assert ids(table, options, FILES - 1) == before


def posts(first: int) -> pa.Table:
    rows = range(first, first + ROWS)
    texts = [f"{'a quiet day' if row % 4 else BAD} {row}" for row in rows]
    return pa.table({"id": pa.array(rows, pa.int64()), "text": texts})


def ids(table: str, options: dict[str, str], at: int | None = None) -> list[int]:
    frame = pl.scan_delta(table, version=at, storage_options=options)
    return frame.select("id").collect()["id"].sort().to_list()


def version(table: str, options: dict[str, str]) -> int | None:
    if not DeltaTable.is_deltatable(table, options):
        return None
    return DeltaTable(table, storage_options=options).version()


def filtering(argv: list[str], env: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", FILTER, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment(), **env},
    )


def killed_at(markers: int, argv: list[str], folder: str, env: Mapping[str, Any]) -> None:
    """Kill a filter when it has done so many files."""
    process = filtering(argv, env)
    fs, path = filesystem(folder)
    while True:
        fs.invalidate_cache()
        if len(fs.find(f"{path}/_moderay/shards")) >= markers:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.5)  # the server does one thing at a time
    process.send_signal(signal.SIGKILL)
    process.wait()
