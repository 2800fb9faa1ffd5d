"""`moderay submit --spark` as a person calls it: a process with a Spark of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.executors import SHORT_LIVED, spark_home
from support.outputs import saved
from support.project import environment
from support.ray_on_spark import DOWN_S, Below, assert_labels_of_a_run

pytestmark = pytest.mark.long

SETTINGS = {"spark.ui.enabled": "false", **SHORT_LIVED}
ARGUMENTS = " ".join(
    [
        "--master local-cluster[2,1,4096]",
        *(f'--conf "{name}={value}"' for name, value in SETTINGS.items()),
        "pyspark-shell",
    ]
)
# `moderay`, on a machine that may be busy.
MODERAY = (
    "from support.ray_on_spark import start_patiently; start_patiently();"
    "from moderay.cli.app import process; process()"
)


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
        "PYSPARK_SUBMIT_ARGS": ARGUMENTS,
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
    home: str, submitted: Callable[..., Path], tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    file = submitted(out, model={"source": "tiny", "replicas": 2}, unit={"rows": 35})
    with (
        _command(file, log, home) as process,
        Below(process.pid, whole=True) as below,
    ):
        assert process.wait(400) == 0, log.read_text()
        ended = time.monotonic()
        assert "3 nodes, 2 engines; 3 shards, 105 rows" in log.read_text()
        assert_labels_of_a_run(out, file, tmp_path / "here", cli)
        below.seconds_to_end(DOWN_S - (time.monotonic() - ended))


def test_driver_that_is_killed_leaves_nothing_for_long(
    home: str, submitted: Callable[..., Path], tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    with (
        _command(submitted(out, 4.0), log, home) as process,
        Below(process.pid, whole=True) as below,
    ):
        while saved(out) == 0:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        process.kill()
        process.wait()
        seconds = below.seconds_to_end(DOWN_S)
    print(f"all {below.count()} processes had ended {seconds:.1f} s after SIGKILL")
