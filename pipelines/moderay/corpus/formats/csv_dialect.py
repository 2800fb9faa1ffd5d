"""How a file of CSV begins, and how the fields of its records are told apart."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from moderay.corpus.formats.base import UnreadableError

# Of a file's beginning, in which its header ends.
HEAD_BYTES = 2**20
# Of a file.
MOST_COLUMNS = 10_000
# Of UTF-8, at the beginning of a file.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What a file or its header is that can be read as text only by guessing.
NO_UTF8 = "is not UTF-8: convert the file, for example with iconv -f WINDOWS-1252 -t UTF-8"

_DELIMITERS = ",;\t|"


class ByteStream(Protocol):
    """What bytes are read from, in order."""

    def read(self, size: int, /) -> bytes:
        """So many at most; none at its end."""


@dataclass(frozen=True)
class Dialect:
    """How the fields of a record are told apart: quotes in quoted ones are doubled.

    Attributes:
        delimiter: One character.
        columns: How many fields a record has.
    """

    delimiter: str
    columns: int = 0

    @property
    def between(self) -> bytes:
        """The delimiter as it stands in a file."""
        return self.delimiter.encode()

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """A record with any number of fields, its newline included."""
        return re.compile(b"%b(?:%b%b)*+\r?\n" % (self._field, self._between, self._field))

    @cached_property
    def open(self) -> re.Pattern[bytes]:
        """Fields of which the last is in quotes that are not closed."""
        return re.compile(rb'(?:%b%b)*+"(?:[^"]++|"")*+\Z' % (self._field, self._between))

    def fields(self, record: bytes) -> list[bytes]:
        """The fields of a record, with their quotes."""
        text = record.removesuffix(b"\n").removesuffix(b"\r")
        return text.split(self.between) if b'"' not in text else self._fields.findall(text)

    @cached_property
    def _fields(self) -> re.Pattern[bytes]:
        return re.compile(rb'(?:\A|%b)("(?:[^"]++|"")*+"|[^%b]*+)' % (self._between, self._between))

    @cached_property
    def _field(self) -> bytes:
        end = self._between
        return rb'(?:"(?:[^"]++|"")*+"(?=\r?\n|%b)|(?!")[^%b\n]*+)' % (end, end)

    @property
    def _between(self) -> bytes:
        return re.escape(self.between)


@dataclass(frozen=True)
class Head:
    """How a file begins.

    Attributes:
        dialect: Of its records.
        names: Its columns in order.
        header: Its bytes up to the first record; a newline that it lacks is added.
        rest: What was read of the file behind the header.
    """

    dialect: Dialect
    names: tuple[str, ...]
    header: bytes
    rest: bytes


def read_head(stream: ByteStream, path: str) -> Head:
    """The head of a file.

    Args:
        stream: Its bytes; `HEAD_BYTES` of them are read.
        path: Of the file; a delimiter is that of its name, or the one that the first line has most.

    Raises:
        UnreadableError: There is no header, or none that can be read.
    """
    data = b""
    while len(data) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(data))):
        data += more
    mark = len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0
    _assert_no_utf16(data[mark : mark + 4])
    whole = data if data.endswith(b"\n") or len(data) == HEAD_BYTES else data + b"\n"
    start = mark
    while start < len(whole) and whole[start] in b"\r\n":
        start += 1
    if start == len(whole):
        raise UnreadableError("it has no header: it is empty")
    dialect = Dialect(_delimiter(whole[start:], path))
    match = dialect.record.match(whole, start)
    if match is None:
        raise UnreadableError(
            f"its header has a quote that is not closed, or is longer than {HEAD_BYTES:,} bytes"
        )
    names = _names(dialect.fields(match[0]))
    header = whole[: match.end()]
    return Head(Dialect(dialect.delimiter, len(names)), names, header, data[match.end() :])


def _assert_no_utf16(beginning: bytes) -> None:
    encoding = json.detect_encoding(beginning)
    if encoding.startswith(("utf-16", "utf-32")):
        name = encoding[:6].upper()
        raise UnreadableError(
            f"it is {name}, not UTF-8: convert it, for example with iconv -f {name} -t UTF-8"
        )


def _delimiter(data: bytes, path: str) -> str:
    name = path.lower().partition("?")[0].removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".tsv"):
        return "\t"
    outside = b"".join(data.partition(b"\n")[0].split(b'"')[::2])
    # Of as many the first.
    return max(_DELIMITERS, key=lambda one: outside.count(one.encode()))


def _names(fields: list[bytes]) -> tuple[str, ...]:
    bare = [
        field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field for field in fields
    ]
    if any(b"\r" in field.replace(b"\r\n", b"") for field in bare):
        raise UnreadableError("its lines end in a carriage return alone: end them in a newline")
    if len(bare) > MOST_COLUMNS:
        raise UnreadableError(f"its header has more than {MOST_COLUMNS:,} columns")
    try:
        texts = [field.decode() for field in bare]
    except UnicodeDecodeError:
        raise UnreadableError(f"its header {NO_UTF8}") from None
    names = tuple(text or f"column_{number}" for number, text in enumerate(texts, 1))
    twice, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise UnreadableError(f"its header has the column {twice[:50]!r} twice: rename one")
    return names
