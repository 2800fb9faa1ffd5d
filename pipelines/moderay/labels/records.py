"""What lies in an output beside the labels, file by file: markers, the lease, the footers' cache.

`shard_writer` fills the markers, `lease` the lease, `footer_cache` the cache, and everybody reads
them through these models. The manifest has a file of its own (`manifest_record`). JSON Schemas lie
in `jobs/`, since other programs read these files.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from moderay.core.records import Record, RecordPart
from moderay.labels.counts import PolicyCounts

# Rows by bin of P(violates): bin i holds i/1000 <= P < (i+1)/1000, and the last one P = 1 too. The
# edges are rounded to float32, as thresholds are where they are held against P.
Histogram = dict[int, int]


class ChosenRow(RecordPart):
    """A row to look at.

    Its content is not here: it is hostile, may be large, and lies at `row` of the input.
    """

    row: int
    """Position in the input file, from 0."""
    content_hash: str
    """As in the label file."""
    status: str
    """As in the label file."""
    label: str | None
    """As in the label file; null where there is no verdict."""
    probability: float | None
    """P(violates); null where there is none."""
    rationale: str | None = None
    """As in the label file, its beginning."""
    detail: str | None = None
    """As in the label file, its beginning."""
    decided_by: str | None = None
    """The judge that settled it, as in the label file."""


class ChosenRows(RecordPart):
    """A few rows of one policy: of each kind those with the smallest content hashes.

    A hash knows nothing of the verdict, so that they are a fair sample, the same one each time; and
    the smallest of all shards are among the smallest of each. A content is chosen once, by its
    first row.
    """

    flagged: tuple[ChosenRow, ...] = ()
    """Rows that violate."""
    borderline: tuple[ChosenRow, ...] = ()
    """Rows whose P(violates) is near the threshold."""
    failed: tuple[ChosenRow, ...] = ()
    """Rows without a verdict that another attempt may judge."""
    safe: tuple[ChosenRow, ...] = ()
    """Rows that do not violate. Markers of earlier versions show none."""


class LabelCounts(RecordPart):
    """Label rows, counted."""

    rows: int
    """Label rows."""
    flagged: int
    """Rows that violate some policy."""
    policies: dict[str, PolicyCounts]
    """By policy."""


class OfShard(Record):
    """Any marker, of labels or of a filter, as far as it says which shard it is of."""

    remedy: ClassVar[str] = "delete it: the same command then does its shard again"

    schema_version: int = 1
    """Version of this file's schema."""
    shard: str
    """Path of a file below the output."""


class WrittenFile(RecordPart):
    """A label file as it was written."""

    size: int
    """In bytes."""
    version: str
    """The store's etag, or the time of change."""
    digest: str
    """128-bit BLAKE2b of its bytes, hexadecimal: a copy has another time, but the same bytes."""


class ShardMarker(Record):
    """A shard is published: which file its labels are of, who judged them, and what they are."""

    remedy: ClassVar[str] = "delete it: the same command then judges its shard again"
    indent: ClassVar[int | None] = None

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    shard: str
    """Path of the label file below the output."""
    identity: tuple[str, int, str]
    """Of the input file: the shard's name, its size in bytes, and its etag or time."""
    source: str
    """URL of the input file."""
    whole: bool = False
    """Whether the input file is one row, and not a row a line (`input.text: file`)."""
    input_rows: int
    """Rows of the input file, those that were not selected included."""
    rows: int
    """Label rows."""
    label_file: WrittenFile
    """The file that it speaks of; of another one it says nothing."""
    flagged: int
    """Rows that violate some policy."""
    policies: dict[str, PolicyCounts]
    """Counts by policy."""
    new: LabelCounts | None = None
    """Of a shard that was published before: what the run judged anew. Null: all of it."""
    histograms: dict[str, Histogram] = {}
    """By policy: rows by bin of P(violates), 1,000 equal ones; bins without rows are left out. They
    add up to the rows with a P."""
    flagged_without_p: dict[str, int] = {}
    """By policy: rows that violate and have no P, so that no threshold changes that. Markers of
    earlier versions do not say it."""
    chosen: dict[str, ChosenRows] = {}
    """By policy: a few rows to look at."""
    judges: dict[str, dict[str, str]]
    """Judge keys by policy and judge."""
    thresholds: dict[str, float]
    """On P(violates), by policy."""
    run: int
    """The run that published it: an index into the manifest's `runs`."""


class LeaseRecord(Record):
    """A driver's claim on a part of an output: while it is there, the driver may write."""

    remedy: ClassVar[str] = "delete it once nobody writes this output"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    id: str
    """Of this content, like no other's."""
    run: int
    """The run's number, which grows with every driver."""
    part: tuple[int, int] = (0, 1)
    """(i, n): the slots that are i modulo n, without those that claims of lower numbers hold."""
    host: str
    """Name of the driver's machine."""
    machine: str
    """Where the process's number is its own: the host since it was booted, and its container."""
    pid: int
    """Number of the driver's process there."""


class CachedFooter(RecordPart):
    """What is known of one input file."""

    identity: tuple[str, int, str]
    """The shard's name, its size in bytes, and its etag or time."""
    schema_number: int
    """Which of the cache's schemas it has."""
    row_groups: tuple[int, ...]
    """Rows of each part that is read at once."""
    content_bytes: int
    """Uncompressed bytes of the columns that judging reads."""


class FooterCache(Record):
    """Counted rows of files without a footer.

    The version rises too when what is counted, or how row groups are cut, changes.
    """

    indent: ClassVar[int | None] = None

    schema_version: Literal[1] = 1
    """Version of this file's schema; with another one it is made again."""
    content: tuple[str, ...]
    """The columns whose bytes were counted."""
    schemas: tuple[str, ...]
    """Arrow IPC schemas, base64."""
    files: tuple[CachedFooter, ...]
    """The files."""
