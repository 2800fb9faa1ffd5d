"""An expression as a person wrote it -> a syntax tree, or a sentence about why not.

Nothing is evaluated, opened or asked for: sqlglot only reads. What its tree may hold, `writer`
says.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel, ParseError, TokenError
from sqlglot.parsers.duckdb import DuckDBParser
from sqlglot.tokenizer_core import Token, TokenType

from moderay.core.sql.refusal import SqlRefusedError

LONGEST = 10_000
# Brackets in brackets. Parsers recurse, and run out of stack.
DEEPEST_BRACKETS = 16
# sqlglot's count, a column being two.
MOST_NODES = 6_000

_SHORTER = "shorten it: a long list of values is IN (...), a long list of texts a rule's any_of"
_OPENING = (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE)
_CLOSING = (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END)
_SPACE = re.compile(r"[ \t\r\n]*")
# Control characters but white space, and halves of surrogate pairs.
_NO_TEXT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class _Tokenizer(DuckDB.Tokenizer):
    """DuckDB's, to which `row` is a word like any other: labels have a column of this name."""

    KEYWORDS: ClassVar[dict[str, TokenType]] = {
        word: kind for word, kind in DuckDB.Tokenizer.KEYWORDS.items() if word != "ROW"
    }


class _Parser(DuckDBParser):
    """DuckDB's SQL, nearest to that of Polars, with every function as it was written.

    sqlglot knows other names and orders of arguments for hundreds of functions.
    """

    FUNCTIONS: ClassVar[dict[str, Any]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        name: DuckDBParser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST", "EXTRACT")
    }
    NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        "CASE": DuckDBParser.NO_PAREN_FUNCTION_PARSERS["CASE"]
    }


def syntax_tree(sql: str) -> exp.Expr:
    """The tree of one expression.

    Raises:
        SqlRefusedError: It is none, or too long or too deep to be looked at.
    """
    if len(sql) > LONGEST:
        raise SqlRefusedError(f"{len(sql):,} characters, of which {LONGEST:,} are read", _SHORTER)
    if _NO_TEXT.search(sql):
        raise SqlRefusedError("it holds a control character", "take it out")
    tokens = _tokens(sql)
    if not tokens:
        raise SqlRefusedError("it is empty", "write a condition on columns, such as lang = 'en'")
    _check_nesting(tokens)
    try:
        parser = _Parser(ErrorLevel.IMMEDIATE, max_nodes=MOST_NODES, dialect=DuckDB)
        trees = parser.parse_into(exp.Condition, tokens, sql)
    except ParseError as error:
        raise SqlRefusedError(_sentence(error)) from None
    except RecursionError:
        raise SqlRefusedError("it is nested too deeply", "write it flatter") from None
    if not trees or trees[0] is None:
        raise SqlRefusedError("it is no expression", "write a condition on columns")
    return trees[0]


def _tokens(sql: str) -> list[Token]:
    """The tokens, between which only white space may stand.

    What else a tokenizer leaves out, comments above all, another may read.
    """
    try:
        tokens: list[Token] = _Tokenizer(dialect=DuckDB).tokenize(sql)
    except TokenError:
        hint = "a text stands in single quotes, and a single quote in it is doubled"
        raise SqlRefusedError("a quote is not closed", hint) from None
    at = 0
    for token in tokens:
        if not _SPACE.fullmatch(sql, at, token.start) or token.comments:
            _refuse_gap(sql[at : token.start])
        at = token.end + 1
    if not _SPACE.fullmatch(sql, at):
        _refuse_gap(sql[at:])
    return tokens


def _refuse_gap(text: str) -> None:
    shown = text.strip(" \t\r\n")[:20]
    what = repr(shown) if shown else "a comment"
    raise SqlRefusedError(f"{what} is not allowed", "write the expression alone, without comments")


def _check_nesting(tokens: list[Token]) -> None:
    depth = 0
    for token in tokens:
        if token.token_type is TokenType.SEMICOLON:
            raise SqlRefusedError("';' ends an expression", "write one expression")
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        if depth > DEEPEST_BRACKETS:
            reason = f"brackets and CASE are nested deeper than {DEEPEST_BRACKETS}"
            raise SqlRefusedError(reason, "write it flatter")


def _sentence(error: ParseError) -> str:
    """What sqlglot says, without its terminal colours."""
    first: dict[str, Any] = error.errors[0] if error.errors else {}
    near = first.get("highlight") or ""
    what = str(first.get("description") or "cannot be read").rstrip(".")
    if what.startswith("Required keyword"):
        what = "something is missing"
    return f"no SQL: {what}" + (f" near {near!r}" if near else "")
