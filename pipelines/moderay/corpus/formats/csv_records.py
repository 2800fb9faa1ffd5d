"""Bytes -> records of CSV: where each of them ends, and which are none.

A record is a line, or several where a quoted field holds newlines. What is no record costs its own
line, and reading goes on with the next. Where records end hangs on the bytes from a record's
beginning alone, not on the pieces that they come in: a scan, a reader from the middle and a filter
agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.csv_dialect import BYTE_ORDER_MARK, ByteStream, Dialect

# A quote that is not closed within so many bytes is a stray one; a longer line is none.
RECORD_BYTES = 2**24
# What `faults` say of a row that is no UTF-8, before the byte's number.
NO_TEXT = "has invalid UTF-8 at byte"

_NEWLINE, _RETURN, _QUOTE = b'\n\r"'


@dataclass(frozen=True, eq=False)
class Records:
    """Whole records, each with its newline; those that are not blank are rows.

    Attributes:
        data: Their bytes.
        at: The byte of the file at which they begin.
        starts: Where in `data` each row begins; int64.
        ends: Where in `data` each row's newline is; int64.
        faults: By row, why it is none: what stands behind "the row".
        plain: The rows as Arrow reads them, with empty ones in the places of those with faults.
    """

    data: bytes
    at: int
    starts: np.ndarray
    ends: np.ndarray
    faults: dict[int, str]
    plain: bytes

    def __len__(self) -> int:
        """How many rows."""
        return len(self.starts)

    def __getitem__(self, row: int) -> bytes:
        """A row with its newline."""
        return self.data[self.starts[row] : self.ends[row] + 1]

    def values(self, dialect: Dialect, names: Sequence[str], wanted: Sequence[str]) -> pa.Table:
        """Some columns as text; null where a field is empty, and in rows that are none.

        Args:
            dialect: Of the file.
            names: Its columns.
            wanted: Those that are read.
        """
        if not wanted:
            return pa.table({"\0": pa.nulls(len(self))}).select([])
        # Arrow takes a mark from the beginning, also where it is data.
        mark = BYTE_ORDER_MARK if self.plain.startswith(BYTE_ORDER_MARK) else b""
        table = pcsv.read_csv(
            pa.BufferReader(mark + self.plain),
            read_options=pcsv.ReadOptions(
                use_threads=False, block_size=len(mark + self.plain), column_names=names
            ),
            parse_options=pcsv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
            convert_options=pcsv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        if len(table) != len(self):
            raise UnreadableError(f"{len(self):,} rows hold {len(table):,} records")
        return table


def read_records(
    stream: ByteStream, size: int, dialect: Dialect, at: int = 0, held: bytes = b""
) -> Iterator[Records]:
    """The records of a stream, piece by piece; a newline that the last one lacks is added.

    Args:
        stream: Read to its end; what it raises goes through.
        size: Bytes of a piece, about; a record that is longer is one piece.
        dialect: Of the records.
        at: Where in the file the first record begins.
        held: What was read from the stream already.

    Raises:
        UnreadableError: A line has more than `RECORD_BYTES`.
    """
    most = max(size, RECORD_BYTES)
    window = size
    ended = False
    while held or not ended:
        while len(held) < window and not ended:
            data = stream.read(window - len(held))
            ended = not data
            held += data
        if ended and held and not held.endswith(b"\n"):
            held += b"\n"
        data = held[: held.rfind(b"\n", 0, window) + 1]
        is_last = ended and len(data) == len(held)
        records = _at_once(data, at, dialect) if window == size < most else None
        if records is None or (is_last and len(records.data) < len(data)):
            # Of the longest there can be, only the first record is settled.
            limit = 1 if window == most else size
            records = _one_by_one(data, at, dialect, limit, is_last or window == most)
        used = len(records.data)
        if held and not used and window == most:
            raise UnreadableError(f"a line is longer than {RECORD_BYTES:,} bytes")
        if len(records):
            yield records
        held = held[used:]
        at += used
        # By leaps, so that a long record is not looked through for each piece.
        window = size if used else min(2 * window, most)


def _at_once(data: bytes, at: int, dialect: Dialect) -> Records | None:
    """The records at the beginning of whole lines, where all of them are sound."""
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == _NEWLINE)
    has_bare_return = (array == _RETURN).sum() > (array[ends - 1] == _RETURN).sum()
    if has_bare_return or not _is_text(data):
        return None
    delimiters = np.flatnonzero(array == ord(dialect.delimiter))
    quotes = np.flatnonzero(array == _QUOTE)
    if len(quotes):
        if not _in_their_places(array, quotes, dialect):
            return None
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        delimiters = delimiters[np.searchsorted(quotes, delimiters) % 2 == 0]
    used = int(ends[-1]) + 1 if len(ends) else 0
    starts = np.append(0, ends + 1)[:-1]
    counts = np.diff(np.searchsorted(delimiters, ends), prepend=0) + 1
    is_row = (ends > starts + 1) | ((ends > starts) & (array[starts] != _RETURN))
    if (counts[is_row] != dialect.columns).any():
        return None
    whole = data if used == len(data) else data[:used]
    return Records(whole, at, starts[is_row], ends[is_row], {}, whole)


def _in_their_places(array: np.ndarray, quotes: np.ndarray, dialect: Dialect) -> bool:
    """Whether quotes open at a field's beginning and close at its end, by turns.

    A doubled one closes and opens.
    """
    around = np.zeros(256, bool)
    around[[_NEWLINE, _QUOTE, ord(dialect.delimiter)]] = True
    opening, closing = quotes[::2], quotes[1::2]
    before = around[array[np.maximum(opening - 1, 0)]] | (opening == 0)
    after = array[closing + 1]
    # Each return is one of a newline.
    return bool(before.all() and (around[after] | (after == _RETURN)).all())


def _one_by_one(data: bytes, at: int, dialect: Dialect, limit: int, is_last: bool) -> Records:
    """The records that begin in the first bytes of whole lines, and what is none.

    Args:
        data: Whole lines.
        at: The byte of the file at which they begin.
        dialect: Of the records.
        limit: How many bytes.
        is_last: Whether a quote that is open at the end stays so.
    """
    rows: list[tuple[int, int]] = []
    faults: dict[int, str] = {}
    plain: list[bytes] = []
    start = 0
    while start < min(limit, len(data)):
        match = dialect.record.match(data, start)
        if match is None and not is_last and dialect.open.match(data, start):
            break
        end = match.end() if match else data.index(b"\n", start) + 1
        record = data[start:end]
        if record not in (b"\n", b"\r\n"):
            fields = dialect.fields(record) if match else []
            if fault := _fault(record, fields, dialect):
                faults[len(rows)] = fault
                fields = [b'""'] * dialect.columns
            rows.append((start, end - 1))
            plain.append(dialect.between.join(map(_for_arrow, fields)))
        start = end
    starts, ends = np.array(rows, np.int64).reshape(-1, 2).T
    return Records(data[:start], at, starts, ends, faults, b"".join(row + b"\n" for row in plain))


def _fault(record: bytes, fields: list[bytes], dialect: Dialect) -> str:
    """Why a row is none; nothing where it is one.

    Args:
        record: With its newline.
        fields: Empty where a quote is not in its place.
        dialect: Of the file.
    """
    if not fields and dialect.open.match(record):
        return "opens a quote that is not closed"
    if not fields:
        return "has text behind a closing quote"
    if len(fields) != dialect.columns:
        plural = "s" * (len(fields) != 1)
        return f"has {len(fields):,} field{plural}, and the header {dialect.columns:,}"
    try:
        record.decode()
    except UnicodeDecodeError as error:
        return f"{NO_TEXT} {error.start}"
    return ""


def _for_arrow(field: bytes) -> bytes:
    """A field that has a carriage return in it, in quotes: to Arrow it ends a line."""
    is_bare = b"\r" in field and not field.startswith(b'"')
    return b'"' + field.replace(b'"', b'""') + b'"' if is_bare else field


def _is_text(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False
