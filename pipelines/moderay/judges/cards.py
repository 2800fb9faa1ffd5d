"""Cards: what was calibrated, on what, and what it promises."""

from __future__ import annotations

from datetime import date
from typing import ClassVar, Literal

from pydantic import Field

from moderay.config.policy import POLICY_ID
from moderay.core.records import Record, RecordPart

CARD = "card.json"


class Features(RecordPart):
    """How a text becomes n-grams; a screen works only with those it was made with."""

    smallest: int = 3
    """Bytes of the smallest n-grams."""
    largest: int = 5
    """Bytes of the largest n-grams."""
    bits: int = Field(default=18, ge=1, le=30)
    """There are 2 ** bits buckets."""
    version: int = 1
    """Goes up when folding or hash change."""


FEATURES = Features()


class Teacher(RecordPart):
    """Whom a screen or a band imitates: a policy at a threshold, as labelled by a judge."""

    policy: str = Field(pattern=f"^{POLICY_ID}$")
    """The policy's id."""
    threshold: float = Field(gt=0, le=1)
    """On P(violates)."""
    policy_key: str
    """Hash of the policy's text and labels."""
    judge_key: str | None = None
    """Of the judge; null: people labelled."""
    source: str
    """Where the labels came from, in words."""


class Point(RecordPart):
    """What a cut-off does on the held-out contents."""

    cut_off: float
    """A score, in log-odds."""
    settled: float = Field(ge=0, le=1)
    """Share of all contents that it settles."""
    missed: float = Field(ge=0, le=1)
    """Share of violations that it misses."""


class Card(Record):
    """What a screen is, and what it promises.

    With `confidence`, it misses at most the share `max_miss` of violations. Counts are of distinct
    contents.
    """

    remedy: ClassVar[str] = "train the screen again: moderay calibrate"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    teacher: Teacher
    """Whom it imitates."""
    rows: int
    """Contents."""
    violations: int
    """Of these, those that violate."""
    longest: int
    """Bytes of the longest content."""
    held_out_rows: int
    """Contents that were held out of the training; where it is cross-fitted all, each out of that
    of one model."""
    held_out_violations: int
    """Of these, those that violate."""
    max_miss: float = Field(gt=0, lt=1)
    """The share of violations that it may miss."""
    confidence: float = Field(gt=0, lt=1)
    """How sure that is."""
    # The judge key is the hash of the card: what is left out keeps that of a screen from before.
    promise: Literal["exact", "estimated"] = Field(
        default="exact", exclude_if=lambda promise: promise == "exact"
    )
    """exact: a theorem says that it holds, for contents exchangeable with these. estimated: none
    does, since it is cross-fitted; the audit watches it. Left out where exact."""
    folds: int | None = Field(default=None, ge=2, exclude_if=lambda folds: folds is None)
    """The models that it is the mean of, where it is cross-fitted. Left out where it is not."""
    misses_allowed: int = Field(ge=0)
    """Held-out violations whose score is below the cut-off."""
    cut_off: float
    """A score, in log-odds: contents below it are settled as safe."""
    settled: float = Field(ge=0, le=1)
    """Share of contents that it should settle, from those held out."""
    curve: tuple[Point, ...]
    """What other cut-offs would do."""
    scale: float = Field(gt=0)
    """Turns sums of weights into scores, with `intercept`."""
    intercept: float
    """Turns sums of weights into scores, with `scale`."""
    weights: str
    """Digest of the weights' file."""
    features: Features
    """What it reads of a text."""
    created: date
    """Day, UTC."""
    moderay: str
    """Version."""
    sklearn: str
    """Version."""


class BandCard(Record):
    """A calibrated band.

    With `confidence`, glance misses at most the share `max_miss` of violations below `below`.
    """

    remedy: ClassVar[str] = "calibrate it again"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    teacher: Teacher
    """Whom it imitates."""
    key: str
    """Judge key of the glance that gave the probabilities."""
    below: float = Field(ge=0, le=1)
    """P(violates) below which glance settles."""
    rows: int
    """Contents in the sample."""
    violations: int
    """Of these, those that violate."""
    max_miss: float = Field(gt=0, lt=1)
    """The share of violations that it may miss."""
    confidence: float = Field(gt=0, lt=1)
    """How sure that is."""
    misses_allowed: int = Field(ge=0)
    """Violations of the sample that lie below `below`."""
    settled: float = Field(ge=0, le=1)
    """Share of the sample that lies below `below`."""
    created: date
    """Day, UTC."""
