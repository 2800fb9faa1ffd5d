"""Bytes -> lines: a file cut at newlines, piece by piece.

Memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from moderay.core.storage import FileState
from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.compression import decompressed
from moderay.corpus.ranges import Range

# A longer line is none: a file that is one JSON list would be held in memory whole.
LINE_BYTES = 2**28
_NEWLINE, _OPEN = b"\n{"
_BLANK = b" \t\r"
# Of UTF-8, at the beginning of a file.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, eq=False)
class Lines:
    """Whole lines, each with its newline; those that are not blank are rows, or all of them.

    Attributes:
        data: Their bytes.
        at: The byte of the file at which they begin.
        number: The number in the file of the first of them, from 1.
        starts: Where in `data` each row begins; int64.
        ends: Where in `data` each row's newline is; int64.
        ended: Whether the last newline is the file's own.
    """

    data: bytes
    at: int
    number: int
    starts: np.ndarray
    ends: np.ndarray
    ended: bool = True

    def __len__(self) -> int:
        """How many rows."""
        return len(self.starts)

    def __getitem__(self, row: int) -> bytes:
        """A row without its newline."""
        return self.data[self.starts[row] : self.ends[row]]

    def part(self, low: int, high: int) -> Lines:
        """Some neighbouring rows."""
        first = int(self.starts[low])
        last = int(self.ends[high - 1]) + 1
        return Lines(
            self.data[first:last],
            self.at + first,
            self.line_of(first),
            self.starts[low:high] - first,
            self.ends[low:high] - first,
            self.ended or high < len(self),
        )

    def without(self, rows: Collection[int]) -> Lines:
        """As many rows, with an empty object for each of these; their places are not kept."""
        if not rows:
            return self
        whole = [b"{}" if row in rows else self[row] for row in range(len(self))]
        return lines(b"".join(line + b"\n" for line in whole), self.at, self.number)

    def line_of(self, offset: int) -> int:
        """The number in the file of the line that this byte of the data lies in."""
        return self.number + self.data.count(b"\n", 0, offset)


def lines(data: bytes, at: int = 0, number: int = 1, blanks: bool = False) -> Lines:
    """The lines of `data`, which ends in a newline; `blanks`: those that are blank are rows too."""
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == _NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if blanks:
        return Lines(data, at, number, starts, ends)
    # Nearly always a row begins with its brace; only of the others are the bytes looked at.
    blank = [
        i
        for i in np.flatnonzero(array[starts] != _OPEN)
        if not data[starts[i] : ends[i]].strip(_BLANK)
    ]
    return Lines(data, at, number, np.delete(starts, blank), np.delete(ends, blank))


def read_lines(stream: BinaryIO, size: int, at: int = 0, blanks: bool = False) -> Iterator[Lines]:
    """The lines of a stream, piece by piece; a newline that the last line lacks is added.

    A byte order mark at the beginning of the file is no part of its first line.

    Args:
        stream: Read to its end; what it raises goes through.
        size: Bytes of a piece, about; a line that is longer is one piece.
        at: Where in the file the stream begins.
        blanks: Whether blank lines are rows too.

    Raises:
        UnreadableError: A line has more than `LINE_BYTES`.
    """
    pieces: list[bytes] = []
    held = 0
    number = 1
    while data := stream.read(size):
        cut = data.rfind(b"\n") + 1
        if cut:
            whole = _lines_of_file(b"".join([*pieces, data[:cut]]), at, number, blanks)
            at = whole.at + len(whole.data)
            number += whole.data.count(b"\n")
            pieces = []
            held = 0
            yield whole
        pieces.append(data[cut:])
        held += len(data) - cut
        if held > LINE_BYTES:
            raise UnreadableError(f"line {number} is longer than {LINE_BYTES:,} bytes")
    if held:
        last = _lines_of_file(b"".join([*pieces, b"\n"]), at, number, blanks)
        yield replace(last, ended=False)


def _lines_of_file(data: bytes, at: int, number: int, blanks: bool) -> Lines:
    mark = len(BYTE_ORDER_MARK) if at == 0 and data.startswith(BYTE_ORDER_MARK) else 0
    return lines(data[mark:], at + mark, number, blanks)


def file_lines(  # noqa: PLR0913  a file, what of it, and how much at once
    fs: Any,
    path: str,
    codec: str | None,
    *,
    size: int,
    within: Range | None = None,
    listed: FileState | None = None,
    blanks: bool = False,
) -> Iterator[Lines]:
    """The lines of a file, as `read_lines` has them.

    Args:
        fs: Its file system.
        path: Its path there.
        codec: As pyarrow names it; None of a plain file.
        size: Bytes of a piece, about.
        within: Of a plain file, the bytes in which the lines begin; by default all.
        listed: What it was when it was listed; another file raises `ChangedError`.
        blanks: Whether blank lines are rows too.
    """
    low, high = within or (0, None)
    # From the byte before: a line that begins exactly here follows a newline.
    with decompressed(fs, path, codec, listed, max(0, low - 1)) as stream:
        skipped = len(stream.readline()) - 1 if low else 0
        yield from _before(read_lines(stream, size, low + skipped, blanks), high)


def _before(pieces: Iterator[Lines], end: int | None) -> Iterator[Lines]:
    """The lines that begin before a byte of the file; all where it is None."""
    for piece in pieces:
        rows = len(piece) if end is None else int(np.searchsorted(piece.at + piece.starts, end))
        if rows:
            yield piece if rows == len(piece) else piece.part(0, rows)
        if rows < len(piece):
            return


def few_rows(pieces: Iterable[Lines], rows: int) -> Iterator[Lines]:
    """The same lines, so many rows at a time at most."""
    for piece in pieces:
        for start in range(0, len(piece), rows):
            end = min(start + rows, len(piece))
            yield piece if end - start == len(piece) else piece.part(start, end)


def no_text(piece: Lines) -> dict[int, str]:
    """The rows that are no UTF-8, and why: what stands behind "the line"."""
    found: dict[int, str] = {}
    try:
        if not piece.data.isascii():
            piece.data.decode()
    except UnicodeDecodeError:
        for row in range(len(piece)):
            try:
                piece[row].decode()
            except UnicodeDecodeError as error:
                found[row] = f"has invalid UTF-8 at byte {error.start}"
    return found
