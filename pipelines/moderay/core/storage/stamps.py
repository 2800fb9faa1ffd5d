"""What tells a file from another of its name."""

from __future__ import annotations

import hashlib
from typing import Any

from moderay.core.storage.files import PART_BYTES, details, file_size, version
from moderay.core.storage.opened import RemoteFile

# What begins the version of a file whose store says none.
HASHED = "blake2b:"


def stamp(fs: Any, path: str) -> tuple[int, str] | None:
    """A file's size and version, as they are now; None where it is gone.

    By these a file is told from another of its name.
    """
    try:
        info = details(fs, path)
    except FileNotFoundError:
        return None
    return file_size(info, path), version(info) or content_version(fs, path)


def content_version(fs: Any, path: str) -> str:
    """The version of a file whose store says none: a hash of all its bytes, which are read for it.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The store keeps failing.
    """
    hashed = hashlib.blake2b(digest_size=16)
    with RemoteFile(fs, path) as file:
        while data := file.read(PART_BYTES):
            hashed.update(data)
    return HASHED + hashed.hexdigest()
