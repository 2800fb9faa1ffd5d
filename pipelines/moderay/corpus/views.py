"""Arrow's types as plain ones.

Many of its functions do not know views of strings and bytes, which are the same as plain ones in a
Parquet file. And of dictionaries with few indices, two may not fit into one.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def plain_type(kind: pa.DataType) -> pa.DataType:
    """A type with plain strings and bytes in the place of views, at any depth.

    Dictionaries get indices of 32 bits at least: pieces of a file may each have another one, and
    all of them stand in one column of a label file.
    """
    if pa.types.is_dictionary(kind):
        return _with_room(kind)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_item(kind), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(_plain_item(kind))
    return _PLAIN.get(kind, kind)


def _with_room(kind: pa.DictionaryType) -> pa.DictionaryType:
    if kind.index_type.bit_width >= 32:
        return kind
    return pa.dictionary(pa.int32(), kind.value_type, kind.ordered)


def _plain_item(kind: pa.DataType) -> pa.Field:
    field = kind.value_field
    return field.with_type(plain_type(field.type))


def without_views(table: pa.Table) -> pa.Table:
    """A table of plain types; itself where it has no others."""
    schema = pa.schema([field.with_type(plain_type(field.type)) for field in table.schema])
    return table if schema.equals(table.schema) else table.cast(schema)


def view_bytes(values: pa.Array) -> int:
    """Bytes of the texts that views in an array stand for, at any depth.

    One text may stand in all rows, and each view's array has all texts behind it.
    """
    kind = values.type
    if kind in _PLAIN:
        buffer = values.buffers()[1]
        if not len(values):
            return 0
        # A view is 16 bytes, the first four of them its text's length.
        lengths = np.frombuffer(buffer, np.int32).reshape(-1, 4)[values.offset :, 0]
        there = values.is_valid().to_numpy(zero_copy_only=False)
        return 16 * len(values) + int(lengths[: len(values)][there].sum(dtype=np.int64))
    if pa.types.is_struct(kind):
        return sum(map(view_bytes, values.flatten()))
    if pa.types.is_map(kind):
        return view_bytes(values.keys) + view_bytes(values.items)
    return view_bytes(values.flatten()) if pa.types.is_nested(kind) else int(values.nbytes)


def rows_at(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows of a table by their rising positions, whatever its columns' types."""
    if len(rows) == len(table):
        return table
    try:
        return table.take(pa.array(rows, pa.int64()))
    # Of views, and dictionaries that do not fit into one, which a copy of a file keeps.
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []
        parts = [table.slice(run[0], len(run)) for run in runs]
        return pa.concat_tables(parts) if parts else table.slice(0, 0)
