"""The cluster under a run: joining or starting it, a board that says who is at work on what, and an
end for orphans.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moderay.corpus.ranges import Range

Unit = tuple[str, Range]


@dataclass(frozen=True)
class AtWork:
    """A unit in judging: who has it, and since when (seconds)."""

    unit: Unit
    actor: str
    seconds: float


@dataclass(frozen=True)
class BoardState:
    """`actors`: started so far. `at_work`: units in judging, the longest first. `ahead`,
    `most_ahead`: bytes read and not yet judged, now and at most.
    """

    actors: int = 0
    at_work: tuple[AtWork, ...] = ()
    ahead: int = 0
    most_ahead: int = 0


class Board:
    """Actor beside the driver. Readers and judges say here what they take up and lay down; the
    driver looks.

    It serves people, counters and brakes alone: a message lost with a node costs a figure, never a
    row.
    """

    def __init__(self) -> None:
        self._ahead: dict[Unit, int] = {}
        self._work: dict[Unit, tuple[str, float]] = {}
        self._actors = self._bytes = self._most = 0
        self._stopping = False

    def read(self, unit: Unit, size: int) -> None:
        self._bytes += size - self._ahead.get(unit, 0)
        self._ahead[unit] = size
        self._most = max(self._most, self._bytes)

    def joined(self) -> None:
        """An actor has started."""
        self._actors += 1

    def begin(self, unit: Unit, actor: str) -> bool:
        """Whether to judge this unit: not where the run is stopping."""
        if not self._stopping:
            self._work[unit] = (actor, time.monotonic())
        return not self._stopping

    def end(self, unit: Unit) -> None:
        self._bytes -= self._ahead.pop(unit, 0)
        self._work.pop(unit, None)

    def stop(self) -> None:
        """No unit is begun from now on."""
        self._stopping = True

    def state(self) -> BoardState:
        now = time.monotonic()
        work = sorted(
            (AtWork(unit, actor, now - since) for unit, (actor, since) in self._work.items()),
            key=lambda at_work: -at_work.seconds,
        )
        return BoardState(self._actors, tuple(work), self._bytes, self._most)


def start_board() -> Any:
    """A `Board` on this node, which is the driver's: it lives as long as the run."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return (
        ray.remote(Board)
        .options(num_cpus=0, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1)
        .remote()
    )
