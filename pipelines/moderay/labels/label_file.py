"""What tells one label file from another: its version, its bytes, and the run that published it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa

from moderay.core.storage import RemoteFile, details, version
from moderay.labels.layout import Layout

_RUN = b"moderay.run"


def run_note(run: int) -> dict[bytes, bytes]:
    """Schema metadata of a label file, by which `published_by` knows the run."""
    return {_RUN: str(run).encode()}


def published_by(schema: pa.Schema) -> int | None:
    """The run that wrote a label file; None of another file."""
    note = (schema.metadata or {}).get(_RUN, b"")
    return int(note) if note.isdigit() else None


def file_version(layout: Layout, shard: str) -> str:
    """What changes when a label file is written again: its size, and its etag or time.

    Raises:
        OSError: it is not there, or its store does not answer.
    """
    info = details(layout.fs, layout.label(shard))
    return f"{info['size']}-{version(info)}"


def local_digest(file: Path) -> str:
    """128-bit BLAKE2b of a local file's bytes, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, _blake2b).hexdigest()


def stored_digest(layout: Layout, shard: str) -> str | None:
    """The same of a shard's label file; None where it is gone.

    Raises:
        OSError: its store does not answer.
    """
    try:
        with RemoteFile(layout.fs, layout.label(shard)) as stream:
            return hashlib.file_digest(stream, _blake2b).hexdigest()
    except FileNotFoundError:
        return None


def _blake2b() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)
