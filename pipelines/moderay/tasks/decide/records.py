"""What `moderay decide` says of what it did."""

from __future__ import annotations

from typing import Literal

from moderay.core.records import Record, RecordPart


class PolicyDecided(RecordPart):
    """One policy's labels, decided again."""

    threshold: float
    """On P(violates), now."""
    threshold_before: float
    """And before."""
    flagged: int
    """Rows that violate, now."""
    flagged_before: int
    """And before."""
    by_people: int
    """Rows that people decided, now."""
    by_people_before: int
    """And before."""
    reversed: int
    """Of those now, rows on which a judge had said the other side."""
    to_flagged: int
    """Rows that violate now and did not before, for whatever reason."""
    to_safe: int
    """Rows that do not violate now and did before."""
    withdrawn: int
    """Rows that only a person had judged, and whose answer no longer stands: they wait for a
    judge."""
    corrections: int
    """Contents that people decide under today's text, also those that are in no row."""
    void: int
    """Answers to another text of the policy, which count for nothing."""
    disputed: int
    """Contents on which as many people say one side as the other: the judges' verdict stands."""


class DecideRecord(Record):
    """What was decided again."""

    schema_version: Literal[1] = 1
    """Version of this form; with another one it means something else."""
    output: str
    """URL of the labels."""
    shards: int
    """Published shards."""
    rewritten: int
    """Of these, those in which something changed."""
    lost: tuple[str, ...] = ()
    """Shards that were left out: their label files are not those that were published."""
    rows: int
    """Label rows."""
    flagged: int
    """Rows that violate some policy."""
    flagged_before: int
    """And before."""
    policies: dict[str, PolicyDecided]
    """By policy."""
