"""Parquet: the footer says what there is; rows are read by row group and column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.errors import first_line
from moderay.core.storage import RemoteFile, get
from moderay.corpus.formats.base import BATCH_BYTES, BATCH_ROWS, Footer, UnreadableError
from moderay.corpus.ranges import Range

# Bytes of a file's end that are read at first.
TAIL = 2**16
# Bytes of the shortest Parquet file there can be.
MIN_FILE = 12


@dataclass(frozen=True)
class Parquet:
    """Of any compression; each file's schema is what its footer says."""

    suffixes: tuple[str, ...] = (".parquet",)
    counted: bool = False

    @staticmethod
    def common(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
        """Each file's own."""
        return list(schemas)

    @staticmethod
    def explicit_schema(schema: pa.Schema) -> pa.Schema | None:
        """None: the footer says it."""
        return None

    def footer(self, fs: Any, path: str, size: int, content: Sequence[str]) -> Footer:
        """As `Format.footer`, by one request for all but the widest schemas."""
        tail = _tail(fs, path, size)
        if not tail:
            raise UnreadableError("no Parquet footer at its end: truncated, or no Parquet file")
        try:
            metadata = pq.read_metadata(pa.BufferReader(tail))
            schema = metadata.schema.to_arrow_schema()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UnreadableError(first_line(error)) from error
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        counted = [
            i
            for i, path in enumerate(paths)
            if any(path == name or path.startswith(f"{name}.") for name in content)
        ]
        size = sum(group.column(i).total_uncompressed_size for group in groups for i in counted)
        return Footer(schema, tuple(group.num_rows for group in groups), size)

    def names(self, fs: Any, path: str) -> list[str]:
        """Of the file's footer."""
        return list(pq.read_schema(RemoteFile(fs, path)).names)

    def tables(  # noqa: PLR0913  as `Format.tables`
        self,
        fs: Any,
        path: str,
        names: Sequence[str],
        schema: pa.Schema | None,
        *,
        rows: int | None = None,
        groups: Range | None = None,
    ) -> Iterator[pa.Table]:
        """As `Format.tables`."""
        # The column chunk is fetched once; nothing is read ahead beyond it.
        with pq.ParquetFile(RemoteFile(fs, path), pre_buffer=True) as file:
            columns = [name for name in file.schema_arrow.names if name in names]
            some = None if groups is None else list(range(*groups))
            for batch in file.iter_batches(
                batch_size=rows or _step(file), row_groups=some, columns=columns, use_threads=False
            ):
                yield pa.Table.from_batches([batch])

    @contextmanager
    def verbatim(self, fs: Any, path: str) -> Iterator[_GroupRows]:
        """As `Format.verbatim`."""
        with pq.ParquetFile(RemoteFile(fs, path), pre_buffer=True) as file:
            yield _GroupRows(file)


def bounded_batches(
    file: pq.ParquetFile, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """(first row, rows) of a Parquet file, in order.

    At most `BATCH_ROWS` or `BATCH_BYTES` at a time.
    """
    start = 0
    for batch in file.iter_batches(batch_size=_step(file), columns=columns, use_threads=False):
        yield start, pa.Table.from_batches([batch])
        start += len(batch)


def _step(file: pq.ParquetFile) -> int:
    """Rows of `BATCH_BYTES` as they are in memory, by the widest row group.

    On storage, text that compresses well is a small part of that.
    """
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    width = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, width)))


def _tail(fs: Any, path: str, size: int) -> bytes:
    """A file's end with the whole footer in it; nothing where there is none.

    One request for all but the widest schemas.
    """
    if size < MIN_FILE:
        return b""
    tail = get(fs, path, max(0, size - TAIL), size)
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] not in (b"PAR1", b"PARE") or needed > size:
        return b""
    return tail if needed <= len(tail) else get(fs, path, size - needed, size)


class _GroupRows:
    """`base.Verbatim`: schema metadata, nested and extension types stay what they are."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        return bounded_batches(self._file)

    def part(self, file: Path, more: Sequence[pa.Field]) -> _GroupPart:
        own = self._file.schema_arrow
        schema = pa.schema([*own, *more], metadata=own.metadata)
        return _GroupPart(file, schema, self._codec())

    def _codec(self) -> str:
        """How the file is compressed, as the writer names it."""
        first = self._file.metadata.row_group(0) if self._file.metadata.num_row_groups else None
        codec = first.column(0).compression if first is not None and first.num_columns else "SNAPPY"
        return {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}.get(codec, codec)


class _GroupPart:
    """Row groups of `BATCH_BYTES`, however few rows of each batch come here."""

    def __init__(self, file: Path, schema: pa.Schema, codec: str) -> None:
        self._file = file
        self._schema = schema
        self._codec = codec
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._bytes = 0  # of what waits

    def add(self, rows: pa.Table, more: list[pa.Array], doubtful: np.ndarray) -> None:
        if len(rows):
            self._waiting.append(pa.Table.from_arrays([*rows.columns, *more], schema=self._schema))
            self._bytes += self._waiting[-1].nbytes
            if self._bytes >= BATCH_BYTES:
                self._flush()

    def close(self, always: bool = False) -> None:
        if self._waiting or always:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        self._writer = self._writer or pq.ParquetWriter(
            self._file, self._schema, compression=self._codec
        )
        self._writer.write_table(
            pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        )
        self._waiting = []
        self._bytes = 0
