"""The golden sets of a run that has a gate: which cases are left to judge, and what came of them.

Verdicts are kept in the output by content, under the key of the policy's cascade: only cases that
have none are judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from moderay.config.job import Job
from moderay.core.storage import plain_errors
from moderay.core.verdicts import CONTENT_HASH, structs
from moderay.corpus.content import Content
from moderay.corpus.golden import golden_content
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.judges.cascade import Cascade
from moderay.labels.decisions import decide
from moderay.labels.golden_verdicts import kept_golden
from moderay.labels.layout import Layout
from moderay.labels.manifest_record import GateFigure
from moderay.labels.partition import Source
from moderay.pipeline.check import Checked
from moderay.pipeline.gate import NOT_JUDGED, GateClosedError, GatedPolicy, closed, gate_figures
from moderay.pipeline.messages.units import UnitDone, UnitRead, golden_name
from moderay.pipeline.stages.judge_unit import settled_unit
from moderay.pipeline.stages.prepare import POSITION, open_rows, prepared, under_all

# Cases that are judged together: as many as an engine works on at once, so that several engines
# have something to do where there are more.
GOLDEN_ROWS = 256


@dataclass(frozen=True)
class GoldenSet:
    """A policy's golden set under its cascade.

    Attributes:
        gated: The policy with its cases.
        cascade: Its judges.
    """

    gated: GatedPolicy
    cascade: Cascade

    @cached_property
    def contents(self) -> tuple[Content, ...]:
        """Of each case."""
        return tuple(map(golden_content, self.gated.cases))

    def missing(self, layout: Layout) -> list[int]:
        """Numbers of the cases that have no verdict in an output."""
        kept = kept_golden(layout, self.cascade.policy.id, self.cascade.key)
        known = set(kept.column(CONTENT_HASH.name).to_pylist())
        return [number for number, content in enumerate(self.contents) if content.hash not in known]


def golden_sets(checked: Checked) -> list[GoldenSet]:
    """The golden sets that a job's gate is about."""
    cascades = {cascade.policy.id: cascade for cascade in checked.cascades}
    return [GoldenSet(gated, cascades[gated.policy.id]) for gated in checked.gated]


def cases_to_judge(checked: Checked, layout: Layout) -> dict[str, tuple[int, int]]:
    """By policy with floors, the cases that have no verdict yet, of how many."""
    with plain_errors(layout.url):
        return {
            each.cascade.policy.id: (len(each.missing(layout)), len(each.contents))
            for each in golden_sets(checked)
        }


class Gate:
    """A run's gate, from its first look to the decision.

    Attributes:
        units: Cases that an engine has to be asked about.
        figures: What was held against floors; empty until all cases are judged.
        closed: Why the run ends, where a floor is not passed.
    """

    def __init__(self, checked: Checked, layout: Layout, run: int) -> None:
        """Decides at once where no engine has to be asked."""
        self._job = checked.job
        self._layout = layout
        self._sets = golden_sets(checked)
        self._settled: dict[str, pa.Table] = {}
        self.units: list[UnitRead] = []
        self.figures: tuple[GateFigure, ...] = ()
        self.closed: GateClosedError | None = None
        policies = [cascade.policy.id for cascade in checked.cascades]
        for each in self._sets:
            for table in _prepared(each, each.missing(layout), self._job):
                self._add(each, table, policies, run)
        self._waiting = {(unit.gate, unit.rows) for unit in self.units}
        if not self._waiting:
            self._decide()

    @property
    def is_waiting(self) -> bool:
        """Whether cases are still to be judged."""
        return bool(self._waiting)

    @property
    def is_open(self) -> bool:
        """Whether the corpus may be judged."""
        return not self._waiting and self.closed is None

    @property
    def cases(self) -> int:
        """That an engine is asked about, and rows beside them."""
        return sum(unit.table.num_rows for unit in self.units if unit.table is not None)

    def add(self, unit: UnitDone) -> None:
        """Take in a unit of golden cases; decide when it was the last one."""
        if unit.skipped:
            return
        self._waiting.discard((unit.gate, unit.rows))
        if not self._waiting:
            self._decide()

    def _add(self, golden: GoldenSet, table: pa.Table, policies: Sequence[str], run: int) -> None:
        """Prepared cases: a unit, or verdicts where no engine has to be asked."""
        policy = golden.cascade.policy.id
        if open_rows(table):
            cases = table.column(0).to_numpy()
            self.units.append(
                UnitRead(
                    Source(0, golden_name(policy)),
                    (int(cases.min()), int(cases.max()) + 1),
                    under_all(table, policies),
                    gate=policy,
                )
            )
            return
        judged = settled_unit([golden.cascade], table, run)
        settled = judged.select([CONTENT_HASH.name, policy])
        before = self._settled.get(policy)
        self._settled[policy] = settled if before is None else pa.concat_tables([before, settled])

    def _decide(self) -> None:
        self.figures = tuple(
            figure
            for each in self._sets
            for figure in gate_figures(each.gated, self._violates(each))
        )
        self.closed = closed(self._job, [each.gated for each in self._sets], self.figures)

    def _violates(self, golden: GoldenSet) -> np.ndarray:
        """int8, of each case what the judges say, as `gate_figures` takes it."""
        said: dict[str | None, int] = {}
        for hashes, verdicts in self._verdicts(golden):
            decisions = decide(structs(verdicts), golden.cascade.rule)
            violates = decisions.field("violates").cast(pa.int8()).fill_null(NOT_JUDGED)
            for content, side in zip(hashes.to_pylist(), violates.to_pylist(), strict=True):
                said.setdefault(content, side)
        said[None] = NOT_JUDGED
        return np.array([said.get(one.hash, NOT_JUDGED) for one in golden.contents], np.int8)

    def _verdicts(self, golden: GoldenSet) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
        """Hashes and verdicts, those that count first."""
        policy = golden.cascade.policy.id
        kept = kept_golden(self._layout, policy, golden.cascade.key)
        if len(kept):
            yield kept.column(CONTENT_HASH.name), kept.column("verdict")
        if policy in self._settled:
            yield self._settled[policy].column(CONTENT_HASH.name), self._settled[policy].column(1)


def _prepared(golden: GoldenSet, cases: Sequence[int], job: Job) -> Iterator[pa.Table]:
    """Cases as `prepare.prepared` has them, some hundred at a time.

    A golden case has a content and nothing else: columns that rules read are null.
    """
    cascade = replace(golden.cascade, audit=0.0)
    for start in range(0, len(cases), GOLDEN_ROWS):
        some = cases[start : start + GOLDEN_ROWS]
        columns = {name: pa.nulls(len(some)) for name in cascade.columns}
        rows = pa.table({**columns, POSITION: pa.array(some, pa.int64())})
        contents = [golden.contents[number] for number in some]
        vocab = vocabulary(engine_spec(job, gpus=0).vocabulary_source)
        yield prepared(rows, contents, job, [cascade], vocab)
