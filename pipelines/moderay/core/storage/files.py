"""Files of any store: read, written as a whole or not at all, listed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from moderay.core.storage.retries import patiently
from moderay.core.storage.urls import is_local

# Bytes of one part of a large upload; the default of s3fs, 50 MB, is a lot to send again.
PART_BYTES = 16 * 2**20

# Stores where a write is there as a whole or not at all. Elsewhere a file is written aside and
# moved.
_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"}


def put_bytes(fs: Any, path: str, data: bytes, scratch: str) -> None:
    """Write a file as a whole or not at all; `scratch` is a folder on the same file system."""
    with _whole(fs, path, scratch) as target:
        patiently(fs, lambda: fs.pipe_file(target, data))


def put_file(fs: Any, local: str, path: str, scratch: str) -> None:
    """Copy a finished local file to `path`, where it appears as a whole; `scratch` as above."""
    options = {} if is_local(fs) else {"chunksize": PART_BYTES}
    with _whole(fs, path, scratch) as target:
        patiently(fs, lambda: fs.put_file(local, target, **options))


@contextmanager
def _whole(fs: Any, path: str, scratch: str) -> Iterator[str]:
    """Where to write a file that then appears at `path`, complete."""
    if _is_atomic(fs):
        yield path
        return
    aside = f"{scratch}/{uuid.uuid4().hex}"
    fs.makedirs(scratch, exist_ok=True)
    fs.makedirs(fs._parent(path), exist_ok=True)
    yield aside
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
        with open(aside, "xb") as file:
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
        data: bytes = fs.cat_file(path, start=start, end=end)
        if start is not None and end is not None and len(data) != end - start:
            raise OSError(f"{path}: {len(data):,} bytes came instead of {end - start:,}")
        return data

    return patiently(fs, fetch)


def details(fs: Any, path: str) -> dict[str, Any]:
    """A file's size, time and so on, as they are now. Raises FileNotFoundError."""
    fs.invalidate_cache(fs._parent(path))
    info: dict[str, Any] = patiently(fs, lambda: fs.info(path))
    return info


def stamp(fs: Any, path: str) -> tuple[int, str] | None:
    """A file's size and `version`, as they are now; None where it is gone.

    By these a file is told from another of its name.
    """
    try:
        info = details(fs, path)
    except FileNotFoundError:
        return None
    return int(info["size"]), version(info)


def version(info: Mapping[str, Any]) -> str:
    """What changes when a file's bytes do: the store's etag, else its time of change."""
    for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created"):
        if info.get(name) is not None:
            return str(info[name]).strip('"')
    return ""


def remove(fs: Any, path: str) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        patiently(fs, lambda: fs.rm_file(path))


def find(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Every file below a folder with its details; nothing where there is no such folder."""
    fs.invalidate_cache()
    try:
        files: dict[str, dict[str, Any]] = patiently(fs, lambda: fs.find(path, detail=True))
    except FileNotFoundError:
        return {}
    return files


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
