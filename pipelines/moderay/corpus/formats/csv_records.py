"""Bytes -> records of CSV: which delimiter, where each record ends, and which are none.

A record is a line, or several where a quoted field holds newlines. A quote that is not closed would
take what follows it with it: only its own line is lost, as everything is a record that is one
whatever stands before it. Where records end hangs on the bytes from a record's beginning alone, not
on the pieces that they come in, so that a scan, a reader from the middle and a filter agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.csv_dialect import Dialect
from moderay.corpus.formats.lines import LINE_BYTES

# A longer record of several lines is none, and its quote a stray one.
RECORD_BYTES = 2**24
# Lines of a record that each would be a whole record, from which on its quote is a stray one.
SWALLOWED_LINES = 20
# The same of a file with one column, in which any line is a whole record.
SWALLOWED_TEXTS = 1_000

_NEWLINE, _RETURN, _QUOTE = b'\n\r"'
_STRAY = "opens a quote that is not closed"
_BEHIND = "has text behind a closing quote"


class ByteStream(Protocol):
    """What bytes are read from, in order."""

    def read(self, size: int, /) -> bytes:
        """So many at most; none at its end."""


@dataclass(frozen=True, eq=False)
class Records:
    """Whole records, each with its newline; those that are not blank are rows.

    Attributes:
        data: Their bytes.
        at: The byte of the file at which they begin.
        starts: Where in `data` each row begins; int64.
        ends: Where in `data` each row's newline is; int64.
        faults: By row, why it is none: what stands behind "the row".
        is_plain: Whether Arrow takes the fields for what they are here.
    """

    data: bytes
    at: int
    starts: np.ndarray
    ends: np.ndarray
    faults: dict[int, str]
    is_plain: bool

    def __len__(self) -> int:
        """How many rows."""
        return len(self.starts)

    def __getitem__(self, row: int) -> bytes:
        """A row with its newline."""
        return self.data[self.starts[row] : self.ends[row] + 1]

    def first(self, rows: int) -> Records:
        """So many of the rows, from the first on."""
        faults = {row: why for row, why in self.faults.items() if row < rows}
        return Records(
            self.data, self.at, self.starts[:rows], self.ends[:rows], faults, self.is_plain
        )


def read_records(stream: ByteStream, size: int, dialect: Dialect, at: int = 0) -> Iterator[Records]:
    """The records of a stream, piece by piece; a newline that the last one lacks is added.

    Args:
        stream: Read to its end; what it raises goes through.
        size: Bytes of a piece, about; a record that is longer is one piece.
        dialect: With its number of columns.
        at: Where in the file the stream begins: where a record does.

    Raises:
        UnreadableError: A line has more than `LINE_BYTES`.
    """
    held = b""
    start = 0  # of what is not cut yet
    window = size
    ended = False
    while not ended or start < len(held):
        if not ended and len(held) - start < window:
            data = stream.read(max(size, window - len(held) + start))
            ended = not data
            held = held[start:] + data
            start = 0
            if ended and held and not held.endswith(b"\n"):
                held += b"\n"
            continue
        end = held.rfind(b"\n", start, start + window) + 1
        is_last = ended and start + window >= len(held)
        used = 0
        if end > start:
            records, used = _cut(held[start:end], at, dialect, is_last, size)
            if len(records):
                yield records
        elif window > LINE_BYTES:
            raise UnreadableError(f"a line is longer than {LINE_BYTES:,} bytes")
        start += used
        at += used
        # By leaps, so that a long record is not looked through for each piece.
        window = size if used else 2 * window


def _cut(data: bytes, at: int, dialect: Dialect, ended: bool, size: int) -> tuple[Records, int]:
    """The records at the beginning of whole lines, and how many bytes they are."""
    array = np.frombuffer(data, np.uint8)
    found = _at_once(data, array, dialect, ended)
    is_plain = found is not None
    starts, ends, counts, faults = found or _one_by_one(data, dialect, ended, size)
    used = int(ends[-1]) + 1 if len(ends) else 0
    blank = (ends == starts) | ((ends == starts + 1) & (array[starts] == _RETURN))
    if blank.any():
        rows = np.cumsum(~blank) - 1
        faults = {int(rows[row]): why for row, why in faults.items()}
        starts, ends, counts = starts[~blank], ends[~blank], counts[~blank]
    for row in np.flatnonzero(counts != dialect.columns).tolist():
        fields = f"{counts[row]:,} field{'s' * int(counts[row] != 1)}"
        faults.setdefault(row, f"has {fields}, and the header {dialect.columns:,}")
    _add_no_text(data, starts, ends, faults)
    return Records(data, at, starts, ends, faults, is_plain), used


_Cut = tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, str]]


def _at_once(data: bytes, array: np.ndarray, dialect: Dialect, ended: bool) -> _Cut | None:
    """Starts, ends and numbers of fields, where each quote stands where one opens or closes.

    None where one does not, and where a record of several lines is perhaps none.
    """
    newlines = np.flatnonzero(array == _NEWLINE)
    delimiters = np.flatnonzero(array == ord(dialect.delimiter))
    quotes = np.flatnonzero(array == _QUOTE)
    if data.count(b"\r") != data.count(b"\r\n") or (dialect.backslash and len(quotes)):
        return None
    ends = newlines
    if len(quotes):
        if not _in_their_places(array, quotes, dialect):
            return None
        ends = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
        delimiters = delimiters[np.searchsorted(quotes, delimiters) % 2 == 0]
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    counts = np.searchsorted(delimiters, ends) - np.searchsorted(delimiters, starts) + 1
    if len(ends) < len(newlines):
        inside = np.searchsorted(newlines, ends) - np.searchsorted(newlines, starts)
        doubtful = (counts != dialect.columns) | (inside >= SWALLOWED_LINES)
        if ((inside > 0) & (doubtful | (ends - starts >= RECORD_BYTES))).any():
            return None
    rest = len(data) - (int(ends[-1]) + 1 if len(ends) else 0)
    # It goes on in the next piece, unless there is none or it is too long.
    is_torn = rest > 0 and (ended or rest > RECORD_BYTES)
    return None if is_torn else (starts, ends, counts, {})


def _in_their_places(array: np.ndarray, quotes: np.ndarray, dialect: Dialect) -> bool:
    """Whether quotes open at a field's beginning and close at its end, by turns.

    A doubled one closes and opens.
    """
    around = np.zeros(256, bool)
    around[[_NEWLINE, _QUOTE, ord(dialect.delimiter)]] = True
    opening, closing = quotes[::2], quotes[1::2]
    before = around[array[np.maximum(opening - 1, 0)]] | (opening == 0)
    after = array[closing + 1]
    # A return behind it is one of a newline: the piece has no other ones.
    return bool(before.all() and (around[after] | (after == _RETURN)).all())


def _one_by_one(data: bytes, dialect: Dialect, ended: bool, size: int) -> _Cut:
    """As `_at_once`, by looking at each record; the last may go on in the next piece."""
    starts: list[int] = []
    ends: list[int] = []
    counts: list[int] = []
    faults: dict[int, str] = {}
    at = 0
    while at < len(data):
        line = data.index(b"\n", at)
        record = dialect.record.match(data, at)
        end = line if record is None else record.end() - 1
        count = dialect.columns
        if record is None:
            is_open = dialect.is_open(data, at)
            if is_open and not ended and len(data) - at <= RECORD_BYTES:
                break
            faults[len(starts)] = _STRAY if _is_stray(data, at, line, dialect) else _BEHIND
        else:
            count = dialect.count(record[0])
            if end > line and _is_swallowed(record[0], count, dialect):
                end = line
                count = dialect.columns
                faults[len(starts)] = _STRAY
        starts.append(at)
        ends.append(end)
        counts.append(count)
        at = end + 1
        if len(starts) - 1 in faults and len(data) > size:
            # What was needed to see that a quote is a stray one is cut in pieces again.
            break
    as_arrays = (np.array(values, np.int64) for values in (starts, ends, counts))
    return *as_arrays, faults  # type: ignore[return-value]


def _is_stray(data: bytes, start: int, line: int, dialect: Dialect) -> bool:
    return dialect.is_open(data[start : line + 1], 0)


def _is_swallowed(record: bytes, count: int, dialect: Dialect) -> bool:
    """Whether a record of several lines has more likely a stray quote."""
    if count != dialect.columns or len(record) > RECORD_BYTES:
        return True
    inside = record.split(b"\n")[1:-2]
    if dialect.columns == 1:
        return len(inside) >= SWALLOWED_TEXTS
    if len(inside) < SWALLOWED_LINES - 1:
        return False
    delimiter = dialect.delimiter.encode()
    whole = sum(line.count(delimiter) + 1 == dialect.columns for line in inside)
    return whole >= 0.9 * len(inside)


def _add_no_text(data: bytes, starts: np.ndarray, ends: np.ndarray, faults: dict[int, str]) -> None:
    if data.isascii():
        return
    try:
        data.decode()
    except UnicodeDecodeError:
        for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            try:
                data[start:end].decode()
            except UnicodeDecodeError as error:
                faults.setdefault(row, f"has invalid UTF-8 at byte {error.start}")
