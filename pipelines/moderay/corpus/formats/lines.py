"""Bytes -> lines: a stream cut at newlines, piece by piece.

Memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from moderay.corpus.formats.base import UnreadableError

# A longer line is none: a file that is one JSON list would be held in memory whole.
LINE_BYTES = 2**28
_NEWLINE, _OPEN = b"\n{"
_BLANK = b" \t\r"
# Of UTF-8, at the beginning of a file.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, eq=False)
class Lines:
    """Whole lines, each with its newline; those that are not blank are rows.

    Attributes:
        data: Their bytes.
        at: The byte of the file at which they begin.
        number: The number in the file of the first of them, from 1.
        starts: Where in `data` each row begins; int64.
        ends: Where in `data` each row's newline is; int64.
    """

    data: bytes
    at: int
    number: int
    starts: np.ndarray
    ends: np.ndarray

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


def lines(data: bytes, at: int = 0, number: int = 1) -> Lines:
    """The lines of `data`, which ends in a newline."""
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == _NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    # Nearly always a row begins with its brace; only of the others are the bytes looked at.
    blank = [
        i
        for i in np.flatnonzero(array[starts] != _OPEN)
        if not data[starts[i] : ends[i]].strip(_BLANK)
    ]
    return Lines(data, at, number, np.delete(starts, blank), np.delete(ends, blank))


def read_lines(stream: BinaryIO, size: int, at: int = 0) -> Iterator[Lines]:
    """The lines of a stream, piece by piece; a newline that the last line lacks is added.

    A byte order mark at the beginning of the file is no part of its first line.

    Args:
        stream: Read to its end; what it raises goes through.
        size: Bytes of a piece, about; a line that is longer is one piece.
        at: Where in the file the stream begins.

    Raises:
        UnreadableError: A line has more than `LINE_BYTES`.
    """
    pieces: list[bytes] = []
    held = 0
    number = 1
    while data := stream.read(size):
        cut = data.rfind(b"\n") + 1
        if cut:
            whole = _lines_of_file(b"".join([*pieces, data[:cut]]), at, number)
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
        yield _lines_of_file(b"".join([*pieces, b"\n"]), at, number)


def _lines_of_file(data: bytes, at: int, number: int) -> Lines:
    mark = len(_BYTE_ORDER_MARK) if at == 0 and data.startswith(_BYTE_ORDER_MARK) else 0
    return lines(data[mark:], at + mark, number)
