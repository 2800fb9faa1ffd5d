"""The task that reads: a span of a shard in, its units out, each on its way to an engine.

Units in which no engine needs to be asked, all rows being known, settled or empty, go no further:
neighbours of them are saved here as one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import ray

from moderay.core import events
from moderay.core.errors import ModerayError, TryAgainError, first_line
from moderay.core.events import event
from moderay.core.ray_runtime import earlier_attempts, end_with_raylet, whereabouts
from moderay.core.storage import machine_fault, no_credentials
from moderay.corpus.ranges import Range
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.labels.reuse import ReadAlong
from moderay.pipeline.control.gatekeeper import is_open
from moderay.pipeline.messages.spans import Reading, readings
from moderay.pipeline.messages.units import UnitDone, UnitRead, unit_table
from moderay.pipeline.stages.judge_unit import settled_unit
from moderay.pipeline.stages.prepare import open_rows, with_answers
from moderay.pipeline.stages.save import RunContext, save_unit, unit_event
from moderay.pipeline.stages.spans import read_span

# Rows that are saved as one where no engine is asked: a file for each 512 would take longer than
# they do.
JOINED_ROWS = 16_384
# Deaths of the worker that reads a span, after which its shard is given up: Ray would try for ever.
# A node that goes away takes a span along once or twice.
MOST_DEATHS = 3


def read_task(
    batch: pa.Table,
    run: ray.ObjectRef,
    spans: ray.ObjectRef,
    golden: ray.ObjectRef,
    answers: ray.ObjectRef,
) -> Iterator[pa.Table]:
    """Read the spans of these numbers, as blocks of one unit each for `judge_actor.Judge`.

    Negative numbers are units of golden sets. Where a gate is closed, nothing of the corpus is read
    until it opens.

    What cannot be read fails its shard; what no shard could be read without, such as credentials,
    ends the run.

    Args:
        batch: Numbers of rows of `spans`, in its column `span`.
        run: The `RunContext`.
        spans: The run's table of `spans.SPAN`, which is not copied.
        golden: The run's units of golden sets, the one of number -1 first.
        answers: By policy, what people said of contents: rows of `overruling.ANSWER`.
    """
    end_with_raylet()
    context: RunContext = ray.get(run)
    policies = [cascade.policy.id for cascade in context.cascades]
    numbers = batch.column("span").to_pylist()
    for number in numbers:
        if number < 0:
            yield unit_table(ray.get(golden)[-number - 1], policies)
    rest = [number for number in numbers if number >= 0]
    for reading in readings(ray.get(spans).take(pa.array(rest, pa.int64()))):
        events.in_worker(context.job.name, context.run, shard=reading.span.shard.name)
        if (deaths := earlier_attempts()) >= MOST_DEATHS:
            _give_up(reading, context, deaths)
            continue
        left = list(reading.span.missing)
        if not is_open(context.gate):
            skipped = UnitDone(reading.span.shard.name, left[0], skipped=True)
            yield unit_table(_ended(reading, skipped), policies)
            continue
        try:
            for unit in _units(reading, context, ray.get(answers)):
                yield unit_table(unit, policies)
                left = _behind(left, unit.rows[1])
        except (pa.ArrowException, OSError) as error:
            if (fault := machine_fault(reading.span.shard.url, error)) is not None:
                for rows in left[:1]:
                    fatal = UnitDone(reading.span.shard.name, rows, fatal=fault.message)
                    yield unit_table(_ended(reading, fatal), policies)
                return
            event("shard unreadable", logging.WARNING, unit=left[:1], reason=first_line(error))
            for rows in left:
                failed = UnitDone(reading.span.shard.name, rows, error=first_line(error))
                yield unit_table(_ended(reading, failed), policies)
        except Exception as error:
            if (refused := no_credentials(reading.span.shard.url, error)) is None:
                raise
            fatal = UnitDone(reading.span.shard.name, left[0], fatal=refused.message)
            yield unit_table(_ended(reading, fatal), policies)


def _give_up(reading: Reading, run: RunContext, deaths: int) -> None:
    """Have the driver wait for a shard no longer.

    What an earlier attempt handed on counts, so that this one cannot say it as the end of units.
    """
    reason = f"the process that reads it died {deaths} times"
    event("shard unreadable", logging.WARNING, reason=reason)
    ray.get(run.board.give_up.remote(reading.span.shard.name, reason))


def _behind(ranges: Sequence[Range], row: int) -> list[Range]:
    """What of them lies behind the rows before this one."""
    return [(max(start, row), end) for start, end in ranges if end > row]


def _units(
    reading: Reading, run: RunContext, answers: Mapping[str, pa.Table]
) -> Iterator[UnitRead]:
    """Units that an engine is needed for, and those that are saved here."""
    vocab = vocabulary(run.spec.vocabulary_source)
    policies = [cascade.policy.id for cascade in run.cascades]
    earlier = ReadAlong(run.outputs, reading.earlier, policies) if reading.earlier else None
    settled = _Settled(run.job.unit.bytes)
    for rows, read in read_span(reading.span, run.job, run.cascades, vocab, earlier):
        table = with_answers(read, answers, policies) if answers else read
        needs_engine = open_rows(table) > 0
        if settled.tables and (needs_engine or not settled.takes(rows)):
            yield _ended(reading, _saved(reading, run, settled))
            settled = _Settled(run.job.unit.bytes)
        if needs_engine:
            run.board.read.remote((reading.span.shard.name, rows), table.nbytes)
            yield UnitRead(reading.source, rows, table)
        else:
            settled.add(rows, settled_unit(run.cascades, table, run.run))
    if settled.tables:
        yield _ended(reading, _saved(reading, run, settled))


class _Settled:
    """Judged neighbours, to be saved as one unit.

    It has at most `JOINED_ROWS` rows or `most` bytes, or is a single unit that is larger.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.tables: list[pa.Table] = []
        self.rows = (0, 0)

    def takes(self, rows: Range) -> bool:
        """Whether these rows are to be saved with those."""
        return (
            rows[0] == self.rows[1]
            and rows[1] - self.rows[0] <= JOINED_ROWS
            and sum(table.nbytes for table in self.tables) < self._most
        )

    def add(self, rows: Range, table: pa.Table) -> None:
        """Rows of `verdicts.unit_schema`, and which they are."""
        self.rows = (self.rows[0] if self.tables else rows[0], rows[1])
        self.tables.append(table)


def _saved(reading: Reading, run: RunContext, settled: _Settled) -> UnitDone:
    """Save a unit that no engine is asked for, unless the run is stopping."""
    unit = (reading.span.shard.name, settled.rows)
    if not ray.get(run.board.begin.remote(unit, whereabouts())):
        return UnitDone(*unit, skipped=True)
    with events.about(unit=settled.rows):
        try:
            done = save_unit(run, reading.source, settled.rows, pa.concat_tables(settled.tables))
        except TryAgainError as error:
            done = UnitDone(*unit, error=str(error))
        except ModerayError as error:
            done = UnitDone(*unit, fatal=error.message)
        unit_event(done)
    run.board.end.remote(unit)
    return done


def _ended(reading: Reading, done: UnitDone) -> UnitRead:
    """A unit that no engine needs to see."""
    return UnitRead(reading.source, done.rows, None, done)
