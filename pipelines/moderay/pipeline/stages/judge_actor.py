"""The actor that judges: one engine, and as many units at once as keep it full."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from moderay.core import events
from moderay.core.errors import ModerayError, StoppedError, TryAgainError
from moderay.core.ray_runtime import end_with_raylet, whereabouts
from moderay.core.verdicts import CONTENT_HASH
from moderay.engines.base import EngineDeadError
from moderay.engines.host import EngineHost
from moderay.labels.index import Source
from moderay.labels.lookup import Payloads
from moderay.pipeline.control import metrics
from moderay.pipeline.control.board import Unit
from moderay.pipeline.stages.judge_unit import Answered, judge_unit, questions
from moderay.pipeline.stages.prepare import with_known
from moderay.pipeline.stages.save import RunContext, fatal, save_unit, unit_event


class Judge:
    """Actor. A block in is a unit as `reading` gives it; a block out is one row for the driver:
    `tracker.UnitDone` as JSON.
    """

    def __init__(self, run: RunContext) -> None:
        end_with_raylet()
        events.in_worker(run.job.name, run.epoch)
        self._run, self._name = run, whereabouts()
        self._payloads = Payloads(run.outputs, run.index.policies)
        self._host = EngineHost(run.spec)
        self._restarts, self._usage = 0, Counter[str]()  # told to the driver so far
        metrics.tell(self._host.usage)
        run.board.joined.remote()

    async def __call__(self, block: pa.Table) -> Any:
        row = {
            name: block.column(name)[0].as_py()
            for name in ("shard", "key", "marker", "start", "end", "said")
        }
        unit = (row["shard"], (row["start"], row["end"]))
        said: dict[str, Any] = {"shard": unit[0], "rows": unit[1], **json.loads(row["said"])}
        if row["said"] == "{}":
            with events.about(shard=unit[0], unit=unit[1]):
                said |= await self._admitted(
                    unit,
                    Source(0, unit[0], row["key"], row["marker"]),
                    block.column("unit")[0].as_buffer(),
                )
            self._run.board.end.remote(unit)
        yield pa.table({"said": [json.dumps(said)]})

    async def _admitted(self, unit: Unit, source: Source, data: pa.Buffer) -> dict[str, Any]:
        """Judge and save a unit when it is its turn, unless the run is stopping; what the driver is
        told of it.
        """
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
        async with self._host.admitted(questions(self._run.cascades, table)) as answered:
            if not await self._run.board.begin.remote(unit, self._name):
                return {"skipped": True}
            began = time.monotonic()
            said = await self._outcome(unit, source, table, answered)
        unit_event(said, seconds=round(time.monotonic() - began, 1))
        return said

    async def _outcome(
        self, unit: Unit, source: Source, table: pa.Table, answered: Answered
    ) -> dict[str, Any]:
        try:
            table = await asyncio.to_thread(self._with_earlier, table)
            judged = await judge_unit(
                self._host, self._run.cascades, table, self._run.epoch, answered
            )
            told = await asyncio.to_thread(save_unit, self._run, source, unit[1], judged)
        except EngineDeadError as error:
            return fatal(
                StoppedError(
                    (
                        f"the engine died ({error}); what was judged is saved, and the same "
                        "command "
                        "goes on from there"
                    ),
                    3,
                )
            )
        except TryAgainError as error:
            return {"error": str(error)}
        except ModerayError as error:
            return fatal(error)
        return told | self._asked()

    def _with_earlier(self, table: pa.Table) -> pa.Table:
        """The unit with the verdicts that its contents got elsewhere, in this run or in an output
        that is reused.
        """
        hashes = pc.if_else(
            table.column("ids").is_valid(), table.column(CONTENT_HASH.name), None
        ).to_pylist()
        return with_known(table, self._payloads.read(self._run.index.find(hashes)))

    def _asked(self) -> dict[str, Any]:
        """Of the engine, since the last time."""
        now, restarts = self._host.usage.figures(), self._host.restarts
        said = {"restarts": restarts - self._restarts, "usage": dict(now - self._usage)}
        self._restarts, self._usage = restarts, now
        return said
