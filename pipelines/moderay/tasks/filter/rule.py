"""A filter's rule: which rows are kept, and the reasons why the others are not.

The rule is Polars SQL over the columns of a label file: the verdicts', and those that are carried
over from the input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.decision_rule import DecisionRule
from moderay.core.errors import first_line, nearest
from moderay.core.sql.refusal import EACH_ROW, SqlRefusedError
from moderay.core.sql.row_expression import POLARS_ERRORS, RowExpression, row_expression
from moderay.core.verdicts import (
    CONTENT_HASH,
    FLAGGED,
    LABEL,
    PROBABILITY,
    ROW,
    TRACE,
    VERDICT,
    VIOLATES,
    Status,
    decision_type,
    label_fields,
    trace,
)
from moderay.tasks.filter.records import Fate

# Why a row was not kept, a policy each: what was decided, under which threshold, and what became of
# a verdict that is missing.
REASON = pa.struct(
    [
        ("policy", pa.string()),
        VERDICT.field("status"),
        VIOLATES,
        LABEL,
        PROBABILITY,
        ("threshold", pa.float64()),
        VERDICT.field("rationale"),
        TRACE.field("detail"),
    ]
)
# The one column that removed and held rows have beside those of the input.
WHY = pa.field("moderay", pa.struct([ROW, pa.field("reasons", pa.list_(REASON))]))

_SQL = "Polars SQL over verdict columns, such as NOT (spam.violates OR spam.probability > 0.8)"


def rule_problems(
    rule: str, decisions: Sequence[DecisionRule], carried: Iterable[pa.Field] = ()
) -> Iterator[tuple[str, str]]:
    """What is wrong with a rule over verdicts, each with a hint.

    Args:
        rule: Polars SQL.
        decisions: Of the policies.
        carried: Columns that are carried over from the input.
    """
    try:
        expression = row_expression(rule)
    except SqlRefusedError as error:
        yield error.reason, error.hint or _SQL
        return
    verdicts = label_fields(decisions)
    schema = pa.schema([*verdicts, *carried])
    if not expression.paths:
        names = [field.name for field in verdicts]
        yield "the rule looks at no verdict", f"valid: {', '.join(names)}"
        return
    unknown = [name for name in expression.columns if name not in schema.names]
    for name in unknown:
        yield f"no policy, verdict or carried column {name!r}", nearest(name, schema.names)
    if unknown:
        return
    problem = _field_problem(expression, schema) or _type_problem(expression, schema)
    if problem is not None:
        yield problem
        return
    yield from _text_problems(expression, decisions)


def _text_problems(
    expression: RowExpression, decisions: Iterable[DecisionRule]
) -> Iterator[tuple[str, str]]:
    """Labels and statuses that no verdict can have."""
    valid: dict[tuple[str, ...], Sequence[str]] = {}
    for decision in decisions:
        valid[decision.policy, "label"] = decision.labels
        valid[decision.policy, "status"] = [status.value for status in Status]
    for path, text in expression.texts:
        if path in valid and text not in valid[path]:
            yield f"{path[0]} has no {path[1]} {text!r}", nearest(text, valid[path])


def _field_problem(expression: RowExpression, schema: pa.Schema) -> tuple[str, str] | None:
    """The first field that is asked of a policy and that no verdict has."""
    for column, *inner in expression.paths:
        path, kind = column, schema.field(column).type
        for name in inner:
            fields = [field.name for field in kind] if pa.types.is_struct(kind) else []
            if name not in fields:
                if path == column and TRACE.get_field_index(name) >= 0:
                    return f"{path} has no field {name!r}", f"it is {path}.trace.{name}"
                return f"{path} has no field {name!r}", nearest(name, fields)
            path, kind = f"{path}.{name}", kind.field(name).type
    return None


def _type_problem(expression: RowExpression, schema: pa.Schema) -> tuple[str, str] | None:
    """A rule that is not true or false of one row."""
    try:
        kind = expression.kind(schema)
    except POLARS_ERRORS as error:
        hint = "compare a policy's fields, such as spam.violates, not the policy itself"
        return first_line(error), hint
    if kind != pl.Boolean:
        return f"the rule gives {kind.base_type()}", EACH_ROW
    return None


def read_fields(rule: str, policies: Sequence[str]) -> list[str]:
    """The fields of a label file that a rule and its reasons read, as Parquet names them."""

    def named(field: str) -> bool:
        return re.search(rf"\b{field}\b", rule) is not None

    def wanted(kind: pa.StructType) -> list[str]:
        return [
            field.name
            for field in kind
            if REASON.get_field_index(field.name) >= 0 or named(field.name)
        ]

    fields = [name for name in wanted(decision_type(())) if name != "trace"]
    fields += [f"trace.{name}" for name in wanted(TRACE)]
    verdicts = {ROW.name, CONTENT_HASH.name, FLAGGED.name, *policies}
    carried = [name for name in row_expression(rule).columns if name not in verdicts]
    return [
        ROW.name,
        *([CONTENT_HASH.name] if named(CONTENT_HASH.name) else []),
        *(f"{policy}.{field}" for policy in policies for field in fields),
        *carried,
    ]


def fates(rule: str, labels: pa.Table) -> dict[Fate, pa.BooleanArray]:
    """Which of the label rows are kept, removed and held.

    Where the rule is null, as SQL has it, the row is held.
    """
    keep = row_expression(rule).values(labels).to_arrow()
    kept = pc.fill_null(keep, False)
    known = pc.is_valid(keep)
    return {"kept": kept, "removed": pc.and_not(known, kept), "held": pc.invert(known)}


def reasons(
    labels: pa.Table, decisions: Sequence[DecisionRule], named: Sequence[str]
) -> pa.StructArray:
    """`WHY` for label rows that are not kept.

    The policies that a row violates or is not judged under; where there is none, those that the
    rule names.
    """
    parts = [_policy_reasons(labels, decision) for decision in decisions]
    is_reason = np.stack(
        [
            pc.fill_null(part.field("violates"), True).to_numpy(zero_copy_only=False)
            for part in parts
        ],
        axis=1,
    )
    is_reason[~is_reason.any(axis=1)] = [decision.policy in named for decision in decisions]
    # From policy after policy to row after row.
    rows = len(labels)
    order = np.arange(rows * len(decisions)).reshape(len(decisions), rows).T[is_reason]
    offsets = np.concatenate([[0], np.cumsum(is_reason.sum(axis=1))])
    lists = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.concat_arrays(parts).take(pa.array(order))
    )
    return pa.StructArray.from_arrays(
        [labels.column(ROW.name).combine_chunks(), lists], fields=list(WHY.type)
    )


def _policy_reasons(labels: pa.Table, decision: DecisionRule) -> pa.StructArray:
    """A `REASON` for each row, of one policy."""
    column = labels.column(decision.policy).combine_chunks()
    constants: Mapping[str, pa.Array] = {
        "policy": pa.repeat(decision.policy, len(labels)),
        "threshold": pa.repeat(decision.threshold, len(labels)),
    }
    columns = [
        constants[field.name] if field.name in constants else column.field(field.name)
        for field in REASON
        if field.name != "detail"
    ]
    columns.append(trace(column, "detail"))
    return pa.StructArray.from_arrays(columns, fields=list(REASON))


def without_reasons(positions: np.ndarray) -> pa.StructArray:
    """`WHY` for rows that were not selected for judging: there is no reason."""
    none = pa.ListArray.from_arrays(
        pa.array(np.zeros(len(positions) + 1), pa.int32()), pa.array([], REASON)
    )
    return pa.StructArray.from_arrays(
        [pa.array(positions, pa.int64()), none], fields=list(WHY.type)
    )
