"""Plain text: a row a line, or a row a file (`text_file`); its one column is `text`.

Every line is a row, the blank ones among them, so that row 6 is line 7. Lines end in a newline, or
in a carriage return and a newline; the last one need not end at all. As of JSON lines there is no
footer, and a row group is the lines that begin in `GROUP_BYTES` of a plain file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.storage import FileState
from moderay.corpus.formats.base import BATCH_ROWS, UNREADABLE, Footer, UnreadableError, Verbatim
from moderay.corpus.formats.compression import NewFile, decompressed
from moderay.corpus.formats.lines import BYTE_ORDER_MARK, Lines, few_rows, file_lines, no_text
from moderay.corpus.ranges import Range

COLUMN = "text"
# Read at once.
READ_BYTES = 2 * 2**20
# Of a plain file, in a row group.
GROUP_BYTES = 256 * 2**20
# In a schema's metadata: some lines are no text.
_FAULTY = b"moderay.faulty"
_NEWLINE, _RETURN = b"\n\r"


@dataclass(frozen=True)
class TextLines:
    """A row a line, plain or of one compression.

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
        return (f".txt{self.end}", f".text{self.end}")

    @staticmethod
    def common(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
        """Each file's own."""
        return list(schemas)

    @staticmethod
    def explicit_schema(schema: pa.Schema) -> pa.Schema | None:
        """All of it."""
        return schema

    def footer(self, fs: Any, path: str, listed: FileState, content: Sequence[str]) -> Footer:
        """As `Format.footer`, by a reading of the whole file."""
        if self.codec and not listed.size:
            raise UnreadableError("empty: truncated")
        counts = np.zeros(1 if self.codec else max(1, -(-listed.size // GROUP_BYTES)), np.int64)
        text_bytes = faulty = 0
        why_nothing = ""
        for piece in self._lines(fs, path, listed=listed):
            if not counts.any():
                _assert_text(piece)
            faults = no_text(piece)
            for row, fault in faults.items() if not why_nothing else ():
                why_nothing = f"line {piece.number + row} {fault}"
                break
            faulty += len(faults)
            text_bytes += int((piece.ends - piece.starts).sum()) + 4 * len(piece)
            group = np.minimum((piece.at + piece.starts) // GROUP_BYTES, len(counts) - 1)
            counts += np.bincount(group, minlength=len(counts))
        if 0 < faulty == counts.sum():
            raise UnreadableError(f"not one of its lines is text; {why_nothing}")
        schema = pa.schema([(COLUMN, pa.string())], {_FAULTY: b"yes"} if faulty else None)
        return Footer(schema, tuple(counts.tolist()), text_bytes if COLUMN in content else 0)

    def names(self, fs: Any, path: str) -> list[str]:
        """Always the same."""
        return [COLUMN]

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
        is_faulty = _FAULTY in (schema.metadata or {})
        for piece in self._lines(fs, path, groups, listed):
            faults = no_text(piece)
            if faults and not is_faulty:
                raise UnreadableError(f"a line {next(iter(faults.values()))}")
            table = pa.table({COLUMN: _texts(piece, list(faults))})
            table = table.select([name for name in (COLUMN,) if name in names])
            if is_faulty:
                table = table.append_column(UNREADABLE, _reasons(len(piece), faults))
            step = rows or len(piece)
            yield from (table.slice(start, step) for start in range(0, len(table), step))

    @contextmanager
    def verbatim(self, fs: Any, path: str, listed: FileState | None = None) -> Iterator[Verbatim]:
        """As `Format.verbatim`."""
        with decompressed(fs, path, self.codec, listed) as stream:
            mark = stream.read(len(BYTE_ORDER_MARK))
        head = mark if mark == BYTE_ORDER_MARK else b""
        yield _LineRows(self._lines(fs, path, listed=listed), head, self.codec)

    def _lines(
        self, fs: Any, path: str, groups: Range | None = None, listed: FileState | None = None
    ) -> Iterator[Lines]:
        """Lines of these row groups or of all."""
        within = None
        if groups is not None and not self.codec:
            within = (groups[0] * GROUP_BYTES, groups[1] * GROUP_BYTES)
        pieces = file_lines(
            fs, path, self.codec, size=READ_BYTES, within=within, listed=listed, blanks=True
        )
        return few_rows(pieces, BATCH_ROWS)


def other_encoding(data: bytes) -> str:
    """What a file is, by its first bytes, where that is no UTF-8; else nothing."""
    encoding = json.detect_encoding(data[:4])
    if not encoding.startswith(("utf-16", "utf-32")):
        return ""
    name = encoding[:6].upper()
    return f"is {name}, not UTF-8: convert it, for example with iconv -f {name} -t UTF-8"


def _assert_text(first: Lines) -> None:
    """Assert that a file which begins with these lines is one of UTF-8, by lines."""
    if other := other_encoding(first.data if len(first.data) > 4 else b"text"):
        raise UnreadableError(f"it {other}")
    if len(first) == 1 and b"\r" in first[0].strip():
        raise UnreadableError("its lines end in a carriage return alone: end them in a newline")


def _texts(piece: Lines, faulty: Sequence[int]) -> pa.Array:
    """The lines without what they end in; null where they are no text."""
    data = np.frombuffer(piece.data, np.uint8)
    ends = piece.ends.copy()
    # Of an empty line it is the byte before it that is looked at, which is a newline or none.
    ends -= (data[ends - 1] == _RETURN) & (ends > piece.starts)
    kept = np.ones(len(data), bool)
    kept[piece.ends] = False
    kept[ends[ends < piece.ends]] = False
    offsets = np.zeros(len(piece) + 1, np.int32)
    np.cumsum(ends - piece.starts, out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[kept])]
    # What is no text must not be taken for one, not even behind a null.
    texts = pa.Array.from_buffers(pa.binary(), len(piece), buffers)
    if faulty:
        mask = np.zeros(len(piece), bool)
        mask[list(faulty)] = True
        texts = pc.if_else(pa.array(mask), pa.scalar(None, pa.binary()), texts)
    return texts.cast(pa.string())


def _reasons(rows: int, faults: dict[int, str]) -> pa.Array:
    reasons: list[str | None] = [None] * rows
    for row, fault in faults.items():
        reasons[row] = f"the line {fault}"
    return pa.array(reasons, pa.string())


class _LineRows:
    """`base.Verbatim`: a row is its line, byte for byte, in a column of its own."""

    def __init__(self, pieces: Iterator[Lines], head: bytes, codec: str | None) -> None:
        self._pieces = pieces
        self._head = head
        self._codec = codec

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        start = 0
        for piece in self._pieces:
            whole = [
                piece.data[first : end + 1]
                for first, end in zip(piece.starts, piece.ends, strict=True)
            ]
            if not piece.ended:
                whole[-1] = whole[-1][:-1]
            yield start, pa.table({"line": pa.array(whole, pa.large_binary())})
            start += len(piece)

    def part(self, file: Path, more: Sequence[pa.Field]) -> _LinePart:
        return _LinePart(NewFile(file, self._codec, self._head), pa.schema(more))


class _LinePart:
    """Lines as they are; further columns stand behind a tab as one JSON object."""

    def __init__(self, file: NewFile, more: pa.Schema) -> None:
        self._file = file
        self._more = more

    def add(self, rows: pa.Table, more: list[pa.Array], doubtful: np.ndarray) -> None:
        if len(rows):
            whole = rows.column(0).to_pylist()
            self._file.write(b"".join(self._with(whole, more) if more else whole))

    def close(self, always: bool = False) -> None:
        self._file.close(always)

    def _with(self, whole: Sequence[bytes], more: list[pa.Array]) -> Iterator[bytes]:
        import polars as pl  # noqa: PLC0415  late: where labels are added to lines only

        frame: Any = pl.from_arrow(pa.Table.from_arrays(more, schema=self._more))
        added: list[bytes] = frame.write_ndjson().encode().splitlines()
        for line, keys in zip(whole, added, strict=True):
            bare = line.removesuffix(b"\n").removesuffix(b"\r")
            yield b"".join([bare, b"\t", keys, line[len(bare) :]])
