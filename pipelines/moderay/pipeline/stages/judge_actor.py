"""The actor that judges: one engine, and as many units at once as keep it full."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from moderay.core import events
from moderay.core.collector import rest_collector
from moderay.core.errors import ModerayError, StoppedError, TryAgainError
from moderay.core.ray_runtime import end_with_raylet, was_restarted, whereabouts
from moderay.core.verdicts import CONTENT_HASH
from moderay.engines.base import SECOND_REQUEST, EngineDeadError
from moderay.engines.host import EngineHost
from moderay.labels.index_loading import Loading
from moderay.labels.lookup import Payloads
from moderay.pipeline.control import metrics
from moderay.pipeline.messages.units import (
    UnitDone,
    UnitRead,
    ended_table,
    first_asked,
    units_read,
)
from moderay.pipeline.stages.judge_unit import Answered, judge_unit, questions
from moderay.pipeline.stages.prepare import with_known
from moderay.pipeline.stages.save import RunContext, save_cases, save_unit, saved_before, unit_event


class Judge:
    """Actor. A block in is some `UnitRead`, a block out the `UnitDone` that the driver hears."""

    def __init__(self, run: RunContext, loading: Loading, is_needed: bool = False) -> None:
        """Take a seat on the board; the engine starts with the first unit.

        Args:
            run: What this run's stages share.
            loading: What the index is still being told.
            is_needed: Whether an engine will be asked for sure: what it imports is loaded while the
                first unit is read.
        """
        end_with_raylet()
        events.in_worker(run.job.name, run.run)
        self._run = run
        self._name = whereabouts()
        self._payloads = Payloads(run.outputs, run.index.policies)
        if is_needed:
            threading.Thread(target=run.spec.preload, name="preload", daemon=True).start()
        self._host = EngineHost(run.spec, self._started)
        self._loading = loading
        self._is_restarted = was_restarted()
        self._is_loaded = False  # the index, with what is reused
        self._starting: asyncio.Future[None] | None = None  # the engine, before it is asked
        # What the driver has heard of so far.
        self._restarts = 0
        self._usage = Counter[str]()
        metrics.tell(self._host.usage)
        run.board.joined.remote()

    def _started(self, seconds: float, way: str) -> None:
        rest_collector()
        if all(cascade.explains_apart for cascade in self._run.cascades):
            way = f"{SECOND_REQUEST}, before any rationale"
        self._run.board.started.remote(seconds, way)

    async def __call__(self, block: pa.Table) -> AsyncIterator[pa.Table]:
        """Judge and save units that travel together, but for those that have ended already.

        They are one for Ray: where this actor is lost, all of them are judged again, except for
        what is saved. And one block is handed on for one that came in, since of an actor that is
        restarted Ray passes over as many as it has seen.
        """
        units = units_read(block)
        name = first_asked(units)
        if name is None:
            yield ended_table([unit.done for unit in units if unit.done is not None])
            return
        asked = sum(
            questions(self._run.judges_of(unit.gate), unit.table)
            for unit in units
            if unit.table is not None
        )
        async with self._host.admitted(asked) as answered:
            may_begin = await self._run.board.begin.remote(name, self._name)
            done = await asyncio.gather(*[self._ended(unit, may_begin, answered) for unit in units])
        self._run.board.end.remote(name)
        yield ended_table(done)

    async def _ended(self, unit: UnitRead, may_begin: bool, answered: Answered) -> UnitDone:
        """How a unit ends, which is judged and saved where it has not ended yet."""
        if unit.table is None:
            assert unit.done is not None
            return unit.done
        if not may_begin:
            return UnitDone(unit.source.shard, unit.rows, skipped=True)
        with events.about(shard=unit.source.shard, unit=unit.rows):
            began = time.monotonic()
            done = await self._outcome(unit, unit.table, answered)
            unit_event(done, seconds=round(time.monotonic() - began, 1))
        return done

    async def _outcome(self, unit: UnitRead, table: pa.Table, answered: Answered) -> UnitDone:
        name = (unit.source.shard, unit.rows)
        try:
            if self._is_restarted and unit.gate is None:
                before = await asyncio.to_thread(saved_before, self._run, unit.source, unit.rows)
                if before is not None:
                    return before
            await self._index_is_loaded()
            table = await asyncio.to_thread(self._with_earlier, table)
            cascades = self._run.judges_of(unit.gate)
            judged = await judge_unit(self._host, cascades, table, self._run.run, answered)
            done = await asyncio.to_thread(self._saved, unit, judged)
        except EngineDeadError as error:
            stopped = StoppedError(
                f"the engine died ({error}); what was judged is saved, and the same command goes "
                "on from there",
                3,
            )
            return UnitDone(*name, fatal=stopped.message)
        except TryAgainError as error:
            if unit.gate is not None:  # no shard waits for it, but all of them
                return UnitDone(*name, fatal=error.message)
            return UnitDone(*name, error=str(error))
        except ModerayError as error:
            return UnitDone(*name, fatal=error.message)
        return self._with_usage(done)

    def _saved(self, unit: UnitRead, judged: pa.Table) -> UnitDone:
        if unit.gate is not None:
            return save_cases(self._run, unit.gate, unit.rows, judged)
        return save_unit(self._run, unit.source, unit.rows, judged)

    async def _index_is_loaded(self) -> None:
        """Wait until the index knows all that is reused; the engine starts meanwhile.

        Nobody waits for the engine here: it may turn out that nothing is left to ask, and then it
        does not matter either if it cannot be started.
        """
        if self._is_loaded:
            return
        if self._starting is None and not self._loading.is_over:
            self._starting = asyncio.ensure_future(self._host.start())
            self._starting.add_done_callback(lambda start: start.cancelled() or start.exception())
        await asyncio.to_thread(self._loading.wait)
        self._is_loaded = True

    def _with_earlier(self, table: pa.Table) -> pa.Table:
        """The unit with the verdicts that its contents got elsewhere.

        That is in this run, or in an output that is reused.
        """
        hashes = pc.if_else(
            table.column("ids").is_valid(), table.column(CONTENT_HASH.name), None
        ).to_pylist()
        return with_known(table, self._payloads.read(self._run.index.find(hashes)))

    def _with_usage(self, done: UnitDone) -> UnitDone:
        """And what the engine did since the unit before."""
        usage = self._host.usage.figures()
        restarts = self._host.restarts
        done = replace(done, restarts=restarts - self._restarts, usage=dict(usage - self._usage))
        self._restarts = restarts
        self._usage = usage
        return done
