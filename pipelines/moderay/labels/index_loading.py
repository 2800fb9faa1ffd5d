"""The index learns of earlier outputs: their label files are read in tasks on the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from moderay.core import ray_loss
from moderay.core.errors import first_line
from moderay.core.ray_runtime import end_with_raylet
from moderay.labels.earlier_outputs import LabelFile
from moderay.labels.index import Index
from moderay.labels.layout import Layout
from moderay.labels.lookup import UNREADABLE
from moderay.labels.partition import File
from moderay.labels.reuse import entries

# Label files that one loading task reads.
LOAD_FILES = 16
# What a task ends in that Ray has lost.
_LOST_TASK = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)
# Cores of such a task, as Ray counts them: where there are two, an engine starts and units are read
# beside it.
LOAD_CPUS = 0.5


@dataclass(frozen=True)
class Loaded:
    """What the index was given.

    Attributes:
        rows: entries.
        unreadable: by shard, why its verdicts are not used.
    """

    rows: int
    unreadable: Mapping[str, str]


@dataclass(frozen=True)
class Loading:
    """Tasks that tell the index of earlier label files; picklable.

    Attributes:
        calls: one for each task; it ends in what it has `Loaded`.
        shards: the label files of each, for the driver.
    """

    calls: tuple[Any, ...] = ()
    shards: tuple[tuple[str, ...], ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether all are in, or lost."""
        if not self.calls:
            return True
        calls = list(self.calls)
        _, left = ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False)
        return not left

    def wait(self) -> None:
        """Until all are in, or lost; raises what one of them failed with.

        For a worker, which ends when Ray does. It blocks: in asyncio, call it in a thread.
        """
        for call in self.calls:
            with suppress(*_LOST_TASK):
                ray.get(call)

    def so_far(self) -> Loaded:
        """What those have that are through."""
        if not self.calls:
            return Loaded(0, {})
        over, _ = ray.wait(list(self.calls), num_returns=len(self.calls), timeout=0)
        through = [
            (call, shards)
            for call, shards in zip(self.calls, self.shards, strict=True)
            if call in over
        ]
        return _together(_loaded(call, shards) for call, shards in through)

    def for_workers(self) -> Loading:
        """Without the names, which only the driver needs."""
        return Loading(self.calls)


def start_loading(index: Index, outputs: Sequence[Layout], files: Sequence[LabelFile]) -> Loading:
    """Tell the index of earlier label files, in tasks on the cluster."""
    task = ray.remote(num_cpus=LOAD_CPUS)(_load)
    parts = [files[i : i + LOAD_FILES] for i in range(0, len(files), LOAD_FILES)]
    return Loading(
        tuple(task.remote(index, tuple(outputs), part) for part in parts),
        tuple(tuple(file.shard for file in part) for part in parts),
    )


def _loaded(call: Any, shards: Sequence[str]) -> Loaded:
    """What a task has loaded: nothing, where Ray has lost it."""
    try:
        loaded: Loaded = ray_loss.get(call)
    except _LOST_TASK as error:
        reason = f"Ray lost the task that read it ({type(error).__name__})"
        return Loaded(0, dict.fromkeys(shards, reason))
    return loaded


def _together(parts: Iterable[Loaded]) -> Loaded:
    rows, unreadable = 0, dict[str, str]()
    for part in parts:
        rows, unreadable = rows + part.rows, unreadable | dict(part.unreadable)
    return Loaded(rows, unreadable)


def _load(index: Index, outputs: Sequence[Layout], files: Sequence[LabelFile]) -> Loaded:
    """Task: some files."""
    end_with_raylet()
    rows, unreadable = 0, dict[str, str]()
    for file in files:
        try:
            for source, hashes, positions, masks in entries(
                outputs[file.output], file, index.policies
            ):
                index.wait(index.add(File(source), hashes, positions, masks))
                rows += int(np.count_nonzero(masks))
        except UNREADABLE as error:
            unreadable[file.shard] = first_line(error)
    return Loaded(rows, unreadable)
