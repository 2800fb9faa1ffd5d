"""Record batches as Arrow hands them out: checked from end to end, and in pieces."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from moderay.corpus.formats.base import bytes_of
from moderay.corpus.views import plain_type, view_bytes

# Of a piece.
PIECE_BYTES = 16 * 2**20


def validate(batch: pa.RecordBatch) -> None:
    """Assert that a batch is what Arrow takes it for; that a text is UTF-8 is told by row.

    Raises:
        ArrowInvalid: It is not.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        for column in batch.columns:
            column.view(_as_bytes(column.type)).validate(full=True)


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """A type with bytes in the place of texts, at any depth."""
    if isinstance(kind, pa.BaseExtensionType):
        return _as_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _as_bytes(kind.value_type), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_as_bytes(kind.key_type), _as_bytes(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = kind.value_field.with_type(_as_bytes(kind.value_type))
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(item)
    texts = {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }
    return texts.get(kind, kind)


def cut(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    """A table in pieces, halved until they are small enough."""
    for start in range(0, len(table), rows):
        waiting = [table.slice(start, rows)]
        while waiting:
            piece = waiting.pop()
            if len(piece) == 1 or _bytes(piece) <= PIECE_BYTES:
                yield piece
            else:
                half = len(piece) // 2
                waiting += [piece.slice(half), piece.slice(0, half)]


def _bytes(table: pa.Table) -> int:
    """As `bytes_of`; of views their texts, and not all that these lie among."""
    has_views = [_has_views(field.type) for field in table.schema]
    views = sum(
        view_bytes(chunk)
        for column, is_viewed in zip(table.columns, has_views, strict=True)
        for chunk in (column.chunks if is_viewed else ())
    )
    return views + bytes_of(table.select([i for i, has in enumerate(has_views) if not has]))


def _has_views(kind: pa.DataType) -> bool:
    return bool(plain_type(kind) != kind and not pa.types.is_dictionary(kind))
