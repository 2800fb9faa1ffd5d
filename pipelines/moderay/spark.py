"""Labelling inside Spark: a DataFrame with verdict columns, judged on executors."""

# Imports inside the function: what it needs is loaded when it is called.
# ruff: noqa: PLC0415

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
