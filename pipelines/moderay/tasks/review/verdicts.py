"""What the model said of an item, as a person is shown it after the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.storage import RemoteFile, plain_errors
from moderay.core.verdicts import ROW
from moderay.tasks.output_contents import row_groups
from moderay.tasks.review.items import Item
from moderay.tasks.review.output import ReviewedOutput


@dataclass(frozen=True)
class ModelVerdict:
    """The cascade's verdict on a row, whatever people said since.

    Attributes:
        status: ok, or why there is none.
        violates: As it was decided.
        label: As it was decided.
        probability: P(violates).
        rationale: The model's reason.
        reasoning: The model's analysis.
        decided_by: The judge.
    """

    status: str
    violates: bool | None
    label: str | None
    probability: float | None
    rationale: str | None
    reasoning: str | None
    decided_by: str | None


def verdict_of(output: ReviewedOutput, item: Item) -> ModelVerdict | None:
    """The verdict in the label file; None where its row is not there any more."""
    if item.shard not in output.markers:
        return None
    with plain_errors(output.layout.url):
        row = _label_row(output, item)
    if row is None:
        return None
    decision: dict[str, Any] = row.column(item.key.policy)[0].as_py()
    trace = decision["trace"]
    # Where a person decided, the model's own verdict stands beside it.
    said = trace.get("overruled") or {**decision, "decided_by": trace["decided_by"]}
    return ModelVerdict(
        said["status"],
        said["violates"],
        said["label"],
        said["probability"],
        said["rationale"],
        decision["reasoning"],
        said["decided_by"],
    )


def _label_row(output: ReviewedOutput, item: Item) -> pa.Table | None:
    """The policy's column of an item's label row; None where there is no such row or column."""
    path, row = output.layout.label(item.shard), np.array([item.row])
    with pq.ParquetFile(RemoteFile(output.layout.fs, path)) as file:
        if item.key.policy not in file.schema_arrow.names:
            return None
        for group in row_groups(file, row):
            table = file.read_row_group(group, columns=[ROW.name, item.key.policy])
            found = table.filter(pc.equal(table.column(ROW.name), item.row))
            if len(found):
                return found.slice(0, 1)
    return None
