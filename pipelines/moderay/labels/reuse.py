"""Verdicts that were paid for already.

A row takes the one its content got before, where the same judge would give it again.

They lie in label files: this output's own, and those of the outputs that `reuse:` names. A reader
looks through the files of the same name as its shard (`ReadAlong`), where most of its contents will
be; the index knows the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from moderay.core import ray_loss
from moderay.core.errors import UserError, first_line
from moderay.core.ray_runtime import end_with_raylet
from moderay.core.storage import (
    ChangedError,
    RemoteFile,
    canonical_url,
    filesystem,
    is_glob,
    plain_errors,
)
from moderay.core.verdicts import CONTENT_HASH, ROW, Status, structs, trace
from moderay.judges.glance import Band
from moderay.labels.index import (
    File,
    Index,
    Numbers,
    Partition,
    Source,
    hash_keys,
    hits,
    policy_masks,
)
from moderay.labels.label_file import file_version
from moderay.labels.layout import Layout, list_state, published_markers
from moderay.labels.lookup import UNREADABLE, Payloads, ReplacedError, given_up, judged
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import outputs, read_manifest

if TYPE_CHECKING:
    from moderay.judges.cascade import Cascade

# Label files that one loading task reads.
LOAD_FILES = 16
# What a task ends in that Ray has lost.
_LOST_TASK = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)
# Cores of such a task, as Ray counts them: where there are two, an engine starts and units are read
# beside it.
LOAD_CPUS = 0.5
# Lost label files that are named; of the others only the number is told.
NAMED = 3

# By policy: the judges whose verdicts may be taken, and the band outside which they may.
Usable = Mapping[str, Mapping[str, Band | None]]


@dataclass(frozen=True)
class LabelFile:
    """A published shard whose verdicts may be taken; picklable.

    Attributes:
        output: its number among the outputs, of which this run's is 0.
        shard: path of the label file below the output.
        usable: what of it may be taken.
    """

    output: int
    shard: str
    usable: Usable


def usable_verdicts(
    cascades: Sequence[Cascade], judges: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Band | None]]:
    """What of a label file stands in these cascades too.

    Args:
        cascades: of this run.
        judges: the judge keys that its marker names, by policy and judge.
    """
    by_policy = {
        cascade.policy.id: cascade.reusable(judges.get(cascade.policy.id, {}))
        for cascade in cascades
    }
    return {policy: taken for policy, taken in by_policy.items() if taken}


@dataclass(frozen=True)
class EarlierOutput:
    """An output that `reuse:` names.

    Attributes:
        layout: of the output.
        rows: in the shards.
        shards: by label file, what of it may be taken.
        manifest: of the output.
        lost: label files that are gone, or are not those that were published.
    """

    layout: Layout
    rows: int
    shards: Mapping[str, Usable]
    manifest: Manifest
    lost: Sequence[str] = ()

    @property
    def notes(self) -> Iterator[str]:
        """What a person should know of it, a sentence each."""
        for shard in self.lost[:NAMED]:
            yield (
                f"earlier verdicts of {shard} are not used: its label file in {self.layout.url} is "
                "not the one that was published"
            )
        if len(self.lost) > NAMED:
            yield (
                f"nor are those of {len(self.lost) - NAMED:,} more of its shards: if the output "
                "was copied, run its job there once"
            )


def earlier_outputs(
    url: str, storage: Mapping[str, Any], cascades: Sequence[Cascade], own: str
) -> list[EarlierOutput]:
    """The outputs that an entry of `reuse:` names.

    Of those that a glob finds, the job's `own` is left out, and of one that is not finished counts
    what is published: a night that was stopped must not stop the next.

    Raises:
        UserError: the entry names none, or one that is not finished.
    """
    fs, path = filesystem(url, storage)
    if not is_glob(fs, path):
        return [earlier_output(url, storage, cascades)]
    with plain_errors(url):
        urls = outputs(url, storage)
    mine = canonical_url(own, storage)
    return [
        earlier_output(name, storage, cascades, finished=False)
        for name in urls
        if canonical_url(name, storage) != mine
    ]


def earlier_output(
    url: str, storage: Mapping[str, Any], cascades: Sequence[Cascade], finished: bool = True
) -> EarlierOutput:
    """Read an output's manifest and markers.

    Raises:
        UserError: there is none, or with `finished` its last run did not end.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        if manifest is None:
            raise UserError(
                f"reuse: {url} is no output of moderay: it has no _moderay/manifest-N.json"
            )
        if finished and (status := manifest.status) != "finished":
            raise UserError(
                f"reuse: {url} is not finished (its last run: {status}): run its job to the end "
                "first, or leave it out"
            )
        shards, rows = dict[str, Usable](), 0
        state = list_state(layout)
        for shard, marker in published_markers(layout, state).items():
            if usable := usable_verdicts(cascades, marker.judges):
                rows += marker.rows
                shards[shard] = usable
    return EarlierOutput(layout, rows, shards, manifest, state.lost)


class ReadAlong:
    """Verdicts of a few label files, by content."""

    def __init__(
        self, outputs: Sequence[Layout], files: Sequence[LabelFile], policies: Sequence[str]
    ) -> None:
        """Read which contents the files judge.

        One that is gone or broken has none, and its rows are judged.

        Args:
            outputs: layouts, as the files number them.
            files: label files.
            policies: whose verdicts may be taken.

        Raises:
            OSError: the store does not give a file; its verdicts are paid for.
        """
        self._known, self._payloads = Partition(), Payloads(outputs, policies)
        # The shard's own file last: of two entries for a content the later counts, and a row keeps
        # the verdict it has.
        for file in sorted(files, key=lambda file: -file.output):
            try:
                self._add(outputs[file.output], file, policies)
            except (pa.ArrowException, FileNotFoundError, ReplacedError, ChangedError) as error:
                given_up(file.shard, error)

    def _add(self, layout: Layout, file: LabelFile, policies: Sequence[str]) -> None:
        for source, hashes, rows, masks in entries(layout, file, policies):
            good = np.flatnonzero(hashes.is_valid().to_numpy(zero_copy_only=False) & (masks != 0))
            self._known.add(
                File(source), hash_keys(hashes.take(pa.array(good))), rows[good], masks[good]
            )

    def find(self, hashes: Sequence[str | None]) -> dict[str, pa.StructArray]:
        """The earlier verdicts on contents.

        Returns:
            By policy, structs of `VERDICT` with the origin `reused`, null where there is nothing to
            take.
        """
        column = pa.array(hashes, pa.string())
        at = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        return self._payloads.read(
            hits(hashes, [(at, self._known.find(hash_keys(column.drop_null())))])
        )


@dataclass(frozen=True)
class Loaded:
    """What the index was given.

    Attributes:
        rows: entries.
        unreadable: by shard, why its verdicts are not used.
    """

    rows: int
    unreadable: Mapping[str, str]


@dataclass(frozen=True)
class Loading:
    """Tasks that tell the index of earlier label files; picklable.

    Attributes:
        calls: one for each task; it ends in what it has `Loaded`.
        shards: the label files of each, for the driver.
    """

    calls: tuple[Any, ...] = ()
    shards: tuple[tuple[str, ...], ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether all are in, or lost."""
        if not self.calls:
            return True
        calls = list(self.calls)
        _, left = ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False)
        return not left

    def wait(self) -> None:
        """Until all are in, or lost; raises what one of them failed with.

        For a worker, which ends when Ray does. It blocks: in asyncio, call it in a thread.
        """
        for call in self.calls:
            with suppress(*_LOST_TASK):
                ray.get(call)

    def loaded(self) -> Loaded:
        """What all of them have; waits for them."""
        return _together(map(_loaded, self.calls, self.shards))

    def so_far(self) -> Loaded:
        """What those have that are through."""
        if not self.calls:
            return Loaded(0, {})
        over, _ = ray.wait(list(self.calls), num_returns=len(self.calls), timeout=0)
        through = [
            (call, shards)
            for call, shards in zip(self.calls, self.shards, strict=True)
            if call in over
        ]
        return _together(_loaded(call, shards) for call, shards in through)

    def for_workers(self) -> Loading:
        """Without the names, which only the driver needs."""
        return Loading(self.calls)


def start_loading(index: Index, outputs: Sequence[Layout], files: Sequence[LabelFile]) -> Loading:
    """Tell the index of earlier label files, in tasks on the cluster."""
    task = ray.remote(num_cpus=LOAD_CPUS)(_load)
    parts = [files[i : i + LOAD_FILES] for i in range(0, len(files), LOAD_FILES)]
    return Loading(
        tuple(task.remote(index, tuple(outputs), part) for part in parts),
        tuple(tuple(file.shard for file in part) for part in parts),
    )


def _loaded(call: Any, shards: Sequence[str]) -> Loaded:
    """What a task has loaded: nothing, where Ray has lost it."""
    try:
        loaded: Loaded = ray_loss.get(call)
    except _LOST_TASK as error:
        reason = f"Ray lost the task that read it ({type(error).__name__})"
        return Loaded(0, dict.fromkeys(shards, reason))
    return loaded


def _together(parts: Iterable[Loaded]) -> Loaded:
    rows, unreadable = 0, dict[str, str]()
    for part in parts:
        rows, unreadable = rows + part.rows, unreadable | dict(part.unreadable)
    return Loaded(rows, unreadable)


def _load(index: Index, outputs: Sequence[Layout], files: Sequence[LabelFile]) -> Loaded:
    """Task: some files."""
    end_with_raylet()
    rows, unreadable = 0, dict[str, str]()
    for file in files:
        try:
            for source, hashes, positions, masks in entries(
                outputs[file.output], file, index.policies
            ):
                index.wait(index.add(File(source), hashes, positions, masks))
                rows += int(np.count_nonzero(masks))
        except UNREADABLE as error:
            unreadable[file.shard] = first_line(error)
    return Loaded(rows, unreadable)


def entries(
    layout: Layout, file: LabelFile, policies: Sequence[str]
) -> Iterator[tuple[Source, pa.StringArray, Numbers, Numbers]]:
    """Source, hashes, positions and masks of a label file's row groups.

    A mask is 0 where nothing may be taken.

    Raises:
        OSError: the file cannot be read, as pa.ArrowException and ValueError.
    """
    source = Source(file.output, file.shard, version=file_version(layout, file.shard))
    with pq.ParquetFile(RemoteFile(layout.fs, layout.label(file.shard)), pre_buffer=True) as labels:
        if not {ROW.name, CONTENT_HASH.name} <= set(labels.schema_arrow.names):
            raise ReplacedError("a Parquet file, but no label file of moderay")
        taken = judged(
            labels.schema_arrow, [policy for policy in policies if policy in file.usable]
        )
        fields = [
            f"{policy}.{name}"
            for policy in taken
            for name in ("status", "trace.decided_by", "probability")
        ]
        for group in range(labels.num_row_groups):
            table = labels.read_row_group(group, columns=[ROW.name, CONTENT_HASH.name, *fields])
            none = np.zeros(len(table), bool)
            columns = [
                takable(structs(table.column(policy)), file.usable[policy])
                if policy in taken
                else none
                for policy in policies
            ]
            yield (
                source,
                structs(table.column(CONTENT_HASH.name)),
                table.column(ROW.name).to_numpy(),
                policy_masks(columns, len(table)),
            )


def takable(decisions: pa.StructArray, judges: Mapping[str, Band | None]) -> Numbers:
    """Bool: which of a label file's decisions may be taken.

    Those of status ok, by one of these judges, and outside its band. Needs the fields status,
    trace.decided_by and probability.
    """
    settled = np.zeros(len(decisions), bool)
    probability = decisions.field("probability").to_numpy(zero_copy_only=False)
    for judge, band in judges.items():
        mine = pc.fill_null(pc.equal(trace(decisions, "decided_by"), judge), False).to_numpy(
            zero_copy_only=False
        )
        settled |= mine if band is None else mine & band.settles(probability)
    ok = pc.equal(decisions.field("status"), Status.OK.value).to_numpy(zero_copy_only=False)
    return np.asarray(settled & ok)
