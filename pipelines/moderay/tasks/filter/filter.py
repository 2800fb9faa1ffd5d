"""`moderay filter`: labels and a rule -> kept, removed and held files, a card, and counts.

The files have the names of the input's. The labels' markers say which file each shard's labels are
of, so that labels alone suffice. What is filtered is done shard by shard, and a shard's own marker
says under which labels and rule: the same command goes on where it stopped. Another rule filters
all of it anew, where that is asked for.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import ray

from moderay.core import ray_loss
from moderay.core.errors import (
    ModerayError,
    StoppedError,
    TryAgainError,
    UserError,
    first_line,
)
from moderay.core.hashing import digest
from moderay.core.ray_logs import told_with_logs
from moderay.core.ray_runtime import end_with_raylet, resources, start_ray
from moderay.core.storage import plain_errors, remove, shown
from moderay.core.wording import counted
from moderay.corpus.formats import suffix
from moderay.labels.layout import Layout, MarkerName, State, read_files
from moderay.labels.lease import Lease, assert_held
from moderay.labels.prevalence_store import latest_estimates
from moderay.labels.shard_writer import ShardFailedError
from moderay.tasks.filter.commit import KeptFile, commit_kept
from moderay.tasks.filter.dataset_card import dataset_card
from moderay.tasks.filter.earlier import card_path, read_card
from moderay.tasks.filter.kept_table import Target, kept_rows
from moderay.tasks.filter.page import filter_page
from moderay.tasks.filter.records import (
    FATES,
    FilterCard,
    FilterMarker,
    FilterRows,
    Reasons,
    RuleRecord,
    TableChange,
)
from moderay.tasks.filter.request import FilterRequest, Labels, filter_rule
from moderay.tasks.filter.shard import FilterRule, Sifting, fates_stamp, nested_reasons, sift
from moderay.tasks.filter.source_table import (
    SourceTable,
    assert_in_place,
    kept_table,
    of_snapshot,
    path_in,
    source_table,
)

# Part of every filter's key: raise it when what is written changes.
FORMAT = 1


@dataclass(frozen=True)
class Filtered:
    """How it ended.

    Attributes:
        card: What `filter.json` says.
        worked: Whether there was anything to do.
    """

    card: FilterCard
    worked: bool

    @property
    def exit_status(self) -> int:
        """The process's: 1 where something is missing."""
        return 0 if self.card.complete else 1


PAGE = "filter.html"
# Is called with the number of shards done, and of all.
Progress = Callable[[int, int], None]


def filter_labels(
    labels: Labels,
    request: FilterRequest,
    storage: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> Filtered:
    """Filter what is not filtered yet under this rule.

    Args:
        labels: A finished output.
        request: What to do with its input's rows.
        storage: Options of the input's file system.
        progress: Is called with the number of shards done, and of all.

    Raises:
        Problems: Everything that is wrong, before anything is written.
        StoppedError: On Ctrl-C.
    """
    with plain_errors(request.folder):
        source = source_table(labels, storage, request.in_place)
        if source is not None:
            labels = of_snapshot(labels, source)
        if request.in_place:
            assert_in_place(request, labels, source)
    rule = filter_rule(labels, request, storage)
    layout = Layout(request.folder, storage)
    target = Target(layout, kept_table(request, source, storage))
    with plain_errors(request.folder):
        card = read_card(layout)
        if card is not None and _is_done(labels, rule, target, card):
            return Filtered(card, False)
        with Lease(layout, least=_left(labels, rule, target).next_run) as lease:
            left = _left(labels, rule, target)
            remove(layout.fs, card_path(layout))  # without it, the folder is not finished
            for name in left.gone:
                _forget(layout, name, left.there.markers[name])
            failed = _filter_shards(labels, rule, target, left, lease.run, storage, progress)
            left_now = _left(labels, rule, target)
            filtered = _markers(layout, left_now)
            assert_held(layout, lease.run)
            change = _commit(labels, rule, target, source, left_now, filtered, failed)
            card = _card(labels, rule, filtered, failed, left.gone, change)
            layout.write(f"{layout.root}/README.md", dataset_card(card).encode())
            layout.write(f"{layout.root}/{PAGE}", filter_page(card).encode())
            layout.write(card_path(layout), card.to_json())
    return Filtered(card, True)


def _commit(  # noqa: PLR0913, PLR0917  # all that a commit is made of
    labels: Labels,
    rule: FilterRule,
    target: Target,
    source: SourceTable | None,
    left: _Left,
    markers: Sequence[FilterMarker],
    failed: Mapping[str, str],
) -> TableChange | None:
    """Have the target's table hold what was kept, where there is one.

    Raises:
        UserError: In place, a shard could not be filtered: its rows would stay as if all were kept.
    """
    table = target.table
    if table is None:
        return None
    if failed and table.in_place:
        name, reason = next(iter(failed.items()))
        raise UserError(
            f"{shown(table.layout.url)} is as it was, since {counted(len(failed), 'file')} of it "
            f"could not be filtered, such as {name}: {reason}"
        )
    storage = labels.layout.options
    files = []
    for marker in markers:
        name = marker.shard
        path = name if source is None else path_in(source.layout, labels.markers[name], storage)
        assert path is not None, "asserted by `of_snapshot`"
        kept = table.name(name, left.keys[name], left.decision)
        files.append(KeptFile(path, kept, kept_rows(marker, rule.unselected), marker.rows.input))
    return commit_kept(table, source, files, rule.keep)


def _is_done(labels: Labels, rule: FilterRule, target: Target, card: FilterCard) -> bool:
    return (
        not _left(labels, rule, target).any
        and card.rule == _rule_record(rule)
        and card.missing == labels.missing
        and card.prevalence == latest_estimates(labels.layout)
    )


def _filter_shards(  # noqa: PLR0913, PLR0917  # what every `Sifting` is made of
    labels: Labels,
    rule: FilterRule,
    target: Target,
    left: _Left,
    run: int,
    storage: Mapping[str, Any],
    progress: Progress,
) -> dict[str, str]:
    """Filter the shards that are left; those that failed, and why."""
    works = [
        Sifting(
            rule,
            labels.layout,
            target.layout,
            labels.markers[name],
            left.keys[name],
            left.decision,
            left.others(name),
            run,
            storage,
            labels.shards.get(name),
            target.table,
        )
        for name in left.todo
    ]
    failed: dict[str, str] = {}
    for number, (name, error) in enumerate(_each(works), start=1):
        if error is not None:
            failed[name] = error
            _forget(target.layout, name, left.there.markers.get(name, ()))  # of another rule
        progress(len(left.keys) - len(works) + number, len(left.keys))
    return failed


@dataclass(frozen=True)
class _Left:
    """What there is to do.

    Attributes:
        keys: Of each shard's labels, by input file.
        decision: Of the rule.
        there: What the folder holds.
        in_place: Whether files that the input has lost are those that were filtered before.
    """

    keys: Mapping[str, str]
    decision: str
    there: State
    in_place: bool

    @property
    def todo(self) -> list[str]:
        """Shards that are not filtered yet."""
        return [name for name in self.keys if self.done(name) is None or self.others(name)]

    @property
    def gone(self) -> list[str]:
        """Shards that were filtered and have no labels any more."""
        return [] if self.in_place else sorted(self.there.markers.keys() - self.keys.keys())

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.todo or self.gone)

    @property
    def next_run(self) -> int:
        """A number that is higher than any run's that left a marker here."""
        markers = self.there.markers.values()
        return 1 + max((marker.run for names in markers for marker in names), default=-1)

    def done(self, name: str) -> MarkerName | None:
        """The marker of a shard that is filtered, and whose files are those of then."""
        key = self.keys[name]
        stamp = fates_stamp({fate: self.there.stamps.get(f"{fate}/{name}") for fate in FATES})
        of_these = (
            marker
            for marker in self.there.markers.get(name, ())
            if (marker.key, marker.decision, marker.stamp) == (key, self.decision, stamp)
        )
        return next(of_these, None)

    def others(self, name: str) -> tuple[MarkerName, ...]:
        """A shard's markers under other labels or another rule, or of other files."""
        done = self.done(name)
        return tuple(marker for marker in self.there.markers.get(name, ()) if marker != done)


def _left(labels: Labels, rule: FilterRule, target: Target) -> _Left:
    keys = {
        name: digest(
            [
                shown(labels.layout.url),
                shown(marker.source),
                labels.keys[name],
                marker.run,
            ]
        )
        for name, marker in labels.markers.items()
    }
    said = [FORMAT, _rule_record(rule).model_dump(mode="json")]
    table = target.table
    decision = digest(said if table is None else [*said, shown(table.layout.url)])
    in_place = table is not None and table.in_place
    return _Left(keys, decision, target.state(keys, decision), in_place)


def _markers(layout: Layout, left: _Left) -> list[FilterMarker]:
    """Of all shards that are filtered now."""
    done = {name: marker for name in left.keys if (marker := left.done(name)) is not None}
    paths = [layout.marker(name, marker) for name, marker in done.items()]
    return [FilterMarker.from_json(data, path) for path, data in read_files(layout, paths)]


def _forget(layout: Layout, name: str, markers: Sequence[MarkerName]) -> None:
    """Remove what was filtered of a shard whose labels are gone; the markers last."""
    for fate in FATES:
        remove(layout.fs, layout.label(f"{fate}/{name}"))
    for marker in markers:
        remove(layout.fs, layout.marker(name, marker))


def _each(works: Sequence[Sifting]) -> Iterator[tuple[str, str | None]]:
    """Filter shards side by side; each one's name as it ends, with the reason where it failed.

    On a cluster, in tasks there; on one machine in threads, since starting a Ray takes longer than
    most filters.
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
    task = ray.remote(num_cpus=1)(_in_worker)
    left = iter(works)
    names: dict[Any, str] = {}
    most = 2 * math.ceil(resources().cpus)
    try:
        while True:
            with told_with_logs(), ray_loss.ray_errors():
                names |= {
                    task.remote(work): work.name
                    for work in itertools.islice(left, most - len(names))
                }
                if not names:
                    return
                [ready] = ray_loss.wait(list(names), 1)
                yield names.pop(ready), _failure(ready)
    except KeyboardInterrupt:
        raise _stopped() from None


def _failure(task: Any) -> str | None:
    """Why a task that has ended failed; None where it did not.

    Raises:
        RayLostError: Ray is gone.
    """
    try:
        failure: str | None = ray.get(task)
    except ray_loss.DIED as error:
        ray_loss.assert_there()
        return first_line(error)
    return failure


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


def _rule_record(rule: FilterRule) -> RuleRecord:
    """A rule, as `filter.json` has it."""
    return RuleRecord(
        keep=rule.keep,
        thresholds={decision.policy: decision.threshold for decision in rule.decisions},
        unselected=rule.unselected,
        verdicts=rule.verdicts,
    )


def _card(  # noqa: PLR0913, PLR0917  # all that it tells
    labels: Labels,
    rule: FilterRule,
    markers: Sequence[FilterMarker],
    failed: Mapping[str, str],
    gone: Sequence[str],
    table: TableChange | None,
) -> FilterCard:
    """`filter.json`. Raises AssertionError where the counts do not add up."""
    rows = sum((marker.rows for marker in markers), start=FilterRows())
    assert rows.add_up, rows
    manifest = labels.manifest
    return FilterCard(
        name=manifest.name,
        labels=shown(labels.layout.url),
        complete=not failed and not labels.missing,
        rule=_rule_record(rule),
        shards=len(markers),
        files=tuple(sorted({suffix(name) for name in labels.markers.keys() - failed.keys()})),
        rows=rows,
        removed=_added(marker.removed for marker in markers),
        held=_added(marker.held for marker in markers),
        missing=labels.missing,
        failed=failed,
        gone=tuple(gone),
        policies={
            decision.policy: manifest.policies[decision.policy].model_copy(
                update={"threshold": decision.threshold}
            )
            for decision in rule.decisions
        },
        selection=manifest.selection,
        run=manifest.last_run,
        table=table,
        prevalence=latest_estimates(labels.layout),
    )


def _added(parts: Iterable[Reasons]) -> dict[str, dict[str, int]]:
    """Rows by policy and reason, of all shards."""
    total = Counter[tuple[str, str]]()
    for part in parts:
        for policy, counts in part.items():
            total.update({(policy, reason): count for reason, count in counts.items()})
    return nested_reasons(total)
