"""Jobs on a Ray on Spark in tests: it is started patiently, what runs below a process is watched,
and labels are compared with those of a run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from ray.util.spark import cluster_init, utils

from support.outputs import compared, labels, manifest_of

# Seconds that Ray's head may take; `ray.util.spark` gives it 20, used or not, and fails.
HEAD_S = 120
LOOK_S = 0.3
# Seconds within which all that was started has ended: Spark keeps an idle worker for a minute.
DOWN_S = 180.0


def start_patiently() -> None:
    """A busy machine takes longer than Ray gives its head, and an idle one need not wait."""
    cluster_init._RAY_HEAD_STARTUP_TIMEOUT = 0
    cluster_init.is_port_in_use = lambda host, port: utils._wait_service_up(host, port, HEAD_S)
    cluster_init._RAY_WORKER_NODE_STARTUP_INTERVAL = 1


def _is_agent(process: psutil.Process) -> bool:
    """Whether a process is one of Ray's that do no work and go on for a minute after their node."""
    try:
        return any("Agent" in word for word in process.cmdline()[:1])
    except psutil.Error:  # it has just ended
        return False


class Below:
    """Every process that has run below another since this was begun and is to end with its work."""

    def __init__(self, pid: int, whole: bool = False) -> None:
        """`whole`: with Spark's own and Ray's agents, which go on for a minute after their node."""
        self.command_lines: set[str] = set()
        self._top = psutil.Process(pid)
        self._whole = whole
        self._before = set(self._top.children(recursive=True))
        self._seen: set[psutil.Process] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(LOOK_S):
            with suppress(psutil.Error):
                for process in self._top.children(recursive=True):
                    self._note(process)

    def _note(self, process: psutil.Process) -> None:
        with suppress(psutil.Error):
            self.command_lines.add(" ".join(process.cmdline()))
            if process not in self._before:
                self._seen.add(process)

    def _counts(self, process: psutil.Process) -> bool:
        """Whether it runs and is to end: a process may have become Spark's since it was forked."""
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        words = process.cmdline()
        line = " ".join(words)
        is_spark = "pyspark" in line or "java" in (words or [""])[0] or "spark-class" in line
        return self._whole or not (is_spark or _is_agent(process))

    def alive(self) -> list[psutil.Process]:
        """Those that still run."""
        alive = []
        for process in self._seen:
            with suppress(psutil.NoSuchProcess):
                if self._counts(process):
                    alive.append(process)
        return alive

    def count(self) -> int:
        """How many there have been."""
        return len(self._seen)

    def seconds_to_end(self, limit: float) -> float:
        """How long the last of them goes on. Raises `AssertionError` beyond a limit."""
        began = time.monotonic()
        while alive := self.alive():
            seconds = time.monotonic() - began
            assert seconds < limit, alive
            time.sleep(LOOK_S)
        return time.monotonic() - began


def assert_labels_of_a_run(there: Path, file: Path, here: Path, cli: Callable[..., Any]) -> None:
    """What a job has written on Spark is what a run of it writes on this machine."""
    run = cli("run", file, "--set", f"output.path={here}", RAY_ADDRESS="local")
    assert run.returncode == 0, run.stderr
    actual, expected = labels(there), labels(here)
    assert actual.keys() == expected.keys() and expected
    for shard, table in expected.items():
        assert compared(actual[shard], "spam") == compared(table, "spam"), shard
    keys = {manifest_of(folder)["cascade_key"] for folder in (there, here)}
    assert len(keys) == 1
