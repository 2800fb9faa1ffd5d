"""A filter's rule: which rows to keep, as Polars SQL over the verdict columns; and what is told of
those that are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.policy import Policy
from moderay.core.errors import first_line, nearest
from moderay.core.verdicts import CONTENT_HASH, DECISION, ROW, label_fields
from moderay.corpus.where import EACH_ROW, row_by_row, where_columns

# Why a row was not kept, a policy each: what was decided, under which threshold, and what became of
# a verdict that is missing.
REASON = pa.struct(
    [
        ("policy", pa.string()),
        *[DECISION.field(name) for name in ("status", "violates", "label", "probability")],
        ("threshold", pa.float64()),
        *[DECISION.field(name) for name in ("rationale", "detail")],
    ]
)
# The one column that removed and held rows have beside those of the input.
TOLD = pa.field("moderay", pa.struct([ROW, pa.field("reasons", pa.list_(REASON))]))


Fate = Literal["kept", "removed", "held"]
FATES: tuple[Fate, ...] = ("kept", "removed", "held")


def rule_problems(rule: str, policies: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a rule over verdicts under these policies, each with a hint."""
    try:
        expression, names = pl.sql_expr(rule), where_columns(rule)
    except pl.exceptions.PolarsError as error:
        yield (
            first_line(error),
            (
                "Polars SQL over verdict columns, such as NOT (spam.violates OR spam.probability > "
                "0.8)"
            ),
        )
        return
    schema = pa.schema(label_fields(policies))
    if not names:
        yield "the rule looks at no verdict", f"valid: {', '.join(schema.names)}"
    for name in names:
        if name not in schema.names:
            yield f"no policy or verdict column {name!r}", nearest(name, schema.names)
    if not names or not set(names) <= set(schema.names):
        return
    for policy, field in re.findall(
        r'col\("(\w+)"\)\.struct\.field_by_name\((\w+)\)', str(expression)
    ):
        if policy not in policies or field not in [known.name for known in DECISION]:
            yield (
                f"{policy} has no field {field!r}",
                nearest(field, [known.name for known in DECISION]),
            )
            return
    try:
        frame: Any = pl.from_arrow(schema.empty_table())
        kind = frame.select(expression.alias("keep")).schema["keep"]
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        yield (
            first_line(error),
            "compare a policy's fields, such as spam.violates, not the policy itself",
        )
        return
    if kind != pl.Boolean or not row_by_row(expression):
        yield (
            f"the rule gives {kind.base_type()}"
            if kind != pl.Boolean
            else "the rule does not look at one row's verdicts",
            EACH_ROW,
        )


def read_fields(rule: str, policies: Sequence[str]) -> list[str]:
    """The fields of a label file that a rule and its reasons read, as Parquet names them."""

    def named(field: str) -> bool:
        return re.search(rf"\b{field}\b", rule) is not None

    fields = [
        field.name
        for field in DECISION
        if field.name in [reason.name for reason in REASON] or named(field.name)
    ]
    return [
        ROW.name,
        *([CONTENT_HASH.name] if named(CONTENT_HASH.name) else []),
        *(f"{policy}.{field}" for policy in policies for field in fields),
    ]


def fates(rule: str, labels: pa.Table) -> dict[Fate, pa.BooleanArray]:
    """Which of the label rows are kept, removed and held; where the rule is null, as SQL has it,
    the row is held.
    """
    frame: Any = pl.from_arrow(labels)
    said = frame.select(pl.sql_expr(rule).alias("keep"))["keep"].to_arrow()
    kept, known = pc.fill_null(said, False), pc.is_valid(said)
    return {"kept": kept, "removed": pc.and_not(known, kept), "held": pc.invert(known)}


def told(labels: pa.Table, policies: Sequence[Policy], named: Sequence[str]) -> pa.StructArray:
    """`TOLD` for label rows that are not kept: the policies they violate or are not judged under;
    where there is none, those that the rule names.
    """
    rows, parts, wanted = len(labels), [], []
    for policy in policies:
        column = labels.column(policy.id).combine_chunks()
        given: Mapping[str, pa.Array] = {
            "policy": pa.repeat(policy.id, rows),
            "threshold": pa.repeat(policy.threshold, rows),
        }
        columns = [
            given[field.name] if field.name in given else column.field(field.name)
            for field in REASON
        ]
        parts.append(pa.StructArray.from_arrays(columns, fields=list(REASON)))
        wanted.append(pc.fill_null(column.field("violates"), True).to_numpy(zero_copy_only=False))
    chosen = np.stack(wanted, axis=1)
    chosen[~chosen.any(axis=1)] = [policy.id in named for policy in policies]
    # From policy after policy to row after row.
    order = np.arange(rows * len(policies)).reshape(len(policies), rows).T[chosen]
    offsets = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))])
    reasons = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.concat_arrays(parts).take(pa.array(order))
    )
    return pa.StructArray.from_arrays(
        [labels.column(ROW.name).combine_chunks(), reasons], fields=list(TOLD.type)
    )


def untold(positions: np.ndarray) -> pa.StructArray:
    """`TOLD` for rows that were not selected for judging: there is no reason."""
    none = pa.ListArray.from_arrays(
        pa.array(np.zeros(len(positions) + 1), pa.int32()), pa.array([], REASON)
    )
    return pa.StructArray.from_arrays(
        [pa.array(positions, pa.int64()), none], fields=list(TOLD.type)
    )
