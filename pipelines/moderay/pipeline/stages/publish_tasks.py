"""Shards whose units are all in, published in tasks on the cluster."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from moderay.core import events, ray_loss
from moderay.core.errors import TryAgainError, first_line
from moderay.core.events import event
from moderay.core.ray_loss import RayLostError, cause
from moderay.core.ray_runtime import end_with_raylet
from moderay.core.storage import plain_errors
from moderay.corpus.ranges import Range
from moderay.labels.layout import MarkerName, list_state, marker_name, read_markers
from moderay.labels.records import ShardMarker
from moderay.labels.shard_writer import Publication, ShardFailedError, publish, republish
from moderay.pipeline.check import Checked
from moderay.pipeline.control import metrics
from moderay.pipeline.manifest import OutputTotal
from moderay.pipeline.plan import Plan, Work

# By policy, what people said of contents: rows of `overruling.ANSWER`.
Answers = Mapping[str, pa.Table]


# Shards that one task publishes where more are whole than tasks may run, and rows of all of them: a
# task for each small shard takes longer than the shard does.
MOST_SHARDS, MOST_ROWS = 32, 100_000


@dataclass(frozen=True)
class _Waiting:
    """A shard that is whole.

    Attributes:
        work: The shard.
        units: Its rows, as they are saved.
        alone: Whether it is given a task of its own, since one that it shared has died.
    """

    work: Work
    units: Sequence[Range]
    alone: bool = False


class Publisher:
    """Publishing tasks, a few at a time; what is whole meanwhile waits, and is published together.

    Attributes:
        answers: By policy, what people said of contents: rows of `overruling.ANSWER`.
    """

    def __init__(self, checked: Checked, plan: Plan, run: int, most: int) -> None:
        """Of a run, by its number; `most`: tasks at once."""
        self._checked = checked
        self._plan = plan
        self._run = run
        self._most = most
        self._judge_keys = {cascade.policy.id: cascade.keys for cascade in checked.cascades}
        self._keys = {work.shard.name: work.key for work in plan.todo}
        self._waiting: deque[_Waiting] = deque()
        self._pending: dict[Any, list[_Waiting]] = {}
        self._failed: dict[str, str] = {}
        self._task = _task(checked.job.name)
        self._put: Any = None
        self._total = OutputTotal()
        self._published: set[str] = set()
        self.answers: Answers = plan.people.columns() if len(plan.people) else {}

    def start(self, work: Work, units: Sequence[Range]) -> None:
        """Publish a shard from its saved units, when it is its turn."""
        self._waiting.append(_Waiting(work, units))
        self._send()

    def _send(self) -> None:
        """Begin as many tasks as may run."""
        while self._waiting and len(self._pending) < self._most:
            shards = self._next()
            publications = [self.publication(one.work) for one in shards]
            if self._put is None:
                # Put once, not sent with each task: there may be a hundred thousand.
                self._put = ray.put(publications[0].answers)
            calls = [
                _call(one, dataclasses.replace(publication, answers={}))
                for one, publication in zip(shards, publications, strict=True)
            ]
            # Ray would begin one that died again with those that it had published.
            task = self._task if len(shards) == 1 else self._task.options(max_retries=0)
            self._pending[task.remote(calls, self._put)] = shards

    def _next(self) -> list[_Waiting]:
        """What the next task publishes: the first shard that waits, and small ones behind it.

        As many as leave the other tasks as much.
        """
        shards = [self._waiting.popleft()]
        rows = shards[0].work.shard.rows
        most = min(MOST_SHARDS, (len(self._waiting) + 1) // self._most)
        while self._waiting and len(shards) < most:
            behind = self._waiting[0]
            rows += behind.work.shard.rows
            if shards[0].alone or behind.alone or rows > MOST_ROWS:
                break
            shards.append(self._waiting.popleft())
        return shards

    def publication(self, work: Work) -> Publication:
        """What publishing a shard needs."""
        job = self._checked.job
        return Publication(
            self._plan.layout,
            work.shard,
            work.key,
            work.units,
            self._plan.decision,
            self._judge_keys,
            tuple(cascade.rule for cascade in self._checked.cascades),
            self._checked.scan.columns,
            job.output.reasoning,
            self._run,
            job.storage,
            job.input.content,
            self.answers,
        )

    def collect(self, wait: bool = False) -> None:
        """Take in what has ended."""
        if not self._pending:
            return
        tasks = list(self._pending)
        # One at least, or what there is.
        count, timeout = (1, None) if wait else (len(tasks), 0)
        for task in ray_loss.wait(tasks, count, timeout):
            shards = self._pending.pop(task)
            try:
                ends: list[ShardMarker | str] = ray.get(task)
            except ray.exceptions.RayError as error:
                if len(shards) > 1 and not isinstance(error, ray.exceptions.RayTaskError):
                    ray_loss.assert_there()
                    self._part(shards)
                    continue
                ends = [first_line(_of_the_shard(error))] * len(shards)
            for one, end in zip(shards, ends, strict=True):
                if isinstance(end, str):
                    self._fail(one.work.shard.name, end)
                else:
                    self.add(end)
        self._send()

    def _part(self, shards: Sequence[_Waiting]) -> None:
        """A task is lost: what it has not published is published by a task for each."""
        layout = self._plan.layout
        with plain_errors(layout.url):
            state = list_state(layout)
            for one in shards:
                shard = one.work.shard.name
                name = state.published(shard)
                if name is not None and (name.run, name.key) == (self._run, one.work.key):
                    for marker in read_markers(layout, [layout.marker(shard, name)]):
                        self.add(marker)
                else:
                    self._waiting.append(dataclasses.replace(one, alone=True))

    def _fail(self, shard: str, reason: str) -> None:
        self._failed[shard] = reason
        metrics.shard("failed")
        event("shard failed", logging.WARNING, shard=shard, reason=reason)

    def add(self, marker: ShardMarker) -> None:
        """Take in a shard that is published."""
        self._total.add(marker)
        self._published.add(self._path(marker))
        metrics.shard("published")
        event("shard published", shard=marker.shard, rows=marker.rows, flagged=marker.flagged)

    def _path(self, marker: ShardMarker) -> str:
        name = marker_name(marker, self._keys[marker.shard], self._plan.decision)
        return self._plan.layout.marker(marker.shard, name)

    def has_published(self, paths: Iterable[str]) -> bool:
        """Whether all of these markers are of shards that it published."""
        return self._published.issuperset(paths)

    def total_of(self, paths: Sequence[str]) -> OutputTotal:
        """What an output's published shards add up to; those of this run need not be read again.

        Args:
            paths: of their markers.
        """
        layout = self._plan.layout
        if not self._published <= set(paths):
            # Another driver's took the place of one of these.
            total, others = OutputTotal(), list(paths)
        else:
            total = copy.deepcopy(self._total)
            others = [path for path in paths if path not in self._published]
        for marker in read_markers(layout, others):
            total.add(marker)
        return total

    def finish(self, stopped: bool = False) -> dict[str, str]:
        """Wait for all; where the run was stopped, for what has been begun.

        Returns:
            The shards that failed, and why.
        """
        if stopped:
            self._waiting.clear()
        while self._pending:
            self.collect(wait=True)
        return self._failed


def _of_the_shard(error: ray.exceptions.RayError) -> Exception:
    """What a task died of, where other shards can be published.

    Raises:
        RayLostError: Ray, or something that only it can give back, is gone.
        Exception: Anything else that is not of one shard alone.
    """
    if isinstance(error, ray_loss.DIED):
        ray_loss.assert_there()
        died: Exception = error
        return died
    raised = cause(error)
    if isinstance(raised, RayLostError) or not isinstance(raised, TryAgainError):
        raise raised from error
    return raised


# A shard as a task is told of it, its markers that the new one takes the place of, and the rows of
# its units; None where it is published again.
_Call = tuple[Publication, Sequence[MarkerName], Sequence[Range] | None]


def _call(waiting: _Waiting, publication: Publication) -> _Call:
    work = waiting.work
    return publication, work.old, None if work.redecide else waiting.units


def _task(job: str) -> Any:
    """A publishing task: it waits for storage more than it computes."""
    from_units, again = publish, republish

    def published(publication: Publication, old: Any, units: Any) -> ShardMarker | str:
        events.in_worker(job, publication.run, shard=publication.shard.name)
        try:
            with plain_errors(publication.layout.url):
                if units is None:
                    return again(publication, old)
                return from_units(publication, units, old)
        except RayLostError:
            raise
        except (ShardFailedError, TryAgainError) as error:
            return first_line(error)

    def task(calls: Sequence[_Call], answers: Answers) -> list[ShardMarker | str]:
        end_with_raylet()
        return [
            published(dataclasses.replace(publication, answers=answers), old, units)
            for publication, old, units in calls
        ]

    return ray.remote(num_cpus=0)(task)
