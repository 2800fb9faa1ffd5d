"""What people said of an input's rows: in a column, or in columns that a condition looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from moderay.config.policy import Policy
from moderay.core.errors import UserError, first_line, nearest
from moderay.core.sql.refusal import EACH_ROW, SqlRefusedError
from moderay.core.sql.row_expression import POLARS_ERRORS, RowExpression
from moderay.core.verdicts import valid
from moderay.corpus.content import template_columns
from moderay.corpus.formats import NoType, format_of
from moderay.corpus.shard import Shard, shard_errors
from moderay.corpus.views import without_views
from moderay.corpus.where import row_condition
from moderay.pipeline.check import Checked

# Positions in a shard, rising, and whether the row there violates.
Truth = tuple[np.ndarray, np.ndarray]


def gold_truth(checked: Checked, shard: Shard, policy: Policy, gold: str) -> Truth:
    """The rows of a shard of which people said whether they violate.

    Args:
        checked: The job and its input.
        shard: A shard of it.
        policy: The policy it is about.
        gold: A column that says true or false, 1 or 0, or labels of the policy; or a condition,
            Polars SQL over a row's columns. Null is unknown, and such a row is left out.

    Raises:
        UserError: It is neither, or the column says anything else.
    """
    columns = _columns(checked, shard)
    if gold in columns:
        if columns.count(gold) > 1:
            raise UserError(f"--gold {gold}: {shard.file} has two columns of this name")
        tables = _tables(checked, shard, [gold])
        answers = pa.chunked_array(
            [piece for table in tables for piece in table.column(gold).chunks] or [pa.nulls(0)]
        )
        return _column_truth(answers, shard, policy, gold)
    condition = _condition(gold, shard, columns)
    tables = _tables(checked, shard, list(condition.columns))
    values = [_values(condition, table, shard, gold) for table in tables]
    return _known(pl.concat(values).to_arrow() if values else pa.array([], pa.bool_()))


def _columns(checked: Checked, shard: Shard) -> list[str]:
    """Names of a shard's columns, and of its path's parts."""
    if shard.schema is not None:
        names = list(shard.schema.names)
    else:
        fs, path = shard.located(checked.job.storage)
        with shard_errors(shard):
            names = format_of(shard.url).names(fs, path)
    return [*names, *[name for name, _ in shard.partitions if name not in names]]


def _tables(checked: Checked, shard: Shard, names: Sequence[str]) -> Iterator[pa.Table]:
    """Those columns of a shard's rows, in order."""
    fs, path = shard.located(checked.job.storage)
    # Parts of the path alone do not tell how many rows there are.
    in_path = {name for name, _ in shard.partitions}
    content = template_columns(checked.job.input.content) if in_path.issuperset(names) else []
    wanted = list(dict.fromkeys([*names, *content]))
    with shard_errors(shard):
        for batch in format_of(shard.url).tables(
            fs, path, wanted, shard.schema, listed=shard.state
        ):
            table = without_views(batch)
            for name, value in shard.partitions:
                if name in names and name not in table.column_names:
                    table = table.append_column(name, pa.array([value] * len(table), pa.string()))
            yield table.select(list(names))


def _condition(gold: str, shard: Shard, columns: Sequence[str]) -> RowExpression:
    has = f"{shard.file} has no such column; it has {', '.join(columns)}"
    try:
        condition = row_condition(gold)
    except SqlRefusedError as error:
        raise UserError(f"--gold {gold}: {has}; nor is it a condition: {error}") from None
    if condition.columns == (gold,):
        raise UserError(f"--gold {gold}: {has}")
    for name in condition.columns:
        if columns.count(name) != 1:
            count = "two columns" if name in columns else "no column"
            raise UserError(
                f"--gold {gold}: {shard.file} has {count} {name!r}; {nearest(name, columns)}"
            )
    return condition


def _values(condition: RowExpression, table: pa.Table, shard: Shard, gold: str) -> pl.Series:
    types = ", ".join(f"{field.name} is {field.type}" for field in table.schema)
    if any(isinstance(field.type, NoType) for field in table.schema):
        raise UserError(f"--gold {gold}: {shard.file}: {types}")
    try:
        kind = condition.kind(table.schema)
    except POLARS_ERRORS as error:
        raise UserError(f"--gold {gold}: {shard.file}: {first_line(error)}; {types}") from None
    if kind != pl.Boolean:
        raise UserError(f"--gold {gold}: it gives {kind}, not true or false; {EACH_ROW}")
    return condition.values(table)


def _column_truth(values: pa.ChunkedArray, shard: Shard, policy: Policy, gold: str) -> Truth:
    """A column's values as whether the rows violate."""
    truths: dict[object, bool] = {True: True, False: False}  # 1 and 0 are equal to these
    truths.update((name, label.violates) for name, label in policy.labels.items())
    answers = values.drop_null().to_pylist()
    if strange := [value for value in dict.fromkeys(answers) if value not in truths]:
        raise UserError(
            f"--gold {gold}: {shard.file} says {strange[0]!r}; valid are true, false, 1, 0, "
            f'and {", ".join(policy.labels)}, or a condition such as "{gold} = {strange[0]!r}"'
        )
    return np.flatnonzero(valid(values)), np.array([truths[value] for value in answers], bool)


def _known(values: pa.Array) -> Truth:
    return np.flatnonzero(valid(values)), values.drop_null().to_numpy(zero_copy_only=False)
