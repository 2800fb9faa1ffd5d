"""An opened Parquet file, read within bounds whatever it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.errors import first_line
from moderay.core.storage import FileState, RemoteFile
from moderay.corpus.formats.base import UnreadableError, bytes_of, joined
from moderay.corpus.ranges import Range

# Rows and bytes that are decoded at once.
PIECE_ROWS = 8192
PIECE_BYTES = 16 * 2**20
# How many times as many rows are decoded at once as were before.
GROWTH = 8
# Rows that are looked at for the dictionaries of a row group.
LOOK_ROWS = 64


class BoundedFile(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """An opened Parquet file that is read within bounds, whatever it says of itself.

    A column chunk is fetched at once; nothing is read ahead beyond it.
    """

    def __init__(self, fs: Any, path: str, listed: FileState | None = None) -> None:
        """Open a file and read its footer.

        Args:
            fs: Its file system.
            path: Its path there.
            listed: What it was when it was listed.

        Raises:
            UnreadableError: It is no Parquet file.
            OSError: The store does not give it.
        """
        self._source = _Ranges(fs, path, listed)
        with self._blamed():
            super().__init__(self._source, pre_buffer=True, page_checksum_verification=True)

    def close(self, force: bool = False) -> None:
        """Let go of the file."""
        super().close(force)
        self._source.close()

    def pieces(
        self, columns: Sequence[str] | None, groups: Range | None = None, most: int = PIECE_ROWS
    ) -> Iterator[pa.Table]:
        """The rows of row groups, in order, at most so many or about `PIECE_BYTES` at a time.

        No footer is believed, neither what it says of bytes (one text in a dictionary may stand in
        all rows) nor of rows: a group that ends before its count would shift those behind it.

        Raises:
            UnreadableError: The file does not hold what its footer says.
            OSError: The store does not give it.
        """
        low, high = groups or (0, self.num_row_groups)
        if high > self.num_row_groups:
            counted = f"{high:,} were counted"
            raise UnreadableError(f"it has {self.num_row_groups:,} row groups, and {counted}")
        step = 1
        with self._blamed():
            for group in range(low, high):
                widest = min(most, max(1, PIECE_BYTES // self._longest_text(group, columns)))
                for table in self._group_pieces(group, columns, min(step, widest)):
                    yield table
                    # The next rows are taken to be as wide as these, and no more than so many
                    # times as many are read.
                    fitting = PIECE_BYTES * len(table) // max(1, bytes_of(table))
                    step = max(1, min(widest, GROWTH * step, fitting))
                    self.reader.set_batch_size(step)

    def _group_pieces(
        self, group: int, columns: Sequence[str] | None, step: int
    ) -> Iterator[pa.Table]:
        """A row group by batches, the first of so many rows."""
        claimed = left = self.metadata.row_group(group).num_rows
        batches = self.iter_batches(step, row_groups=[group], columns=columns, use_threads=False)
        while left > 0:
            batch = next(batches, None)
            if batch is None or not len(batch):
                raise UnreadableError(
                    f"row group {group} ends after {claimed - left:,} rows, and its footer claims "
                    f"{claimed:,}"
                )
            left -= len(batch)
            yield pa.Table.from_batches([batch])

    def _longest_text(self, group: int, columns: Sequence[str] | None) -> int:
        """Bytes of the longest value that a few bytes in a row group's pages may stand for."""
        schema = self.metadata.schema
        leaves = [schema.column(i) for i in range(len(schema))]
        wanted = [
            leaf for leaf in leaves if columns is None or leaf.path.partition(".")[0] in columns
        ]
        fixed = max((leaf.length for leaf in wanted), default=0)
        texts = [leaf.path for leaf in wanted if leaf.physical_type == "BYTE_ARRAY"]
        if not texts or not self.metadata.row_group(group).num_rows:
            return max(1, fixed)
        with self._source.kept():
            file = pq.ParquetFile(
                self._source, metadata=self.metadata, read_dictionary=texts, pre_buffer=True
            )
            batches = file.iter_batches(
                LOOK_ROWS, row_groups=[group], columns=columns, use_threads=False
            )
            first = next(batches, None)
        return max(1, fixed, *[_longest(column) for column in (first.columns if first else [])])

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """What a library raises is of what the file holds, unless the store has failed."""
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if self._source.failed or isinstance(error, UnreadableError):
                raise
            raise UnreadableError(first_line(error)) from error


class _Ranges(RemoteFile):
    """Gives what was read inside `kept` a second time, from memory."""

    def __init__(self, fs: Any, path: str, listed: FileState | None) -> None:
        super().__init__(fs, path, listed)
        self._kept: dict[tuple[int, int], bytes] = {}
        self._keeps = False

    @contextmanager
    def kept(self) -> Iterator[None]:
        self._kept = {}
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False

    def read(self, size: int = -1) -> bytes:
        part = (self.tell(), size)
        data = self._kept.pop(part, None)
        if data is None:
            data = super().read(size)
        else:
            self.seek(part[0] + len(data))
        if self._keeps:
            self._kept[part] = data
        return data


def _longest(values: pa.Array) -> int:
    """Bytes of the longest text in the dictionaries of a column and of what is nested in it."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return pc.max(pc.binary_length(values.dictionary)).as_py() or 0
    if pa.types.is_struct(kind):
        return max((_longest(values.field(i)) for i in range(kind.num_fields)), default=0)
    if pa.types.is_map(kind):
        return max(_longest(values.keys), _longest(values.items))
    return _longest(values.values) if pa.types.is_nested(kind) else 0


def bounded_batches(
    file: BoundedFile, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """(first row, rows) of a Parquet file, in order.

    At most `BATCH_ROWS` or `BATCH_BYTES` at a time.
    """
    start = 0
    for table in joined(file.pieces(columns)):
        yield start, table
        start += len(table)
