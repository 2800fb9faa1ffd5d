"""An expression that a person wrote over one row, ready to be evaluated.

`input.where`, the `where` of rules and a filter's `keep` all pass through here: nothing else in the
package hands SQL to Polars, which opens files and asks servers while it reads some of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

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
    """

    paths: tuple[tuple[str, ...], ...]
    expression: pl.Expr = field(compare=False, repr=False)
    branches: tuple[pl.Expr, ...] = field(compare=False, repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it reads, each once."""
        return tuple(dict.fromkeys(path[0] for path in self.paths))

    def kind(self, schema: pa.Schema) -> pl.DataType:
        """The type of its values over columns of these types. Raises one of `POLARS_ERRORS`."""
        frame: Any = pl.from_arrow(probe(schema))
        for branch in self.branches:
            frame.select(branch)
        return self.values(probe(schema)).dtype

    def values(self, table: pa.Table) -> pl.Series:
        """Its value for every row of a table. Raises one of `POLARS_ERRORS`."""
        frame: Any = pl.from_arrow(table.select(list(self.columns)))
        values: pl.Series = frame.select(self.expression).to_series()
        # What comes to a constant, as COALESCE(1, n) does, has one row.
        return values if len(values) == len(table) else values.new_from_index(0, len(table))


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

    text, paths, branches = written(syntax_tree(sql))
    try:
        expression, *parts = (pl.sql_expr(part) for part in (text, *branches))
    except POLARS_ERRORS as error:
        raise SqlRefusedError(first_line(error)) from None
    return RowExpression(paths, expression, tuple(parts))
