"""On Spark's driver: a DataFrame is looked at, and its verdict columns are planned."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from moderay.config.job import Job
from moderay.config.policy import Policy
from moderay.core.errors import Problem, Problems, UserError, first_line
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, decision_fields
from moderay.corpus.shard import Shard
from moderay.engines.vllm.engine import VllmSpec
from moderay.engines.vllm.gpu_profiles import model_size
from moderay.judges.rules_file import check_rules
from moderay.pipeline.hosting import needs_gpu
from moderay.tasks.embedded_job import column_problems, wrong
from moderay.tasks.spark.partition import label_partition
from moderay.tasks.spark.recipe import Recipe, recipe

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

T = TypeVar("T")

# How many GPUs Spark gives to a task.
TASK_GPUS = "spark.task.resource.gpu.amount"
_RENAME = "df.withColumnRenamed or df.drop first"


def label_frame(df: DataFrame, job: Job, policies: Sequence[Policy]) -> DataFrame:
    """A DataFrame with `content_hash`, `flagged` and a verdict column per policy added; lazy.

    Raises:
        Problems: `df` is no DataFrame, or its columns do not fit; the model cannot be had; or
            rules, screens or bands are wrong.
        UserError: Spark is not there, or gives tasks other GPUs than the job's engine needs.
    """
    _assert_frame(df)
    schema = _asked(lambda: df.schema)
    carried = _carried(schema)
    made = recipe(job, policies, schema.names)
    problems = [
        *column_problems(carried, job.input.content, policies, "DataFrame", _RENAME),
        *_other_case(df, schema, policies),
        *_rule_problems(made, carried),
    ]
    if problems:
        raise Problems(problems)
    _assert_gpus(made, _asked(lambda: df.sparkSession.conf.get(TASK_GPUS, None)))

    def judged(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return label_partition(batches, made)

    # By numbers, since Spark takes a dot in a name for a field, and a name may stand there twice.
    numbered = df.toDF(*map(str, range(len(schema))))
    return numbered.mapInArrow(judged, _labelled(schema, made))


def _assert_frame(df: object) -> None:
    if importlib.util.find_spec("pyspark") is None:
        raise UserError("label: Spark is not installed; pip install 'moderay[spark]'")
    from pyspark.sql import DataFrame  # noqa: PLC0415  late: an extra, and slow

    if not isinstance(df, DataFrame):
        raise Problems([wrong(f"df: a DataFrame of Spark is wanted, not {type(df).__name__}")])
    context = getattr(df.sparkSession, "_sc", None)  # Spark Connect has none
    if context is not None and context._jsc is None:
        raise UserError("label: the Spark session of df has ended; make it anew, in one that runs")


def _asked(question: Callable[[], T]) -> T:
    """What Spark answers.

    Raises:
        UserError: It does not answer any more, or refuses.
    """
    from py4j.protocol import Py4JError  # noqa: PLC0415  late: an extra
    from pyspark.errors import PySparkException  # noqa: PLC0415  late: an extra, and slow

    try:
        return question()
    except (PySparkException, Py4JError, OSError) as error:
        raise UserError(
            f"label: Spark does not say what df is ({first_line(error)}); make it anew, in a "
            "session that runs"
        ) from error


def _carried(schema: StructType) -> pa.Schema:
    """The DataFrame's columns as Arrow has them.

    Raises:
        Problems: Arrow cannot carry some.
    """
    from pyspark.errors import PySparkException  # noqa: PLC0415  late: an extra, and slow
    from pyspark.sql.pandas.types import to_arrow_type  # noqa: PLC0415  late: an extra, and slow

    fields: list[pa.Field] = []
    problems: list[Problem] = []
    for field in schema:
        try:
            kind = to_arrow_type(field.dataType, timezone="UTC")
            fields.append(pa.field(field.name, kind, field.nullable))
        except (PySparkException, ValueError):
            message = f"column {field.name!r} is {field.dataType.simpleString()}"
            problems.append(
                wrong(f"{message}, which Arrow cannot carry", "df.drop or cast it first")
            )
    if problems:
        raise Problems(problems)
    return pa.schema(fields)


def _other_case(df: DataFrame, schema: StructType, policies: Sequence[Policy]) -> list[Problem]:
    """Columns that Spark would take for one that is added, since case does not count for it."""
    if _asked(lambda: df.sparkSession.conf.get("spark.sql.caseSensitive", "false")) == "true":
        return []
    added = [CONTENT_HASH.name, FLAGGED.name, *[policy.id for policy in policies]]
    return [
        wrong(f"to Spark the DataFrame's column {name!r} is {other!r}, which is added", _RENAME)
        for name in schema.names
        for other in added
        if name != other and name.lower() == other.lower()
    ]


def _rule_problems(made: Recipe, columns: pa.Schema) -> list[Problem]:
    """What is wrong with the `where` of rules, for these columns."""
    frame = Shard("DataFrame", "DataFrame", 0, "")
    rules = [rules for cascade in made.cascades for rules in cascade.rules]
    return [problem for each in rules for problem in check_rules(each, [(frame, columns)])]


def _assert_gpus(made: Recipe, given: str | None) -> None:
    """Raises `UserError` where Spark gives a task other GPUs than an engine needs."""
    spec = made.on_gpu
    if not isinstance(spec, VllmSpec):
        return
    if given is None:
        if (size := model_size(spec.source)) is not None:
            raise UserError(
                f"label: {needs_gpu(size)}, and Spark gives its tasks none: {TASK_GPUS} "
                "(docs/spark.md)"
            )
    elif float(given) != spec.gpus:
        raise UserError(
            f"label: an engine takes {spec.gpus} GPU(s) for itself, and Spark gives a task "
            f"{given}: set {TASK_GPUS} to {spec.gpus}, or model.engine.tensor_parallel_size"
        )


def _labelled(schema: StructType, made: Recipe) -> StructType:
    """The DataFrame's columns, and those that are added."""
    from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415  late: an extra, and slow
    from pyspark.sql.types import StructType  # noqa: PLC0415  late: an extra, and slow

    rules = [cascade.rule for cascade in made.cascades]
    added = from_arrow_schema(pa.schema([CONTENT_HASH, FLAGGED, *decision_fields(rules)]))
    return StructType([*schema.fields, *added.fields])
