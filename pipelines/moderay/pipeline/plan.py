"""What a run has to do: keys, what the output holds already, and what is left.

No engine, and nothing is written.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from moderay.config.job import Job
from moderay.core.errors import UserError
from moderay.core.hashing import digest
from moderay.core.storage import get, plain_errors, shown, size_and_version
from moderay.corpus.formats import label_file
from moderay.corpus.ranges import Range, gaps, tiling
from moderay.corpus.scan import Scan
from moderay.corpus.shard import Shard
from moderay.judges.cascade import Cascade
from moderay.labels.cascade_differences import cascade_differences
from moderay.labels.corrections import Corrections, ReviewedPolicy, read_corrections
from moderay.labels.earlier_outputs import EarlierOutput, LabelFile, usable_verdicts
from moderay.labels.label_file import stored_digest
from moderay.labels.layout import (
    Layout,
    MarkerName,
    State,
    decision_hash,
    file_stamp,
    list_state,
    read_markers,
    shard_name,
    slot,
    state_name,
)
from moderay.labels.lease import living
from moderay.labels.manifest_record import JudgeRecord, Manifest
from moderay.labels.manifest_store import read_manifest
from moderay.labels.records import ShardMarker
from moderay.labels.unit_file import whole_units
from moderay.pipeline.check import Checked

# In a byte of a file, however it is compressed.
CONTENTS_PER_BYTE = 8

Files = TypeVar("Files", bound=Sequence[str])


class AnotherCascadeError(UserError):
    """The output is another cascade's: what is there would be judged again."""


def shard_key(shard: Shard, cascade: str, selection: str) -> str:
    """Of what a shard's verdicts depend on: its file, the cascade, and which rows are judged."""
    return digest({"shard": shard.identity, "cascade": cascade, "selection": selection})


@dataclass(frozen=True)
class Work:
    """One shard that is not published as this job wants it.

    Attributes:
        shard: the input file.
        key: of the shard.
        units: the key its units are saved under.
        saved: ranges that are judged already.
        old: its markers.
        earlier: label files whose verdicts its rows may take.
        redecide: whether the verdicts are there, only under other thresholds or beside other
            columns.
    """

    shard: Shard
    key: str
    units: str
    saved: tuple[Range, ...] = ()
    old: tuple[MarkerName, ...] = ()
    earlier: tuple[LabelFile, ...] = ()
    redecide: bool = False

    @property
    def missing(self) -> list[Range]:
        """Ranges that are left to judge."""
        return [] if self.redecide else gaps(self.shard.rows, self.saved)

    @property
    def rows_left(self) -> int:
        """Rows that are left to judge."""
        return sum(end - start for start, end in self.missing)


@dataclass(frozen=True)
class Moved:
    """A label file that has another time or etag than its marker says, but the same bytes.

    Attributes:
        path: of the marker that is there.
        new_path: of the one that takes its place.
        marker: the new one.
    """

    path: str
    new_path: str
    marker: ShardMarker


@dataclass(frozen=True)
class Plan:
    """What there is to do in an output, and what is there.

    Attributes:
        layout: of the output.
        outputs: this one's layout, then those that are reused, as label files number them.
        cascade: hash of all policies' cascades.
        decision: hash of thresholds and carried columns.
        todo: shards to work on, in order.
        done: shards published already, with their markers' paths.
        leftovers: by shard, files that nobody needs any more.
        gone: by shard that the input no longer has, the files of its labels.
        known: markers of label files whose verdicts the rows of other shards may take: of what is
            gone, since its rows may stand in another file now, and of a table all that is done.
        lost: shards whose label files are gone, or not what was published; they are in `todo`.
        moved: label files that were copied, with what their markers should say.
        scratch: files on their way, of drivers that live or died.
        next_run: a number that is higher than any run's that left something here.
        manifest: the last one; None where there is none.
        people: what people decided of contents, which is laid over the judges' verdicts.
    """

    layout: Layout
    outputs: tuple[Layout, ...]
    cascade: str
    decision: str
    todo: tuple[Work, ...]
    done: tuple[tuple[Shard, str], ...]
    leftovers: Mapping[str, Sequence[str]]
    gone: Mapping[str, tuple[str, ...]]
    known: tuple[str, ...]
    lost: tuple[str, ...]
    moved: tuple[Moved, ...]
    scratch: tuple[str, ...]
    next_run: int
    manifest: Manifest | None
    people: Corrections

    @property
    def rows_left(self) -> int:
        """Rows that are left to judge."""
        return sum(work.rows_left for work in self.todo)

    @property
    def contents_left(self) -> int:
        """Different contents that these rows can have at most: a row costs nothing to claim."""
        return sum(min(work.rows_left, CONTENTS_PER_BYTE * work.shard.size) for work in self.todo)

    def of(self, slots: Container[int]) -> Plan:
        """What of it is to be done in these slots."""

        def of_shards(files: Mapping[str, Files]) -> dict[str, Files]:
            return {name: paths for name, paths in files.items() if slot(name) in slots}

        return dataclasses.replace(
            self,
            todo=tuple(work for work in self.todo if slot(work.shard.name) in slots),
            leftovers=of_shards(self.leftovers),
            gone=of_shards(self.gone),
            moved=tuple(moved for moved in self.moved if slot(moved.marker.shard) in slots),
        )


def earlier_manifests(checked: Checked, plan: Plan) -> list[Manifest]:
    """Of this output, where there is one, then of those that are reused."""
    own = [plan.manifest] if plan.manifest else []
    return [*own, *(output.manifest for output in checked.reused)]


def make_plan(checked: Checked, replace: bool = False, retry_failed: bool = False) -> Plan:
    """List the output and subtract.

    Args:
        checked: the job.
        replace: also over labels of another cascade, or of another input's files.
        retry_failed: rows that another attempt may judge are left to do as well.

    Raises:
        AnotherCascadeError: the output holds labels of another cascade.
        UserError: it holds labels of another input's files.
    """
    job = checked.job
    layout = Layout(job.output.path, job.storage)
    cascade = digest({cascade.policy.id: cascade.key for cascade in checked.cascades})
    # Verdicts on lines say nothing of their file.
    whole = ["file"] if job.input.text == "file" else []
    selection = digest([job.input.content, job.input.where, job.input.sample, *whole])
    decision = decision_hash([cascade.rule for cascade in checked.cascades], checked.scan.columns)
    with plain_errors(job.output.path):
        manifest = read_manifest(layout)
        state = list_state(layout)
        people = read_corrections(
            layout, {policy.id: ReviewedPolicy.of(policy) for policy in checked.policies}
        )
        if not replace:
            assert_same_cascade(checked, manifest, state)
        left = _Subtraction(layout, state, checked.cascades, decision, checked.reused)
        keys = {shard.name: shard_key(shard, cascade, selection) for shard in checked.scan.shards}
        left.subtract(checked.scan.shards, keys, retry_failed)
        if not replace:
            _assert_same_source(layout, left)
    outputs = (layout, *[output.layout for output in checked.reused])
    gone = left.gone(checked.scan)
    done = [path for _, path in left.done] if checked.scan.tables else []
    return Plan(
        layout,
        outputs,
        cascade,
        decision,
        tuple(left.todo),
        tuple(left.done),
        dict(left.leftovers),
        gone,
        (*left.published_markers(gone), *done),
        tuple(left.lost),
        tuple(left.moved),
        state.scratch,
        max([len(manifest.runs) if manifest else 0, *[1 + name.run for name in left.names]]),
        manifest,
        people,
    )


@dataclass
class _Subtraction:
    """Shards minus what the output holds.

    Attributes:
        layout: of the output.
        state: what it holds.
        cascades: of this job.
        decision: hash of thresholds and carried columns.
        reused: the outputs that `reuse:` names.
        todo: shards to work on.
        done: shards published already, with their markers' paths.
        leftovers: by shard, files that nobody needs any more.
        lost: shards whose label files are not what was published.
        moved: label files that were copied.
        markers: those that were read, by shard: what its label file holds.
    """

    layout: Layout
    state: State
    cascades: Sequence[Cascade]
    decision: str
    reused: Sequence[EarlierOutput]
    todo: list[Work] = field(default_factory=list)
    done: list[tuple[Shard, str]] = field(default_factory=list)
    leftovers: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    lost: list[str] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    markers: dict[str, ShardMarker] = field(default_factory=dict)

    @property
    def names(self) -> Iterator[MarkerName]:
        """Of all markers."""
        return (name for names in self.state.markers.values() for name in names)

    def subtract(
        self, shards: Sequence[Shard], keys: Mapping[str, str], retry_failed: bool
    ) -> None:
        published = self._published_of(shards)
        self._look_into(
            (shard, name)
            for shard in shards
            if (name := published[shard.name]) is not None
            and self._is_questionable(shard.name, name, keys[shard.name], retry_failed)
        )
        saved = self._saved(shards, keys, published)
        for shard in shards:
            key, name = keys[shard.name], published[shard.name]
            old = self.state.markers.get(shard.name, ())
            if name is not None and (name.key, name.decision) == (key, self.decision):
                self._through(shard, name, saved[shard.name], retry_failed)
            elif name is not None and name.key == key:
                self.todo.append(Work(shard, key, key, old=old, redecide=True))
            else:
                work = Work(shard, key, key, saved[shard.name], old, self._earlier(shard))
                self.todo.append(work)

    def _published_of(self, shards: Sequence[Shard]) -> dict[str, MarkerName | None]:
        """By shard, the marker that speaks of its label file."""
        published = {shard.name: self.state.published(shard.name) for shard in shards}
        for name, marker in published.items():
            if marker is None and name in self.state.markers:
                published[name] = self._copied(name)
                if published[name] is None:
                    self.lost.append(name)
        return published

    def _copied(self, shard: str) -> MarkerName | None:
        """The marker of a label file that has another time or etag, but the bytes of before."""
        if shard not in self.state.stamps:
            return None
        stored = stored_digest(self.layout, shard)
        for name in sorted(self.state.markers[shard], key=lambda name: -name.run):
            path = self.layout.marker(shard, name)
            marker = ShardMarker.from_json(get(self.layout.fs, path), path)
            if marker.label_file.digest == stored:
                self._move(shard, path, name, marker)
                return name
        return None

    def _move(self, shard: str, path: str, name: MarkerName, marker: ShardMarker) -> None:
        now = size_and_version(self.layout.fs, self.layout.label(shard))
        if now is None:
            return
        file = marker.label_file.model_copy(update={"size": now[0], "version": now[1]})
        new_path = self.layout.marker(shard, name._replace(stamp=file_stamp(*now)))
        self.moved.append(Moved(path, new_path, marker.model_copy(update={"label_file": file})))

    def _through(
        self, shard: Shard, name: MarkerName, saved: tuple[Range, ...], retry_failed: bool
    ) -> None:
        """A shard that is published.

        What a driver that died here left lying goes, but not an attempt to judge its failed rows,
        which has units of its own: it is published if whole, and goes on with `retry_failed`.
        """
        others = [other for other in self.state.markers[shard.name] if other != name]
        if others:
            self.leftovers[shard.name] += [self.layout.marker(shard.name, name) for name in others]
        marker = self.markers.get(shard.name)
        if marker is not None:
            failed = sum(counts.failed for counts in marker.policies.values())
            if (retry_failed and failed) or (saved and not gaps(shard.rows, saved)):
                retry = _retry_key(name)
                work = Work(shard, name.key, retry, saved, (name,), self._earlier(shard))
                self.todo.append(work)
                return
        self.done.append((shard, self.layout.marker(shard.name, name)))

    def _saved(
        self,
        shards: Sequence[Shard],
        keys: Mapping[str, str],
        published: Mapping[str, MarkerName | None],
    ) -> dict[str, tuple[Range, ...]]:
        """The saved ranges of each shard that count, without overlaps; the other units go."""
        wanted = {
            shard.name: self._unit_key(published[shard.name], keys[shard.name]) for shard in shards
        }
        paths = {
            self.layout.unit(name, rows, key): rows
            for name, key in wanted.items()
            for rows in self.state.units_of(name).get(key, ())
        }
        whole = whole_units(self.layout, paths)
        saved = {}
        for name, wanted_key in wanted.items():
            kept: tuple[Range, ...] = ()
            for key, ranges in self.state.units_of(name).items():
                units = {rows: self.layout.unit(name, rows, key) for rows in ranges}
                if key == wanted_key:
                    kept = tiling([rows for rows, path in units.items() if path in whole])
                if dropped := [
                    path for rows, path in units.items() if key != wanted_key or rows not in kept
                ]:
                    self.leftovers[name] += dropped
            saved[name] = kept
        return saved

    def _unit_key(self, published: MarkerName | None, key: str) -> str:
        """The key that a shard's units count under: none where it only is to be decided again."""
        if published is None or published.key != key:
            return key
        return _retry_key(published) if published.decision == self.decision else ""

    def _is_questionable(self, shard: str, name: MarkerName, key: str, retry_failed: bool) -> bool:
        """Whether what the marker of a published shard says counts."""
        if (name.key, name.decision) == (key, self.decision):
            return retry_failed or bool(self.state.units_of(shard))
        return name.key != key

    def _look_into(self, published: Iterable[tuple[Shard, MarkerName]]) -> None:
        paths = [self.layout.marker(shard.name, name) for shard, name in published]
        self.markers.update((marker.shard, marker) for marker in read_markers(self.layout, paths))

    def _earlier(self, shard: Shard) -> tuple[LabelFile, ...]:
        """The shard's own label file, and those of the same name in the outputs that are reused."""
        marker = self.markers.get(shard.name)
        own = {} if marker is None else usable_verdicts(self.cascades, marker.judges)
        usable = [own, *[output.shards.get(shard.name) for output in self.reused]]
        return tuple(
            LabelFile(number, shard.name, taken) for number, taken in enumerate(usable) if taken
        )

    def gone(self, scan: Scan) -> dict[str, tuple[str, ...]]:
        """The files of each shard that the input no longer has."""
        here = {state_name(shard.name) for shard in scan.shards}
        here |= {state_name(label_file(file)) for file, _ in scan.unreadable}
        units = {shard_name(name) or name: name for name in self.state.units if name not in here}
        return {
            shard: (*self._published_files(shard), *self._unit_files(units.get(shard, "")))
            for shard in scan.gone({*self.state.markers, *units})
        }

    def published_markers(self, shards: Iterable[str]) -> Iterator[str]:
        """Of those shards whose label files are what was published."""
        for shard in shards:
            if (name := self.state.published(shard)) is not None:
                yield self.layout.marker(shard, name)

    def _published_files(self, shard: str) -> list[str]:
        markers = [self.layout.marker(shard, name) for name in self.state.markers.get(shard, ())]
        return [self.layout.label(shard), *markers] if markers else []

    def _unit_files(self, name: str) -> list[str]:
        """Of a shard by its name in the state."""
        return [
            self.layout.private(f"units/{name}/{start}-{end}-{key}.arrow")
            for key, ranges in self.state.units.get(name, {}).items()
            for start, end in ranges
        ]


def _retry_key(published: MarkerName) -> str:
    """The key of units in which the failed rows of a published shard are judged again."""
    return digest([published.key, "retry", published.run])


def assert_same_cascade(
    checked: Checked,
    manifest: Manifest | None,
    state: State | None = None,
    alive: Callable[[], set[int]] | None = None,
) -> None:
    """Assert that an output is this job's to write.

    Where nothing is judged yet it is nobody's, unless somebody is about to: a run that failed as it
    began must not be in the way of the one that is right.

    Args:
        checked: the job.
        manifest: the last one.
        state: what the output holds; None where that was looked at.
        alive: gives the runs whose drivers live. Default: by this machine's clock; whoever holds
            the lease knows it by the store's.

    Raises:
        AnotherCascadeError: it holds labels of another cascade, or is about to.
    """
    differs = _differences_of(manifest, checked.cascades) if manifest is not None else []
    if manifest is None or not differs:
        return
    url = checked.job.output.path
    if state is not None and not state.is_empty:
        raise AnotherCascadeError(
            f"{url} holds labels of another cascade ({'; '.join(differs)})"
            f"{_ways_out(checked.job, manifest)}"
        )
    alive = alive or (lambda: living(Layout(url, checked.job.storage)))
    running = {run.run for run in manifest.runs if run.status == "running"}
    if running and (writing := running & alive()):
        raise AnotherCascadeError(
            f"{url} is being labelled by run {min(writing)} under another cascade "
            f"({'; '.join(differs)}): write to a new output.path, or wait until that run has ended"
        )


def _differences_of(manifest: Manifest, cascades: Sequence[Cascade]) -> list[str]:
    """What of a job's cascades is not as in an output."""
    there = {name: policy.cascade for name, policy in manifest.policies.items()}
    here = {
        cascade.policy.id: [JudgeRecord.model_validate(judge) for judge in cascade.identity()]
        for cascade in cascades
    }
    differs = [
        f"policy {name} is only {'there' if name in there else 'in this job'}"
        for name in sorted(there.keys() ^ here.keys())
    ]
    for name in sorted(there.keys() & here.keys()):
        differs += cascade_differences(name, there[name], here[name])
    return differs


def _ways_out(job: Job, manifest: Manifest) -> str:
    """How to go on over labels of another cascade, or beside them."""
    url = job.output.path
    new = _new_output(url, job.storage)
    # `reuse` takes no output whose run has not ended.
    finished = manifest.status == "finished"
    reuse = ["--set", f"reuse={json.dumps([*job.reuse, url], ensure_ascii=False)}"]
    over = job.command("--replace")
    path = new if re.fullmatch(r"[\w./:@%+=-]+", new) else json.dumps(new, ensure_ascii=False)
    beside = job.command("--set", f"output.path={path}", *(reuse if finished else []))
    if over is None or beside is None:
        with_reuse = f" with reuse: [{url}]" if finished else ""
        return (
            f": write to a new output.path{with_reuse}, "
            "or give --replace to judge again what differs"
        )
    taken = ", with what is the same taken from it" if finished else ""
    return (
        f": judge again what differs, over it:\n    {over}\n"
        f"or label into another output, and keep this one{taken}:\n    {beside}"
    )


def _new_output(url: str, storage: Mapping[str, Any]) -> str:
    """A name beside an output's that no output has yet."""
    name = url.rstrip("/")
    stem, dash, number = name.rpartition("-")
    if not (dash and number.isdecimal() and len(number) <= 3):
        stem, number = name, "1"
    news = (f"{stem}-{count}" for count in itertools.count(int(number) + 1))
    return next(new for new in news if read_manifest(Layout(new, storage)) is None)


def _assert_same_source(layout: Layout, left: _Subtraction) -> None:
    """A shard may have changed since; labels of a file elsewhere are another job's."""
    for work in left.todo:
        marker = left.markers.get(work.shard.name)
        # As shown: markers of earlier versions have secrets in them, and signatures change.
        if marker is not None and shown(marker.source) != shown(work.shard.url):
            raise UserError(
                f"{layout.url} holds labels of another input ({work.shard.name} is of "
                f"{marker.source}, and {work.shard.url} in this job): "
                "write to a new output.path, or give --replace to judge it all again"
            )
