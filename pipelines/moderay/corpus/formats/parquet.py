"""Parquet: the footer says what there is; rows are read by row group and column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import Footer, GatheredPart
from moderay.corpus.formats.parquet_file import PIECE_ROWS, BoundedFile, bounded_batches
from moderay.corpus.formats.parquet_footer import read_footer
from moderay.corpus.formats.table_schema import fitted, plain_fields
from moderay.corpus.ranges import Range


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
        return read_footer(fs, path, listed, content)

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
        """As `Format.tables`; there is a `schema` where the file is one of a table."""
        with BoundedFile(fs, path, listed) as file:
            own = file.schema_arrow.names
            columns = [name for name in own if name in names]
            if schema is None:
                yield from file.pieces(columns, groups, rows or PIECE_ROWS)
                return
            # One column at least: it tells how many rows there are.
            for piece in file.pieces(columns or own[:1], groups, rows or PIECE_ROWS):
                yield fitted(piece, schema, names)

    @contextmanager
    def verbatim(self, fs: Any, path: str, listed: FileState | None = None) -> Iterator[_GroupRows]:
        """As `Format.verbatim`."""
        with BoundedFile(fs, path, listed) as file:
            yield _GroupRows(file)

    @contextmanager
    def of_table(
        self, fs: Any, path: str, schema: pa.Schema, listed: FileState | None = None
    ) -> Iterator[_GroupRows]:
        """As `verbatim`, of a table's file; `schema`: the table's."""
        with BoundedFile(fs, path, listed) as file:
            yield _GroupRows(file, schema)


class _GroupRows:
    """`base.Verbatim`: schema metadata, nested and extension types stay what they are.

    Of a table's file they are the table's rows: columns of other files and partition values are
    among them.
    """

    def __init__(self, file: BoundedFile, table: pa.Schema | None = None) -> None:
        self._file = file
        self._table = table

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        for start, rows in bounded_batches(self._file):
            table = self._table
            yield start, rows if table is None else fitted(rows, table, table.names)

    def part(self, file: Path, more: Sequence[pa.Field]) -> GatheredPart:
        own = self._file.schema_arrow if self._table is None else plain_fields(self._table)
        schema = pa.schema([*own, *more], metadata=own.metadata)
        return GatheredPart(
            schema, lambda: pq.ParquetWriter(file, schema, compression=self._codec())
        )

    def _codec(self) -> str:
        """How the file is compressed, as the writer names it; of one that was read from."""
        groups = map(self._file.metadata.row_group, range(self._file.num_row_groups))
        first = next((group for group in groups if group.num_rows), None)
        codec = first.column(0).compression if first is not None else "SNAPPY"
        return {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}.get(codec, codec)
