"""Verdicts that were paid for already: a row takes the one its content got before, where the same judge would give it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moderay.decide import verdicts
from moderay.records import CONTENT_HASH, VERDICT, Origin, Status, structs
from moderay.storage import RemoteFile, filesystem

# Row groups of an earlier file whose verdicts are held at once: rows mostly come in the order in which they came before.
HELD = 2

VERDICTS = pa.struct(list(VERDICT))


@dataclass(frozen=True)
class EarlierFile:
    """A label file whose verdicts may be taken; picklable. `policies`: ids of those whose judge key there is today's."""

    url: str
    storage: Mapping[str, Any]
    policies: tuple[str, ...]


class Earlier:
    """An opened `EarlierFile`: verdicts by content hash."""

    def __init__(self, file: EarlierFile) -> None:
        self.policies = file.policies
        fs, path = filesystem(file.url, file.storage)
        self._file = pq.ParquetFile(RemoteFile(fs, path), pre_buffer=True)
        self._ends = np.cumsum([self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)])
        self._held: dict[int, pa.Table] = {}
        self._hashes, self._rows = self._index()

    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted hashes (bytes) and the row of each; of rows with one content the one that more policies judged."""
        table = self._file.read(columns=[CONTENT_HASH.name, *[f"{name}.status" for name in self.policies]])
        hashes = table.column(CONTENT_HASH.name).to_numpy()
        judged = sum((_ok(table.column(name)) for name in self.policies), np.zeros(len(table), np.int64))
        rows = np.flatnonzero(judged > 0)
        packed = np.frombuffer(bytes.fromhex("".join(hashes[rows])), dtype="S16")
        order = np.lexsort((-judged[rows], packed))
        return packed[order], rows[order]

    def find(self, hashes: Sequence[str | None]) -> dict[str, pa.StructArray]:
        """By policy, what was said of each content: structs of `VERDICT` with the origin `reused`, null where there is
        nothing to take."""
        rows = self._rows_of(hashes)
        known = np.unique(rows[rows >= 0])
        table = self._read(known)
        at = np.searchsorted(known, rows)
        found = {}
        for name in self.policies:
            column = _reused(verdicts(structs(table.column(name))))
            found[name] = column.take(pa.array(at, mask=rows < 0))
        return found

    def _rows_of(self, hashes: Sequence[str | None]) -> np.ndarray:
        wanted = np.array([b"" if value is None else bytes.fromhex(value) for value in hashes], dtype="S16")
        at = np.searchsorted(self._hashes, wanted)
        inside = at < len(self._hashes)
        hit = np.zeros(len(wanted), bool)
        hit[inside] = (self._hashes[at[inside]] == wanted[inside]) & np.array([value is not None for value in hashes], bool)[inside]
        rows = np.full(len(wanted), -1, np.int64)
        rows[hit] = self._rows[at[hit]]
        return rows

    def _read(self, rows: np.ndarray) -> pa.Table:
        """These rows (sorted) of the policies' columns."""
        groups = np.searchsorted(self._ends, rows, side="right")
        parts = [self._group(group).take(pa.array(rows[groups == group] - self._first(group))) for group in np.unique(groups)]
        return pa.concat_tables(parts) if parts else self._file.schema_arrow.empty_table().select(list(self.policies))

    def _first(self, group: int) -> int:
        return int(self._ends[group - 1]) if group else 0

    def _group(self, group: int) -> pa.Table:
        if group not in self._held:
            while len(self._held) >= HELD:
                del self._held[next(iter(self._held))]
            self._held[group] = self._file.read_row_group(int(group), columns=list(self.policies))
        return self._held[group]


def _ok(column: pa.ChunkedArray) -> np.ndarray:
    statuses = pa.chunked_array([chunk.field("status") for chunk in column.chunks], pa.string())
    return np.array(statuses.to_numpy() == Status.OK.value, np.int64)


def _reused(found: pa.StructArray) -> pa.StructArray:
    """Null where the status is not ok; else with the origin `reused`."""
    columns = [found.field(name) for name in VERDICT.names]
    columns[VERDICT.get_field_index("origin")] = pa.array([Origin.REUSED.value] * len(found), pa.string())
    missing = pa.array(found.field("status").to_numpy(zero_copy_only=False) != Status.OK.value, pa.bool_())
    return pa.StructArray.from_arrays(columns, fields=list(VERDICT), mask=missing)
