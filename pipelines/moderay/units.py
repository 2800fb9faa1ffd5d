"""Shards -> units: what is left is cut into row ranges, read in spans, and handed on as token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from moderay.content import Content, contents
from moderay.identity import number
from moderay.job import Job, UnitSize
from moderay.judges.reason import content_ids
from moderay.judges.unit import earlier_column
from moderay.prompt import Vocabulary
from moderay.records import CONTENT_HASH, ROW, Status
from moderay.reuse import Earlier, EarlierFile
from moderay.shards import Shard, read_columns
from moderay.state import Range
from moderay.storage import RemoteFile, filesystem

# Content read by one task, in bytes as stored in memory: whole row groups, since a part of one costs all of it.
SPAN_BYTES = 256 * 2**20

# A unit on its way to a judge. `ids` is null where `status` says why there is nothing to judge, and where every policy has
# an earlier verdict; those stand in a column for each policy beside these.
PREPARED = pa.schema([ROW, CONTENT_HASH, ("ids", pa.large_list(pa.int32())), ("status", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True)
class Span:
    """Units that one task reads: ranges of rows within some neighbouring row groups of one shard."""

    shard: Shard
    groups: Range
    first_row: int
    units: tuple[Range, ...]


def spans(shard: Shard, missing: Sequence[Range], size: UnitSize) -> list[Span]:
    """Cut the missing ranges into units, and group them by the row groups they lie in."""
    step = _rows_per_unit(shard, size)
    found: list[Span] = []
    first = start = 0
    rows = 0
    for index, group in enumerate(shard.row_groups):
        rows += group
        enough = shard.content_bytes * rows >= SPAN_BYTES * max(shard.rows, 1)
        if enough or index == len(shard.row_groups) - 1:
            cut = _cut(missing, start, start + rows, step)
            found += [Span(shard, (first, index + 1), start, cut)] if cut else []
            first, start, rows = index + 1, start + rows, 0
    return found


def read_span(span: Span, job: Job, vocab: Vocabulary, earlier: EarlierFile | None = None) -> Iterator[tuple[Range, pa.Table]]:
    """Each unit's range and its selected rows as `PREPARED`, with what `earlier` says of them. One pass over the columns
    that judging needs."""
    rows, known = _Rows(span, job), Earlier(earlier) if earlier else None
    for start, end in span.units:
        table = rows.upto(start, end)
        positions, found = _selected(table, span.shard, job)
        yield (start, end), prepared(positions, found, job, vocab, known)


class _Rows:
    """A shard's row groups as a stream from which ranges are taken in order."""

    def __init__(self, span: Span, job: Job) -> None:
        shard = span.shard
        fs, path = filesystem(shard.url, job.storage)
        wanted = set(read_columns(job))
        # The column chunk is fetched once; nothing is read ahead beyond it.
        self._file = pq.ParquetFile(RemoteFile(fs, path), pre_buffer=True)
        names = [name for name in self._file.schema_arrow.names if name in wanted]
        groups = list(range(*span.groups))
        average = max(1, shard.content_bytes // max(1, shard.rows))
        step = max(1, min(8192, 16 * 2**20 // average))
        self._batches = self._file.iter_batches(batch_size=step, row_groups=groups, columns=names, use_threads=False)
        self._held: list[pa.Table] = []
        self._at = span.first_row  # the row of the stream that `_held` begins with
        self._partitions = [(key, value) for key, value in shard.partitions if key in wanted]
        self._shard = shard

    def upto(self, start: int, end: int) -> pa.Table:
        """Rows start..end, with their positions as a column named like `ROW`."""
        have = self._at + sum(table.num_rows for table in self._held)
        while have < end:
            batch = pa.Table.from_batches([next(self._batches)])
            self._held.append(batch)
            have += batch.num_rows
            while self._held and self._at + self._held[0].num_rows <= start:
                self._at += self._held.pop(0).num_rows
        table = pa.concat_tables(self._held)
        part = table.slice(start - self._at, end - start)
        self._held, self._at = [table.slice(end - self._at)], end
        for key, value in self._partitions:
            part = part.append_column(key, pa.array([value] * len(part)))
        return part.append_column(_POSITION, pa.array(range(start, end), pa.int64()))


# A name no input column has.
_POSITION = "\x00row"


def _rows_per_unit(shard: Shard, size: UnitSize) -> int:
    average = max(1, shard.content_bytes // max(1, shard.rows))
    return max(1, min(size.rows, size.bytes // average))


def _cut(missing: Sequence[Range], low: int, high: int, step: int) -> tuple[Range, ...]:
    """Units of at most `step` rows for what of `missing` lies in low..high."""
    within = [(max(start, low), min(end, high)) for start, end in missing]
    return tuple((row, min(row + step, end)) for start, end in within for row in range(start, end, step))


def _selected(table: pa.Table, shard: Shard, job: Job) -> tuple[list[int], list[Content]]:
    """Positions and contents of the rows that `where` (null is no) and `sample` ask for."""
    if job.input.where:
        frame: Any = pl.from_arrow(table)
        table = table.filter(frame.select(pl.sql_expr(job.input.where).fill_null(False)).to_series().to_arrow())
    rows, found = table.column(_POSITION).to_pylist(), contents(table, job.input.content)
    if job.input.sample is None:
        return rows, found
    chosen = [i for i, content in enumerate(found) if sampled(content, shard.name, rows[i], job.input.sample)]
    return [rows[i] for i in chosen], [found[i] for i in chosen]


def prepared(rows: Sequence[int], found: Sequence[Content], job: Job, vocab: Vocabulary, known: Earlier | None = None) -> pa.Table:
    """Contents as token ids, beside what is known of them; too long is known here, before any engine sees it."""
    hashes = [content.hash for content in found]
    earlier = known.find(hashes) if known else {}
    settled = _settled(earlier, len(found), job)
    ids: list[list[int] | None] = []
    statuses: list[str | None] = []
    details: list[str | None] = []
    for content, nothing_to_ask in zip(found, settled, strict=True):
        judge = content.status is Status.OK and not nothing_to_ask
        tokens = content_ids(content.text, job.windows, vocab) if judge else None
        too_long = judge and tokens is None
        ids.append(tokens)
        statuses.append(Status.TOO_LONG if too_long else None if content.status is Status.OK else content.status)
        details.append(_too_long(content, job) if too_long else content.detail)
    table = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip((rows, hashes, ids, statuses, details), PREPARED, strict=True)], schema=PREPARED)
    for policy, column in earlier.items():
        table = table.append_column(earlier_column(policy), column)
    return table


def _settled(earlier: Mapping[str, pa.StructArray], rows: int, job: Job) -> list[bool]:
    """By row: whether every policy has an earlier verdict."""
    if len(earlier) < len(job.policies):
        return [False] * rows
    return np.logical_and.reduce([column.is_valid().to_numpy(zero_copy_only=False) for column in earlier.values()]).tolist()  # type: ignore[no-any-return]


def _too_long(content: Content, job: Job) -> str:
    return f"{len(content.text):,} characters are more than {job.windows.max} windows of {job.windows.tokens} tokens hold"


def sampled(content: Content, shard: str, row: int, share: float) -> bool:
    """Whether a row is in the sample: by its content's hash, so the same ones each time and wherever they lie."""
    return number("sample:" + (content.hash or f"{shard}:{row}")) < share * 2**63
