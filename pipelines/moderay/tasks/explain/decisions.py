"""Decisions of a label file as records, and what the judges said in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from moderay.core.verdicts import HUMAN
from moderay.tasks.explain.records import DecisionPart


def decision_parts(column: pa.ChunkedArray) -> list[DecisionPart]:
    """A policy's column, row by row."""
    labels = [label.name for label in column.type.field("scores").type]
    return [DecisionPart.model_validate(_named(row, labels)) for row in column.to_pylist()]


def _named(decision: dict[str, Any], labels: Sequence[str]) -> Mapping[str, Any]:
    """With the scores of what was overruled by label: the file has them in the labels' order."""
    overruled = decision["trace"].get("overruled")
    if overruled is not None and overruled["scores"] is not None:
        overruled["scores"] = dict(zip(labels, overruled["scores"], strict=True))
    return decision


def judged_by(decision: DecisionPart) -> str | None:
    """The judge that decided, or whose verdict a person's stands over."""
    trace = decision.trace
    if trace.decided_by == HUMAN and trace.overruled is not None:
        return trace.overruled.decided_by
    return trace.decided_by


def judged_scores(decision: DecisionPart) -> Mapping[str, float | None] | None:
    """P of each label as the judges have it, whatever a person said since."""
    overruled = decision.trace.overruled
    return decision.scores if overruled is None else overruled.scores
