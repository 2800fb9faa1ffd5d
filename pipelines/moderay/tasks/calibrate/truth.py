"""Contents with a known truth, to calibrate on.

The truth is verdicts already paid for, or what people said in the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.config.policy import Policy
from moderay.core.errors import UserError
from moderay.core.hashing import number
from moderay.core.storage import RemoteFile, plain_errors, shown
from moderay.core.verdicts import CONTENT_HASH, ROW, Status, trace
from moderay.corpus.content import Content
from moderay.corpus.shard import Shard
from moderay.judges.cascade import Cascade
from moderay.labels.cascade_verdicts import columns_of_cascade, of_cascade
from moderay.labels.layout import Layout, published_markers
from moderay.labels.records import ShardMarker
from moderay.pipeline.check import Checked
from moderay.tasks.gold import Truth
from moderay.tasks.gold_parts import TRAIN_ALONE, part_of
from moderay.tasks.gold_source import gold_option, gold_reader_for_promises
from moderay.tasks.input_rows import contents_at


@dataclass(frozen=True)
class Labelled:
    """Contents of which it is known whether they violate.

    Attributes:
        texts: As the model reads them, large_string without nulls.
        violates: Bool, as long.
        judge_key: Of the judge that said so; None for people.
        source: Where it comes from, in words.
    """

    texts: pa.Array
    violates: np.ndarray
    judge_key: str | None
    source: str


def from_labels(
    checked: Checked, cascade: Cascade, url: str, most: int, train_part: bool = False
) -> Labelled:
    """What the last judge said of the job's input in an output.

    Args:
        checked: The job and its input.
        cascade: Of the policy.
        url: Of the output.
        most: Contents, roughly; they are chosen by hash.
        train_part: Whether only those of the part to train on are taken.

    Raises:
        UserError: There are no such labels, or an earlier judge than the last settled some of
            them: what the last one saw then is no fair sample of what a new judge before it will
            see. (What rules settle, they settle before.)
    """
    judged = judged_shards(checked, cascade, url)
    choice = _Choice(_share(judged.shards, most), train_part)
    parts = [
        part
        for shard in judged.shards
        for part in _of_shard(checked, shard, last_verdicts(judged, shard), choice)
    ]
    return _together(parts, judged.judge_key, choice.told(judged.source))


@dataclass(frozen=True)
class JudgedShards:
    """The shards of an input that an output has labels of, by one last judge.

    Attributes:
        shards: In the input's order.
        layout: Of the output.
        policy: The policy they are about.
        judge: Name of the last judge.
        judge_key: Its key.
    """

    shards: Sequence[Shard]
    layout: Layout
    policy: Policy
    judge: str
    judge_key: str

    @property
    def source(self) -> str:
        """Where the truth comes from, in words."""
        return f"verdicts of {self.judge} in {shown(self.layout.url)}"


def judged_shards(checked: Checked, cascade: Cascade, url: str) -> JudgedShards:
    """The shards of the job's input of which an output has verdicts of the last judge.

    Raises:
        UserError: There are none, or of several such judges.
    """
    layout = Layout(url, checked.job.storage)
    policy = cascade.policy
    judge = cascade.last.name
    published = _published(layout)
    shards = [shard for shard in checked.scan.shards if shard.name in published]
    keys = {published[shard.name].judges.get(policy.id, {}).get(judge) for shard in shards}
    if not shards or None in keys:
        raise UserError(
            f"{url} has no labels of policy {policy.id!r} by {judge} for this job's input"
        )
    if len(keys) > 1:
        raise UserError(
            f"{url} has labels of policy {policy.id!r} by several {judge} judges: run its job to "
            "the end first"
        )
    return JudgedShards(shards, layout, policy, judge, keys.pop() or "")


def _published(layout: Layout) -> dict[str, ShardMarker]:
    """Markers of an output, by shard."""
    with plain_errors(layout.url):
        return published_markers(layout)


def from_people(
    checked: Checked, policy: Policy, gold: str, most: int, train_part: bool = False
) -> Labelled:
    """What people said in the input, or in reviews of the output.

    Args:
        checked: The job and its input.
        policy: The policy it is about.
        gold: As `gold_source.gold_option` takes it.
        most: Contents, roughly; they are chosen by hash.
        train_part: Whether only those of the part to train on are taken.

    Raises:
        UserError: `gold` cannot be read off a shard, or there are no reviews.
    """
    shards = checked.scan.shards
    people = gold_reader_for_promises(checked, policy, gold_option(checked, gold), f"--gold {gold}")
    choice = _Choice(_share(shards, most), train_part)
    parts = [
        part
        for shard in shards
        for part in _of_shard(checked, shard, people.of(shard).truth, choice)
    ]
    return _together(parts, None, choice.told(people.source))


@dataclass(frozen=True)
class _Choice:
    """Which contents are taken.

    Attributes:
        share: Of them, by hash.
        train_part: Whether of the part to train on alone.
    """

    share: float
    train_part: bool

    def takes(self, content: Content) -> bool:
        return (
            content.status is Status.OK
            and number(f"calibrate:{content.hash}") < self.share * 2**63
            and not (self.train_part and part_of(content.hash or "") != "train")
        )

    def told(self, source: str) -> str:
        return f"{source}, {TRAIN_ALONE}" if self.train_part else source


def _share(shards: Sequence[Shard], most: int) -> float:
    return min(1.0, most / max(1, sum(shard.rows for shard in shards)))


Part = tuple[list[str], np.ndarray]


def last_verdicts(judged: JudgedShards, shard: Shard) -> Truth:
    """What the last judge said of a shard's rows.

    Raises:
        UserError: An earlier judge settled some of them.
    """
    layout, policy, judge = judged.layout, judged.policy, judged.judge
    with (
        plain_errors(layout.url),
        pq.ParquetFile(RemoteFile(layout.fs, layout.label(shard.name)), pre_buffer=True) as file,
    ):
        fields = columns_of_cascade(file, policy.id, ("status", "violates"))
        table = file.read(columns=[ROW.name, CONTENT_HASH.name, *fields])
    decisions = of_cascade(table.column(policy.id).combine_chunks())
    decided_by = trace(decisions, "decided_by")
    judges = pc.unique(decided_by.drop_null()).to_pylist()
    if earlier := [name for name in judges if name not in (judge, "rules")]:
        raise UserError(
            f"{layout.url} was made by a cascade in which {', '.join(earlier)} settled a part "
            f"before {judge}: calibrate on an output where {judge} judged everything, such as a "
            "sample of the input (input.sample)"
        )
    known = pc.and_(
        pc.fill_null(pc.equal(decisions.field("status"), Status.OK.value), False),
        pc.fill_null(pc.equal(decided_by, judge), False),
    )
    rows = table.column(ROW.name).filter(known)
    violates = decisions.field("violates").filter(known)
    return rows.to_numpy(), violates.to_numpy(zero_copy_only=False)


def _of_shard(checked: Checked, shard: Shard, truth: Truth, choice: _Choice) -> Iterator[Part]:
    """The contents of those rows, the chosen ones of them."""
    rows, violates = truth
    start = 0
    for read in contents_at(checked, shard, rows):
        chosen = [i for i, content in enumerate(read) if choice.takes(content)]
        yield [read[i].text for i in chosen], violates[start : start + len(read)][chosen]
        start += len(read)


def _together(parts: Sequence[Part], judge_key: str | None, source: str) -> Labelled:
    texts = pa.array([text for part, _ in parts for text in part], pa.large_string())
    return Labelled(
        texts,
        np.concatenate([np.empty(0, bool), *[violates for _, violates in parts]]),
        judge_key,
        source,
    )
