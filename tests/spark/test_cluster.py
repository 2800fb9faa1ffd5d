"""The cluster of these tests is what they need."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession
from support.executors import executor_processes


def test_executors_are_processes_of_their_own_with_this_package(spark: SparkSession) -> None:
    def seen(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import os
        import time

        import moderay

        list(batches)
        time.sleep(1)  # or one executor would take both
        yield pa.RecordBatch.from_pydict({"pid": [os.getpid()], "file": [moderay.__file__]})

    rows = spark.range(2, numPartitions=2).mapInArrow(seen, "pid long, file string").collect()
    assert len({row.pid for row in rows}) == 2
    assert len(executor_processes()) == 2
    import moderay

    assert {row.file for row in rows} == {moderay.__file__}
