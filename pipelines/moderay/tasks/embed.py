"""Judging without an output: a few rows here and now, or somebody's own Ray Dataset."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray

from moderay.config.job import Job, UnitSize
from moderay.config.policy import Policy
from moderay.core.errors import Problems
from moderay.core.ray_runtime import resources, start_ray
from moderay.core.verdicts import CONTENT_HASH, structs
from moderay.corpus.content import contents
from moderay.engines.base import EngineSpec
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.engines.host import EngineHost
from moderay.judges.build import cascades, fitted
from moderay.judges.cascade import Cascade
from moderay.labels.decisions import decide, flagged
from moderay.pipeline.check import Checked
from moderay.pipeline.control import metrics
from moderay.pipeline.control.sizing import hosted
from moderay.pipeline.stages.judge_unit import judge_unit, questions
from moderay.pipeline.stages.prepare import POSITION, prepared
from moderay.pipeline.stages.spans import read_span, spans


def label_dataset(ds: ray.data.Dataset, job: Job, policies: Sequence[Policy]) -> ray.data.Dataset:
    """Somebody's own Dataset with `content_hash`, `flagged` and a verdict column per policy added;
    lazy, as Ray's are. Raises `Problems` where rules, screens or bands are wrong.
    """
    start_ray()
    engines = hosted(job, job_cascades(job, policies), *resources())
    given = (engines.spec, engines.cascades, job)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's, of arguments that it will rename
        return ds.map_batches(
            _Labeller,
            fn_constructor_args=given,
            batch_size=job.unit.rows,
            batch_format="pyarrow",
            **engines.options(2**31),
        )


def job_cascades(job: Job, policies: Sequence[Policy]) -> tuple[Cascade, ...]:
    """The job's cascade for each policy. Raises `Problems`."""
    found, problems = cascades(job, policies, engine_spec(job, gpus=0))
    if problems:
        raise Problems(problems)
    return found


class _Labeller:
    """Actor: adds the verdict columns to a batch."""

    def __init__(self, spec: EngineSpec, cascades: Sequence[Cascade], job: Job) -> None:
        self._cascades, self._job, self._host = cascades, job, EngineHost(spec)
        self._vocab = vocabulary(spec.vocabulary_source)
        metrics.tell(self._host.usage)

    async def __call__(self, batch: pa.Table) -> Any:
        numbered = batch.append_column(POSITION, pa.array(range(batch.num_rows), pa.int64()))
        rows = prepared(
            numbered,
            contents(batch, self._job.input.content),
            self._job,
            self._cascades,
            self._vocab,
        )
        async with self._host.admitted(questions(self._cascades, rows)) as answered:
            judged = await judge_unit(self._host, self._cascades, rows, 0, answered)
        yield add_verdicts(batch, judged, self._cascades)


def add_verdicts(table: pa.Table, unit: pa.Table, cascades: Sequence[Cascade]) -> pa.Table:
    """A table with the decisions of a judged unit beside its rows."""
    decisions = [
        decide(structs(unit.column(cascade.policy.id)), cascade.policy) for cascade in cascades
    ]
    table = table.append_column(CONTENT_HASH, unit.column(CONTENT_HASH.name)).append_column(
        "flagged", flagged(decisions)
    )
    for cascade, decision in zip(cascades, decisions, strict=True):
        table = table.append_column(cascade.policy.id, decision)
    return table


def first_rows(checked: Checked, count: int) -> pa.Table:
    """The first selected rows of the input, as `prepare.prepared` gives them."""
    job, found, rows = checked.job, [], 0
    vocab = vocabulary(engine_spec(job, gpus=0).vocabulary_source)
    for shard in checked.scan.shards:
        for span in spans(shard, [(0, shard.rows)], UnitSize(rows=count)):
            for _, unit in read_span(span, job, checked.cascades, vocab):
                found.append(unit.slice(0, count - rows))
                rows += len(found[-1])
                if rows == count:
                    return pa.concat_tables(found)
    return pa.concat_tables(found)


def judge_here(job: Job, cascades: Sequence[Cascade], rows: pa.Table) -> pa.Table:
    """Judge a few rows (`prepare.prepared`) in this process, without Ray: what `label` and `run
    --limit` show.
    """
    spec = fitted(engine_spec(job, gpus=0), cascades)

    async def judged() -> pa.Table:
        host = EngineHost(spec)
        try:
            return await judge_unit(host, cascades, rows, 0)
        finally:
            host.close()

    return add_verdicts(rows.select(["row", "ids"]), asyncio.run(judged()), cascades)
