"""What a filter writes beside the rows: `filter.json`, and a marker for each shard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from moderay.core.records import Record, RecordPart
from moderay.labels.manifest_record import PolicyRecord, RunRecord, Selection
from moderay.labels.prevalence_records import PrevalenceEstimate

Fate = Literal["kept", "removed", "held"]
FATES: tuple[Fate, ...] = ("kept", "removed", "held")

# Rows by policy, and by label or status.
Reasons = Mapping[str, Mapping[str, int]]


class FilterRows(RecordPart):
    """How many rows went where; `kept`, `removed`, `held` and `unselected` add up to `input`."""

    input: int = 0
    """Of the input files."""
    kept: int = 0
    """The rule is true."""
    removed: int = 0
    """The rule is false."""
    held: int = 0
    """The rule is null: not judged, or not known."""
    unselected: int = 0
    """Not selected for judging; they lie where the rule's `unselected` says."""

    def __add__(self, other: FilterRows) -> FilterRows:
        """Of two sets of files."""
        names = FilterRows.model_fields
        return FilterRows(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def add_up(self) -> bool:
        """Whether each row of the input is in exactly one place."""
        return self.input == self.kept + self.removed + self.held + self.unselected


class RuleRecord(RecordPart):
    """What decided."""

    keep: str
    """Polars SQL over the verdict columns and those that are carried over."""
    thresholds: Mapping[str, float]
    """By policy, on P(violates)."""
    unselected: Fate | None
    """Where rows went that were not selected for judging; null where there are none."""
    verdicts: bool
    """Whether kept rows have the verdict columns."""


class TableChange(RecordPart):
    """The commit to a Delta table that kept rows are in."""

    table: str
    """URL of its folder."""
    version: int
    """The table's version with these rows."""
    before: int | None
    """The version before, to go back to; null where the table was made."""
    added: int
    """Files that were added."""
    removed: int
    """Files that were removed; earlier versions have them until the table is vacuumed."""


class FilterMarker(Record):
    """A shard that is filtered."""

    remedy: ClassVar[str] = "delete it: the same command then filters its shard again"
    indent: ClassVar[int | None] = None

    schema_version: Literal[1] = 1
    shard: str
    """The input file's path below its root."""
    rows: FilterRows
    removed: Reasons
    """Rows by policy and label."""
    held: Reasons
    """Rows by policy and status."""


class FilterCard(Record):
    """`filter.json`: what was filtered, by which rule, and what came of it."""

    remedy: ClassVar[str] = "write to a new folder"

    schema_version: Literal[1] = 1
    name: str
    """The job's."""
    labels: str
    """URL of the output with the labels."""
    complete: bool
    """Whether every shard of the labels' input is here."""
    rule: RuleRecord
    shards: int
    """Input files that were filtered."""
    files: tuple[str, ...]
    """The ends of their names, such as `.jsonl.gz`."""
    rows: FilterRows
    removed: Reasons
    """Rows by policy and label, the most frequent first; a row counts for each policy."""
    held: Reasons
    """Rows by policy and status, likewise."""
    missing: Mapping[str, str]
    """Shards that have no labels, and why."""
    failed: Mapping[str, str]
    """Shards that could not be filtered, and why."""
    gone: tuple[str, ...]
    """Shards that were filtered before and have no labels any more."""
    policies: Mapping[str, PolicyRecord]
    """With the thresholds that counted here."""
    selection: Selection
    """Which rows were judged."""
    run: RunRecord
    """The last run that judged."""
    table: TableChange | None = None
    """The Delta table that kept rows are in; null where they are in `kept/`."""
    prevalence: Mapping[str, PrevalenceEstimate] = {}
    """By policy: how much truly violates, by people's reviews of rows drawn from the labels."""
