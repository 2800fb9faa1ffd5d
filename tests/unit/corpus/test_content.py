"""Properties of what is judged and how it is read: windows, contents, units."""

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from support.project import ROOT

from moderay.config.job import Job, UnitSize
from moderay.config.policy import load_policy
from moderay.core.verdicts import Status
from moderay.corpus.content import contents, most_tokens, windows
from moderay.corpus.ranges import gaps, tiling
from moderay.engines import checkpoint
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.pipeline.check import check_job
from moderay.pipeline.stages.spans import read_span, spans

SPAM = ROOT / "policies/spam"
ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


@given(length=st.integers(0, 500), size=st.integers(2, 60), data=st.data())
def test_windows_cover_a_content_overlap_and_are_as_few_as_can_be(
    length: int, size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    ids = list(range(length))
    actual = windows(ids, size, overlap)
    assert (
        all(len(window) <= size for window in actual)
        and sorted({token for window in actual for token in window}) == ids
    )
    assert all(
        list(a[len(a) - overlap :]) == list(b[:overlap]) for a, b in itertools.pairwise(actual)
    )
    assert len(actual) == 1 or length > most_tokens(size, overlap, len(actual) - 1)
    assert length <= most_tokens(size, overlap, len(actual))


@given(
    st.lists(st.none() | st.binary(max_size=12) | st.text(max_size=6).map(str.encode), max_size=20)
)
def test_any_bytes_are_a_text_or_say_why_not(values: list[bytes | None]) -> None:
    actual = contents(pa.table({"text": pa.array(values, pa.binary())}), "text")
    for value, content in zip(values, actual, strict=True):
        try:
            text = None if value is None else value.decode()
        except UnicodeDecodeError:
            assert content.status is Status.INVALID and content.detail and content.hash is None
            continue
        assert content.status is (Status.OK if text and text.strip() else Status.EMPTY)
        assert (content.hash is None) == (text is None) and content.text == (
            text if content.status is Status.OK else ""
        )


@given(saved=ranges)
def test_saved_ranges_and_gaps_tile_a_shard(saved: list[tuple[int, int]]) -> None:
    kept = tiling(saved)
    assert set(kept) <= set(saved)
    rows = sorted(row for start, end in [*kept, *gaps(60, kept)] for row in range(start, end))
    assert rows == list(range(60))


@given(
    groups=st.integers(1, 40),
    unit=st.integers(1, 30),
    saved=ranges,
    rows=st.integers(1, 60),
    where=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_reader_gives_each_missing_row_once_whatever_the_groups_and_units(
    tmp_path_factory: Any, groups: int, unit: int, saved: Any, rows: int, where: bool
) -> None:
    folder: Path = tmp_path_factory.mktemp("reader")
    table = pa.table(
        {
            "text": pa.array([f"row {i}" if i % 5 else None for i in range(rows)], pa.string()),
            "n": range(rows),
        }
    )
    pq.write_table(table, folder / "a.parquet", row_group_size=groups)
    selection = {"where": "n % 2 = 0"} if where else {}
    job = Job.model_validate(
        {
            "input": {"path": str(folder), "content": "text", **selection},
            "output": {"path": f"{folder}-out"},
            "policies": [str(SPAM)],
        }
    )
    checked = check_job(job, [load_policy(SPAM)])
    shard = checked.scan.shards[0]
    missing = gaps(rows, tiling((start, end) for start, end in saved if end <= rows))
    vocab = vocabulary(str(checkpoint.TINY_FOLDER))
    actual = [
        item
        for span in spans(shard, missing, UnitSize(rows=unit))
        for item in read_span(span, job, checked.cascades, vocab)
    ]
    assert sorted(row for part, _ in actual for row in range(*part)) == [
        row for start, end in missing for row in range(start, end)
    ]
    assert all(part[1] - part[0] <= unit for part, _ in actual)
    for part, prepared in actual:
        assert prepared.column("row").to_pylist() == [
            row for row in range(*part) if not where or row % 2 == 0
        ]
        for row, ids, status in zip(
            *(prepared.column(name).to_pylist() for name in ("row", "ids", "status")), strict=True
        ):
            assert (status, ids and vocab.decode(ids)) == (
                (None, f"row {row}") if row % 5 else ("empty", None)
            )
