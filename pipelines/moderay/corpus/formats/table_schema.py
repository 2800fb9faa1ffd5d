"""The columns of a table, as its files are read: each file has them all, whatever lies in it.

A table's schema says what a file's columns are called and of which type they are. What a file lacks
is null, or one value in all its rows, which stands with the field: partition values are written
into no file.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

_VALUE = b"moderay.value"
_ID = b"PARQUET:field_id"
_PLAIN = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}
_WIDER = {
    pa.int8(): (pa.int16(), pa.int32(), pa.int64()),
    pa.int16(): (pa.int32(), pa.int64()),
    pa.int32(): (pa.int64(),),
    pa.float32(): (pa.float64(),),
}


def with_value(field: pa.Field, value: Any) -> pa.Field:
    """A field that has this value in all rows of a file without such a column."""
    batch = pa.record_batch([pa.array([_plain_value(value, field.type)], field.type)], ["value"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    value_of = {_VALUE: base64.b64encode(sink.getvalue().to_pybytes())}
    return field.with_metadata({**(field.metadata or {}), **value_of})


def is_valued(field: pa.Field) -> bool:
    """Whether a field has a value for all rows of a file: one by which its table is parted."""
    return _VALUE in (field.metadata or {})


def _plain_value(value: Any, kind: pa.DataType) -> Any:
    """A value as Arrow takes it: a date or time may be a number of days or microseconds."""
    if isinstance(value, int) and pa.types.is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.scalar(value, width).cast(kind)
    return value


def plainest_schema(schema: pa.Schema) -> pa.Schema:
    """A table's schema with the plainest types that hold the same."""
    return pa.schema(
        [pa.field(field.name, plainest(field.type), metadata=field.metadata) for field in schema]
    )


def plainest(kind: pa.DataType) -> pa.DataType:
    """The type that stands for all that hold the same: of texts, lists, dictionaries and times."""
    if pa.types.is_dictionary(kind):
        kind = plainest(kind.value_type)
    elif pa.types.is_timestamp(kind):
        kind = pa.timestamp("us", "UTC" if kind.tz else None)
    elif pa.types.is_struct(kind):
        kind = pa.struct([pa.field(field.name, plainest(field.type)) for field in kind])
    elif pa.types.is_map(kind):
        kind = pa.map_(plainest(kind.key_type), plainest(kind.item_type))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = pa.list_(pa.field("element", plainest(kind.value_type)))
    return _PLAIN.get(kind, kind)


def misfits(file: pa.Schema, table: pa.Schema) -> Iterator[str]:
    """Why a file's columns are not those of its table, a clause each."""
    for field in table:
        found = file.get_all_field_indices(field.name)
        if len(found) > 1:
            yield f"it has two columns {field.name!r}"
        elif found:
            yield from _misfit(file.field(found[0]), field)
        elif _id(field) is not None:
            yield from _unlike(file, field)


def _misfit(own: pa.Field, field: pa.Field) -> Iterator[str]:
    """Why a column of a file is not the table's column of the same name."""
    if _id(field) is not None and _id(own) not in (None, _id(field)):
        yield f"its column {field.name!r} is another one than the table's of this name"
    elif not _holds(plainest(own.type), field.type):
        yield f"its column {field.name!r} is {own.type}, and {field.type} in the table"


def _unlike(file: pa.Schema, field: pa.Field) -> Iterator[str]:
    """Why a column that a file seems not to have may be in it under another name."""
    ids = {_id(own): own.name for own in file}
    if (other := ids.get(_id(field))) is not None:
        yield f"its column {other!r} is {field.name!r} in the table"
    elif set(ids) == {None} and _VALUE not in field.metadata:
        yield f"it has no field ids and no column {field.name!r}"


def _id(field: pa.Field) -> bytes | None:
    """Iceberg's number of a column, which stays where its name changes."""
    found: bytes | None = (field.metadata or {}).get(_ID)
    return found


def _holds(own: pa.DataType, kind: pa.DataType) -> bool:
    """Whether each value of one type is exactly one of the other."""
    if pa.types.is_decimal(own) and pa.types.is_decimal(kind):
        return bool(own.scale == kind.scale and own.precision <= kind.precision)
    return own == kind or kind in _WIDER.get(own, ())


def plain_fields(schema: pa.Schema) -> pa.Schema:
    """A schema as people see it: without what is noted with its fields."""
    return pa.schema([field.remove_metadata() for field in schema])


def fitted(rows: pa.Table, schema: pa.Schema, names: Sequence[str]) -> pa.Table:
    """Rows of a file as rows of its table.

    Args:
        rows: What of the wanted columns the file has; one column at least.
        schema: The table's.
        names: The wanted columns.
    """
    fields = [field for field in schema if field.name in names]
    return pa.Table.from_arrays(
        [_column(rows, field) for field in fields],
        schema=pa.schema([field.remove_metadata() for field in fields]),
    )


def _column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name in rows.column_names:
        column = rows.column(field.name)
        # Of times, engines read no more than microseconds.
        safe = not pa.types.is_timestamp(field.type)
        return column if column.type == field.type else column.cast(field.type, safe=safe)
    stored = (field.metadata or {}).get(_VALUE)
    if stored is None:
        return pa.chunked_array([pa.nulls(len(rows), field.type)])
    with pa.ipc.open_stream(base64.b64decode(stored)) as stream:
        value = stream.read_all().column("value")[0]
    return pa.chunked_array([pa.repeat(value, len(rows))])
