"""A few label rows of a shard, read by their position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.storage import RemoteFile, plain_errors
from moderay.core.verdicts import ROW
from moderay.labels.layout import Layout
from moderay.tasks.output_contents import row_groups

# Rows read at once: few, since a column may hold long texts.
STEP = 8192


def rows_of(layout: Layout, shard: str, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Columns of some label rows, and their positions beside them; row groups without any are left.

    Args:
        layout: Of the output.
        shard: Path of the label file below it.
        rows: Positions in the input file, rising.
        columns: As Parquet names them, such as `spam.label`; those that the file has not are left
            out.

    Raises:
        UserError: The storage refuses.
        pa.ArrowException: The file is broken.
    """
    with (
        plain_errors(layout.url),
        pq.ParquetFile(RemoteFile(layout.fs, layout.label(shard)), pre_buffer=True) as file,
    ):
        schema = file.metadata.schema
        paths = [schema.column(number).path for number in range(len(schema))]
        names = [
            name
            for name in (ROW.name, *columns)
            if any(path == name or path.startswith(f"{name}.") for path in paths)
        ]
        found = []
        for batch in file.iter_batches(STEP, row_groups(file, rows), names):
            there = np.isin(batch.column(ROW.name).to_numpy(), rows)
            found.append(batch.filter(pa.array(there)))
        if found:
            return pa.Table.from_batches(found)
        return file.read_row_groups([], names)
