"""A file that is read by ranges, all of them of the file that was opened."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Protocol

from fsspec.asyn import sync

from moderay.core.storage.files import details, file_size, get, version
from moderay.core.storage.retries import patiently
from moderay.core.storage.urls import is_local


class ChangedError(OSError):
    """A file is not the one that was listed, or was changed while it was read."""


@dataclass(frozen=True)
class FileState:
    """What tells a file from another that lies at its path before or after it.

    Attributes:
        size: Bytes.
        version: As `files.version` has it; empty where the store says none.
        ctime_ns: When a local file was written, renamed or linked last, which no program can set;
            None where nobody knows.
    """

    size: int
    version: str
    ctime_ns: int | None = None

    def agrees(self, other: FileState) -> bool:
        """Whether both may be of the same file."""
        return (
            self.size == other.size
            and (self.version == other.version or not (self.version and other.version))
            and (self.ctime_ns == other.ctime_ns or None in (self.ctime_ns, other.ctime_ns))
        )


class RemoteFile(io.RawIOBase):
    """A file of any store, read by ranges as they are asked for; nothing is read ahead.

    Every range is of the file that was opened, whatever is put in its place meanwhile, or the read
    fails. Ranges are fetched patiently.

    Attributes:
        failed: The store did not give what was asked for. (Codecs raise OSError as well, for what a
            file holds.)
    """

    def __init__(self, fs: Any, path: str, listed: FileState | None = None) -> None:
        """Open a file.

        Args:
            fs: Its file system.
            path: Its path there.
            listed: What it was when it was listed; by default what it is now.

        Raises:
            FileNotFoundError: There is no such file.
        """
        self.failed = False
        self._at = 0
        self._source = _source(fs, path)
        # One that was not listed stays the same file when it is moved or gets another name.
        self._state = listed or replace(self._source.state(), ctime_ns=None)

    def readable(self) -> bool:
        """True: it is there to be read."""
        return True

    def seekable(self) -> bool:
        """True: a range may begin anywhere."""
        return True

    def tell(self) -> int:
        """Where the next read begins, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next read begins, without a request."""
        self._at = offset + (0, self._at, self._state.size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes; how many bytes came."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes in one request; without a size, all that are left.

        Raises:
            ChangedError: The file is not what it was when it was listed or opened.
            OSError: The store keeps failing.
        """
        end = self._state.size if size < 0 else min(self._at + size, self._state.size)
        if end <= self._at:
            return b""
        try:
            data = self._source.fetch(self._at, end, self._state)
        except OSError:
            self.failed = True
            raise
        if data is None:
            self.failed = True
            raise ChangedError("changed while it was read: run the same command again")
        self._at += len(data)
        return data

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            self._source.close()
        super().close()


class _Source(Protocol):
    """Where the ranges of a file come from."""

    def state(self) -> FileState:
        """What the file is now."""

    def fetch(self, start: int, end: int, state: FileState) -> bytes | None:
        """All bytes from `start` to before `end`; None where the file is not of this state."""

    def close(self) -> None:
        """Let go of it."""


def _source(fs: Any, path: str) -> _Source:
    if is_local(fs):
        return _LocalFile(path)
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return _S3Object(fs, path) if protocols & {"s3", "s3a"} else _StoredFile(fs, path)


class _LocalFile:
    """Held open: another file that is moved to its path is not seen.

    Its state is looked at after each read, which costs a microsecond.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed by `close`

    def state(self) -> FileState:
        now = os.fstat(self._file.fileno())
        return FileState(now.st_size, version({"mtime": now.st_mtime}), now.st_ctime_ns)

    def fetch(self, start: int, end: int, state: FileState) -> bytes | None:
        pieces: list[bytes] = []
        # One piece but for more than 2 GiB, which the system gives in parts.
        while start < end and (piece := os.pread(self._file.fileno(), end - start, start)):
            pieces.append(piece)
            start += len(piece)
        is_same = start == end and self.state().agrees(state)
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)) if is_same else None

    def close(self) -> None:
        self._file.close()


class _StoredFile:
    """Of a store that gives ranges of whatever lies at the path: looked up after each of them."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    def state(self) -> FileState:
        info = details(self._fs, self._path)
        return FileState(file_size(info, self._path), version(info))

    def fetch(self, start: int, end: int, state: FileState) -> bytes | None:
        data = get(self._fs, self._path, start, end)
        return data if self.state().agrees(state) else None

    def close(self) -> None:
        pass


class _S3Object(_StoredFile):
    """The store itself refuses a range of another version (If-Match)."""

    def fetch(self, start: int, end: int, state: FileState) -> bytes | None:
        def fetch() -> bytes | None:
            data: bytes | None
            try:
                data = sync(self._fs.loop, _range, self._fs, self._path, (start, end), state)
            except OSError as error:
                if _has_other(error):
                    return None
                raise
            if data is not None and len(data) != end - start:
                raise OSError(f"{self._path}: {len(data):,} bytes came instead of {end - start:,}")
            return data

        return patiently(self._fs, fetch)


async def _range(fs: Any, path: str, part: tuple[int, int], state: FileState) -> bytes | None:
    """As `fs.cat_file`, which takes no condition; None where another version came all the same."""
    bucket, key, version_id = fs.split_path(path)
    of_version = {"VersionId": version_id} if version_id else {}
    answer = await fs._call_s3(
        "get_object",
        Bucket=bucket,
        Key=key,
        Range=f"bytes={part[0]}-{part[1] - 1}",
        IfMatch=f'"{state.version}"',
        **of_version,
    )
    try:
        return await answer["Body"].read() if version(answer) == state.version else None
    finally:
        answer["Body"].close()


def _has_other(error: OSError) -> bool:
    """Whether a store refused a range since it has no such version, or no such range in it."""
    response = getattr(error.__cause__, "response", None)  # botocore's ClientError
    status = response["ResponseMetadata"]["HTTPStatusCode"] if response else None
    return status in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
