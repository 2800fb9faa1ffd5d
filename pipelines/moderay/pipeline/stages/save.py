"""What the tasks and actors of a run share, and how they save a unit: its file, the index, what the
driver hears.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.job import Job
from moderay.core.errors import ModerayError
from moderay.core.events import event
from moderay.core.storage import plain_errors
from moderay.core.verdicts import Origin, structs
from moderay.corpus.ranges import Range
from moderay.engines.base import EngineSpec
from moderay.judges.cascade import Cascade
from moderay.labels.decisions import decide, flagged, summary
from moderay.labels.index import Index, Source
from moderay.labels.layout import Layout
from moderay.pipeline.control import metrics


@dataclass(frozen=True)
class RunContext:
    """What every task and actor of a run is given; picklable. `outputs`: this run's layout, then
    those that are reused, as `index.Source` numbers them. `epoch`: of the driver's lease. `board`:
    handle of `board.Board`.
    """

    job: Job
    spec: EngineSpec
    cascades: Sequence[Cascade]
    outputs: Sequence[Layout]
    index: Index
    epoch: int
    board: Any


def save_unit(run: RunContext, source: Source, rows: Range, judged: pa.Table) -> dict[str, Any]:
    """`judged`: `verdicts.unit_schema` rows. Returns fields of `tracker.UnitDone`. Raises
    `TryAgainError` or `UserError` where the storage fails.
    """
    layout, sink = run.outputs[0], pa.BufferOutputStream()
    with pa.ipc.new_file(
        sink, judged.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(judged)
    with plain_errors(layout.url):
        layout.write(layout.unit(source.shard, rows, source.units), sink.getvalue().to_pybytes())
    run.index.add_unit(source, rows, judged)
    return _counted(judged, run.cascades)


def _counted(judged: pa.Table, cascades: Sequence[Cascade]) -> dict[str, Any]:
    decisions = {
        cascade.policy.id: decide(structs(judged.column(cascade.policy.id)), cascade.policy)
        for cascade in cascades
    }
    new = {name: decision.filter(_is_new(decision)) for name, decision in decisions.items()}
    reused = sum(len(decision) - len(new[name]) for name, decision in decisions.items())
    metrics.saved(judged.num_rows, new, reused)
    return {
        "selected": judged.num_rows,
        "counts": {name: summary(decision) for name, decision in new.items()},
        "flagged": pc.sum(flagged(list(decisions.values()))).as_py() or 0,
        "reused": reused,
    }


def _is_new(decision: pa.StructArray) -> pa.BooleanArray:
    return pc.fill_null(pc.not_equal(decision.field("origin"), Origin.REUSED.value), True)


def unit_event(said: Mapping[str, Any], **fields: Any) -> None:
    """Record what became of a unit. `said`: fields of `tracker.UnitDone`, or `fatal`."""
    if "error" in said:
        event("unit failed", logging.WARNING, reason=said["error"], **fields)
    else:
        event("unit ended", rows=said["selected"], **fields)


def fatal(error: ModerayError) -> dict[str, str]:
    """What ends the run; said instead of raised, since Ray would hand on the text of an error, and
    not what to do about it.
    """
    return {"fatal": type(error).__name__, "error": str(error)}
