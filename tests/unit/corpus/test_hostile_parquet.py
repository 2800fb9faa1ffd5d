"""Parquet files whose footer, dictionary or pages are not what they say: left out, or read within
bounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.hostile_parquet import claiming, one_text_in_all_rows, shifted
from support.patience import within
from support.project import ROOT, environment

from moderay.config.job import UnitSize
from moderay.core.storage import filesystem
from moderay.corpus.columns import read_columns
from moderay.corpus.formats import BATCH_ROWS, UnreadableError, format_of, joined
from moderay.corpus.formats.base import BATCH_BYTES
from moderay.corpus.ranges import Range
from moderay.corpus.shard import Shard
from moderay.pipeline.check import Checked, check
from moderay.pipeline.messages.spans import Reading, readings, span_table
from moderay.pipeline.stages.prepare import POSITION
from moderay.pipeline.stages.spans import RowStream, spans

Write = Callable[..., Path]
MIB = 2**20


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Where a hostile file is put, beside a good one."""
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["good"]}), tmp_path / "in/good.parquet")
    return tmp_path / "in/a.parquet"


def read(shard: Shard, checked: Checked, unit: UnitSize) -> list[Range]:
    """The units of a whole shard."""
    units = []
    for span in spans(shard, [(0, shard.rows)], unit):
        stream = RowStream(span, checked.job, read_columns(checked.job))
        at = span.first_row
        while at < span.end_row:
            table = stream.upto(at, min(at + span.step, span.end_row))
            assert table.column(POSITION).to_pylist() == list(range(at, at + len(table)))
            units.append((at, at + len(table)))
            at += len(table)
    return units


@pytest.mark.parametrize("claim", [10**12, 299, 1, 0, -5, 2**63 - 1])
def test_footer_that_contradicts_itself_leaves_its_file_out(
    job: Write, hostile: Path, claim: int
) -> None:
    claiming(hostile, 300, claim, values=False)
    scan = check(job()).scan
    if 0 <= claim < 300:  # fewer rows than values: of a list that is so
        assert [shard.rows for shard in scan.shards] == [claim, 1]
    else:
        assert [file for file, _ in scan.unreadable] == ["a.parquet"]
        assert "its footer claims" in scan.unreadable[0][1]


def test_row_groups_that_add_up_to_more_than_can_be_counted_are_left_out(
    job: Write, hostile: Path
) -> None:
    claiming(hostile, 300, 2**62 + 1)
    [(file, reason)] = check(job()).scan.unreadable
    assert file == "a.parquet" and "its footer claims 4,611,686,018,427,387,905 rows" in reason


def test_claimed_rows_cost_nothing_until_they_are_read(job: Write, hostile: Path) -> None:
    claiming(hostile, 300, 10**12)
    assert hostile.stat().st_size < 4096
    checked = check(job())
    shard = checked.scan.shards[0]
    assert shard.rows == 10**12
    with within(1):
        cut = spans(shard, [(0, 5), (9, shard.rows)], UnitSize(rows=7))
        [sent] = readings(span_table([Reading(span, "key", 0, ()) for span in cut]))
    assert sent.span.units == 1 + -(-(10**12 - 9) // 7)
    with pytest.raises(UnreadableError, match="row group 0 ends after 300 rows, and its footer"):
        read(shard, checked, UnitSize(rows=7))


def test_row_group_that_ends_before_its_count_does_not_shift_the_next(
    job: Write, hostile: Path
) -> None:
    shifted(hostile, (223, 211), (228, 206))
    checked = check(job())
    shard = checked.scan.shards[0]
    assert shard.row_groups == (228, 206)
    fs, path = filesystem(shard.url)
    with pytest.raises(UnreadableError, match="row group 0 ends after 223 rows"):
        list(format_of(shard.url).tables(fs, path, ["text"], None))
    with pytest.raises(UnreadableError, match="row group 0 ends after 223 rows"):
        read(shard, checked, UnitSize(rows=50))


@pytest.mark.parametrize("before", [0, 3000])
def test_one_text_in_all_rows_is_read_within_bounds(job: Write, hostile: Path, before: int) -> None:
    size, rows = MIB // 2, 4000
    one_text_in_all_rows(hostile, size, rows, before)
    assert hostile.stat().st_size < 20_000  # and 2 GB in memory
    checked = check(job(unit={"rows": 512, "bytes": "16MiB"}))
    shard = checked.scan.shards[0]
    start = pa.total_allocated_bytes()
    most = 0
    [span] = spans(shard, [(0, shard.rows)], checked.job.unit)
    stream = RowStream(span, checked.job, read_columns(checked.job))
    at = 0
    while at < min(shard.rows, before + 500):
        unit = stream.upto(at, min(at + span.step, shard.rows))
        most = max(most, pa.total_allocated_bytes() - start)
        assert len(unit) <= 64 or at < before
        at += len(unit)
    assert most < 100 * MIB


@pytest.mark.parametrize("before", [0, 3000])
def test_one_text_in_all_rows_is_published_within_bounds(
    job: Write, hostile: Path, before: int
) -> None:
    one_text_in_all_rows(hostile, MIB // 2, 400, before)
    shard = check(job()).scan.shards[0]
    fs, path = filesystem(shard.url)
    start = pa.total_allocated_bytes()
    rows = most = 0
    for table in joined(format_of(shard.url).tables(fs, path, ["text"], None)):
        rows += len(table)
        most = max(most, pa.total_allocated_bytes() - start)
        assert table.nbytes <= BATCH_BYTES and len(table) <= BATCH_ROWS
    assert rows == 400 + before and most < 2.5 * BATCH_BYTES


def test_short_rows_are_joined_across_row_groups(job: Write, hostile: Path) -> None:
    pq.write_table(
        pa.table({"text": [f"row {i}" for i in range(100_000)]}), hostile, row_group_size=700
    )
    shard = check(job()).scan.shards[0]
    fs, path = filesystem(shard.url)
    tables = list(joined(format_of(shard.url).tables(fs, path, ["text"], None)))
    assert len(tables) == 2 and sum(map(len, tables)) == 100_000


def test_page_that_is_not_what_its_checksum_says_leaves_its_file_out(
    job: Write, hostile: Path
) -> None:
    for checksums in (True, False):
        pq.write_table(
            pa.table({"text": [f"row {i}" for i in range(300)]}),
            hostile,
            use_dictionary=False,
            compression="none",
            write_page_checksum=checksums,
        )
        hostile.write_bytes(hostile.read_bytes().replace(b"row 77", b"row 78", 1))
        checked = check(job())
        shard = checked.scan.shards[0]
        if checksums:
            with pytest.raises(UnreadableError, match=r"(?i)crc|checksum"):
                read(shard, checked, UnitSize(rows=50))
        else:  # nobody can tell
            assert read(shard, checked, UnitSize(rows=300)) == [(0, 300)]


def test_footer_that_would_end_the_process_leaves_its_file_out(tmp_path: Path) -> None:
    """A histogram of two levels for a column that has one: pyarrow aborts when it is looked at."""
    script = """
import sys
from pathlib import Path
from support.hostile_parquet import levels_that_do_not_fit
from support.parquet_mutation import outcome
folder = Path(sys.argv[1])
levels_that_do_not_fit(folder / "a.parquet")
print(outcome(folder, 0))
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
    )
    assert (result.returncode, result.stdout) == (0, "left out by the scan\n"), result.stderr


def test_mutated_files_are_left_out_or_read_alike_in_every_way(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests/support/parquet_mutation.py"),
            str(tmp_path),
            "0",
            "150",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    outcomes = json.loads(result.stdout)
    assert sum(outcomes.values()) == 150 and 10 < outcomes["read"] < 140
