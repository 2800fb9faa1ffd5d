"""Nodes of a syntax tree: SQL for those that are allowed, words for those that are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from sqlglot import exp

from moderay.core.errors import nearest
from moderay.core.sql.functions import AGGREGATES, FUNCTIONS, VOLATILE
from moderay.core.sql.refusal import EACH_ROW, SqlRefusedError

BINARY: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
}
PATTERNS: Mapping[type[exp.Expr], str] = {
    exp.Like: "LIKE",
    exp.ILike: "ILIKE",
    exp.RegexpLike: "~",
    exp.RegexpFullMatch: "~",  # `~` as DuckDB reads it; Polars finds it anywhere, as Postgres does
    exp.RegexpILike: "~*",
}
QUERIES = (exp.Query, exp.SubqueryPredicate)
_MANY_ROWS: Mapping[type[exp.Expr], str] = {
    exp.Window: "OVER",
    exp.Filter: "FILTER",
    exp.WithinGroup: "WITHIN GROUP",
    exp.Distinct: "DISTINCT",
}
_OTHERS: Mapping[type[exp.Expr], str] = {
    exp.Array: "[...]",
    exp.Bracket: "[...]",
    exp.ByteString: "a text with escapes (E'...')",
    exp.Concat: "a text beside a text",
    exp.DataType: "a type that is not in a CAST",
    exp.Dot: "a dot here",
    exp.Escape: "ESCAPE",
    exp.IntDiv: "// (which fails on infinity; FLOOR(a / b) does not)",
    exp.JSONExtract: "->",
    exp.JSONExtractScalar: "->>",
    exp.National: "N'...'",
    exp.Placeholder: "a parameter",
    exp.Pow: "**",
    exp.RawString: "a text in dollar quotes",
    exp.Star: "*",
    exp.Struct: "{...}",
    exp.Tuple: "a list of values that is not behind IN",
}
TYPES: Mapping[exp.DType, str] = {
    exp.DType.BOOLEAN: "BOOLEAN",
    exp.DType.TINYINT: "TINYINT",
    exp.DType.SMALLINT: "SMALLINT",
    exp.DType.INT: "INTEGER",
    exp.DType.BIGINT: "BIGINT",
    exp.DType.FLOAT: "REAL",
    exp.DType.DOUBLE: "DOUBLE",
    exp.DType.TEXT: "VARCHAR",
    exp.DType.VARCHAR: "VARCHAR",
}
# Of a constant alone: how a column of texts is read as days depends on its first rows.
DAYS: Mapping[exp.DType, str] = {
    exp.DType.DATE: "DATE",
    exp.DType.TIMESTAMP: "TIMESTAMP",
    exp.DType.TIMESTAMPNTZ: "TIMESTAMP",
}
PARTS = ("YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "DOY", "ISODOW", "HOUR", "MINUTE", "SECOND")
_ALLOWED = (
    "allowed are columns and constants, comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, ~, IS, CASE, "
    "CAST, arithmetic, and functions of one row"
)
_LONGEST_SHOWN = 40


def shown_type(to: exp.Expr) -> str:
    """What a person would call a type."""
    return str(getattr(to.this, "value", to.this))[:_LONGEST_SHOWN]


def called(node: exp.Expr) -> str:
    """What a person would call a node."""
    return BINARY.get(type(node)) or PATTERNS.get(type(node)) or node.key.upper()


def refuse(node: exp.Expr) -> NoReturn:
    """Say what is not allowed, in the words of who wrote it."""
    if isinstance(node, QUERIES):
        hint = "a condition on the columns of one row; nothing is read from elsewhere"
        raise SqlRefusedError("a query is not allowed", hint)
    if type(node) in _MANY_ROWS:
        raise SqlRefusedError(f"{_MANY_ROWS[type(node)]} looks at many rows", EACH_ROW)
    if (name := node.key.upper()) in VOLATILE:
        refuse_function(name)
    raise SqlRefusedError(f"{_OTHERS.get(type(node), name)} is not allowed", _ALLOWED)


def refuse_function(name: str) -> NoReturn:
    """Say why a function is not called."""
    name = name.upper()[:_LONGEST_SHOWN]
    if name in AGGREGATES:
        raise SqlRefusedError(f"{name} looks at many rows", EACH_ROW)
    if name in VOLATILE:
        hint = "write the value itself; in a job file ${DATE} is today"
        raise SqlRefusedError(f"{name} gives another answer each time", hint)
    raise SqlRefusedError(f"no function {name} for one row", nearest(name, FUNCTIONS))
