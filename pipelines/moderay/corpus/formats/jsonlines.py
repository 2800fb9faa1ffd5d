"""JSON lines: a JSON object a line, plain or compressed.

A row is a line that is not blank, whatever it holds; lines end in a newline, which the last one
need not have. There is no footer: what a file holds is known after it was read once, piece by
piece, whatever its size. A row group of a plain file is the lines that begin in `GROUP_BYTES` of
it, so that a large file can be read from its middle; a compressed file is one row group.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from moderay.core.storage import FileState
from moderay.corpus.formats.base import Footer, UnreadableError
from moderay.corpus.formats.compression import NewFile
from moderay.corpus.formats.json_objects import LOOK_ROWS, faults
from moderay.corpus.formats.json_rows import read_rows, readable, selected, with_faults
from moderay.corpus.formats.json_types import Look, common_types, look, unified_in_file
from moderay.corpus.formats.lines import Lines, few_rows, file_lines, lines
from moderay.corpus.ranges import Range

# Read at once.
READ_BYTES = 2 * 2**20
# Looked through for their types at once.
LOOK_BYTES = 2**18
# Values, nulls among them, that are read at once: a file may have very many keys and short lines.
READ_VALUES = 2**24
# Of a plain file, in a row group.
GROUP_BYTES = 256 * 2**20
# A letter, a digit or an underscore, as nobody writes them.
_ESCAPED = re.compile(rb"\\u00[3-7]")


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
        together = common_types(schemas)
        return [readable(together, schema) for schema in schemas]

    @staticmethod
    def explicit_schema(schema: pa.Schema) -> pa.Schema | None:
        """All of it."""
        return schema

    def footer(self, fs: Any, path: str, listed: FileState, content: Sequence[str]) -> Footer:
        """As `Format.footer`, by a reading of the whole file."""
        size = listed.size
        if self.codec and not size:
            raise UnreadableError("empty: truncated")
        schema = pa.schema([])
        content_bytes = 0
        faulty = 0
        counts = np.zeros(1 if self.codec else max(1, -(-size // GROUP_BYTES)), np.int64)
        nothing_read = "holds no rows"
        for piece in few_rows(self._lines(fs, path, LOOK_BYTES, listed=listed), LOOK_ROWS):
            seen = look(piece)
            if seen.faults and not counts.any():
                nothing_read = _why_nothing(piece, seen.faults)
            schema = unified_in_file(schema, seen.columns)
            faulty += len(seen.faults)
            content_bytes += sum(_content_bytes(piece, seen, name) for name in content)
            counts += np.bincount(
                np.minimum((piece.at + piece.starts) // GROUP_BYTES, len(counts) - 1),
                minlength=len(counts),
            )
        if 0 < faulty == counts.sum():
            raise UnreadableError(nothing_read)
        return Footer(with_faults(schema, faulty), tuple(counts.tolist()), content_bytes)

    def names(self, fs: Any, path: str) -> list[str]:
        """Of the first rows."""
        first = next(few_rows(self._lines(fs, path, LOOK_BYTES), LOOK_ROWS), None)
        return [] if first is None else list(look(first).columns.names)

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
        columns = selected(schema, names)
        most = max(1, READ_VALUES // max(1, len(columns)))
        for piece in few_rows(self._lines(fs, path, READ_BYTES, groups, listed), most):
            table = read_rows(piece, columns)
            step = rows or len(piece)
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
        within = None
        if groups is not None and not self.codec:
            within = (groups[0] * GROUP_BYTES, groups[1] * GROUP_BYTES)
        yield from file_lines(fs, path, self.codec, size=size, within=within, listed=listed)


def _content_bytes(piece: Lines, seen: Look, name: str) -> int:
    """Of a column in memory; at most, where it has no type."""
    if name in seen.table.column_names:
        return int(seen.table.column(name).nbytes)
    return len(piece.data) if name in seen.columns.names else 0


def _why_nothing(piece: Lines, found: Mapping[int, str]) -> str:
    """Why a file that begins with these lines has not one that is an object."""
    row = min(found)
    line = piece[row]
    encoding = json.detect_encoding(piece.data)
    if encoding.startswith(("utf-16", "utf-32")):
        text = line.decode(encoding, errors="ignore").lstrip("\ufeff \t\r\n")
        if text.startswith(("{", "[")):
            name = encoding[:6].upper()
            return f"it is {name}, not UTF-8: convert it, for example with iconv -f {name} -t UTF-8"
    if len(piece) == 1 and b"\r" in line.strip():
        return "its lines end in a carriage return alone: end them in a newline"
    number = piece.line_of(int(piece.starts[row]))
    return f"not one of its lines is a JSON object; line {number} {found[row]}"


class _LineRows:
    """`base.Verbatim`: a row is its line, byte for byte, in a column of its own."""

    def __init__(self, format_: JsonLines, fs: Any, path: str, listed: FileState | None) -> None:
        self._format = format_
        self._fs = fs
        self._path = path
        self._listed = listed

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        start = 0
        for piece in self._format._lines(self._fs, self._path, READ_BYTES, listed=self._listed):
            whole = [
                piece.data[first : end + 1]
                for first, end in zip(piece.starts, piece.ends, strict=True)
            ]
            yield start, pa.table({"line": pa.array(whole, pa.large_binary())})
            start += len(piece)

    def part(self, file: Path, more: Sequence[pa.Field]) -> _LinePart:
        return _LinePart(file, pa.schema(more), self._format.codec)


class _LinePart:
    """Lines as they are, with further columns as the last keys of their objects.

    A line that is no object stays what it is.
    """

    def __init__(self, file: Path, more: pa.Schema, codec: str | None) -> None:
        self._file = NewFile(file, codec)
        self._more = more

    def add(self, rows: pa.Table, more: list[pa.Array], doubtful: np.ndarray) -> None:
        if len(rows):
            whole = rows.column(0).to_pylist()
            self._file.write(b"".join(self._with(whole, more, doubtful) if more else whole))

    def close(self, always: bool = False) -> None:
        self._file.close(always)

    def _with(
        self, whole: Sequence[bytes], more: list[pa.Array], doubtful: np.ndarray
    ) -> Iterator[bytes]:
        import polars as pl  # noqa: PLC0415  late: where labels are added to lines only

        frame: Any = pl.from_arrow(pa.Table.from_arrays(more, schema=self._more))
        added: list[bytes] = frame.write_ndjson().encode().splitlines()
        asked = np.flatnonzero(doubtful)
        found = faults(lines(b"".join(whole[row] for row in asked))) if len(asked) else {}
        no_objects = set(asked[list(found)].tolist())
        for row, (line, keys) in enumerate(zip(whole, added, strict=True)):
            if row in no_objects:
                yield line
            else:
                self._assert_free(line)
                yield spliced(line, keys)

    def _assert_free(self, line: bytes) -> None:
        """A key that only some rows have is not seen by who looks at the first of them."""
        is_escaped = _ESCAPED.search(line) is not None
        for name in self._more.names:
            if (is_escaped or f'"{name}"'.encode() in line) and name in json.loads(line):
                raise UnreadableError(
                    f"an object has a key {name!r}, the name of what is added: rename it in the "
                    "input"
                )


def spliced(line: bytes, added: bytes) -> bytes:
    """A line of one object with the keys of another, not empty, behind its own."""
    text = line.rstrip()
    head = text[:-1]
    return b"".join([head, b"" if head.strip() == b"{" else b",", added[1:], line[len(text) :]])
