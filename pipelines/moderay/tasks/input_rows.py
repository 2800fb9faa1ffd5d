"""Rows of a job's input beside what is known of them: some columns of all, or some contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from moderay.core.errors import UserError, nearest
from moderay.corpus.columns import read_columns
from moderay.corpus.content import Content, contents, template_columns
from moderay.corpus.shard import Shard, shard_errors
from moderay.corpus.views import rows_at, without_views
from moderay.pipeline.check import Checked

# Rows of the input read at once.
STEP = 8192


def contents_at(checked: Checked, shard: Shard, rows: np.ndarray) -> Iterator[list[Content]]:
    """The contents of some rows of a shard, in lists as they are read.

    Args:
        checked: The job and its input.
        shard: A shard of it.
        rows: Positions, rising.
    """
    fs, path = shard.located(checked.job.storage)
    wanted = read_columns(checked.job)
    start = 0
    with shard_errors(shard):
        for batch in shard.format.tables(
            fs, path, wanted, shard.schema, rows=STEP, listed=shard.state
        ):
            low, high = np.searchsorted(rows, (start, start + len(batch)))
            table = rows_at(without_views(batch), rows[low:high] - start)
            for name, value in shard.partitions:
                if name in wanted:
                    table = table.append_column(name, pa.array([value] * len(table), pa.string()))
            yield contents(table, checked.job.input.content)
            start += len(batch)


def column_names(checked: Checked, shard: Shard) -> list[str]:
    """Names of a shard's columns, and of its path's parts."""
    if shard.schema is not None:
        names = list(shard.schema.names)
    else:
        fs, path = shard.located(checked.job.storage)
        with shard_errors(shard):
            names = shard.format.names(fs, path)
    return [*names, *[name for name, _ in shard.partitions if name not in names]]


def input_columns(
    checked: Checked, shard: Shard, names: Sequence[str], named: str
) -> Iterator[pa.Table]:
    """Columns of a shard's rows, in order.

    Raises:
        UserError: It has no such column, or two.
    """
    columns = column_names(checked, shard)
    for name in names:
        if columns.count(name) != 1:
            count = "two columns" if name in columns else "no column"
            hint = nearest(name, columns)
            raise UserError(f"{named} {name}: {shard.file} has {count} {name!r}; {hint}")
    return columns_of(checked, shard, names)


def columns_of(checked: Checked, shard: Shard, names: Sequence[str]) -> Iterator[pa.Table]:
    """Those columns of a shard's rows, in order."""
    fs, path = shard.located(checked.job.storage)
    # Parts of the path alone do not tell how many rows there are.
    in_path = {name for name, _ in shard.partitions}
    content = template_columns(checked.job.input.content) if in_path.issuperset(names) else []
    wanted = list(dict.fromkeys([*names, *content]))
    with shard_errors(shard):
        for batch in shard.format.tables(fs, path, wanted, shard.schema, listed=shard.state):
            table = without_views(batch)
            for name, value in shard.partitions:
                if name in names and name not in table.column_names:
                    table = table.append_column(name, pa.array([value] * len(table), pa.string()))
            yield table.select(list(names))
