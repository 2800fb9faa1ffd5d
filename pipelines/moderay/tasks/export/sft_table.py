"""Conversations as columns, and how many there are of which kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from moderay.tasks.export.cases import Case
from moderay.tasks.export.conversation import Conversation
from moderay.tasks.export.parts import Balance, Part, balanced
from moderay.tasks.export.records import SideCounts

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("thinking", pa.string())])
SCHEMA = pa.schema(
    [
        pa.field("policy", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("violates", pa.bool_(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("has_reasoning", pa.bool_(), nullable=False),
        pa.field("whole", pa.bool_(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("prompt_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("completion_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("completion_mask", pa.list_(pa.int8()), nullable=False),
        pa.field("messages", pa.list_(_MESSAGE), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_is_exact", pa.bool_(), nullable=False),
    ]
)


def sft_table(part: Part, rows: Sequence[tuple[Case, Conversation]], balance: Balance) -> pa.Table:
    """The conversations of a part."""
    cases = [case for case, _ in rows]
    talks = [conversation for _, conversation in rows]
    of_cases = ("policy", "content_hash", "label", "violates", "source")
    of_talks = ("whole", "prompt_ids", "completion_ids", "messages", "text", "text_is_exact")
    columns: dict[str, list[Any]] = {
        **{name: [getattr(case, name) for case in cases] for name in of_cases},
        **{name: [getattr(talk, name) for talk in talks] for name in of_talks},
        "split": [part] * len(cases),
        "has_reasoning": [case.reasoning is not None for case in cases],
        "weight": balanced(cases) if balance == "weights" else [1.0] * len(cases),
        "input_ids": [[*talk.prompt_ids, *talk.completion_ids] for talk in talks],
        "completion_mask": [
            [*[0] * len(talk.prompt_ids), *map(int, talk.learned)] for talk in talks
        ],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def side_counts(rows: Sequence[tuple[Case, Conversation]]) -> SideCounts:
    """How many there are of each kind."""
    violating = sum(case.violates for case, _ in rows)
    golden = sum(case.source == "golden" for case, _ in rows)
    return SideCounts(
        violating=violating,
        safe=len(rows) - violating,
        reviews=len(rows) - golden,
        golden=golden,
        with_reasoning=sum(case.reasoning is not None for case, _ in rows),
        whole=sum(conversation.whole for _, conversation in rows),
    )
