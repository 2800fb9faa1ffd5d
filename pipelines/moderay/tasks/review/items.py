"""What a person is shown: a content under a policy, and why it was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from moderay.labels.review_records import Queue


class Key(NamedTuple):
    """What is asked.

    Attributes:
        policy: Id of the policy.
        content_hash: Of the content.
    """

    policy: str
    content_hash: str


@dataclass(frozen=True)
class Item:
    """One question to a person.

    Attributes:
        key: The question.
        shard: Label file that holds the content.
        row: Position in its input file.
        queue: Why it is asked.
        plan: Id of the prevalence plan that drew it.
    """

    key: Key
    shard: str
    row: int
    queue: Queue
    plan: str | None = None
