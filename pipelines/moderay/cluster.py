"""The cluster under a run: joining or starting it, a board that says who is at work on what, and an
end for orphans.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moderay.errors import TryAgain, first_line
from moderay.state import Range

# Seconds between two looks whether a worker's raylet still lives.
LIFELINE_S = 1.0

Unit = tuple[str, Range]


def start_ray() -> None:
    """Join the cluster this process is told of by RAY_ADDRESS, or one that runs on this machine;
    else start one, which RAY_ADDRESS=local asks for. Raises `TryAgain`.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = (
        {"include_dashboard": False} if os.environ.get("RAY_ADDRESS", "local") == "local" else {}
    )
    # Ray's own C++ log would go to the user's terminal; what matters of it comes back as an
    # exception. That it is off is the one line it still prints.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        with _no_stderr():
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except (OSError, RuntimeError, ValueError) as error:
        where = os.environ.get("RAY_ADDRESS", "this machine")
        raise TryAgain(
            f"Ray could not be joined or started at {where}: {first_line(error)}"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def resources() -> tuple[int, float]:
    """GPUs and cores of the cluster."""
    found = ray.cluster_resources()
    return int(found.get("GPU", 0)), float(found.get("CPU", 0))


@contextmanager
def _no_stderr() -> Iterator[None]:
    """For code that is not Python's: file descriptor 2 goes nowhere."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def end_with_raylet() -> None:
    """In a worker: end this process, and the engine's below it, soon after its raylet has gone.

    Ray leaves the workers of a raylet that was killed alive for a while; until then they hold the
    GPU's memory and judge what somebody else judges by now. Also where it comes to its end in good
    order, since there Ray may hang (`_leave`).
    """
    global _lifeline
    if _lifeline is None:
        atexit.register(_leave)
        _lifeline = threading.Thread(
            target=_watch, args=(os.getppid(),), name="lifeline", daemon=True
        )
        _lifeline.start()


_lifeline: threading.Thread | None = None


def _leave() -> None:
    """Past the exit handler of Ray 2.60, in which a worker deadlocks now and then: what is left in
    its queue is destroyed, and a publisher that is among it posts into that queue. By then Ray has
    let go of the worker, and nobody would ever end it.
    """
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LIFELINE_S)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


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


def whereabouts() -> str:
    """Of the process this is called in: its host and id."""
    return f"process {os.getpid()} on {os.uname().nodename}"
