"""Footers of Parquet files: read by themselves, and believed only as far as they can be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.errors import first_line
from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import Footer, UnreadableError

# Bytes of a file's end that are read at first.
TAIL = 2**16
# Bytes of the shortest Parquet file there can be.
MIN_FILE = 12
# Of rows or bytes, the most that a file can hold: what a footer claims is added up in 64 bits.
MOST = 2**62


def read_footer(fs: Any, path: str, listed: FileState, content: Sequence[str]) -> Footer:
    """As `Format.footer`, by one request for all but the widest schemas."""
    tail = _tail(fs, path, listed)
    if not tail:
        raise UnreadableError("no Parquet footer at its end: truncated, or no Parquet file")
    try:
        with pq.ParquetFile(_Tail(tail, listed.size), pre_buffer=True) as file:
            metadata = file.metadata
            schema = file.schema_arrow
            rows = _rows_of(metadata)
            _assert_sound(file, [name for name in content if name in schema.names])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UnreadableError(first_line(error)) from error
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    counted = [
        i
        for i, path in enumerate(paths)
        if any(path == name or path.startswith(f"{name}.") for name in content)
    ]
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [[group.column(i) for i in counted] for group in groups]
    size = sum(chunk.total_uncompressed_size for of_group in chunks for chunk in of_group)
    _assert_values(rows, chunks)
    return Footer(schema, rows, min(max(size, 0), MOST))


def _tail(fs: Any, path: str, listed: FileState) -> bytes:
    """A file's end with the whole footer in it; nothing where there is none.

    One request for all but the widest schemas.
    """
    if listed.size < MIN_FILE:
        return b""
    with RemoteFile(fs, path, listed) as file:
        file.seek(max(0, listed.size - TAIL))
        tail = file.read()
        needed = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] not in (b"PAR1", b"PARE") or needed > listed.size:
            return b""
        file.seek(listed.size - needed)
        return tail if needed <= len(tail) else file.read()


class _Tail(io.BytesIO):
    """A file of which only the end is there; to read before it raises `_NotThereError`."""

    def __init__(self, tail: bytes, size: int) -> None:
        super().__init__(tail)
        self._missing = size - len(tail)

    def tell(self) -> int:
        return super().tell() + self._missing

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            return super().seek(offset, whence) + self._missing
        if offset < self._missing:
            raise _NotThereError
        return super().seek(offset - self._missing) + self._missing


class _NotThereError(Exception):
    """Only the end of this file was fetched."""


def _assert_sound(file: pq.ParquetFile, columns: Sequence[str]) -> None:
    """Assert that what a footer says of some columns can be looked at.

    Where it contradicts itself, `RowGroupMetaData.column` of pyarrow 26 ends the process. A reader
    looks at all of it before it reads the first page, and raises.

    Raises:
        pa.ArrowException: It cannot, as OSError.
    """
    groups = range(file.num_row_groups)
    if groups and columns:
        with suppress(_NotThereError):
            next(file.iter_batches(1, row_groups=groups, columns=columns, use_threads=False), None)


def _rows_of(metadata: pq.FileMetaData) -> tuple[int, ...]:
    """Rows of each row group.

    Raises:
        UnreadableError: The footer contradicts itself.
    """
    rows = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    if min(rows, default=0) < 0 or not sum(rows) == metadata.num_rows <= MOST:
        raise UnreadableError(
            f"its footer claims {metadata.num_rows:,} rows, and {sum(rows):,} in its row groups"
        )
    return rows


def _assert_values(rows: Sequence[int], chunks: Sequence[Sequence[Any]]) -> None:
    """Assert that there can be so many rows.

    Args:
        rows: Of each row group.
        chunks: By row group, what the footer says of some columns in it.

    Raises:
        UnreadableError: The footer contradicts itself.
    """
    for count, of_group in zip(rows, chunks, strict=True):
        for chunk in of_group:
            # A list has a value for each of its items, and one where it has none.
            if chunk.num_values < count:
                raise UnreadableError(
                    f"its footer claims {count:,} rows, and {chunk.num_values:,} values of "
                    f"{chunk.path_in_schema}"
                )
