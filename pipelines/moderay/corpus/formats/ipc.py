"""Arrow IPC: files with a footer (Feather of version 2 is one) and streams, compressed or not.

A row group is a record batch. Which of the two a file is, its first bytes say: data sets of Hugging
Face are streams named .arrow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.storage import FileState
from moderay.corpus.formats.base import Footer, GatheredPart, UnreadableError, joined
from moderay.corpus.formats.ipc_file import PIECE_ROWS, IpcFile
from moderay.corpus.formats.ipc_index import IpcIndex
from moderay.corpus.formats.json_types import NoType
from moderay.corpus.ranges import Range

# In a schema's metadata: where the record batches are.
_INDEX = b"moderay.ipc"


@dataclass(frozen=True)
class ArrowIpc:
    """Of any compression; each file's schema is what it says itself.

    Footers are kept: each costs a request for every record batch that is not small.
    """

    suffixes: tuple[str, ...] = (".arrow", ".feather", ".ipc", ".arrows")
    counted: bool = True

    @staticmethod
    def common(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
        """Each file's own."""
        return list(schemas)

    @staticmethod
    def explicit_schema(schema: pa.Schema) -> pa.Schema | None:
        """All of it: it has the places of the record batches with it."""
        return schema

    def footer(self, fs: Any, path: str, listed: FileState, content: Sequence[str]) -> Footer:
        """As `Format.footer`, from the metadata of the record batches, of which no body is read."""
        with _opened(fs, path, listed) as file:
            rows = tuple(block.rows for block in file.batches)
            if sum(rows) > 2**62:
                raise UnreadableError(f"its record batches claim {sum(rows):,} rows")
            with file.blamed():  # also for names that are no text
                schema = _carriable(file.schema)
            metadata = (schema.metadata or {}) | {_INDEX: file.index.packed()}
            size = file.content_bytes(content)
            return Footer(schema.with_metadata(metadata), rows, size)

    def names(self, fs: Any, path: str) -> list[str]:
        """Of the file's schema."""
        with _opened(fs, path, None) as file:
            return list(file.schema.names)

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
        kept = None if schema is None else (schema.metadata or {}).get(_INDEX)
        with _opened(fs, path, listed, kept and IpcIndex.of(kept)) as file:
            yield from file.pieces(names, groups, rows or PIECE_ROWS)

    @contextmanager
    def verbatim(self, fs: Any, path: str, listed: FileState | None = None) -> Iterator[_BatchRows]:
        """As `Format.verbatim`."""
        with _opened(fs, path, listed) as file:
            yield _BatchRows(file)


@contextmanager
def _opened(
    fs: Any, path: str, listed: FileState | None, index: IpcIndex | None = None
) -> Iterator[IpcFile]:
    file = IpcFile(fs, path, listed, index)
    try:
        yield file
    finally:
        file.close()


def _carriable(schema: pa.Schema) -> pa.Schema:
    """A schema in which a type that no label file can have is a `NoType`."""
    with suppress(pa.ArrowException):
        _write_empty(schema)
        return schema
    return pa.schema([_carriable_field(field) for field in schema], schema.metadata)


def _carriable_field(field: pa.Field) -> pa.Field:
    try:
        _write_empty(pa.schema([field]))
    except pa.ArrowException:
        return field.with_type(NoType(f"{field.type}, which Parquet has not"))
    return field


def _write_empty(schema: pa.Schema) -> None:
    with pq.ParquetWriter(io.BytesIO(), schema) as writer:
        writer.write_table(schema.empty_table())


class _BatchRows:
    """`base.Verbatim`: metadata, dictionaries, nested and extension types stay as they are."""

    def __init__(self, file: IpcFile) -> None:
        self._file = file

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        start = 0
        for table in joined(self._file.pieces(None)):
            yield start, table
            start += len(table)

    def part(self, file: Path, more: Sequence[pa.Field]) -> GatheredPart:
        own = self._file.schema
        schema = pa.schema([*own, *more], metadata=own.metadata)
        return GatheredPart(schema, lambda: _Batches(file, schema, self._file))


class _Batches:
    """A writer of record batches, each of all rows that come at once."""

    def __init__(self, file: Path, schema: pa.Schema, like: IpcFile) -> None:
        is_stream = like.index.is_stream
        # In a file with a footer a dictionary may grow, and no other come in its place.
        options = pa.ipc.IpcWriteOptions(
            compression=like.codec(), emit_dictionary_deltas=not is_stream
        )
        new = pa.ipc.new_stream if is_stream else pa.ipc.new_file
        self._writer = new(str(file), schema, options=options)

    def write_table(self, rows: pa.Table) -> None:
        # Where dictionaries do not fit into one, in the batches that came.
        with suppress(pa.ArrowInvalid):
            rows = rows.combine_chunks()
        if len(rows):
            self._writer.write_table(rows)

    def close(self) -> None:
        self._writer.close()
