"""Jobs on a cluster, over Ray's job API: submitted, watched and stopped.

What is known of a job there is what Ray keeps of it: its submission, with the output it writes to
in the metadata. A job whose output is being written is not submitted again; one that has ended is,
and goes on from what is saved.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import requests

from moderay.core.errors import Problem, Problems, TryAgainError, UserError, first_line, inert
from moderay.engines.from_job import engine_spec
from moderay.engines.vllm.engine import VllmSpec
from moderay.tasks.submit.bundle import JOB, Shipment, ship
from moderay.tasks.submit.readiness import findings, needs, problems

# Seconds that a cluster has to answer what it is asked before a job is queued there, a large
# input's listing included.
PREFLIGHT_S = 900.0
# Seconds between two looks at a job, and for which a cluster that is watched may be away.
LOOK_S, AWAY_S = 0.5, 120.0
# Seconds beyond a job's grace time until Ray kills it: to publish what is complete and to write the
# manifest.
ENDING_S = 60

# Metadata of a submission.
OUTPUT, NAME = "moderay_output", "job_name"
# The exit statuses of a run.
_STATUSES = (0, 1, 2, 3)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster by the address of its job server; `client`: Ray's `JobSubmissionClient`."""

    address: str
    client: Any


@dataclass(frozen=True)
class Submission:
    """A job on a cluster. `status`: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED. `exit_code`:
    the driver's own, where it got to one. `started`, `ended`: seconds since 1970.
    """

    id: str
    name: str
    output: str
    status: str
    exit_code: int | None
    message: str
    started: float | None
    ended: float | None

    @property
    def over(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def lost(self) -> bool:
        """Whether it ended without saying how: killed, or gone with its node."""
        return self.status == "FAILED" and (
            self.exit_code is None or not 0 <= self.exit_code <= 128
        )

    @property
    def exit_status(self) -> int:
        """The run's, once it is over: 3, to go on, where it was stopped or lost."""
        if self.status == "STOPPED" or self.lost:
            return 3
        return self.exit_code if self.exit_code in _STATUSES else 1


def connect(address: str) -> Cluster:
    """Raises `UserError` or `TryAgainError` where no cluster answers that lets one in."""
    address = address.rstrip("/") if "://" in address else f"http://{address}"
    if not address.startswith(("http://", "https://")):
        raise UserError(
            f"--address {address}: the address of Ray's dashboard is wanted, such as "
            "http://HEAD:8265"
        )
    from ray.job_submission import JobSubmissionClient

    for chatty in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with _answers(address), _only_as_told():
        try:
            return Cluster(address, JobSubmissionClient(address))
        except (json.JSONDecodeError, KeyError, requests.HTTPError, RuntimeError) as error:
            raise UserError(
                f"what answers at {address} is no Ray dashboard, whose port is 8265 as it comes: "
                f"{first_line(error)}"
            ) from None


@contextmanager
def _only_as_told() -> Iterator[None]:
    """Without the variables whose address Ray would take over the one that it is given."""
    kept = {
        name: os.environ.pop(name)
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
        if name in os.environ
    }
    try:
        yield
    finally:
        os.environ.update(kept)


def submit(
    cluster: Cluster, file: str | Path, sets: Sequence[str] = (), options: Sequence[str] = ()
) -> tuple[str, Mapping[str, Any]]:
    """Check a job here, then there, and queue it; its id, and what the job finds there: nodes,
    engines, GPUs, shards, rows. `options`: of `moderay run`. Raises `Problems` with everything
    wrong, `TryAgainError` where its output is being written by a job that was submitted before.
    """
    shipment = ship(file, sets)
    earlier = [found for found in submissions(cluster) if found.output == shipment.output]
    if writing := next((found for found in earlier if not found.over), None):
        raise _refused(cluster, shipment, writing.id)
    wait_s = math.ceil(shipment.job.limits.grace_s) + ENDING_S
    with tempfile.TemporaryDirectory(prefix="moderay-") as folder, _answers(cluster.address):
        archive = Path(folder) / "moderay.zip"
        shipment.write(archive)
        environment = {
            "working_dir": str(archive),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(wait_s), "DO_NOT_TRACK": "1"},
        }
        ready = _preflight(cluster, shipment, environment)
        # Numbered, so that of two who submit the same at the same time one is refused by Ray.
        name = f"{shipment.name}-{1 + max((_number(found.id) for found in earlier), default=0)}"
        try:
            cluster.client.submit_job(
                entrypoint=" ".join(["exec python -m moderay run", JOB, *options]),
                submission_id=name,
                runtime_env=environment,
                metadata={NAME: shipment.job.name, OUTPUT: shipment.output},
            )
        except RuntimeError as error:
            if "already exists" in str(error):
                raise _refused(cluster, shipment, name) from None
            raise
    return name, ready


def _refused(cluster: Cluster, shipment: Shipment, name: str) -> TryAgainError:
    return TryAgainError(
        f"{shipment.output} is being written by job {name} at {cluster.address}: `moderay logs "
        f"{name} --follow` shows it, "
        f"`moderay stop {name}` ends it, and after its end the same command goes on"
    )


def _number(name: str) -> int:
    tail = name.rpartition("-")[2]
    return int(tail) if tail.isdecimal() else 0


def _preflight(
    cluster: Cluster, shipment: Shipment, environment: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What the cluster says of itself and of the job. Raises `Problems`."""
    needed = needs()
    name = cluster.client.submit_job(
        entrypoint=" ".join(["exec python -m moderay.tasks.submit.preflight", JOB, *needed.names]),
        runtime_env=dict(environment),
        metadata={NAME: f"check {shipment.job.name}"},
    )
    until = time.monotonic() + PREFLIGHT_S
    while not (ended := submission(cluster, name)).over:
        if time.monotonic() > until:
            cluster.client.stop_job(name)
            raise TryAgainError(
                f"{cluster.address} has not checked the job within {PREFLIGHT_S:.0f} s "
                f"({ended.status}, job {name}): is its head overloaded?"
            )
        time.sleep(LOOK_S)
    log: str = cluster.client.get_job_logs(name)
    found = findings(log)
    if wrong := problems(
        found, needed, vllm=isinstance(engine_spec(shipment.job, gpus=0), VllmSpec)
    ):
        raise Problems(
            [
                Problem(
                    f"{cluster.address}, {problem.file}",
                    problem.line,
                    problem.message,
                    problem.hint,
                )
                for problem in wrong
            ]
        )
    if found.ready is None:
        last = (log.strip().splitlines() or [ended.message])[-1]
        raise TryAgainError(
            f"{cluster.address} could not check the job: {inert(last)} (`moderay logs {name}` "
            "shows all)"
        )
    cluster.client.delete_job(name)
    return found.ready


def submissions(cluster: Cluster) -> list[Submission]:
    """Moderay's jobs of which the cluster knows, the newest last."""
    with _answers(cluster.address):
        found = [
            _submission(details)
            for details in cluster.client.list_jobs()
            if OUTPUT in (details.metadata or {})
        ]
    return sorted(found, key=lambda found: found.started or math.inf)


def submission(cluster: Cluster, name: str) -> Submission:
    """Raises `UserError` where the cluster knows no such job."""
    with _answers(cluster.address, name):
        return _submission(cluster.client.get_job_info(name))


def _submission(details: Any) -> Submission:
    metadata = details.metadata or {}
    started, ended = (
        None if time is None else time / 1000 for time in (details.start_time, details.end_time)
    )
    message = ((details.message or "").strip().splitlines() or [""])[0]
    return Submission(
        details.submission_id,
        metadata.get(NAME, ""),
        metadata.get(OUTPUT, ""),
        str(details.status),
        details.driver_exit_code,
        message,
        started,
        ended,
    )


def logs(cluster: Cluster, name: str) -> list[str]:
    """What a job's driver has said so far."""
    with _answers(cluster.address, name):
        said: str = cluster.client.get_job_logs(name)
    return said.splitlines()


def follow(cluster: Cluster, name: str, say: Callable[[str], None]) -> Submission:
    """Hand on each line of a job's log as it comes, until the job is over. A connection that breaks
    is made again; raises `TryAgainError` where the cluster does not come back.
    """
    said = _Said(say)
    while True:
        found = _awaited(cluster, name)
        try:
            with _interruptible():
                asyncio.run(_tail(cluster, name, said))
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            logging.getLogger(__name__).info(
                "the log of %s broke off: %s", name, error
            )  # and is read on where it did
        if found.over:
            return found
        time.sleep(LOOK_S)


def _awaited(cluster: Cluster, name: str) -> Submission:
    """A submission of a cluster that may be away for a while."""
    until = time.monotonic() + AWAY_S
    while True:
        try:
            return submission(cluster, name)
        except TryAgainError as error:
            if time.monotonic() > until:
                raise TryAgainError(
                    f"{error}; job {name} may go on there: `moderay status {name}`"
                ) from None
        time.sleep(LOOK_S)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends what is in here at once. asyncio would make a cancellation of it, which can be
    taken for a connection that broke.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Said:
    """A log that may be read from its beginning again: each line is handed on once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._seen, self._at, self._line = say, 0, 0, ""

    def restart(self) -> None:
        self._at = 0

    def add(self, text: str) -> None:
        new = text[max(0, self._seen - self._at) :]
        self._at += len(text)
        self._seen = max(self._seen, self._at)
        *lines, self._line = (self._line + new).split("\n")
        for line in lines:
            self._say(line)


async def _tail(cluster: Cluster, name: str, said: _Said) -> None:
    said.restart()
    async for text in cluster.client.tail_job_logs(name):
        said.add(text)


def stop(cluster: Cluster, name: str) -> Submission:
    """Ask a job to end, and wait for it: what is in judging has the job's grace time. Returns how
    it was found where it was over already.
    """
    found = submission(cluster, name)
    if not found.over:
        with _answers(cluster.address, name):
            cluster.client.stop_job(name)
        while not (found := submission(cluster, name)).over:
            time.sleep(LOOK_S)
    return found


@contextmanager
def _answers(address: str, name: str = "") -> Iterator[None]:
    """What goes wrong on the way to a cluster, as one sentence."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        if "required" in first_line(error):
            raise UserError(
                f"{address} asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH"
            ) from None
        raise UserError(
            f"{address} refuses the token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or "
            "~/.ray/auth_token is another cluster's"
        ) from None
    except (ConnectionError, requests.ConnectionError, requests.Timeout):
        raise TryAgainError(
            f"no Ray cluster answers at {address}: is it running, and is this the address of its "
            "dashboard (port 8265 as it comes)?"
        ) from None
    except requests.RequestException as error:
        raise UserError(f"{address} cannot be asked: {first_line(error)}") from None
    except RuntimeError as error:
        if name and "status code 404" in str(error):
            raise UserError(
                f"{address} knows no job {name!r}; `moderay status` names those it knows"
            ) from None
        raise TryAgainError(f"{address} failed: {first_line(error)}; try again") from None


def clock(seconds: float | None) -> str:
    """A time of a submission for people: local."""
    return (
        ""
        if seconds is None
        else datetime.datetime.fromtimestamp(seconds)
        .astimezone()
        .isoformat(sep=" ", timespec="seconds")
    )
