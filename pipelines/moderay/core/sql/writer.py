"""A syntax tree -> SQL for Polars, if everything in it is allowed.

Polars never sees what a person wrote. It gets the tree written out again, in brackets and quotes
throughout and in the few forms below, so that what the two parsers read differently cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from sqlglot import exp

from moderay.core.errors import nearest
from moderay.core.sql.functions import ALIKE, FUNCTIONS
from moderay.core.sql.literals import check_regex, column_name, day, number, quoted
from moderay.core.sql.nodes import (
    BINARY,
    DAYS,
    PARTS,
    PATTERNS,
    QUERIES,
    TYPES,
    called,
    refuse,
    refuse_function,
    shown_type,
)
from moderay.core.sql.refusal import SqlRefusedError

# Operators within operators, a chain of AND or of OR being one.
DEEPEST = 16
MOST_BRANCHES = 50
# `||` makes of a text several times the text.
MOST_JOINED = 20

# Two of these in a row are read in two ways: `a = b = c`, `a = b LIKE c`.
_PREDICATES = (exp.Predicate, exp.Not)
_SUM = (exp.Add, exp.Sub)
_EQUAL = (exp.EQ, exp.NEQ, exp.NullSafeEQ, exp.NullSafeNEQ)


class WrittenSql(NamedTuple):
    """What Polars is given.

    Attributes:
        text: SQL.
        paths: The columns it reads, each with the fields within it, once, in order.
        branches: What is evaluated only for rows that come to it, which may be none.
        alike: Values of which each row gets one; and, each alone, what is compared.
        texts: Columns and fields, each with a text that it is compared with by = or IN.
    """

    text: str
    paths: tuple[tuple[str, ...], ...]
    branches: tuple[str, ...]
    alike: tuple[tuple[str, ...], ...]
    texts: tuple[tuple[tuple[str, ...], str], ...]


def written(tree: exp.Expr) -> WrittenSql:
    """The tree as SQL for Polars.

    Raises:
        SqlRefusedError: Something in it is not allowed.
    """
    writer = _Writer()
    text = writer.write(tree, 0)
    return WrittenSql(
        text,
        tuple(dict.fromkeys(writer.paths)),
        tuple(dict.fromkeys(writer.branches)),
        tuple(dict.fromkeys(writer.alike)),
        tuple(dict.fromkeys(writer.texts)),
    )


class _Writer:
    """Writes nodes, each by the method of its type; what has none is refused."""

    def __init__(self) -> None:
        self.paths: list[tuple[str, ...]] = []
        self.branches: list[str] = []
        self.alike: list[tuple[str, ...]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self._joined = 0

    def write(self, node: Any, depth: int) -> str:
        """A node below `depth` others."""
        form = _FORMS.get(type(node))
        if form is None:
            refuse(node)
        if depth > DEEPEST:
            raise SqlRefusedError(f"it is nested deeper than {DEEPEST} levels", "write it flatter")
        if more := [name for name, value in node.args.items() if value and name not in form.parts]:
            raise SqlRefusedError(f"{called(node)} with {more[0].upper()} is not allowed")
        return form.write(self, node, depth)

    def column(self, node: exp.Column, depth: int) -> str:
        """A column, or a field within one."""
        names = _path(node)
        self.paths.append(names)
        return ".".join(f'"{name}"' for name in names)

    def literal(self, node: exp.Literal, depth: int) -> str:
        """A text or a number."""
        return quoted(node.this) if node.is_string else number(node.this)

    def truth(self, node: exp.Boolean, depth: int) -> str:
        """TRUE or FALSE."""
        return str(node.this).upper()

    def null(self, node: exp.Null, depth: int) -> NoReturn:
        """Has no type of its own: Polars takes it on an empty table and fails on a full one."""
        hint = "NULL stands behind IS, behind ELSE, and among the values of IN"
        raise SqlRefusedError("NULL is not allowed here", hint)

    def bracketed(self, node: exp.Paren, depth: int) -> str:
        """Brackets are written for every operator, whether or not there were any."""
        return self.write(node.this, depth)

    def chain(self, node: exp.Expr, depth: int) -> str:
        """AND or OR of many, halved again and again: a parser's stack is as deep as it is."""
        operands = [self.write(operand, depth + 1) for operand in _chained(node)]
        return _halved(operands, "AND" if isinstance(node, exp.And) else "OR")

    def binary(self, node: exp.Binary, depth: int) -> str:
        """An operator between two."""
        _check_clear(node, node.this, node.expression)
        left, right = (self.write(part, depth + 1) for part in (node.this, node.expression))
        operands = (node.this, left), (node.expression, right)
        self.alike += [(sql,) for part, sql in operands if not isinstance(part, exp.Literal)]
        self._try_with_numbers(left, node.expression)
        self._try_with_numbers(right, node.this)
        if isinstance(node, _EQUAL):
            self._note_texts(node.this, node.expression)
            self._note_texts(node.expression, node.this)
        return f"({left} {BINARY[type(node)]} {right})"

    def _note_texts(self, node: exp.Expr, *values: exp.Expr) -> None:
        """Note the texts that a column or field is held against."""
        bare = _unwrapped(node)
        if isinstance(bare, exp.Column):
            texts = [value for value in map(_unwrapped, values) if _is_text(value)]
            self.texts += [(_path(bare), text.this) for text in texts]

    def _try_with_numbers(self, sql: str, *beside: exp.Expr) -> None:
        """Note that what stands beside a number is to be tried with 1.

        Polars refuses to compare text with 1, and compares it with 1.5 as another text.
        """
        bare = [_unwrapped(part) for part in beside]
        if any(isinstance(part, exp.Literal) and not part.is_string for part in bare):
            self.branches.append(f"({sql} = 1)")

    def join(self, node: exp.DPipe, depth: int) -> str:
        """Text after text."""
        self._joined += 1
        if self._joined > MOST_JOINED:
            raise SqlRefusedError(f"more than {MOST_JOINED} times ||", "join fewer texts")
        if isinstance(node.this, _SUM) or isinstance(node.expression, _SUM):
            raise SqlRefusedError("|| beside + or - can be read in two ways", "put brackets")
        left, right = (self.write(part, depth + 1) for part in (node.this, node.expression))
        return f"({left} || {right})"

    def pattern(self, node: exp.Binary, depth: int) -> str:
        """LIKE and regular expressions."""
        _check_clear(node, node.this, node.expression)
        text, operator = self.write(node.this, depth + 1), PATTERNS[type(node)]
        if not node.expression.is_string:
            raise SqlRefusedError(f"{operator} needs a text in quotes", "write the pattern itself")
        if operator.startswith("~"):
            check_regex(("(?i)" if operator == "~*" else "") + node.expression.this)
        negated = "NOT " if node.args.get("negate") else ""
        if negated and operator.startswith("~"):
            return f"(NOT ({text} {operator} {quoted(node.expression.this)}))"
        return f"({text} {negated}{operator} {quoted(node.expression.this)})"

    def unary(self, node: exp.Expr, depth: int) -> str:
        """NOT and a sign."""
        if isinstance(node, exp.Not):
            return f"(NOT {self.write(node.this, depth + 1)})"
        operand = self.write(node.this, depth + 1)
        return f"-{operand}" if isinstance(node.this, exp.Literal) else f"(- {operand})"

    def is_(self, node: exp.Is, depth: int) -> str:
        """IS NULL, IS TRUE and IS FALSE."""
        if not isinstance(node.expression, exp.Null | exp.Boolean):
            raise SqlRefusedError("IS stands before NULL, TRUE or FALSE", "compare with =")
        negated = "NOT " if node.args.get("negate") else ""
        operand = self.write(node.this, depth + 1)
        what = (
            "NULL" if isinstance(node.expression, exp.Null) else self.truth(node.expression, depth)
        )
        return f"({operand} IS {negated}{what})"

    def in_(self, node: exp.In, depth: int) -> str:
        """IN a list of constants."""
        _check_clear(node, node.this)
        if query := node.args.get("query"):
            refuse(query)
        if not node.expressions:
            hint = "write the values: lang IN ('en', 'de')"
            raise SqlRefusedError("IN stands before a list of values", hint)
        values = [self._constant(value, "IN", depth) for value in node.expressions]
        operand = self.write(node.this, depth + 1)
        self._try_with_numbers(operand, *node.expressions)
        self._note_texts(node.this, *node.expressions)
        return f"({operand} IN ({', '.join(values)}))"

    def between(self, node: exp.Between, depth: int) -> str:
        """BETWEEN two values."""
        _check_clear(node, node.this, node.args["low"], node.args["high"])
        parts = [self.write(node.args[part], depth + 1) for part in ("this", "low", "high")]
        self._try_with_numbers(parts[0], node.args["low"], node.args["high"])
        return "({} BETWEEN {} AND {})".format(*parts)

    def case(self, node: exp.Case, depth: int) -> str:
        """CASE, with or without a value that is compared."""
        branches = node.args["ifs"]
        if len(branches) > MOST_BRANCHES:
            raise SqlRefusedError(f"more than {MOST_BRANCHES} times WHEN", "write fewer")
        parts = ["CASE"]
        values = []
        if node.this is not None:
            parts.append(self.write(node.this, depth + 1))
            self.alike.append((parts[1],))
        for branch in branches:
            when, then = (self.write(branch.args[part], depth + 1) for part in ("this", "true"))
            parts.append(f"WHEN {when} THEN {then}")
            values.append(then)
            self.branches += [when, then] if node.this is None else [f"({parts[1]} = {when})", then]
            if node.this is not None:
                self._try_with_numbers(parts[1], branch.this)
                self._note_texts(node.this, branch.this)
        default = node.args.get("default")
        if default is None or isinstance(default, exp.Null):
            self.alike.append(tuple(values))
            return " ".join([*parts, "ELSE NULL END"])
        otherwise = self.write(default, depth + 1)
        self.branches.append(otherwise)
        self.alike.append((*values, otherwise))
        return " ".join([*parts, f"ELSE {otherwise} END"])

    def cast(self, node: exp.Cast, depth: int) -> str:
        """A value as another type: null where it cannot be, so that no row ends a run."""
        to = node.args["to"]
        kind: Any = to.this if isinstance(to, exp.DataType) and not to.expressions else None
        if kind in DAYS and node.this.is_string:
            return day(DAYS[kind], node.this.this)
        if kind not in TYPES:
            valid = ", ".join(dict.fromkeys(TYPES.values()))
            hint = f"valid: {valid}; a day or time is compared with DATE '...' or TIMESTAMP '...'"
            raise SqlRefusedError(f"a cast to {shown_type(to)} is not allowed", hint)
        return f"TRY_CAST({self.write(node.this, depth + 1)} AS {TYPES[kind]})"

    def extract(self, node: exp.Extract, depth: int) -> str:
        """A part of a day or time."""
        part = str(getattr(node.this, "name", "")).upper()
        if part not in PARTS:
            raise SqlRefusedError(f"EXTRACT of {part} is not allowed", nearest(part, PARTS))
        return f"EXTRACT({part} FROM {self.write(node.expression, depth + 1)})"

    def call(self, node: exp.Anonymous, depth: int) -> str:
        """A function on the list."""
        name = node.this.upper() if isinstance(node.this, str) else ""
        function = FUNCTIONS.get(name)
        if function is None:
            refuse_function(node.name)
        count = len(node.expressions)
        if not function.least <= count <= function.most:
            needs = f"{function.least} to {function.most}"
            raise SqlRefusedError(f"{name} takes {needs} arguments, not {count}")
        parts = [
            self._constant(part, name, depth)
            if number in function.constant
            else self.write(part, depth + 1)
            for number, part in enumerate(node.expressions)
        ]
        self.branches += parts
        if name in ALIKE:
            self.alike.append(tuple(parts[1:] if name == "IF" else parts))
        if name == "REGEXP_LIKE":
            flags = f"(?{node.expressions[2].name})" if count == 3 else ""
            check_regex(flags + node.expressions[1].name)
        return f"{name}({', '.join(parts)})"

    def _constant(self, node: exp.Expr, what: str, depth: int) -> str:
        if isinstance(node, exp.Null) and what == "IN":
            return "NULL"
        inner = node.this if isinstance(node, exp.Neg) else node
        if not isinstance(inner, exp.Literal | exp.Boolean):
            hint = "write it out: a text in quotes or a number"
            raise SqlRefusedError(f"{what} needs a constant here", hint)
        return self.write(node, depth + 1)


class _Form(NamedTuple):
    """How nodes of a type are written, and which parts they may have."""

    write: Callable[[_Writer, Any, int], str]
    parts: tuple[str, ...]


_OPERANDS = ("this", "expression")
_FORMS: Mapping[type[exp.Expr], _Form] = {
    exp.Column: _Form(_Writer.column, ("this", "table", "db", "catalog")),
    exp.Literal: _Form(_Writer.literal, ("this", "is_string")),
    exp.Boolean: _Form(_Writer.truth, ("this",)),
    exp.Null: _Form(_Writer.null, ()),
    exp.Paren: _Form(_Writer.bracketed, ("this",)),
    exp.And: _Form(_Writer.chain, _OPERANDS),
    exp.Or: _Form(_Writer.chain, _OPERANDS),
    **dict.fromkeys(BINARY, _Form(_Writer.binary, (*_OPERANDS, "typed", "safe"))),
    exp.DPipe: _Form(_Writer.join, (*_OPERANDS, "safe")),
    **dict.fromkeys(PATTERNS, _Form(_Writer.pattern, (*_OPERANDS, "negate"))),
    exp.Not: _Form(_Writer.unary, ("this",)),
    exp.Neg: _Form(_Writer.unary, ("this",)),
    exp.Is: _Form(_Writer.is_, (*_OPERANDS, "negate")),
    exp.In: _Form(_Writer.in_, ("this", "expressions", "query")),
    exp.Between: _Form(_Writer.between, ("this", "low", "high")),
    exp.Case: _Form(_Writer.case, ("this", "ifs", "default")),
    exp.Cast: _Form(_Writer.cast, ("this", "to")),
    exp.TryCast: _Form(_Writer.cast, ("this", "to", "safe", "requires_string")),
    exp.Extract: _Form(_Writer.extract, _OPERANDS),
    exp.Anonymous: _Form(_Writer.call, ("this", "expressions")),
}


def _path(node: exp.Column) -> tuple[str, ...]:
    """A column's name, and those of the fields within it."""
    parts = (node.args.get(part) for part in ("catalog", "db", "table", "this"))
    return tuple(column_name(part) for part in parts if part)


def _unwrapped(node: exp.Expr) -> exp.Expr:
    """What stands in brackets, behind a sign."""
    while isinstance(node, exp.Neg | exp.Paren):
        node = node.this
    return node


def _is_text(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and bool(node.is_string)


def _chained(node: exp.Expr) -> list[exp.Expr]:
    """The operands of a chain of the same connector, however it is bracketed."""
    operands, left = [], [node]
    while left:
        part = left.pop()
        inner = part
        while isinstance(inner, exp.Paren):
            inner = inner.this
        if type(inner) is type(node):
            left += [inner.args["expression"], inner.args["this"]]
        else:
            operands.append(part)
    return operands


def _halved(operands: Sequence[str], operator: str) -> str:
    if len(operands) == 1:
        return operands[0]
    half = len(operands) // 2
    return f"({_halved(operands[:half], operator)} {operator} {_halved(operands[half:], operator)})"


def _check_clear(node: exp.Expr, *operands: exp.Expr) -> None:
    """No comparison directly beside another."""
    if any(
        isinstance(operand, _PREDICATES) and not isinstance(operand, QUERIES)
        for operand in operands
    ):
        reason = f"{called(node)} beside another comparison or NOT can be read in two ways"
        raise SqlRefusedError(reason, "put brackets")
