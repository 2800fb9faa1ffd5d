"""Spark: a DataFrame with verdict columns, judged on executors; and whole jobs on them."""

# Imports inside functions: what one needs is loaded when it is called. Many arguments: keywords.
# ruff: noqa: PLC0415, PLR0913

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from moderay.config.job import Model


def label(
    df: DataFrame,
    content: str,
    policies: Sequence[str | os.PathLike[str]],
    model: Model | Mapping[str, Any] | str | None = None,
    **settings: Any,
) -> DataFrame:
    r"""Add verdict columns to a DataFrame of Spark.

    The columns: `content_hash`, `flagged`, and a struct per policy, named by its id, as in a label
    file; the others stay as they are. Lazy: each action that needs them judges, so write or cache
    what is used twice.

    Args:
        df: the DataFrame.
        content: column of text, bytes or conversations, or a template such as
            `"{title}\n\n{body}"`.
        policies: policy folders, on the driver.
        model: `model:` of a job file, as keys and values or as a `Model`; or its source alone,
            which every executor must have or may fetch. Default: `tiny`, which is for trying only.
        **settings: sections of a job file: `cascade`, `windows`, `unit`, `limits`, `audit`; and of
            `output` the keys `reasoning`, `rationale` and `rationale_from`.

    Raises:
        Problems: with everything wrong in the arguments, before Spark begins a job.
        UserError: Spark is not there, or its session has ended.

    Example:
        >>> df = spark.createDataFrame([("claim your prize",), ("hello there",)], "text string")
        >>> labelled = moderay.spark.label(df, "text", ["policies/spam"], "scripted:script.yaml")
        >>> labelled.select("text", "flagged", "spam.label").orderBy("text").collect()[0].label
        'SP4'
        >>> moderay.spark.label(df, "txt", ["policies/spam"], "scripted:script.yaml")
        Traceback (most recent call last):
        ...
        moderay.core.errors.Problems: label: content: no column 'txt'...
    """
    from moderay.tasks.embedded_job import embedded_job
    from moderay.tasks.spark.frame import label_frame

    output = settings.pop("output", None)
    return label_frame(df, *embedded_job(content, policies, model, settings, output=output))


def run(
    job: str | os.PathLike[str],
    sets: Sequence[str] = (),
    *,
    workers: int | None = None,
    replace: bool = False,
    retry_failed: bool = False,
    prune: bool = False,
    strict: bool = False,
) -> int:
    """Run a job on Spark's executors, as `moderay submit --spark` does, and wait for its end.

    A Ray is started on them and taken down with the run. The active Spark session is used and
    stays; without one, one is started as `spark-submit` configures it. What the run tells is
    printed.

    Args:
        job: the job file.
        sets: `key=value`, as of `--set` on the command line.
        workers: executors that take part; by default all that Spark has.
        replace: as of `moderay run`.
        retry_failed: as of `moderay run`.
        prune: as of `moderay run`.
        strict: as of `moderay run`.

    Returns:
        The run's exit status: 0 done, 1 finished with rows or shards missed, 2 change something,
        3 run it again: it goes on from what is saved.

    Raises:
        Problems: with everything wrong in the job, or on the executors.
        UserError: Spark is not there, or Ray cannot run on it.
        TryAgainError: Spark does not answer, has no room, or ends while the job runs.

    Example:
        >>> moderay.spark.run("gone.yaml", workers=8)
        Traceback (most recent call last):
        ...
        moderay.core.errors.Problems: gone.yaml: no such file
    """
    from moderay.tasks.submit.spark import run_on_spark
    from moderay.tasks.submit.submit import run_options

    options = run_options(replace=replace, retry_failed=retry_failed, prune=prune, strict=strict)
    return run_on_spark(os.fspath(job), sets, options, workers)
