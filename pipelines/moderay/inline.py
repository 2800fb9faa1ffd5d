"""Judging without an output: a few rows here and now, or somebody's own Ray Dataset."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray

from moderay.check import Checked, engine_and_judges
from moderay.cluster import resources, start_ray
from moderay.content import contents
from moderay.decide import decide, flagged
from moderay.engines import EngineHost, EngineSpec
from moderay.hosting import hosted
from moderay.job import Job, UnitSize
from moderay.judges.reason import Reason
from moderay.judges.unit import judge_unit
from moderay.policy import Policy
from moderay.prompt import Vocabulary, vocabulary
from moderay.records import CONTENT_HASH, structs
from moderay.units import PREPARED, prepared, read_span, spans


def label_dataset(ds: ray.data.Dataset, job: Job, policies: Sequence[Policy]) -> ray.data.Dataset:
    """Somebody's own Dataset with `content_hash`, `flagged` and a verdict column per policy added; lazy, as Ray's are."""
    start_ray()
    engines = hosted(job, policies, *resources())
    return ds.map_batches(
        _Labeller, fn_constructor_args=(engines.spec, engines.judges, job), batch_size=job.unit.rows, batch_format="pyarrow", **engines.options(2**31)
    )


class _Labeller:
    """Actor: adds the verdict columns to a batch."""

    def __init__(self, spec: EngineSpec, judges: Sequence[Reason], job: Job) -> None:
        self._judges, self._job, self._host = judges, job, EngineHost(spec)
        self._vocab = vocabulary(spec.vocabulary_source)

    async def __call__(self, batch: pa.Table) -> Any:
        rows = prepared(range(batch.num_rows), contents(batch, self._job.input.content), self._job, self._vocab)
        yield add_verdicts(batch, await judge_unit(self._host, self._judges, rows, 0), self._judges)


def add_verdicts(table: pa.Table, unit: pa.Table, judges: Sequence[Reason]) -> pa.Table:
    """A table with the decisions of a judged unit beside its rows."""
    decisions = [decide(structs(unit.column(judge.policy.id)), judge.policy) for judge in judges]
    table = table.append_column(CONTENT_HASH, unit.column(CONTENT_HASH.name)).append_column("flagged", flagged(decisions))
    for judge, decision in zip(judges, decisions, strict=True):
        table = table.append_column(judge.policy.id, decision)
    return table


def first_rows(checked: Checked, count: int, vocab: Vocabulary) -> pa.Table:
    """The first selected rows of the input, as `units.PREPARED`."""
    job, found = checked.job, PREPARED.empty_table()
    for shard in checked.scan.shards:
        for span in spans(shard, [(0, shard.rows)], UnitSize(rows=count)):
            for _, rows in read_span(span, job, vocab):
                found = pa.concat_tables([found, rows.slice(0, count - len(found))])
                if len(found) == count:
                    return found
    return found


def judge_here(job: Job, policies: Sequence[Policy], rows: pa.Table) -> pa.Table:
    """Judge a few rows (`units.PREPARED`) in this process, without Ray: what `label` and `run --limit` show."""
    spec, judges = engine_and_judges(job, policies, gpus=0)

    async def judged() -> pa.Table:
        host = EngineHost(spec)
        try:
            return await judge_unit(host, judges, rows, 0)
        finally:
            host.close()

    return add_verdicts(rows.drop_columns([CONTENT_HASH.name]), asyncio.run(judged()), judges)
