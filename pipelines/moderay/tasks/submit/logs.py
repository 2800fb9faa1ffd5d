"""The log of a job on a cluster, at once or as it comes."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiohttp

from moderay.core.errors import TryAgainError
from moderay.tasks.submit.cluster import Cluster, cluster_errors
from moderay.tasks.submit.jobs import LOOK_S, SubmittedJob, submitted_job

# Seconds for which a cluster that is watched may be away.
AWAY_S = 120.0


def log_lines(cluster: Cluster, job_id: str) -> list[str]:
    """What a job's driver has logged so far."""
    with cluster_errors(cluster.address, job_id):
        text: str = cluster.client.get_job_logs(job_id)
    return text.splitlines()


def follow(cluster: Cluster, job_id: str, show: Callable[[str], None]) -> SubmittedJob:
    """Hand on each line of a job's log as it comes, until the job is over.

    A connection that breaks is made again.

    Raises:
        TryAgainError: The cluster does not come back.
    """
    log = _ResumableLog(show)
    while True:
        # Looked at first: what a job logs before it is over is in what is read afterwards.
        job = _awaited(cluster, job_id)
        try:
            with _interruptible():
                asyncio.run(_tail(cluster, job_id, log))
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # It is read on where it broke off.
            logging.getLogger(__name__).info("the log of %s broke off: %s", job_id, error)
        if job.over:
            return job
        time.sleep(LOOK_S)


def _awaited(cluster: Cluster, job_id: str) -> SubmittedJob:
    """A job of a cluster that may be away for a while."""
    until = time.monotonic() + AWAY_S
    while True:
        try:
            return submitted_job(cluster, job_id)
        except TryAgainError as error:
            if time.monotonic() > until:
                raise TryAgainError(
                    f"{error}; job {job_id} may go on there: `moderay status {job_id}`"
                ) from None
        time.sleep(LOOK_S)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends what is in here at once.

    asyncio would make a cancellation of it, which can be taken for a connection that broke.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _ResumableLog:
    """A log that may be read from its beginning again: each line is handed on once."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        # Characters handed on or held back, and those of this reading.
        self._seen = 0
        self._position = 0
        # The last line, of which the end has not come yet.
        self._line = ""

    def restart(self) -> None:
        self._position = 0

    def add(self, text: str) -> None:
        new = text[max(0, self._seen - self._position) :]
        self._position += len(text)
        self._seen = max(self._seen, self._position)
        *lines, self._line = (self._line + new).split("\n")
        for line in lines:
            self._show(line)


async def _tail(cluster: Cluster, job_id: str, log: _ResumableLog) -> None:
    log.restart()
    async for text in cluster.client.tail_job_logs(job_id):
        log.add(text)
