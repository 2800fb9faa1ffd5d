"""What `moderay explain --json` prints: all that is known of a row's verdicts.

Its parts are the records and columns that the output holds, whole: what is added to one of them is
told here too.
"""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from moderay.core.records import Record, RecordPart
from moderay.labels.counts import PolicyCounts
from moderay.labels.manifest_record import (
    JudgeRecord,
    JudgeReport,
    PolicyRecord,
    RunOrigin,
    RunRecord,
    RunStatus,
    Selection,
)
from moderay.labels.records import WrittenFile


class AuditPart(RecordPart):
    """What an earlier judge said of a row that the last one judged too."""

    judge: str | None
    """Which judge."""
    violates: bool | None
    """What it said, under the row's threshold."""
    probability: float | None
    """Its P(violates); null where it gives none."""


class OverruledPart(RecordPart):
    """The verdict of the judges where a person decided, whether otherwise or the same."""

    decided_by: str | None = None
    """The judge whose verdict it was."""
    status: str | None = None
    """ok, or why it had none."""
    violates: bool | None = None
    """What it said."""
    label: str | None = None
    """Its label."""
    probability: float | None = None
    """Its P(violates)."""
    scores: dict[str, float | None] | None = None
    """Its P of each label."""
    rationale: str | None = None
    """Its rationale."""


class TracePart(RecordPart):
    """How the verdict came about."""

    decided_by: str | None
    """rules, screen, glance, reason or human."""
    origin: str | None
    """judged; duplicate: taken from another row of the run; reused: from an earlier run."""
    forced: bool | None
    """Whether the budget ran out or the answer did not parse, and a label was asked for."""
    answer: str | None
    """The label that the model wrote, where it is another one."""
    audit: AuditPart | None
    """What an earlier judge said of an audited row."""
    run: int | None
    """The run that wrote it: its number in the manifest."""
    windows: int | None
    """Pieces in which the content was judged."""
    prompt_tokens: int | None
    """Tokens of the prompts, over all windows."""
    output_tokens: int | None
    """Tokens that the model wrote."""
    detail: str | None
    """What happened, for a status other than ok."""
    overruled: OverruledPart | None = None
    """What the judges said, where a person decided."""


class DecisionPart(RecordPart):
    """A row's verdict under one policy, as its label file has it."""

    status: str
    """ok, or why there is no verdict."""
    violates: bool | None
    """Whether it violates; null where there is no verdict."""
    label: str | None
    """The policy's label."""
    probability: float | None
    """P(violates); null where there is none."""
    scores: dict[str, float | None] | None
    """P of each label."""
    rationale: str | None
    """Why, in the model's words; of rules, the rule's id; of a person, the note."""
    reasoning: str | None
    """What the model reasoned before it answered, where it is stored."""
    trace: TracePart
    """How it came about."""


class LabelPart(RecordPart):
    """A label that the policy knows."""

    label: str
    """Its name."""
    title: str | None
    """What it means; null where the manifest does not say it."""
    violates: bool
    """Whether content with it violates the policy."""


class ReviewPart(RecordPart):
    """What a person said of this content under this policy."""

    id: str
    """Of the answer."""
    session: str
    """Of the sitting that it was given in."""
    reviewer: str
    """Who."""
    time: str
    """When, UTC."""
    policy_hash: str
    """Of the text and labels that it was given under."""
    shard: str
    """Label file in which the content was shown."""
    row: int
    """Row there."""
    label: str | None
    """What they said; null where they could not say, or took an answer back."""
    note: str | None
    """Why, in their words."""
    queue: str
    """Why they were shown the content."""
    plan: str | None
    """Of a prevalence plan that drew the row: its id."""
    assisted: bool
    """Whether they saw the model's verdict before they answered."""
    withdraws: str | None
    """The answer that is taken back by this one."""
    standing: bool
    """Whether it counts: neither taken back nor replaced by a later one of theirs, and no skip."""
    same_policy: bool | None
    """Whether it was given under the text and labels that the row was judged by, which else void
    it; null where that is not known."""


class GoldenPart(RecordPart):
    """A labelled example of the policy that is like this content."""

    line: int
    """Its line in golden.jsonl."""
    likeness: float
    """Share of runs of characters that both have in common (Jaccard): 1 is the same text."""
    label: str
    """Its right label."""
    violates: bool
    """Whether that violates the policy."""
    boundary: bool
    """Whether the case is meant to be hard."""
    content: str
    """The example, its beginning."""
    language: str | None = None
    """Its language."""
    source: str | None = None
    """Where it is from."""
    note: str | None = None
    """Why its label is right."""


class GoldenSetPart(RecordPart):
    """What the policy's golden set says of such cases."""

    searched: bool
    """Whether there was a golden set to look into."""
    why_not: str = ""
    """Why there was none."""
    cases: int = 0
    """Labelled examples in it."""
    same_policy: bool | None = None
    """Whether the policy's folder holds the text and labels that the row was judged by."""
    nearest: tuple[GoldenPart, ...] = ()
    """The examples most like this content, the most alike first."""


class OriginPart(RecordPart):
    """Where a verdict comes from that was taken from an earlier run."""

    output: str | None
    """The output that it was taken from; null: this one, by an earlier run."""
    certain: bool
    """Whether it is known to be this output and run; else it is one of those that are named."""
    decision: DecisionPart | None = None
    """The verdict as it stands there, where that output can still be read."""
    policy: PolicyRecord | None = None
    """The policy as it was there."""
    runs: tuple[RunOrigin, ...] = ()
    """The run that judged it; several where it is not known which."""


class JudgedPart(RecordPart):
    """Everything about a row's verdict under one policy."""

    decision: DecisionPart
    """The verdict."""
    threshold: float | None
    """On P(violates), under which this row was decided."""
    policy: PolicyRecord
    """The policy as it was judged."""
    labels: tuple[LabelPart, ...]
    """The policy's labels, mildest first."""
    judge: JudgeRecord | None
    """The judge that decided, or that a person overruled, with all that can change what it says;
    null where none did."""
    rule: dict[str, JsonValue] | None = None
    """The rule that decided, where rules did."""
    judge_keys: dict[str, str] = {}
    """By judge: hash of all that can change its verdict."""
    run: RunRecord | None
    """The run that wrote the verdict."""
    origin: tuple[OriginPart, ...] = ()
    """Of a reused verdict: where it was taken from."""
    reviews: tuple[ReviewPart, ...] = ()
    """What people said of this content, in order of time."""
    golden: GoldenSetPart
    """What the golden set says of such cases."""
    counts: PolicyCounts | None = None
    """How many rows of the output had which verdict under this policy."""
    judge_report: JudgeReport | None = None
    """What audits say of the judge that decided."""


class RowPart(RecordPart):
    """Which content it is about, and where it lies."""

    shard: str
    """The label file, below the output."""
    row: int
    """Its position in the input file, from 0."""
    content_hash: str | None
    """Of the content as it was judged; null where it could not be hashed."""
    content: str | None
    """As the model read it; null where it is no longer to be had."""
    content_missing: str = ""
    """Why it is not to be had."""
    flagged: bool | None
    """Whether it violates some policy; null where that is not known."""
    carried: dict[str, JsonValue] = {}
    """The input's columns that the label file carries, the content apart."""
    source: str
    """URL of the input file."""
    identity: tuple[str, int, str]
    """Of the input file when it was judged: name, bytes, and its etag or time."""
    whole: bool = False
    """Whether the input file is one row, and not a row a line (`input.text: file`)."""
    input_rows: int
    """Rows of the input file."""
    label_file: WrittenFile
    """The label file as it was published."""
    published_by: int
    """The run that published it."""


class OutputPart(RecordPart):
    """Which labels it is taken from."""

    url: str
    """Of the output."""
    name: str
    """The job's."""
    manifest: str
    """Id of the manifest."""
    status: RunStatus
    """Of the runs."""
    complete: bool
    """Whether the labels of the whole input were there."""
    selection: Selection
    """Which of the input is judged."""
    cascade_key: str
    """Hash of all policies' cascades."""
    input_shards: int
    """Input files."""
    shards: int
    """Published shards."""
    input_rows: int
    """Rows of their input files."""
    rows: int
    """Label rows."""
    flagged: int
    """Of these, rows that violate some policy."""
    alarms: tuple[str, ...] = ()
    """What somebody should look at."""
    corrections: str = ""
    """Hash of what people's answers decided when all labels were last made to hold it; empty where
    nobody has answered."""


class Explanation(Record):
    """A statement of reasons for one row's verdicts."""

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    made: str
    """When, UTC, ISO 8601."""
    moderay: str
    """Version that made it."""
    row: RowPart
    """The content."""
    verdicts: dict[str, JudgedPart]
    """By policy."""
    output: OutputPart
    """The labels."""
