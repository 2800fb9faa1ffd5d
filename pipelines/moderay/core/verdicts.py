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
    WITHDRAWN = "withdrawn"
    """A person settled it before any judge was asked, and the answer no longer stands."""


# What a wrong model or prompt, an engine, a deadline or a person made, and not the content: another
# attempt may end otherwise.
RETRYABLE = (Status.UNPARSED, Status.TIMEOUT, Status.ENGINE_ERROR, Status.WITHDRAWN)
# Who decided, where a person did and no judge.
HUMAN = "human"


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


# What the threshold makes of a verdict.
VIOLATES = pa.field("violates", pa.bool_())
LABEL = pa.field("label", pa.string())
PROBABILITY = pa.field("probability", pa.float32())

# What the judges said of a row that a person decided otherwise, or for the second time: the fields
# of a decision, with the scores in the order of the policy's labels.
OVERRULED = pa.struct(
    [
        VERDICT.field("decided_by"),
        ("status", pa.string()),
        VIOLATES,
        LABEL,
        PROBABILITY,
        VERDICT.field("scores"),
        VERDICT.field("rationale"),
    ]
)
_TRACED = [
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
# How a decision came about, for those who ask: nested, apart from what people read. Null in
# `overruled`: no person decided, or one did before any judge was asked.
TRACE = pa.struct([*_TRACED, pa.field("overruled", OVERRULED)])
# As label files had it before people's answers were applied to them.
_FORMER_TRACE = pa.struct(_TRACED)


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


def _former_type(kind: pa.StructType) -> pa.StructType:
    """A policy's column as label files had it before `overruled`."""
    return pa.struct([*list(kind)[:-1], pa.field("trace", _FORMER_TRACE, nullable=False)])


def is_decision(kind: pa.DataType) -> bool:
    """Whether a column of a label file holds decisions, in today's form or in that before."""
    if not pa.types.is_struct(kind) or kind.get_field_index("scores") < 0:
        return False
    scores = kind.field("scores").type
    if not pa.types.is_struct(scores):
        return False
    today = decision_type([label.name for label in scores])
    return bool(kind == today or kind == _former_type(today))


def todays_schema(schema: pa.Schema) -> pa.Schema:
    """A label file's schema with its decisions in today's form."""
    fields = [
        field.with_type(decision_type([label.name for label in field.type.field("scores").type]))
        if is_decision(field.type)
        else field
        for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def todays_form(decisions: pa.StructArray) -> pa.StructArray:
    """Decisions of a label file in today's form."""
    today = decision_type([label.name for label in decisions.type.field("scores").type])
    if decisions.type == today:
        return decisions
    columns = [decisions.field(field.name) for field in today if field.name != "trace"]
    traced = [trace(decisions, field.name) for field in TRACE]
    columns.append(pa.StructArray.from_arrays(traced, fields=list(TRACE)))
    return pa.StructArray.from_arrays(columns, fields=list(today))


def trace(decisions: pa.StructArray, name: str) -> pa.Array:
    """A field of `TRACE`; null where the label file is of the form before it."""
    traced = decisions.field("trace")
    if traced.type.get_field_index(name) < 0:
        return pa.nulls(len(decisions), TRACE.field(name).type)
    return traced.field(name)


def judged_field(decisions: pa.StructArray, name: str) -> pa.Array:
    """A field of `OVERRULED` as the judges decided it, whatever a person said since.

    Args:
        decisions: With the fields `trace.overruled` and `name`; `scores` by label is none of these.
        name: Of the field.
    """
    said = trace(decisions, name) if name == "decided_by" else decisions.field(name)
    overruled = trace(decisions, "overruled")
    if overruled.null_count == len(overruled):
        return said
    return pc.if_else(overruled.is_valid(), overruled.field(name), said)


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
