"""`tune.json`: what was searched, what was chosen, and what is certified of it."""

from __future__ import annotations

from datetime import date
from typing import ClassVar, Literal

from pydantic import Field

from moderay.core.records import Record, RecordPart
from moderay.labels.manifest_record import PolicyRecord


class TuneGoalRecord(RecordPart):
    """What a cascade is to reach."""

    recall: float = Field(gt=0, lt=1)
    """Share of violations that are flagged."""
    precision: float = Field(gt=0, lt=1)
    """Share of the flagged that violate."""
    confidence: float = Field(gt=0, lt=1)
    """That both are reached where a cascade is certified: each is tested at this confidence."""


class TunePartRecord(RecordPart):
    """Distinct contents of one part of the gold."""

    contents: int
    """All."""
    violations: int
    """Those that violate."""


class CountsRecord(RecordPart):
    """What a cascade did on one part."""

    violations: int
    """Contents that violate."""
    flagged: int
    """Contents that were flagged."""
    hits: int
    """Contents that violate and were flagged."""
    tokens: float
    """Computed for a content, on average: prompts beyond the policy's own text, and output; the
    prompt of reason is none where glance has read it before.
    """


class CascadeRecord(RecordPart):
    """A cascade under one policy."""

    effort: Literal["low", "medium", "high"]
    """Of glance and reason."""
    cut_off: float | None
    """The screen's; null: no screen."""
    below: float | None
    """The lower edge of glance's band."""
    above: float | None
    """The upper one."""
    glance: bool
    """Whether it is asked."""
    reason: bool
    """Whether it is asked: else glance is the last judge."""
    threshold: float
    """On P(violates)."""
    select: CountsRecord
    """On the part on which it was chosen: too good, since it was chosen there."""


class CertifyRecord(RecordPart):
    """A cascade on the certify part."""

    cascade: CascadeRecord
    """Which."""
    chance: float
    """How likely it was to pass, as far as the select part told before."""
    certify: CountsRecord
    """What it did there."""
    recall_at_least: float
    """Lower end of a one-sided exact interval at the goal's confidence for itself."""
    precision_at_least: float
    """The same of precision; both lower ends together hold at 1 - 2 (1 - confidence)."""
    passed: bool
    """Whether both tests passed, and those of all before it."""


class TuneRecord(Record):
    """A search for the cheapest cascade, and its certificate.

    It holds for the judges that it names and for contents like the gold's; another policy text,
    model, prompt, band or threshold voids it.
    """

    remedy: ClassVar[str] = "tune again"

    schema_version: Literal[1] = 1
    policy: str
    """Id of the policy."""
    model: str
    """Who judges."""
    source: str
    """Where it is known from what violates, in words."""
    goal: TuneGoalRecord
    """What was to be reached."""
    parts: dict[Literal["train", "select", "certify"], TunePartRecord]
    """By name; contents lie in a part by their hash."""
    unreadable: int
    """Rows of the gold that were left out, since they are empty or no text."""
    tried: int
    """Cascades that were tried on the select part."""
    own: CascadeRecord
    """The job's own."""
    own_tokens: float
    """Of the job's own cascade, a content of the certify part."""
    frontier: list[CascadeRecord]
    """Of the cascades that reach the precision on the select part, the cheapest for each recall."""
    recall_needed: float
    """The power of the certificate: a cascade of this true recall passes its test in four of
    five draws of so many violations.
    """
    misses_allowed: int
    """Violations of the certify part that a cascade may miss."""
    tested: list[CertifyRecord]
    """In the order that was fixed before, the safest first, up to the first that failed."""
    chosen: int | None
    """Which of these is certified; null: none."""
    certificate: PolicyRecord | None
    """The policy and its judges that are certified."""
    certify_hash: str
    """Of the contents of the certify part."""
    looks: int
    """Searches that were certified on these contents, this one included. The confidence is that of
    the first; with more it is less.
    """
    created: date
    """Day, UTC."""
    moderay: str
    """Version."""
