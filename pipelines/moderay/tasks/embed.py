"""Judging inside somebody's own Ray Data pipeline: a Dataset in, the same with verdicts out."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Sequence

import pyarrow as pa
import ray

from moderay.config.job import Job
from moderay.config.policy import Policy
from moderay.core.collector import rest_collector
from moderay.core.errors import Problem, Problems
from moderay.core.ray_runtime import resources, start_ray
from moderay.corpus.content import contents
from moderay.engines.base import EngineSpec
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.engines.host import EngineHost
from moderay.judges.cascade import Cascade
from moderay.pipeline.control import metrics
from moderay.pipeline.control.sizing import hosted
from moderay.pipeline.stages.judge_unit import judge_unit, questions
from moderay.pipeline.stages.prepare import POSITION, prepared
from moderay.tasks.embedded_job import add_verdicts, column_problems, job_cascades, wrong


def label_dataset(ds: ray.data.Dataset, job: Job, policies: Sequence[Policy]) -> ray.data.Dataset:
    """A Dataset with `content_hash`, `flagged` and a verdict column per policy added; lazy.

    Raises:
        Problems: `ds` is no Dataset; its columns do not fit, as far as they are known before it
            runs; or rules, screens or bands are wrong.
    """
    if not isinstance(ds, ray.data.Dataset):
        raise Problems([wrong(f"ds: a Dataset of Ray is wanted, not {type(ds).__name__}")])
    schema = _known_schema(ds)
    if schema is not None and (problems := _column_problems(schema, job, policies)):
        raise Problems(problems)
    made = job_cascades(job, policies)
    start_ray()
    engines = hosted(job, made, resources())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's, of arguments that it will rename
        return ds.map_batches(
            _Labeller,
            fn_constructor_args=(engines.spec, engines.cascades, job),
            batch_size=job.unit.most,
            batch_format="pyarrow",
            **engines.options(2**31, engines.in_flight),
        )


def _known_schema(ds: ray.data.Dataset) -> pa.Schema | None:
    """A Dataset's columns where Ray knows them without running what is before it.

    Of pandas' columns only the names are known: their types are taken to be text.
    """
    schema = ds.schema(fetch_if_missing=False)
    if schema is None or isinstance(schema.base_schema, pa.Schema):
        return None if schema is None else schema.base_schema
    return pa.schema([(name, pa.string()) for name in schema.names])


def _column_problems(schema: pa.Schema, job: Job, policies: Sequence[Policy]) -> list[Problem]:
    """What is wrong with a Dataset's columns."""
    return column_problems(
        schema, job.input.content, policies, "Dataset", "ds.rename_columns or ds.drop_columns first"
    )


class _Labeller:
    """Actor: adds the verdict columns to a batch."""

    def __init__(self, spec: EngineSpec, cascades: Sequence[Cascade], job: Job) -> None:
        self._cascades = cascades
        self._job = job
        self._host = EngineHost(spec, lambda *_: rest_collector())
        self._vocab = vocabulary(spec.vocabulary_source)
        metrics.tell(self._host.usage)

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        policies = [cascade.policy for cascade in self._cascades]
        # Known here at the latest: a Dataset that is lazy may not know its columns before it runs.
        if problems := _column_problems(batch.schema, self._job, policies):
            raise Problems(problems)
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
