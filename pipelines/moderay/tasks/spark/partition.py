"""In a task of Spark: the rows of a partition in, the same with verdicts out, in their order.

As a run's reading task and its judge do, and by the same functions: a unit of rows is prepared
here, judged by the engine of this process, and decided. Units go to the engine ahead of the one
that is waited for, as many as keep it full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import pyarrow as pa

from moderay.core import events
from moderay.core.errors import ModerayError, TryAgainError
from moderay.corpus.content import contents
from moderay.engines.base import EngineDeadError
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.pipeline.stages.judge_unit import judge_unit, questions
from moderay.pipeline.stages.prepare import POSITION, prepared
from moderay.tasks.embedded_job import add_verdicts
from moderay.tasks.spark.earlier import EarlierUnits, Numbers
from moderay.tasks.spark.engine import ProcessEngine, engine_of_this_process
from moderay.tasks.spark.recipe import Recipe
from moderay.tasks.spark.task import gpus_of_task, local_folder

# Questions in the units ahead, for each request that the engine works on at once, as a run has
# them: a unit keeps its place until its slowest row is answered.
QUESTIONS_PER_SEAT = 8
# Units ahead, by their bytes: so many times `unit.bytes`.
UNITS_OF_BYTES = 4


def label_partition(batches: Iterator[pa.RecordBatch], recipe: Recipe) -> Iterator[pa.RecordBatch]:
    """Rows with their verdict columns, in order.

    Args:
        batches: Of a partition, in columns called by numbers.
        recipe: The job.

    Yields:
        A batch for each unit.

    Raises:
        UserError: The engine cannot be built.
        TryAgainError: The engine died of too much: Spark tries the task again, with a new one.
    """
    events.in_worker(recipe.job.name, 0)
    gpus = gpus_of_task()
    engine = engine_of_this_process(recipe.on_gpu if gpus else recipe.on_cpu, gpus)
    try:
        yield from _Partition(recipe, engine).labelled(batches)
    except EngineDeadError as error:
        engine.end()
        raise TryAgainError(
            f"the engine died ({error}); a task that is tried again has a new one"
        ) from None
    except ModerayError:
        engine.end()
        raise
    finally:
        engine.rest()


@dataclass(frozen=True)
class _Unit:
    """A unit at the engine.

    Attributes:
        rows: As they came.
        places: By policy, where the verdicts on a row lie that an earlier unit asks for.
        judged: What becomes of the others.
        questions: That the engine is asked.
        size: Of the rows, in bytes.
    """

    rows: pa.Table
    places: Mapping[str, Numbers]
    judged: Future[pa.Table]
    questions: int
    size: int


class _Partition:
    """A partition under way."""

    def __init__(self, recipe: Recipe, engine: ProcessEngine) -> None:
        self._recipe = recipe
        self._engine = engine
        self._vocab = vocabulary(engine.spec.vocabulary_source)
        policies = [cascade.policy.id for cascade in recipe.cascades]
        self._earlier = EarlierUnits(policies, local_folder())
        self._ahead: deque[_Unit] = deque()

    def labelled(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                table = pa.Table.from_batches([batch]).rename_columns(list(self._recipe.columns))
                for rows in units(table, self._recipe.job.unit.rows, self._recipe.job.unit.bytes):
                    self._ahead.append(self._unit(rows))
                    while self._ahead and (self._is_full or self._ahead[0].judged.done()):
                        yield from self._ended(self._ahead.popleft())
            while self._ahead:
                yield from self._ended(self._ahead.popleft())
        finally:
            for unit in self._ahead:
                unit.judged.cancel()
            self._earlier.close()

    @property
    def _is_full(self) -> bool:
        """Whether enough is ahead of the engine."""
        asked = sum(unit.questions for unit in self._ahead)
        size = sum(unit.size for unit in self._ahead)
        return (
            asked > QUESTIONS_PER_SEAT * self._engine.seats
            or size > UNITS_OF_BYTES * self._recipe.job.unit.bytes
        )

    def _unit(self, rows: pa.Table) -> _Unit:
        """Prepare a unit, and send to the engine what no unit before it holds."""
        recipe = self._recipe
        numbered = rows.append_column(POSITION, pa.array(range(len(rows)), pa.int64()))
        texts = contents(rows, recipe.job.input.content)
        table = prepared(numbered, texts, recipe.job, recipe.cascades, self._vocab)
        own, places = self._earlier.begin(table)
        asked = questions(recipe.cascades, own)
        judged = self._engine.submit(self._judged(own, asked))
        return _Unit(rows, places, judged, asked, rows.nbytes)

    async def _judged(self, table: pa.Table, asked: int) -> pa.Table:
        host = self._engine.host
        if asked:
            await self._engine.start()
        async with host.admitted(asked) as answered:
            return await judge_unit(host, self._recipe.cascades, table, 0, answered)

    def _ended(self, unit: _Unit) -> Iterator[pa.RecordBatch]:
        """The unit's rows with their verdicts, when the engine is through with them."""
        judged = self._earlier.whole(unit.judged.result(), unit.places)
        reasoning = self._recipe.job.output.reasoning
        yield from add_verdicts(unit.rows, judged, self._recipe.cascades, reasoning).to_batches()


def units(table: pa.Table, rows: int, most: int) -> Iterator[pa.Table]:
    """A table in pieces of at most so many rows, and bytes as far as rows can be parted."""
    for start in range(0, len(table), rows):
        yield from _halved(table.slice(start, rows), most)


def _halved(table: pa.Table, most: int) -> Iterator[pa.Table]:
    if table.nbytes <= most or len(table) == 1:
        yield table
    else:
        half = len(table) // 2
        yield from _halved(table.slice(0, half), most)
        yield from _halved(table.slice(half), most)
