"""Shards -> units: what is left is cut into row ranges, read in spans, and handed on as ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.job import Job, UnitSize
from moderay.core.hashing import number
from moderay.core.sql.row_expression import row_expression
from moderay.corpus.columns import read_columns
from moderay.corpus.content import Content, contents
from moderay.corpus.formats import UNREADABLE, format_of
from moderay.corpus.ranges import Range
from moderay.corpus.shard import Shard
from moderay.corpus.views import without_views
from moderay.engines.harmony.vocabulary import Vocabulary
from moderay.judges.cascade import Cascade
from moderay.labels.reuse import ReadAlong
from moderay.pipeline.messages.spans import Span
from moderay.pipeline.stages.prepare import POSITION, prepared

# Content read by one task, in bytes as stored in memory: whole row groups, since a part of one
# costs all of it.
SPAN_BYTES = 256 * 2**20


def spans(shard: Shard, missing: Sequence[Range], size: UnitSize) -> list[Span]:
    """Cut the missing ranges into units, and group them by the row groups they lie in."""
    step = _rows_per_unit(shard, size)
    cut_spans: list[Span] = []
    first = start = 0
    rows = 0
    for index, group in enumerate(shard.row_groups):
        rows += group
        enough = shard.content_bytes * rows >= SPAN_BYTES * max(shard.rows, 1)
        if enough or index == len(shard.row_groups) - 1:
            cut = _cut(missing, start, start + rows, step)
            cut_spans += [Span(shard, (first, index + 1), start, cut)] if cut else []
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
    for start, end in span.units:
        table, selected = _selected(rows.upto(start, end), span.shard, job)
        yield (start, end), prepared(table, selected, job, cascades, vocab, earlier)


class RowStream:
    """A shard's row groups as a stream from which ranges are taken in order."""

    def __init__(self, span: Span, job: Job, wanted: Sequence[str]) -> None:
        """Of the row groups of a span, the columns that are wanted."""
        shard = span.shard
        fs, path = shard.located(job.storage)
        average = max(1, shard.content_bytes // max(1, shard.rows))
        step = max(1, min(8192, 16 * 2**20 // average))
        self._tables = format_of(shard.url).tables(
            fs, path, wanted, shard.schema, rows=step, groups=span.groups
        )
        self._held: list[pa.Table] = []
        self._at = span.first_row  # the row of the stream that `_held` begins with
        self._partitions = [(key, value) for key, value in shard.partitions if key in wanted]
        self._shard = shard

    def upto(self, start: int, end: int) -> pa.Table:
        """Rows start..end, with their positions as a column named like `ROW`."""
        have = self._at + sum(table.num_rows for table in self._held)
        while have < end:
            self._held.append(next(self._tables))
            have += self._held[-1].num_rows
            while self._held and self._at + self._held[0].num_rows <= start:
                self._at += self._held.pop(0).num_rows
        table = pa.concat_tables(self._held)
        part = table.slice(start - self._at, end - start)
        self._held, self._at = [table.slice(end - self._at)], end
        for key, value in self._partitions:
            part = part.append_column(key, pa.array([value] * len(part)))
        return part.append_column(POSITION, pa.array(range(start, end), pa.int64()))


def _rows_per_unit(shard: Shard, size: UnitSize) -> int:
    average = max(1, shard.content_bytes // max(1, shard.rows))
    return max(1, min(size.rows, size.bytes // average))


def _cut(missing: Sequence[Range], low: int, high: int, step: int) -> tuple[Range, ...]:
    """Units of at most `step` rows for what of `missing` lies in low..high."""
    within = [(max(start, low), min(end, high)) for start, end in missing]
    return tuple(
        (row, min(row + step, end)) for start, end in within for row in range(start, end, step)
    )


def _selected(table: pa.Table, shard: Shard, job: Job) -> tuple[pa.Table, list[Content]]:
    """The rows that `where` (null is no) and `sample` ask for, and their contents.

    Of a row that cannot be read nobody knows what `where` would say: it is among them.
    """
    table = without_views(table)
    if job.input.where:
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
