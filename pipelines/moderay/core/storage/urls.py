"""Any fsspec URL -> file system and path; a listed file's path -> a URL that may be shown."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import fsspec
from fsspec.implementations.local import LocalFileSystem

from moderay.core.errors import UserError, first_line
from moderay.core.redaction import shown

__all__ = [
    "canonical",
    "canonical_url",
    "filesystem",
    "is_glob",
    "is_local",
    "is_web",
    "listed_file",
    "listed_url",
    "shown",
    "store_options",
]

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)(?=://|::)")
_FILE = "file://"


def filesystem(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Credentials and endpoint come from the store's usual environment variables. What begins with a
    protocol that lies over another store, such as `zip://a.parquet::s3://bucket/b.zip`, is taken
    for a chain of URLs; in any other, `::` are two characters of a name.

    Args:
        url: Any fsspec URL; without a protocol, a path of this machine.
        options: The job's `storage:`. They go to file systems that are not local; those under a
            protocol's name, such as `s3: {...}`, to that protocol only.

    Raises:
        UserError: This kind of storage cannot be used.
    """
    match = _PROTOCOL.match(url)
    protocol = match[1] if match else "file"
    try:
        kind = fsspec.get_filesystem_class(protocol)
        own = store_options(protocol, options or {})
        if "::" in url and _lies_over_another(kind):
            fs, path = fsspec.core.url_to_fs(url, **own)
        else:
            # Without `url_to_fs`, which takes `a::b` apart wherever it stands.
            fs = kind(**{**kind._get_kwargs_from_urls(url), **own})
            path = kind._strip_protocol(url)
    except (ValueError, ImportError, TypeError) as error:
        raise UserError(
            f"{shown(url)}: this kind of storage cannot be used ({first_line(error)})"
        ) from None
    return fs, path


def _lies_over_another(kind: type) -> bool:
    """Whether a file system is made of another one's files, as a zip or a cache is."""
    takes = [
        inspect.signature(vars(base)["__init__"]).parameters.keys()
        for base in kind.__mro__
        if "__init__" in vars(base)
    ]
    return any({"fo", "target_protocol"} & names for names in takes)


def store_options(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a protocol's file system: of the job's `storage:`, and of the environment."""
    if protocol in ("file", "local"):
        return {}
    own = _options_for(protocol, options)
    if protocol in ("s3", "s3a"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        own = ({"endpoint_url": endpoint} if endpoint else {}) | own
        # `retries` tries again; botocore's own attempts inside it would multiply the waiting.
        own = {"config_kwargs": {"retries": {"total_max_attempts": 1}}} | own
    return own


def _options_for(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for every store, and over them those of this protocol."""
    known = fsspec.available_protocols()
    general = {
        name: value for name, value in options.items() if name not in known and name != "catalogs"
    }
    own = options.get(protocol)
    return general | (dict(own) if isinstance(own, Mapping) else {})


def listed_url(fs: Any, path: str, store: str) -> str:
    """The URL of a listed file as it may be written and shown; `listed_file` takes it back.

    It is valid Unicode, and without the secrets of `shown`: what is read with a password or a
    signature in its URL is found by it only where the environment has another way in.

    Args:
        fs: The file system that listed it.
        path: Its path there.
        store: The URL that the file system is of.
    """
    if is_local(fs):
        return path if _is_text(path) else _FILE + quote(os.fsencode(path))
    url = str(fs.unstrip_protocol(path))
    if is_web(fs):
        return shown(url)
    if "::" in store and _lies_over_another(type(fs)):
        return f"{url}::{shown(store.split('::', 1)[1])}"
    return url


def listed_file(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The file system and the path of what `listed_url` wrote."""
    if url.startswith(_FILE):
        return LocalFileSystem(), os.fsdecode(unquote_to_bytes(url.removeprefix(_FILE)))
    return filesystem(url, options)


def _is_text(path: str) -> bool:
    """Whether a path is valid Unicode; names of local files may be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def canonical_url(url: str, options: Mapping[str, Any] | None = None) -> str:
    """A URL in one form, which ends in `/`: equal for two URLs of the same folder or file.

    One folder lies inside another where its canonical URL begins with the other's.
    """
    fs, path = filesystem(url, options)
    return canonical(fs, os.path.realpath(path) if is_local(fs) else path)


def canonical(fs: Any, path: str) -> str:
    """As `canonical_url`, of a path; a local one is free of links."""
    protocol = fs.protocol if isinstance(fs.protocol, str) else min(fs.protocol)
    return f"{protocol}:{path.rstrip('/')}/"


def is_local(fs: Any) -> bool:
    """Whether it is this machine's own file system."""
    return isinstance(fs, LocalFileSystem)


def is_web(fs: Any) -> bool:
    """Whether its paths are URLs of the web, which may have a query."""
    return "http" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)


def is_glob(fs: Any, path: str) -> bool:
    """Whether a path is a pattern; a local file whose name has such characters is none."""
    # In a URL of the web, a question mark begins the query.
    signs = "*[" if is_web(fs) else "*?["
    return any(char in path for char in signs) and not (is_local(fs) and fs.exists(path))
