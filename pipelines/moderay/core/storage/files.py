"""Files of any store: read, written as a whole or not at all, listed."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from http import HTTPStatus
from typing import Any

from moderay.core.errors import first_line
from moderay.core.redaction import shown
from moderay.core.storage.disks import on_disk
from moderay.core.storage.retries import patiently
from moderay.core.storage.urls import is_local, is_web

# Bytes of one part of a large upload; the default of s3fs, 50 MB, is a lot to send again.
PART_BYTES = 16 * 2**20

# Stores where a write is there as a whole or not at all. Elsewhere a file is written aside and
# moved.
_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"}


def put_bytes(fs: Any, path: str, data: bytes, scratch: str) -> None:
    """Write a file as a whole or not at all; `scratch` is a folder on the same file system."""
    with _whole(fs, path, scratch, len(data)) as target:
        patiently(fs, lambda: fs.pipe_file(target, data))


def put_file(fs: Any, local: str, path: str, scratch: str) -> None:
    """Copy a finished local file to `path`, where it appears as a whole; `scratch` as above."""
    options = {} if is_local(fs) else {"chunksize": PART_BYTES}
    with _whole(fs, path, scratch, os.path.getsize(local)) as target:
        patiently(fs, lambda: fs.put_file(local, target, **options))


@contextmanager
def _whole(fs: Any, path: str, scratch: str, size: int) -> Iterator[str]:
    """Where to write a file of so many bytes that then appears at `path`, complete."""
    if _is_atomic(fs):
        yield path
        return
    aside = f"{scratch}/{uuid.uuid4().hex}"
    with on_disk(scratch, size) if is_local(fs) else nullcontext():
        fs.makedirs(scratch, exist_ok=True)
        fs.makedirs(fs._parent(path), exist_ok=True)
        try:
            yield aside
        except OSError:
            # On a full disk, half a file would be in the way of whoever makes room.
            with suppress(OSError):
                fs.rm_file(aside)
            raise
        fs.mv(aside, path)


def _is_atomic(fs: Any) -> bool:
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return bool(protocols & _ATOMIC)


def create(fs: Any, path: str, data: bytes) -> bool:
    """Write a file only if there is none.

    Args:
        fs: The file system.
        path: The file.
        data: Like no other writer's: an answer that got lost makes the next try find what the first
            wrote.

    Returns:
        Whether it was written.
    """
    try:
        if is_local(fs):
            _create_local(path, data)
        else:
            if not _is_atomic(fs):
                fs.makedirs(fs._parent(path), exist_ok=True)
            patiently(fs, lambda: fs.pipe_file(path, data, mode="create"))
    except FileExistsError:
        return read(fs, path) == data
    return True


def _create_local(path: str, data: bytes) -> None:
    """Create by a hard link, which fails where there is a file.

    Fsspec's own `mode="create"` looks first and writes then: two writers at once would both
    succeed.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = f"{path}.{uuid.uuid4().hex}"
    try:
        with on_disk(os.path.dirname(path), len(data)), open(aside, "xb") as file:
            file.write(data)
        os.link(aside, path)  # whole, and only if there is none
    finally:
        with suppress(FileNotFoundError):
            os.remove(aside)


def read(fs: Any, path: str) -> bytes | None:
    """A small file that others may replace meanwhile; None where there is none."""
    fs.invalidate_cache(fs._parent(path))
    try:
        return get(fs, path)
    except FileNotFoundError:
        return None


def get(fs: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
    """A file's bytes, or those from `start` to before `end`, all of them.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The store keeps failing, or keeps giving less than was asked for.
    """

    def fetch() -> bytes:
        try:
            data: bytes = fs.cat_file(path, start=start, end=end)
        except Exception as error:
            if (answer := _web_answer(error)) is None:
                raise
            raise answer from error
        if start is not None and end is not None and len(data) != end - start:
            whole = is_web(fs) and len(data) > end - start
            raise (io.UnsupportedOperation if whole else OSError)(
                f"{shown(path)}: {len(data):,} bytes came instead of {end - start:,}"
                + (": the server does not give parts of files" if whole else "")
            )
        return data

    return patiently(fs, fetch)


def details(fs: Any, path: str) -> dict[str, Any]:
    """A file's size, time and so on, as they are now.

    Raises:
        FileNotFoundError: There is no such file.
        PermissionError: The store refuses to say.
        OSError: The store keeps failing.
    """
    fs.invalidate_cache(fs._parent(path))
    info: dict[str, Any] = patiently(fs, lambda: _info(fs, path))
    return info


def _info(fs: Any, path: str) -> dict[str, Any]:
    """As fsspec's `info`, with `ctime_ns` of a local file.

    That of the web takes every failure for a file that is not there.
    """
    try:
        info: dict[str, Any] = fs.info(path)
        if is_local(fs):
            info["ctime_ns"] = os.stat(path).st_ctime_ns
    except FileNotFoundError as error:
        cause = error.__cause__
        if cause is None or not is_web(fs):
            raise
        raise _web_answer(cause) or OSError(first_line(cause)) from cause
    return info


# Answers of the web that are no failures of the server; all others are taken for such.
_WEB_ANSWERS: dict[int, type[OSError]] = {
    HTTPStatus.NOT_FOUND: FileNotFoundError,
    HTTPStatus.GONE: FileNotFoundError,
    HTTPStatus.UNAUTHORIZED: PermissionError,
    HTTPStatus.FORBIDDEN: PermissionError,
}


def _web_answer(error: BaseException) -> OSError | None:
    """An answer of the web as the error that other file systems have for it; None for no answer."""
    status = getattr(error, "status", None)
    if not isinstance(status, int):
        return None
    return _WEB_ANSWERS.get(status, OSError)(first_line(error))


def file_size(info: Mapping[str, Any], path: str) -> int:
    """Bytes of a file.

    Raises:
        UnsupportedOperation: The store does not say; without it, no part of a file can be read.
    """
    if info.get("size") is None:
        raise io.UnsupportedOperation(f"{shown(path)}: the store does not say how large it is")
    return int(info["size"])


# Names of a version in the details of fsspec's file systems. First what is of the bytes, then the
# times of a change.
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "sha"),
    *("mtime", "LastModified", "Last-Modified", "last_modified", "modificationTime", "modify"),
    *("modified", "created"),
)


def version(info: Mapping[str, Any]) -> str:
    """What changes when a file's bytes do: the store's etag, else its time of change.

    Nothing where the store says neither.
    """
    for name in _VERSIONS:
        if info.get(name) is not None:
            return str(info[name]).strip('"')
    return ""


def remove(fs: Any, path: str) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        patiently(fs, lambda: fs.rm_file(path))


def names_below(fs: Any, path: str) -> Iterator[str]:
    """The path below a folder of every file in it; nothing where there is no such folder.

    Of a million files it holds what the store's library holds, and no more.
    """
    fs.invalidate_cache()
    if is_local(fs):
        for folder, _, names in os.walk(path):
            below = os.path.relpath(folder, path)
            yield from names if below == "." else (f"{below}/{name}" for name in names)
        return
    with suppress(FileNotFoundError):
        for name in patiently(fs, lambda: fs.find(path)):
            yield name.split(path.lstrip("/") + "/", 1)[1]
