"""What the model said of an item, as a person is shown it after the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moderay.tasks.label_rows import rows_of
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
    found = rows_of(output.layout, item.shard, np.array([item.row]), [item.key.policy])
    if not len(found) or item.key.policy not in found.column_names:
        return None
    decision: dict[str, Any] = found.column(item.key.policy)[0].as_py()
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
