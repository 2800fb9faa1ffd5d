"""CSV and TSV: a record a row, with a header, plain or compressed.

All values are text: what a column holds is known only when its last file was read, and a type that
is guessed makes 007 another number tomorrow. As of JSON lines there is no footer, and a row group
is the records that begin in `GROUP_BYTES` of a plain file. Where the first of each begins is kept:
from the middle nobody can tell whether a newline is quoted.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from moderay.core.errors import first_line
from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import UNREADABLE, Footer, UnreadableError
from moderay.corpus.formats.csv_dialect import Dialect
from moderay.corpus.formats.csv_head import Ahead, Head, read_head
from moderay.corpus.formats.csv_records import Records, read_records
from moderay.corpus.formats.csv_verbatim import RecordRows
from moderay.corpus.ranges import Range

# Fetched at once.
FETCH_BYTES = 8 * 2**20
# Read at once.
READ_BYTES = 2 * 2**20
# Of a plain file, in a row group.
GROUP_BYTES = 256 * 2**20
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
        groups = 1 if self.codec else max(1, -(-listed.size // GROUP_BYTES))
        counts = np.zeros(groups, np.int64)
        starts = [-1] * groups
        content_bytes = faulty = 0
        first_fault = ""
        with self._opened(fs, path, listed) as stream:
            head = read_head(stream, path)
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
        kept = json.loads(schema.metadata[_KEPT])
        dialect = Dialect(kept["delimiter"], kept["backslash"], len(kept["names"]))
        low, high = groups or (0, len(kept["starts"]))
        inside = [start for start in kept["starts"][low:high] if start >= 0]
        if not inside:
            return
        end = next((start for start in kept["starts"][high:] if start >= 0), None)
        head = Head(dialect, tuple(kept["names"]), b"", 0)
        wanted = [name for name in schema.names if name in names]
        with self._opened(fs, path, listed, 0 if self.codec else inside[0]) as stream:
            if self.codec:
                read_head(stream, path)
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
    def verbatim(self, fs: Any, path: str, listed: FileState | None = None) -> Iterator[RecordRows]:
        """As `Format.verbatim`."""
        with self._opened(fs, path, listed) as stream:
            yield RecordRows(stream, read_head(stream, path), self.codec, READ_BYTES)

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
                yield Ahead(stream)
            except OSError as error:
                if source.failed:
                    raise
                raise UnreadableError(first_line(error)) from error


def _before(pieces: Iterator[Records], end: int | None) -> Iterator[Records]:
    """The records that begin before a byte of the file; all where it is None."""
    for piece in pieces:
        rows = len(piece) if end is None else int(np.searchsorted(piece.at + piece.starts, end))
        if rows:
            yield piece if rows == len(piece) else piece.first(rows)
        if rows < len(piece):
            return


def _values(piece: Records, head: Head, wanted: Sequence[str]) -> pa.Table:
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


def _values_one_by_one(piece: Records, head: Head, wanted: Sequence[str]) -> pa.Table:
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
