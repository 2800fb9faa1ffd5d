"""What columns JSON objects make: the types of a few lines, of a file, and of many files together.

An integer and a number make a number, null and anything make that, a key that is missing is null,
objects have the keys of all. Strings stay strings, also those that look like a date. Where one type
cannot hold it all, the column is a `NoType`, which nobody may ask for.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from moderay.core.errors import first_line
from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.lines import Lines

# Of an object, counted with those inside it, and of a file. More is a map with keys as data.
MOST_FIELDS = 1_000
MOST_COLUMNS = 10_000
# Objects and lists in each other. Arrow takes time that grows with the square of it to find their
# types, and at some ten thousand crashes.
MOST_DEEP = 100

_OPEN, _CLOSE, _LIST = b"{}["
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


class NoType(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """Of a column whose values no one type holds; no data is ever of it.

    Attributes:
        description: What the column is, in words.
    """

    def __init__(self, description: str) -> None:
        """A type of its own for each description."""
        self.description = description
        super().__init__(pa.null(), "moderay.none")

    def __arrow_ext_serialize__(self) -> bytes:
        """The description."""
        return self.description.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, _: pa.DataType, data: bytes) -> NoType:
        """From the description."""
        return cls(data.decode())

    def __hash__(self) -> int:
        """Of the description."""
        return hash(self.description)

    def __str__(self) -> str:
        """The description, where a message names a column's type."""
        return self.description


pa.register_extension_type(NoType(""))


def parsed(data: bytes, schema: pa.Schema | None = None) -> pa.Table:
    """Objects as rows.

    Args:
        data: One object a line.
        schema: The columns that are read; by default all, in the types that Arrow finds.

    Raises:
        ArrowInvalid: A line is no JSON, or a column has no one type.
    """
    options = (
        {} if schema is None else {"explicit_schema": schema, "unexpected_field_behavior": "ignore"}
    )
    read = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
    return pj.read_json(
        pa.BufferReader(data), read_options=read, parse_options=pj.ParseOptions(**options)
    )


def look(lines: Lines) -> tuple[pa.Schema, pa.Table]:
    """The columns of a few lines, and those of them that have a type as a table.

    Raises:
        UnreadableError: A line is no object; the message has its number.
    """
    _assert_objects(lines)
    try:
        table = parsed(lines.data)
        if len(table) == len(lines):
            columns = [pa.field(field.name, _as_written(field.type)) for field in table.schema]
            return pa.schema(columns), table
    except pa.ArrowInvalid:
        # A line is no JSON, or a column has no one type: what follows finds out, and takes longer.
        pass
    _each(lines, pa.schema([]))
    schema = _by_value(lines)
    return schema, _each(lines, typed(schema))


def typed(schema: pa.Schema) -> pa.Schema:
    """The columns that have a type."""
    return pa.schema([field for field in schema if not isinstance(field.type, NoType)])


def unified(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """The columns of rows of both kinds.

    Raises:
        UnreadableError: They are more than `MOST_COLUMNS`.
    """
    if first.equals(second):
        return first
    types = dict(zip(first.names, first.types, strict=True))
    for field in second:
        types[field.name] = _either(types.get(field.name, field.type), field.type)
    if len(types) > MOST_COLUMNS:
        raise UnreadableError(f"its objects have more than {MOST_COLUMNS:,} different keys")
    return pa.schema(types.items())


def common_types(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
    """What each file is to be read as, so that all have the same columns.

    A column that has another type in each file keeps it, so that a message can name the file that
    has which.
    """
    different = list(dict.fromkeys(schemas))
    together = functools.reduce(unified, different, pa.schema([]))
    read_as = {
        schema: pa.schema(
            [pa.field(field.name, _in_file(schema, field, different)) for field in together]
        )
        for schema in different
    }
    return [read_as[schema] for schema in schemas]


def _in_file(schema: pa.Schema, field: pa.Field, others: Sequence[pa.Schema]) -> pa.DataType:
    if not isinstance(field.type, NoType):
        return NoType("objects without keys") if _keyless(field.type) else field.type
    # Without a value in this file, what the first has that has one.
    types = (own.field(field.name).type for own in (schema, *others) if field.name in own.names)
    return next(kind for kind in types if not pa.types.is_null(kind))


def _assert_objects(lines: Lines) -> None:
    """That each line is text, an object from end to end, and not too deep.

    One that begins and ends as an object does leaves no way for it to go over two lines.
    """
    array = np.frombuffer(lines.data, np.uint8)
    _assert_text(lines)
    for row in np.flatnonzero((array[lines.starts] != _OPEN) | (array[lines.ends - 1] != _CLOSE)):
        text = lines[row].strip()
        if not (text.startswith(b"{") and text.endswith(b"}")):
            raise _no_object(lines, row)
    opened = np.searchsorted(
        np.flatnonzero((array == _OPEN) | (array == _LIST)), np.append(lines.starts, len(array))
    )
    for row in np.flatnonzero(np.diff(opened) > MOST_DEEP):
        if _depth(lines[row]) > MOST_DEEP:
            raise UnreadableError(
                f"line {lines.line_of(lines.starts[row])}: objects and lists lie in each other "
                f"more than {MOST_DEEP} deep"
            )


def _assert_text(lines: Lines) -> None:
    data = lines.data
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError as error:
        begin = data.rfind(b"\n", 0, error.start) + 1
        raise UnreadableError(
            f"line {lines.line_of(error.start)}: invalid UTF-8 at byte {error.start - begin}"
        ) from None


def _no_object(lines: Lines, row: int, reason: str = "") -> UnreadableError:
    return UnreadableError(
        f"line {lines.line_of(lines.starts[row])} is no JSON object"
        + (f": {reason}" if reason else "")
    )


def _depth(text: bytes) -> int:
    array = np.frombuffer(_STRING.sub(b"", text), np.uint8)
    steps = np.isin(array, list(b"{[")).astype(np.int64) - np.isin(array, list(b"}]"))
    return int(steps.cumsum().max(initial=0))


def _each(lines: Lines, schema: pa.Schema) -> pa.Table:
    """Rows, one for each line, halved until the line is found that is none."""
    reason = "more than one"
    try:
        table = parsed(lines.data, schema)
        if len(table) == len(lines):
            return table
    except pa.ArrowInvalid as error:
        reason = re.sub(r"^JSON parse error: |\.? in row \d+$", "", first_line(error))
    if len(lines) == 1:
        raise _no_object(lines, 0, reason)
    half = len(lines) // 2
    return pa.concat_tables(
        [_each(lines.part(0, half), schema), _each(lines.part(half, len(lines)), schema)]
    )


def _by_value(lines: Lines) -> pa.Schema:
    """The columns of lines that Arrow finds no types for, from Python's values."""
    rows = [_loaded(lines, row) for row in range(len(lines))]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema(
        [pa.field(name, _of_values([row[name] for row in rows if name in row])) for name in names]
    )


def _loaded(lines: Lines, row: int) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(lines[row], parse_int=_integer)
    except ValueError as error:
        raise _no_object(lines, row, first_line(error)) from None
    return values


def _integer(text: str) -> int | float:
    """As Arrow takes them: one of more than 64 bits is a number."""
    value = int(text) if len(text) < 20 else 2**63
    return value if -(2**63) <= value < 2**63 else float(text)


def _of_values(values: Sequence[Any]) -> pa.DataType:
    try:
        return _as_written(pa.array(values).type)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return NoType(_both(_WORDS[type(value)] for value in values if value is not None))


_WORDS = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def _word(kind: pa.DataType) -> str:
    tests = {
        "a string": pa.types.is_string,
        "true or false": pa.types.is_boolean,
        "an object": pa.types.is_struct,
        "a list": pa.types.is_list,
    }
    return next((word for word, test in tests.items() if test(kind)), "a number")


def _both(words: Iterable[str]) -> str:
    """Words for a column whose values are of all these kinds."""
    first, *others = sorted(set(words))
    if others:
        return f"{first} in some rows and {others[0]} in others"
    return f"{first} with values of different types in it"


def _either(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if first.equals(second) or isinstance(first, NoType):
        return first
    if isinstance(second, NoType):
        return second
    try:
        both = [pa.schema([pa.field("of", kind)]) for kind in (first, second)]
        return _narrow(pa.unify_schemas(both, promote_options="permissive").field(0).type)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return NoType(_both([_word(first), _word(second)]))


def _as_written(kind: pa.DataType) -> pa.DataType:
    """What Arrow takes for a time is a string in JSON."""

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(plain(kind.value_type))
        if pa.types.is_struct(kind):
            return pa.struct([pa.field(field.name, plain(field.type)) for field in kind])
        return pa.string() if pa.types.is_temporal(kind) else kind

    return _narrow(plain(kind))


def _narrow(kind: pa.DataType) -> pa.DataType:
    if _fields(kind) > MOST_FIELDS:
        return NoType(f"objects of more than {MOST_FIELDS:,} different keys")
    return kind


def _fields(kind: pa.DataType) -> int:
    if pa.types.is_list(kind):
        return _fields(kind.value_type)
    return sum(1 + _fields(field.type) for field in kind) if pa.types.is_struct(kind) else 0


def _keyless(kind: pa.DataType) -> bool:
    """Whether there is an object without keys in it, which Parquet has no type for."""
    if pa.types.is_list(kind):
        return _keyless(kind.value_type)
    return pa.types.is_struct(kind) and (
        not kind.num_fields or any(_keyless(field.type) for field in kind)
    )
