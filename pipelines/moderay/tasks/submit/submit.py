"""A job checked here, then on a cluster, and queued there.

A job whose output is being written is not submitted again; one that has ended is, and goes on from
what is saved.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moderay.core.errors import Problems, TryAgainError, UserError, inert
from moderay.core.wording import counted
from moderay.engines.from_job import engine_spec
from moderay.engines.vllm.engine import VllmSpec
from moderay.tasks.submit.bundle import JOB, Shipment, ship
from moderay.tasks.submit.cluster import Cluster, cluster_errors
from moderay.tasks.submit.jobs import (
    LOOK_S,
    NAME,
    OUTPUT,
    SubmittedJob,
    submitted_job,
    submitted_jobs,
)
from moderay.tasks.submit.readiness import needs, problems, read_report

# Seconds that a cluster has to check a job before it is queued there, a large input's listing
# included.
PREFLIGHT_S = 900.0
# Seconds beyond a job's grace time until Ray kills it: to publish what is complete and to write the
# manifest.
ENDING_S = 60
# What a job logs whose `python` has no Ray, or another one, or that is not there.
_OTHER_PYTHON = re.compile(
    r"No module named '?ray'?|(?:exec: )?python: (?:command )?not found|"
    r"Version mismatch: The cluster was started with"
)


def run_options(**flags: bool) -> list[str]:
    """Options of `moderay run`: `run_options(retry_failed=True)` is `["--retry-failed"]`."""
    return [f"--{name.replace('_', '-')}" for name, is_set in flags.items() if is_set]


def submit(
    cluster: Cluster, file: str | Path, sets: Sequence[str] = (), options: Sequence[str] = ()
) -> tuple[str, Mapping[str, Any]]:
    """Check a job here, then there, and queue it.

    Args:
        cluster: Where it is to run.
        file: The job file.
        sets: `key=value`, as of `--set`.
        options: Of `moderay run`, such as `--replace`.

    Returns:
        The job's id, and what it finds there: nodes, engines, GPUs, shards, rows.

    Raises:
        Problems: With everything wrong.
        TryAgainError: Its output is being written by a job that was submitted before.
    """
    shipment = ship(file, sets)
    earlier = [job for job in submitted_jobs(cluster) if job.output == shipment.output]
    if writing := next((job for job in earlier if not job.over), None):
        raise _refused(cluster, shipment, writing.id)
    with tempfile.TemporaryDirectory(prefix="moderay-") as folder, cluster_errors(cluster.address):
        archive = Path(folder) / "moderay.zip"
        shipment.write(archive)
        environment = _environment(archive, shipment)
        ready = _preflight(cluster, shipment, environment)
        # Numbered, so that of two who submit the same at the same time one is refused by Ray.
        job_id = f"{shipment.name}-{1 + max(map(_number, earlier), default=0)}"
        try:
            cluster.client.submit_job(
                entrypoint=" ".join(["exec python -m moderay run", JOB, *options]),
                submission_id=job_id,
                runtime_env=environment,
                metadata={NAME: shipment.job.name, OUTPUT: shipment.output},
            )
        except RuntimeError as error:
            if "already exists" in str(error):
                raise _refused(cluster, shipment, job_id) from None
            raise
    return job_id, ready


def found(where: str, ready: Mapping[str, Any]) -> str:
    """What a cluster has, and what a job finds there, for people."""
    return (
        f"{where}: {counted(ready['nodes'], 'node')}, {counted(ready['engines'], 'engine')}; "
        f"{counted(ready['shards'], 'shard')}, {counted(ready['rows'], 'row')}"
    )


def _environment(archive: Path, shipment: Shipment) -> dict[str, Any]:
    """Ray's runtime environment of a job."""
    wait_s = math.ceil(shipment.job.limits.grace_s) + ENDING_S
    return {
        "working_dir": str(archive),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(wait_s), "DO_NOT_TRACK": "1"},
    }


def _refused(cluster: Cluster, shipment: Shipment, job_id: str) -> TryAgainError:
    return TryAgainError(
        f"{shipment.output} is being written by job {job_id} at {cluster.address}: `moderay logs "
        f"{job_id} --follow` shows it, "
        f"`moderay stop {job_id}` ends it, and after its end the same command goes on"
    )


def _number(job: SubmittedJob) -> int:
    tail = job.id.rpartition("-")[2]
    return int(tail) if tail.isdecimal() else 0


def _preflight(
    cluster: Cluster, shipment: Shipment, environment: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What the cluster says of itself and of the job.

    Raises:
        Problems: The job cannot run there.
        UserError: Nothing of moderay can: jobs are started with another Python than Ray's.
        TryAgainError: The cluster does not come to an answer.
    """
    needed = needs()
    job_id = cluster.client.submit_job(
        entrypoint=" ".join(["exec python -m moderay.tasks.submit.preflight", JOB, *needed.names]),
        runtime_env=dict(environment),
        metadata={NAME: f"check {shipment.job.name}"},
    )
    ended = _end_of_preflight(cluster, job_id)
    log: str = cluster.client.get_job_logs(job_id)
    report = read_report(log)
    asks_vllm = isinstance(engine_spec(shipment.job, gpus=0), VllmSpec)
    if wrong := problems(report, needed, vllm=asks_vllm):
        raise Problems(
            [replace(problem, file=f"{cluster.address}, {problem.file}") for problem in wrong]
        )
    if report.ready is None:
        if (line := _OTHER_PYTHON.search(f"{log}\n{ended.message}")) is not None:
            raise UserError(
                f"{cluster.address}: the `python` that jobs are started with there is not the one "
                f"that Ray runs on ({inert(line[0])}): on its head, stop Ray, activate its "
                "environment, so that `python` is that environment's, and start it again "
                "(`. ENV/bin/activate && ray start --head ...`)"
            )
        last = (log.strip().splitlines() or [ended.message])[-1]
        raise TryAgainError(
            f"{cluster.address} could not check the job: {inert(last)} (`moderay logs {job_id}` "
            "shows all)"
        )
    cluster.client.delete_job(job_id)
    return report.ready


def _end_of_preflight(cluster: Cluster, job_id: str) -> SubmittedJob:
    """The preflight's job once it is over. Raises `TryAgainError` where it takes too long."""
    until = time.monotonic() + PREFLIGHT_S
    while not (job := submitted_job(cluster, job_id)).over:
        if time.monotonic() > until:
            cluster.client.stop_job(job_id)
            raise TryAgainError(
                f"{cluster.address} has not checked the job within {PREFLIGHT_S:.0f} s "
                f"({job.status}, job {job_id}): is its head overloaded?"
            )
        time.sleep(LOOK_S)
    return job
