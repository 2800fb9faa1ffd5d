"""A Spark cluster's executors on this machine: which processes they are, and what they tell."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pyspark
from pyspark.sql import SparkSession

# Of Java's processes, all of which end soon: nothing is compiled for a long life.
_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
SHORT_LIVED = {"spark.driver.extraJavaOptions": _JAVA, "spark.executor.extraJavaOptions": _JAVA}


def spark_home(folder: Path) -> Path:
    """Spark as pip has installed it, in a folder of ours: a local cluster writes below its home."""
    for part in Path(pyspark.__path__[0]).iterdir():
        if part.name != "work":  # another cluster's
            (folder / part.name).symlink_to(part)
    return folder


def executor_processes() -> list[psutil.Process]:
    """The executors of this process's cluster."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if any("CoarseGrainedExecutorBackend" in word for word in _command(process))
    ]


def python_processes() -> list[psutil.Process]:
    """All that runs below the executors, Spark's daemons and what engines have started included."""
    return [child for one in executor_processes() for child in one.children(recursive=True)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it has just ended
        return []


def events(spark: SparkSession) -> list[dict[str, Any]]:
    """Events in the executors' logs so far, in the order of each log."""
    app = Path(os.environ["SPARK_HOME"]) / "work" / spark.sparkContext.applicationId
    lines = [line for log in sorted(app.glob("*/stderr")) for line in log.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def count(spark: SparkSession, event: str) -> int:
    """How often something has happened on the executors."""
    return sum(line.get("event") == event for line in events(spark))
