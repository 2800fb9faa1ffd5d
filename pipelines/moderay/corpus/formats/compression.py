"""Files of one codec, or plain: streams to read them from and to write them to."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from moderay.core.errors import first_line
from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import UnreadableError

# Fetched at once.
FETCH_BYTES = 8 * 2**20


@contextmanager
def decompressed(
    fs: Any, path: str, codec: str | None, listed: FileState | None, at: int = 0
) -> Iterator[Any]:
    """What a file holds, as a stream.

    Args:
        fs: Its file system.
        path: Its path there.
        codec: As pyarrow names it; None of a plain file.
        listed: What it was when it was listed; another file raises `ChangedError`.
        at: The byte that is read first; of a plain file.

    Raises:
        UnreadableError: It is not of the codec, or cut short.
        OSError: The store does not give it.
    """
    with RemoteFile(fs, path, listed) as source:
        source.seek(at)
        stream: Any = io.BufferedReader(source, FETCH_BYTES)
        try:
            if codec:
                stream = pa.CompressedInputStream(pa.PythonFile(stream, "r"), codec)
            yield stream
        except OSError as error:
            if source.failed:
                raise
            raise UnreadableError(first_line(error)) from error


class NewFile:
    """A local file that is there once something is written to it."""

    def __init__(self, file: Path, codec: str | None, head: bytes = b"") -> None:
        """One of a codec, as `decompressed` has it, that begins with `head`."""
        self._file = file
        self._codec = codec
        self._head = head
        self._stream: Any = None

    def write(self, data: bytes) -> None:
        """Append."""
        if self._stream is None:
            self._stream = self._opened()
            self._stream.write(self._head)
        self._stream.write(data)

    def close(self, always: bool = False) -> None:
        """Finish the file. Where nothing was written there is none, unless `always`."""
        if always:
            self.write(b"")
        if self._stream is not None:
            self._stream.close()

    def _opened(self) -> Any:
        if self._codec == "gzip":
            # Arrow's is always at level 9, which takes six times as long.
            return gzip.GzipFile(self._file, "wb", compresslevel=6)
        return pa.output_stream(str(self._file), compression=self._codec)
