"""What a run has to do: keys, what the output holds already, and what is left. No engine, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moderay.check import Checked, engine_and_judges
from moderay.errors import UserError
from moderay.identity import digest
from moderay.judges.reason import Reason
from moderay.shards import Shard
from moderay.state import Layout, Range, State, gaps, list_state, shard_key
from moderay.storage import plain_errors, read


@dataclass(frozen=True)
class Work:
    """One shard that is not published as this job wants it. `saved`: ranges judged already; `old`: its markers.
    `redecide`: the verdicts are there, only under other thresholds or beside other columns."""

    shard: Shard
    key: str
    saved: tuple[Range, ...]
    old: tuple[tuple[str, str], ...]
    redecide: bool

    @property
    def missing(self) -> list[Range]:
        return [] if self.redecide else gaps(self.shard.rows, self.saved)


@dataclass(frozen=True)
class Plan:
    """`todo`: shards to work on, in order. `done`: shards published already, with their markers' paths."""

    layout: Layout
    judges: tuple[Reason, ...]
    cascade: str
    selection: str
    decision: str
    todo: tuple[Work, ...]
    done: tuple[tuple[Shard, str], ...]
    manifest: Mapping[str, Any] | None

    @property
    def rows_left(self) -> int:
        return sum(end - start for work in self.todo for start, end in work.missing)


def make_plan(checked: Checked, replace: bool = False) -> Plan:
    """List the output and subtract. Raises `UserError` where it holds labels of another cascade or of another input's
    files, unless `replace`."""
    job = checked.job
    _, judges = engine_and_judges(job, checked.policies, gpus=0)
    layout = Layout(job.output.path, job.storage)
    cascade = digest({judge.policy.id: judge.key for judge in judges})
    selection = digest([job.input.content, job.input.where, job.input.sample])
    columns = {field.name: str(field.type) for field in checked.scan.columns}
    decision = digest([{policy.id: policy.threshold for policy in checked.policies}, columns])
    with plain_errors(job.output.path):
        manifest = read_manifest(layout)
        if not replace:
            _assert_same_cascade(layout, manifest, judges)
        state = list_state(layout)
    todo, done = _subtract(checked.scan.shards, state, layout, (cascade, selection, decision))
    if not replace:
        with plain_errors(job.output.path):
            _assert_same_source(layout, todo)
    return Plan(layout, tuple(judges), cascade, selection, decision, todo, done, manifest)


def read_manifest(layout: Layout) -> dict[str, Any] | None:
    data = read(layout.fs, layout.private("manifest.json"))
    return None if data is None else json.loads(data)


def _subtract(shards: Sequence[Shard], state: State, layout: Layout, keys: tuple[str, str, str]) -> tuple[tuple[Work, ...], tuple[tuple[Shard, str], ...]]:
    cascade, selection, decision = keys
    todo: list[Work] = []
    done: list[tuple[Shard, str]] = []
    for shard in shards:
        key = shard_key(shard, cascade, selection)
        old = state.markers.get(shard.name, ())
        saved = state.units.get((shard.name, key), ())
        if (key, decision) in old and not saved and len(old) == 1:
            done.append((shard, layout.marker(shard.name, key, decision)))
        else:
            todo.append(Work(shard, key, saved, old, redecide=any(key == published for published, _ in old)))
    return tuple(todo), tuple(done)


def _assert_same_cascade(layout: Layout, manifest: Mapping[str, Any] | None, judges: Sequence[Reason]) -> None:
    if manifest is None:
        return
    there: Mapping[str, Any] = {name: policy["judge"] for name, policy in manifest["policies"].items()}
    here = {judge.policy.id: judge.identity() for judge in judges}
    differs = [f"policy {name} is only {'there' if name in there else 'in this job'}" for name in sorted(there.keys() ^ here.keys())]
    for name in sorted(there.keys() & here.keys()):
        now = json.loads(json.dumps(here[name]))
        differs += [f"{name}: {field}{_both(there[name].get(field), now.get(field))}" for field in now if now[field] != there[name].get(field)]
    if differs:
        raise UserError(
            f"{layout.url} holds labels of another cascade ({'; '.join(differs)}): write to a new output.path, or give --replace to judge it all again"
        )


def _assert_same_source(layout: Layout, todo: Sequence[Work]) -> None:
    """A shard may have changed since it was labelled; labels of a file elsewhere are another job's."""
    for work in todo:
        if work.old and not work.redecide:
            marker = json.loads(layout.fs.cat_file(layout.marker(work.shard.name, *work.old[0])))
            if marker["source"] != work.shard.url:
                raise UserError(
                    f"{layout.url} holds labels of another input ({work.shard.name} is of {marker['source']}, and {work.shard.url} in this job): "
                    "write to a new output.path, or give --replace to judge it all again"
                )


def _both(there: object, here: object) -> str:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = [name for name in here if here[name] != there.get(name)]
        return ", ".join(f".{name} was {there.get(name)!r}, is {here[name]!r}" for name in names)
    shown = f" was {there!r}, is {here!r}"
    return shown if len(shown) < 80 else " differs"
