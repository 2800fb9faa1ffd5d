"""A range of rows in a message."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from moderay.corpus.ranges import Range

RANGE = pa.struct([("start", pa.int64()), ("end", pa.int64())])


def range_row(rows: Range) -> dict[str, int]:
    """A range as a `RANGE`."""
    return {"start": rows[0], "end": rows[1]}


def range_of(row: Mapping[str, int]) -> Range:
    """The range that a `RANGE` says."""
    return row["start"], row["end"]
