"""A published shard: its label file read in full, and held against its marker."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.errors import first_line
from moderay.core.records import RecordRefusedError
from moderay.core.storage import get, patiently
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, ROW, Status, is_decision
from moderay.labels.label_file import local_digest, published_by
from moderay.labels.layout import Layout, MarkerName, State, file_stamp
from moderay.labels.records import ShardMarker
from moderay.tasks.verify.finding import FOR_GOOD, Finding, refused

# Label files that are read side by side.
READERS = 4
_AGAIN = "run the job again: it is labelled anew"


@dataclass(frozen=True)
class VerifiedShard:
    """A published shard that was read.

    Attributes:
        name: Path of its label file, below the output.
        result: Its marker, where the label file is what that says; else what is wrong.
    """

    name: str
    result: ShardMarker | Finding


def verified_shards(layout: Layout, state: State, gone: Collection[str]) -> Iterator[VerifiedShard]:
    """Every shard that has a marker, by name.

    Args:
        layout: Of the output.
        state: What it holds.
        gone: Shards that the input has no more, so that they cannot be made again.
    """

    def verified(shard: str) -> VerifiedShard:
        result = _result(layout, state, shard)
        if shard in gone and isinstance(result, Finding) and result.drop:
            result = replace(result, remedy=FOR_GOOD, drop=_files(layout, state, shard))
        return VerifiedShard(shard, result)

    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(verified, sorted(state.markers))


def _files(layout: Layout, state: State, shard: str) -> tuple[str, ...]:
    """What is there of a shard's labels."""
    markers = (layout.marker(shard, name) for name in state.markers[shard])
    return (*markers, *([layout.label(shard)] if shard in state.stamps else []))


def _result(layout: Layout, state: State, shard: str) -> ShardMarker | Finding:
    published = state.published(shard)
    if published is not None:
        return _held_against(layout, state, shard, published)
    if shard not in state.stamps:
        return Finding(shard, "its label file is gone", _AGAIN, _files(layout, state, shard))
    # Of a copy, which has another time, any marker may be the one that speaks of it.
    results = []
    for name in sorted(state.markers[shard], key=lambda name: -name.run):
        results.append(_held_against(layout, state, shard, name))
        if isinstance(results[-1], ShardMarker):
            return results[-1]
    return results[0]


def _held_against(
    layout: Layout, state: State, shard: str, name: MarkerName
) -> ShardMarker | Finding:
    """A marker, where it is what its name says and the label file is what it says itself."""
    path = layout.marker(shard, name)
    try:
        marker = ShardMarker.from_json(get(layout.fs, path), path)
    except RecordRefusedError as error:
        return refused(layout, path, error)
    is_vouched = name.stamp == state.stamps[shard]
    wrong = _misnamed(shard, name, marker, is_vouched) or _wrong(layout, marker)
    if wrong is None:
        return marker
    return Finding(shard, wrong, _AGAIN, _files(layout, state, shard))


def _misnamed(shard: str, name: MarkerName, marker: ShardMarker, vouched: bool) -> str | None:
    """How a marker contradicts its own name."""
    file = marker.label_file
    if marker.shard != shard or marker.run != name.run:
        return f"its marker is of {marker.shard} and run {marker.run}"
    if vouched and file_stamp(file.size, file.version) != name.stamp:
        return "its marker is of another label file than its name says"
    return None


def _wrong(layout: Layout, marker: ShardMarker) -> str | None:
    """What is wrong with a label file; None where it is what its marker says."""
    with tempfile.TemporaryDirectory(prefix="moderay-") as folder:
        file = Path(folder) / "labels.parquet"
        try:
            patiently(layout.fs, lambda: layout.fs.get_file(layout.label(marker.shard), str(file)))
        except FileNotFoundError:
            return "its label file is gone"
        size = file.stat().st_size
        if size != marker.label_file.size:
            return f"it has {size:,} bytes, and had {marker.label_file.size:,} when published"
        if local_digest(file) != marker.label_file.digest:
            return "its bytes are not those that were published"
        try:
            with pq.ParquetFile(file) as labels:
                return next(_contradictions(labels, marker), None)
        except (pa.ArrowException, OSError, ValueError) as error:
            return f"it cannot be read ({first_line(error)})"


def _contradictions(labels: pq.ParquetFile, marker: ShardMarker) -> Iterator[str]:
    """How a label file's content contradicts its marker."""
    schema = labels.schema_arrow
    if published_by(schema) != marker.run:
        yield f"it was written by run {published_by(schema)}, its marker by run {marker.run}"
    own = [ROW.name, CONTENT_HASH.name, FLAGGED.name, *marker.policies]
    if not set(own) <= set(schema.names) or not all(
        is_decision(schema.field(name).type) for name in marker.policies
    ):
        yield "its columns are not those of today's labels"
        return
    counted = _Counted(list(marker.policies))
    for batch in labels.iter_batches(columns=own):
        counted.add(batch)
    if not counted.in_order:
        yield "its rows are not in order"
    if counted.rows != marker.rows or counted.last >= marker.input_rows:
        yield (
            f"it has {counted.rows:,} rows up to row {counted.last:,}, its marker says "
            f"{marker.rows:,} of {marker.input_rows:,}"
        )
    if counted.flagged != marker.flagged:
        yield f"{counted.flagged:,} rows are flagged, its marker says {marker.flagged:,}"
    for name, statuses in counted.statuses.items():
        noted = {status: marker.policies[name].by_status(status) for status in statuses}
        if noted != dict(statuses):
            yield f"{name}: its rows by status are {dict(statuses)}, its marker says {noted}"


class _Counted:
    """Label rows, counted batch by batch."""

    def __init__(self, policies: Sequence[str]) -> None:
        self.rows = 0
        self.flagged = 0
        self.last = -1
        self.in_order = True
        self.statuses: dict[str, Counter[Status]] = {name: Counter() for name in policies}

    def add(self, batch: pa.RecordBatch) -> None:
        positions = batch.column(ROW.name).to_numpy()
        steps = np.diff(positions, prepend=self.last)
        self.in_order = self.in_order and bool(np.all(steps > 0))
        self.last = int(positions[-1]) if len(positions) else self.last
        self.rows += len(positions)
        self.flagged += pc.sum(batch.column(FLAGGED.name)).as_py() or 0
        for name, counts in self.statuses.items():
            for item in batch.column(name).field("status").value_counts().to_pylist():
                counts[Status(item["values"])] += item["counts"]
