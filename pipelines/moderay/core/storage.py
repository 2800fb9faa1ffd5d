"""Any fsspec URL -> file system and path; and what a failing storage means for the person who runs
the job.
"""

from __future__ import annotations

import io
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from moderay.core.errors import ModerayError, TryAgainError, UserError, first_line
from moderay.core.events import event

T = TypeVar("T")

# A call that fails in passing is tried this often, with a pause of up to FIRST_S seconds after the
# first, twice that after the second, and so on: some ten seconds, in which a store that throttles
# comes round. Under it s3fs tries each call five times by itself, within two seconds.
TRIES, FIRST_S = 6, 0.3
# Bytes of one part of a large upload; the default of s3fs, 50 MB, is a lot to send again.
PART_BYTES = 16 * 2**20

# Stores where a write is there as a whole or not at all. Elsewhere a file is written aside and
# moved.
_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"}


def filesystem(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The file system of a URL and the path in it. `options` (the job's `storage:`) go to file
    systems that are not local; those under a protocol's name, such as `s3: {...}`, to that protocol
    only. Credentials and endpoint come from the store's usual environment variables. Raises
    `UserError`.
    """
    protocol = url.split("://", 1)[0] if "://" in url else "file"
    given = {} if protocol in ("file", "local") else _options(protocol, options or {})
    if protocol in ("s3", "s3a"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        given = ({"endpoint_url": endpoint} if endpoint else {}) | given
        # One that tries, not three inside each other: botocore's own attempts are left out.
        given = {"config_kwargs": {"retries": {"total_max_attempts": 1}}} | given
    try:
        fs, path = fsspec.core.url_to_fs(url, **given)
    except (ValueError, ImportError, TypeError) as error:
        raise UserError(
            f"{shown(url)}: this kind of storage cannot be used ({first_line(error)})"
        ) from None
    return fs, path


def _options(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for every store, and over them those of this protocol."""
    known = fsspec.available_protocols()
    general = {name: value for name, value in options.items() if name not in known}
    own = options.get(protocol)
    return general | (dict(own) if isinstance(own, Mapping) else {})


def place(url: str, options: Mapping[str, Any] | None = None) -> str:
    """Where a URL points, in one form that ends in `/`: two URLs of the same folder or file have
    the same place.
    """
    fs, path = filesystem(url, options)
    kind = fs.protocol if isinstance(fs.protocol, str) else min(fs.protocol)
    path = os.path.realpath(path) if is_local(fs) else path
    return f"{kind}:{path.rstrip('/')}/"


def shown(url: str) -> str:
    """A URL as it may stand in a message: without a user's name or password."""
    return re.sub(r"://[^/@]+@", "://", url)


def is_local(fs: Any) -> bool:
    return isinstance(fs, LocalFileSystem)


def is_glob(fs: Any, path: str) -> bool:
    return any(char in path for char in "*?[") and not (is_local(fs) and fs.exists(path))


def put_bytes(fs: Any, path: str, data: bytes, scratch: str) -> None:
    """Write a file as a whole or not at all; `scratch` is a folder on the same file system."""
    with _whole(fs, path, scratch) as place:
        patiently(fs, lambda: fs.pipe_file(place, data))


def put_file(fs: Any, local: str, path: str, scratch: str) -> None:
    """Copy a finished local file to its place, where it appears as a whole."""
    with _whole(fs, path, scratch) as place:
        patiently(
            fs,
            lambda: fs.put_file(
                local, place, **({} if is_local(fs) else {"chunksize": PART_BYTES})
            ),
        )


@contextmanager
def _whole(fs: Any, path: str, scratch: str) -> Iterator[str]:
    """Where to write a file that then appears at `path`, complete."""
    if _atomic(fs):
        yield path
        return
    aside = f"{scratch}/{uuid.uuid4().hex}"
    fs.makedirs(scratch, exist_ok=True)
    fs.makedirs(fs._parent(path), exist_ok=True)
    yield aside
    fs.mv(aside, path)


def create(fs: Any, path: str, data: bytes) -> bool:
    """Write a file only if there is none; whether it was written. `data` is like no other's: an
    answer that got lost makes the next try find what the first wrote.
    """
    try:
        if is_local(fs):
            _create_local(path, data)
        else:
            if not _atomic(fs):
                fs.makedirs(fs._parent(path), exist_ok=True)
            patiently(fs, lambda: fs.pipe_file(path, data, mode="create"))
    except FileExistsError:
        return read(fs, path) == data
    return True


def _create_local(path: str, data: bytes) -> None:
    """Fsspec's own `mode="create"` looks first and writes then: two writers at once would both
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
    """A file's bytes, or a range of them, all there. Raises FileNotFoundError, or OSError where the
    store keeps failing.
    """

    def fetch() -> bytes:
        data: bytes = fs.cat_file(path, start=start, end=end)
        if start is not None and end is not None and len(data) != end - start:
            raise OSError(f"{path}: {len(data):,} bytes came instead of {end - start:,}")
        return data

    return patiently(fs, fetch)


def details(fs: Any, path: str) -> dict[str, Any]:
    """A file's size, time and so on, as they are now."""
    fs.invalidate_cache(fs._parent(path))
    found: dict[str, Any] = patiently(fs, lambda: fs.info(path))
    return found


def stamp(fs: Any, path: str) -> tuple[int, str] | None:
    """By which a file is told from another of its name: its size and `version`, as they are now.
    None where it is gone.
    """
    try:
        info = details(fs, path)
    except FileNotFoundError:
        return None
    return int(info["size"]), version(info)


def remove(fs: Any, path: str) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        patiently(fs, lambda: fs.rm_file(path))


class RemoteFile(io.RawIOBase):
    """A file of any store, read by ranges as they are asked for, each of them patiently; nothing is
    read ahead.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path, self._at = fs, path, 0
        self._size = int(details(fs, path)["size"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        data = get(self._fs, self._path, self._at, end) if end > self._at else b""
        self._at += len(data)
        return data


def find(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Every file below a folder with its details; nothing where there is no such folder."""
    fs.invalidate_cache()
    try:
        found: dict[str, dict[str, Any]] = patiently(fs, lambda: fs.find(path, detail=True))
    except FileNotFoundError:
        return {}
    return found


def names_below(fs: Any, path: str) -> Iterator[str]:
    """The path below a folder of every file in it; nothing where there is no such folder. Of a
    million files it holds what the store's library holds, and no more.
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


def patiently(fs: Any, call: Callable[[], T]) -> T:
    """What `call` gives; tried again, with growing pauses of random length, where a store that is
    not local fails in passing: throttled, reset, cut off, out of order. Raises the last failure, as
    OSError whatever library it is of.
    """
    for number in range(TRIES - 1):
        try:
            return call()
        except Exception as error:
            if is_local(fs) or not _passing(error):
                raise
            event("storage retried", attempt=number + 1, kind=type(error).__name__)
        time.sleep(random.uniform(0, FIRST_S * 2**number))
    try:
        return call()
    except Exception as error:
        if _passing(error) and not isinstance(error, OSError):
            raise OSError(first_line(error)) from error
        raise


# What the libraries under fsspec raise, beside OSError, when a connection or an answer breaks.
_BROKEN = {
    "HTTPClientError",
    "ConnectionError",
    "ClientPayloadError",
    "IncompleteRead",
    "ResponseParserError",
    "ServerDisconnectedError",
}


def _passing(error: Exception) -> bool:
    if isinstance(
        error,
        (
            FileNotFoundError,
            FileExistsError,
            PermissionError,
            IsADirectoryError,
            NotADirectoryError,
        ),
    ):
        return False
    response = getattr(error, "response", None)  # botocore's ClientError
    if isinstance(response, Mapping):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status in (408, 429)
    return isinstance(error, OSError) or any(
        kind.__name__ in _BROKEN for kind in type(error).__mro__
    )


def version(info: Mapping[str, Any]) -> str:
    """What changes when a file's bytes do: the store's etag, else its time of change."""
    for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created"):
        if info.get(name) is not None:
            return str(info[name]).strip('"')
    return ""


@contextmanager
def plain_errors(url: str) -> Iterator[None]:
    """Storage errors of the kinds a person can mend, as one sentence without secrets: `UserError`
    for credentials, access and names, `TryAgainError` for a store that does not answer.
    """
    url = shown(url)
    try:
        yield
    except ModerayError:
        raise
    except PermissionError as error:
        raise UserError(
            f"{url}: access denied ({first_line(error)}); check the credentials and what they "
            "may do"
        ) from None
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such bucket or folder ({first_line(error)})") from None
    except (OSError, TimeoutError) as error:
        raise TryAgainError(
            f"{url}: the storage does not answer ({first_line(error)}); try again"
        ) from None
    except Exception as error:
        if _passing(error):
            raise TryAgainError(
                f"{url}: the storage does not answer ({first_line(error)}); try again"
            ) from None
        if (refused := no_credentials(url, error)) is not None:
            raise refused from None
        raise


def no_credentials(url: str, error: Exception) -> UserError | None:
    """What to say where an error means that a store was asked without credentials, or with wrong
    ones.
    """
    if type(error).__name__ not in (
        "NoCredentialsError",
        "PartialCredentialsError",
        "ClientError",
        "TokenRetrievalError",
    ):
        return None
    where = (
        f"on {os.uname().nodename}, set the store's usual environment variables, such as "
        "AWS_ACCESS_KEY_ID"
    )
    return UserError(f"{shown(url)}: {first_line(error)}; {where}")


def _atomic(fs: Any) -> bool:
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return bool(protocols & _ATOMIC)
