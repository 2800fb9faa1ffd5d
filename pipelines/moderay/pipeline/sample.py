"""A part of the rows that are left, prepared as a run would do it, and counted: of `moderay plan`.

Units are drawn in a random order that is the same each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from moderay.config.job import Windows
from moderay.core.verdicts import CONTENT_HASH, Origin, structs, valid
from moderay.corpus.content import windows
from moderay.corpus.shard import shard_errors
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.judges.cascade import Cascade
from moderay.labels.earlier_outputs import LabelFile, own_label_files
from moderay.labels.partition import File, Partition, hash_keys
from moderay.labels.reuse import ReadAlong, entries
from moderay.pipeline.check import Checked
from moderay.pipeline.plan import Plan
from moderay.pipeline.stages import prepare
from moderay.pipeline.stages.spans import read_span, spans


@dataclass(frozen=True)
class SampleCounts:
    """Of one policy, what the rows that were read come to.

    Attributes:
        settled: Verdicts that cost nothing on an engine, by where they come from: `reused`,
            `duplicates`, and the judges on columns.
        contents: Distinct contents that an engine has to judge.
        audited: Those of them that an earlier judge settled, and the last judges too.
        windows: Windows of these contents.
        tokens: Tokens of these windows, prompts apart.
    """

    settled: Mapping[str, int]
    contents: int
    audited: int
    windows: int
    tokens: int


@dataclass(frozen=True)
class Sample:
    """What was read of the rows that are left.

    Attributes:
        rows: Rows read.
        selected: Those of them that where and sample leave.
        distinct: Distinct contents of the selected rows.
        policies: By policy id.
    """

    rows: int
    selected: int
    distinct: int
    policies: Mapping[str, SampleCounts]


def read_sample(checked: Checked, plan: Plan, most: int) -> Sample:
    """Read and count whole units until there are `most` rows, or none is left."""
    reusable = _reusable_contents(checked, plan)
    tallies = [_Tally(cascade, checked.job.windows) for cascade in checked.cascades]
    distinct: set[int] = set()
    rows = 0
    selected = 0
    for read, unit in _units(checked, plan, most):
        column = structs(unit.column(CONTENT_HASH.name))
        hashed = np.flatnonzero(valid(column))
        keys = np.zeros(len(unit), np.uint64)
        keys[hashed] = hash_keys(column.take(pa.array(hashed)))
        hits = reusable.find(keys[hashed])
        for bit, tally in enumerate(tallies):
            is_reusable = np.zeros(len(unit), bool)
            # A bit of the mask for each policy, in the order of the cascades.
            is_reusable[hashed[hits.at]] = (hits.mask >> np.uint64(bit) & np.uint64(1)).astype(bool)
            tally.add(unit, keys, is_reusable)
        distinct |= set(keys[hashed].tolist())
        rows += read
        selected += len(unit)
    policies = {tally.cascade.policy.id: tally.counts() for tally in tallies}
    return Sample(rows, selected, len(distinct), policies)


def _units(checked: Checked, plan: Plan, most: int) -> Iterator[tuple[int, pa.Table]]:
    """Prepared units, in any order, and how many rows each is of."""
    job = checked.job
    vocab = vocabulary(engine_spec(job, gpus=0).vocabulary_source)
    policies = [cascade.policy.id for cascade in checked.cascades]
    todo = [
        (work, span) for work in plan.todo for span in spans(work.shard, work.missing, job.unit)
    ]
    read = 0
    for at in np.random.default_rng(0).permutation(len(todo)):
        work, span = todo[at]
        earlier = ReadAlong(plan.outputs, work.earlier, policies) if work.earlier else None
        with shard_errors(work.shard):
            for (start, end), unit in read_span(span, job, checked.cascades, vocab, earlier):
                yield end - start, unit
                read += end - start
                if read >= most:
                    return


def _reusable_contents(checked: Checked, plan: Plan) -> Partition:
    """Contents with verdicts in other label files, of this output and of those that are reused."""
    contents = Partition()
    policies = [cascade.policy.id for cascade in checked.cascades]
    files, _ = own_label_files(plan.layout, plan.known, checked.cascades)
    files += [
        LabelFile(number, shard, usable)
        for number, output in enumerate(checked.reused, start=1)
        for shard, usable in output.shards.items()
    ]
    for file in files:
        for source, hashes, rows, masks in entries(plan.outputs[file.output], file, policies):
            good = np.flatnonzero(valid(hashes) & (masks != 0))
            keys = hash_keys(hashes.take(pa.array(good)))
            contents.add(File(source), keys, rows[good], masks[good])
    return contents


class _Tally:
    """Counts of one policy, as units come in."""

    def __init__(self, cascade: Cascade, size: Windows) -> None:
        self.cascade = cascade
        self._size = size
        self._settled: Counter[str] = Counter()
        self._contents: set[int] = set()  # their keys
        self._judged = 0
        self._audited = 0
        self._windows = 0
        self._tokens = 0

    def counts(self) -> SampleCounts:
        return SampleCounts(
            settled={name: count for name, count in self._settled.items() if count},
            contents=self._judged,
            audited=self._audited,
            windows=self._windows,
            tokens=self._tokens,
        )

    def add(self, unit: pa.Table, keys: np.ndarray, is_reusable: np.ndarray) -> None:
        """A prepared unit; `keys` of its contents, and which of them other label files have."""
        policy = self.cascade.policy.id
        known = prepare.known(unit, policy)
        audited = prepare.audited(unit, policy)
        is_reused = _equals(known.field("origin"), Origin.REUSED.value)
        decided_by = known.field("decided_by")
        self._settled["reused"] += int(is_reused.sum())
        for judge in self.cascade.on_columns:
            self._settled[judge.name] += int((_equals(decided_by, judge.name) & ~is_reused).sum())
        ids = structs(unit.column("ids"))
        is_open = valid(ids) & (~valid(known) | audited)
        self._settled["reused"] += int((is_open & is_reusable).sum())
        rows = np.flatnonzero(is_open & ~is_reusable)
        first = rows[self._is_first(keys[rows])]
        self._settled["duplicates"] += len(rows) - len(first)
        self._judged += len(first)
        self._audited += int(audited[first].sum())
        for row in ids.take(pa.array(first)):
            pieces = windows(row.values, self._size.tokens, self._size.overlap)
            self._windows += len(pieces)
            self._tokens += sum(map(len, pieces))

    def _is_first(self, keys: np.ndarray) -> np.ndarray:
        """Bool: where a content is seen for the first time; from now on it is seen."""
        is_new = np.array([key not in self._contents for key in keys.tolist()], bool)
        is_repeated = np.ones(len(keys), bool)
        is_repeated[np.unique(keys, return_index=True)[1]] = False
        is_new &= ~is_repeated
        self._contents |= set(keys[is_new].tolist())
        return is_new


def _equals(column: pa.Array, value: str) -> np.ndarray:
    """Bool; false where it is null."""
    return np.asarray(column.to_numpy(zero_copy_only=False) == value, bool)
