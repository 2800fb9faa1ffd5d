"""What `diff --json` prints, for other programs."""

from __future__ import annotations

from typing import ClassVar, Literal

from moderay.core.records import Record, RecordPart
from moderay.tasks.evaluate.records import EstimateRecord


class LabelFlip(RecordPart):
    """Rows that went from one label to another."""

    a: str
    """The label in output a."""
    b: str
    """The label in output b."""
    rows: int
    """How many went so."""


class FigureDiff(RecordPart):
    """One figure of both outputs beside what people said."""

    a: float
    """Of output a."""
    b: float
    """Of output b."""
    gained: EstimateRecord
    """What b has more, with a paired bootstrap's interval."""


class GoldDiff(RecordPart):
    """Both outputs beside what people said, each content counted once."""

    contents: int
    """Different contents that both judged and of which people said something."""
    right_a: int
    """Of which output a alone is right."""
    right_b: int
    """Of which output b alone is right."""
    p_value: float
    """McNemar's exact test of whether one output is right more often than the other."""
    figures: dict[str, FigureDiff]
    """By name; without those that are not defined."""


class PolicyDiffRecord(RecordPart):
    """What changed under one policy; of rows that both outputs judged, where nothing else is said.

    To violating is from safe in output a to violating in output b; to safe, the other way round.
    """

    judged: int
    """Rows that both judged."""
    not_judged_a: int
    """Rows without a verdict in output a alone."""
    not_judged_b: int
    """Rows without a verdict in output b alone."""
    not_judged_both: int
    """Rows without a verdict in either."""
    violating_a: int
    """Rows that violate in output a."""
    violating_b: int
    """Rows that violate in output b."""
    to_violating: int
    """Rows that violate in output b alone."""
    to_safe: int
    """Rows that violate in output a alone."""
    labels: list[LabelFlip]
    """By both labels, the commonest first."""
    contents: int
    """Different contents among the judged rows: of these are the p value and the figures a million,
    since copies are no further evidence."""
    p_value: float
    """McNemar's exact test, two-sided: how often chance alone makes the directions as unequal."""
    per_million: dict[Literal["to_violating", "to_safe", "flipped"], EstimateRecord]
    """Flips in a million different contents; empty where none was judged."""
    gold: GoldDiff | None = None
    """Where a column of what people said was named."""


class LeftOut(RecordPart):
    """What is not compared, since the two do not both hold it."""

    shards_a: int = 0
    """Shards of output a alone."""
    shards_b: int = 0
    """Shards of output b alone."""
    rows_a: int = 0
    """Rows of output a alone, in shards that both hold."""
    rows_b: int = 0
    """Rows of output b alone, in shards that both hold."""
    other_content: int = 0
    """Rows that have another content in output b."""
    policies_a: list[str] = []
    """Policies of output a alone."""
    policies_b: list[str] = []
    """Policies of output b alone."""


class DiffRecord(Record):
    """Two outputs of the same input beside each other."""

    remedy: ClassVar[str] = "compare again"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    a: str
    """URL of the output that is compared with."""
    b: str
    """URL of the other one."""
    judges_known: bool
    """Whether both have a manifest, which says who judged."""
    differences: list[str]
    """Between their policies and judges, in words."""
    only_thresholds: bool
    """Whether nothing but thresholds differs: then no row was judged otherwise by design."""
    rows: int
    """Rows that are compared."""
    confidence: float = 0.95
    """Of the intervals."""
    policies: dict[str, PolicyDiffRecord]
    """By id."""
    left_out: LeftOut
    """What is not compared."""
