"""Whole jobs on this process's Spark: the labels of a run, and nothing that is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from support.outputs import manifest_of, saved
from support.ray_on_spark import DOWN_S, Below, assert_labels_of_a_run, start_patiently

from moderay.core.errors import Problems
from moderay.tasks.submit.spark import run_on_spark

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _patient() -> None:
    start_patiently()


@contextmanager
def _signal_once_saved(out: Path, number: int) -> Iterator[None]:
    """Send this process a signal once a unit is saved."""

    def wait() -> None:
        while not ended.is_set() and saved(out) == 0:
            time.sleep(0.1)
        if not ended.is_set():
            os.kill(os.getpid(), number)

    ended = threading.Event()
    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_job_is_stopped_by_sigterm_and_goes_on_to_the_labels_of_a_run(
    spark: SparkSession, submitted: Callable[..., Path], tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out, before = tmp_path / "out", dict(os.environ)
    lines: list[str] = []
    tokens: set[str] = set()

    def show(line: str) -> None:
        lines.append(line)
        tokens.add(os.environ.get("RAY_AUTH_TOKEN", ""))

    with Below(os.getpid()) as below:
        with _signal_once_saved(out, signal.SIGTERM):
            assert run_on_spark(submitted(out, 4.0), show=show) == 3, lines
        assert below.count() > 10
        below.seconds_to_end(DOWN_S)
    assert any("stopped by SIGTERM" in line for line in lines), lines
    assert manifest_of(out)["runs"][-1]["status"] == "stopped"
    assert dict(os.environ) == before and spark.range(3).count() == 3

    file = submitted(out)
    with Below(os.getpid()) as below:
        assert run_on_spark(file, show=show) == 0, lines
        below.seconds_to_end(DOWN_S)
    tokens.discard("")
    assert len(tokens) == 2 and all(len(token) == 64 for token in tokens)
    told = "\n".join(
        [*lines, *below.command_lines, *map(str, spark.sparkContext.getConf().getAll())]
    )
    assert "start_ray_node" in told and not any(token in told for token in tokens)
    assert spark.range(3).count() == 3
    assert_labels_of_a_run(out, file, tmp_path / "here", cli)


def test_job_that_cannot_run_there_is_refused_and_leaves_nothing(
    spark: SparkSession, submitted: Callable[..., Path], tmp_path: Path
) -> None:
    file = submitted(tmp_path / "out", input={"path": "/nowhere/corpus", "content": "text"})
    with Below(os.getpid()) as below:
        with pytest.raises(Problems, match="/nowhere/corpus"):
            run_on_spark(file, show=lambda _: None)
        assert below.count() > 10
        below.seconds_to_end(DOWN_S)
    assert not (tmp_path / "out").exists() and spark.range(3).count() == 3
