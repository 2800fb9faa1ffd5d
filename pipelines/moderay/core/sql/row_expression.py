"""An expression that a person wrote over one row, ready to be evaluated.

`input.where`, the `where` of rules and a filter's `keep` all pass through here: nothing else in the
package hands SQL to Polars, which opens files and asks servers while it reads some of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import polars as pl
import pyarrow as pa

from moderay.core.errors import first_line
from moderay.core.sql.probe import probe
from moderay.core.sql.refusal import SqlRefusedError

# A panic of Polars is no `Exception`.
POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException)


@dataclass(frozen=True)
class RowExpression:
    """An expression whose value for a row depends on nothing but that row.

    Attributes:
        paths: The columns it reads, each with the fields within it: `a.b` is ("a", "b").
        expression: For Polars.
        branches: Parts that Polars evaluates only where a row comes to them.
        alike: Parts of which each row gets one; and, each alone, what is compared.
        texts: Columns and fields, each with a text that it is compared with by = or IN.
    """

    paths: tuple[tuple[str, ...], ...]
    expression: pl.Expr = field(compare=False, repr=False)
    branches: tuple[pl.Expr, ...] = field(compare=False, repr=False)
    alike: tuple[tuple[pl.Expr, ...], ...] = field(compare=False, repr=False)
    texts: tuple[tuple[tuple[str, ...], str], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it reads, each once."""
        return tuple(dict.fromkeys(path[0] for path in self.paths))

    def kind(self, schema: pa.Schema) -> pl.DataType:
        """The type of its values over columns of these types. Raises one of `POLARS_ERRORS`."""
        frame = _frame(probe(schema))
        for branch in self.branches:
            frame.select(branch)
        for parts in self.alike:
            _check_alike([frame.select(part).to_series().dtype for part in parts])
        return self._computed(frame).dtype

    def values(self, table: pa.Table) -> pl.Series:
        """Its value for every row of a table.

        Null where it cannot be computed, as a decimal divided by zero: one row takes no other out.
        Raises one of `POLARS_ERRORS` where the types of columns do not fit.
        """
        columns = table.select(list(self.columns))
        frame = _frame(columns)
        try:
            return self._computed(frame)
        except POLARS_ERRORS:
            return self._computed_apart(frame, self.kind(columns.schema))

    def _computed(self, frame: pl.DataFrame) -> pl.Series:
        # Polars takes a single row for a constant, and divides constants to another last digit.
        rows = pl.concat([frame, frame.clear(1)], rechunk=True) if len(frame) == 1 else frame
        values = rows.select(self.expression).to_series()[: len(frame)]
        # What comes to a constant, as COALESCE(1, n) does, has one row.
        return values if len(values) == len(frame) else values.new_from_index(0, len(frame))

    def _computed_apart(self, frame: pl.DataFrame, kind: pl.DataType) -> pl.Series:
        """By halves, until each row for which it cannot be computed is alone."""
        try:
            return self._computed(frame)
        except POLARS_ERRORS:
            if len(frame) == 1:
                return pl.Series([None], dtype=kind)
        half = len(frame) // 2
        parts = frame[:half], frame[half:]
        return pl.concat([self._computed_apart(part, kind) for part in parts])


def _frame(table: pa.Table) -> pl.DataFrame:
    """A table for Polars, which cannot read some slices of lists of a fixed size."""
    fields = [
        field.with_type(pa.list_(field.type.value_field))
        if pa.types.is_fixed_size_list(field.type)
        else field
        for field in table.schema
    ]
    schema = pa.schema(fields)
    frame: Any = pl.from_arrow(table if schema.equals(table.schema) else table.cast(schema))
    return cast("pl.DataFrame", frame)


def _check_alike(kinds: Sequence[pl.DataType]) -> None:
    """Polars makes one type of several, but only where the rows at hand need more than one."""
    if any(isinstance(kind, pl.Struct) for kind in kinds):
        raise pl.exceptions.SchemaError("a struct is no single value: name one of its fields")
    families = {_family(kind): kind for kind in kinds if kind != pl.Null}
    if len(families) > 1:
        shown = " and ".join(sorted(str(kind) for kind in families.values()))
        raise pl.exceptions.SchemaError(f"{shown} are values of one CASE, IF, COALESCE or the like")


def _family(kind: pl.DataType) -> object:
    if kind.is_numeric():
        return "number"
    if kind in (pl.Date, pl.Datetime):
        return "day"
    return "text" if kind in (pl.String, pl.Categorical, pl.Enum) else kind


@lru_cache(maxsize=512)
def row_expression(sql: str) -> RowExpression:
    """An expression as a person wrote it.

    Args:
        sql: One condition or value over columns, in the SQL that Polars has.

    Raises:
        SqlRefusedError: It is none, or holds what is not allowed.
    """
    # Most commands evaluate none, and the parser takes a while to import.
    from moderay.core.sql.reader import syntax_tree  # noqa: PLC0415
    from moderay.core.sql.writer import written  # noqa: PLC0415

    sql_of = written(syntax_tree(sql))
    try:
        return RowExpression(
            sql_of.paths,
            pl.sql_expr(sql_of.text),
            tuple(pl.sql_expr(part) for part in sql_of.branches),
            tuple(tuple(pl.sql_expr(part) for part in parts) for parts in sql_of.alike),
            sql_of.texts,
        )
    except POLARS_ERRORS as error:
        raise SqlRefusedError(first_line(error)) from None
