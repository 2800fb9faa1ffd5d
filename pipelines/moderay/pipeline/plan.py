"""What a run has to do: keys, what the output holds already, and what is left.

No engine, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moderay.core.errors import UserError
from moderay.core.hashing import digest
from moderay.core.storage import plain_errors, shown
from moderay.corpus.ranges import Range, gaps, tiling
from moderay.corpus.shard import Shard
from moderay.judges.cascade import Cascade
from moderay.labels.layout import Layout, State, list_state, read_manifest, read_markers
from moderay.labels.manifest_record import JudgeRecord, Manifest
from moderay.labels.records import ShardMarker
from moderay.labels.reuse import EarlierOutput, LabelFile, usable_verdicts
from moderay.pipeline.check import Checked

# In a byte of a file, however it is compressed.
CONTENTS_PER_BYTE = 8


def shard_key(shard: Shard, cascade: str, selection: str) -> str:
    """Of what a shard's verdicts depend on: its file, the cascade, and which rows are judged."""
    return digest({"shard": shard.identity, "cascade": cascade, "selection": selection})


Marker = tuple[str, str]


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
    old: tuple[Marker, ...] = ()
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
class Plan:
    """What there is to do in an output, and what is there.

    Attributes:
        layout: of the output.
        outputs: this one's layout, then those that are reused, as label files number them.
        cascade: hash of all policies' cascades.
        decision: hash of thresholds and carried columns.
        todo: shards to work on, in order.
        done: shards published already, with their markers' paths.
        leftovers: files that nobody needs any more.
        gone: by shard that the input no longer has, the files of its labels.
        manifest: as the last run left it; None where there was none.
    """

    layout: Layout
    outputs: tuple[Layout, ...]
    cascade: str
    decision: str
    todo: tuple[Work, ...]
    done: tuple[tuple[Shard, str], ...]
    leftovers: tuple[str, ...]
    gone: Mapping[str, tuple[str, ...]]
    manifest: Manifest | None

    @property
    def rows_left(self) -> int:
        """Rows that are left to judge."""
        return sum(work.rows_left for work in self.todo)

    @property
    def contents_left(self) -> int:
        """Different contents that these rows can have at most: a row costs nothing to claim."""
        return sum(min(work.rows_left, CONTENTS_PER_BYTE * work.shard.size) for work in self.todo)


def make_plan(checked: Checked, replace: bool = False, retry_failed: bool = False) -> Plan:
    """List the output and subtract.

    Args:
        checked: the job.
        replace: also over labels of another cascade, or of another input's files.
        retry_failed: rows that another attempt may judge are left to do as well.

    Raises:
        UserError: the output holds labels of another cascade or of another input's files.
    """
    job = checked.job
    layout = Layout(job.output.path, job.storage)
    cascade = digest({cascade.policy.id: cascade.key for cascade in checked.cascades})
    selection = digest([job.input.content, job.input.where, job.input.sample])
    columns = {field.name: str(field.type) for field in checked.scan.columns}
    decision = digest([{policy.id: policy.threshold for policy in checked.policies}, columns])
    with plain_errors(job.output.path):
        manifest = read_manifest(layout)
        if not replace:
            _assert_same_cascade(layout, manifest, checked.cascades)
        left = _Subtraction(layout, list_state(layout), checked.cascades, decision, checked.reused)
        keys = {shard.name: shard_key(shard, cascade, selection) for shard in checked.scan.shards}
        left.subtract(checked.scan.shards, keys, retry_failed)
        if not replace:
            _assert_same_source(layout, left)
    gone = {name: left.files(name) for name in checked.scan.gone(left.names)}
    outputs = (layout, *[output.layout for output in checked.reused])
    return Plan(
        layout,
        outputs,
        cascade,
        decision,
        tuple(left.todo),
        tuple(left.done),
        tuple(left.leftovers),
        gone,
        manifest,
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
        leftovers: files that nobody needs any more.
        markers: those that were read, by shard.
    """

    layout: Layout
    state: State
    cascades: Sequence[Cascade]
    decision: str
    reused: Sequence[EarlierOutput]
    todo: list[Work] = field(default_factory=list)
    done: list[tuple[Shard, str]] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    markers: dict[str, ShardMarker] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return self.state.markers.keys() | self.state.units.keys()

    def subtract(
        self, shards: Sequence[Shard], keys: Mapping[str, str], retry_failed: bool
    ) -> None:
        self._look_into(
            shard
            for shard in shards
            if self._questionable(shard.name, keys[shard.name], retry_failed)
        )
        for shard in shards:
            key, old = keys[shard.name], self.state.markers.get(shard.name, ())
            if (key, self.decision) in old:
                self._published(shard, key, retry_failed)
            elif any(key == judged for judged, _ in old):
                self._keep(shard.name, ())
                self.todo.append(Work(shard, key, key, old=old, redecide=True))
            else:
                self.todo.append(
                    Work(shard, key, key, self._keep(shard.name, (key,)), old, self._earlier(shard))
                )

    def _published(self, shard: Shard, key: str, retry_failed: bool) -> None:
        """A shard that is through.

        What a driver that died here left lying goes, but not an attempt to judge its failed rows,
        which has units of its own: it is published if whole, and goes on with `retry_failed`.
        """
        old = (key, self.decision)
        self.leftovers += [
            self.layout.marker(shard.name, *marker)
            for marker in self.state.markers[shard.name]
            if marker != old
        ]
        marker = self.markers.get(shard.name)
        if marker is None:
            self.done.append((shard, self.layout.marker(shard.name, *old)))
            return
        retry = digest([key, "retry", marker.run])
        saved = self._keep(shard.name, (retry,))
        failed = sum(counts.failed for counts in marker.policies.values())
        if (retry_failed and failed) or (saved and not gaps(shard.rows, saved)):
            self.todo.append(Work(shard, key, retry, saved, (old,), self._earlier(shard)))
        else:
            self.done.append((shard, self.layout.marker(shard.name, *old)))

    def _keep(self, name: str, keys: Sequence[str]) -> tuple[Range, ...]:
        """The saved ranges of a shard under these keys, without overlaps.

        All its other units are leftovers.
        """
        saved: tuple[Range, ...] = ()
        for key, ranges in self.state.units.get(name, {}).items():
            kept = tiling(ranges) if key in keys else ()
            self.leftovers += [
                self.layout.unit(name, rows, key) for rows in ranges if rows not in kept
            ]
            saved += kept
        return saved

    def _questionable(self, name: str, key: str, retry_failed: bool) -> bool:
        """Whether what the markers of a shard say counts."""
        old = self.state.markers.get(name, ())
        if (key, self.decision) in old:
            return retry_failed or name in self.state.units
        return bool(old) and all(key != judged for judged, _ in old)

    def _look_into(self, shards: Iterator[Shard]) -> None:
        paths = [
            self.layout.marker(shard.name, *marker)
            for shard in shards
            for marker in self.state.markers[shard.name]
        ]
        for marker in read_markers(self.layout, paths):
            # Of two the later tells what the file holds: a driver died before it removed the other.
            other = self.markers.get(marker.shard)
            if other is None or marker.run >= other.run:
                self.markers[marker.shard] = marker

    def _earlier(self, shard: Shard) -> tuple[LabelFile, ...]:
        """The shard's own label file, and those of the same name in the outputs that are reused."""
        marker = self.markers.get(shard.name)
        own = {} if marker is None else usable_verdicts(self.cascades, marker.judges)
        usable = [own, *[output.shards.get(shard.name) for output in self.reused]]
        return tuple(
            LabelFile(number, shard.name, taken) for number, taken in enumerate(usable) if taken
        )

    def files(self, name: str) -> tuple[str, ...]:
        """Every file an output holds of a shard."""
        markers = [self.layout.marker(name, *marker) for marker in self.state.markers.get(name, ())]
        units = [
            self.layout.unit(name, rows, key)
            for key, ranges in self.state.units.get(name, {}).items()
            for rows in ranges
        ]
        return (*([self.layout.label(name)] if markers else []), *units, *markers)


def _assert_same_cascade(
    layout: Layout, manifest: Manifest | None, cascades: Sequence[Cascade]
) -> None:
    if manifest is None:
        return
    there = {name: _as_json(policy.cascade) for name, policy in manifest.policies.items()}
    here = {
        cascade.policy.id: _as_json(map(JudgeRecord.model_validate, cascade.identity()))
        for cascade in cascades
    }
    differs = [
        f"policy {name} is only {'there' if name in there else 'in this job'}"
        for name in sorted(there.keys() ^ here.keys())
    ]
    for name in sorted(there.keys() & here.keys()):
        differs += _differences(name, there[name], here[name])
    if differs:
        raise UserError(
            f"{layout.url} holds labels of another cascade ({'; '.join(differs)}): write to a "
            f"new output.path with reuse: [{layout.url}], "
            "or give --replace to judge again what differs"
        )


def _as_json(cascade: Iterable[JudgeRecord]) -> list[dict[str, Any]]:
    """Judges as they stand in a file, so that those of a job compare with those of a manifest."""
    return [judge.model_dump(mode="json") for judge in cascade]


def _differences(
    policy: str, there: Sequence[Mapping[str, Any]], here: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Between two cascades as `Cascade.identity` has them."""
    names = [", ".join(judge["judge"] for judge in judges) for judges in (there, here)]
    if names[0] != names[1]:
        return [f"{policy}: judges were {names[0]}, are {names[1]}"]
    differing = []
    for before, now in zip(there, here, strict=True):
        of = f"{now['judge']} " if len(here) > 1 else ""
        differing += [
            f"{policy}: {of}{field}{_both(before.get(field), now[field])}"
            for field in now
            if now[field] != before.get(field)
        ]
    return list(dict.fromkeys(differing))


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


def _both(there: object, here: object) -> str:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = [name for name in here if here[name] != there.get(name)]
        return ", ".join(f".{name} was {there.get(name)!r}, is {here[name]!r}" for name in names)
    shown = f" was {there!r}, is {here!r}"
    return shown if len(shown) < 80 else " differs"
