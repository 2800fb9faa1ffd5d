"""The actor that judges: one engine, and as many units at once as keep it full."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from moderay.cluster import Unit, end_with_raylet, whereabouts
from moderay.engines import EngineDead, EngineHost
from moderay.errors import ModerayError, Stopped, TryAgain
from moderay.index import Source
from moderay.judges.unit import judge_unit
from moderay.payloads import Payloads
from moderay.prepare import with_known
from moderay.records import CONTENT_HASH
from moderay.saving import RunContext, fatal, save_unit


class Judge:
    """Actor. A block in is a unit as `reading` gives it; a block out is one row for the driver: `tracker.UnitDone` as JSON."""

    def __init__(self, run: RunContext) -> None:
        end_with_raylet()
        self._run, self._name = run, whereabouts()
        self._payloads = Payloads(run.outputs, run.index.policies)
        self._host = EngineHost(run.spec)
        self._restarts, self._usage = 0, Counter[str]()  # told to the driver so far
        run.board.joined.remote()

    async def __call__(self, block: pa.Table) -> Any:
        row = {name: block.column(name)[0].as_py() for name in ("shard", "key", "marker", "start", "end", "said")}
        unit = (row["shard"], (row["start"], row["end"]))
        said: dict[str, Any] = {"shard": unit[0], "rows": unit[1], **json.loads(row["said"])}
        if row["said"] == "{}":
            if await self._run.board.begin.remote(unit, self._name):
                said |= await self._outcome(unit, Source(0, unit[0], row["key"], row["marker"]), block.column("unit")[0].as_buffer())
            else:
                said["skipped"] = True
            self._run.board.end.remote(unit)
        yield pa.table({"said": [json.dumps(said)]})

    async def _outcome(self, unit: Unit, source: Source, data: pa.Buffer) -> dict[str, Any]:
        """Judge and save a unit; what the driver is told of it."""
        try:
            with pa.ipc.open_stream(data) as reader:
                table = await asyncio.to_thread(self._with_earlier, reader.read_all())
            judged = await judge_unit(self._host, self._run.cascades, table, self._run.epoch)
            told = await asyncio.to_thread(save_unit, self._run, source, unit[1], judged)
        except EngineDead as error:
            return fatal(Stopped(f"the engine died ({error}); what was judged is saved, and the same command goes on from there", 3))
        except TryAgain as error:
            return {"error": str(error)}
        except ModerayError as error:
            return fatal(error)
        return told | self._asked()

    def _with_earlier(self, table: pa.Table) -> pa.Table:
        """The unit with the verdicts that its contents got elsewhere, in this run or in an output that is reused."""
        open_ = table.column("ids").is_valid().to_numpy(zero_copy_only=False) if len(table) else []
        if not any(open_):
            return table
        hashes = pc.if_else(table.column("ids").is_valid(), table.column(CONTENT_HASH.name), None).to_pylist()
        return with_known(table, self._payloads.read(self._run.index.find(hashes)))

    def _asked(self) -> dict[str, Any]:
        """Of the engine, since the last time."""
        restarts, usage = self._host.restarts - self._restarts, self._host.usage - self._usage
        self._restarts, self._usage = self._host.restarts, Counter(self._host.usage)
        return {"restarts": restarts, "usage": dict(usage)}
