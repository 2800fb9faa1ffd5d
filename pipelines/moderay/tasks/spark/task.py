"""What a task of Spark is given: GPUs, and a folder of its executor."""

from __future__ import annotations

import os


def gpus_of_task() -> tuple[str, ...]:
    """Addresses of the GPUs that Spark gives to this task."""
    from pyspark import TaskContext  # noqa: PLC0415  late: an extra

    task = TaskContext.get()
    given = task.resources().get("gpu") if task is not None else None
    return tuple(given.addresses) if given is not None else ()


def local_folder() -> str | None:
    """Where an executor's workers, and nobody else, leave files; None where none is known.

    Spark removes it with the executor.
    """
    return os.environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0] or None
