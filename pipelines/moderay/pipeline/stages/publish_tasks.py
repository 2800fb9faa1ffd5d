"""Shards whose units are all in, published in tasks on the cluster."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from moderay.labels.layout import marker_name, read_markers
from moderay.labels.records import ShardMarker
from moderay.labels.shard_writer import Publication, ShardFailedError, publish, republish
from moderay.pipeline.check import Checked
from moderay.pipeline.control import metrics
from moderay.pipeline.manifest import OutputTotal
from moderay.pipeline.plan import Plan, Work

# By policy, what people said of contents: rows of `overruling.ANSWER`.
Answers = Mapping[str, pa.Table]


class Publisher:
    """Publishing tasks, a few at a time.

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
        self._pending: dict[Any, str] = {}
        self._failed: dict[str, str] = {}
        self._publish = _task(publish, checked.job.name)
        self._republish = _task(republish, checked.job.name)
        self._put: Any = None
        self._total = OutputTotal()
        self._published: set[str] = set()
        self.answers: Answers = plan.people.columns() if len(plan.people) else {}

    def start(self, work: Work, units: Sequence[Range]) -> None:
        """Publish a shard from its saved units; wait while there are too many tasks."""
        while len(self._pending) >= self._most:
            self.collect(wait=True)
        publication = self.publication(work)
        if self._put is None:
            # Put once, not sent with each task: there may be a hundred thousand.
            self._put = ray.put(publication.answers)
        bare = dataclasses.replace(publication, answers={})
        task = (
            self._republish.remote(bare, self._put, work.old)
            if work.redecide
            else self._publish.remote(bare, self._put, units, work.old)
        )
        self._pending[task] = work.shard.name

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
            shard = self._pending.pop(task)
            try:
                marker: ShardMarker = ray.get(task)
            except ray.exceptions.RayError as error:
                reason = first_line(_of_the_shard(error))
                self._failed[shard] = reason
                metrics.shard("failed")
                event("shard failed", logging.WARNING, shard=shard, reason=reason)
                continue
            self.add(marker)

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

    def finish(self) -> dict[str, str]:
        """Wait for all; the shards that failed, and why."""
        while self._pending:
            self.collect(wait=True)
        return self._failed


def _of_the_shard(error: ray.exceptions.RayError) -> Exception:
    """What a task ended with, where the other shards can be published.

    Raises:
        RayLostError: Ray, or something that only it can give back, is gone.
        Exception: Anything else that is not of one shard alone.
    """
    if isinstance(error, ray_loss.DIED):
        ray_loss.assert_there()
        died: Exception = error
        return died
    raised = cause(error)
    if isinstance(raised, RayLostError) or not isinstance(
        raised, (ShardFailedError, TryAgainError)
    ):
        raise raised from error
    return raised


def _task(work: Callable[..., ShardMarker], job: str) -> Any:
    """A publishing task: it waits for storage more than it computes."""

    def task(publication: Publication, answers: Answers, *args: Any) -> ShardMarker:
        end_with_raylet()
        events.in_worker(job, publication.run, shard=publication.shard.name)
        with plain_errors(publication.layout.url):
            return work(dataclasses.replace(publication, answers=answers), *args)

    return ray.remote(num_cpus=0)(task)
