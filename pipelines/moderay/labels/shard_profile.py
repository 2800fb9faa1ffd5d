"""What a marker shows of a shard's labels, so that nobody need read them: P by bin, and a few rows.

All of it is computed in columns, batch by batch, as the label file is written.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.verdicts import CONTENT_HASH, RETRYABLE, ROW, structs, trace
from moderay.labels.records import ChosenRow, ChosenRows, Histogram, ShardMarker

# Bins of P(violates), of equal width.
BINS = 1000
# Rows that are chosen of each kind.
CHOSEN = 3
# A row is borderline where P(violates) is this near the threshold.
NEAR = 0.1
# Characters of a rationale, or of a failed row's detail, that are kept of a chosen row.
TEXT_CHARS = 200

# The last bin has no upper edge.
_EDGES = np.append(np.arange(BINS) / BINS, np.inf).astype(np.float32)
_FIELDS = ("status", "label", "probability", "rationale")


class PolicyProfile:
    """One policy's histogram and chosen rows, batch by batch."""

    def __init__(self, policy: str, threshold: float) -> None:
        """Of no rows yet; `threshold`: on P(violates)."""
        self._policy = policy
        self._threshold = threshold
        self._bins = np.zeros(BINS, np.int64)
        self._chosen: dict[str, pa.Table] = {}
        self.flagged_without_p = 0

    def add(self, labels: pa.Table) -> None:
        """Rows of a label file."""
        decisions = structs(labels.column(self._policy))
        probability = decisions.field("probability")
        self._bins += np.bincount(bins_of(probability), minlength=BINS)
        certain = pc.and_(decisions.field("violates"), probability.is_null())
        self.flagged_without_p += pc.sum(certain).as_py() or 0
        rows = pa.table(
            {name: labels.column(name) for name in (ROW.name, CONTENT_HASH.name)}
            | {name: decisions.field(name) for name in _FIELDS}
            | {name: trace(decisions, name) for name in ("detail", "decided_by")}
        )
        distance = pc.abs(pc.subtract(probability.cast(pa.float64()), self._threshold))
        kinds = {
            "flagged": decisions.field("violates"),
            "borderline": pc.less_equal(distance, NEAR),
            "failed": pc.is_in(decisions.field("status"), pa.array(RETRYABLE)),
            "safe": pc.invert(decisions.field("violates")),
        }
        for kind, mask in kinds.items():
            # A null in the mask is no; a content without a hash cannot be compared.
            self._choose(kind, rows.filter(pc.and_kleene(mask, rows.column(1).is_valid())))

    def histogram(self) -> Histogram:
        """Rows by bin; bins without rows are left out."""
        return {int(number): int(self._bins[number]) for number in np.flatnonzero(self._bins)}

    def chosen(self) -> ChosenRows:
        """The rows with the smallest hashes, of each kind."""
        rows = {
            kind: tuple(ChosenRow.model_validate(row) for row in table.to_pylist())
            for kind, table in self._chosen.items()
        }
        return ChosenRows(**rows)

    def _choose(self, kind: str, rows: pa.Table) -> None:
        before = self._chosen.get(kind)
        if before is not None and len(before) == CHOSEN:
            largest = before.column(CONTENT_HASH.name)[-1]
            rows = rows.filter(pc.less_equal(rows.column(CONTENT_HASH.name), largest))
        if not len(rows):
            return
        together = rows if before is None else pa.concat_tables([before, rows])
        self._chosen[kind] = _bounded(_smallest(together))


def bins_of(probability: pa.Array) -> npt.NDArray[np.int64]:
    """The bin of each P that is there.

    Edges are float32 as P is: a threshold at an edge then cuts where the bins do.
    """
    values = probability.drop_null().to_numpy()
    bins = np.minimum((values.astype(np.float64) * BINS).astype(np.int64), BINS - 1)
    # Which rounding may have put one too low or too high.
    bins -= values < _EDGES[bins]
    return np.asarray(bins + (values >= _EDGES[bins + 1]))


def _smallest(rows: pa.Table) -> pa.Table:
    """The `CHOSEN` rows with the smallest hashes, of each content the first."""
    by = [(CONTENT_HASH.name, "ascending"), (ROW.name, "ascending")]
    ordered = rows.take(pc.sort_indices(rows, sort_keys=by))
    hashes = ordered.column(CONTENT_HASH.name).to_numpy()
    first = np.append(True, hashes[1:] != hashes[:-1])
    return ordered.take(pa.array(np.flatnonzero(first)[:CHOSEN]))


def _bounded(rows: pa.Table) -> pa.Table:
    """With their texts cut off."""
    for name in ("rationale", "detail"):
        index = rows.column_names.index(name)
        cut = pc.utf8_slice_codeunits(rows.column(name), 0, TEXT_CHARS)
        rows = rows.set_column(index, name, cut)
    return rows


class ChosenTotal:
    """The rows of one policy with the smallest hashes among those that many shards have chosen."""

    def __init__(self, most: int) -> None:
        """Of nothing yet; `most` are kept of each kind."""
        self._most = most
        self._kinds: dict[str, dict[str, tuple[ShardMarker, ChosenRow]]] = {}

    def add(self, marker: ShardMarker, chosen: ChosenRows) -> None:
        """See what a shard has chosen under this policy."""
        for kind in ChosenRows.model_fields:
            rows: tuple[ChosenRow, ...] = getattr(chosen, kind)
            if not rows:
                continue
            kept = self._kinds.setdefault(kind, {})
            for row in rows:
                kept.setdefault(row.content_hash, (marker, row))
            for content_hash in sorted(kept)[self._most :]:
                del kept[content_hash]

    def rows(self) -> dict[str, list[tuple[ShardMarker, ChosenRow]]]:
        """By kind: (the shard's marker, row), by hash."""
        return {kind: [kept[key] for key in sorted(kept)] for kind, kept in self._kinds.items()}


class HistogramTotal:
    """A sum of histograms: there may be one for each of many shards."""

    def __init__(self) -> None:
        """Of nothing yet."""
        self._bins = np.zeros(BINS, np.int64)

    def add(self, histogram: Histogram) -> None:
        """Count these rows too."""
        size = len(histogram)
        numbers = np.fromiter(histogram.keys(), np.int64, size)
        self._bins[numbers] += np.fromiter(histogram.values(), np.int64, size)

    def histogram(self) -> Histogram:
        """The sum so far."""
        return {int(number): int(self._bins[number]) for number in np.flatnonzero(self._bins)}
