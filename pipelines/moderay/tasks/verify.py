"""`moderay verify`: an output read in full, and held against what it says of itself.

Label files, markers, units, claims and the manifest are read; of each that is broken, or that
contradicts another, it is told what is wrong and what to do. A repair drops what is broken, so that
the next run makes it again.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.core.errors import UserError, first_line
from moderay.core.records import OtherVersionError, RecordRefusedError
from moderay.core.storage import get, patiently, plain_errors, read, remove, shown
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, ROW, Status, is_decision
from moderay.labels.label_file import local_digest, published_by
from moderay.labels.layout import Layout, MarkerName, State, file_stamp, list_state
from moderay.labels.lease import Lease, claim_path, claims, is_abandoned, read_claim
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import (
    append_manifest,
    manifest_numbers,
    manifest_path,
    read_manifest,
)
from moderay.labels.records import ShardMarker
from moderay.labels.unit_file import BrokenUnitError, parse_unit
from moderay.pipeline.manifest import OutputTotal

# Label files that are read side by side.
READERS = 4
_AGAIN = "run the job again: it is labelled anew"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        path: Of the file, below the output.
        problem: What is wrong.
        remedy: What a person may do, in the imperative.
        drop: Paths of what a repair removes.
    """

    path: str
    problem: str
    remedy: str
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verified:
    """What an output is like.

    Attributes:
        shards: Published shards that are whole.
        rows: Their label rows.
        writing: Runs that hold claims, so that what they have in work may show as broken.
        findings: What is wrong.
        repaired: Whether what could be dropped was.
    """

    shards: int
    rows: int
    writing: tuple[int, ...]
    findings: tuple[Finding, ...]
    repaired: bool

    @property
    def exit_status(self) -> int:
        """The process's: 1 where something is wrong."""
        return int(bool(self.findings))


def verify(url: str, storage: Mapping[str, Any], repair: bool = False) -> Verified:
    """Read an output in full.

    Args:
        url: Of the output.
        storage: Options of its storage.
        repair: Drop what is broken. The output is held meanwhile.

    Raises:
        UserError: There is no output of moderay.
        TryAgainError: For a repair: a run is writing it.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        if not repair:
            return _verified(layout, tuple(claims(layout)))
        _assert_output(layout, list_state(layout))
        with Lease(layout) as lease:
            lease.assert_alone()
            verified = _verified(layout, (), lease.run)
            _repair(layout, verified.findings)
    return Verified(verified.shards, verified.rows, (), verified.findings, True)


def _assert_output(layout: Layout, state: State) -> None:
    if not state.markers and not state.units and _last_manifest(layout) is None:
        raise UserError(
            f"{shown(layout.url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
        )


def _last_manifest(layout: Layout) -> Manifest | RecordRefusedError | None:
    try:
        return read_manifest(layout)
    except RecordRefusedError as error:
        return error


def _verified(layout: Layout, writing: tuple[int, ...], run: int | None = None) -> Verified:
    state = list_state(layout)
    _assert_output(layout, state)
    findings = [*_claims(layout, writing), *_units(layout, state)]
    last = _last_manifest(layout)
    gone = set(last.gone) if isinstance(last, Manifest) else set[str]()
    # The manifest counts what the input has; the labels of the rest stay until --prune.
    total, of_gone = OutputTotal(), OutputTotal()
    broken = False
    for name, shard in zip(sorted(state.markers), _shards(layout, state), strict=True):
        if shard.finding is not None:
            broken = True
            findings.append(
                _for_good(layout, state, name, shard.finding) if name in gone else shard.finding
            )
        elif shard.marker is not None:
            (of_gone if name in gone else total).add(shard.marker)
    findings += _strays(layout, state)
    findings += _scratch(layout, state, run)
    # What is broken, or being written, is not in the counts: that says nothing new.
    findings += _manifests(layout, None if writing or broken else total)
    shards, rows = total.shards + of_gone.shards, total.rows + of_gone.rows
    return Verified(shards, rows, writing, tuple(findings), False)


def _repair(layout: Layout, findings: Sequence[Finding]) -> None:
    """Drop what is broken, and have the manifest say what is left."""
    dropped = [path for finding in findings for path in finding.drop]
    for path in dropped:
        remove(layout.fs, path)
    if not findings or not isinstance(_last_manifest(layout), Manifest):
        return
    state = list_state(layout)

    def counted(before: Manifest | None) -> Manifest:
        assert before is not None, "it was there a moment ago"
        total = OutputTotal()
        for shard in _shards(layout, state):
            if shard.marker is not None:
                total.add(shard.marker)
        update = {**total.manifest_fields(), "complete": False}
        return Manifest.model_validate({**dict(before), **update})

    append_manifest(layout, counted)


def _below(layout: Layout, path: str) -> str:
    return path.removeprefix(f"{layout.root}/")


def _claims(layout: Layout, runs: Sequence[int]) -> Iterator[Finding]:
    for run in runs:
        path = claim_path(layout, run)
        try:
            read_claim(layout, run)
        except RecordRefusedError as error:
            yield _refused(layout, path, error)


def _refused(layout: Layout, path: str, error: RecordRefusedError) -> Finding:
    """A record that cannot be read; what another version of moderay knows is not dropped."""
    drop = () if isinstance(error, OtherVersionError) else (path,)
    return Finding(_below(layout, path), error.reason, error.remedy, drop)


def _units(layout: Layout, state: State) -> Iterator[Finding]:
    """Units that are not whole."""
    for name, keys in state.units.items():
        for key, ranges in keys.items():
            for rows in ranges:
                path = layout.private(f"units/{name}/{rows[0]}-{rows[1]}-{key}.arrow")
                try:
                    parse_unit(get(layout.fs, path), rows)
                except FileNotFoundError:
                    continue  # published meanwhile
                except BrokenUnitError as error:
                    again = "run the job again: its rows are judged anew"
                    yield Finding(
                        _below(layout, path), f"is no whole unit ({error})", again, (path,)
                    )


@dataclass(frozen=True)
class _Shard:
    """A published shard: its marker where its label file is what that says, else what is wrong."""

    marker: ShardMarker | None
    finding: Finding | None = None


def _shards(layout: Layout, state: State) -> Iterator[_Shard]:
    """Every shard that has a marker, by name."""
    with ThreadPoolExecutor(READERS) as pool:
        each = pool.map(lambda shard: _shard(layout, state, shard), sorted(state.markers))
        yield from each


def _shard(layout: Layout, state: State, shard: str) -> _Shard:
    published = state.published(shard)
    markers = tuple(layout.marker(shard, name) for name in state.markers[shard])
    if published is None and shard not in state.stamps:
        return _Shard(None, Finding(shard, "its label file is gone", _AGAIN, markers))
    # Of a copy, which has another time, any marker may be the one that speaks of it.
    names = [published] if published else sorted(state.markers[shard], key=lambda name: -name.run)
    looks = []
    for name in names:
        path = layout.marker(shard, name)
        try:
            marker = ShardMarker.from_json(get(layout.fs, path), path)
        except RecordRefusedError as error:
            looks.append(_Shard(None, _refused(layout, path, error)))
            continue
        wrong = _misnamed(shard, name, marker, published is not None) or _wrong(layout, marker)
        if wrong is None:
            return _Shard(marker)
        drop = (*markers, layout.label(shard))
        looks.append(_Shard(None, Finding(shard, wrong, _AGAIN, drop)))
    return looks[0]


def _for_good(layout: Layout, state: State, shard: str, finding: Finding) -> Finding:
    """What is broken and cannot be made again, since the input has it no more."""
    if not finding.drop:
        return finding  # another version's
    markers = (layout.marker(shard, name) for name in state.markers[shard])
    return replace(
        finding,
        remedy="its input is gone: verify --repair removes what is left of it",
        drop=(*markers, layout.label(shard)),
    )


def _misnamed(shard: str, name: MarkerName, marker: ShardMarker, vouched: bool) -> str | None:
    """How a marker contradicts its own name."""
    file = marker.label_file
    if marker.shard != shard or marker.run != name.run:
        return f"its marker is of {marker.shard} and run {marker.run}"
    if vouched and file_stamp(file.size, file.version) != name.stamp:
        return "its marker is of another label file than its name says"
    return None


def _wrong(layout: Layout, marker: ShardMarker) -> str | None:
    """What is wrong with a label file; None where it is what its marker says."""
    with tempfile.TemporaryDirectory(prefix="moderay-") as folder:
        file = Path(folder) / "labels.parquet"
        try:
            patiently(layout.fs, lambda: layout.fs.get_file(layout.label(marker.shard), str(file)))
        except FileNotFoundError:
            return "its label file is gone"
        size = file.stat().st_size
        if size != marker.label_file.size:
            return f"it has {size:,} bytes, and had {marker.label_file.size:,} when published"
        if local_digest(file) != marker.label_file.digest:
            return "its bytes are not those that were published"
        try:
            with pq.ParquetFile(file) as labels:
                return next(_contradictions(labels, marker), None)
        except (pa.ArrowException, OSError, ValueError) as error:
            return f"it cannot be read ({first_line(error)})"


def _contradictions(labels: pq.ParquetFile, marker: ShardMarker) -> Iterator[str]:
    """How a label file's content contradicts its marker."""
    schema = labels.schema_arrow
    if published_by(schema) != marker.run:
        yield f"it was written by run {published_by(schema)}, its marker by run {marker.run}"
    own = [ROW.name, CONTENT_HASH.name, FLAGGED.name, *marker.policies]
    if not set(own) <= set(schema.names) or not all(
        is_decision(schema.field(name).type) for name in marker.policies
    ):
        yield "its columns are not those of today's labels"
        return
    counted = _Counted(list(marker.policies))
    for batch in labels.iter_batches(columns=own):
        counted.add(batch)
    if not counted.in_order:
        yield "its rows are not in order"
    if counted.rows != marker.rows or counted.last >= marker.input_rows:
        yield (
            f"it has {counted.rows:,} rows up to row {counted.last:,}, its marker says "
            f"{marker.rows:,} of {marker.input_rows:,}"
        )
    if counted.flagged != marker.flagged:
        yield f"{counted.flagged:,} rows are flagged, its marker says {marker.flagged:,}"
    for name, statuses in counted.statuses.items():
        noted = {status: marker.policies[name].by_status(status) for status in statuses}
        if noted != dict(statuses):
            yield f"{name}: its rows by status are {dict(statuses)}, its marker says {noted}"


class _Counted:
    """Label rows, counted batch by batch."""

    def __init__(self, policies: Sequence[str]) -> None:
        self.rows = 0
        self.flagged = 0
        self.last = -1
        self.in_order = True
        self.statuses: dict[str, Counter[Status]] = {name: Counter() for name in policies}

    def add(self, batch: pa.RecordBatch) -> None:
        positions = batch.column(ROW.name).to_numpy()
        steps = np.diff(positions, prepend=self.last)
        self.in_order = self.in_order and bool(np.all(steps > 0))
        self.last = int(positions[-1]) if len(positions) else self.last
        self.rows += len(positions)
        self.flagged += pc.sum(batch.column(FLAGGED.name)).as_py() or 0
        for name, counts in self.statuses.items():
            for item in batch.column(name).field("status").value_counts().to_pylist():
                counts[Status(item["values"])] += item["counts"]


def _strays(layout: Layout, state: State) -> Iterator[Finding]:
    """Label files without a marker: a driver died before it could say that they are published."""
    for name in sorted(state.stamps.keys() - state.markers.keys()):
        if not name.endswith(".parquet"):
            continue
        path = layout.label(name)
        try:
            with layout.fs.open(path, "rb") as stream:
                run = published_by(pq.read_schema(stream))
        except (pa.ArrowException, OSError):
            continue  # somebody else's file
        if run is not None:
            problem = f"run {run} wrote it, and died before it could publish it"
            again = "run the job again: it is published then, unless its input is gone"
            yield Finding(name, problem, again, (path,))


def _scratch(layout: Layout, state: State, run: int | None) -> Iterator[Finding]:
    """Files that nobody has written for an hour, where a run's claim tells the store's time."""
    for path in state.scratch:
        if run is not None and is_abandoned(layout, path, run):
            removed = "run the job again: it removes it"
            yield Finding(_below(layout, path), "was never finished", removed, (path,))


def _manifests(layout: Layout, total: OutputTotal | None) -> Iterator[Finding]:
    """Manifests that cannot be read, and how the last one contradicts the markers.

    Args:
        layout: of the output.
        total: of the markers; None where they are not all there.
    """
    last: Manifest | None = None
    numbers = manifest_numbers(layout)
    for number in numbers:
        path = manifest_path(layout, number)
        if (data := read(layout.fs, path)) is None:
            continue  # later ones have come
        last = None
        try:
            last = Manifest.from_json(data, path)
        except RecordRefusedError as error:
            yield _refused(layout, path, error)
    if not numbers:
        yield Finding(
            "_moderay/manifest-N.json", "is not there", "run the job again: it writes one"
        )
    elif last is not None and total is not None:
        yield from _miscounted(_below(layout, manifest_path(layout, numbers[-1])), last, total)


def _miscounted(name: str, manifest: Manifest, total: OutputTotal) -> Iterator[Finding]:
    if manifest.status != "finished" or not manifest.complete:
        # Its counts are of the run before, or without shards whose input has changed since they
        # were published.
        return
    counted = total.manifest_fields()
    keys = ("shards", "input_rows", "rows", "flagged", "counts")
    if wrong := [key for key in keys if getattr(manifest, key) != counted[key]]:
        problem = f"does not say what the markers add up to ({', '.join(wrong)})"
        yield Finding(name, problem, "verify --repair adds up anew")
