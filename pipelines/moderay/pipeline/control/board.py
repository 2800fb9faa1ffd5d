"""The board of a run: who is at work on what, and how much has been read ahead."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from typing import Any

import ray

from moderay.core.ray_runtime import this_node
from moderay.corpus.ranges import Range

Unit = tuple[str, Range]

# Messages in judging that are named.
NAMED = 3


@dataclass(frozen=True)
class AtWork:
    """Units in judging that travel together.

    Attributes:
        unit: The shard and rows of the first.
        actor: Who has it.
        seconds: For how long.
    """

    unit: Unit
    actor: str
    seconds: float


@dataclass(frozen=True)
class BoardState:
    """What the board shows.

    Attributes:
        actors: Started so far, those that were lost included.
        at_work: Messages in judging, which are units that travel together.
        oldest: A few of them, the longest first.
        ahead: Bytes that are read and not yet judged.
        most_ahead: Bytes that were so at most.
        saved: Rows of units that were saved so far, of which the driver may not have heard yet.
        given_up: Shards that are not read any more, and why.
        starts: Seconds that each engine took to start, in the order in which they were ready.
        probability_by: How engines come to P of a label, each way once.
    """

    actors: int = 0
    at_work: int = 0
    oldest: tuple[AtWork, ...] = ()
    ahead: int = 0
    most_ahead: int = 0
    saved: int = 0
    given_up: tuple[tuple[str, str], ...] = ()
    starts: tuple[float, ...] = ()
    probability_by: tuple[str, ...] = ()


class Board:
    """Actor beside the driver: readers and judges say here what they take up and lay down.

    Units that travel together are one here, and go by the first. The driver looks. A message lost
    with a node costs a figure, never a row: a shard that is given up is given up again.
    """

    def __init__(self) -> None:
        """A board on which nothing is written."""
        self._ahead: dict[Unit, int] = {}
        self._work: dict[Unit, tuple[str, float]] = {}
        self._actors = 0
        self._bytes = 0
        self._most = 0
        self._saved = 0
        self._stopping = False
        self._given_up: dict[str, str] = {}
        self._starts: list[float] = []
        self._probability_by: set[str] = set()

    def read(self, unit: Unit, size: int) -> None:
        """Units of so many bytes are read, and are to be judged."""
        self._bytes += size - self._ahead.get(unit, 0)
        self._ahead[unit] = size
        self._most = max(self._most, self._bytes)

    def joined(self) -> None:
        """An actor has started."""
        self._actors += 1

    def started(self, seconds: float, probability_by: str) -> None:
        """An actor's engine is ready, so long after it was asked for; how it comes to P."""
        self._starts.append(seconds)
        self._probability_by.add(probability_by)

    def begin(self, unit: Unit, actor: str) -> bool:
        """Whether to judge these units: not where the run is stopping."""
        if not self._stopping:
            self._work[unit] = (actor, time.monotonic())
        return not self._stopping

    def saved(self, rows: int) -> None:
        """A unit of so many rows is saved."""
        self._saved += rows

    def end(self, unit: Unit) -> None:
        """Units are judged and saved, or have failed."""
        self._bytes -= self._ahead.pop(unit, 0)
        self._work.pop(unit, None)

    def give_up(self, shard: str, reason: str) -> None:
        """A shard is not read any more."""
        self._given_up.setdefault(shard, reason)

    def stop(self) -> None:
        """No unit is begun from now on."""
        self._stopping = True

    def state(self) -> BoardState:
        """What it shows now."""
        now = time.monotonic()
        oldest = heapq.nsmallest(NAMED, self._work.items(), key=lambda item: item[1][1])
        given_up = tuple(self._given_up.items())
        return BoardState(
            self._actors,
            len(self._work),
            tuple(AtWork(unit, actor, now - since) for unit, (actor, since) in oldest),
            self._bytes,
            self._most,
            self._saved,
            given_up,
            tuple(self._starts),
            tuple(sorted(self._probability_by)),
        )


def start_board() -> Any:
    """A `Board` on this node, which is the driver's: it lives as long as the run."""
    return (
        ray.remote(Board)
        .options(num_cpus=0, scheduling_strategy=this_node(), max_restarts=-1, max_task_retries=-1)
        .remote()
    )
