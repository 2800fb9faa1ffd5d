"""What the tasks and actors of a run share, and how they save a unit.

Its file, its entries in the index, and the counts that the driver hears.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.job import Job
from moderay.core.events import event
from moderay.core.storage import get, plain_errors
from moderay.core.verdicts import Origin, structs, trace
from moderay.corpus.ranges import Range
from moderay.engines.base import EngineSpec
from moderay.judges.cascade import Cascade
from moderay.labels.decisions import decide, flagged, summary
from moderay.labels.golden_verdicts import save_golden
from moderay.labels.index import Index
from moderay.labels.layout import Layout
from moderay.labels.partition import Source
from moderay.labels.unit_file import BrokenUnitError, parse_unit, unit_bytes
from moderay.pipeline.control import metrics
from moderay.pipeline.messages.units import UnitDone, golden_name


@dataclass(frozen=True)
class RunContext:
    """What every task and actor of a run is given; picklable.

    Attributes:
        job: The job.
        spec: The engine.
        cascades: The judges of each policy.
        outputs: This run's layout, then those that are reused, as `index.Source` numbers them.
        index: Where verdicts lie, by content.
        run: The run's number.
        board: Handle of `board.Board`.
        gate: Handle of `gatekeeper.Gatekeeper`, for whom the corpus waits; None where it need not.
    """

    job: Job
    spec: EngineSpec
    cascades: Sequence[Cascade]
    outputs: Sequence[Layout]
    index: Index
    run: int
    board: Any
    gate: Any = None

    def judges_of(self, golden: str | None) -> Sequence[Cascade]:
        """Who judges a unit: of a policy's golden set its own cascade, without an audit.

        The verdicts then hang on nothing that is not in the cascade's key.
        """
        if golden is None:
            return self.cascades
        return [
            replace(cascade, audit=0.0) for cascade in self.cascades if cascade.policy.id == golden
        ]


def save_unit(run: RunContext, source: Source, rows: Range, judged: pa.Table) -> UnitDone:
    """Save a judged unit.

    Args:
        run: What this run's stages share.
        source: The labels that the unit becomes a part of.
        rows: The unit's, before any selection.
        judged: Rows of `verdicts.unit_schema`.

    Raises:
        TryAgainError: The storage fails.
        UserError: The storage refuses.
    """
    layout = run.outputs[0]
    with plain_errors(layout.url):
        layout.write(layout.unit(source.shard, rows, source.units), unit_bytes(judged, rows))
    run.board.saved.remote(rows[1] - rows[0])
    run.index.add_unit(source, rows, judged)
    return _counted(UnitDone(source.shard, rows), judged, run.cascades)


def saved_before(run: RunContext, source: Source, rows: Range) -> UnitDone | None:
    """A unit that an actor saved before it was lost; None where it was not saved as a whole.

    Raises:
        TryAgainError: The storage fails.
        UserError: The storage refuses.
    """
    layout = run.outputs[0]
    with plain_errors(layout.url):
        try:
            judged = parse_unit(get(layout.fs, layout.unit(source.shard, rows, source.units)), rows)
        except (FileNotFoundError, BrokenUnitError):
            return None
    # Once more: the actor may have been lost before it told.
    run.index.add_unit(source, rows, judged)
    return _counted(UnitDone(source.shard, rows), judged, run.cascades)


def save_cases(run: RunContext, policy: str, cases: Range, judged: pa.Table) -> UnitDone:
    """Save a judged unit of a policy's golden set, for the driver to read.

    Raises:
        TryAgainError: The storage fails.
        UserError: The storage refuses.
    """
    layout = run.outputs[0]
    [cascade] = run.judges_of(policy)
    with plain_errors(layout.url):
        save_golden(layout, policy, cascade.key, run.run, cases, judged)
    return UnitDone(golden_name(policy), cases, selected=judged.num_rows, gate=policy)


def _counted(done: UnitDone, judged: pa.Table, cascades: Sequence[Cascade]) -> UnitDone:
    decisions = {
        cascade.policy.id: decide(structs(judged.column(cascade.policy.id)), cascade.rule)
        for cascade in cascades
    }
    new = {name: decision.filter(_is_new(decision)) for name, decision in decisions.items()}
    reused = sum(len(decision) - len(new[name]) for name, decision in decisions.items())
    metrics.saved(judged.num_rows, new, reused)
    return replace(
        done,
        selected=judged.num_rows,
        counts={name: summary(decision) for name, decision in new.items()},
        flagged=pc.sum(flagged(list(decisions.values()))).as_py() or 0,
        reused=reused,
    )


def _is_new(decision: pa.StructArray) -> pa.BooleanArray:
    return pc.fill_null(pc.not_equal(trace(decision, "origin"), Origin.REUSED.value), True)


def unit_event(done: UnitDone, **fields: Any) -> None:
    """Record what became of a unit."""
    error = done.error if done.fatal is None else done.fatal.text
    if error is not None:
        event("unit failed", logging.WARNING, reason=error, **fields)
    else:
        event("unit ended", rows=done.selected, **fields)
