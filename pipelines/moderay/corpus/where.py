"""What `where` may be: an expression over one row's columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from moderay.core.errors import first_line, nearest
from moderay.corpus.formats import NoType
from moderay.corpus.shard import Shard

File = tuple[Shard, pa.Schema]
# The job's key, what is wrong in a shard, a hint.
Wrong = tuple[str, str, str]

# Aggregates and windows, as Polars prints them in an expression; `.list.sum()` and the like work
# within a row, and pass.
_TOGETHER = re.compile(
    r"(?<!\.list)(?<!\.arr)\.(mean|sum|min|max|first|last|count|median|quantile|std|var|n_unique|arg_\w+|shift|rank|cum_\w+|over|implode)\("
    r"|\b(len|corr|cov|int_range)\(|\.int_range\("
)
_QUOTED = re.compile(r'"[^"]*"')
EACH_ROW = "it must be true or false for each row by itself, whatever rows are read with it"


def where_columns(where: str | None) -> list[str]:
    """The columns an expression names. Raises a Polars error where it is none."""
    return list(dict.fromkeys(pl.sql_expr(where).meta.root_names())) if where else []


def where_wrong(
    expression: pl.Expr, names: Sequence[str], shard: Shard, schema: pa.Schema
) -> Iterator[Wrong]:
    """What an expression over these columns would meet in a shard."""
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
    try:
        frame: Any = pl.from_arrow(pa.schema(fields).empty_table())
        kind = frame.select(expression.alias("where")).schema["where"]
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        types = ", ".join(f"{field.name} is {field.type}" for field in fields)
        yield "input.where", f"where: {first_line(error)}", types
        return
    if kind != pl.Boolean:
        yield "input.where", f"where gives {kind}, not true or false", EACH_ROW


def row_by_row(expression: pl.Expr) -> bool:
    """Whether no part of an expression draws rows together.

    An aggregate or a window would give another answer with another unit size. Known by their names:
    Polars' own `is_row_separable` lets `n > AVG(n)` pass and fails on IN.
    """
    return _TOGETHER.search(_QUOTED.sub("", str(expression))) is None


def named_once(schema: pa.Schema, name: str) -> bool:
    """Whether exactly one column has this name; Parquet allows several."""
    return len(schema.get_all_field_indices(name)) == 1
