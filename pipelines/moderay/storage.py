"""Any fsspec URL -> file system and path; and what a failing storage means for the person who runs the job."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from moderay.errors import ModerayError, TryAgain, UserError

# Stores where a write is there as a whole or not at all. Elsewhere a file is written aside and moved.
_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"}


def filesystem(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The file system of a URL and the path in it. `options` (the job's `storage:`) go to file systems that are not
    local; those under a protocol's name, such as `s3: {...}`, to that protocol only. Credentials and endpoint come from
    the store's usual environment variables. Raises `UserError`."""
    protocol = url.split("://", 1)[0] if "://" in url else "file"
    given = {} if protocol in ("file", "local") else _options(protocol, options or {})
    if protocol in ("s3", "s3a") and "endpoint_url" not in given:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        given |= {"endpoint_url": endpoint} if endpoint else {}
    try:
        fs, path = fsspec.core.url_to_fs(url, **given)
    except (ValueError, ImportError, TypeError) as error:
        raise UserError(f"{shown(url)}: this kind of storage cannot be used ({_first_line(error)})") from None
    return fs, path


def _options(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for every store, and over them those of this protocol."""
    known = fsspec.available_protocols()
    general = {name: value for name, value in options.items() if name not in known}
    own = options.get(protocol)
    return general | (dict(own) if isinstance(own, Mapping) else {})


def place(url: str, options: Mapping[str, Any] | None = None) -> str:
    """Where a URL points, in one form that ends in `/`: two URLs of the same folder or file have the same place."""
    fs, path = filesystem(url, options)
    kind = fs.protocol if isinstance(fs.protocol, str) else min(fs.protocol)
    path = os.path.realpath(path) if is_local(fs) else path
    return f"{kind}:{path.rstrip('/')}/"


def shown(url: str) -> str:
    """A URL as it may stand in a message: without a user's name or password."""
    return re.sub(r"://[^/@]+@", "://", url)


def is_local(fs: Any) -> bool:
    return isinstance(fs, LocalFileSystem)


def put_bytes(fs: Any, path: str, data: bytes, scratch: str) -> None:
    """Write a file as a whole or not at all; `scratch` is a folder on the same file system."""
    with _whole(fs, path, scratch) as place:
        fs.pipe_file(place, data)


def put_file(fs: Any, local: str, path: str, scratch: str) -> None:
    """Copy a finished local file to its place, where it appears as a whole."""
    with _whole(fs, path, scratch) as place:
        fs.put_file(local, place)


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
    """Write a file only if there is none; whether it was written."""
    if not _atomic(fs):
        fs.makedirs(fs._parent(path), exist_ok=True)
    try:
        fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def read(fs: Any, path: str) -> bytes | None:
    """A small file that others may replace meanwhile; None where there is none."""
    fs.invalidate_cache(fs._parent(path))
    try:
        data: bytes = fs.cat_file(path)
    except FileNotFoundError:
        return None
    return data


def find(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Every file below a folder with its details; nothing where there is no such folder."""
    fs.invalidate_cache()
    try:
        found: dict[str, dict[str, Any]] = fs.find(path, detail=True)
    except FileNotFoundError:
        return {}
    return found


def version(info: Mapping[str, Any]) -> str:
    """What changes when a file's bytes do: the store's etag, else its time of change."""
    for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created"):
        if info.get(name) is not None:
            return str(info[name]).strip('"')
    return ""


@contextmanager
def plain_errors(url: str) -> Iterator[None]:
    """Storage errors of the kinds a person can mend, as one sentence without secrets: `UserError` for credentials, access and
    names, `TryAgain` for a store that does not answer."""
    url = shown(url)
    try:
        yield
    except ModerayError:
        raise
    except PermissionError as error:
        raise UserError(f"{url}: access denied ({_first_line(error)}); check the credentials and what they may do") from None
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such bucket or folder ({_first_line(error)})") from None
    except (OSError, TimeoutError) as error:
        raise TryAgain(f"{url}: the storage does not answer ({_first_line(error)}); try again") from None
    except Exception as error:
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ClientError", "TokenRetrievalError"):
            raise UserError(f"{url}: {_first_line(error)}; set the store's usual environment variables, such as AWS_ACCESS_KEY_ID") from None
        if type(error).__name__ in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"):
            raise TryAgain(f"{url}: the storage does not answer ({_first_line(error)}); try again") from None
        raise


def _atomic(fs: Any) -> bool:
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return bool(protocols & _ATOMIC)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
