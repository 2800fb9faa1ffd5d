"""What a format has to give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from moderay.corpus.ranges import Range

# Of the input, held at once; the rows of a row group at most.
BATCH_ROWS, BATCH_BYTES = 65_536, 64 * 2**20


class UnreadableError(pa.ArrowInvalid):  # type: ignore[misc]  # pyarrow has no types
    """What a file holds is not of its format. (That a store does not give it is an OSError.)"""


@dataclass(frozen=True)
class Footer:
    """What a file holds: its columns, the rows of each row group, and the bytes in memory of the
    columns that were asked about.
    """

    schema: pa.Schema
    row_groups: tuple[int, ...]
    content_bytes: int


class Part(Protocol):
    """A local file that grows by batches."""

    def add(self, rows: pa.Table, more: list[pa.Array]) -> None:
        """Rows as `Verbatim.batches` gives them, and the values of the further columns."""

    def close(self, always: bool = False) -> None:
        """Without rows there is no file, unless `always`."""


class Verbatim(Protocol):
    """A file's rows as they are, whatever is in them, and files like it to put them into."""

    def batches(self) -> Iterator[tuple[int, pa.Table]]:
        """(first row, rows) in order, about `BATCH_BYTES` at a time. The tables' columns are the
        format's own affair.
        """

    def part(self, file: Path, more: Sequence[pa.Field]) -> Part:
        """A file of the same schema and compression, with further columns."""


class Format(Protocol):
    """How files of one format and compression are read, and how a filter writes them. Reading
    raises `UnreadableError` or another ArrowException for what a file holds, OSError for a store
    that does not give it.
    """

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What names of such files end in, in lower case."""

    @property
    def counted(self) -> bool:
        """Whether what a file holds is only known after all of it was read, so that it is worth
        keeping.
        """

    @staticmethod
    def common(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
        """The schemas that files of this kind are to be read with, where these are what each holds
        by itself.
        """

    def footer(self, fs: Any, path: str, size: int, content: Sequence[str]) -> Footer:
        """What a file holds; `content`: columns of counted bytes. Raises `UnreadableError`."""

    @staticmethod
    def given(schema: pa.Schema) -> pa.Schema | None:
        """What `tables` must be told of a schema from `common`; None where the files say it
        themselves.
        """

    def names(self, fs: Any, path: str) -> list[str]:
        """The columns of a file, as far as they can be told without reading all of it."""

    def tables(
        self,
        fs: Any,
        path: str,
        names: Sequence[str],
        schema: pa.Schema | None,
        rows: int | None = None,
        groups: Range | None = None,
    ) -> Iterator[pa.Table]:
        """Those of the named columns that there are, in order and in bounded pieces: at most `rows`
        of them, or as many as the format thinks fit; of some neighbouring row groups, or of all.
        `schema`: from `given`.
        """

    def verbatim(self, fs: Any, path: str) -> AbstractContextManager[Verbatim]: ...
