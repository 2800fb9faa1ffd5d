"""What people say of labelled contents, as it lies on storage.

A review is one answer of one person. It is never overwritten: who changes their mind answers again,
and who takes an answer back says so in a review of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar, Literal

from pydantic import Field

from moderay.core.hashing import digest
from moderay.core.records import Record

# Why a person was shown a content.
Queue = Literal[
    "borderline",
    "flagged",
    "safe",
    "disagreement",
    "audit",
    "gold",
    "prevalence",
    "import",
    "api",
]


class Review(Record):
    """One answer of a person."""

    remedy: ClassVar[str] = "delete it: this answer then has to be given again"
    indent: ClassVar[int | None] = None

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    """Of this answer, like no other's: 32 hexadecimal digits, random."""
    session: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Of the sitting that it was given in: 16 hexadecimal digits, random."""
    reviewer: str = Field(min_length=1)
    """Who gave it."""
    time: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$")
    """When, in UTC with microseconds, so that times are ordered as texts are."""
    policy: str
    """Id of the policy."""
    policy_hash: str
    """Of the text and the labels that it was given under; another text voids it."""
    content_hash: str
    """Of the content, as in the label file: the answer holds wherever this content stands."""
    shard: str
    """Label file in which the person saw it."""
    row: int
    """Row there, as in the column `row`."""
    label: str | None
    """One of the policy's labels. Null: skipped, the person cannot say; or `withdraws` is given."""
    note: str | None = None
    """Why, in the person's words."""
    queue: Queue
    """Why the person was shown the content."""
    plan: str | None = None
    """Id of the prevalence plan that drew the row: without one it counts for no prevalence."""
    assisted: bool = False
    """Whether the model's verdict was shown before the answer."""
    withdraws: str | None = None
    """Id of an answer that is taken back by this file."""


def review_id() -> str:
    """An id for a review."""
    return uuid.uuid4().hex


def session_id() -> str:
    """An id for a sitting."""
    return uuid.uuid4().hex[:16]


def review_time(time: datetime | None = None) -> str:
    """A time as reviews hold it; now, where none is given.

    Args:
        time: With its zone.
    """
    return (time or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


def policy_hash(text: str, labels: Mapping[str, bool]) -> str:
    """Hash of what a person is asked under a policy.

    Args:
        text: The policy's text as the model reads it, and as the manifest has it.
        labels: Whether each label violates, by name, mildest first.
    """
    return digest({"text": text, "labels": list(labels.items())})
