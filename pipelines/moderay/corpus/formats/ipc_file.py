"""An opened Arrow IPC file or stream, read record batch by record batch, within bounds."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from moderay.core.errors import first_line
from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import BATCH_ROWS, UnreadableError, bytes_of
from moderay.corpus.formats.ipc_layout import column_buffers, unpacked_bytes
from moderay.corpus.formats.ipc_messages import (
    BATCH,
    DICTIONARY,
    MOST_METADATA,
    SCHEMA,
    Block,
    Message,
    blocks_of_footer,
    head_of,
    parsed,
)
from moderay.corpus.ranges import Range
from moderay.corpus.views import plain_type, view_bytes

MAGIC = b"ARROW1"
# Of a record batch, as it lies there and of the columns that are read once decompressed: Arrow
# reads it whole or not at all.
MOST_BYTES = 2**30
# Rows and bytes of a piece.
PIECE_ROWS = 8192
PIECE_BYTES = 16 * 2**20
# Fetched at once of metadata where batches are small, so that most of the file is read anyway, and
# where they are large.
NEAR_BYTES = 4 * 2**20
FAR_BYTES = 2**16
_END = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass(frozen=True)
class _Index:
    """Where all messages lie; of a stream, in their order.

    Attributes:
        schema: The bytes that say the columns, as a message.
        blocks: Dictionaries and batches, each with what it says of itself.
        is_stream: Whether there is no footer.
    """

    schema: bytes
    blocks: tuple[tuple[Block, Message], ...]
    is_stream: bool


class IpcFile:
    """An opened file with a footer, or a stream, which has none.

    Attributes:
        schema: Its columns.
        is_stream: Whether it is a stream.
        batches: Its record batches.
    """

    def __init__(self, fs: Any, path: str, listed: FileState | None = None) -> None:
        """Open a file and look for its record batches, without reading them.

        Args:
            fs: Its file system.
            path: Its path there.
            listed: What it was when it was listed.

        Raises:
            UnreadableError: It is no Arrow file.
            OSError: The store does not give it.
        """
        self._source = RemoteFile(fs, path, listed)
        with self.blamed():
            index = _index(self._source)
            self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(index.schema))
            # Names that are no text raise when they are first looked at.
            [*self.schema.names, *map(str, self.schema.types)]
        self.is_stream = index.is_stream
        self._index = index
        self.batches = [(block, said) for block, said in index.blocks if said.kind == BATCH]

    @property
    def codec(self) -> str | None:
        """How its batches are compressed, as pyarrow names it."""
        return next((said.codec for _, said in self.batches if said.rows), None)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def content_bytes(self, names: Sequence[str]) -> int:
        """Bytes in memory of some columns, as the batches say."""
        wanted = {i for i, name in enumerate(self.schema.names) if name in names}
        with self.blamed():
            stream = _buffered(self._source, [block for block, _ in self.batches])
            total = 0
            for block, said in self.batches:
                columns = column_buffers(self.schema, said)
                numbers = [number for i in sorted(wanted) for number in columns[i]]
                body = block.at + block.head
                total += unpacked_bytes(said, numbers, lambda at: _eight(stream, body + at))  # noqa: B023  used at once
            return total

    def pieces(
        self, columns: Sequence[str] | None, groups: Range | None = None, most: int = PIECE_ROWS
    ) -> Iterator[pa.Table]:
        """The rows of some record batches, in order, so many or about `PIECE_BYTES` at a time.

        What Arrow hands out is checked from end to end: it takes offsets and indices as they come.

        Raises:
            UnreadableError: The file does not hold what it says.
            OSError: The store does not give it.
        """
        low, high = groups or (0, len(self.batches))
        if high > len(self.batches):
            raise UnreadableError(
                f"it has {len(self.batches):,} record batches, and {high:,} were counted"
            )
        names = self.schema.names
        wanted = [i for i, name in enumerate(names) if columns is None or name in columns]
        if low == high:
            return
        with self.blamed():
            feed = _Feed(self._source, self._index, self.schema, wanted, (low, high))
            options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=wanted)
            reader = pa.ipc.open_stream(pa.PythonFile(feed, "r"), options=options)
            for number in range(low, high):
                batch = reader.read_next_batch()
                if not wanted:
                    batch = batch.select([])
                _validate(batch)
                if len(batch) != (rows := self.batches[number][1].rows):
                    raise UnreadableError(
                        f"record batch {number} has {len(batch):,} rows, and claims {rows:,}"
                    )
                yield from _cut(pa.Table.from_batches([batch]), min(most, BATCH_ROWS))

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """What a library raises is of what the file holds, unless the store has failed."""
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
            if self._source.failed or isinstance(error, UnreadableError):
                raise
            raise UnreadableError(first_line(error)) from error


def _index(source: RemoteFile) -> _Index:
    """Look through the metadata of all messages."""
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    start = source.read(8)
    if start.startswith(b"FEA1"):
        raise UnreadableError("it is Feather of version 1: write it again, as version 2")
    if not start.startswith(MAGIC):
        return _walked(source, size)
    if size < 20:
        raise UnreadableError("no Arrow footer at its end: truncated")
    source.seek(size - 10)
    tail = source.read(10)
    length = int.from_bytes(tail[:4], "little", signed=True)
    if tail[4:] != MAGIC or not 0 < length <= min(size - 18, MOST_METADATA):
        raise UnreadableError("no Arrow footer at its end: truncated, or no Arrow file")
    source.seek(size - 10 - length)
    dictionaries, batches = blocks_of_footer(source.read(length), size - 10 - length)
    stream = _buffered(source, [*dictionaries, *batches])
    schema = _head(stream, 8)
    blocks = []
    for kind, block in [(DICTIONARY, one) for one in dictionaries] + [
        (BATCH, one) for one in batches
    ]:
        head = _head(stream, block.at)
        said = parsed(head)
        if (said.kind, said.body, len(head)) != (kind, block.body, block.head):
            raise UnreadableError("its footer names a record batch where there is none")
        blocks.append((block, said))
    return _Index(schema, tuple(blocks), False)


def _walked(source: RemoteFile, size: int) -> _Index:
    """The messages of a stream, from its beginning to its end."""
    stream = io.BufferedReader(source, NEAR_BYTES)
    schema = b""
    blocks = []
    at = 0
    while at < size:
        head = _head(stream, at)
        if not head:
            at += 8
            break
        said = parsed(head)
        block = Block(at, len(head), said.body)
        if (said.kind == SCHEMA) is not (at == 0) or said.kind not in (SCHEMA, DICTIONARY, BATCH):
            raise UnreadableError("it is no Arrow file" if at == 0 else "its messages are damaged")
        if block.end > size:
            raise UnreadableError("it ends within a record batch: truncated")
        if said.kind == SCHEMA:
            schema = head
        else:
            blocks.append((block, said))
        at = block.end
    if not schema:
        raise UnreadableError("no Arrow schema at its beginning: truncated, or no Arrow file")
    if at < size:
        raise UnreadableError("there is more behind the end of its stream: write one stream a file")
    stream.detach()
    return _Index(schema, tuple(blocks), True)


def _head(stream: Any, at: int) -> bytes:
    """A message's metadata with what is before and behind them; nothing where a stream ends."""
    stream.seek(at)
    prefix = stream.read(8)
    length = head_of(prefix)
    if not length:
        return b""
    stream.seek(at)
    head: bytes = stream.read(length)
    if len(head) < length:
        raise UnreadableError("it ends within a message: truncated")
    return head


def _eight(stream: Any, at: int) -> bytes:
    stream.seek(at)
    data: bytes = stream.read(8)
    return data


def _buffered(source: RemoteFile, blocks: Sequence[Block]) -> Any:
    """A file to read a little of each message from."""
    average = sum(block.body for block in blocks) // max(1, len(blocks))
    return io.BufferedReader(_Lent(source), NEAR_BYTES if 4 * average < NEAR_BYTES else FAR_BYTES)


class _Lent(io.RawIOBase):
    """A file that is not closed with who reads it."""

    def __init__(self, source: RemoteFile) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def readinto(self, buffer: Any) -> int:
        return self._source.readinto(buffer)


class _Feed(io.RawIOBase):
    """Some record batches as a stream, with all dictionaries that they may need.

    A message is fetched whole, and looked at before Arrow sees it.
    """

    def __init__(
        self,
        source: RemoteFile,
        index: _Index,
        schema: pa.Schema,
        wanted: Sequence[int],
        groups: Range,
    ) -> None:
        self._source = source
        self._schema = schema
        self._wanted = wanted
        self._messages = _needed(index, groups)
        self._data = memoryview(index.schema)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> memoryview:
        if not self._data:
            self._data = memoryview(self._next())
        part = self._data[:size]
        self._data = self._data[len(part) :]
        return part

    def _next(self) -> bytes:
        """The bytes of the next message, or of the stream's end."""
        found = next(self._messages, None)
        if found is None:
            return _END
        block, said = found
        if block.body > MOST_BYTES:
            raise _too_large(block.body)
        self._source.seek(block.at)
        data = self._source.read(block.head + block.body)
        numbers: Sequence[int] = range(len(said.buffers))
        if said.kind == BATCH:
            columns = column_buffers(self._schema, said)
            numbers = [number for i in self._wanted for number in columns[i]]
        size = unpacked_bytes(said, numbers, lambda at: data[block.head + at : block.head + at + 8])
        if size > MOST_BYTES:
            raise _too_large(size)
        return data


def _needed(index: _Index, groups: Range) -> Iterator[tuple[Block, Message]]:
    """The messages of some batches; of a stream also dictionaries of batches before them."""
    number = 0
    for block, said in index.blocks:
        if said.kind != BATCH:
            yield block, said
            continue
        if number >= groups[1]:
            return
        if number >= groups[0]:
            yield block, said
        number += 1


def _too_large(size: int) -> UnreadableError:
    return UnreadableError(
        f"a record batch of {size:,} bytes, and {MOST_BYTES:,} are read at most: write it in "
        "batches of fewer rows"
    )


def _validate(batch: pa.RecordBatch) -> None:
    """Assert that a batch is what Arrow takes it for; that a text is UTF-8 is told by row.

    Raises:
        ArrowInvalid: It is not.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        for column in batch.columns:
            column.view(_as_bytes(column.type)).validate(full=True)


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """A type with bytes in the place of texts, at any depth."""
    if isinstance(kind, pa.BaseExtensionType):
        return _as_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _as_bytes(kind.value_type), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_as_bytes(kind.key_type), _as_bytes(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = kind.value_field.with_type(_as_bytes(kind.value_type))
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(item)
    texts = {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }
    return texts.get(kind, kind)


def _cut(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    """A table in pieces, halved until they are small enough."""
    for start in range(0, len(table), rows):
        waiting = [table.slice(start, rows)]
        while waiting:
            piece = waiting.pop()
            if len(piece) == 1 or _bytes(piece) <= PIECE_BYTES:
                yield piece
            else:
                half = len(piece) // 2
                waiting += [piece.slice(half), piece.slice(0, half)]


def _bytes(table: pa.Table) -> int:
    """As `bytes_of`; of views their texts, and not all that these lie among."""
    viewed = [field.name for field in table.schema if plain_type(field.type) != field.type]
    if not viewed:
        return bytes_of(table)
    numbers = [i for i, field in enumerate(table.schema) if plain_type(field.type) != field.type]
    others = [i for i in range(table.num_columns) if i not in numbers]
    views = sum(view_bytes(chunk) for i in numbers for chunk in table.column(i).chunks)
    return views + bytes_of(table.select(others))
