"""`moderay filter`: labels and a rule -> kept, removed and held files of the same names as the
input's, a card, and counts.

The labels' markers say which file each shard's labels are of, so that labels alone suffice. What is
filtered is done shard by shard, and a shard's own marker says under which labels and rule: the same
command goes on where it stopped, and another rule does only that.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import ray

from moderay.core.errors import ModerayError, StoppedError, TryAgainError, first_line
from moderay.core.hashing import digest
from moderay.core.ray_runtime import end_with_raylet, resources, start_ray
from moderay.core.storage import plain_errors, read, remove, shown
from moderay.corpus.formats import suffix
from moderay.labels.layout import Layout, list_state, read_files
from moderay.labels.lease import Lease
from moderay.labels.shard_writer import ShardFailedError
from moderay.pipeline.stages.publish_tasks import cause
from moderay.tasks.filter.dataset_card import dataset_card
from moderay.tasks.filter.request import Labels, Wanted, checked
from moderay.tasks.filter.rule import FATES
from moderay.tasks.filter.shard import Rule, Sifting, sift

# Part of every filter's key: raise it when what is written changes.
FORMAT = 1


@dataclass(frozen=True)
class Filtered:
    """How it ended: `summary` is what `filter.json` says; `worked`: whether there was anything to
    do.
    """

    summary: Mapping[str, Any]
    worked: bool

    @property
    def exit_status(self) -> int:
        return 0 if self.summary["complete"] else 1


def filter_labels(
    labels: Labels,
    asked: Wanted,
    storage: Mapping[str, Any],
    say: Callable[[int, int], None] = lambda done, all_: None,
) -> Filtered:
    """Filter what is not filtered yet under this rule. `say`: told the number of shards done, and
    of all. Raises `Problems` with everything wrong before anything is written, `StoppedError` on
    Ctrl-C.
    """
    rule = checked(labels, asked, storage)
    layout = Layout(asked.out, storage)
    with plain_errors(asked.out):
        summary = _read_summary(layout)
        if (
            not _left(labels, rule, layout).any
            and summary is not None
            and summary["rule"] == _told(rule)
            and summary["missing"] == labels.missing
        ):
            return Filtered(summary, False)
        with Lease(layout) as lease:
            left = _left(labels, rule, layout)
            remove(layout.fs, _json(layout))  # without it, the folder is not finished
            for name in left.gone:
                _forget(layout, name, left.there[name])
            works = [
                Sifting(
                    rule,
                    labels.layout,
                    layout,
                    labels.markers[name],
                    left.keys[name],
                    left.decision,
                    left.others(name),
                    lease.epoch,
                    storage,
                )
                for name in left.todo
            ]
            failed: dict[str, str] = {}
            for number, (name, error) in enumerate(_each(works), start=1):
                if error is not None:
                    failed[name] = error
                    _forget(layout, name, left.there.get(name, ()))  # of another rule
                say(len(left.keys) - len(works) + number, len(left.keys))
            done = [
                layout.marker(name, key, left.decision)
                for name, key in left.keys.items()
                if name not in failed
            ]
            markers = [json.loads(data) for _, data in read_files(layout, done)]
            summary = _summary(labels, rule, markers, failed, left.gone)
            layout.write(f"{layout.root}/README.md", dataset_card(summary).encode())
            layout.write(_json(layout), json.dumps(summary, indent=1, ensure_ascii=False).encode())
    return Filtered(summary, True)


@dataclass(frozen=True)
class _Left:
    """What there is to do. `keys`: of each shard's labels; `decision`: of the rule; `there`:
    markers of what is filtered already.
    """

    keys: Mapping[str, str]
    decision: str
    there: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def todo(self) -> list[str]:
        return [
            name
            for name, key in self.keys.items()
            if (key, self.decision) not in self.there.get(name, ()) or self.others(name)
        ]

    @property
    def gone(self) -> list[str]:
        """Shards that were filtered and have no labels any more."""
        return sorted(self.there.keys() - self.keys.keys())

    @property
    def any(self) -> bool:
        return bool(self.todo or self.gone)

    def others(self, name: str) -> tuple[tuple[str, str], ...]:
        """A shard's markers under other labels or another rule."""
        return tuple(
            marker
            for marker in self.there.get(name, ())
            if marker != (self.keys[name], self.decision)
        )


def _left(labels: Labels, rule: Rule, layout: Layout) -> _Left:
    keys = {
        name: digest([labels.layout.url, marker.source, labels.marker_names[name], marker.run])
        for name, marker in labels.markers.items()
    }
    return _Left(keys, digest([FORMAT, _told(rule)]), list_state(layout).markers)


def _json(layout: Layout) -> str:
    return f"{layout.root}/filter.json"


def _read_summary(layout: Layout) -> dict[str, Any] | None:
    """What a finished filter said of itself, None where there is none."""
    data = read(layout.fs, _json(layout))
    return None if data is None else json.loads(data)


def _forget(layout: Layout, name: str, markers: Sequence[tuple[str, str]]) -> None:
    """Remove what was filtered of a shard whose labels are gone; the markers last."""
    for fate in FATES:
        remove(layout.fs, layout.label(f"{fate}/{name}"))
    for marker in markers:
        remove(layout.fs, layout.marker(name, *marker))


def _each(works: Sequence[Sifting]) -> Iterator[tuple[str, str | None]]:
    """Filter shards side by side; each one's name as it ends, with the reason where it failed. On a
    cluster, in tasks there; on one machine in threads, since starting a Ray takes longer than most
    filters.
    """
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
    """No more of them at once than keep the cluster's cores busy: each wait looks at all."""
    start_ray()
    task, left, names = ray.remote(num_cpus=1)(_in_worker), iter(works), dict[Any, str]()
    most = 2 * math.ceil(resources()[1])
    try:
        while True:
            names |= {
                task.remote(work): work.name for work in itertools.islice(left, most - len(names))
            }
            if not names:
                return
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
    except (ShardFailedError, TryAgainError) as error:
        return first_line(error)
    return None


def _stopped() -> ModerayError:
    return StoppedError(
        "stopped by Ctrl-C: what is filtered is kept, and the same command goes on from there", 3
    )


def _told(rule: Rule) -> dict[str, Any]:
    """A rule, for `filter.json`."""
    return {
        "keep": rule.keep,
        "thresholds": {policy.id: policy.threshold for policy in rule.policies},
        "unselected": rule.unselected,
        "verdicts": rule.verdicts,
    }


def _summary(
    labels: Labels,
    rule: Rule,
    markers: Sequence[Mapping[str, Any]],
    failed: Mapping[str, str],
    gone: Sequence[str],
) -> dict[str, Any]:
    """`filter.json`. Raises AssertionError where the counts do not add up."""
    rows: Counter[str] = Counter()
    for marker in markers:
        rows.update(marker["rows"])
    assert rows["in"] == rows["kept"] + rows["removed"] + rows["held"] + rows["unselected"], rows
    missing = labels.missing
    return {
        "name": labels.manifest.name,
        "labels": shown(labels.layout.url),
        "complete": not failed and not missing,
        "rule": _told(rule),
        "shards": len(markers),
        "files": sorted({suffix(name) for name in labels.markers.keys() - failed.keys()}),
        "rows": {name: rows[name] for name in ("in", *FATES, "unselected")},
        **{fate: _added(markers, fate) for fate in ("removed", "held")},
        "missing": missing,
        "failed": dict(failed),
        "gone": list(gone),
        "policies": {
            policy.id: {
                **labels.manifest.policies[policy.id].model_dump(mode="json"),
                "threshold": policy.threshold,
            }
            for policy in rule.policies
        },
        "selection": labels.manifest.selection.model_dump(mode="json"),
        "run": labels.manifest.last_run.model_dump(mode="json", exclude_none=True),
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
