"""What a format has to give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.storage import FileState
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


class GatheredPart:
    """A `Part` that writes `BATCH_BYTES` at once, however few rows of each batch come here."""

    def __init__(self, schema: pa.Schema, begin: Callable[[], Any]) -> None:
        """As yet without a file.

        Args:
            schema: Of the rows, with the further columns.
            begin: Makes the file, and gives its writer.
        """
        self._schema = schema
        self._begin = begin
        self._writer: Any = None
        self._waiting: list[pa.Table] = []
        self._bytes = 0  # of what waits

    def add(self, rows: pa.Table, more: list[pa.Array], doubtful: np.ndarray) -> None:
        """As `Part.add`."""
        if len(rows):
            self._waiting.append(pa.Table.from_arrays([*rows.columns, *more], schema=self._schema))
            self._bytes += self._waiting[-1].nbytes
            if self._bytes >= BATCH_BYTES:
                self._flush()

    def close(self, always: bool = False) -> None:
        """As `Part.close`."""
        if self._waiting or always:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        self._writer = self._writer or self._begin()
        self._writer.write_table(
            pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        )
        self._waiting = []
        self._bytes = 0


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

    def footer(self, fs: Any, path: str, listed: FileState, content: Sequence[str]) -> Footer:
        """What a file holds.

        Args:
            fs: Its file system.
            path: Its path there.
            listed: What it was when it was listed.
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
        listed: FileState | None = None,
    ) -> Iterator[pa.Table]:
        """A file's rows in order, in pieces that are bounded as they are in memory (`joined`).

        `UNREADABLE` and `kind_column` stand beside the columns, where the file needs them: in all
        its pieces or in none.

        Args:
            fs: Its file system.
            path: Its path there.
            names: Columns that are read, where the file has them.
            schema: From `explicit_schema`.
            rows: Rows of a piece at most; by default as many as the format thinks fit.
            groups: Some neighbouring row groups; by default all.
            listed: What it was when it was listed; another file raises `ChangedError`.
        """

    def verbatim(
        self, fs: Any, path: str, listed: FileState | None = None
    ) -> AbstractContextManager[Verbatim]:
        """A file opened to copy its rows as they are; `listed` as above."""


def joined(
    pieces: Iterable[pa.Table], rows: int = BATCH_ROWS, size: int = BATCH_BYTES
) -> Iterator[pa.Table]:
    """Neighbouring pieces as one, as long as these are not more than so many rows or bytes."""
    held: list[pa.Table] = []
    held_rows = 0
    held_bytes = 0
    for piece in pieces:
        piece_bytes = bytes_of(piece)
        if held and (held_rows + len(piece) > rows or held_bytes + piece_bytes > size):
            yield pa.concat_tables(held)
            held = []
            held_rows = 0
            held_bytes = 0
        held.append(piece)
        held_rows += len(piece)
        held_bytes += piece_bytes
    if held:
        yield pa.concat_tables(held)


def bytes_of(rows: pa.Table) -> int:
    """Bytes in memory, with each text of a dictionary as often as it is used.

    Sooner or later it is written out.
    """
    return int(rows.nbytes) + sum(
        _written_out(chunk)
        for column in rows.columns
        if pa.types.is_dictionary(column.type)
        for chunk in column.chunks
    )


def _written_out(values: pa.DictionaryArray) -> int:
    """Bytes of the texts that a dictionary's indices stand for; of other values nothing."""
    try:
        lengths = pc.binary_length(values.dictionary)
    except pa.ArrowNotImplementedError:
        return 0
    return pc.sum(lengths.take(values.indices)).as_py() or 0
