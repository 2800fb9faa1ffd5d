"""What the messages of an Arrow IPC file say of themselves, before Arrow is handed one.

Arrow tells how many rows a record batch has only after it has read and decompressed it. Its
metadata are a few FlatBuffers tables (Arrow's format/Message.fbs and format/File.fbs); nothing in
them is believed: whatever lies outside of the bytes raises `UnreadableError`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from moderay.corpus.formats.base import UnreadableError

# Kinds of messages.
SCHEMA, DICTIONARY, BATCH = 1, 2, 3
# Before a message's length; without it in files of Arrow before 0.15.
_CONTINUATION = b"\xff\xff\xff\xff"
# Of metadata, the most that are read: a batch of ten thousand columns has one.
MOST_METADATA = 2**26


@dataclass(frozen=True)
class Block:
    """Where a message lies in its file.

    Attributes:
        at: Its first byte.
        head: Bytes of its metadata, with their length before and the padding behind them.
        body: Bytes of what follows.
        kind: As `Message` has it.
        rows: As `Message` has them.
    """

    at: int
    head: int
    body: int
    kind: int = 0
    rows: int = 0

    @property
    def end(self) -> int:
        """The byte behind it."""
        return self.at + self.head + self.body


@dataclass(frozen=True)
class Message:
    """What the metadata of a message say.

    Attributes:
        kind: `SCHEMA`, `DICTIONARY`, `BATCH` or another.
        body: Bytes of what follows.
        rows: Of a batch or a dictionary; 0 of others.
        buffers: (first byte in the body, bytes) of each buffer.
        variadic: Of each column of views, in order, how many buffers its texts have.
        codec: As pyarrow names it; None of a plain body.
    """

    kind: int
    body: int
    rows: int = 0
    buffers: tuple[tuple[int, int], ...] = ()
    variadic: tuple[int, ...] = ()
    codec: str | None = None


class _Table:
    """A FlatBuffers table: fields by number, each there or not."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self._at = at
        self._fields = at - self.number("<i", at)
        self._size = self.number("<H", self._fields)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        """The one that all others hang on."""
        return cls(data, _number(data, "<I", 0))

    def number(self, form: str, at: int) -> int:
        """A number somewhere in the data."""
        return _number(self.data, form, at)

    def _place(self, field: int) -> int:
        slot = 4 + 2 * field
        offset = self.number("<H", self._fields + slot) if slot + 2 <= self._size else 0
        return self._at + offset if offset else 0

    def scalar(self, field: int, form: str, default: int = 0) -> int:
        """A field that is a number."""
        place = self._place(field)
        return self.number(form, place) if place else default

    def table(self, field: int) -> _Table | None:
        """A field that is a table."""
        place = self._place(field)
        return _Table(self.data, place + self.number("<I", place)) if place else None

    def structs(self, field: int, form: str) -> tuple[tuple[int, ...], ...]:
        """A field that is a vector of structs, or of numbers."""
        place = self._place(field)
        if not place:
            return ()
        start = place + self.number("<I", place)
        count = self.number("<I", start)
        size = struct.calcsize(form)
        if start + 4 + count * size > len(self.data):
            raise UnreadableError("its metadata are damaged")
        part = memoryview(self.data)[start + 4 : start + 4 + count * size]
        return tuple(struct.iter_unpack(form, part))


def _number(data: bytes, form: str, at: int) -> int:
    if not 0 <= at <= len(data) - struct.calcsize(form):
        raise UnreadableError("its metadata are damaged")
    value: int = struct.unpack_from(form, data, at)[0]
    return value


def blocks_of_footer(footer: bytes, size: int) -> tuple[list[Block], list[Block]]:
    """The dictionaries and the record batches of a file, in order.

    Args:
        footer: FlatBuffers table of the file's end.
        size: Bytes before the footer.

    Raises:
        UnreadableError: They cannot lie where it says.
    """
    table = _Table.root(footer)
    both = [[Block(*block) for block in table.structs(field, "<qi4xq")] for field in (2, 3)]
    at = 8
    for block in sorted((block for blocks in both for block in blocks), key=lambda block: block.at):
        if block.at < at or block.head < 8 or block.body < 0 or block.end > size:
            raise UnreadableError("its footer names record batches where none can be")
        at = block.end
    return both[0], both[1]


def head_of(prefix: bytes) -> int:
    """Bytes of a message's head, of its first eight; 0 where these end the stream.

    Raises:
        UnreadableError: They are none.
    """
    if len(prefix) < 4:
        raise UnreadableError("it ends within a message: truncated")
    legacy = prefix[:4] != _CONTINUATION
    length = _number(prefix, "<i", 0 if legacy else 4)
    if not 0 <= length <= MOST_METADATA:
        raise UnreadableError("its metadata are damaged")
    return length and length + (4 if legacy else 8)


def parsed(head: bytes) -> Message:
    """What a message's metadata say.

    Args:
        head: All `Block.head` bytes of it.
    """
    start = 8 if head[:4] == _CONTINUATION else 4
    message = _Table.root(head[start:])
    kind = message.scalar(1, "<B")
    body = message.scalar(3, "<q")
    if body < 0:
        raise UnreadableError("its metadata are damaged")
    content = message.table(2)
    if kind == DICTIONARY and content is not None:
        content = content.table(1)
    if kind not in (DICTIONARY, BATCH) or content is None:
        return Message(kind, body)
    rows = content.scalar(0, "<q")
    parts = tuple((at, size) for at, size in content.structs(2, "<qq"))
    if rows < 0 or any(min(at, size) < 0 or at + size > body for at, size in parts):
        raise UnreadableError("a record batch has parts outside of its bytes")
    packed = content.table(3)
    codec = None if packed is None else {0: "lz4", 1: "zstd"}.get(packed.scalar(0, "<b"), "?")
    variadic = tuple(count for (count,) in content.structs(4, "<q"))
    return Message(kind, body, rows, parts, variadic, codec)
