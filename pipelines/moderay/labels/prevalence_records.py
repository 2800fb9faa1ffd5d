"""What lies in `_moderay/prevalence/` of an output: plans of reviews, and what came of them."""

from __future__ import annotations

from typing import ClassVar, Literal

from moderay.core.records import Record, RecordPart


class PlannedRow(RecordPart):
    """A row that a plan drew."""

    policy: str
    """Id of the policy."""
    content_hash: str
    """Of the content, as in the label file."""
    shard: str
    """Label file, as its path below the output."""
    row: int
    """Row there, as in the column `row`."""
    stratum: int
    """Which of the plan's strata it was drawn from, from 0."""


class PlannedStratum(RecordPart):
    """Rows that are alike to the model."""

    removed: bool
    """Whether the model's verdict is that they violate; else they are kept."""
    low: float
    """P(violates) from which they go."""
    high: float
    """P(violates) up to which they go."""
    rows: int
    """How many there are."""
    probability: float
    """Their mean P; of rows without one, 0 where they are kept and 1 where not."""
    reviews: int
    """How many of them were drawn."""


class PrevalencePlan(Record):
    """Rows drawn from an output to be reviewed under one policy, and how they were drawn.

    Never overwritten: another question is another plan.
    """

    remedy: ClassVar[str] = "delete it and plan again: answers to its rows then count no more"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    id: str
    """16 hexadecimal digits, from all that decides which rows are drawn."""
    created: str
    """When, in UTC, ISO 8601."""
    policy: str
    """Id of the policy."""
    policy_hash: str
    """Of the text and the labels that reviews are to be given under."""
    labels: dict[str, bool]
    """Whether each label of the policy violates."""
    threshold: float
    """On P(violates), which parted the kept from the removed."""
    judged: int
    """Rows with a verdict of the model, from which it drew."""
    unjudged: int
    """Rows without one: they are in no stratum, and no figure speaks of them."""
    width: float | None
    """Of the interval that was asked for; null where a number of reviews was."""
    expected_width: float
    """Of the interval of all rows, if the model's P are right."""
    confidence: float
    """Of the intervals."""
    strata: tuple[PlannedStratum, ...]
    """Kept ones first, then removed ones, each by P."""
    rows: tuple[PlannedRow, ...]
    """The rows to review, in this order: any beginning of it is spread over the strata alike."""


class ReviewedStratum(PlannedStratum):
    """A stratum, and what people said of its rows."""

    reviewed: int
    """Drawn rows that have an answer."""
    hits: int
    """Of these, rows that violate."""


class ShareEstimate(RecordPart):
    """The share of rows that truly violates, estimated."""

    rows: int
    """Rows that it is a share of."""
    reviews: int
    """Drawn rows among these that have an answer."""
    hits: int
    """Of these, rows that violate."""
    share: float
    """The stratified mean."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    effective: float
    """Reviews drawn from all rows alike that would say as much; `reviews` where no stratum
    varies."""
    classical: tuple[float, float]
    """The interval of Clopper and Pearson for as many reviews drawn from all rows alike, had they
    found this share."""


class LeftOut(RecordPart):
    """Answers that count for nothing here, each by the first reason that holds."""

    picked: int = 0
    """Given to rows that somebody picked, and no plan drew."""
    other_plan: int = 0
    """Drawn by another plan."""
    not_drawn: int = 0
    """Name this plan, which did not draw their content."""
    other_text: int = 0
    """Given under another text of the policy."""


class PrevalenceEstimate(Record):
    """What the answers to a plan say. Never overwritten: more answers make another one."""

    remedy: ClassVar[str] = "delete it: `moderay prevalence` makes it again"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    plan: str
    """Id of the plan."""
    planned: str
    """When the plan was made: the figures are of the labels of then."""
    created: str
    """When this was estimated, in UTC, ISO 8601."""
    policy: str
    """Id of the policy."""
    policy_hash: str
    """Of the text and the labels that people were asked under."""
    threshold: float
    """On P(violates), which parted the kept from the removed."""
    confidence: float
    """Of the intervals."""
    judged: int
    """Rows with a verdict, of which the figures are."""
    unjudged: int
    """Rows without one, of which they are not."""
    corpus: ShareEstimate | None
    """Of all rows with a verdict; null while a stratum has no answer."""
    kept: ShareEstimate | None
    """Of the rows that the model's verdict keeps: what was missed. Null where there are none."""
    removed: ShareEstimate | None
    """Of the rows that the model's verdict removes: the precision. Null where there are none."""
    strata: tuple[ReviewedStratum, ...]
    """As planned, with the answers."""
    unanswered: int
    """Drawn rows that nobody was asked about yet."""
    skipped: int
    """Drawn rows of which people could not say; the figures take them to be like the others."""
    disputed: int
    """Drawn rows on which as many people say one side as the other; likewise."""
    assisted: int
    """Drawn rows whose answer somebody gave after seeing the model's."""
    reviewers: tuple[str, ...]
    """Who answered."""
    left_out: LeftOut
    """Answers that do not count."""
