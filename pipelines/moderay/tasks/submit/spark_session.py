"""A Spark session to run a job on: the one that is active, or one that is started for it."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from moderay.core.errors import TryAgainError, UserError, first_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Before it, an executor's resources cannot be asked for stage by stage, which is how Ray gets a
# whole executor.
OLDEST_SPARK = Version("3.4")
# Seconds for which a master that takes no connections is waited for; Spark itself waits for a
# minute and then says something else.
MASTER_S = 5.0
# What `ray.util.spark` runs on, by the beginnings of their masters' URLs.
MASTERS = ("spark://", "yarn", "local-cluster[")

_HOW = (
    'PYSPARK_SUBMIT_ARGS="--master URL pyspark-shell", or with spark.master in spark-defaults.conf'
)


@contextmanager
def spark_session() -> Iterator[SparkSession]:
    """The active session, which stays; without one, one as `spark-submit` configures it.

    Raises:
        UserError: PySpark is missing or too old, there is no JVM, or no Spark that Ray runs on.
        TryAgainError: Its master does not answer.
    """
    _assert_pyspark()
    from pyspark import SparkContext  # noqa: PLC0415  an extra
    from pyspark.sql import SparkSession  # noqa: PLC0415

    active = SparkSession.getActiveSession()
    # A thread may have none of its own where another has one.
    if active is not None or SparkContext._active_spark_context is not None:
        active = active or SparkSession.builder.getOrCreate()
        assert_master(_master_of(active))
        yield active
        return
    spark = _started()
    try:
        yield spark
    finally:
        try:
            spark.stop()
        except Exception as error:
            # Its JVM has gone, of which no class of errors tells: a signal reaches a whole group.
            logging.getLogger(__name__).info("Spark had ended: %s", reason(error))


def _assert_pyspark() -> None:
    """Raises `UserError` where there is no PySpark that Ray can be started with."""
    if importlib.util.find_spec("pyspark") is None:
        raise UserError(
            "--spark needs PySpark, which is not installed here: pip install 'moderay[spark]', in "
            "the version of the cluster"
        )
    import pyspark  # noqa: PLC0415  an extra

    if Version(pyspark.__version__) < OLDEST_SPARK:
        raise UserError(
            f"--spark needs Spark {OLDEST_SPARK} or newer, and PySpark here is "
            f"{pyspark.__version__}"
        )


def _master_of(spark: SparkSession) -> str:
    """Raises `UserError` where the session is Spark Connect's, behind which Ray cannot get."""
    # It raises an AttributeError of its own there.
    if (context := getattr(spark, "sparkContext", None)) is None:
        raise UserError(
            "--spark needs the session of Spark's own driver, and the active one is Spark "
            "Connect's: run this on the driver's machine, or start the job with `moderay submit "
            "--address`"
        )
    return str(context.master)


def assert_master(master: str | None) -> None:
    """Raises `UserError` where Ray does not run on such a Spark, or there is no use in it."""
    if not master or master == "local" or master.startswith("local["):
        raise UserError(
            f"Spark has no cluster here (its master is {master or 'not set'}): name one with "
            f"{_HOW}; on this machine alone, `moderay run` needs no Spark"
        )
    if not master.startswith(MASTERS):
        raise UserError(
            f"Ray does not run on a Spark whose master is {master}, only on a standalone cluster "
            "(spark://HOST:PORT) or YARN; on Kubernetes, `moderay submit --kuberay` needs no Spark"
        )


def _started() -> SparkSession:
    """A session as `spark-submit`, its files and variables configure it."""
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415
    from pyspark.errors import PySparkRuntimeError  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    _assert_java()
    try:
        # Its master can be asked for once the JVM is there, and before that is tried.
        SparkContext._ensure_initialized()
    except PySparkRuntimeError as error:
        raise UserError(
            "Spark's JVM ended as it started, for the reason above: are JAVA_HOME, SPARK_HOME and, "
            f"for YARN, HADOOP_CONF_DIR right? ({first_line(error)})"
        ) from None
    master = SparkConf().get("spark.master")
    assert_master(master)
    assert master is not None
    _await_master(master)
    try:
        # A bar for each task that holds a Ray worker would stand still until the job ends.
        progress = ("spark.ui.showConsoleProgress", "false")
        return SparkSession.builder.appName("moderay").config(*progress).getOrCreate()
    except Exception as error:
        # Py4J's, which says in many lines what the JVM says in one.
        raise TryAgainError(
            f"no Spark session could be started at {master}: {reason(error)}"
        ) from error


def _assert_java() -> None:
    """Raises `UserError` where there is no JVM to start Spark on."""
    has_gateway = "PYSPARK_GATEWAY_PORT" in os.environ  # of `spark-submit`, which has one
    if has_gateway or os.environ.get("JAVA_HOME") or shutil.which("java"):
        return
    raise UserError(
        "--spark needs a JVM, and there is no `java` here nor JAVA_HOME: install a Java runtime "
        "that this Spark supports (17 for Spark 4), or start with the cluster's own spark-submit"
    )


def _await_master(master: str) -> None:
    """Raises `TryAgainError` where no master of a standalone cluster takes connections."""
    if not master.startswith("spark://"):
        return
    errors = []
    for one in master.removeprefix("spark://").split(","):
        host, _, port = one.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=MASTER_S).close()
            return
        except (OSError, ValueError) as error:
            errors.append(f"{one}: {error}")
    raise TryAgainError(
        f"no Spark master answers at {master} ({'; '.join(errors)}): is it running?"
    )


def reason(error: BaseException) -> str:
    """What Spark says in one line: the JVM's own exception behind that of Py4J."""
    java: Any = getattr(error, "java_exception", None)
    if java is None:
        return first_line(error)
    while (cause := java.getCause()) is not None:
        java = cause
    return str(java.toString()).strip().splitlines()[0]


def is_stopped(spark: SparkSession) -> bool:
    """Whether Spark has ended: its application was killed, or its JVM."""
    java: Any = spark.sparkContext._jsc
    try:
        return java is None or bool(java.sc().isStopped())
    except Exception:
        # Of no class of its own: nothing answers any more.
        return True
