"""Schemas of Parquet files as Delta tables have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from moderay.core.errors import UserError
from moderay.core.storage import shown
from moderay.corpus.formats.table_schema import plainest

# By Arrow type: what a reader of the table takes such a column for.
_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.date64(): pa.date32(),
}


class NoDeltaTypeError(UserError):
    """A column is of a type that Delta tables do not have."""


def delta_schema(schema: pa.Schema, where: str) -> pa.Schema:
    """What a Delta table calls the columns of a Parquet file, all of which may be null.

    Args:
        schema: Of the file.
        where: The file or folder, for the error.

    Raises:
        NoDeltaTypeError: A column cannot stand in a Delta table.
    """
    counts = Counter(name.lower() for name in schema.names)
    if twice := sorted(name for name in schema.names if counts[name.lower()] > 1):
        raise NoDeltaTypeError(
            f"{shown(where)}: columns {', '.join(twice)} differ in case only, which tables do not "
            "tell apart: rename one, or leave it out of output.columns"
        )
    fields = []
    for field in schema:
        try:
            fields.append(pa.field(field.name, _table_type(field.type)))
        except pa.ArrowTypeError:
            raise NoDeltaTypeError(
                f"{shown(where)}: column {field.name!r} is {field.type}, which Delta tables do not "
                "have: leave it out of output.columns"
            ) from None
    return pa.schema(fields)


def _table_type(kind: pa.DataType) -> pa.DataType:
    """Raises ArrowTypeError where there is none."""
    kind = plainest(kind)
    if pa.types.is_nested(kind):
        return _nested_type(kind)
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    wider = _WIDER.get(kind, kind)
    if not _is_plain(wider):
        raise pa.ArrowTypeError(str(kind))
    return wider


def _nested_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind) and kind.num_fields:
        return pa.struct([pa.field(field.name, _table_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_table_type(kind.key_type), _table_type(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_table_type(kind.value_type))
    raise pa.ArrowTypeError(str(kind))


def _is_plain(kind: pa.DataType) -> bool:
    """Whether Delta tables have the very type."""
    is_plain: bool = (
        pa.types.is_signed_integer(kind)
        or kind in {pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.binary(), pa.date32()}
        or (pa.types.is_decimal128(kind) and kind.precision <= 38)
    )
    return is_plain


def united(schemas: Iterable[pa.Schema], where: str) -> pa.Schema:
    """Every column of several files, also those within structs.

    Raises:
        NoDeltaTypeError: Two files have a column of one name and of two types.
    """
    whole = pa.schema([])
    for schema in schemas:
        for field in schema:
            at = whole.get_field_index(field.name)
            if at < 0:
                whole = whole.append(field)
            else:
                kind = _united_type(whole.field(at).type, field.type, f"{where}: {field.name}")
                whole = whole.set(at, pa.field(field.name, kind))
    return whole


def _united_type(one: pa.DataType, other: pa.DataType, what: str) -> pa.DataType:
    if one.equals(other):
        return one
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field for field in one}
        for field in other:
            kind = field.type
            if field.name in fields:
                kind = _united_type(fields[field.name].type, kind, f"{what}.{field.name}")
            fields[field.name] = pa.field(field.name, kind)
        return pa.struct(list(fields.values()))
    raise NoDeltaTypeError(
        f"{shown(what)} is {other} in some label files and {one} in others, which one table cannot "
        "hold: label into a new output.path"
    )
