"""`moderay filter`: labels and a rule -> kept, removed and held files of the same names as the input's, a card, and counts.

The labels' markers say which file each shard's labels are of, so that labels alone suffice. What is filtered is done shard by shard, and
a shard's own marker says under which labels and rule: the same command goes on where it stopped, and another rule does only that.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, cast, get_args

import pyarrow.parquet as pq
import ray

from moderay.check import Checked
from moderay.cluster import end_with_raylet, start_ray
from moderay.dataset_card import dataset_card
from moderay.errors import ModerayError, Problem, Problems, Stopped, TryAgain, UserError, first_line, nearest
from moderay.identity import digest
from moderay.job import Job, Unselected
from moderay.keep import TOLD, rule_problems
from moderay.plan import read_manifest
from moderay.policy import Label, Policy
from moderay.publish import ShardFailed
from moderay.publishing import cause
from moderay.records import FLAGGED
from moderay.sieve import FATES, Fate, Rule, Sifting, changed, sift
from moderay.state import Layout, Lease, list_state, read_markers
from moderay.storage import RemoteFile, filesystem, place, plain_errors, read, remove, shown

# Part of every filter's key: raise it when what is written changes.
FORMAT = 1
# Problems of one kind that are named.
NAMED = 5
_UNSAID = "rows of the input are not selected for judging", "say what becomes of them: --unselected keep, remove or hold"
_FATE: Mapping[str, Fate] = dict(zip(get_args(Unselected), FATES, strict=True))


@dataclass(frozen=True)
class Wanted:
    """What a person asks for. `keep`: the rule; `thresholds`: by policy, where not those of the labels; `unselected`: keep, remove or
    hold what was not to be judged."""

    keep: str
    out: str
    thresholds: Mapping[str, float]
    unselected: Unselected | None = None
    verdicts: bool = False


@dataclass(frozen=True)
class Labels:
    """A finished output. `markers`: of its shards, each with the name of its own file."""

    layout: Layout
    manifest: Mapping[str, Any]
    markers: Mapping[str, Mapping[str, Any]]
    policies: tuple[Policy, ...]

    @property
    def missing(self) -> dict[str, str]:
        """Shards that have no labels, and why."""
        return {**dict(self.manifest["unreadable"]), **self.manifest["failed"]}


@dataclass(frozen=True)
class Filtered:
    """How it ended: `summary` is what `filter.json` says; `worked`: whether there was anything to do."""

    summary: Mapping[str, Any]
    worked: bool

    @property
    def exit_status(self) -> int:
        return 0 if self.summary["complete"] else 1


def wanted(job: Job | None, keep: str | None, out: str | None, thresholds: Sequence[str], unselected: str | None, verdicts: bool) -> Wanted:
    """What the command line asks for, over what the job's `filter:` does. Raises `UserError`."""
    said = job.filter if job is not None else None
    keep, out = keep or (said.keep if said else None), out or (said.out if said else None)
    if keep is None or out is None:
        raise UserError(f"filter needs {'--keep RULE' if keep is None else '--out DIR'}, or a filter: in the job with keep and out")
    if unselected is not None and unselected not in _FATE:
        raise UserError(f"--unselected {unselected!r}: valid are {', '.join(_FATE)}")
    found = dict(said.thresholds) if said else {}
    for text in thresholds:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UserError(f"--threshold {text!r}: give POLICY=NUMBER, such as spam=0.7") from None
    fate = cast("Unselected | None", unselected) or (said.unselected if said else None)
    return Wanted(keep, out, found, fate, verdicts or bool(said and said.verdicts))


def check_job(asked: Wanted, found: Checked) -> None:
    """What can be said before the job's rows are labelled. Raises `Problems`."""
    ids, job = [policy.id for policy in found.policies], found.job
    problems = [Problem("keep", None, *wrong) for wrong in rule_problems(asked.keep, ids)]
    problems += [Problem("threshold", None, f"no policy {name!r}", nearest(name, ids)) for name in asked.thresholds if name not in ids]
    problems += _name_problems(found.scan.shards[0].url, asked, ids, job.storage)
    if (job.input.where or job.input.sample) and asked.unselected is None:
        problems.append(Problem("unselected", None, *_UNSAID))
    if problems:
        raise Problems(problems)


def read_labels(url: str, storage: Mapping[str, Any]) -> Labels:
    """An output's labels. Raises `UserError` where there are none, or where their run has not ended."""
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        if manifest is None:
            raise UserError(f"{shown(url)} holds no labels of moderay: it has no _moderay/manifest.json")
        if (status := manifest["runs"][-1]["status"]) != "finished":
            raise UserError(f"the labels in {shown(url)} are not finished (the last run: {status}): run their job to its end first")
        found = {name: markers[-1] for name, markers in sorted(list_state(layout).markers.items())}
        read = read_markers(layout, [layout.marker(name, *marker) for name, marker in found.items()])
    policies = tuple(_policy(name, said) for name, said in manifest["policies"].items())
    return Labels(layout, manifest, {marker["shard"]: {**marker, "file": found[marker["shard"]]} for marker in read}, policies)


def _policy(name: str, said: Mapping[str, Any]) -> Policy:
    """A policy as a manifest has it: what of it decides."""
    judge = said["cascade"][-1]
    labels = {label: Label(violates=violates) for label, violates in judge["labels"].items()}
    return Policy(
        id=name, title=said["title"], version=said["version"], labels=labels, answer=judge["answer"], threshold=said["threshold"], text=judge["policy"]
    )


def filter_labels(labels: Labels, asked: Wanted, storage: Mapping[str, Any], say: Callable[[int, int], None] = lambda done, all_: None) -> Filtered:
    """Filter what is not filtered yet under this rule. `say`: told the number of shards done, and of all. Raises `Problems` with
    everything wrong before anything is written, `Stopped` on Ctrl-C."""
    rule = checked(labels, asked, storage)
    layout = Layout(asked.out, storage)
    with plain_errors(asked.out):
        summary = read_summary(layout)
        if not _left(labels, rule, layout).any and summary is not None and summary["rule"] == _told(rule) and summary["missing"] == labels.missing:
            return Filtered(summary, False)
        with Lease(layout) as lease:
            left = _left(labels, rule, layout)
            remove(layout.fs, _json(layout))  # without it, the folder is not finished
            for name in left.gone:
                _forget(layout, name, left.there[name])
            works = [
                Sifting(rule, labels.layout, layout, labels.markers[name], left.keys[name], left.decision, left.others(name), lease.epoch, storage)
                for name in left.todo
            ]
            failed: dict[str, str] = {}
            for number, (name, error) in enumerate(_each(works), start=1):
                if error is not None:
                    failed[name] = error
                    _forget(layout, name, left.there.get(name, ()))  # of another rule
                say(len(left.keys) - len(works) + number, len(left.keys))
            done = [layout.marker(name, key, left.decision) for name, key in left.keys.items() if name not in failed]
            summary = _summary(labels, rule, read_markers(layout, done), failed, left.gone)
            layout.write(f"{layout.root}/README.md", dataset_card(summary).encode())
            layout.write(_json(layout), json.dumps(summary, indent=1, ensure_ascii=False).encode())
    return Filtered(summary, True)


@dataclass(frozen=True)
class _Left:
    """What there is to do. `keys`: of each shard's labels; `decision`: of the rule; `there`: markers of what is filtered already."""

    keys: Mapping[str, str]
    decision: str
    there: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def todo(self) -> list[str]:
        return [name for name, key in self.keys.items() if (key, self.decision) not in self.there.get(name, ()) or self.others(name)]

    @property
    def gone(self) -> list[str]:
        """Shards that were filtered and have no labels any more."""
        return sorted(self.there.keys() - self.keys.keys())

    @property
    def any(self) -> bool:
        return bool(self.todo or self.gone)

    def others(self, name: str) -> tuple[tuple[str, str], ...]:
        """A shard's markers under other labels or another rule."""
        return tuple(marker for marker in self.there.get(name, ()) if marker != (self.keys[name], self.decision))


def _left(labels: Labels, rule: Rule, layout: Layout) -> _Left:
    keys = {name: digest([labels.layout.url, marker["source"], marker["file"], marker["run"]]) for name, marker in labels.markers.items()}
    return _Left(keys, digest([FORMAT, _told(rule)]), list_state(layout).markers)


def _json(layout: Layout) -> str:
    return f"{layout.root}/filter.json"


def read_summary(layout: Layout) -> dict[str, Any] | None:
    """What a finished filter said of itself, None where there is none."""
    data = read(layout.fs, _json(layout))
    return None if data is None else json.loads(data)


def checked(labels: Labels, asked: Wanted, storage: Mapping[str, Any]) -> Rule:
    """The rule that is asked for, on these labels. Raises `Problems`."""
    ids = [policy.id for policy in labels.policies]
    problems = [Problem("keep", None, *wrong) for wrong in rule_problems(asked.keep, ids)]
    problems += _threshold_problems(labels, asked.thresholds)
    problems += _place_problems(labels, asked.out, storage)
    lost = _source_problems(labels, storage)
    if labels.markers and not lost:
        problems += _name_problems(next(iter(labels.markers.values()))["source"], asked, ids, storage)
    problems += lost
    selected = all(marker["rows"] == marker["input_rows"] for marker in labels.markers.values())
    if not selected and asked.unselected is None:
        rows = sum(marker["input_rows"] - marker["rows"] for marker in labels.markers.values())
        problems.append(Problem("unselected", None, f"{rows:,} {_UNSAID[0]}", _UNSAID[1]))
    if problems:
        raise Problems(problems)
    policies = tuple(policy.model_copy(update={"threshold": asked.thresholds.get(policy.id, policy.threshold)}) for policy in labels.policies)
    fate = None if selected or asked.unselected is None else _FATE[asked.unselected]
    return Rule(asked.keep, policies, fate, asked.verdicts)


def _threshold_problems(labels: Labels, thresholds: Mapping[str, float]) -> Iterator[Problem]:
    policies = {policy.id: policy for policy in labels.policies}
    for name, threshold in thresholds.items():
        key = f"threshold {name}={threshold:g}"
        if name not in policies:
            yield Problem(key, None, f"no policy {name!r}", nearest(name, policies))
        elif not 0 < threshold <= 1:
            yield Problem(key, None, "a threshold is above 0 and at most 1")
        elif threshold < policies[name].threshold and "screen" in [judge["judge"] for judge in labels.manifest["policies"][name]["cascade"]]:
            yield Problem(
                key, None, f"a screen settled rows of {name} for a threshold of {policies[name].threshold:g}, and promises nothing for a lower one",
                "set it in the policy and run the job: it judges these rows again",
            )  # fmt: skip


def _place_problems(labels: Labels, out: str, storage: Mapping[str, Any]) -> Iterator[Problem]:
    here = place(out, storage)
    roots = {marker["source"].removesuffix(name).rstrip("/") for name, marker in labels.markers.items()}
    for what, url in [("labels", labels.layout.url), *[("input", root) for root in sorted(roots)]]:
        if here.startswith(place(url, storage)):
            yield Problem("out", None, f"{shown(out)} lies inside the {what} {shown(url)}", "write it elsewhere")


def _name_problems(source: str, asked: Wanted, policies: Sequence[str], storage: Mapping[str, Any]) -> Iterator[Problem]:
    """Columns of a shard with the name of one that is added."""
    with plain_errors(source):
        names = pq.read_schema(RemoteFile(*filesystem(source, storage))).names
    if TOLD.name in names:
        yield Problem(source, None, f"a column {TOLD.name!r}, the name of the one that says why rows were removed or held", "rename it in the input")
    if asked.verdicts and (both := {FLAGGED.name, *policies} & set(names)):
        yield Problem("verdicts", None, f"the input has columns of these names: {', '.join(sorted(both))}", "leave --verdicts out")


def _source_problems(labels: Labels, storage: Mapping[str, Any]) -> list[Problem]:
    """Shards whose source is gone or another version."""
    with ThreadPoolExecutor(16) as pool:
        found = [wrong for wrong in pool.map(lambda marker: changed(marker, storage), labels.markers.values()) if wrong]
    hint = "run the job again: it judges what changed; --prune removes the labels of what is gone"
    problems = [Problem(labels.layout.url, None, wrong, hint) for wrong in found[:NAMED]]
    return [*problems, *([Problem(labels.layout.url, None, f"{len(found) - NAMED:,} more like these", hint)] if len(found) > NAMED else [])]


def _forget(layout: Layout, name: str, markers: Sequence[tuple[str, str]]) -> None:
    """Remove what was filtered of a shard whose labels are gone; the markers last."""
    for fate in FATES:
        remove(layout.fs, layout.label(f"{fate}/{name}"))
    for marker in markers:
        remove(layout.fs, layout.marker(name, *marker))


def _each(works: Sequence[Sifting]) -> Iterator[tuple[str, str | None]]:
    """Filter shards side by side; each one's name as it ends, with the reason where it failed. On a cluster, in tasks there; on one
    machine in threads, since starting a Ray takes longer than most filters."""
    if not works:
        return
    if ray.is_initialized() or os.environ.get("RAY_ADDRESS", "local") != "local":
        yield from _in_tasks(works)
        return
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        tasks = {pool.submit(_sifted, work): work.name for work in works}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise _stopped() from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _in_tasks(works: Sequence[Sifting]) -> Iterator[tuple[str, str | None]]:
    start_ray()
    task = ray.remote(num_cpus=1)(_in_worker)
    names = {task.remote(work): work.name for work in works}
    try:
        while names:
            [ready], _ = ray.wait(list(names), num_returns=1)
            yield names.pop(ready), ray.get(ready)
    except ray.exceptions.RayError as error:
        raise cause(error) from error
    except KeyboardInterrupt:
        raise _stopped() from None


def _in_worker(work: Sifting) -> str | None:
    end_with_raylet()
    return _sifted(work)


def _sifted(work: Sifting) -> str | None:
    try:
        with plain_errors(work.out.url):
            sift(work)
    except (ShardFailed, TryAgain) as error:
        return first_line(error)
    return None


def _stopped() -> ModerayError:
    return Stopped("stopped by Ctrl-C: what is filtered is kept, and the same command goes on from there", 3)


def _told(rule: Rule) -> dict[str, Any]:
    """A rule, for `filter.json`."""
    return {
        "keep": rule.keep,
        "thresholds": {policy.id: policy.threshold for policy in rule.policies},
        "unselected": rule.unselected,
        "verdicts": rule.verdicts,
    }


def _summary(labels: Labels, rule: Rule, markers: Sequence[Mapping[str, Any]], failed: Mapping[str, str], gone: Sequence[str]) -> dict[str, Any]:
    """`filter.json`. Raises AssertionError where the counts do not add up."""
    rows: Counter[str] = Counter()
    for marker in markers:
        rows.update(marker["rows"])
    assert rows["in"] == rows["kept"] + rows["removed"] + rows["held"] + rows["unselected"], rows
    missing = labels.missing
    return {
        "name": labels.manifest["name"],
        "labels": shown(labels.layout.url),
        "complete": not failed and not missing,
        "rule": _told(rule),
        "shards": len(markers),
        "rows": {name: rows[name] for name in ("in", *FATES, "unselected")},
        **{fate: _added(markers, fate) for fate in ("removed", "held")},
        "missing": missing,
        "failed": dict(failed),
        "gone": list(gone),
        "policies": {policy.id: {**labels.manifest["policies"][policy.id], "threshold": policy.threshold} for policy in rule.policies},
        "selection": labels.manifest["selection"],
        "run": labels.manifest["runs"][-1],
    }


def _added(markers: Sequence[Mapping[str, Any]], fate: str) -> dict[str, dict[str, int]]:
    """Rows by policy and label (or status), the most frequent first."""
    total: Counter[tuple[str, str]] = Counter()
    for marker in markers:
        for policy, reason, count in marker[fate]:
            total[policy, reason] += count
    found: dict[str, dict[str, int]] = {}
    for (policy, reason), count in total.most_common():
        found.setdefault(policy, {})[reason] = count
    return found
