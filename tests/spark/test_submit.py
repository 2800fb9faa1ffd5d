"""Whole jobs on a Spark cluster: the labels of a run, and nothing that is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from support.executors import spark_home
from support.outputs import compared, labels, manifest_of
from support.project import environment
from support.ray_on_spark import Below, start_patiently
from support.scripted import SCRIPT

from moderay.core.errors import Problems
from moderay.tasks.submit.spark import run_on_spark

# Seconds within which all that was started has ended: Spark keeps an idle worker for a minute.
DOWN_S = 180.0
MASTER = "--master local-cluster[2,1,4096] --conf spark.ui.enabled=false pyspark-shell"
# `moderay`, on a machine that may be busy.
MODERAY = (
    "from support.ray_on_spark import start_patiently; start_patiently();"
    "from moderay.cli.app import process; process()"
)

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _patient() -> None:
    start_patiently()


@pytest.fixture
def write(job: Callable[..., Path], corpus: Path, tmp_path: Path) -> Write:
    """A job whose paths mean the same everywhere, with answers that take their time."""

    def write(out: str, delay: float = 0.0, **sections: Any) -> Path:
        script = {
            "default": SCRIPT["default"],
            "rules": SCRIPT["rules"][:2],
            "delay": {"mean_s": delay},
        }
        own = {
            "input": {"path": str(corpus), "content": "text"},
            "output": {"path": str(tmp_path / out), "reasoning": "all"},
            "model": {
                "source": "scripted:script.yaml",
                "engine": {"max_num_seqs": 2},
                "replicas": 2,
            },
            "unit": {"rows": 5},
            "limits": {"grace_s": 6},
        }
        return job(script, **own | sections)

    return write


def _saved(out: Path) -> int:
    return len(list((out / "_moderay").rglob("*.parquet")))


@contextmanager
def _signal_once_saved(out: Path, number: int) -> Iterator[None]:
    """Send this process a signal once a unit is saved."""

    def wait() -> None:
        while not ended.is_set() and _saved(out) == 0:
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


def _assert_labels_of_a_run(there: Path, file: Path, here: Path, cli: Callable[..., Any]) -> None:
    run = cli("run", file, "--set", f"output.path={here}", RAY_ADDRESS="local")
    assert run.returncode == 0, run.stderr
    actual, expected = labels(there), labels(here)
    assert actual.keys() == expected.keys() and expected
    for shard, table in expected.items():
        assert compared(actual[shard], "spam") == compared(table, "spam"), shard
    keys = {manifest_of(folder)["cascade_key"] for folder in (there, here)}
    assert len(keys) == 1


def test_job_is_stopped_by_sigterm_and_goes_on_to_the_labels_of_a_run(
    spark: SparkSession, write: Write, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out, before = tmp_path / "out", dict(os.environ)
    lines: list[str] = []
    tokens: set[str] = set()

    def show(line: str) -> None:
        lines.append(line)
        tokens.add(os.environ.get("RAY_AUTH_TOKEN", ""))

    with Below(os.getpid()) as below:
        with _signal_once_saved(out, signal.SIGTERM):
            assert run_on_spark(write("out", 4.0), show=show) == 3, lines
        assert below.count() > 10
        below.seconds_to_end(DOWN_S)
    assert any("stopped by SIGTERM" in line for line in lines), lines
    assert manifest_of(out)["runs"][-1]["status"] == "stopped"
    assert dict(os.environ) == before and spark.range(3).count() == 3

    file = write("out")
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
    _assert_labels_of_a_run(out, file, tmp_path / "here", cli)


def test_job_that_cannot_run_there_is_refused_and_leaves_nothing(
    spark: SparkSession, write: Write, tmp_path: Path
) -> None:
    file = write("out", input={"path": "/nowhere/corpus", "content": "text"})
    with Below(os.getpid()) as below:
        with pytest.raises(Problems, match="/nowhere/corpus"):
            run_on_spark(file, show=lambda _: None)
        assert below.count() > 10
        below.seconds_to_end(DOWN_S)
    assert not (tmp_path / "out").exists() and spark.range(3).count() == 3


@pytest.fixture
def home(tmp_path: Path) -> str:
    """A Spark of its own, which needs no other session beside it."""
    folder = tmp_path / "spark-home"
    folder.mkdir()
    return str(spark_home(folder))


@contextmanager
def _command(file: Path, log: Path, home: str) -> Iterator[subprocess.Popen[bytes]]:
    """`moderay submit --spark` as a person calls it, in a process with a JVM of its own."""
    env = environment() | {
        "PYSPARK_SUBMIT_ARGS": MASTER,
        "SPARK_HOME": home,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    command = [sys.executable, "-c", MODERAY, "submit", str(file), "--spark"]
    with log.open("wb") as into:
        process = subprocess.Popen(command, stdout=into, stderr=subprocess.STDOUT, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_tiny_on_spark_gives_the_labels_of_a_run(
    home: str, write: Write, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    file = write("out", model={"source": "tiny", "replicas": 2}, unit={"rows": 35})
    with (
        _command(file, log, home) as process,
        Below(process.pid, whole=True) as below,
    ):
        assert process.wait(400) == 0, log.read_text()
        below.seconds_to_end(DOWN_S)
    assert "3 nodes, 2 engines; 3 shards, 105 rows" in log.read_text()
    _assert_labels_of_a_run(out, file, tmp_path / "here", cli)


def test_driver_that_is_killed_leaves_nothing_for_long(
    home: str, write: Write, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    with (
        _command(write("out", 4.0), log, home) as process,
        Below(process.pid, whole=True) as below,
    ):
        while _saved(out) == 0:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        process.kill()
        process.wait()
        seconds = below.seconds_to_end(DOWN_S)
    print(f"all {below.count()} processes had ended {seconds:.1f} s after SIGKILL")
