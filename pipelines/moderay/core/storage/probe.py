"""Whether a folder can be written, seen by writing there; nothing is left behind."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from moderay.core.errors import UserError, nearby
from moderay.core.storage.disks import on_disk
from moderay.core.storage.failures import plain_errors
from moderay.core.storage.files import is_atomic, remove
from moderay.core.storage.retries import patiently
from moderay.core.storage.urls import filesystem, is_local, is_web, shown

# Named like a file in the making, which readers of folders pass over.
_PROBE = ".moderay-probe"


def assert_writable(url: str, options: Mapping[str, Any], private: str) -> None:
    """Write a file under a folder, and remove it.

    On a disk it is written into what is there already of the folder's path, so that no folder is
    made. Of stores that are neither a disk nor an object store nothing is tried.

    Args:
        url: The folder, which need not be there yet.
        options: Of its file system.
        private: A folder in it that is written too.

    Raises:
        UserError: It cannot be written, or not removed again.
        NoRoomError: It is full.
        TryAgainError: The store does not answer.
    """
    with plain_errors(url):
        fs, path = filesystem(url, options)
        path = path.rstrip("/")
        if is_web(fs):
            raise UserError(f"{shown(url)} is a web address, which can be read and not written")
        if is_local(fs):
            for folder in dict.fromkeys([_there(path), _there(f"{path}/{private}")]):
                _try_folder(folder)
        elif is_atomic(fs):
            _try_store(fs, f"{path}/{private}/{_PROBE}", url)


def _there(path: str) -> str:
    """A local path, or the nearest above it that is there."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _try_folder(folder: str) -> None:
    name = nearby(folder)
    if not os.path.isdir(folder):
        raise UserError(f"{name} is a file, and must be a folder: move it, or name another path")
    probe = os.path.join(folder, f"{_PROBE}-{uuid.uuid4().hex}")
    try:
        with on_disk(folder, 1):
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except PermissionError:
        raise UserError(
            f"{name} cannot be written: you have no right to: name another path, or have the "
            "folder's rights changed"
        ) from None
    finally:
        with suppress(OSError):
            os.remove(probe)


def _try_store(fs: Any, path: str, url: str) -> None:
    patiently(fs, lambda: fs.pipe_file(path, b"moderay"))
    try:
        remove(fs, path)
    except PermissionError:
        raise UserError(
            f"{shown(url)} can be written, but nothing removed there: runs remove what they no "
            "longer need, so that their credentials must allow it"
        ) from None
