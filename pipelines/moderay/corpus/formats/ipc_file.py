"""An opened Arrow IPC file or stream, read record batch by record batch, within bounds."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from moderay.core.errors import first_line
from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import BATCH_ROWS, UnreadableError
from moderay.corpus.formats.ipc_checks import cut, validate
from moderay.corpus.formats.ipc_index import (
    IpcIndex,
    buffered,
    eight_bytes,
    read_head,
    read_index,
)
from moderay.corpus.formats.ipc_layout import column_buffers, unpacked_bytes
from moderay.corpus.formats.ipc_messages import BATCH, Block, parsed
from moderay.corpus.ranges import Range

# Of a record batch, as it lies there and of the columns that are read once decompressed: Arrow
# reads it whole or not at all.
MOST_BYTES = 2**30
# Of a piece.
PIECE_ROWS = 8192
_END = b"\xff\xff\xff\xff\0\0\0\0"


class IpcFile:
    """An opened file with a footer, or a stream, which has none.

    Attributes:
        index: Where its messages lie.
        schema: Its columns.
        batches: Its record batches.
    """

    def __init__(
        self, fs: Any, path: str, listed: FileState | None = None, index: IpcIndex | None = None
    ) -> None:
        """Open a file; record batches are looked for, and not read.

        Args:
            fs: Its file system.
            path: Its path there.
            listed: What it was when it was listed.
            index: Where its record batches are, if that is known.

        Raises:
            UnreadableError: It is no Arrow file.
            OSError: The store does not give it.
        """
        self._source = RemoteFile(fs, path, listed)
        with self.blamed():
            self.index = index or read_index(self._source)
            self._head = read_head(self._source, self.index.schema.at)
            self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(self._head))
            # Names that are no text raise when they are first looked at.
            [*self.schema.names, *map(str, self.schema.types)]
        self.batches = [block for block in self.index.blocks if block.kind == BATCH]

    def codec(self) -> str | None:
        """How its batches are compressed, as pyarrow names it."""
        first = next((block for block in self.batches if block.rows), None)
        if first is None:
            return None
        with self.blamed():
            return parsed(read_head(self._source, first.at)).codec

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def content_bytes(self, names: Sequence[str]) -> int:
        """Bytes in memory of some columns, as the batches say."""
        wanted = {i for i, name in enumerate(self.schema.names) if name in names}
        with self.blamed():
            stream = buffered(self._source, self.batches)
            total = 0
            for block in self.batches:
                said = parsed(read_head(stream, block.at))
                columns = column_buffers(self.schema, said)
                numbers = [number for i in sorted(wanted) for number in columns[i]]
                body = block.at + block.head
                total += unpacked_bytes(said, numbers, lambda at: eight_bytes(stream, body + at))  # noqa: B023  used at once
            return total

    def pieces(
        self, columns: Sequence[str] | None, groups: Range | None = None, most: int = PIECE_ROWS
    ) -> Iterator[pa.Table]:
        """The rows of some record batches, in order, so many at most or about 16 MiB at a time.

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
            messages = _needed(self.index, (low, high))
            feed = _Feed(self._source, self._head, self.schema, wanted=wanted, messages=messages)
            options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=wanted)
            reader = pa.ipc.open_stream(pa.PythonFile(feed, "r"), options=options)
            for number in range(low, high):
                batch = reader.read_next_batch()
                if not wanted:
                    batch = batch.select([])
                validate(batch)
                if len(batch) != (rows := self.batches[number].rows):
                    raise UnreadableError(
                        f"record batch {number} has {len(batch):,} rows, and claims {rows:,}"
                    )
                yield from cut(pa.Table.from_batches([batch]), min(most, BATCH_ROWS))

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """What a library raises is of what the file holds, unless the store has failed."""
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
            if self._source.failed or isinstance(error, UnreadableError):
                raise
            raise UnreadableError(first_line(error)) from error


class _Feed(io.RawIOBase):
    """Some record batches as a stream, with all dictionaries that they may need.

    A message is fetched whole, and looked at before Arrow sees it.
    """

    def __init__(
        self,
        source: RemoteFile,
        head: bytes,
        schema: pa.Schema,
        *,
        wanted: Sequence[int],
        messages: Iterator[Block],
    ) -> None:
        self._source = source
        self._schema = schema
        self._wanted = wanted
        self._messages = messages
        self._data = memoryview(head)

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
        block = next(self._messages, None)
        if block is None:
            return _END
        if block.body > MOST_BYTES:
            raise _too_large(block.body)
        self._source.seek(block.at)
        data = self._source.read(block.head + block.body)
        said = parsed(data[: block.head])
        if (said.kind, said.body) != (block.kind, block.body):
            raise UnreadableError("its messages are not where they were")
        numbers: Sequence[int] = range(len(said.buffers))
        if said.kind == BATCH:
            columns = column_buffers(self._schema, said)
            numbers = [number for i in self._wanted for number in columns[i]]
        size = unpacked_bytes(said, numbers, lambda at: data[block.head + at : block.head + at + 8])
        if size > MOST_BYTES:
            raise _too_large(size)
        return data


def _needed(index: IpcIndex, groups: Range) -> Iterator[Block]:
    """The messages of some batches; of a stream also dictionaries of batches before them."""
    number = 0
    for block in index.blocks:
        if block.kind != BATCH:
            yield block
            continue
        if number >= groups[1]:
            return
        if number >= groups[0]:
            yield block
        number += 1


def _too_large(size: int) -> UnreadableError:
    return UnreadableError(
        f"a record batch of {size:,} bytes, and {MOST_BYTES:,} are read at most: write it in "
        "batches of fewer rows"
    )
