"""Lines -> rows of a file's schema, whatever is in them.

A line that is no object is a row without values, and says why. A column that no one type holds is
read as text: strings as they are, everything else as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from moderay.corpus.formats.base import UNREADABLE, UnreadableError, kind_column
from moderay.corpus.formats.json_objects import faults, loaded, parsed
from moderay.corpus.formats.json_types import WORDS, NoType
from moderay.corpus.formats.lines import Lines

# In a schema's metadata: some lines are no objects. In a field's: why it is read as text.
_FAULTY = b"moderay.faulty"
_AS_TEXT = b"moderay.as_text"


def with_faults(schema: pa.Schema, count: int) -> pa.Schema:
    """The schema of a file in which so many lines are no objects."""
    return schema.with_metadata({_FAULTY: str(count)}) if count else schema


def readable(schema: pa.Schema, own: pa.Schema) -> pa.Schema:
    """What a file is read with.

    Args:
        schema: The columns of all files together.
        own: The file's, which says whether it has faults.
    """
    fields = [
        pa.field(field.name, pa.string(), metadata={_AS_TEXT: str(field.type)})
        if isinstance(field.type, NoType)
        else field
        for field in schema
    ]
    return pa.schema(fields, own.metadata)


def selected(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """Some columns of a file's."""
    return pa.schema([field for field in schema if field.name in names], schema.metadata)


def read_rows(lines: Lines, schema: pa.Schema) -> pa.Table:
    """The rows of lines.

    Args:
        lines: Of a file.
        schema: From `selected`.

    Returns:
        The columns of the schema; `UNREADABLE`, where the file has faults; and `kind_column` of
        each that is read as text. A key of the file that has such a name takes their place.

    Raises:
        ArrowInvalid: The lines are not those that the schema was made from.
    """
    found = faults(lines) if _FAULTY in (schema.metadata or {}) else {}
    good = lines.without(found)
    as_text = [field.name for field in schema if _AS_TEXT in (field.metadata or {})]
    table, beside = _with_texts(good, schema, as_text) if as_text else (_objects(good, schema), {})
    if _FAULTY in (schema.metadata or {}):
        why = [f"the line {found[row]}" if row in found else None for row in range(len(lines))]
        beside[UNREADABLE] = pa.array(why, pa.string())
    for name, column in beside.items():
        if name not in schema.names:
            table = table.append_column(name, column)
    return table


def _objects(lines: Lines, schema: pa.Schema) -> pa.Table:
    table = parsed(lines.data, schema)
    if len(table) != len(lines):
        raise UnreadableError(f"{len(lines):,} lines hold {len(table):,} objects")
    return table


def _with_texts(
    lines: Lines, schema: pa.Schema, as_text: Sequence[str]
) -> tuple[pa.Table, dict[str, pa.Array]]:
    """The columns, and beside them those of `kind_column`."""
    try:
        table = _objects(lines, schema)
    except pa.ArrowInvalid:
        # Not all values of these columns are strings.
        typed = selected(schema, [name for name in schema.names if name not in as_text])
        columns = dict(zip(typed.names, _objects(lines, typed).columns, strict=True))
        values = [loaded(lines[row]) for row in range(len(lines))]
        kinds = dict[str, pa.Array]()
        for name in as_text:
            column = [value.get(name) for value in values]
            columns[name] = pa.array(map(_text, column), pa.string())
            kinds[kind_column(name)] = pa.array(map(_kind, column), pa.string())
        return pa.table({name: columns[name] for name in schema.names}), kinds
    return table, {kind_column(name): pa.nulls(len(lines), pa.string()) for name in as_text}


def _text(value: Any) -> str | None:
    is_plain = value is None or isinstance(value, str)
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str | None:
    is_plain = value is None or isinstance(value, str)
    return None if is_plain else WORDS[type(value)]
