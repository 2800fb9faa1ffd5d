"""The task that reads: spans of shards in, their units out, on their way to an engine.

Units in which no engine needs to be asked, all rows being known, settled or empty, go no further:
neighbours of them are saved here as one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

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
from moderay.pipeline.messages.units import UnitDone, UnitRead, first_asked, unit_table
from moderay.pipeline.stages.batches import Together, batches
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


def read_task(  # noqa: PLR0913, PLR0917  # Ray Data hands them over one by one
    batch: pa.Table,
    run: ray.ObjectRef,
    spans: ray.ObjectRef,
    golden: ray.ObjectRef,
    answers: ray.ObjectRef,
    together: Together,
) -> Iterator[pa.Table]:
    """Read the spans of these numbers, as blocks of some units each for `judge_actor.Judge`.

    Negative numbers are units of golden sets. Where a gate is closed, nothing of the corpus is read
    until it opens.

    What cannot be read fails its shard; what no shard could be read without, such as credentials,
    ends the run.

    Args:
        batch: A row with numbers of rows of `spans`, in its column `spans`.
        run: The `RunContext`.
        spans: The run's table of `spans.SPAN`, which is not copied.
        golden: The run's units of golden sets, the one of number -1 first.
        answers: By policy, what people said of contents: rows of `overruling.ANSWER`.
        together: How many units are in a block.
    """
    end_with_raylet()
    context: RunContext = ray.get(run)
    policies = [cascade.policy.id for cascade in context.cascades]
    numbers = batch.column("spans").combine_chunks().flatten()
    if numbers[0].as_py() < 0:
        cases = ray.get(golden)
        for number in numbers.to_pylist():
            yield unit_table([cases[-number - 1]], policies)
        return
    wanted = list(readings(ray.get(spans).take(numbers)))
    if (deaths := earlier_attempts()) >= MOST_DEATHS:
        for reading in wanted:
            _give_up(reading, context, deaths)
        return
    units = _all_units(wanted, context, ray.get(answers))
    for units_together in batches(units, together):
        _tell_read(context, units_together)
        yield unit_table(units_together, policies)


def _all_units(
    wanted: Sequence[Reading], run: RunContext, answers: Mapping[str, pa.Table]
) -> Iterator[tuple[UnitRead, int]]:
    """What becomes of all units of some spans, each with the number of those that follow it.

    With one that ends the run, it ends.
    """
    for reading in wanted:
        span = reading.span
        events.in_worker(run.job.name, run.run, shard=span.shard.name)
        for unit in _units_or_why_not(reading, run, answers):
            left = replace(span, missing=tuple(_behind(span.missing, unit.rows[1])))
            yield unit, left.units + reading.behind
            if unit.done is not None and unit.done.fatal is not None:
                return


def _units_or_why_not(
    reading: Reading, run: RunContext, answers: Mapping[str, pa.Table]
) -> Iterator[UnitRead]:
    """Units of a span; of what is left where it cannot be read, one for each range says why."""
    url, name = reading.span.shard.url, reading.span.shard.name
    left = list(reading.span.missing)
    if not is_open(run.gate):
        yield _ended(reading, UnitDone(name, left[0], skipped=True))
        return
    try:
        for unit in _units(reading, run, answers):
            yield unit
            left = _behind(left, unit.rows[1])
    except (pa.ArrowException, OSError) as error:
        if (fault := machine_fault(url, error)) is not None:
            for rows in left[:1]:
                yield _ended(reading, UnitDone(name, rows, fatal=fault.message))
            return
        event("shard unreadable", logging.WARNING, unit=left[:1], reason=first_line(error))
        for rows in left:
            yield _ended(reading, UnitDone(name, rows, error=first_line(error)))
    except Exception as error:
        if (refused := no_credentials(url, error)) is None:
            raise
        yield _ended(reading, UnitDone(name, left[0], fatal=refused.message))


def _tell_read(run: RunContext, units: Sequence[UnitRead]) -> None:
    """Tell the board of what an engine has to see."""
    if (name := first_asked(units)) is not None:
        size = sum(unit.table.nbytes for unit in units if unit.table is not None)
        run.board.read.remote(name, size)


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
