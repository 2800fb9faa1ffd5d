"""The index learns of earlier outputs: their label files are read in tasks on the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Loaded:
    """What the index was given.

    Attributes:
        rows: entries.
        unreadable: by shard, why its verdicts are not used.
    """

    rows: int
    unreadable: Mapping[str, str]


def load(index: Index, outputs: Sequence[Layout], files: Sequence[LabelFile]) -> Loaded:
    """Tell the index of earlier label files, in tasks on the cluster; returns when all are in."""
    task = ray.remote(num_cpus=1)(_load)
    calls = [
        task.remote(index, tuple(outputs), files[i : i + LOAD_FILES])
        for i in range(0, len(files), LOAD_FILES)
    ]
    rows, unreadable = 0, dict[str, str]()
    for number, call in enumerate(calls):
        try:
            loaded = ray_loss.get(call)
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.NodeDiedError,
        ) as error:
            lost = files[number * LOAD_FILES : (number + 1) * LOAD_FILES]
            loaded = Loaded(
                0,
                {
                    file.shard: f"Ray lost the task that read it ({type(error).__name__})"
                    for file in lost
                },
            )
        rows, unreadable = rows + loaded.rows, unreadable | dict(loaded.unreadable)
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
