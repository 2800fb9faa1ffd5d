"""Who lets the corpus in: read tasks wait here until golden sets have passed the gate.

Only runs whose golden sets have to be judged have one. A task that waits in `ray.get` gives its
core back meanwhile, so that whoever reads golden cases finds one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import ray

from moderay.core.ray_runtime import this_node

# Seconds after which who waits is sent to ask again.
ANSWER_S = 30.0


class Gatekeeper:
    """Actor. Lives on the driver's node; one that was restarted is told again what it forgot."""

    def __init__(self) -> None:
        """With a gate that is closed."""
        self._told = asyncio.Event()
        self._is_open = False

    async def opens(self) -> bool | None:
        """Wait a while: whether the gate has opened, or never will; None where it is not known."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), ANSWER_S)
        return self._is_open if self._told.is_set() else None

    async def open(self) -> None:
        """Let the corpus in."""
        self._is_open = True
        self._told.set()

    async def stop(self) -> None:
        """Send away who waits: the run is stopping."""
        self._told.set()


def is_open(gatekeeper: Any) -> bool:
    """In a task: whether the corpus may be read, which is waited for; not where the run stops.

    Args:
        gatekeeper: Handle of a `Gatekeeper`; None where there is nothing to wait for.
    """
    if gatekeeper is None:
        return True
    while (answer := ray.get(gatekeeper.opens.remote())) is None:
        pass
    return bool(answer)


def start_gatekeeper() -> Any:
    """A `Gatekeeper` beside the driver: it lives as long as the run."""
    return (
        ray.remote(Gatekeeper)
        .options(
            num_cpus=0,
            scheduling_strategy=this_node(),
            max_restarts=-1,
            max_task_retries=-1,
            # Every read task of the cluster may wait at once.
            max_concurrency=10_000,
        )
        .remote()
    )
