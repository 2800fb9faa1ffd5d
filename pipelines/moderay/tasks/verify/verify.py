"""`moderay verify`: an output read in full, and held against what it says of itself.

Label files, markers, units, claims and the manifest are read; of each that is broken, or that
contradicts another, it is told what is wrong and what to do. A repair drops what is broken, so that
the next run makes it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.errors import UserError
from moderay.core.records import RecordRefusedError
from moderay.core.storage import get, plain_errors, read, remove, shown
from moderay.labels.label_file import published_by
from moderay.labels.layout import Layout, State, list_state, state_name
from moderay.labels.lease import Lease, claim_path, claims, is_abandoned, read_claim
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import (
    append_manifest,
    manifest_numbers,
    manifest_path,
    read_manifest,
)
from moderay.labels.unit_file import BrokenUnitError, parse_unit
from moderay.pipeline.manifest import OutputTotal
from moderay.tasks.verify.finding import FOR_GOOD, Finding, below, refused
from moderay.tasks.verify.shard import verified_shards


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
        _assert_output(layout)
        if not repair:
            return _verified(layout, tuple(claims(layout)))[0]
        with Lease(layout) as lease:
            lease.assert_alone()
            verified, total = _verified(layout, (), lease.run)
            _repair(layout, verified.findings, total)
    return replace(verified, repaired=True)


def _assert_output(layout: Layout) -> None:
    state = list_state(layout)
    if not state.markers and not state.units and _last_manifest(layout) is None:
        raise UserError(
            f"{shown(layout.url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
        )


def _last_manifest(layout: Layout) -> Manifest | RecordRefusedError | None:
    try:
        return read_manifest(layout)
    except RecordRefusedError as error:
        return error


def _verified(
    layout: Layout, writing: tuple[int, ...], run: int | None = None
) -> tuple[Verified, OutputTotal]:
    """What an output is like, and the total of those of its whole shards that a manifest counts.

    It counts what the input has, by the policies of today; the labels of the rest stay until they
    are pruned, or made anew.

    Args:
        layout: Of the output.
        writing: Runs that hold claims.
        run: The one that holds the output for a repair.
    """
    state, manifests = list_state(layout), dict(_manifests(layout))
    known = [manifest for manifest in manifests.values() if isinstance(manifest, Manifest)]
    gone = frozenset(known[-1].gone if known else ())
    policies = frozenset(known[-1].policies if known else ())
    findings = [*_claims(layout, writing), *_units(layout, state, gone)]
    total, whole = OutputTotal(), Counter[str]()
    # What is broken, or being written, is not in the total: that says nothing new.
    adds_up = not writing
    for shard in verified_shards(layout, state, gone):
        if isinstance(shard.result, Finding):
            findings.append(shard.result)
            adds_up = adds_up and shard.name in gone
            continue
        whole.update(shards=1, rows=shard.result.rows)
        if shard.name not in gone and shard.result.policies.keys() == policies:
            total.add(shard.result)
    findings += [*_strays(layout, state), *_scratch(layout, state, run)]
    findings += [each for each in manifests.values() if isinstance(each, Finding)]
    findings += _miscounted(layout, manifests, total) if adds_up and manifests else ()
    verified = Verified(whole["shards"], whole["rows"], writing, tuple(findings), False)
    return verified, total


def _repair(layout: Layout, findings: Sequence[Finding], total: OutputTotal) -> None:
    """Drop what is broken, and have the manifest say what is left."""
    for finding in findings:
        for path in finding.drop:
            remove(layout.fs, path)
    if not findings or not isinstance(_last_manifest(layout), Manifest):
        return
    published = list_state(layout).markers

    def repaired(before: Manifest | None) -> Manifest:
        assert before is not None, "it was there a moment ago"
        gone = tuple(shard for shard in before.gone if shard in published)
        update = {**total.manifest_fields(), "complete": False, "gone": gone}
        return Manifest.model_validate({**dict(before), **update})

    append_manifest(layout, repaired)


def _claims(layout: Layout, runs: Sequence[int]) -> Iterator[Finding]:
    for run in runs:
        try:
            read_claim(layout, run)
        except RecordRefusedError as error:
            yield refused(layout, claim_path(layout, run), error)


def _units(layout: Layout, state: State, gone: Collection[str]) -> Iterator[Finding]:
    """Units that are not whole."""
    for_good = set(map(state_name, gone))
    units = [
        (name, key, rows)
        for name, keys in state.units.items()
        for key, ranges in keys.items()
        for rows in ranges
    ]
    for name, key, rows in units:
        path = layout.private(f"units/{name}/{rows[0]}-{rows[1]}-{key}.arrow")
        try:
            parse_unit(get(layout.fs, path), rows)
        except FileNotFoundError:
            continue  # published meanwhile
        except BrokenUnitError as error:
            again = "run the job again: its rows are judged anew"
            remedy = FOR_GOOD if name in for_good else again
            yield Finding(below(layout, path), f"is no whole unit ({error})", remedy, (path,))


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
            yield Finding(below(layout, path), "was never finished", removed, (path,))


def _manifests(layout: Layout) -> Iterator[tuple[str, Manifest | Finding]]:
    """By path, in order: each manifest, or why it cannot be read."""
    numbers = manifest_numbers(layout)
    for number in numbers:
        path = manifest_path(layout, number)
        if (data := read(layout.fs, path)) is None:
            continue  # later ones have come
        try:
            yield path, Manifest.from_json(data, path)
        except RecordRefusedError as error:
            yield path, refused(layout, path, error)
    if not numbers:
        path = layout.private("manifest-N.json")
        yield path, Finding(below(layout, path), "is not there", "run the job again: it writes one")


def _miscounted(
    layout: Layout, manifests: Mapping[str, Manifest | Finding], total: OutputTotal
) -> Iterator[Finding]:
    """How the last manifest contradicts what the markers add up to."""
    path, last = list(manifests.items())[-1]
    if isinstance(last, Finding) or last.status != "finished" or not last.complete:
        # Its counts are of the run before, or without shards whose input has changed since they
        # were published.
        return
    counted = total.manifest_fields()
    keys = ("shards", "input_rows", "rows", "flagged", "counts")
    if wrong := [key for key in keys if getattr(last, key) != counted[key]]:
        problem = f"does not say what the markers add up to ({', '.join(wrong)})"
        yield Finding(below(layout, path), problem, "verify --repair adds up anew")
