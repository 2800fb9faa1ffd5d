"""One warm engine, and every verdict that it was asked for."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
from cachetools import LRUCache

from moderay.config.job import SCRIPTED, Job, Model
from moderay.core.errors import ModerayError
from moderay.core.verdicts import RETRYABLE, structs
from moderay.corpus.content import Content
from moderay.engines.checkpoint import text
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.judges.cascade import Cascade
from moderay.labels.decisions import decide
from moderay.pipeline.stages.judge_unit import settled_unit
from moderay.pipeline.stages.prepare import POSITION, open_rows, prepared, with_known
from moderay.tasks.embedded_job import add_verdicts
from moderay.tasks.workbench.engine_process import EngineGoneError, EngineProcess, has_text
from moderay.tasks.workbench.messages import StartEngine
from moderay.tasks.workbench.rows import TrialRow

# Tokens by which a policy may grow before a longer engine has to be started.
HEADROOM = 4096
# Verdicts that are kept.
KEPT = 100_000

# As a label file has it: the fields of `verdicts.decision_type`.
Decision: TypeAlias = Mapping[str, Any]
T = TypeVar("T")


class Workbench:
    """Judges rows under policies that change; what was asked once is known.

    Attributes:
        job: For the model and what else judging takes.
        log: The file with what the engine prints.
        vocab: The model's.
        was_warm: Whether the engine could be built, once at least.
    """

    def __init__(self, job: Job, log: Path) -> None:
        """Starts nothing yet."""
        self.job = job
        self.log = log
        self.vocab = vocabulary(engine_spec(job, gpus=0).vocabulary_source)
        self._known: LRUCache[tuple[str, str], pa.StructArray] = LRUCache(KEPT)
        self.was_warm = False
        self._longest = _longest(job.model)
        self._engine: EngineProcess | None = None
        self._changing = asyncio.Lock()
        self._expected = 0

    def expect(self, cascades: Iterable[Cascade]) -> None:
        """Say which policies come: an engine that is started for the first is long enough for all.

        Without it a longer one would have to be started after it.
        """
        self._expected = max([self._expected, *(cascade.max_model_len for cascade in cascades)])

    async def start(self, cascade: Cascade) -> None:
        """Wait until the engine is warm.

        Raises:
            ModerayError: It cannot be built.
        """
        engine = await self._engine_for(cascade)
        await asyncio.shield(engine.started)

    async def judge(self, cascade: Cascade, row: TrialRow) -> Decision:
        """The decision on a row.

        Nothing is asked where the same judge gave a verdict on the same content before.

        Raises:
            ModerayError: The engine cannot be built, or cannot be kept alive.
        """
        policy = cascade.policy
        unit = prepared(
            row.columns(cascade.columns), [row.content], self.job, [cascade], self.vocab
        )
        key = (cascade.last.key, row.key)
        if (known := self._known.get(key)) is not None:
            unit = with_known(unit, {policy.id: known})
        if known is None and open_rows(unit):
            judged = await self._asked(cascade, unit)
        else:
            judged = settled_unit([cascade], unit, 0)
        verdict = structs(judged.column(policy.id))
        if verdict.field("decided_by")[0].as_py() == cascade.last.name:
            self._known[key] = verdict
        decided = add_verdicts(judged.select([]), judged, [cascade])
        decision: Decision = decided.column(policy.id)[0].as_py()
        return decision

    async def judge_contents(self, cascade: Cascade, contents: Sequence[Content]) -> pa.StructArray:
        """The decisions on contents that judges on an engine alone are asked about, all at once.

        What is known is not looked at, nor is any of it kept.

        Args:
            cascade: Without judges on columns.
            contents: What is judged.

        Returns:
            Structs of `verdicts.decision_type`.

        Raises:
            ModerayError: The engine cannot be built, or cannot be kept alive.
        """
        numbers = pa.table({POSITION: pa.array(range(len(contents)), pa.int64())})
        unit = prepared(numbers, contents, self.job, [cascade], self.vocab)
        judged = await self._asked(cascade, unit)
        return decide(structs(judged.column(cascade.policy.id)), cascade.rule)

    async def _asked(self, cascade: Cascade, unit: pa.Table) -> pa.Table:
        while True:
            engine = await self._engine_for(cascade)
            try:
                # Shielded: a row that is not waited for any more must not end it for the others.
                await asyncio.shield(engine.started)
                self.was_warm = True
                return await engine.judge([cascade], unit)
            except EngineGoneError:
                # Where a longer engine took its place meanwhile, that one is asked.
                if engine is self._engine:
                    raise

    async def _engine_for(self, cascade: Cascade) -> EngineProcess:
        """The engine, begun where there is none, anew where its prompts are too short."""
        needed = cascade.max_model_len
        async with self._changing:
            engine = self._engine
            if engine is not None and not engine.is_gone and needed <= engine.max_model_len:
                return engine
            if engine is not None:
                self._engine = None
                await engine.close()
            longest = max(needed, self._expected)
            request = StartEngine(self.job, max(longest, min(longest + HEADROOM, self._longest)))
            self._engine = await EngineProcess.start(request, self.log)
            return self._engine

    def forget(self, cascade: Cascade, row: TrialRow) -> None:
        """Ask for this row again the next time."""
        self._known.pop((cascade.last.key, row.key), None)

    @property
    def is_warm(self) -> bool:
        """Whether the engine answers at once."""
        engine = self._engine
        return engine is not None and engine.started.done() and not engine.is_gone

    async def close(self) -> None:
        """End the engine."""
        async with self._changing:
            engine, self._engine = self._engine, None
            if engine is not None:
                await engine.close()


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Workbench]:
    """A workbench whose engine ends with it; the log stays only where something went wrong."""
    handle, name = tempfile.mkstemp(prefix="moderay-engine-", suffix=".log")
    os.close(handle)
    bench = Workbench(job, Path(name))
    is_wanted = False
    try:
        yield bench
    except ModerayError:
        is_wanted = has_text(bench.log)
        raise
    finally:
        await bench.close()
        if not is_wanted:
            bench.log.unlink(missing_ok=True)


async def together(judgings: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What comes of them all, in their order.

    Raises:
        ModerayError: One of them met it; the others are cancelled.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(judging) for judging in judgings]
    except* ModerayError as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[ModerayError]) -> ModerayError:
    """One of them: all rows meet the same engine."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def is_missing(decision: Decision) -> bool:
    """Whether there is no verdict although the content has one."""
    return decision["status"] in RETRYABLE


def _longest(model: Model) -> int:
    """Tokens of the longest prompt and its answer that a model takes, where its folder says so."""
    is_here = model.endpoint is None and not model.source.startswith(SCRIPTED)
    config = json.loads((is_here and text(model.source, "config.json")) or "{}")
    return int(config.get("max_position_embeddings", sys.maxsize))
