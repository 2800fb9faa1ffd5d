"""Judging inside somebody's own Ray Data pipeline: a Dataset in, the same with verdicts out."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray

from moderay.config.job import Job, Model
from moderay.config.job_file import load_dict
from moderay.config.policy import Policy
from moderay.config.yaml_document import DocumentOrigin
from moderay.core.collector import rest_collector
from moderay.core.errors import Problem, Problems, nearest
from moderay.core.ray_runtime import resources, start_ray
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, structs
from moderay.corpus.columns import content_problems
from moderay.corpus.content import contents
from moderay.engines.base import EngineSpec
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.engines.host import EngineHost
from moderay.judges.build import cascades
from moderay.judges.cascade import Cascade
from moderay.labels.decisions import decide, flagged
from moderay.pipeline.control import metrics
from moderay.pipeline.control.sizing import hosted
from moderay.pipeline.hosting import model_report
from moderay.pipeline.stages.judge_unit import judge_unit, questions
from moderay.pipeline.stages.prepare import POSITION, prepared

# Sections of a job that mean something without its input and output.
SETTINGS = ("cascade", "windows", "unit", "limits", "audit")
# What problems name instead of a file.
CALLER = "label"


def embedded_job(
    content: str,
    policies: Sequence[str | os.PathLike[str]],
    model: Model | Mapping[str, Any] | str | None,
    settings: Mapping[str, Any],
    caller: str = CALLER,
) -> tuple[Job, tuple[Policy, ...]]:
    """The job that the arguments of `moderay.label` describe, and its policies.

    Args:
        content: Column, or template of columns.
        policies: Folders.
        model: Who judges.
        settings: Sections of a job, of `SETTINGS`.
        caller: What problems name instead of a file.

    Raises:
        Problems: with everything wrong in them.
    """
    unknown = [
        _wrong(f"unknown setting {name!r}", nearest(name, SETTINGS))
        for name in settings
        if name not in SETTINGS
    ]
    if isinstance(policies, str | os.PathLike):
        policies = [policies]
    data = {
        **{name: value for name, value in settings.items() if name in SETTINGS},
        "input": {"path": "dataset", "content": content},
        "output": {"path": "dataset"},
        "policies": list(policies),
        "model": _model(model),
    }
    try:
        job, loaded = load_dict(data, origin=DocumentOrigin(caller))
    except Problems as error:
        raise Problems([*unknown, *error.problems]) from None
    if unknown:
        raise Problems(unknown)
    return job, loaded


def _wrong(message: str, hint: str = "") -> Problem:
    return Problem(CALLER, None, message, hint)


def _model(model: Model | Mapping[str, Any] | str | None) -> Any:
    if isinstance(model, Model):
        return model.model_dump(exclude_unset=True)
    if isinstance(model, str):
        return {"source": model}
    return {} if model is None else model


def label_dataset(ds: ray.data.Dataset, job: Job, policies: Sequence[Policy]) -> ray.data.Dataset:
    """A Dataset with `content_hash`, `flagged` and a verdict column per policy added; lazy.

    Raises:
        Problems: `ds` is no Dataset; its columns do not fit, as far as they are known before it
            runs; or rules, screens or bands are wrong.
    """
    if not isinstance(ds, ray.data.Dataset):
        raise Problems([_wrong(f"ds: a Dataset of Ray is wanted, not {type(ds).__name__}")])
    schema = _known_schema(ds)
    if schema is not None and (problems := _column_problems(schema, job, policies)):
        raise Problems(problems)
    made = job_cascades(job, policies)
    start_ray()
    engines = hosted(job, made, *resources())
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
    added = [CONTENT_HASH.name, FLAGGED.name, *[policy.id for policy in policies]]
    return [
        *[
            _wrong(f"content: {message}", hint)
            for _, message, hint in content_problems(job.input.content, schema)
        ],
        *[
            _wrong(
                f"the Dataset's column {name!r} has the name of a column that is added",
                "ds.rename_columns or ds.drop_columns first",
            )
            for name in added
            if name in schema.names
        ],
    ]


def job_cascades(job: Job, policies: Sequence[Policy]) -> tuple[Cascade, ...]:
    """The job's cascade for each policy. Raises `Problems`."""
    problems = [*model_report(job).problems]
    if problems:
        raise Problems(problems)
    made, problems = cascades(job, policies, engine_spec(job, gpus=0))
    if problems:
        raise Problems(problems)
    return made


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


def add_verdicts(table: pa.Table, unit: pa.Table, cascades: Sequence[Cascade]) -> pa.Table:
    """A table with the decisions of a judged unit beside its rows."""
    decisions = [
        decide(structs(unit.column(cascade.policy.id)), cascade.rule) for cascade in cascades
    ]
    table = table.append_column(CONTENT_HASH, unit.column(CONTENT_HASH.name))
    table = table.append_column(FLAGGED, flagged(decisions))
    for cascade, decision in zip(cascades, decisions, strict=True):
        table = table.append_column(cascade.policy.id, decision)
    return table
