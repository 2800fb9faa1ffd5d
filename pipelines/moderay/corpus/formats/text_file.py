"""Plain text, a row a file: all that is in it is the one value of the column `text`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from moderay.core.storage import FileState
from moderay.corpus.formats.base import UNREADABLE, Footer, UnreadableError, Verbatim
from moderay.corpus.formats.compression import NewFile, decompressed
from moderay.corpus.formats.lines import BYTE_ORDER_MARK, LINE_BYTES
from moderay.corpus.formats.text import COLUMN, READ_BYTES, TextLines, other_encoding
from moderay.corpus.ranges import Range


@dataclass(frozen=True)
class TextFile(TextLines):
    """Plain or of one compression. Nothing is read to know that it is one row."""

    counted: bool = False

    @staticmethod
    def explicit_schema(schema: pa.Schema) -> pa.Schema | None:
        """None: it is always the same."""
        return None

    def footer(self, fs: Any, path: str, listed: FileState, content: Sequence[str]) -> Footer:
        """As `Format.footer`; of a compressed file the bytes are those that lie there."""
        if self.codec and not listed.size:
            raise UnreadableError("empty: truncated")
        if listed.size > LINE_BYTES:
            raise _too_long()
        schema = pa.schema([(COLUMN, pa.string())])
        return Footer(schema, (1,), listed.size if COLUMN in content else 0)

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
        if groups is not None and groups[0] == groups[1]:
            return
        data = self._whole(fs, path, listed).removeprefix(BYTE_ORDER_MARK)
        fault = f"the file {other}" if (other := other_encoding(data)) else ""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            fault = fault or f"the file has invalid UTF-8 at byte {error.start}"
        table = pa.table({COLUMN: pa.array([None if fault else text], pa.string())})
        table = table.select([name for name in (COLUMN,) if name in names])
        yield table.append_column(UNREADABLE, pa.array([fault])) if fault else table

    @contextmanager
    def verbatim(self, fs: Any, path: str, listed: FileState | None = None) -> Iterator[Verbatim]:
        """As `Format.verbatim`."""
        yield _FileRow(self._whole(fs, path, listed), self.codec)

    def _whole(self, fs: Any, path: str, listed: FileState | None) -> bytes:
        pieces: list[bytes] = []
        size = 0
        with decompressed(fs, path, self.codec, listed) as stream:
            while data := stream.read(READ_BYTES):
                pieces.append(data)
                size += len(data)
                if size > LINE_BYTES:
                    raise _too_long()
        return b"".join(pieces)


def _too_long() -> UnreadableError:
    return UnreadableError(f"it is longer than {LINE_BYTES:,} bytes")


class _FileRow:
    """`base.Verbatim`: the one row is the file, byte for byte."""

    def __init__(self, data: bytes, codec: str | None) -> None:
        self._data = data
        self._codec = codec

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        yield 0, pa.table({"file": pa.array([self._data], pa.large_binary())})

    def part(self, file: Path, more: Sequence[pa.Field]) -> _FilePart:
        return _FilePart(NewFile(file, self._codec))


class _FilePart:
    """The file as it is: in a text there is no place for further columns."""

    def __init__(self, file: NewFile) -> None:
        self._file = file

    def add(self, rows: pa.Table, more: list[pa.Array], doubtful: np.ndarray) -> None:
        for data in rows.column(0).to_pylist():
            self._file.write(data)

    def close(self, always: bool = False) -> None:
        self._file.close(always)
