"""Moderay's jobs on a cluster: what Ray keeps of them there is all that is known of them."""

from __future__ import annotations

import datetime
import math
import time
from dataclasses import dataclass
from typing import Any

from moderay.tasks.submit.cluster import Cluster, cluster_errors

# Metadata of a job: the output that it writes to, and its name.
OUTPUT = "moderay_output"
NAME = "job_name"
# Seconds between two looks at a job.
LOOK_S = 0.5
# The exit statuses of a run.
_STATUSES = (0, 1, 2, 3)


@dataclass(frozen=True)
class SubmittedJob:
    """A job on a cluster.

    Attributes:
        id: As submit named it.
        name: The job file's name for it.
        output: URL of its output.
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        exit_code: The driver's own, where it got to one.
        message: What Ray says of it, in one line.
        started: Seconds since 1970; None before it starts.
        ended: Seconds since 1970; None before it ends.
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
        """Whether it has ended, however that was."""
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


def submitted_jobs(cluster: Cluster) -> list[SubmittedJob]:
    """Moderay's jobs of which the cluster knows, the newest last."""
    with cluster_errors(cluster.address):
        jobs = [
            _job(details)
            for details in cluster.client.list_jobs()
            if OUTPUT in (details.metadata or {})
        ]
    return sorted(jobs, key=lambda job: job.started or math.inf)


def submitted_job(cluster: Cluster, job_id: str) -> SubmittedJob:
    """A job by its id. Raises `UserError` where the cluster knows no such job."""
    with cluster_errors(cluster.address, job_id):
        return _job(cluster.client.get_job_info(job_id))


def _job(details: Any) -> SubmittedJob:
    """From Ray's `JobDetails`, whose times are in milliseconds."""
    metadata = details.metadata or {}
    return SubmittedJob(
        id=details.submission_id,
        name=metadata.get(NAME, ""),
        output=metadata.get(OUTPUT, ""),
        status=str(details.status),
        exit_code=details.driver_exit_code,
        message=(details.message or "").strip().partition("\n")[0],
        started=_seconds(details.start_time),
        ended=_seconds(details.end_time),
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def stop(cluster: Cluster, job_id: str) -> SubmittedJob:
    """Ask a job to end, and wait for it: what is in judging has the job's grace time.

    Returns:
        How it ended; where it was over already, how it had ended.
    """
    job = submitted_job(cluster, job_id)
    if not job.over:
        with cluster_errors(cluster.address, job_id):
            cluster.client.stop_job(job_id)
        while not (job := submitted_job(cluster, job_id)).over:
            time.sleep(LOOK_S)
    return job


def local_time(seconds: float | None) -> str:
    """A time of a job for people; none is no text."""
    if seconds is None:
        return ""
    moment = datetime.datetime.fromtimestamp(seconds).astimezone()
    return moment.isoformat(sep=" ", timespec="seconds")
