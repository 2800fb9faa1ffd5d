"""Files of any store: read, written as a whole or not at all, listed."""

from __future__ import annotations

import errno
import io
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
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
        if is_local(fs):
            _write_new(target, data)
        else:
            patiently(fs, lambda: fs.pipe_file(target, data))


def put_file(fs: Any, local: str, path: str, scratch: str) -> tuple[int, str]:
    """Copy a finished local file to `path`, where it appears as a whole; `scratch` as above.

    Returns:
        Size and version of what was written, as a listing will have them.

    Raises:
        OSError: Another writer's file stands there already.
    """
    size = os.path.getsize(local)
    if is_local(fs):
        with _whole(fs, path, scratch, size) as target:
            shutil.copyfile(local, target)
            _sync(target)
            written = os.stat(target)
        return _local_stamp(written)
    with _whole(fs, path, scratch, size) as target:
        patiently(fs, lambda: fs.put_file(local, target, chunksize=PART_BYTES))
    now = size_and_version(fs, path)
    if now is None or now[0] != size:
        raise OSError(f"{path} was replaced or removed as it was written: another writer is there")
    return now


@contextmanager
def _whole(fs: Any, path: str, scratch: str, size: int) -> Iterator[str]:
    """Where to write a file of so many bytes that then appears at `path`, complete."""
    if is_atomic(fs):
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
        if is_local(fs):
            os.replace(aside, path)
            _sync(os.path.dirname(path))
        else:
            fs.mv(aside, path)


def is_atomic(fs: Any) -> bool:
    """Whether a write is there as a whole or not at all, and no folder need be made for it."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return bool(protocols & _ATOMIC)


def _write_new(path: str, data: bytes) -> None:
    """Write a local file that is not there yet, down to the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: str) -> None:
    """Have a local file, or a folder's names, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create(fs: Any, path: str, data: bytes) -> bool:
    """Write a file only if there is none.

    Of a store that lets two writers do so at once, the one whose data does not stay is told so by
    reading again what stands there.

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
            return True
        if not is_atomic(fs):
            fs.makedirs(fs._parent(path), exist_ok=True)
        patiently(fs, lambda: fs.pipe_file(path, data, mode="create"))
    except FileExistsError:
        pass
    return read(fs, path) == data


# What `os.link` ends in on a file system that has no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def _create_local(path: str, data: bytes) -> None:
    """Create by a hard link, which fails where there is a file.

    Fsspec's own `mode="create"` looks first and writes then: two writers at once would both
    succeed. Without hard links the file is opened as new, so that for a moment it is there without
    its content.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    aside = f"{folder}/.{uuid.uuid4().hex}"
    try:
        with on_disk(folder, len(data)):
            _write_new(aside, data)
        os.link(aside, path)  # whole, and only if there is none
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _write_new(path, data)
    finally:
        with suppress(FileNotFoundError):
            os.remove(aside)
    _sync(folder)


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


def modified(fs: Any, path: str) -> float | None:
    """When a file was written, in seconds since 1970 by the store's own clock; None without one."""
    try:
        fs.invalidate_cache(fs._parent(path))
        return float(patiently(fs, lambda: fs.modified(path)).timestamp())
    except FileNotFoundError:
        return None


def version(info: Mapping[str, Any]) -> str:
    """What changes when a file's bytes do: the store's etag, else its time of change.

    Nothing where the store says neither.
    """
    known = (info[name] for name in _VERSIONS if info.get(name) is not None)
    first = next(known, "")
    # Some stores list a time as a number, and say it of one file as a date.
    return str(first.timestamp() if isinstance(first, datetime) else first).strip('"')


def size_and_version(fs: Any, path: str) -> tuple[int, str] | None:
    """A file's size and `version` as a listing has them; None where it is gone."""
    try:
        info = details(fs, path)
    except FileNotFoundError:
        return None
    return file_size(info, path), version(info)


def remove(fs: Any, path: str) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        patiently(fs, lambda: fs.rm_file(path))


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file as a listing has it.

    Attributes:
        name: Its path below the folder that was listed.
        size: In bytes.
        version: As `version` gives it.
    """

    name: str
    size: int
    version: str


def files_below(fs: Any, path: str) -> Iterator[ListedFile]:
    """Every file below a folder; nothing where there is no such folder.

    Of a million files it holds what the store's library holds, and no more.
    """
    fs.invalidate_cache()
    if is_local(fs):
        yield from _local_files(path, "")
        return
    with suppress(FileNotFoundError):
        for name, info in patiently(fs, lambda: fs.find(path, detail=True)).items():
            # A folder in which the first file appears as it is listed may be listed itself.
            _, is_below, below = name.partition(path.lstrip("/") + "/")
            if is_below:
                yield ListedFile(below, int(info["size"] or 0), version(info))


def _local_files(folder: str, below: str) -> Iterator[ListedFile]:
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:  # removed meanwhile, or never there
        return
    with entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _local_files(entry.path, f"{name}/")
                continue
            with suppress(FileNotFoundError):
                yield ListedFile(name, *_local_stamp(entry.stat()))


def _local_stamp(stat: os.stat_result) -> tuple[int, str]:
    """As `stamp` gives it of a local file."""
    return stat.st_size, version({"mtime": stat.st_mtime})
