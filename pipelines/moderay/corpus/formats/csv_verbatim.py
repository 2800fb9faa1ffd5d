"""Records of CSV as they are, for a filter that hands them on."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.csv_head import Ahead, Head
from moderay.corpus.formats.csv_records import read_records


class RecordRows:
    """`base.Verbatim`: a row is its record, byte for byte, and whether it is sound."""

    def __init__(self, stream: Ahead, head: Head, codec: str | None, size: int) -> None:
        """Of a stream behind its header, by pieces of about so many bytes."""
        self._stream = stream
        self._size = size
        self._head = head
        self._codec = codec

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        """As `Verbatim.batches`."""
        first = 0
        records: Any = read_records(self._stream, self._size, self._head.dialect, self._head.end)
        for piece in records:
            whole = pa.array([piece[row] for row in range(len(piece))], pa.large_binary())
            sound = pa.array([row not in piece.faults for row in range(len(piece))])
            yield first, pa.table({"record": whole, "sound": sound})
            first += len(piece)

    def part(self, file: Path, more: Sequence[pa.Field]) -> _RecordPart:
        """As `Verbatim.part`."""
        return _RecordPart(file, self._head, pa.schema(more), self._codec)


class _RecordPart:
    """Records as they are below the header, with further columns as the last fields, as JSON.

    A record that is none stays what it is.
    """

    def __init__(self, file: Path, head: Head, more: pa.Schema, codec: str | None) -> None:
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
