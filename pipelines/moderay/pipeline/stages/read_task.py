"""The task that reads: a span of a shard in, its units out, each on its way to an engine.

Units in which no engine needs to be asked, all rows being known, settled or empty, go no further:
neighbours of them are saved here as one.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from moderay.core import events
from moderay.core.errors import TryAgainError, first_line
from moderay.core.events import event
from moderay.core.ray_runtime import end_with_raylet, whereabouts
from moderay.core.storage import no_credentials
from moderay.corpus.ranges import Range
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.labels.index import Source
from moderay.labels.reuse import LabelFile, ReadAlong
from moderay.pipeline.stages.judge_unit import settled_unit
from moderay.pipeline.stages.prepare import open_rows
from moderay.pipeline.stages.save import RunContext, fatal, save_unit, unit_event
from moderay.pipeline.stages.spans import Span, read_span

# Rows that are saved as one where no engine is asked: a file for each 512 would take longer than
# they do.
JOINED_ROWS = 16_384


@dataclass(frozen=True)
class Reading:
    """What one task reads: a span, the key its units are saved under, the marker that will take
    their place, and where its rows may have verdicts already.
    """

    span: Span
    key: str
    marker: str
    earlier: tuple[LabelFile, ...]

    @property
    def source(self) -> Source:
        return Source(0, self.span.shard.name, self.key, self.marker)


def read_task(batch: pa.Table, run: ray.ObjectRef) -> Iterator[pa.Table]:
    """Blocks of one unit each, for `judge_actor.Judge`. What cannot be read ends its shard; what no
    shard could be read without, such as credentials, ends the run.
    """
    end_with_raylet()
    context: RunContext = ray.get(run)
    for data in batch.column("reading").to_pylist():
        reading: Reading = pickle.loads(data)  # made by this driver
        events.in_worker(context.job.name, context.epoch, shard=reading.span.shard.name)
        left = list(reading.span.units)
        try:
            for block, end in _blocks(reading, context):
                yield block
                left = [rows for rows in left if rows[0] >= end]
        except (pa.ArrowException, OSError) as error:
            event("shard unreadable", logging.WARNING, unit=left[0], reason=first_line(error))
            for rows in left:
                yield _block(reading, rows, said={"error": first_line(error)})
        except Exception as error:
            if (refused := no_credentials(reading.span.shard.url, error)) is None:
                raise
            yield _block(reading, left[0], said=fatal(refused))


def _blocks(reading: Reading, run: RunContext) -> Iterator[tuple[pa.Table, int]]:
    """Blocks, and the row up to which each goes."""
    vocab, shard = vocabulary(run.spec.vocabulary_source), reading.span.shard.name
    policies = [cascade.policy.id for cascade in run.cascades]
    earlier = ReadAlong(run.outputs, reading.earlier, policies) if reading.earlier else None
    settled = _Settled(run.job.unit.bytes)
    for rows, table in read_span(reading.span, run.job, run.cascades, vocab, earlier):
        open_ = open_rows(table) > 0
        if settled.tables and (open_ or not settled.takes(rows)):
            yield _saved(reading, run, settled), settled.rows[1]
            settled = _Settled(run.job.unit.bytes)
        if open_:
            block = _block(reading, rows, table)
            run.board.read.remote((shard, rows), block.nbytes)
            yield block, rows[1]
        else:
            settled.add(rows, settled_unit(run.cascades, table, run.epoch))
    if settled.tables:
        yield _saved(reading, run, settled), settled.rows[1]


class _Settled:
    """Judged neighbours, to be saved as one unit of at most `JOINED_ROWS` rows or `most` bytes, or
    of one unit that is larger.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.tables: list[pa.Table] = []
        self.rows = (0, 0)

    def takes(self, rows: Range) -> bool:
        return (
            rows[0] == self.rows[1]
            and rows[1] - self.rows[0] <= JOINED_ROWS
            and sum(table.nbytes for table in self.tables) < self._most
        )

    def add(self, rows: Range, table: pa.Table) -> None:
        self.rows = (self.rows[0] if self.tables else rows[0], rows[1])
        self.tables.append(table)


def _saved(reading: Reading, run: RunContext, settled: _Settled) -> pa.Table:
    """Save a unit that no engine is asked for, unless the run is stopping; what there is to say of
    it.
    """
    unit = (reading.span.shard.name, settled.rows)
    if not ray.get(run.board.begin.remote(unit, whereabouts())):
        return _block(reading, settled.rows, said={"skipped": True})
    with events.about(unit=settled.rows):
        try:
            said = save_unit(run, reading.source, settled.rows, pa.concat_tables(settled.tables))
        except TryAgainError as error:
            said = {"error": str(error)}
        unit_event(said)
    run.board.end.remote(unit)
    return _block(reading, settled.rows, said=said)


def _block(
    reading: Reading,
    rows: Range,
    table: pa.Table | None = None,
    said: Mapping[str, Any] | None = None,
) -> pa.Table:
    """A unit on its way to a judge: its rows, or what there is to say instead."""
    sink = pa.BufferOutputStream()
    if table is not None:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    columns = {
        "shard": [reading.span.shard.name],
        "key": [reading.key],
        "marker": [reading.marker],
        "start": [rows[0]],
        "end": [rows[1]],
    }
    return pa.table(
        {
            **columns,
            "unit": pa.array([sink.getvalue().to_pybytes()], pa.large_binary()),
            "said": [json.dumps(said or {})],
        }
    )
