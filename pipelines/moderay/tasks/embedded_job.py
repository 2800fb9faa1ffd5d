"""A job without input and output of its own: its rows come from a table that somebody else reads.

That is a Dataset of Ray, a DataFrame of Spark, or a few rows of a policy's author.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from moderay.config.job import Job, Model
from moderay.config.job_file import load_dict
from moderay.config.policy import Policy
from moderay.config.yaml_document import DocumentOrigin
from moderay.core.errors import Problem, Problems, nearest
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, structs
from moderay.corpus.columns import content_problems
from moderay.engines.from_job import engine_spec
from moderay.judges.build import cascades
from moderay.judges.cascade import Cascade
from moderay.labels.decisions import decide, flagged
from moderay.pipeline.hosting import model_report

# Sections of a job that mean something without its input and output.
SETTINGS = ("cascade", "windows", "unit", "limits", "audit")
# And keys of its output that say what is written of a verdict.
OUTPUT_SETTINGS = ("reasoning", "rationale", "rationale_from")
# What problems name instead of a file.
CALLER = "label"


def embedded_job(  # noqa: PLR0913, PLR0917  # all of them are arguments of `label`
    content: str,
    policies: Sequence[str | os.PathLike[str]],
    model: Model | Mapping[str, Any] | str | None,
    settings: Mapping[str, Any],
    caller: str = CALLER,
    output: Mapping[str, Any] | None = None,
) -> tuple[Job, tuple[Policy, ...]]:
    """The job that the arguments of `moderay.label` describe, and its policies.

    Args:
        content: Column, or template of columns.
        policies: Folders.
        model: Who judges.
        settings: Sections of a job, of `SETTINGS`.
        caller: What problems name instead of a file.
        output: Keys of a job's output, of `OUTPUT_SETTINGS`.

    Raises:
        Problems: with everything wrong in them.
    """
    unknown = [
        wrong(f"unknown setting {name!r}", nearest(name, SETTINGS))
        for name in settings
        if name not in SETTINGS
    ]
    unknown += [
        wrong(f"unknown setting 'output.{name}'", nearest(name, OUTPUT_SETTINGS))
        for name in output or {}
        if name not in OUTPUT_SETTINGS
    ]
    if isinstance(policies, str | os.PathLike):
        policies = [policies]
    data = {
        **{name: value for name, value in settings.items() if name in SETTINGS},
        "input": {"path": "dataset", "content": content},
        "output": {**(output or {}), "path": "dataset"},
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


def wrong(message: str, hint: str = "") -> Problem:
    """A problem with the arguments of `label`."""
    return Problem(CALLER, None, message, hint)


def _model(model: Model | Mapping[str, Any] | str | None) -> Any:
    if isinstance(model, Model):
        return model.model_dump(exclude_unset=True)
    if isinstance(model, str):
        return {"source": model}
    return {} if model is None else model


def column_problems(
    schema: pa.Schema, content: str, policies: Sequence[Policy], table: str, hint: str
) -> list[Problem]:
    """What is wrong with the columns of a table to which verdicts are to be added.

    Args:
        schema: Its columns.
        content: Column, or template of columns.
        policies: The job's.
        table: What the caller calls it.
        hint: How its columns are renamed.
    """
    added = [CONTENT_HASH.name, FLAGGED.name, *[policy.id for policy in policies]]
    unfit = [
        wrong(f"content: {message}", near) for _, message, near in content_problems(content, schema)
    ]
    taken = [
        wrong(f"the {table}'s column {name!r} has the name of a column that is added", hint)
        for name in added
        if name in schema.names
    ]
    return unfit + taken


def job_cascades(job: Job, policies: Sequence[Policy]) -> tuple[Cascade, ...]:
    """The job's cascade for each policy. Raises `Problems`."""
    problems = [*model_report(job).problems]
    if problems:
        raise Problems(problems)
    made, problems = cascades(job, policies, engine_spec(job, gpus=0))
    if problems:
        raise Problems(problems)
    return made


def add_verdicts(
    table: pa.Table, unit: pa.Table, cascades: Sequence[Cascade], reasoning: str = "all"
) -> pa.Table:
    """A table with the decisions of a judged unit beside its rows.

    Args:
        table: Any columns.
        unit: Rows of `verdicts.unit_schema`, parallel to them.
        cascades: The judges of each policy.
        reasoning: Whose reasoning is kept, as `decide` takes it.
    """
    decisions = [
        decide(structs(unit.column(cascade.policy.id)), cascade.rule, reasoning)
        for cascade in cascades
    ]
    table = table.append_column(CONTENT_HASH, unit.column(CONTENT_HASH.name))
    table = table.append_column(FLAGGED, flagged(decisions))
    for cascade, decision in zip(cascades, decisions, strict=True):
        table = table.append_column(cascade.policy.id, decision)
    return table
