"""The rows of two outputs side by side, joined by shard and row, some thousand at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.storage import RemoteFile, plain_errors
from moderay.core.verdicts import CONTENT_HASH, ROW
from moderay.labels.layout import Layout
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import read_manifest
from moderay.labels.reader import published_shards
from moderay.tasks.flat_labels import policies_of

# Positions of the input that are joined at once: few, since a carried text may be long.
WINDOW = 16_384


@dataclass(frozen=True)
class Output:
    """An output to be compared.

    Attributes:
        layout: Of it.
        shards: Published ones, in order.
        schema: Of its label files.
        manifest: None where it is gone: the labels are there all the same.
    """

    layout: Layout
    shards: Sequence[str]
    schema: pa.Schema
    manifest: Manifest | None

    @property
    def policies(self) -> list[str]:
        """Ids, in the order of the columns."""
        return policies_of(self.schema)


def open_output(url: str, storage: Mapping[str, Any]) -> Output:
    """Look at an output.

    Raises:
        UserError: There are no labels, or not yet.
    """
    layout = Layout(url, storage)
    shards = published_shards(layout)
    with (
        plain_errors(url),
        pq.ParquetFile(RemoteFile(layout.fs, layout.label(shards[0]))) as file,
    ):
        return Output(layout, shards, file.schema_arrow, read_manifest(layout))


@dataclass(frozen=True)
class Pairs:
    """Rows at the same positions of a shard.

    Attributes:
        shard: Its name.
        a: Rows of output a that b holds too, with the same content.
        b: The same rows of output b.
        only_a: Rows that a alone holds.
        only_b: Rows that b alone holds.
        other: Positions, in the input, of rows that have another content in b.
    """

    shard: str
    a: pa.Table
    b: pa.Table
    only_a: int
    only_b: int
    other: np.ndarray


def paired_rows(
    a: Output, b: Output, shard: str, columns: tuple[Sequence[str], Sequence[str]]
) -> Iterator[Pairs]:
    """The rows of a shard, window by window.

    Args:
        a: One output.
        b: The other one.
        shard: That both hold.
        columns: To be read of a, and of b, beside position and content hash.
    """
    with ExitStack() as open_files:
        rows = [
            _Rows(open_files.enter_context(_opened(output, shard)), wanted)
            for output, wanted in zip((a, b), columns, strict=True)
        ]
        end = 0
        while not all(each.is_through for each in rows):
            end += WINDOW
            with plain_errors(a.layout.url):
                from_a = rows[0].below(end)
            with plain_errors(b.layout.url):
                from_b = rows[1].below(end)
            yield _joined(shard, from_a, from_b)


def _opened(output: Output, shard: str) -> pq.ParquetFile:
    layout = output.layout
    with plain_errors(layout.url):
        return pq.ParquetFile(RemoteFile(layout.fs, layout.label(shard)), pre_buffer=True)


class _Rows:
    """The rows of a label file, in order."""

    def __init__(self, file: pq.ParquetFile, columns: Sequence[str]) -> None:
        wanted = [ROW.name, CONTENT_HASH.name, *columns]
        self._batches = file.iter_batches(WINDOW, columns=wanted)
        self._rest = file.read_row_groups([], columns=wanted)
        self.is_through = False

    def below(self, end: int) -> pa.Table:
        """The next rows whose position is less than that."""
        parts = [self._take(end)]
        while not len(self._rest) and not self.is_through:
            batch = next(self._batches, None)
            if batch is None:
                self.is_through = True
            else:
                self._rest = pa.Table.from_batches([batch])
                parts.append(self._take(end))
        return pa.concat_tables(parts)

    def _take(self, end: int) -> pa.Table:
        cut = int(np.searchsorted(self._rest.column(ROW.name).to_numpy(), end))
        taken, self._rest = self._rest.slice(0, cut), self._rest.slice(cut)
        return taken


def _joined(shard: str, a: pa.Table, b: pa.Table) -> Pairs:
    rows_a, rows_b = (each.column(ROW.name).to_numpy() for each in (a, b))
    both_a, both_b = a, b
    if not np.array_equal(rows_a, rows_b):
        _, at_a, at_b = np.intersect1d(rows_a, rows_b, assume_unique=True, return_indices=True)
        both_a, both_b = a.take(pa.array(at_a)), b.take(pa.array(at_b))
    same = _same_contents(both_a, both_b)
    other = both_a.column(ROW.name).to_numpy()[~same]
    only_a, only_b = len(a) - len(both_a), len(b) - len(both_b)
    if len(other):
        both_a, both_b = (each.filter(pa.array(same)) for each in (both_a, both_b))
    return Pairs(shard, both_a.combine_chunks(), both_b.combine_chunks(), only_a, only_b, other)


def _same_contents(a: pa.Table, b: pa.Table) -> np.ndarray:
    """Bool: where the hashes are equal, or neither has one."""
    one, other = (each.column(CONTENT_HASH.name) for each in (a, b))
    neither = pc.and_(one.is_null(), other.is_null())
    return np.asarray(pc.or_(pc.equal(one, other).fill_null(False), neither).to_numpy())
