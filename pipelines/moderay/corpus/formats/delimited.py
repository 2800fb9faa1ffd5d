"""CSV and TSV: a record a row, with a header, plain or compressed.

All values are text: what a column holds is known only when its last file was read, and a type that
is guessed makes 007 another number tomorrow. As of JSON lines there is no footer, and a row group
is the records that begin in `GROUP_BYTES` of a plain file. Where the first of each begins is kept:
from the middle nobody can tell whether a newline is quoted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.storage import FileState
from moderay.corpus.formats.base import UNREADABLE, Footer, UnreadableError
from moderay.corpus.formats.compression import NewFile, decompressed
from moderay.corpus.formats.csv_dialect import NO_UTF8, ByteStream, Dialect, Head, read_head
from moderay.corpus.formats.csv_records import NO_TEXT, Records, read_records
from moderay.corpus.ranges import Range

# Read at once.
READ_BYTES = 2 * 2**20
# Of a plain file, in a row group.
GROUP_BYTES = 256 * 2**20
# Of a file's rows, above which it is in another encoding where all others are ASCII.
MOST_WITHOUT_TEXT = 0.05
# In a schema's metadata: what `tables` needs to know.
_KEPT = b"moderay.csv"


@dataclass(frozen=True)
class Delimited:
    """CSV or TSV, plain or of one compression.

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
        return (f".csv{self.end}", f".tsv{self.end}")

    @staticmethod
    def common(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
        """Each file's own, as its header says it."""
        return list(schemas)

    @staticmethod
    def explicit_schema(schema: pa.Schema) -> pa.Schema | None:
        """All of it."""
        return schema

    def footer(self, fs: Any, path: str, listed: FileState, content: Sequence[str]) -> Footer:
        """As `Format.footer`, by a reading of the whole file."""
        if self.codec and not listed.size:
            raise UnreadableError("empty: truncated")
        groups = 1 if self.codec else max(1, -(-listed.size // GROUP_BYTES))
        counts = np.zeros(groups, np.int64)
        starts = np.full(groups + 1, np.iinfo(np.int64).max)
        content_bytes = 0
        faults = Counter[str]()
        is_ascii = True
        with decompressed(fs, path, self.codec, listed) as stream:
            head = read_head(stream, path)
            wanted = [name for name in head.names if name in content]
            for piece in _records(stream, head):
                group = np.minimum((piece.at + piece.starts) // GROUP_BYTES, groups - 1)
                np.minimum.at(starts, group, piece.at + piece.starts)
                counts += np.bincount(group, minlength=groups)
                faults.update(piece.faults.values())
                is_ascii = is_ascii and piece.plain.isascii()
                content_bytes += int(piece.values(head.dialect, head.names, wanted).nbytes)
        _assert_some_sound(faults, int(counts.sum()), is_ascii)
        starts = np.minimum.accumulate(starts[::-1])[::-1]
        kept = (head.dialect.delimiter, head.names, starts.tolist(), bool(faults))
        fields = [pa.field(name, pa.string()) for name in head.names]
        schema = pa.schema(fields, {_KEPT: json.dumps(kept)})
        return Footer(schema, tuple(counts.tolist()), content_bytes)

    def names(self, fs: Any, path: str) -> list[str]:
        """Of the header."""
        with decompressed(fs, path, self.codec, None) as stream:
            return list(read_head(stream, path).names)

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
        delimiter, columns, starts, is_faulty = json.loads(schema.metadata[_KEPT])
        low, high = groups or (0, len(starts) - 1)
        dialect = Dialect(delimiter, len(columns))
        wanted = [name for name in columns if name in names]
        at = 0 if self.codec else starts[low]
        with decompressed(fs, path, self.codec, listed, at) as stream:
            if self.codec:
                pieces = _records(stream, read_head(stream, path))
            else:
                part = _Part(stream, starts[high] - at)
                pieces = read_records(part, READ_BYTES, dialect, at)
            for piece in pieces:
                table = piece.values(dialect, columns, wanted)
                if piece.faults and not is_faulty:
                    raise UnreadableError(f"a row {next(iter(piece.faults.values()))}")
                if is_faulty and UNREADABLE not in wanted:
                    why = np.full(len(piece), None)
                    why[list(piece.faults)] = [
                        f"the row {fault}" for fault in piece.faults.values()
                    ]
                    table = table.append_column(UNREADABLE, pa.array(why, pa.string()))
                step = rows or len(piece)
                yield from (table.slice(start, step) for start in range(0, len(table), step))

    @contextmanager
    def verbatim(
        self, fs: Any, path: str, listed: FileState | None = None
    ) -> Iterator[_RecordRows]:
        """As `Format.verbatim`."""
        with decompressed(fs, path, self.codec, listed) as stream:
            yield _RecordRows(stream, read_head(stream, path), self.codec)


class _Part:
    """So many bytes of a stream."""

    def __init__(self, stream: ByteStream, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        return data


def _records(stream: ByteStream, head: Head) -> Iterator[Records]:
    """Of a file behind its head."""
    return read_records(stream, READ_BYTES, head.dialect, len(head.header), head.rest)


def _assert_some_sound(faults: Counter[str], rows: int, is_ascii: bool) -> None:
    """Assert that a file holds what its name says.

    Args:
        faults: How many rows have each.
        rows: Of the file.
        is_ascii: Whether the others have nothing but ASCII.

    Raises:
        UnreadableError: It does not.
    """
    no_text = sum(count for fault, count in faults.items() if fault.startswith(NO_TEXT))
    if no_text > MOST_WITHOUT_TEXT * rows and is_ascii:
        raise UnreadableError(f"it {NO_UTF8}")
    if 0 < faults.total() == rows:
        raise UnreadableError(f"not one of its rows is sound; its first row {next(iter(faults))}")


class _RecordRows:
    """`base.Verbatim`: a row is its record, byte for byte, and whether it is one."""

    def __init__(self, stream: ByteStream, head: Head, codec: str | None) -> None:
        self._stream = stream
        self._head = head
        self._codec = codec

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        first = 0
        for piece in _records(self._stream, self._head):
            whole = pa.array([piece[row] for row in range(len(piece))], pa.large_binary())
            sound = pa.array([row not in piece.faults for row in range(len(piece))])
            yield first, pa.table({"record": whole, "sound": sound})
            first += len(piece)

    def part(self, file: Path, more: Sequence[pa.Field]) -> _RecordPart:
        return _RecordPart(file, self._head, pa.schema(more), self._codec)


class _RecordPart:
    """Records as they are below the header, with further columns as the last fields, as JSON.

    A record that is none stays what it is.
    """

    def __init__(self, file: Path, head: Head, more: pa.Schema, codec: str | None) -> None:
        if taken := sorted({*more.names} & {*head.names}):
            raise UnreadableError(
                f"it has a column {taken[0]!r}, the name of what is added: rename it in the input"
            )
        self._dialect = head.dialect
        self._file = NewFile(file, codec, self._with(head.header, more.names))

    def add(self, rows: pa.Table, more: list[pa.Array], doubtful: np.ndarray) -> None:
        if len(rows):
            whole = rows.column("record").to_pylist()
            if more:
                sound = rows.column("sound").to_pylist()
                added = zip(*map(_texts, more), strict=True)
                whole = [
                    self._with(record, texts) if is_sound else record
                    for record, is_sound, texts in zip(whole, sound, added, strict=True)
                ]
            self._file.write(b"".join(whole))

    def close(self, always: bool = False) -> None:
        self._file.close(always)

    def _with(self, record: bytes, texts: Sequence[str]) -> bytes:
        bare = record.removesuffix(b"\n").removesuffix(b"\r")
        quoted = ['"' + text.replace('"', '""') + '"' if text else "" for text in texts]
        added = "".join(self._dialect.delimiter + text for text in quoted)
        return bare + added.encode() + record[len(bare) :]


def _texts(column: pa.Array) -> list[str]:
    """Values as text, structs as JSON; empty ones of nulls."""
    if pa.types.is_struct(column.type):
        import polars as pl  # noqa: PLC0415  late: of a column of JSON only

        series: Any = pl.from_arrow(column)
        column = series.struct.json_encode().to_arrow()
    return [text or "" for text in pc.cast(column, pa.large_string()).to_pylist()]
