"""What columns JSON objects make: the types of a few lines, of a file, and of many files together.

An integer and a number make a number, null and anything make that, a key that is missing is null,
objects have the keys of all. Strings stay strings, also those that look like a date. Where one type
cannot hold it all, the column is a `NoType`, and is read as text (`json_rows`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.json_objects import MOST_COLUMNS, objects, parsed, whole
from moderay.corpus.formats.lines import Lines

# Of an object in a column, counted with those inside it. More is a map with keys as data.
MOST_FIELDS = 1_000


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


class Look(NamedTuple):
    """What a few lines hold.

    Attributes:
        columns: Of those that are objects.
        table: The columns that have a type; null in rows that are no object.
        faults: Those rows, and why (`json_objects.faults`).
    """

    columns: pa.Schema
    table: pa.Table
    faults: dict[int, str]


def look(lines: Lines) -> Look:
    """The columns of a few lines."""
    if (table := whole(lines)) is not None:
        columns = [pa.field(field.name, _as_written(field.type)) for field in table.schema]
        return Look(pa.schema(columns), table, {})
    found, rows = objects(lines)
    schema = _by_value(rows)
    return Look(schema, parsed(lines.without(found).data, typed(schema)), found)


def typed(schema: pa.Schema) -> pa.Schema:
    """The columns that have a type."""
    return pa.schema([field for field in schema if not isinstance(field.type, NoType)])


def unified(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """The columns of rows of both kinds."""
    if first.equals(second):
        return first
    types = dict(zip(first.names, first.types, strict=True))
    for field in second:
        types[field.name] = _either(types.get(field.name, field.type), field.type)
    return pa.schema(types.items())


def unified_in_file(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """The columns of rows of both kinds in one file.

    Raises:
        UnreadableError: They are more than `MOST_COLUMNS`.
    """
    both = unified(first, second)
    if len(both) > MOST_COLUMNS:
        raise UnreadableError(f"its objects have more than {MOST_COLUMNS:,} different keys")
    return both


def common_types(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The columns of all files together; objects without keys, which Parquet cannot hold, too."""
    together = functools.reduce(unified, dict.fromkeys(schemas), pa.schema([]))
    return pa.schema(
        [
            pa.field(name, NoType("objects without keys") if _keyless(kind) else kind)
            for name, kind in zip(together.names, together.types, strict=True)
        ]
    )


def _by_value(rows: Sequence[dict[str, Any]]) -> pa.Schema:
    """The columns of rows that Arrow finds no types for, from Python's values."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema(
        [
            pa.field(name, _narrow(_of_values([row[name] for row in rows if name in row])))
            for name in names
        ]
    )


def _of_values(values: Sequence[Any]) -> pa.DataType:
    """As Arrow does where it can; pyarrow itself takes true and 1.5 for two numbers."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and kinds != {int, float}:
        return NoType(_both(WORDS[kind] for kind in kinds))
    if kinds == {dict}:
        parts = _by_key([value for value in values if value is not None])
        return NoType(_both([WORDS[dict]])) if _has_none(parts.values()) else pa.struct(parts)
    if kinds == {list}:
        inside = _of_values([item for value in values if value is not None for item in value])
        return NoType(_both([WORDS[list]])) if _has_none([inside]) else pa.list_(inside)
    return _PLAIN[float if float in kinds else next(iter(kinds), type(None))]


def _by_key(values: Sequence[dict[str, Any]]) -> dict[str, pa.DataType]:
    names = dict.fromkeys(name for value in values for name in value)
    return {name: _of_values([value[name] for value in values if name in value]) for name in names}


def _has_none(kinds: Iterable[pa.DataType]) -> bool:
    return any(isinstance(kind, NoType) for kind in kinds)


_PLAIN = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    type(None): pa.null(),
}
# What a value is, in words.
WORDS = {
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
