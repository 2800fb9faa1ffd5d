"""CSV and TSV: a record a row, with a header, plain or compressed.

All values are text: what a column holds is known only when its last file was read, and a type that
is guessed makes 007 another number tomorrow. As of JSON lines there is no footer, and a row group
is the records that begin in `GROUP_BYTES` of a plain file. Where the first of each begins is kept:
from the middle nobody can tell whether a newline is quoted.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from moderay.core.errors import first_line
from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import UNREADABLE, Footer, UnreadableError
from moderay.corpus.formats.csv_records import Dialect, Records, read_records
from moderay.corpus.ranges import Range

# Fetched at once.
FETCH_BYTES = 8 * 2**20
# Read at once.
READ_BYTES = 2 * 2**20
# Of a plain file, in a row group.
GROUP_BYTES = 256 * 2**20
# Of a file's beginning, in which its header ends and its dialect shows.
HEAD_BYTES = 2**20
# Of a file.
MOST_COLUMNS = 10_000

_DELIMITERS = ",;\t|"
_MARK = b"\xef\xbb\xbf"
# In a schema's metadata: what `_Kept` holds.
_KEPT = b"moderay.csv"


@dataclass(frozen=True)
class _Head:
    """How a file begins.

    Attributes:
        dialect: Of its records.
        names: Its columns in order.
        header: The bytes of the header, with its newline.
        end: The byte of the file behind the header.
    """

    dialect: Dialect
    names: tuple[str, ...]
    header: bytes
    end: int


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
        groups = 1 if self.codec else max(1, -(-listed.size // GROUP_BYTES))
        counts = np.zeros(groups, np.int64)
        starts = [-1] * groups
        content_bytes = faulty = 0
        first_fault = ""
        with self._opened(fs, path, listed) as stream:
            head = _head(stream, path)
            for piece in read_records(stream, READ_BYTES, head.dialect, head.end):
                where = np.minimum((piece.at + piece.starts) // GROUP_BYTES, groups - 1)
                for group, row in zip(*np.unique(where, return_index=True), strict=True):
                    if starts[group] < 0:
                        starts[group] = piece.at + int(piece.starts[row])
                counts += np.bincount(where, minlength=groups)
                faulty += len(piece.faults)
                if piece.faults and not first_fault:
                    first_fault = f"its first row {piece.faults[min(piece.faults)]}"
                if content:
                    wanted = [name for name in head.names if name in content]
                    content_bytes += int(_values(piece, head, wanted).nbytes) if wanted else 0
        if 0 < faulty == counts.sum():
            raise UnreadableError(f"not one of its rows is sound; {first_fault}")
        kept = {
            "delimiter": head.dialect.delimiter,
            "backslash": head.dialect.backslash,
            "names": head.names,
            "starts": starts,
            "faulty": faulty,
        }
        schema = pa.schema(
            [pa.field(name, pa.string()) for name in head.names], {_KEPT: json.dumps(kept)}
        )
        return Footer(schema, tuple(counts.tolist()), content_bytes)

    def names(self, fs: Any, path: str) -> list[str]:
        """Of the header."""
        with self._opened(fs, path, None) as stream:
            return list(_head(stream, path).names)

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
        kept = json.loads(schema.metadata[_KEPT])
        dialect = Dialect(kept["delimiter"], kept["backslash"], len(kept["names"]))
        low, high = groups or (0, len(kept["starts"]))
        inside = [start for start in kept["starts"][low:high] if start >= 0]
        if not inside:
            return
        end = next((start for start in kept["starts"][high:] if start >= 0), None)
        head = _Head(dialect, tuple(kept["names"]), b"", 0)
        wanted = [name for name in schema.names if name in names]
        with self._opened(fs, path, listed, 0 if self.codec else inside[0]) as stream:
            if self.codec:
                _head(stream, path)
            for piece in _before(read_records(stream, READ_BYTES, dialect, inside[0]), end):
                table = _values(piece, head, wanted)
                if kept["faulty"]:
                    why = [None] * len(piece)
                    for row, reason in piece.faults.items():
                        why[row] = f"the row {reason}"  # type: ignore[call-overload]
                    table = table.append_column(UNREADABLE, pa.array(why, pa.string()))
                elif piece.faults:
                    raise UnreadableError(f"a row {next(iter(piece.faults.values()))}")
                step = rows or max(1, len(piece))
                yield from (table.slice(at, step) for at in range(0, len(table), step))

    @contextmanager
    def verbatim(
        self, fs: Any, path: str, listed: FileState | None = None
    ) -> Iterator[_RecordRows]:
        """As `Format.verbatim`."""
        with self._opened(fs, path, listed) as stream:
            yield _RecordRows(stream, _head(stream, path), self.codec)

    @contextmanager
    def _opened(self, fs: Any, path: str, listed: FileState | None, at: int = 0) -> Iterator[Any]:
        """What a file holds, decompressed, from a byte of it on."""
        with RemoteFile(fs, path, listed) as source:
            source.seek(at)
            stream: Any = io.BufferedReader(source, FETCH_BYTES)
            try:
                if self.codec:
                    if listed is not None and not listed.size:
                        raise UnreadableError("empty: truncated")
                    stream = pa.CompressedInputStream(pa.PythonFile(stream, "r"), self.codec)
                yield _Ahead(stream)
            except OSError as error:
                if source.failed:
                    raise
                raise UnreadableError(first_line(error)) from error


class _Ahead:
    """A stream of which some bytes were read already."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._ahead = b""

    def read(self, size: int) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return bytes(self._stream.read(size))

    def unread(self, data: bytes) -> None:
        self._ahead = data + self._ahead


def _head(stream: _Ahead, path: str) -> _Head:
    """Read a file's header, and leave the stream behind it.

    Raises:
        UnreadableError: There is none.
    """
    data = b""
    while len(data) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(data))):
        data += more
    mark = len(_MARK) if data.startswith(_MARK) else 0
    encoding = json.detect_encoding(data[mark : mark + 4])
    if encoding.startswith(("utf-16", "utf-32")):
        name = encoding[:6].upper()
        raise UnreadableError(
            f"it is {name}, not UTF-8: convert it, for example with iconv -f {name} -t UTF-8"
        )
    start = mark
    while start < len(data) and data[start] in b"\r\n":
        start += 1
    if start == len(data):
        raise UnreadableError("it has no header: it is empty")
    whole = data if data.endswith(b"\n") or len(data) == HEAD_BYTES else data + b"\n"
    is_tabs = path.lower().partition("?")[0].removesuffix(".gz").removesuffix(".zst")
    dialect = _dialect(whole[start:], "\t" if is_tabs.endswith(".tsv") else None)
    match = dialect.record.match(whole, start)
    if match is None:
        raise UnreadableError(
            f"its header opens a quote that is not closed, or is longer than {HEAD_BYTES:,} bytes"
        )
    names = _names(match[0], dialect)
    stream.unread(data[match.end() :])
    columns = replace(dialect, columns=len(names))
    return _Head(columns, names, match[0], min(match.end(), len(data)))


def _dialect(data: bytes, delimiter: str | None) -> Dialect:
    """The delimiter that the first line has most; a backslash where it stands before quotes."""
    line = data.partition(b"\n")[0]
    outside = b"".join(line.split(b'"')[::2])
    if delimiter is None:
        # Of as many the first.
        delimiter = max(_DELIMITERS, key=lambda one: outside.count(one.encode()))
    pieces = data.split(b'\\"')[1:]
    ends = (delimiter.encode(), b"\n", b"\r", b'"')
    return Dialect(delimiter, any(piece and not piece.startswith(ends) for piece in pieces))


def _names(header: bytes, dialect: Dialect) -> tuple[str, ...]:
    try:
        fields = dialect.fields(header)
    except UnicodeDecodeError as error:
        raise UnreadableError(f"its header has invalid UTF-8 at byte {error.start}") from None
    if any("\r" in name for name in fields):
        raise UnreadableError("its lines end in a carriage return alone: end them in a newline")
    if len(fields) > MOST_COLUMNS:
        raise UnreadableError(f"its header has more than {MOST_COLUMNS:,} columns")
    names = tuple(name or f"column_{number}" for number, name in enumerate(fields, 1))
    if len(set(names)) < len(names):
        [(twice, _)] = Counter(names).most_common(1)
        raise UnreadableError(f"its header has the column {twice[:50]!r} twice: rename one")
    return names


def _before(pieces: Iterator[Records], end: int | None) -> Iterator[Records]:
    """The records that begin before a byte of the file; all where it is None."""
    for piece in pieces:
        rows = len(piece) if end is None else int(np.searchsorted(piece.at + piece.starts, end))
        if rows:
            yield piece if rows == len(piece) else piece.first(rows)
        if rows < len(piece):
            return


def _values(piece: Records, head: _Head, wanted: Sequence[str]) -> pa.Table:
    """Some columns; null where a field is empty, and in rows that are none."""
    if not wanted:
        return pa.table({"\0": pa.nulls(len(piece))}).select([])
    if not piece.is_plain:
        return _values_one_by_one(piece, head, wanted)
    data = piece.data[int(piece.starts[0]) : int(piece.ends[-1]) + 1]
    if piece.faults:
        nothing = b'""' + head.dialect.delimiter.encode() * (len(head.names) - 1) + b"\n"
        data = b"".join(nothing if row in piece.faults else piece[row] for row in range(len(piece)))
    table = pcsv.read_csv(
        pa.BufferReader(data),
        read_options=pcsv.ReadOptions(
            use_threads=False, block_size=len(data) + 1, column_names=head.names
        ),
        parse_options=pcsv.ParseOptions(delimiter=head.dialect.delimiter, newlines_in_values=True),
        convert_options=pcsv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=wanted,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    if len(table) != len(piece):
        raise UnreadableError(f"{len(piece):,} rows hold {len(table):,} records")
    return table


def _values_one_by_one(piece: Records, head: _Head, wanted: Sequence[str]) -> pa.Table:
    rows = [
        None if row in piece.faults else head.dialect.fields(piece[row])
        for row in range(len(piece))
    ]
    at = {name: head.names.index(name) for name in wanted}
    return pa.table(
        {
            name: pa.array(
                [None if row is None else row[at[name]] or None for row in rows], pa.string()
            )
            for name in wanted
        }
    )


class _RecordRows:
    """`base.Verbatim`: a row is its record, byte for byte, and whether it is sound."""

    def __init__(self, stream: _Ahead, head: _Head, codec: str | None) -> None:
        self._stream = stream
        self._head = head
        self._codec = codec

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        first = 0
        records: Any = read_records(self._stream, READ_BYTES, self._head.dialect, self._head.end)
        for piece in records:
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

    def __init__(self, file: Path, head: _Head, more: pa.Schema, codec: str | None) -> None:
        for name in more.names:
            if name in head.names:
                raise UnreadableError(
                    f"it has a column {name!r}, the name of what is added: rename it in the input"
                )
        self._file = file
        self._head = head
        self._more = more
        self._codec = codec
        self._stream: Any = None

    def add(self, rows: pa.Table, more: list[pa.Array], doubtful: np.ndarray) -> None:
        if len(rows):
            whole = rows.column("record").to_pylist()
            if more:
                sound = rows.column("sound").to_pylist()
                added = zip(*map(self._fields, more), strict=True)
                whole = [
                    self._with(record, fields) if is_sound else record
                    for record, is_sound, fields in zip(whole, sound, added, strict=True)
                ]
            self._opened().write(b"".join(whole))

    def close(self, always: bool = False) -> None:
        if always:
            self._opened()
        if self._stream is not None:
            self._stream.close()

    def _opened(self) -> Any:
        if self._stream is None:
            if self._codec == "gzip":
                # Arrow's is always at level 9, which takes six times as long.
                self._stream = gzip.GzipFile(self._file, "wb", compresslevel=6)
            else:
                self._stream = pa.output_stream(str(self._file), compression=self._codec)
            self._stream.write(self._with(self._head.header, self._more.names))
        return self._stream

    def _fields(self, column: pa.Array) -> list[str]:
        if pa.types.is_struct(column.type):
            series: Any = pl.from_arrow(column)
            column = series.struct.json_encode().to_arrow()
        text = column.cast(pa.large_string())
        return [value or "" for value in pc.fill_null(text, "").to_pylist()]

    def _with(self, record: bytes, fields: Sequence[str]) -> bytes:
        text = record.removesuffix(b"\n").removesuffix(b"\r")
        end = record[len(text) :]
        dialect = self._head.dialect
        written = [dialect.written(field) if field else "" for field in fields]
        return text + "".join(dialect.delimiter + field for field in written).encode() + end
