"""What a format has to give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from moderay.corpus.ranges import Range

# Of the input, held at once; the rows of a row group at most.
BATCH_ROWS = 65_536
BATCH_BYTES = 64 * 2**20

# Beside the columns of a file in which rows cannot be read: why, null for the others. Such a row is
# null in all columns.
UNREADABLE = "\x01unreadable"


def kind_column(name: str) -> str:
    """Beside a column of values of different kinds, read as text.

    In it stands what a value is in words, such as "a number"; null where it is a string or null.
    """
    return f"\x01kind {name}"


class UnreadableError(pa.ArrowInvalid):  # type: ignore[misc]  # pyarrow has no types
    """What a file holds is not of its format; that a store does not give it is an OSError."""


@dataclass(frozen=True)
class Footer:
    """What a file holds.

    Attributes:
        schema: Its columns.
        row_groups: Rows of each row group.
        content_bytes: Bytes in memory of the columns that `Format.footer` was called with.
    """

    schema: pa.Schema
    row_groups: tuple[int, ...]
    content_bytes: int


class Part(Protocol):
    """A local file that grows by batches."""

    def add(self, rows: pa.Table, more: list[pa.Array], doubtful: np.ndarray) -> None:
        """Append rows.

        Args:
            rows: As `Verbatim.batches` gives them.
            more: Values of the further columns, one array a column.
            doubtful: Bool: which of the rows perhaps cannot be read, and so have no columns.
        """

    def close(self, always: bool = False) -> None:
        """Finish the file. Without rows there is none, unless `always`."""


class Verbatim(Protocol):
    """A file's rows as they are, whatever is in them, and files like it to put them into."""

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        """(first row, rows) in order, about `BATCH_BYTES` at a time.

        The tables' columns are the format's own affair.
        """

    def part(self, file: Path, more: Sequence[pa.Field]) -> Part:
        """A file of the same schema and compression, with further columns."""


class Format(Protocol):
    """How files of one format and compression are read, and how a filter writes them.

    Reading raises `UnreadableError` or another ArrowException for what a file holds, and OSError
    for a store that does not give it. `fs` and `path` are what `storage.filesystem` makes of a URL.
    """

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What names of such files end in, in lower case."""

    @property
    def counted(self) -> bool:
        """Whether a footer takes a reading of the whole file, so that it is worth keeping."""

    @staticmethod
    def common(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
        """The schemas to read files of this kind with, from those that each has by itself."""

    def footer(self, fs: Any, path: str, size: int, content: Sequence[str]) -> Footer:
        """What a file holds.

        Args:
            fs: Its file system.
            path: Its path there.
            size: Its size in bytes.
            content: Columns whose bytes are counted.

        Raises:
            UnreadableError: It is not of this format.
        """

    @staticmethod
    def explicit_schema(schema: pa.Schema) -> pa.Schema | None:
        """What `tables` needs of a schema from `common`; None where the files say it themselves."""

    def names(self, fs: Any, path: str) -> list[str]:
        """The columns of a file, as far as they can be told without reading all of it."""

    def tables(  # noqa: PLR0913  a file, what of it, and how much at once
        self,
        fs: Any,
        path: str,
        names: Sequence[str],
        schema: pa.Schema | None,
        *,
        rows: int | None = None,
        groups: Range | None = None,
    ) -> Iterator[pa.Table]:
        """A file's rows in order, in bounded pieces.

        `UNREADABLE` and `kind_column` stand beside the columns, where the file needs them: in all
        its pieces or in none.

        Args:
            fs: Its file system.
            path: Its path there.
            names: Columns that are read, where the file has them.
            schema: From `explicit_schema`.
            rows: Rows of a piece at most; by default as many as the format thinks fit.
            groups: Some neighbouring row groups; by default all.
        """

    def verbatim(self, fs: Any, path: str) -> AbstractContextManager[Verbatim]:
        """A file opened to copy its rows as they are."""
