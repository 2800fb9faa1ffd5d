"""JSON lines: a JSON object a line, plain or compressed.

A row is a line that is not blank; lines end in a newline, which the last one need not have. There
is no footer: what a file holds is known after it was read once, piece by piece, whatever its size.
A row group of a plain file is the lines that begin in `GROUP_BYTES` of it, so that a large file can
be read from its middle; a compressed file is one row group.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from moderay.core.errors import first_line
from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import Footer, UnreadableError
from moderay.corpus.formats.json_types import common_types, look, parsed, typed, unified
from moderay.corpus.formats.lines import Lines, read_lines
from moderay.corpus.ranges import Range

# Fetched at once.
FETCH_BYTES = 8 * 2**20
# Read at once.
READ_BYTES = 2 * 2**20
# Looked through for their types at once. Where each row has keys of its own, Arrow makes rows x
# rows values of them.
LOOK_BYTES = 2**18
LOOK_ROWS = 1_000
# Of a plain file, in a row group.
GROUP_BYTES = 256 * 2**20


@dataclass(frozen=True)
class JsonLines:
    """Plain, or of one compression.

    Attributes:
        codec: As pyarrow names it; None for plain files.
        end: What names of compressed files end in.
        counted: As `Format.counted`.
    """

    codec: str | None = None
    end: str = ""
    counted: bool = True

    @property
    def suffixes(self) -> tuple[str, ...]:
        """As `Format.suffixes`."""
        return (f".jsonl{self.end}", f".ndjson{self.end}")

    @staticmethod
    def common(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
        """The same columns for all (`common_types`)."""
        return common_types(schemas)

    @staticmethod
    def explicit_schema(schema: pa.Schema) -> pa.Schema | None:
        """The columns that have a type."""
        return typed(schema)

    def footer(self, fs: Any, path: str, listed: FileState, content: Sequence[str]) -> Footer:
        """As `Format.footer`, by a reading of the whole file."""
        size = listed.size
        if self.codec and not size:
            raise UnreadableError("empty: truncated")
        schema = pa.schema([])
        content_bytes = 0
        counts = np.zeros(1 if self.codec else max(1, -(-size // GROUP_BYTES)), np.int64)
        for lines in _of_few_rows(self._lines(fs, path, LOOK_BYTES, listed=listed)):
            columns, table = look(lines)
            schema = unified(schema, columns)
            content_bytes += sum(
                table.column(name).nbytes for name in content if name in table.column_names
            )
            counts += np.bincount(
                np.minimum((lines.at + lines.starts) // GROUP_BYTES, len(counts) - 1),
                minlength=len(counts),
            )
        return Footer(schema, tuple(counts.tolist()), content_bytes)

    def names(self, fs: Any, path: str) -> list[str]:
        """Of the first rows."""
        first = next(_of_few_rows(self._lines(fs, path, LOOK_BYTES)), None)
        return [] if first is None else list(look(first)[0].names)

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
        assert schema is not None, "a file without a footer has its schema from a scan"
        columns = pa.schema([field for field in schema if field.name in names])
        for lines in self._lines(fs, path, READ_BYTES, groups, listed):
            table = parsed(lines.data, columns)
            if len(table) != len(lines):
                raise UnreadableError(f"{len(lines):,} lines hold {len(table):,} objects")
            step = rows or len(lines)
            yield from (table.slice(start, step) for start in range(0, len(table), step))

    @contextmanager
    def verbatim(self, fs: Any, path: str, listed: FileState | None = None) -> Iterator[_LineRows]:
        """As `Format.verbatim`."""
        yield _LineRows(self, fs, path, listed)

    def _lines(  # a file, what of it, and how much at once
        self,
        fs: Any,
        path: str,
        size: int,
        groups: Range | None = None,
        listed: FileState | None = None,
    ) -> Iterator[Lines]:
        """Lines that hold a row, of these row groups or of all."""
        low = 0
        high = None
        if groups is not None and not self.codec:
            low = groups[0] * GROUP_BYTES
            high = groups[1] * GROUP_BYTES
        source = _WatchedFile(fs, path, listed)
        # From the byte before: a line that begins exactly here follows a newline.
        source.seek(max(0, low - 1))
        stream: Any = io.BufferedReader(source, FETCH_BYTES)
        skipped = len(stream.readline()) - 1 if low else 0
        try:
            if self.codec:
                stream = pa.CompressedInputStream(pa.PythonFile(stream, "r"), self.codec)
            yield from _before(read_lines(stream, size, low + skipped), high)
        except OSError as error:
            if source.failed:
                raise
            raise UnreadableError(first_line(error)) from error


def _before(pieces: Iterator[Lines], end: int | None) -> Iterator[Lines]:
    """The lines that begin before a byte of the file; all where it is None."""
    for lines in pieces:
        rows = len(lines) if end is None else int(np.searchsorted(lines.at + lines.starts, end))
        if rows:
            yield lines if rows == len(lines) else lines.part(0, rows)
        if rows < len(lines):
            return


def _of_few_rows(pieces: Iterator[Lines]) -> Iterator[Lines]:
    for lines in pieces:
        yield from (
            lines.part(row, min(row + LOOK_ROWS, len(lines)))
            for row in range(0, len(lines), LOOK_ROWS)
        )


class _WatchedFile(RemoteFile):
    """Remembers that the storage failed: a codec raises OSError as well, for what a file holds."""

    failed = False

    def read(self, size: int = -1) -> bytes:
        """As `RemoteFile.read`."""
        try:
            return super().read(size)
        except OSError:
            self.failed = True
            raise


class _LineRows:
    """`base.Verbatim`: a row is its line, byte for byte, in a column of its own."""

    def __init__(self, format_: JsonLines, fs: Any, path: str, listed: FileState | None) -> None:
        self._format = format_
        self._fs = fs
        self._path = path
        self._listed = listed

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        start = 0
        for lines in self._format._lines(self._fs, self._path, READ_BYTES, listed=self._listed):
            whole = [
                lines.data[first : end + 1]
                for first, end in zip(lines.starts, lines.ends, strict=True)
            ]
            yield start, pa.table({"line": pa.array(whole, pa.large_binary())})
            start += len(lines)

    def part(self, file: Path, more: Sequence[pa.Field]) -> _LinePart:
        return _LinePart(file, pa.schema(more), self._format.codec)


class _LinePart:
    """Lines as they are, with further columns as the last keys of their objects."""

    def __init__(self, file: Path, more: pa.Schema, codec: str | None) -> None:
        self._file = file
        self._more = more
        self._codec = codec
        self._stream: Any = None

    def add(self, rows: pa.Table, more: list[pa.Array]) -> None:
        if len(rows):
            lines = rows.column(0).to_pylist()
            self._opened().write(b"".join(self._with(lines, more) if more else lines))

    def close(self, always: bool = False) -> None:
        if always:
            self._opened()
        if self._stream is not None:
            self._stream.close()

    def _opened(self) -> Any:
        if self._stream is None and self._codec == "gzip":
            # Arrow's is always at level 9, which takes six times as long.
            self._stream = gzip.GzipFile(self._file, "wb", compresslevel=6)
        elif self._stream is None:
            self._stream = pa.output_stream(str(self._file), compression=self._codec)
        return self._stream

    def _with(self, lines: Sequence[bytes], more: list[pa.Array]) -> Iterator[bytes]:
        frame: Any = pl.from_arrow(pa.Table.from_arrays(more, schema=self._more))
        added: list[bytes] = frame.write_ndjson().encode().split(b"\n")
        for line, keys in zip(lines, added, strict=False):  # behind the last newline is nothing
            self._assert_free(line)
            yield spliced(line, keys)

    def _assert_free(self, line: bytes) -> None:
        """A key that only some rows have is not seen by who looks at the first of them."""
        for name in self._more.names:
            if f'"{name}"'.encode() in line and name in json.loads(line):
                raise UnreadableError(
                    f"an object has a key {name!r}, the name of what is added: rename it in the "
                    "input"
                )


def spliced(line: bytes, added: bytes) -> bytes:
    """A line of one object with the keys of another, not empty, behind its own."""
    text = line.rstrip()
    head = text[:-1]
    return b"".join([head, b"" if head.strip() == b"{" else b",", added[1:], line[len(text) :]])
