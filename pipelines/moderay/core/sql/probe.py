"""A table of two rows on which an expression is tried before it meets the input.

Polars checks types on an empty table, but finds some casts that cannot be only when it has a value.
"""

from __future__ import annotations

import decimal
from typing import Any

import pyarrow as pa


def probe(schema: pa.Schema) -> pa.Table:
    """A row of nulls, and one of values that are no number where they are texts."""
    nullable = pa.schema([field.with_nullable(True) for field in schema])
    columns = [_column(field.type) for field in nullable]
    return pa.Table.from_arrays(columns, schema=nullable)


def _column(kind: pa.DataType) -> pa.Array:
    try:
        return pa.array([None, _value(kind)], kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.nulls(2, kind)


def _value(kind: pa.DataType) -> Any:  # noqa: PLR0911  # a type each
    types = pa.types
    if types.is_struct(kind):
        return {field.name: _value(field.type) for field in kind}
    if types.is_map(kind):
        return [(_value(kind.key_type), _value(kind.item_type))]
    if types.is_fixed_size_list(kind):
        return [_value(kind.value_type)] * kind.list_size
    if types.is_list(kind) or types.is_large_list(kind):
        return [_value(kind.value_type)]
    if types.is_dictionary(kind):
        return _value(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "a"
    if types.is_fixed_size_binary(kind):
        return b"a" * kind.byte_width
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return b"a"
    return _plain_value(kind)


def _plain_value(kind: pa.DataType) -> Any:
    """Of a type that has no parts."""
    types = pa.types
    if types.is_boolean(kind):
        return True
    if types.is_decimal(kind):
        return decimal.Decimal(1)
    if types.is_temporal(kind) and not types.is_interval(kind):
        # No calendar reaches as far: Polars panics where it writes such a day out.
        return 2 ** (kind.bit_width - 1) - 1
    return None if types.is_null(kind) else 1
