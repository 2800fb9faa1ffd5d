"""A shard: one input file, and what the run needs to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from moderay.core.errors import UserError, first_line
from moderay.core.storage import FileState, filesystem, listed_file, plain_errors
from moderay.corpus.formats import Footer, Format, format_of, input_file


@dataclass(frozen=True)
class Shard:
    """One input file.

    Attributes:
        url: Where it lies, as it is written and shown: without secrets, and never opened where
            there is a `path`.
        name: The path of its label file below the output's root.
        size: Bytes, as it lies there.
        version: What changes when its bytes do (`storage.version`).
        row_groups: Rows of each of its row groups.
        content_bytes: Uncompressed bytes of the columns that judging reads.
        conversation: Whether its content is a list of turns.
        partitions: Hive keys in the path, with their values.
        schema: What the file is read with, where it does not say so itself; of a table's file, the
            table's columns (`formats/table_schema.py`).
        store: URL whose file system it lies in: what the job names, with the secrets in it.
        path: In that file system, as it was listed; empty where `url` says it all.
        whole: Whether a file of plain text is one row.
        ctime_ns: As `FileState` has it, when it was listed: no part of its identity, since a file
            that was only moved need not be judged again.
    """

    url: str
    name: str
    size: int
    version: str
    row_groups: tuple[int, ...] = ()
    content_bytes: int = 0
    conversation: bool = False
    partitions: tuple[tuple[str, str], ...] = ()
    schema: pa.Schema | None = None
    store: str = field(default="", repr=False)
    path: str = field(default="", repr=False)
    ctime_ns: int | None = None
    whole: bool = False

    def located(self, options: Mapping[str, Any]) -> tuple[Any, str]:
        """Its file system, and its path there, which is not taken for a URL again.

        Args:
            options: The job's `storage:`.
        """
        if not self.path:
            return listed_file(self.url, options)
        return filesystem(self.store, options)[0], self.path

    @property
    def format(self) -> Format:
        """How it is read."""
        return format_of(self.url, self.whole)

    @property
    def file(self) -> str:
        """Its own path below the source's root."""
        return input_file(self.name, self.url)

    @property
    def rows(self) -> int:
        """Rows of the whole file."""
        return sum(self.row_groups)

    @property
    def identity(self) -> tuple[str, int, str]:
        """What a key hashes: another file of the same name is another shard."""
        return self.name, self.size, self.version

    @property
    def state(self) -> FileState:
        """What it was when it was listed."""
        return FileState(self.size, self.version, self.ctime_ns)


@contextmanager
def shard_errors(shard: Shard) -> Iterator[None]:
    """A shard is read in here, in the process of a command that cannot leave it out.

    Raises:
        UserError: It does not hold what was counted, or the storage refuses it.
        TryAgainError: The storage does not answer, or the file changed as it was read.
    """
    with plain_errors(shard.url):
        try:
            yield
        except pa.ArrowException as error:
            raise UserError(
                f"{shard.file} cannot be read: {first_line(error)}; leave it out of input.path"
            ) from error


# By a shard's identity.
Footers = Mapping[tuple[str, int, str], Footer]
