"""Constants, names and patterns, as Polars reads them and nothing else does otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlglot import exp

from moderay.core.patterns import pattern_problem
from moderay.core.sql.refusal import SqlRefusedError

_NUMBER = re.compile(r"\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,3})?")
_DAY = r"\d{4}-[01]\d-[0-3]\d"
_DAYS: Mapping[str, str] = {
    "DATE": _DAY,
    "TIMESTAMP": _DAY + r"[ T][0-2]\d:[0-5]\d:[0-5]\d(\.\d{1,6})?",
}
_SHOWN = 60


def quoted(text: str) -> str:
    """A text as a constant: nothing in it but a quote means anything."""
    return "'" + text.replace("'", "''") + "'"


def number(text: str) -> str:
    """A number in digits. Raises `SqlRefusedError` where it is written in another way."""
    if _NUMBER.fullmatch(text) is None:
        raise SqlRefusedError(f"{text[:_SHOWN]!r} is no number", "write digits, such as 0.25")
    return text


def day(kind: str, text: str) -> str:
    """A DATE or TIMESTAMP. Raises `SqlRefusedError` where it is none."""
    if re.fullmatch(_DAYS[kind], text) is None:
        hint = "DATE '2026-01-31' or TIMESTAMP '2026-01-31 12:00:00'"
        raise SqlRefusedError(f"{text[:_SHOWN]!r} is no {kind}", hint)
    return f"{kind} {quoted(text)}"


def column_name(node: exp.Expr) -> str:
    """A name, without quotes.

    Raises:
        SqlRefusedError: It is none, or Polars takes it for a pattern over all columns.
    """
    name = node.this if isinstance(node, exp.Identifier) else None
    is_pattern = isinstance(name, str) and (name.startswith("^") and name.endswith("$"))
    if not isinstance(name, str) or name in ("", "*") or is_pattern or '"' in name:
        what = repr(name[:_SHOWN]) if isinstance(name, str) else node.key.upper()
        raise SqlRefusedError(f"{what} is no name of a column", "name one column of the input")
    return name


def check_regex(pattern: str) -> None:
    """Whether Rust's engine, which takes linear time, reads it. Raises `SqlRefusedError`."""
    if problem := pattern_problem(pattern):
        what, hint = problem
        raise SqlRefusedError(f"the pattern {pattern[:_SHOWN]!r}: {what}", hint)
