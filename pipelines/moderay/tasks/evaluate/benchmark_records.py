"""The summary of several benchmarks, for other programs."""

from __future__ import annotations

from typing import ClassVar, Literal

from moderay.core.records import Record, RecordPart
from moderay.tasks.evaluate.records import EstimateRecord, EvalRecord


class PublishedRecord(RecordPart):
    """A figure that others published."""

    value: float
    """The figure."""
    model: str
    """Whose it is."""
    source: str
    """Where it is published."""
    comparable: bool
    """Whether it is of the same rows."""
    note: str
    """What is not known of how it was measured, or why it does not compare."""


class CellRecord(RecordPart):
    """One figure of a benchmark, beside what others published of it."""

    figure: str
    """Its name; `labels_right`: the share of rows with the very label of the gold;
    `policies_right`: of rows on which every policy is right.
    """
    policy: str | None
    """Under which policy; None: whether any of several is violated, or all of them together."""
    at_or_above: str | None
    """The label from which on it counts as violating; None: as the policy says."""
    rows: int
    """Of which people said what it needs, those without a verdict included."""
    ours: EstimateRecord | None
    """None where it is not defined, such as recall where nothing violates."""
    published: list[PublishedRecord]
    """Empty: nobody published one that can be cited."""


class BenchmarkRecord(RecordPart):
    """What a model is worth on one public set."""

    name: str
    """Of the job."""
    model: str
    """Who judged; empty where the set is not there."""
    source: str
    """Where the set is published."""
    missing: str | None
    """Why there are no figures: what of the set is not there."""
    cells: list[CellRecord]
    """The figures of the summary."""
    evaluation: EvalRecord | None
    """All others, as `eval.json` has them."""


class SummaryRecord(Record):
    """Several benchmarks, each beside the figures that others published."""

    remedy: ClassVar[str] = "evaluate again"

    schema_version: Literal[1] = 1
    confidence: float = 0.95
    """Of the intervals."""
    benchmarks: list[BenchmarkRecord]
    """In the order in which their jobs were named."""
