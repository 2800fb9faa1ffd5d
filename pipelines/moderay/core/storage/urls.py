"""Any fsspec URL -> file system and path."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from moderay.core.errors import UserError, first_line


def filesystem(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Credentials and endpoint come from the store's usual environment variables.

    Args:
        url: Any fsspec URL; without a protocol, a path of this machine.
        options: The job's `storage:`. They go to file systems that are not local; those under a
            protocol's name, such as `s3: {...}`, to that protocol only.

    Raises:
        UserError: This kind of storage cannot be used.
    """
    protocol = url.split("://", 1)[0] if "://" in url else "file"
    own = {} if protocol in ("file", "local") else _options_for(protocol, options or {})
    if protocol in ("s3", "s3a"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        own = ({"endpoint_url": endpoint} if endpoint else {}) | own
        # `retries` tries again; botocore's own attempts inside it would multiply the waiting.
        own = {"config_kwargs": {"retries": {"total_max_attempts": 1}}} | own
    try:
        fs, path = fsspec.core.url_to_fs(url, **own)
    except (ValueError, ImportError, TypeError) as error:
        raise UserError(
            f"{shown(url)}: this kind of storage cannot be used ({first_line(error)})"
        ) from None
    return fs, path


def _options_for(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for every store, and over them those of this protocol."""
    known = fsspec.available_protocols()
    general = {name: value for name, value in options.items() if name not in known}
    own = options.get(protocol)
    return general | (dict(own) if isinstance(own, Mapping) else {})


def canonical_url(url: str, options: Mapping[str, Any] | None = None) -> str:
    """A URL in one form, which ends in `/`: equal for two URLs of the same folder or file.

    One folder lies inside another where its canonical URL begins with the other's.
    """
    fs, path = filesystem(url, options)
    protocol = fs.protocol if isinstance(fs.protocol, str) else min(fs.protocol)
    path = os.path.realpath(path) if is_local(fs) else path
    return f"{protocol}:{path.rstrip('/')}/"


def shown(url: str) -> str:
    """A URL as it may stand in a message: without a user's name or password."""
    return re.sub(r"://[^/@]+@", "://", url)


def is_local(fs: Any) -> bool:
    """Whether it is this machine's own file system."""
    return isinstance(fs, LocalFileSystem)


def is_glob(fs: Any, path: str) -> bool:
    """Whether a path is a pattern; a local file whose name has such characters is none."""
    return any(char in path for char in "*?[") and not (is_local(fs) and fs.exists(path))
