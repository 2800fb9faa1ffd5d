"""Bytes -> lines: a stream cut at newlines, piece by piece, in memory that does not grow with the
file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from moderay.corpus.formats.base import UnreadableError

# A longer line is none: a file that is one JSON list would be held in memory whole.
LINE_BYTES = 2**28
_NEWLINE, _OPEN = b"\n{"
_BLANK = b" \t\r"


@dataclass(frozen=True, eq=False)
class Lines:
    """Whole lines, each with its newline. `at`: where in the file they begin; `number`: of the
    first of them, from 1. `starts`, `ends`: of those that are not blank, which are rows; an end is
    the newline's place.
    """

    data: bytes
    at: int
    number: int
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> bytes:
        return self.data[self.starts[row] : self.ends[row]]

    def part(self, low: int, high: int) -> Lines:
        """Some neighbouring rows."""
        first, last = int(self.starts[low]), int(self.ends[high - 1]) + 1
        return Lines(
            self.data[first:last],
            self.at + first,
            self.line_of(first),
            self.starts[low:high] - first,
            self.ends[low:high] - first,
        )

    def line_of(self, place: int) -> int:
        """The number in the file of the line that this place in the data lies in."""
        return self.number + self.data.count(b"\n", 0, place)


def lines(data: bytes, at: int = 0, number: int = 1) -> Lines:
    """`data` ends in a newline."""
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
    """About `size` bytes at a time, or one line that is longer. A newline that the last line lacks
    is added. Raises `UnreadableError` for a line of more than `LINE_BYTES`, or what `stream`
    raises.
    """
    pieces, held, number = list[bytes](), 0, 1
    while data := stream.read(size):
        cut = data.rfind(b"\n") + 1
        if cut:
            found = lines(b"".join([*pieces, data[:cut]]), at, number)
            at, number = at + len(found.data), number + found.data.count(b"\n")
            pieces, held = [], 0
            yield found
        pieces.append(data[cut:])
        held += len(data) - cut
        if held > LINE_BYTES:
            raise UnreadableError(f"line {number} is longer than {LINE_BYTES:,} bytes")
    if held:
        yield lines(b"".join([*pieces, b"\n"]), at, number)
