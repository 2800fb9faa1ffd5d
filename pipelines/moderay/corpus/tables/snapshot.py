"""What a Delta and an Iceberg table both are: the files of one version, and their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from moderay.core.errors import UserError
from moderay.corpus.formats import suffix


@dataclass(frozen=True)
class TableVersion:
    """Which state of a table was read.

    Attributes:
        url: As the job has it.
        version: Delta's version or Iceberg's snapshot id; None of a table that has none yet.
        time: When it was written, UTC, ISO 8601; empty where the table does not say.
    """

    url: str
    version: int | None
    time: str = ""

    def __str__(self) -> str:
        """For people."""
        if self.version is None:
            return f"{self.url}: a table without rows"
        written = f" of {self.time}" if self.time else ""
        return f"{self.url}: version {self.version}{written}"


@dataclass(frozen=True)
class DataFile:
    """A file of a table.

    Attributes:
        path: Below the table's folder, as the file system has it.
        values: By column, what all its rows have where the file has no such column.
    """

    path: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """One version of a table.

    Attributes:
        version: Which.
        folder: URL or path of the folder below which all its files are.
        schema: Its columns, of the plainest types.
        files: Its data files.
    """

    version: TableVersion
    folder: str
    schema: pa.Schema
    files: tuple[DataFile, ...]


def below(table: str, name: str, written: str) -> str:
    """The path of a data file below its table's folder.

    Whoever can write a table must not have the job read what lies elsewhere, with the credentials
    of whoever runs it.

    Args:
        table: The table's URL, for people.
        name: The path as the table has it, percent-encoding undone.
        written: As it stands in the table, for people.

    Raises:
        UserError: It is none, or no path of a Parquet file.
    """
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\0" in name or "://" in name:
        raise UserError(
            f"{table}: its file {written!r} lies outside the table's own folder, and only files in "
            "it are read: copy them there (of a shallow clone, make a deep one)"
        )
    if suffix(name) not in ("", ".parquet"):
        raise UserError(f"{table}: its file {written!r} is no Parquet file: rewrite the table")
    return name


def decoded(path: str) -> str:
    """A path as a file system has it, from a URL's form; of bytes that are no UTF-8, as Python."""
    return unquote(path, errors="surrogateescape")
