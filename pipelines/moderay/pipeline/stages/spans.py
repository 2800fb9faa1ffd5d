"""Shards -> units: what is left is cut into row ranges, read in spans, and handed on as ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.job import Job, UnitSize
from moderay.core.hashing import number
from moderay.core.wording import counted
from moderay.corpus.columns import read_columns
from moderay.corpus.content import Content, contents
from moderay.corpus.formats import UNREADABLE, UnreadableError, bytes_of
from moderay.corpus.ranges import Range
from moderay.corpus.shard import Shard
from moderay.corpus.views import without_views
from moderay.engines.harmony.vocabulary import Vocabulary
from moderay.judges.cascade import Cascade
from moderay.labels.reuse import ReadAlong
from moderay.pipeline.messages.spans import Span
from moderay.pipeline.stages.prepare import POSITION, prepared

# Rows decoded at once: few, since a file may say of them what it likes
# (`parquet_file.PIECE_BYTES`), and enough to cost nothing.
PIECE_ROWS = 1024
# Content read by one task, in bytes as stored in memory: whole row groups, since a part of one
# costs all of it.
SPAN_BYTES = 256 * 2**20


def spans(shard: Shard, missing: Sequence[Range], size: UnitSize) -> list[Span]:
    """Group the missing ranges by the row groups they lie in."""
    step = _rows_per_unit(shard, size)
    cut_spans: list[Span] = []
    first = start = 0
    rows = 0
    for index, group in enumerate(shard.row_groups):
        rows += group
        enough = shard.content_bytes * rows >= SPAN_BYTES * max(shard.rows, 1)
        if enough or index == len(shard.row_groups) - 1:
            within = _within(missing, start, start + rows)
            cut_spans += [Span(shard, (first, index + 1), start, within, step)] if within else []
            first = index + 1
            start += rows
            rows = 0
    return cut_spans


def read_span(
    span: Span,
    job: Job,
    cascades: Sequence[Cascade],
    vocab: Vocabulary,
    earlier: ReadAlong | None = None,
) -> Iterator[tuple[Range, pa.Table]]:
    """Each unit's range and its selected rows (`units.prepared_schema`).

    With what `earlier` and the judges on columns say of them. One pass over the columns that
    judging needs.
    """
    rule_columns = [name for cascade in cascades for name in cascade.columns]
    rows = RowStream(span, job, read_columns(job, rule_columns))
    for start, end in span.missing:
        at = start
        while at < end:
            unit = rows.upto(at, min(at + span.step, end))
            read = (at, at + len(unit))
            at += len(unit)
            table, chosen = selected_rows(unit, span.shard, job)
            yield read, prepared(table, chosen, job, cascades, vocab, earlier)


class RowStream:
    """A shard's row groups as a stream from which ranges are taken in order."""

    def __init__(self, span: Span, job: Job, wanted: Sequence[str]) -> None:
        """Of the row groups of a span, the columns that are wanted."""
        shard = span.shard
        fs, path = shard.located(job.storage)
        self._tables = shard.format.tables(
            fs,
            path,
            wanted,
            shard.schema,
            rows=PIECE_ROWS,
            groups=span.groups,
            listed=shard.state,
        )
        self._held: list[pa.Table] = []
        self._at = span.first_row  # the row of the stream that `_held` begins with
        self._partitions = [(key, value) for key, value in shard.partitions if key in wanted]
        self._span = span
        self._most = job.unit.bytes

    def upto(self, start: int, end: int) -> pa.Table:
        """Rows from `start`, with their positions as a column named like `ROW`.

        They go as far as `end`, or as far as `unit.bytes` go, and are one at least.

        Raises:
            UnreadableError: The file has more or fewer rows than were counted.
        """
        table = self._filled(start, end)
        have = min(end, self._at + len(table))
        part = table.slice(start - self._at, have - start)
        self._held, self._at = [table.slice(have - self._at)], have
        if have == self._span.end_row:
            self._assert_no_more()
        for key, value in self._partitions:
            part = part.append_column(key, pa.array([value] * len(part)))
        return part.append_column(POSITION, pa.array(range(start, have), pa.int64()))

    def _filled(self, start: int, end: int) -> pa.Table:
        """What is held, with as much behind it as rows start..end take."""
        have = self._at + sum(map(len, self._held))
        size = sum(map(bytes_of, self._held))
        while have < end and (have <= start or size < self._most):
            piece = next(self._tables, None)
            if piece is None:
                raise UnreadableError(
                    f"ends after {counted(have, 'row')}, and {self._span.shard.rows:,} were counted"
                )
            self._held.append(piece)
            have += len(piece)
            size += bytes_of(piece)
            while self._held and self._at + len(self._held[0]) <= start:
                gone = self._held.pop(0)
                self._at += len(gone)
                size -= bytes_of(gone)
        return pa.concat_tables(self._held)

    def _assert_no_more(self) -> None:
        if any(map(len, self._held)) or next(self._tables, None) is not None:
            raise UnreadableError(
                f"has more than the {self._span.end_row:,} rows that were counted"
            )


def _rows_per_unit(shard: Shard, size: UnitSize) -> int:
    average = max(1, shard.content_bytes // max(1, shard.rows))
    return max(1, min(size.most, size.bytes // average))


def _within(ranges: Sequence[Range], low: int, high: int) -> tuple[Range, ...]:
    """What of them lies in low..high."""
    within = [(max(start, low), min(end, high)) for start, end in ranges]
    return tuple((start, end) for start, end in within if start < end)


def selected_rows(table: pa.Table, shard: Shard, job: Job) -> tuple[pa.Table, list[Content]]:
    """The rows that `where` (null is no) and `sample` ask for, and their contents.

    Of a row that cannot be read nobody knows what `where` would say: it is among them.
    """
    table = without_views(table)
    if job.input.where:
        from moderay.core.sql.row_expression import row_expression  # noqa: PLC0415  late: Polars

        chosen = row_expression(job.input.where).values(table).fill_null(False).to_arrow()
        if UNREADABLE in table.column_names:
            chosen = pc.or_(chosen, pc.is_valid(table.column(UNREADABLE)))
        table = table.filter(chosen)
    all_contents = contents(table, job.input.content)
    if job.input.sample is None:
        return table, all_contents
    rows = table.column(POSITION).to_pylist()
    chosen = [
        i
        for i, content in enumerate(all_contents)
        if sampled(content, shard.name, rows[i], job.input.sample)
    ]
    return table.take(pa.array(chosen, pa.int64())), [all_contents[i] for i in chosen]


def sampled(content: Content, shard: str, row: int, share: float) -> bool:
    """Whether a row is in the sample.

    By its content's hash, so that the same ones are, each time and wherever they lie.
    """
    return number("sample:" + (content.hash or f"{shard}:{row}")) < share * 2**63
