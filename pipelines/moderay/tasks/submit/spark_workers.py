"""What a Spark cluster gives to Ray: one worker an executor, and what each executor has."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moderay.core.errors import TryAgainError, UserError
from moderay.core.wording import are, counted
from moderay.tasks.submit.spark_session import reason

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Seconds for which executors are waited for, and after which no more are taken to come.
EXECUTORS_S = 60.0
SETTLED_S = 5.0
# Seconds between two looks.
LOOK_S = 0.5

_NO_MODULE = re.compile(r"No module named '([\w.]+)'")


@dataclass(frozen=True)
class RayWorkers:
    """The Ray workers that a Spark cluster is asked for, each a whole executor.

    Attributes:
        count: how many.
        cpus: of each.
        gpus: of each.
    """

    count: int
    cpus: int
    gpus: int

    @property
    def size(self) -> str:
        """What each has, for people."""
        gpus = counted(self.gpus, "GPU") if self.gpus else "no GPU"
        return f"{counted(self.cpus, 'CPU')} and {gpus}"


def ray_workers(spark: SparkSession, wanted: int | None) -> RayWorkers:
    """As many workers as are wanted, or as Spark has executors; its executors are looked at.

    Args:
        spark: The session.
        wanted: Workers; None for as many as there are.

    Raises:
        UserError: Spark has fewer executors, or these lack what Ray needs.
        TryAgainError: Spark gives no executor.
    """
    conf = spark.sparkContext.getConf()
    is_elastic = conf.get("spark.dynamicAllocation.enabled", "false") == "true"
    if is_elastic and wanted is None:
        raise UserError(
            "Spark adds executors as they are asked for (spark.dynamicAllocation.enabled): say how "
            "many with --workers"
        )
    expected = int(conf.get("spark.executor.instances") or 1) if wanted is None else wanted
    cores = _executor_cores(spark, 1 if is_elastic else expected)
    if not cores:
        raise TryAgainError(
            f"Spark gave no executor within {EXECUTORS_S:.0f} s: its cluster is full, or has no "
            "machine as large as spark.executor.memory and spark.executor.cores ask"
        )
    if wanted is not None and not is_elastic and len(cores) < wanted:
        raise UserError(
            f"--workers {wanted}: there {are(len(cores))} {counted(len(cores), 'executor')} in "
            "this Spark session, and each is one worker: ask for fewer, or start it with more "
            "(spark.executor.instances)"
        )
    _assert_equipped(spark)
    gpus = int(float(conf.get("spark.executor.resource.gpu.amount") or 0))
    return RayWorkers(wanted or len(cores), min(cores), gpus)


def _executor_cores(spark: SparkSession, expected: int) -> list[int]:
    """Cores of each executor, once as many as are expected, or no more, have come."""
    began = changed = time.monotonic()
    cores: list[int] = []
    while (now := time.monotonic()) - began < EXECUTORS_S:
        if len(found := _cores_now(spark)) != len(cores):
            cores, changed = found, now
        is_settled = bool(cores) and now - changed > SETTLED_S
        if len(cores) >= expected and is_settled:
            break
        time.sleep(LOOK_S)
    return cores


def _cores_now(spark: SparkSession) -> list[int]:
    # By way of what Spark's own pages are made of, which is there whether these are served or not.
    java: Any = spark.sparkContext._jsc
    executors = java.sc().statusStore().executorList(True)
    every = [executors.apply(number) for number in range(executors.size())]
    return [one.totalCores() for one in every if one.id() != "driver"]


def _assert_equipped(spark: SparkSession) -> None:
    """Raises `UserError` where an executor lacks Ray or moderay, or has others than the driver."""

    # A function within this one, so that it goes there by its code, not by its module's name.
    def versions(_: int) -> tuple[dict[str, str | None], bool]:
        import importlib.metadata  # noqa: PLC0415
        import shutil  # noqa: PLC0415

        def version(name: str) -> str | None:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return None

        return {name: version(name) for name in ("ray", "moderay")}, bool(shutil.which("ray"))

    try:
        there, on_path = spark.sparkContext.parallelize([0], 1).map(versions).collect()[0]
    except Exception as error:
        raise executor_error(error) from error
    for name, version in versions(0)[0].items():
        if there[name] != version:
            raise UserError(
                f"Spark's executors have {name} {there[name] or 'not at all'}, and the driver has "
                f"{version}: install the same on every node, or name the Python that has it "
                "(spark.pyspark.python)"
            )
    if not on_path:
        raise UserError(
            "the PATH of Spark's executors has no `ray`: put the folder of their Python's scripts "
            "in it (spark.executorEnv.PATH)"
        )


def executor_error(error: Exception) -> UserError | TryAgainError:
    """What to say of a Spark job that failed."""
    text = str(error)
    if (module := _NO_MODULE.search(text)) is not None:
        return UserError(
            f"Spark's executors have no Python module {module[1]!r}: install moderay on every "
            "node, or name the Python that has it (spark.pyspark.python)"
        )
    if "PYTHON_VERSION_MISMATCH" in text:
        return UserError(
            "Spark's executors run another Python than the driver: name one of the same version "
            "(spark.pyspark.python)"
        )
    return TryAgainError(f"Spark's executors fail: {reason(error)}")
