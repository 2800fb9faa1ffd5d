"""What `where` may be: an expression over one row's columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from moderay.core.errors import first_line, nearest
from moderay.core.sql.refusal import EACH_ROW, SqlRefusedError
from moderay.corpus.formats import NoType
from moderay.corpus.shard import Shard

if TYPE_CHECKING:
    from moderay.core.sql.row_expression import RowExpression

File = tuple[Shard, pa.Schema]
# The job's key, what is wrong in a shard, a hint.
Wrong = tuple[str, str, str]


def where_columns(where: str | None) -> list[str]:
    """The columns an expression names. Raises `SqlRefusedError` where it is none."""
    if not where:
        return []
    from moderay.core.sql.row_expression import row_expression  # noqa: PLC0415  late: Polars

    return list(row_expression(where).columns)


def row_condition(where: str) -> RowExpression:
    """An expression that looks at one row.

    Raises:
        SqlRefusedError: It looks at no column, or is not allowed.
    """
    from moderay.core.sql.row_expression import row_expression  # noqa: PLC0415  late: Polars

    expression = row_expression(where)
    if not expression.paths:
        raise SqlRefusedError("it looks at no column", EACH_ROW)
    return expression


def where_wrong(expression: RowExpression, shard: Shard, schema: pa.Schema) -> Iterator[Wrong]:
    """What an expression would meet in a shard."""
    names = expression.columns
    partitions = dict(shard.partitions)
    if missing := [name for name in names if name not in schema.names and name not in partitions]:
        for name in missing:
            yield "input.where", f"no column {name!r}", nearest(name, {*schema.names, *partitions})
        return
    if twice := [name for name in names if name in schema.names and not named_once(schema, name)]:
        yield "input.where", f"two columns are named {twice[0]!r}", ""
        return
    fields = [
        schema.field(name) if name in schema.names else pa.field(name, pa.string())
        for name in names
    ]
    if untyped := [field for field in fields if isinstance(field.type, NoType)]:
        yield "input.where", f"column {untyped[0].name!r} is {untyped[0].type}", ""
        return
    import polars as pl  # noqa: PLC0415  late: most jobs have no expression

    from moderay.core.sql.row_expression import POLARS_ERRORS  # noqa: PLC0415  late: Polars

    try:
        kind = expression.kind(pa.schema(fields))
    except POLARS_ERRORS as error:
        yield "input.where", f"where: {first_line(error)}", _types_hint(fields, first_line(error))
        return
    if kind != pl.Boolean:
        yield "input.where", f"where gives {kind}, not true or false", EACH_ROW


def _types_hint(fields: Sequence[pa.Field], error: str) -> str:
    """The types of columns, and how a text is compared with a number: all of CSV are texts."""
    types = ", ".join(f"{field.name} is {field.type}" for field in fields)
    has_text = any(pa.types.is_string(field.type) for field in fields)
    is_number = has_text and "string with numeric" in error
    return f"{types}; CAST(COLUMN AS DOUBLE) reads a text as a number" if is_number else types


def named_once(schema: pa.Schema, name: str) -> bool:
    """Whether exactly one column has this name; Parquet allows several."""
    return len(schema.get_all_field_indices(name)) == 1
