"""Values of any input column, as JSON can hold them."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
from pydantic import JsonValue

from moderay.corpus.views import plain_type


def plain_values(column: pa.ChunkedArray) -> list[JsonValue]:
    """A carried column's values: themselves where JSON knows them, else as people write them.

    Texts are read from bytes, since one that is no UTF-8 fails a whole column.
    """
    kind = _bytes_type(plain_type(column.type))
    return [
        _plain(value) for chunk in column.chunks for value in chunk.cast(kind, False).to_pylist()
    ]


def _bytes_type(kind: pa.DataType) -> pa.DataType:
    """A type with bytes in the place of texts, in structs and lists too."""
    if pa.types.is_dictionary(kind):
        return _bytes_type(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_bytes_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_bytes_type(kind.value_type)))
    return kind


def _plain(value: Any) -> JsonValue:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value)
