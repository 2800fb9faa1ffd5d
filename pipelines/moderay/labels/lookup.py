"""Verdicts read where they lie.

What the index says of a file is proved against the file before anything is taken.

A row of this run lies in a saved unit, and in the label file once its shard is published and the
unit is gone; a row of an earlier output lies in that output's label file.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from cachetools import LRUCache

from moderay.core.storage import RemoteFile, get
from moderay.core.verdicts import (
    CONTENT_HASH,
    ROW,
    VERDICT,
    VERDICTS,
    Origin,
    Status,
    is_decision,
    structs,
)
from moderay.labels.decisions import verdicts
from moderay.labels.label_file import file_version, published_by
from moderay.labels.layout import Layout
from moderay.labels.partition import MOST_POLICIES, File, Hits, Numbers, Source

T = TypeVar("T")

# Shards read side by side: a few, to hide a store's latency.
READERS = 4
# Bytes of units and row groups held in case the next rows lie there too, and label files held open.
HELD_BYTES, HELD_FILES = 64 * 2**20, 64

# What is taken of a file that is broken; a table would have PyArrow import pandas.
_NOTHING = pa.schema([ROW, CONTENT_HASH])
# What a file that is gone, broken or of another form ends in.
UNREADABLE = (pa.ArrowException, OSError, ValueError)


class ReplacedError(OSError):
    """A label file is not, or no longer, the one that was indexed."""


class Payloads:
    """Reads what hits point at; one for a process, in any of its threads."""

    def __init__(self, outputs: Sequence[Layout], policies: Sequence[str]) -> None:
        """Of an index.

        Args:
            outputs: by the number that a `Source` names them with.
            policies: those of the index.
        """
        self._outputs, self._policies = tuple(outputs), tuple(policies)[:MOST_POLICIES]
        self._tables: _Cache[pa.Table] = _Cache(HELD_BYTES, lambda table: int(table.nbytes))
        self._files: _Cache[_Labels] = _Cache(HELD_FILES)
        # Label files that are gone or not what they were: they are not opened again.
        self._lost: set[Source] = set()

    def read(self, hits: Hits) -> dict[str, pa.StructArray]:
        """Take the verdicts of rows with this very content and the status ok.

        Returns:
            By policy, structs of `VERDICT` parallel to the hashes, null where nothing can be taken.
            The origin is `duplicate` or, from an earlier output, `reused`.
        """
        shards: dict[Source, list[int]] = {}
        for number, file in enumerate(hits.files):
            shards.setdefault(file.source, []).append(number)
        if len(shards) == 1:  # a shard that is read along: a thread would only cost
            taken = self._shard(*shards.popitem(), hits)
        else:
            with ThreadPoolExecutor(READERS) as pool:
                taken = [
                    rows
                    for shard in pool.map(self._shard, shards, shards.values(), repeat(hits))
                    for rows in shard
                ]
        return {policy: _column(taken, policy, len(hits.hashes)) for policy in self._policies}

    def _shard(self, source: Source, numbers: Sequence[int], hits: Hits) -> list[_LabelRows]:
        """What is taken from one shard's units and label file."""
        taken, rest = [], [np.empty(0, np.int64)]
        for number in numbers:
            at = np.flatnonzero(hits.file == number)
            unit = self._unit(hits.files[number])
            if unit is None:
                rest.append(at)
            else:
                taken.append(self._take(unit, hits, at, source))
        left = np.concatenate(rest)
        return taken + [
            self._take(table, hits, at, source) for table, at in self._groups(source, hits, left)
        ]

    def _unit(self, file: File) -> pa.Table | None:
        """A saved unit, without rows where it cannot be read.

        None where there is none, or its shard is published.
        """
        source = file.source
        held = self._tables.get(file)
        if held is not None or not source.units or self._files.get(source) is not None:
            return held
        layout = self._outputs[source.output]
        try:
            data = get(layout.fs, layout.unit(source.shard, (file.start, file.end), source.units))
            table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            given_up(source.shard, error)
            return _NOTHING.empty_table()
        self._tables.put(file, table)
        return table

    def _groups(
        self, source: Source, hits: Hits, at: Numbers
    ) -> Iterator[tuple[pa.Table, Numbers]]:
        """Row groups of a shard's label file, each with the hits that lie there."""
        if not len(at) or source in self._lost:
            return
        wanted = np.bitwise_or.reduce(hits.mask[at])
        policies = tuple(
            policy
            for bit, policy in enumerate(self._policies)
            if wanted >> np.uint64(bit) & np.uint64(1)
        )
        try:
            labels = self._labels(source)
            groups = labels.groups_of(hits.row[at])
            for group in np.unique(groups[groups >= 0]):
                yield self._group(source, labels, int(group), policies), at[groups == group]
        except UNREADABLE as error:
            self._lost.add(source)
            given_up(source.shard, error)

    def _labels(self, source: Source) -> _Labels:
        held = self._files.get(source)
        if held is None:
            held = _Labels(self._outputs[source.output], source)
            self._files.put(source, held)
        return held

    def _group(
        self, source: Source, labels: _Labels, group: int, policies: tuple[str, ...]
    ) -> pa.Table:
        key = (source, group, policies)
        held = self._tables.get(key)
        if held is None:
            held = labels.read(group, policies)
            self._tables.put(key, held)
        return held

    def _take(self, table: pa.Table, hits: Hits, at: Numbers, source: Source) -> _LabelRows:
        """The rows of a file that hits point at, where they are what the hits say."""
        if not len(table):
            return _LabelRows(at[:0], {})
        rows = table.column(ROW.name).to_numpy()
        position = np.minimum(np.searchsorted(rows, hits.row[at]), len(rows) - 1)
        hashes = _at(table.select([CONTENT_HASH.name]), position).column(0)
        expected = pa.chunked_array([pa.array([hits.hashes[i] for i in at], pa.string())])
        same = pc.fill_null(pc.equal(hashes, expected), False).to_numpy() & (
            rows[position] == hits.row[at]
        )
        at, taken = at[same], _at(table, position[same])
        columns = {}
        for bit, policy in enumerate(self._policies):
            # Of a unit, or of a label file of today's form: no other columns are read.
            if policy in table.column_names:
                allowed = (hits.mask[at] >> np.uint64(bit) & np.uint64(1)).astype(bool)
                columns[policy] = _allowed(structs(taken.column(policy)), allowed, source)
        return _LabelRows(at, columns)


@dataclass(frozen=True)
class _LabelRows:
    """Verdicts by policy, and for which of the hashes they are."""

    at: Numbers
    columns: Mapping[str, pa.StructArray]


class _Labels:
    """An opened label file of one version. Raises `ReplacedError` where it is another."""

    def __init__(self, layout: Layout, source: Source) -> None:
        self._layout = layout
        self._shard = source.shard
        self._lock = threading.Lock()
        self._version = file_version(layout, source.shard)
        if source.version not in ("", self._version):
            raise ReplacedError(f"{source.shard} was written again since it was indexed")
        self._file = pq.ParquetFile(
            RemoteFile(layout.fs, layout.label(source.shard)), pre_buffer=True
        )
        # Where this run's units are gone, an earlier run's file may stand there still.
        if source.units and published_by(self._file.schema_arrow) != source.run:
            raise ReplacedError(f"{source.shard} has neither its units nor this run's label file")
        self._ranges = _row_ranges(self._file.metadata)

    def groups_of(self, rows: Numbers) -> Numbers:
        """The row group in which each of these positions in the input lies; -1 for none."""
        first, last = self._ranges
        group = np.searchsorted(last, rows)
        inside = (
            (group < len(last)) & (first[np.minimum(group, len(first) - 1)] <= rows)
            if len(last)
            else np.zeros(len(rows), bool)
        )
        return np.where(inside, group, -1)

    def read(self, group: int, policies: Sequence[str]) -> pa.Table:
        """One row group: `row`, `content_hash` and the policies that are there in today's form."""
        with self._lock:
            table = self._file.read_row_group(
                group,
                columns=[ROW.name, CONTENT_HASH.name, *judged(self._file.schema_arrow, policies)],
            )
            # Read by ranges: the file that a range came from may not be the file of the footer.
            if file_version(self._layout, self._shard) != self._version:
                raise ReplacedError(f"{self._shard} was written again while it was read")
        return table


def _at(table: pa.Table, rows: Numbers) -> pa.Table:
    """These rows; neighbours, as a shard that is read along has them, cost no copy."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return table.slice(int(rows[0]), len(rows))
    return table.take(pa.array(rows))


def _row_ranges(metadata: pq.FileMetaData) -> tuple[Numbers, Numbers]:
    """The first and the last value of `row` of each row group.

    With `where` or `sample` it is not the position in the file.

    Raises:
        ReplacedError: the file does not say, so that moderay did not write it.
    """
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    if ROW.name not in names:
        raise ReplacedError("a label file without the column row")
    ranges = [
        metadata.row_group(i).column(names.index(ROW.name)).statistics
        for i in range(metadata.num_row_groups)
    ]
    if any(item is None or not item.has_min_max for item in ranges):
        raise ReplacedError("a label file without statistics of the column row")
    first, last = ([item.min for item in ranges], [item.max for item in ranges])
    return np.array(first, np.int64), np.array(last, np.int64)


def judged(schema: pa.Schema, policies: Sequence[str]) -> list[str]:
    """Those of the policies whose column a label file has in today's form."""
    return [
        policy
        for policy in policies
        if policy in schema.names and is_decision(schema.field(policy).type)
    ]


def _allowed(column: pa.StructArray, allowed: Numbers, source: Source) -> pa.StructArray:
    """Structs of `VERDICT` of another origin; null where nothing may be taken.

    A duplicate cost nothing, the copy of a reused verdict is as reused as that, and a run of
    another output has no number here.
    """
    rows = column if column.type == VERDICTS else verdicts(column)
    columns = {name: rows.field(name) for name in VERDICT.names}
    if source.units:
        reused = pc.fill_null(pc.equal(columns["origin"], Origin.REUSED.value), False)
        columns["origin"] = pc.if_else(reused, Origin.REUSED.value, Origin.DUPLICATE.value)
        for name in ("prompt_tokens", "output_tokens"):
            columns[name] = pc.if_else(reused, columns[name], pa.scalar(0, pa.int32()))
    else:
        columns["origin"] = pa.repeat(pa.scalar(Origin.REUSED.value), len(rows))
    if source.output:
        columns["run"] = pa.nulls(len(rows), pa.int16())
    missing = pc.or_(pc.not_equal(rows.field("status"), Status.OK.value), pa.array(~allowed))
    return pa.StructArray.from_arrays(list(columns.values()), fields=list(VERDICT), mask=missing)


def _column(taken: Sequence[_LabelRows], policy: str, rows: int) -> pa.StructArray:
    """What was taken for one policy, in the order of the hashes."""
    parts = [part for part in taken if policy in part.columns]
    at = np.concatenate([np.empty(0, np.int64), *[part.at for part in parts]])
    where = np.full(rows, -1, np.int64)
    where[at] = np.arange(len(at))
    if len(parts) == 1 and np.array_equal(at, np.arange(rows)):
        return parts[0].columns[policy]
    together = pa.concat_arrays([pa.nulls(0, VERDICTS), *[part.columns[policy] for part in parts]])
    return together.take(pa.array(where, mask=where < 0))


def given_up(shard: str, error: Exception) -> None:
    """Say why a shard's verdicts cannot be read: its rows are judged, which costs."""
    logging.getLogger(__name__).warning("earlier verdicts of %s are not used: %s", shard, error)


class _Cache(Generic[T]):
    """The values used last, for any thread: as many as `most` in weight, or one that is heavier."""

    def __init__(self, most: int, weight: Callable[[T], int] = lambda value: 1) -> None:
        # A value that weighs more than all that may be held is kept alone, not refused.
        self._values: LRUCache[Any, T] = LRUCache(most, lambda value: min(weight(value), most))
        self._lock = threading.Lock()

    def get(self, key: Any) -> T | None:
        with self._lock:
            return self._values.get(key)

    def put(self, key: Any, value: T) -> None:
        with self._lock:
            self._values[key] = value
