"""Verdicts and decisions, as values and as Arrow schemas.

A verdict is what a judge says of a content; a decision is what the policy's threshold makes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.decision_rule import DecisionRule


class Status(StrEnum):
    """`OK`, or why a content has no verdict."""

    OK = "ok"
    EMPTY = "empty"
    INVALID = "invalid"
    TOO_LONG = "too_long"
    UNPARSED = "unparsed"
    TIMEOUT = "timeout"
    ENGINE_ERROR = "engine_error"


# What a wrong model or prompt, an engine or a deadline made, and not the content: another attempt
# may end otherwise.
RETRYABLE = (Status.UNPARSED, Status.TIMEOUT, Status.ENGINE_ERROR)


class Origin(StrEnum):
    """Where a verdict comes from."""

    JUDGED = "judged"
    """This row was judged."""
    DUPLICATE = "duplicate"
    """Its content was in another row of this run."""
    REUSED = "reused"
    """Its content was in a row of an earlier run."""


# Of an audited row: what an earlier judge said. `violates` follows from the threshold;
# `probability` is null where that judge gives none.
AUDIT = pa.struct([("judge", pa.string()), ("violates", pa.bool_()), ("probability", pa.float32())])

# What judging finds out. `Verdict` says what each column is; `run` is filled in with the verdicts.
VERDICT = pa.schema(
    [
        pa.field("status", pa.string(), nullable=False),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("rationale", pa.string()),
        pa.field("reasoning", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("decided_by", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("forced", pa.bool_()),
        pa.field("audit", AUDIT),
        pa.field("run", pa.int16()),
        pa.field("windows", pa.int32()),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("output_tokens", pa.int32()),
        pa.field("detail", pa.string()),
    ]
)

VERDICTS = pa.struct(list(VERDICT))


class Verdict(NamedTuple):
    """One content under one policy: a row of `VERDICT`, and the same names.

    Attributes:
        status: `ok`, or why there is no verdict.
        scores: P(label) in the order of the policy's labels: with it, every later threshold is
            decided without a model, whatever the number of labels. None where there is no P.
        rationale: What the model gives as its reason; for rules, the rule's id.
        reasoning: The model's analysis.
        answer: The label that was written.
        decided_by: The judge's name.
        origin: Where the verdict comes from.
        forced: Whether the verdict had to be asked for, since the budget ran out or the answer did
            not parse.
        audit: As `AUDIT`, what an earlier judge said of an audited row.
        run: Index into the manifest's runs.
        windows: Windows that were judged.
        prompt_tokens: Tokens of the content's prompts, over all windows.
        output_tokens: Tokens written, over all windows.
        detail: For a status other than ok, what happened.
    """

    status: Status
    scores: list[float] | None = None
    rationale: str | None = None
    reasoning: str | None = None
    answer: str | None = None
    decided_by: str | None = None
    origin: str | None = None
    forced: bool | None = None
    audit: Mapping[str, object] | None = None
    run: int | None = None
    windows: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    detail: str | None = None


def verdict_array(verdicts: Sequence[Verdict], run: int) -> pa.StructArray:
    """Verdicts of run number `run` as structs of `VERDICT`."""
    columns: dict[str, Sequence[Any]] = dict.fromkeys(VERDICT.names, ())
    if verdicts:
        columns = dict(zip(VERDICT.names, zip(*verdicts, strict=True), strict=True))
    columns["run"] = (run,) * len(verdicts)
    return pa.StructArray.from_arrays(
        [pa.array(columns[f.name], f.type) for f in VERDICT], fields=list(VERDICT)
    )


# How a decision came about, for those who ask: nested, apart from what people read.
TRACE = pa.struct(
    [
        VERDICT.field(name)
        for name in (
            "decided_by",
            "origin",
            "forced",
            "answer",
            "audit",
            "run",
            "windows",
            "prompt_tokens",
            "output_tokens",
            "detail",
        )
    ]
)
# What the threshold makes of a verdict.
VIOLATES = pa.field("violates", pa.bool_())
LABEL = pa.field("label", pa.string())
PROBABILITY = pa.field("probability", pa.float32())


def decision_type(labels: Sequence[str]) -> pa.StructType:
    """A policy's column in the label files: the verdict, and what the threshold makes of it.

    Args:
        labels: The policy's: `scores` has a field for each.
    """
    return pa.struct(
        [
            VERDICT.field("status"),
            VIOLATES,
            LABEL,
            PROBABILITY,
            pa.field("scores", pa.struct([(label, pa.float32()) for label in labels])),
            VERDICT.field("rationale"),
            VERDICT.field("reasoning"),
            pa.field("trace", TRACE, nullable=False),
        ]
    )


def is_decision(kind: pa.DataType) -> bool:
    """Whether a column of a label file holds decisions in today's form."""
    if not pa.types.is_struct(kind) or kind.get_field_index("scores") < 0:
        return False
    scores = kind.field("scores").type
    return pa.types.is_struct(scores) and bool(
        kind == decision_type([label.name for label in scores])
    )


def trace(decisions: pa.StructArray, name: str) -> pa.Array:
    """A field of `TRACE`."""
    return decisions.field("trace").field(name)


ROW = pa.field("row", pa.int64(), nullable=False)
CONTENT_HASH = pa.field("content_hash", pa.string())
FLAGGED = pa.field("flagged", pa.bool_())


def structs(column: pa.ChunkedArray) -> pa.StructArray:
    """A column as one array."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def valid(column: pa.Array) -> np.ndarray:
    """Bool: where a column is not null."""
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))


def filled(known: pa.StructArray, more: pa.StructArray) -> pa.StructArray:
    """`known`, and where it is null, `more`."""
    return pc.coalesce(known, more) if known.null_count else known


def scattered(column: pa.StructArray, values: pa.StructArray, rows: np.ndarray) -> pa.StructArray:
    """The column with these rows (distinct) replaced."""
    positions = np.arange(len(column))
    positions[rows] = len(column) + np.arange(len(rows))
    return pa.concat_arrays([column, values]).take(pa.array(positions))


def unit_schema(policy_ids: Iterable[str]) -> pa.Schema:
    """A unit's file: position, hash, and a verdict for each policy.

    Nothing in it could be changed by a threshold.
    """
    verdicts = [pa.field(name, VERDICTS, nullable=False) for name in policy_ids]
    return pa.schema([ROW, CONTENT_HASH, *verdicts])


def decision_fields(rules: Iterable[DecisionRule]) -> list[pa.Field]:
    """The policies' columns in a label file."""
    return [pa.field(rule.policy, decision_type(rule.labels), nullable=False) for rule in rules]


def label_fields(rules: Iterable[DecisionRule]) -> list[pa.Field]:
    """The fields that follow the carried input columns in a label file."""
    return [ROW, CONTENT_HASH, FLAGGED, *decision_fields(rules)]
