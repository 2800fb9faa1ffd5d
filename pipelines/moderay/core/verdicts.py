"""What a judge says of a content (`Verdict`), what becomes of it (`Decision`), and the Arrow
schemas of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import pyarrow as pa


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
    """Where a verdict comes from: this row was judged, its content was in another row of this run,
    or in an earlier one.
    """

    JUDGED = "judged"
    DUPLICATE = "duplicate"
    REUSED = "reused"


# Of an audited row: what an earlier judge said. `violates` follows from the threshold;
# `probability` is null where that judge gives none.
AUDIT = pa.struct([("judge", pa.string()), ("violates", pa.bool_()), ("probability", pa.float32())])

# What is found out while judging. `scores` is P(label) in the order of the policy's labels: with
# it, every later threshold is decided without a model, whatever the number of labels.
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
    """One content under one policy: a row of `VERDICT`, and the same names."""

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
    """Columns of `VERDICT` for verdicts given by run number `run`."""
    columns = (
        dict(zip(VERDICT.names, zip(*verdicts, strict=True), strict=True))
        if verdicts
        else dict.fromkeys(VERDICT.names, ())
    )
    columns["run"] = (run,) * len(verdicts)
    return pa.StructArray.from_arrays(
        [pa.array(columns[f.name], f.type) for f in VERDICT], fields=list(VERDICT)
    )


# A policy's column in the label files: the verdict, and what the threshold makes of it.
DECISION = pa.struct(
    [
        VERDICT.field("status"),
        pa.field("violates", pa.bool_()),
        pa.field("label", pa.string()),
        pa.field("probability", pa.float32()),
        *[
            VERDICT.field(name)
            for name in (
                "scores",
                "rationale",
                "reasoning",
                "answer",
                "decided_by",
                "origin",
                "forced",
                "audit",
            )
        ],
        *[
            VERDICT.field(name)
            for name in ("run", "windows", "prompt_tokens", "output_tokens", "detail")
        ],
    ]
)

ROW = pa.field("row", pa.int64(), nullable=False)
CONTENT_HASH = pa.field("content_hash", pa.string())
FLAGGED = pa.field("flagged", pa.bool_())


def structs(column: pa.ChunkedArray) -> pa.StructArray:
    """A column as one array."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def unit_schema(policy_ids: Iterable[str]) -> pa.Schema:
    """A unit's file: position, hash, and a verdict struct per policy; nothing that a threshold
    could change.
    """
    return pa.schema(
        [
            ROW,
            CONTENT_HASH,
            *[pa.field(name, pa.struct(list(VERDICT)), nullable=False) for name in policy_ids],
        ]
    )


def label_fields(policy_ids: Sequence[str]) -> list[pa.Field]:
    """The fields that follow the carried input columns in a label file."""
    return [
        ROW,
        CONTENT_HASH,
        FLAGGED,
        *[pa.field(name, DECISION, nullable=False) for name in policy_ids],
    ]
