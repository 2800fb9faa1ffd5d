"""Parquet: the footer says what there is; rows are read by row group and column."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.errors import first_line
from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import (
    BATCH_BYTES,
    Footer,
    UnreadableError,
    bytes_of,
    joined,
)
from moderay.corpus.ranges import Range

# Bytes of a file's end that are read at first.
TAIL = 2**16
# Bytes of the shortest Parquet file there can be.
MIN_FILE = 12
# Of rows or bytes, the most that a file can hold: what a footer claims is added up in 64 bits.
MOST = 2**62
# Rows and bytes that are decoded at once.
PIECE_ROWS = 8192
PIECE_BYTES = 16 * 2**20
# How many times as many rows are decoded at once as were before.
GROWTH = 8
# Rows that are looked at for the dictionaries of a row group.
LOOK_ROWS = 64


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

    def footer(self, fs: Any, path: str, listed: FileState, content: Sequence[str]) -> Footer:
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

    def names(self, fs: Any, path: str) -> list[str]:
        """Of the file's footer."""
        with RemoteFile(fs, path) as source:
            return list(pq.read_schema(source).names)

    def tables(  # noqa: PLR0913  as `Format.tables`
        self,
        fs: Any,
        path: str,
        names: Sequence[str],
        schema: pa.Schema | None,
        *,
        rows: int | None = None,
        groups: Range | None = None,
        listed: FileState | None = None,
    ) -> Iterator[pa.Table]:
        """As `Format.tables`."""
        with BoundedFile(fs, path, listed) as file:
            columns = [name for name in file.schema_arrow.names if name in names]
            yield from file.pieces(columns, groups, rows or PIECE_ROWS)

    @contextmanager
    def verbatim(self, fs: Any, path: str, listed: FileState | None = None) -> Iterator[_GroupRows]:
        """As `Format.verbatim`."""
        with BoundedFile(fs, path, listed) as file:
            yield _GroupRows(file)


class BoundedFile(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """An opened Parquet file that is read within bounds, whatever it says of itself.

    A column chunk is fetched at once; nothing is read ahead beyond it.
    """

    def __init__(self, fs: Any, path: str, listed: FileState | None = None) -> None:
        """Open a file and read its footer.

        Args:
            fs: Its file system.
            path: Its path there.
            listed: What it was when it was listed.

        Raises:
            UnreadableError: It is no Parquet file.
            OSError: The store does not give it.
        """
        self._source = _Ranges(fs, path, listed)
        with self._blamed():
            super().__init__(self._source, pre_buffer=True, page_checksum_verification=True)

    def close(self, force: bool = False) -> None:
        """Let go of the file."""
        super().close(force)
        self._source.close()

    def pieces(
        self, columns: Sequence[str] | None, groups: Range | None = None, most: int = PIECE_ROWS
    ) -> Iterator[pa.Table]:
        """The rows of row groups, in order, at most so many or about `PIECE_BYTES` at a time.

        No footer is believed, neither what it says of bytes (one text in a dictionary may stand in
        all rows) nor of rows: a group that ends before its count would shift those behind it.

        Raises:
            UnreadableError: The file does not hold what its footer says.
            OSError: The store does not give it.
        """
        low, high = groups or (0, self.num_row_groups)
        if high > self.num_row_groups:
            counted = f"{high:,} were counted"
            raise UnreadableError(f"it has {self.num_row_groups:,} row groups, and {counted}")
        step = 1
        with self._blamed():
            for group in range(low, high):
                widest = min(most, max(1, PIECE_BYTES // self._longest_text(group, columns)))
                for table in self._group_pieces(group, columns, min(step, widest)):
                    yield table
                    # The next rows are taken to be as wide as these, and no more than so many
                    # times as many are read.
                    fitting = PIECE_BYTES * len(table) // max(1, bytes_of(table))
                    step = max(1, min(widest, GROWTH * step, fitting))
                    self.reader.set_batch_size(step)

    def _group_pieces(
        self, group: int, columns: Sequence[str] | None, step: int
    ) -> Iterator[pa.Table]:
        """A row group by batches, the first of so many rows."""
        claimed = left = self.metadata.row_group(group).num_rows
        batches = self.iter_batches(step, row_groups=[group], columns=columns, use_threads=False)
        while left > 0:
            batch = next(batches, None)
            if batch is None or not len(batch):
                raise UnreadableError(
                    f"row group {group} ends after {claimed - left:,} rows, and its footer claims "
                    f"{claimed:,}"
                )
            left -= len(batch)
            yield pa.Table.from_batches([batch])

    def _longest_text(self, group: int, columns: Sequence[str] | None) -> int:
        """Bytes of the longest value that a few bytes in a row group's pages may stand for."""
        schema = self.metadata.schema
        leaves = [schema.column(i) for i in range(len(schema))]
        wanted = [
            leaf for leaf in leaves if columns is None or leaf.path.partition(".")[0] in columns
        ]
        fixed = max((leaf.length for leaf in wanted), default=0)
        texts = [leaf.path for leaf in wanted if leaf.physical_type == "BYTE_ARRAY"]
        if not texts or not self.metadata.row_group(group).num_rows:
            return max(1, fixed)
        with self._source.kept():
            file = pq.ParquetFile(
                self._source, metadata=self.metadata, read_dictionary=texts, pre_buffer=True
            )
            batches = file.iter_batches(
                LOOK_ROWS, row_groups=[group], columns=columns, use_threads=False
            )
            first = next(batches, None)
        return max(1, fixed, *[_longest(column) for column in (first.columns if first else [])])

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """What a library raises is of what the file holds, unless the store has failed."""
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if self._source.failed or isinstance(error, UnreadableError):
                raise
            raise UnreadableError(first_line(error)) from error


class _Ranges(RemoteFile):
    """Gives what was read inside `kept` a second time, from memory."""

    def __init__(self, fs: Any, path: str, listed: FileState | None) -> None:
        super().__init__(fs, path, listed)
        self._kept: dict[tuple[int, int], bytes] = {}
        self._keeps = False

    @contextmanager
    def kept(self) -> Iterator[None]:
        self._kept = {}
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False

    def read(self, size: int = -1) -> bytes:
        part = (self.tell(), size)
        data = self._kept.pop(part, None)
        if data is None:
            data = super().read(size)
        else:
            self.seek(part[0] + len(data))
        if self._keeps:
            self._kept[part] = data
        return data


def _longest(values: pa.Array) -> int:
    """Bytes of the longest text in the dictionaries of a column and of what is nested in it."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return pc.max(pc.binary_length(values.dictionary)).as_py() or 0
    if pa.types.is_struct(kind):
        return max((_longest(values.field(i)) for i in range(kind.num_fields)), default=0)
    if pa.types.is_map(kind):
        return max(_longest(values.keys), _longest(values.items))
    return _longest(values.values) if pa.types.is_nested(kind) else 0


def bounded_batches(
    file: BoundedFile, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """(first row, rows) of a Parquet file, in order.

    At most `BATCH_ROWS` or `BATCH_BYTES` at a time.
    """
    start = 0
    for table in joined(file.pieces(columns)):
        yield start, table
        start += len(table)


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


class _GroupRows:
    """`base.Verbatim`: schema metadata, nested and extension types stay what they are."""

    def __init__(self, file: BoundedFile) -> None:
        self._file = file

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        return bounded_batches(self._file)

    def part(self, file: Path, more: Sequence[pa.Field]) -> _GroupPart:
        own = self._file.schema_arrow
        schema = pa.schema([*own, *more], metadata=own.metadata)
        return _GroupPart(file, schema, self._codec)

    def _codec(self) -> str:
        """How the file is compressed, as the writer names it; of one that was read from."""
        groups = map(self._file.metadata.row_group, range(self._file.num_row_groups))
        first = next((group for group in groups if group.num_rows), None)
        codec = first.column(0).compression if first is not None else "SNAPPY"
        return {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}.get(codec, codec)


class _GroupPart:
    """Row groups of `BATCH_BYTES`, however few rows of each batch come here."""

    def __init__(self, file: Path, schema: pa.Schema, codec: Callable[[], str]) -> None:
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
            self._file, self._schema, compression=self._codec()
        )
        self._writer.write_table(
            pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        )
        self._waiting = []
        self._bytes = 0
