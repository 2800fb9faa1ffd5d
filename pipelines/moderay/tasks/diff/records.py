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


class ContradictionRecord(RecordPart):
    """How often verdicts on one content are not the same."""

    rows: int
    """Rows that were not judged alike each time, copies included."""
    contents: EstimateRecord | None
    """Of a million different contents, those that are not judged alike each time: it grows with the
    number of repeats. None where nothing was judged each time."""
    pairs: EstimateRecord | None
    """Of a million pairs of verdicts on one content, those that differ: what two versions that are
    the same differ by, whatever the number of repeats."""


class PolicyRepeatRecord(RecordPart):
    """How often the judges of one policy contradict themselves.

    Of rows that were judged each time, where nothing else is said.
    """

    judged: int
    """Rows that were judged each time."""
    not_judged: int
    """Rows without a verdict at least once."""
    never_judged: int
    """Rows without a verdict each time, which are among these."""
    kept: int
    """Rows whose first verdict was there already: in the job's output, or one that it reuses."""
    contents: int
    """Different contents among the judged rows, of which the figures are: copies are no further
    evidence."""
    violates: ContradictionRecord
    """Of whether it violates."""
    label: ContradictionRecord
    """Of the label."""


Seeds = Literal["sent", "no_effect", "not_sent"]


class FloorRecord(RecordPart):
    """What either version contradicts itself: what their flips must rise above."""

    repeats: int
    """Times each version judged each row."""
    seeds: Seeds
    """As in what `diff --repeat` prints without another version."""
    a: PolicyRepeatRecord
    """Of the job's version."""
    b: PolicyRepeatRecord
    """Of the other one."""
    contents: int
    """Different contents that both judged each time: of these is the p value."""
    p_value: float
    """Permutation test within contents, exact and one-sided: how often verdicts of versions that
    are the same differ by as much; not told below 1e-9."""


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
    floor: FloorRecord | None = None
    """Where both judged each row several times; all other figures are of the first time."""


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


class RepeatRecord(Record):
    """The same judges on the same rows several times."""

    remedy: ClassVar[str] = "judge again"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    name: str
    """Of the job."""
    repeats: int
    """Times each row was judged."""
    seeds: Seeds
    """What makes the repeats differ. sent: each has seeds of its own. no_effect: nothing is drawn,
    at temperature 0 or without the judge reason, so that the figures say nothing. not_sent: an
    endpoint is not sent any, and draws as its server is set up."""
    rows: int
    """Rows of the sample."""
    confidence: float = 0.95
    """Of the intervals."""
    policies: dict[str, PolicyRepeatRecord]
    """By id."""
