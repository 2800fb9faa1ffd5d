"""How a file of CSV begins: its dialect and its header."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.csv_dialect import Dialect

# Of a file's beginning, in which its header ends and its dialect shows.
HEAD_BYTES = 2**20
# Of a file.
MOST_COLUMNS = 10_000

_DELIMITERS = ",;\t|"
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Head:
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


class Ahead:
    """A stream of which some bytes were read already."""

    def __init__(self, stream: Any) -> None:
        """Of a stream that was not read yet."""
        self._stream = stream
        self._ahead = b""

    def read(self, size: int, /) -> bytes:
        """So many bytes at most; none at its end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return bytes(self._stream.read(size))

    def unread(self, data: bytes) -> None:
        """Give bytes back, to be read again."""
        self._ahead = data + self._ahead


def read_head(stream: Ahead, path: str) -> Head:
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
    return Head(columns, names, match[0], min(match.end(), len(data)))


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
