"""What lies beside exported conversations: `sft.json`."""

from __future__ import annotations

from typing import Literal

from moderay.core.records import Record, RecordPart
from moderay.labels.manifest_record import ModelRecord


class SideCounts(RecordPart):
    """Cases of a policy in one part."""

    violating: int
    """Cases whose label violates."""
    safe: int
    """Cases whose label does not."""
    reviews: int
    """Of both, those that reviews decided."""
    golden: int
    """Of both, golden cases."""
    with_reasoning: int
    """Of both, those with the reasoning of a verdict that people confirmed."""
    whole: int
    """Of both, those whose answer is there to its end."""


class ExportedPolicy(RecordPart):
    """A policy, and its cases."""

    title: str
    """For people."""
    version: int
    """Of the policy file."""
    instructions: str
    """Its text with the answer format, as the model reads it."""
    labels: dict[str, bool]
    """Whether each label violates, mildest first."""
    golden_cases: int | None
    """Cases of its golden set; null where nobody named its folder."""
    parts: dict[str, SideCounts]
    """Cases by part."""


class SftRecord(Record):
    """An export of training conversations."""

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    made: str
    """When, UTC, ISO 8601."""
    moderay: str
    """Version that made it."""
    output: str
    """URL of the labels."""
    name: str
    """The job's."""
    model: ModelRecord | None
    """The model that labelled."""
    vocabulary: str
    """Whose token ids these are: harmony's own, or a checkpoint's."""
    effort: Literal["low", "medium", "high"]
    """How much the prompts ask to reason."""
    prompt_format: int
    """Version of the prompts' layout."""
    shares: dict[str, float]
    """Of the parts, as they were asked for."""
    balance: Literal["weights", "sample", "none"]
    """How the sides of a policy were made to count the same."""
    golden: Literal["test", "train", "none"]
    """What became of golden cases."""
    rows: dict[str, int]
    """Conversations by part."""
    left_out: dict[str, int]
    """Contents that people decided and that are not here, by reason: void, disputed, missing,
    empty, long, golden (like a golden case), sampled (to balance)."""
    policies: dict[str, ExportedPolicy]
    """The policies, by id."""
