"""Where the messages of an Arrow IPC file lie: from its footer, or by walking along a stream."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from moderay.core.storage import RemoteFile
from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.ipc_messages import (
    BATCH,
    DICTIONARY,
    MOST_METADATA,
    SCHEMA,
    Block,
    blocks_of_footer,
    head_of,
    parsed,
)

MAGIC = b"ARROW1"
# Fetched at once of metadata where batches are small, so that most of the file is read anyway, and
# where they are large.
NEAR_BYTES = 4 * 2**20
FAR_BYTES = 2**16


@dataclass(frozen=True)
class IpcIndex:
    """Where all messages lie; of a stream, in their order.

    Attributes:
        schema: The message that says the columns.
        blocks: Dictionaries and batches.
        is_stream: Whether there is no footer.
    """

    schema: Block
    blocks: tuple[Block, ...]
    is_stream: bool

    def packed(self) -> bytes:
        """It as bytes, to be kept: who reads a part of a file need not look for it again."""
        rows = [astuple(block) for block in (self.schema, *self.blocks)]
        return bytes([self.is_stream]) + zlib.compress(np.array(rows, np.int64).tobytes())

    @classmethod
    def of(cls, packed: bytes) -> IpcIndex:
        """From what `packed` gave."""
        rows = np.frombuffer(zlib.decompress(packed[1:]), np.int64).reshape(-1, 5)
        schema, *blocks = [Block(*row) for row in rows.tolist()]
        return cls(schema, tuple(blocks), bool(packed[0]))


def read_index(source: RemoteFile) -> IpcIndex:
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
    stream = buffered(source, [*dictionaries, *batches])
    schema = _block(8, read_head(stream, 8))
    blocks = []
    for kind, block in [(DICTIONARY, one) for one in dictionaries] + [
        (BATCH, one) for one in batches
    ]:
        found = _block(block.at, read_head(stream, block.at))
        if (found.kind, found.body, found.head) != (kind, block.body, block.head):
            raise UnreadableError("its footer names a record batch where there is none")
        blocks.append(found)
    return IpcIndex(schema, tuple(blocks), False)


def _block(at: int, head: bytes) -> Block:
    said = parsed(head)
    return Block(at, len(head), said.body, said.kind, said.rows)


def _walked(source: RemoteFile, size: int) -> IpcIndex:
    """The messages of a stream, from its beginning to its end."""
    stream = buffered(source, [])
    blocks: list[Block] = []
    at = 0
    while at < size:
        head = read_head(stream, at)
        if not head:
            at += 8
            break
        block = _block(at, head)
        if (block.kind == SCHEMA) is not (at == 0) or block.kind not in (SCHEMA, DICTIONARY, BATCH):
            raise UnreadableError("it is no Arrow file" if at == 0 else "its messages are damaged")
        if block.end > size:
            raise UnreadableError("it ends within a record batch: truncated")
        blocks.append(block)
        at = block.end
    if not blocks:
        raise UnreadableError("no Arrow schema at its beginning: truncated, or no Arrow file")
    if at < size:
        raise UnreadableError("there is more behind the end of its stream: write one stream a file")
    return IpcIndex(blocks[0], tuple(blocks[1:]), True)


def read_head(stream: Any, at: int) -> bytes:
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


def eight_bytes(stream: Any, at: int) -> bytes:
    """Those at a place of a file; fewer at its end."""
    stream.seek(at)
    data: bytes = stream.read(8)
    return data


def buffered(source: RemoteFile, blocks: Sequence[Block]) -> Any:
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
