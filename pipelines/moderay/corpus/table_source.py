"""A table -> shards: the files of one snapshot, read with the table's columns."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa

from moderay.config.job import Job
from moderay.core.errors import UserError
from moderay.core.storage import (
    Listing,
    canonical,
    filesystem,
    is_local,
    list_folder,
    listed_url,
    plain_errors,
    version,
)
from moderay.corpus.formats import label_file
from moderay.corpus.formats.table_schema import with_value
from moderay.corpus.shard import Shard
from moderay.corpus.source import UNKNOWN, Source
from moderay.corpus.tables.delta import LOG, delta_snapshot
from moderay.corpus.tables.iceberg import iceberg_snapshot
from moderay.corpus.tables.location import TableUrl
from moderay.corpus.tables.snapshot import DataFile, Snapshot

# Folders of a table that hold no rows of it, and may hold more files than those that do.
_NOT_ROWS = {"delta": (LOG, "_change_data"), "iceberg": ("metadata",)}


def table_source(url: str, table: TableUrl, job: Job) -> Source:
    """What a table's URL in `input.path` names.

    Args:
        url: As the job has it.
        table: The same, taken apart.
        job: Which snapshot, and how its store is opened.

    Raises:
        UserError: There is no such table or snapshot, or it cannot be read here.
        TryAgainError: The catalog or the store does not answer.
    """
    find = delta_snapshot if table.kind == "delta" else iceberg_snapshot
    snapshot = find(table, job.input.version, job.storage)
    fs, root = filesystem(snapshot.folder, job.storage)
    with plain_errors(snapshot.folder):
        listing = list_folder(fs, root, lambda name: name not in _NOT_ROWS[table.kind])
    _assert_there(snapshot, root, listing)
    schemas = _Schemas(snapshot.schema)
    shards = []
    for file in snapshot.files:
        path = f"{root}/{file.path}"
        info = listing.files[path]
        shards.append(
            Shard(
                url=listed_url(fs, path, snapshot.folder),
                name=label_name(file.path),
                size=UNKNOWN if info.get("size") is None else int(info["size"]),
                version=version(info),
                schema=schemas.with_values(file),
                store=snapshot.folder,
                path=path,
                ctime_ns=info.get("ctime_ns"),
            )
        )
    real = {_canonical(fs, shard.path): shard.url for shard in shards}
    return Source(url, tuple(shards), {}, (), (_canonical(fs, root),), real, snapshot.version)


def _assert_there(snapshot: Snapshot, root: str, listing: Listing) -> None:
    paths = [f"{root}/{file.path}" for file in snapshot.files]
    gone = [path for path in paths if path not in listing.files]
    for folder, why in listing.lost.items():
        if any(path.startswith(f"{folder}/") for path in gone):
            raise UserError(
                f"{snapshot.version}: its folder {folder.removeprefix(f'{root}/')} cannot be "
                f"looked into ({why}): whoever runs this has to be let in"
            )
    if gone:
        raise UserError(
            f"{snapshot.version}: {len(gone):,} of its {len(paths):,} files are gone, such as "
            f"{gone[0].removeprefix(f'{root}/')}: they were vacuumed or expired; name another "
            "input.version, or repair the table"
        )


def label_name(path: str) -> str:
    """The label file of a table's data file, whose path it has.

    No part of it begins with `_` or `.`, as what an output keeps for itself does.
    """
    return label_file("/".join(map(_shown_part, path.split("/"))))


def _shown_part(part: str) -> str:
    return f"%{ord(part[0]):02X}{part[1:]}" if part.startswith(("_", ".")) else part


class _Schemas:
    """A table's schema with the values of partitions; one object for each partition."""

    def __init__(self, schema: pa.Schema) -> None:
        self._plain = schema
        self._made: dict[str, pa.Schema] = {}

    def with_values(self, file: DataFile) -> pa.Schema:
        key = repr(sorted(file.values.items()))
        if key not in self._made:
            self._made[key] = pa.schema(
                [
                    with_value(field, file.values[field.name])
                    if field.name in file.values
                    else field
                    for field in self._plain
                ]
            )
        return self._made[key]


def _canonical(fs: Any, path: str) -> str:
    return canonical(fs, os.path.realpath(path) if is_local(fs) else path)
