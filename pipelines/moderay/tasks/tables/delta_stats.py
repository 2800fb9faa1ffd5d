"""Statistics of a Parquet file as a Delta table's log has them: what a query may pass over."""

from __future__ import annotations

import datetime
from typing import Any

import pyarrow.parquet as pq

# Longer texts say little, and would have to be cut with care.
MOST_CHARS = 32


def file_stats(file: pq.FileMetaData) -> dict[str, Any]:
    """Smallest and largest values, and nulls, of a file's plain columns, from its footer.

    Without floats, of which Parquet leaves NaN out and Delta does not.
    """
    smallest: dict[str, Any] = {}
    largest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    whole = set(file.schema.to_arrow_schema().names)
    for number in range(file.num_columns):
        name = file.schema.column(number).path
        if name not in whole:  # a part of a nested one
            continue
        parts = [
            file.row_group(group).column(number).statistics for group in range(file.num_row_groups)
        ]
        if not parts or not all(part is not None and part.has_null_count for part in parts):
            continue
        nulls[name] = sum(part.null_count for part in parts)
        bounds = [part for part in parts if part.num_values]
        if not bounds or not all(part.has_min_max for part in bounds):
            continue
        low = _json(min(part.min for part in bounds))
        high = _json(max(part.max for part in bounds))
        if low is not None and high is not None:
            smallest[name], largest[name] = low, high
    return {"minValues": smallest, "maxValues": largest, "nullCount": nulls}


def _json(value: Any) -> Any:
    """A value as the log writes it; None for one of a kind that is left out."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return value if len(value) <= MOST_CHARS else None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    return None
