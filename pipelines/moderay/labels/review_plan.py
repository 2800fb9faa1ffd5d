"""The rows that a prevalence plan drew, as they lie in an output for people to review."""

from __future__ import annotations

from typing import ClassVar, Literal

from moderay.core.errors import UserError
from moderay.core.records import Record, RecordPart
from moderay.core.storage import plain_errors, read
from moderay.labels.layout import Layout


class DrawnRow(RecordPart):
    """A row that a plan drew."""

    policy: str
    """Id of the policy."""
    content_hash: str
    """Of the content."""
    shard: str
    """Path of the label file."""
    row: int
    """Position in the input file."""
    stratum: int
    """Part of the rows it was drawn from, from 0."""


class DrawnRows(Record):
    """What of a prevalence plan a review needs."""

    remedy: ClassVar[str] = "make another plan"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    rows: tuple[DrawnRow, ...]
    """In the order in which they are to be reviewed."""


def queue_of_plan(layout: Layout, plan: str) -> tuple[DrawnRow, ...]:
    """The rows of a plan.

    Args:
        layout: Of the output.
        plan: Its id.

    Raises:
        UserError: There is no such plan.
        RecordRefusedError: It is damaged, or of another version.
    """
    path = layout.private(f"prevalence/{plan}.json")
    with plain_errors(layout.url):
        data = read(layout.fs, path)
    if data is None:
        raise UserError(f"--plan {plan}: there is no {path}; moderay prevalence --plan makes one")
    return DrawnRows.from_json(data, path).rows
