"""Driver -> read task: which units it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from moderay.corpus.ranges import Range
from moderay.corpus.shard import Shard
from moderay.judges.glance import Band
from moderay.labels.earlier_outputs import LabelFile
from moderay.labels.partition import Source
from moderay.pipeline.messages.ranges import RANGE, range_of, range_row


@dataclass(frozen=True)
class Span:
    """Rows that one task reads.

    They are cut into units as they are read: a footer that claims any number of rows costs nothing.

    Attributes:
        shard: The shard they are of.
        groups: Its row groups that they lie in, neighbours: the first, and one past the last.
        first_row: The shard's row with which the first of these groups begins.
        missing: Which rows, in order.
        step: Rows of a unit, at most.
    """

    shard: Shard
    groups: Range
    first_row: int
    missing: tuple[Range, ...]
    step: int

    @property
    def end_row(self) -> int:
        """The shard's row before which the last of its groups ends."""
        return self.first_row + sum(self.shard.row_groups[slice(*self.groups)])

    @property
    def units(self) -> int:
        """How many units these rows are, if their contents are as long as the footer says."""
        return sum(-(-(end - start) // self.step) for start, end in self.missing)


@dataclass(frozen=True)
class Reading:
    """A span that a task reads, alone or with others.

    Attributes:
        span: The units.
        key: The key that they are saved under.
        run: The run whose label file will take their place.
        earlier: Where their rows may have verdicts already.
        behind: Units of the spans that are read after this one.
    """

    span: Span
    key: str
    run: int
    earlier: tuple[LabelFile, ...]
    behind: int = 0

    @property
    def source(self) -> Source:
        """The labels that the units become a part of."""
        return Source(0, self.span.shard.name, self.key, self.run)


_SHARD = pa.struct(
    [
        ("url", pa.string()),
        ("name", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("row_groups", pa.list_(pa.int64())),
        ("content_bytes", pa.int64()),
        ("conversation", pa.bool_()),
        ("partitions", pa.list_(pa.list_(pa.string(), 2))),
        # As Arrow writes a schema; null where the file says it itself.
        ("schema", pa.binary()),
        ("store", pa.string()),
        # Bytes: a local path may be no text.
        ("path", pa.binary()),
        ("ctime_ns", pa.int64()),
        ("whole", pa.bool_()),
    ]
)
_AS_BYTES = ("utf-8", "surrogateescape")
_BAND = pa.struct([("below", pa.float64()), ("above", pa.float64())])
_LABEL_FILE = pa.struct(
    [
        ("output", pa.int32()),
        ("shard", pa.string()),
        # By policy and judge, the band outside which its verdicts stand; null where all do.
        ("usable", pa.map_(pa.string(), pa.map_(pa.string(), _BAND))),
    ]
)
SPAN = pa.schema(
    [
        ("shard", _SHARD),
        ("groups", RANGE),
        ("first_row", pa.int64()),
        ("missing", pa.list_(RANGE)),
        ("step", pa.int64()),
        ("key", pa.string()),
        ("run", pa.int64()),
        ("earlier", pa.list_(_LABEL_FILE)),
        ("behind", pa.int64()),
    ]
)


def span_table(readings: Sequence[Reading]) -> pa.Table:
    """Rows of `SPAN`."""
    return pa.Table.from_pylist([_span_row(reading) for reading in readings], schema=SPAN)


def _span_row(reading: Reading) -> dict[str, object]:
    span = reading.span
    shard = span.shard
    schema = None if shard.schema is None else shard.schema.serialize().to_pybytes()
    fields = {name: getattr(shard, name) for name in _SHARD.names}
    return {
        "shard": fields | {"schema": schema, "path": shard.path.encode(*_AS_BYTES)},
        "groups": range_row(span.groups),
        "first_row": span.first_row,
        "missing": [range_row(rows) for rows in span.missing],
        "step": span.step,
        "key": reading.key,
        "run": reading.run,
        "earlier": [
            {"output": file.output, "shard": file.shard, "usable": _usable_row(file.usable)}
            for file in reading.earlier
        ],
        "behind": reading.behind,
    }


def readings(table: pa.Table) -> Iterator[Reading]:
    """What rows of `SPAN` say."""
    for row in table.to_pylist(maps_as_pydicts="strict"):
        shard = row["shard"]
        if shard["schema"] is not None:
            shard["schema"] = pa.ipc.read_schema(pa.py_buffer(shard["schema"]))
        shard["path"] = shard["path"].decode(*_AS_BYTES)
        shard["row_groups"] = tuple(shard["row_groups"])
        shard["partitions"] = tuple(map(tuple, shard["partitions"]))
        missing = tuple(range_of(rows) for rows in row["missing"])
        groups = range_of(row["groups"])
        yield Reading(
            Span(Shard(**shard), groups, row["first_row"], missing, row["step"]),
            row["key"],
            row["run"],
            tuple(
                LabelFile(file["output"], file["shard"], _usable(file["usable"]))
                for file in row["earlier"]
            ),
            row["behind"],
        )


def _usable_row(usable: Mapping[str, Mapping[str, Band | None]]) -> dict[str, object]:
    return {
        policy: {
            judge: None if band is None else {"below": band.below, "above": band.above}
            for judge, band in judges.items()
        }
        for policy, judges in usable.items()
    }


def _usable(row: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Band | None]]:
    return {
        policy: {judge: None if band is None else Band(**band) for judge, band in judges.items()}
        for policy, judges in row.items()
    }
