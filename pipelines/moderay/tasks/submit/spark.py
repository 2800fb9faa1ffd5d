"""A job on a Spark cluster: Ray is started on its executors, and ended with the job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moderay.core.errors import TryAgainError
from moderay.core.wording import counted
from moderay.tasks.submit.bundle import ship
from moderay.tasks.submit.cluster import Cluster, cluster_errors
from moderay.tasks.submit.jobs import SubmittedJob, submitted_job
from moderay.tasks.submit.logs import ResumableLog
from moderay.tasks.submit.ray_on_spark import Signals, ray_on_spark
from moderay.tasks.submit.readiness import needs
from moderay.tasks.submit.spark_session import is_stopped, spark_session
from moderay.tasks.submit.spark_workers import ray_workers
from moderay.tasks.submit.submit import found, queue

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Seconds between two looks at what a job logs, and at Spark.
WATCH_S = 1.0

_GO_ON = "what is complete is saved, and the same command goes on from there"


def run_on_spark(
    file: str | Path,
    sets: Sequence[str] = (),
    options: Sequence[str] = (),
    workers: int | None = None,
    show: Callable[[str], None] = print,
) -> int:
    """Run a job on Spark's executors, and wait for its end.

    The Ray that is started there is taken down with it, and so is a Spark session that was started
    for it.

    Args:
        file: The job file.
        sets: `key=value`, as of `--set`.
        options: Of `moderay run`, such as `--replace`.
        workers: Executors that take part, each as one node of Ray; as many as Spark gives.
        show: Is handed each line that is told of the run.

    Returns:
        The run's exit status.

    Raises:
        Problems: With everything wrong.
        UserError: Spark is not there, or is not one that this can run on.
        TryAgainError: Spark does not answer, has no room, or ends while the job runs.
        StoppedError: By a signal, before the run began.
    """
    shipment = ship(file, sets)
    needs()
    signals = Signals()
    with spark_session() as spark, signals.handled():
        given = ray_workers(spark, workers)
        name = f"Ray on Spark ({spark.sparkContext.master})"
        show(f"starting {name}: {counted(given.count, 'worker')} of {given.size}")
        with ray_on_spark(given, name, signals) as cluster:
            job_id, ready = queue(cluster, shipment, options)
            show(found(cluster, ready))
            ended = _watched(cluster, job_id, show, spark, signals)
    if ended.lost:
        raise TryAgainError(f"the run was lost: {ended.message}; {_GO_ON}")
    return ended.exit_status


def _watched(
    cluster: Cluster,
    job_id: str,
    show: Callable[[str], None],
    spark: SparkSession,
    signals: Signals,
) -> SubmittedJob:
    """Hand on what a job logs until it is over; a signal ends it in good order, a second at once.

    Not as `follow` does, which has an event loop of its own: a notebook runs in one.

    Raises:
        TryAgainError: Spark or Ray has ended meanwhile.
        StoppedError: By a second signal.
    """
    log = ResumableLog(show)
    is_ending = False
    signals.raises = False
    while True:
        with cluster_errors(cluster.address):
            # Looked at first: what it logs before it is over is in what is read afterwards.
            job = submitted_job(cluster, job_id)
            log.restart()
            log.add(cluster.client.get_job_logs(job_id))
            if signals.count and not is_ending:
                cluster.client.stop_job(job_id)
                is_ending = True
        if job.over:
            return job
        if is_stopped(spark):
            raise TryAgainError(f"Spark has ended while the job ran: {_GO_ON}")
        if signals.count > 1:
            signals.check()
        time.sleep(WATCH_S)
