"""Rows to review that markers do not name: a bounded scan of label files, the same each time.

Files are read in the order of their names' hashes until so many rows were seen, and of each kind
the contents with the smallest hashes are kept: a hash knows nothing of the verdict, so that they
are a fair sample of what was read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.hashing import number
from moderay.core.storage import RemoteFile, plain_errors
from moderay.core.verdicts import CONTENT_HASH, ROW, structs, trace
from moderay.labels.layout import Layout
from moderay.labels.records import ShardMarker
from moderay.labels.review_records import Queue
from moderay.labels.shard_profile import NEAR
from moderay.tasks.review.items import Item, Key
from moderay.tasks.review.output import ReviewPolicy

# Label rows that are read at most: some seconds of columns.
SCANNED_ROWS = 1_000_000
# Rows of a batch.
STEP = 65_536
# The kinds that a label file tells.
SCANNED: tuple[Queue, ...] = ("borderline", "flagged", "safe", "disagreement", "audit")

_FIELDS = ("violates", "probability", "trace.audit", "trace.decided_by")


def scan(
    layout: Layout,
    markers: Mapping[str, ShardMarker],
    policies: Sequence[ReviewPolicy],
    kinds: Collection[Queue],
    most: int,
) -> list[Item]:
    """Rows of each policy and kind.

    Args:
        layout: Of the output.
        markers: Of its published shards.
        policies: Under which rows are asked about.
        kinds: Of `SCANNED`.
        most: Of each policy and kind.
    """
    found = {(policy.id, kind): _Smallest(most) for policy in policies for kind in kinds}
    for shard in _shards(markers):
        for rows in label_columns(layout, shard, [policy.id for policy in policies], _FIELDS):
            hashed = rows.column(CONTENT_HASH.name).is_valid()
            for policy in policies:
                masks = _masks(structs(rows.column(policy.id)), policy.threshold)
                for kind in kinds:
                    chosen = rows.filter(pc.and_kleene(masks[kind], hashed))
                    found[policy.id, kind].add(shard, chosen)
    return [
        Item(Key(policy, content), shard, row, kind)
        for (policy, kind), smallest in found.items()
        for content, shard, row in smallest.rows
    ]


def label_columns(
    layout: Layout, shard: str, policies: Sequence[str], fields: Sequence[str]
) -> Iterator[pa.Table]:
    """Some fields of the policies of a label file, beside rows' positions and hashes."""
    inner = [f"{policy}.{field}" for policy in policies for field in fields]
    with (
        plain_errors(layout.url),
        pq.ParquetFile(RemoteFile(layout.fs, layout.label(shard)), pre_buffer=True) as file,
    ):
        for batch in file.iter_batches(STEP, columns=[ROW.name, CONTENT_HASH.name, *inner]):
            yield pa.Table.from_batches([batch])


def _shards(markers: Mapping[str, ShardMarker]) -> Iterator[str]:
    """The shards that are read, in their order."""
    left = SCANNED_ROWS
    for shard in sorted(markers, key=lambda name: number(f"review:{name}")):
        if left <= 0:
            return
        left -= markers[shard].rows
        yield shard


def _masks(decisions: pa.StructArray, threshold: float) -> dict[Queue, pa.Array]:
    """Of each kind, which rows are of it; null is no.

    What a person decided already is of none.
    """
    violates, audit = decisions.field("violates"), trace(decisions, "audit")
    model = pc.not_equal(trace(decisions, "decided_by"), "human").fill_null(True)
    distance = pc.abs(pc.subtract(decisions.field("probability").cast(pa.float64()), threshold))
    audited = audit.is_valid()
    masks: dict[Queue, pa.Array] = {
        "borderline": pc.less_equal(distance, NEAR),
        "flagged": violates,
        "safe": pc.invert(violates),
        "audit": audited,
        "disagreement": pc.and_kleene(
            audited, pc.not_equal(pc.struct_field(audit, "violates"), violates)
        ),
    }
    return {kind: pc.and_kleene(mask, model) for kind, mask in masks.items()}


class _Smallest:
    """Of rows with contents, those whose hashes are smallest; of each content the first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.rows: list[tuple[str, str, int]] = []

    def add(self, shard: str, rows: pa.Table) -> None:
        """Rows of a shard, in order."""
        if len(self.rows) == self._most:
            largest = self.rows[-1][0]
            rows = rows.filter(pc.less(rows.column(CONTENT_HASH.name), largest))
        hashes = rows.column(CONTENT_HASH.name).to_numpy()
        contents, first = np.unique(hashes, return_index=True)
        positions = rows.column(ROW.name).to_numpy()[first]
        known = {content for content, _, _ in self.rows}
        new = [
            (content, shard, int(row))
            for content, row in zip(contents[: self._most + len(known)], positions, strict=False)
            if content not in known
        ]
        self.rows = sorted([*self.rows, *new])[: self._most]
