"""What files of a published policy hold: a text, cases, and what has no place in a policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moderay.core.errors import Problem

# A content, as golden.jsonl has it: a text, or turns with role and content.
Content = str | list[dict[str, str]]


@dataclass(frozen=True)
class FoundCase:
    """A case as it was found; whether it fits a golden set is seen later.

    Attributes:
        file: Where.
        line: Counts from 1.
        content: A text or turns.
        label: As `label_name` makes it.
        label_title: As it is written there.
        more: `boundary`, `language`, `source` and `note`, where they are said.
    """

    file: str
    line: int
    content: Content
    label: str
    label_title: str
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PolicyText:
    """A text that may be the policy's.

    Attributes:
        file: Where it was found.
        line: Where it begins.
        text: What the model is to read.
        front: Front matter above it.
    """

    file: str
    line: int
    text: str
    front: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What is in one file, or in several.

    Attributes:
        texts: Those that may be the policy's; each is there once.
        cases: In order.
        left: What has no place, in order.
        ordered: Whether labels come in an order that somebody gave them.
    """

    texts: Sequence[PolicyText] = ()
    cases: Sequence[FoundCase] = ()
    left: Sequence[Problem] = ()
    ordered: bool = False

    def __add__(self, other: Found) -> Found:
        """Both."""
        return Found(
            [*self.texts, *other.texts],
            [*self.cases, *other.cases],
            [*self.left, *other.left],
            self.ordered or other.ordered,
        )


def not_placed(file: str, line: int | None, what: str) -> Problem:
    """Something that has no place in the new policy."""
    return Problem(file, line, f"not placed: {what}")


def label_name(written: object) -> str:
    """A label's name for what somebody wrote; empty where it can be none.

    Truth values and numbers are 1 and 0; what a name may not have becomes `_`.
    """
    if isinstance(written, bool | int):
        return str(int(written))
    if isinstance(written, float) and written.is_integer():
        return str(int(written))
    if isinstance(written, list) and len(written) == 1:
        return label_name(written[0])
    if not isinstance(written, str):
        return ""
    if written.strip().lower() in ("true", "false"):
        return str(int(written.strip().lower() == "true"))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", written.strip()).strip("_")
