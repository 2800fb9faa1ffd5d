"""The actor that judges: one engine, and as many units at once as keep it full."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from moderay.cascade import Cascade
from moderay.cluster import Unit, end_with_raylet, whereabouts
from moderay.decide import decide, flagged, summary
from moderay.engines import EngineDead, EngineHost, EngineSpec
from moderay.errors import ModerayError, Stopped, TryAgain
from moderay.index import Index, Source
from moderay.judges.unit import judge_unit
from moderay.payloads import Payloads
from moderay.prepare import with_known
from moderay.records import CONTENT_HASH, Origin, structs
from moderay.state import Layout
from moderay.storage import plain_errors


@dataclass(frozen=True)
class Judging:
    """What an actor is given; picklable. `outputs`: this run's layout, then those that are reused, as `index.Source` numbers them.
    `epoch`: of the driver's lease. `board`: handle of `cluster.Board`."""

    spec: EngineSpec
    cascades: Sequence[Cascade]
    outputs: Sequence[Layout]
    index: Index
    epoch: int
    board: Any


class Judge:
    """Actor. A block in is a unit as `flow` reads it; a block out is one row for the driver: `tracker.UnitDone` as JSON."""

    def __init__(self, given: Judging) -> None:
        end_with_raylet()
        self._given, self._layout, self._name = given, given.outputs[0], whereabouts()
        self._payloads = Payloads(given.outputs, given.index.policies)
        self._host = EngineHost(given.spec)
        self._restarts, self._usage = 0, Counter[str]()  # told to the driver so far
        given.board.joined.remote()

    async def __call__(self, block: pa.Table) -> Any:
        row = {name: block.column(name)[0].as_py() for name in ("shard", "key", "marker", "start", "end", "said")}
        unit = (row["shard"], (row["start"], row["end"]))
        said: dict[str, Any] = {"shard": unit[0], "rows": unit[1], **json.loads(row["said"])}
        if row["said"] == "{}":
            if await self._given.board.begin.remote(unit, self._name):
                said |= await self._outcome(unit, Source(0, unit[0], row["key"], row["marker"]), block.column("unit")[0].as_buffer())
            else:
                said["skipped"] = True
            self._given.board.end.remote(unit)
        yield pa.table({"said": [json.dumps(said)]})

    async def _outcome(self, unit: Unit, source: Source, data: pa.Buffer) -> dict[str, Any]:
        """Judge and save a unit; what the driver is told of it."""
        try:
            with pa.ipc.open_stream(data) as reader:
                table = await asyncio.to_thread(self._with_earlier, reader.read_all())
            judged = await judge_unit(self._host, self._given.cascades, table, self._given.epoch)
            await asyncio.to_thread(self._save, unit, source, judged)
        except EngineDead as error:
            return fatal(Stopped(f"the engine died ({error}); what was judged is saved, and the same command goes on from there", 3))
        except TryAgain as error:
            return {"error": str(error)}
        except ModerayError as error:
            return fatal(error)
        return self._counted(judged) | self._asked()

    def _with_earlier(self, table: pa.Table) -> pa.Table:
        """The unit with the verdicts that its contents got elsewhere, in this run or in an output that is reused."""
        open_ = table.column("ids").is_valid().to_numpy(zero_copy_only=False) if len(table) else []
        if not any(open_):
            return table
        hashes = pc.if_else(table.column("ids").is_valid(), table.column(CONTENT_HASH.name), None).to_pylist()
        return with_known(table, self._payloads.read(self._given.index.find(hashes)))

    def _save(self, unit: Unit, source: Source, judged: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, judged.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(judged)
        with plain_errors(self._layout.url):
            self._layout.write(self._layout.unit(*unit, source.units), sink.getvalue().to_pybytes())
        self._given.index.add_unit(source, unit[1], judged)

    def _counted(self, judged: pa.Table) -> dict[str, Any]:
        decisions = {cascade.policy.id: decide(structs(judged.column(cascade.policy.id)), cascade.policy) for cascade in self._given.cascades}
        new = {name: decision.filter(_is_new(decision)) for name, decision in decisions.items()}
        return {
            "selected": judged.num_rows,
            "counts": {name: summary(decision) for name, decision in new.items()},
            "flagged": pc.sum(flagged(list(decisions.values()))).as_py() or 0,
            "reused": sum(len(decision) - len(new[name]) for name, decision in decisions.items()),
        }

    def _asked(self) -> dict[str, Any]:
        """Of the engine, since the last time."""
        restarts, usage = self._host.restarts - self._restarts, self._host.usage - self._usage
        self._restarts, self._usage = self._host.restarts, Counter(self._host.usage)
        return {"restarts": restarts, "usage": dict(usage)}


def fatal(error: ModerayError) -> dict[str, str]:
    """What ends the run; said instead of raised, since Ray would hand on the text of an error, and not what to do about it."""
    return {"fatal": type(error).__name__, "error": str(error)}


def _is_new(decision: pa.StructArray) -> pa.BooleanArray:
    return pc.fill_null(pc.not_equal(decision.field("origin"), Origin.REUSED.value), True)
