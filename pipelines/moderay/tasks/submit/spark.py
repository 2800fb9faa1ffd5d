"""A job on a Spark cluster: Ray is started on its executors, and ended with the job."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moderay.core.errors import Problems, StoppedError, TryAgainError, inert
from moderay.core.wording import counted
from moderay.engines.from_job import engine_spec
from moderay.engines.vllm.engine import VllmSpec
from moderay.tasks.submit.bundle import Shipment, ship
from moderay.tasks.submit.ray_on_spark import Signals, ray_on_spark
from moderay.tasks.submit.readiness import Needs, needs, problems, read_report
from moderay.tasks.submit.spark_session import is_stopped, spark_session
from moderay.tasks.submit.spark_workers import ray_workers
from moderay.tasks.submit.submit import PREFLIGHT_S, found

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Seconds between two looks at Spark and at signals.
WATCH_S = 0.5
# Seconds for what a run has written before it ended; what it started may hold its output open.
LAST_LINES_S = 5.0

_GO_ON = "what is complete is saved, and the same command goes on from there"
_HINT = "install what moderay needs for the Python of Spark's executors"
# Of `spark-submit`: a driver's Python speaks to the JVM by them, and nobody else should.
_GATEWAY = ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET")


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
        workers: Executors that take part, each as one node of Ray; by default, all that Spark has.
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
    needed = needs()
    signals = Signals()
    with (
        tempfile.TemporaryDirectory(prefix="moderay-") as folder,
        spark_session() as spark,
        signals.handled(),
    ):
        job = shipment.unpack(Path(folder))
        given = ray_workers(spark, workers)
        name = f"Ray on Spark ({spark.sparkContext.master})"
        show(f"starting {name}: {counted(given.count, 'worker')} of {given.size}")
        with ray_on_spark(given, signals) as joining:
            environment = {
                variable: value
                for variable, value in {**os.environ, **joining}.items()
                if variable not in _GATEWAY
            }
            show(found(name, _preflight(job, shipment, needed, name, environment)))
            with _driver([str(job), *options], environment, show) as driver:
                status = _waited(driver, spark, signals)
    if status < 0:
        raise TryAgainError(f"the run was killed by signal {-status}: {_GO_ON}")
    return status


def _preflight(
    job: Path, shipment: Shipment, needed: Needs, name: str, environment: Mapping[str, str]
) -> Mapping[str, Any]:
    """What the cluster says of itself and of the job. Raises `Problems`, `TryAgainError`."""
    command = [sys.executable, "-m", "moderay.tasks.submit.preflight", str(job), *needed.names]
    try:
        asked = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PREFLIGHT_S,
        )
    except subprocess.TimeoutExpired:
        raise TryAgainError(
            f"{name} has not checked the job within {PREFLIGHT_S:.0f} s: is the driver overloaded?"
        ) from None
    report = read_report(asked.stdout)
    asks_vllm = isinstance(engine_spec(shipment.job, gpus=0), VllmSpec)
    if wrong := problems(report, needed, asks_vllm, _HINT):
        raise Problems(wrong)
    if report.ready is None:
        last = (asked.stderr.strip().splitlines() or [f"it ended with {asked.returncode}"])[-1]
        raise TryAgainError(f"{name} could not check the job: {inert(last)}")
    return report.ready


@contextmanager
def _driver(
    arguments: Sequence[str], environment: Mapping[str, str], show: Callable[[str], None]
) -> Iterator[subprocess.Popen[str]]:
    """`moderay run` in a process of its own, which has ended at the end of this.

    In a session of its own too: Ctrl-C in a terminal would reach it twice.
    """
    driver = subprocess.Popen(
        [sys.executable, "-m", "moderay", "run", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    reader = threading.Thread(target=_show_lines, args=(driver, show), daemon=True)
    reader.start()
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()
        reader.join(LAST_LINES_S)


def _show_lines(driver: subprocess.Popen[str], show: Callable[[str], None]) -> None:
    assert driver.stdout is not None
    try:
        for line in driver.stdout:
            show(line.rstrip("\n"))
    finally:
        # A run whose lines nobody takes would stand still.
        for _ in driver.stdout:
            pass


def _waited(driver: subprocess.Popen[str], spark: SparkSession, signals: Signals) -> int:
    """A run's exit status; a signal ends it in good order, a second one at once.

    Raises:
        TryAgainError: Spark has ended meanwhile.
        StoppedError: By a second signal.
    """
    signals.raises = False
    is_ending = False
    while (status := driver.poll()) is None:
        if is_stopped(spark):
            raise TryAgainError(f"Spark has ended while the job ran: {_GO_ON}")
        if signals.count and not is_ending:
            driver.terminate()
            is_ending = True
        if signals.count > 1:
            raise StoppedError(f"stopped by a second signal: {_GO_ON}", 3)
        time.sleep(WATCH_S)
    return status
