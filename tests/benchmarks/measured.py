"""One measurement in a process of its own, watched from outside.

Watched are the seconds of CPU of every process below it, those of vLLM's engine apart, the threads
that the engine was given, and a deadline, behind which what still runs is ended and told as hung.
Times of the child and of the watcher are of one clock, so that the CPU of a part of the child's
work can be told.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ENGINE = "EngineCore"
# Seconds between two looks at the processes.
LOOK_S = 0.5
# OpenMP's and torch's. An engine in a Ray actor of half a core would else get one thread, and one
# without Ray all cores.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
QUIET = {
    "RAY_ADDRESS": "local",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


# Where a child finds the benchmarks, wherever this was started from.
TESTS = str(Path(__file__).parents[1])


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of a child: this process's, quiet, with the benchmarks to be imported, and more."""
    path = os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **QUIET, "PYTHONPATH": path, **(more or {})}


@dataclass(frozen=True)
class Look:
    """CPU seconds so far of all processes below the measurement, ended ones included."""

    at: float
    engine: float
    others: float


@dataclass(frozen=True)
class Outcome:
    """What a measurement came to.

    Attributes:
        result: What the process printed as JSON; empty where it failed or hung.
        seconds: From its start to its end.
        looks: At its processes.
        threads: That its engine's process was told to compute with; None: nothing told it.
        wrong: Why there is no result; empty where there is one.
        hung: Whether it was ended at its deadline.
    """

    result: Mapping[str, Any]
    seconds: float
    looks: tuple[Look, ...]
    threads: int | None
    wrong: str = ""
    hung: bool = False

    def cpu(self, begin: float, end: float) -> tuple[float, float]:
        """CPU seconds of engine and others between two moments of the monotonic clock."""
        at = [look.at for look in self.looks]
        if len(at) < 2:
            return 0.0, 0.0
        engine, others = (
            np.interp([begin, end], at, [getattr(look, name) for look in self.looks])
            for name in ("engine", "others")
        )
        return float(engine[1] - engine[0]), float(others[1] - others[0])


def measure(
    command: Sequence[str],
    deadline_s: float,
    threads: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a command that prints its result as one line of JSON; what else it prints goes nowhere.

    Args:
        command: Program and arguments.
        deadline_s: After so many seconds it is ended.
        threads: Of everything that computes; None: as the machine and Ray have it.
        env: Further variables.
    """
    told = {} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads))
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as wrong:
        child = subprocess.Popen(
            command, stdout=out, stderr=wrong, env=environment({**told, **(env or {})})
        )
        watcher = _Watcher(child.pid)
        while child.poll() is None and time.monotonic() - began < deadline_s:
            watcher.look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(LOOK_S)
        hung = child.poll() is None
        if hung:
            end_below(child.pid)
            child.wait()
        seconds = time.monotonic() - began
        out.seek(0)
        wrong.seek(0)
        said, errors = out.read().strip().splitlines(), wrong.read().strip().splitlines()
    looks = tuple(watcher.looks)
    if hung:
        why = f"hung: nothing more after {deadline_s:.0f} s"
        return Outcome({}, seconds, looks, watcher.threads, why, hung=True)
    results = [line for line in said if line.startswith("{") and line.endswith("}")]
    if child.returncode != 0 or not results:
        why = last_error(errors) or f"ended with status {child.returncode} and no result"
        return Outcome({}, seconds, looks, watcher.threads, why)
    return Outcome(json.loads(results[-1]), seconds, looks, watcher.threads)


def last_error(lines: Sequence[str]) -> str:
    """What a program says last, with the hint that is indented below it; 300 characters at most."""
    begins = [place for place, line in enumerate(lines) if line[:1].strip()]
    return " ".join(line.strip() for line in lines[begins[-1] :])[:300] if begins else ""


def module(name: str, *arguments: object) -> list[str]:
    """The command of a module of the benchmarks."""
    return [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]


def end_below(pid: int) -> None:
    """End a process that was started here, and everything below it."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=30)


class _Watcher:
    """Looks at the processes below one."""

    def __init__(self, pid: int) -> None:
        self.looks: list[Look] = []
        self.threads: int | None = None
        self._pid = pid
        self._engine: dict[int, float] = {}
        self._others: dict[int, float] = {}
        # What each process was told at its start: one that gives itself a name, as the engine's
        # does, writes it over its environment.
        self._told: dict[int, str | None] = {}

    def look(self) -> None:
        try:
            root = psutil.Process(self._pid)
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in family:
            with contextlib.suppress(psutil.Error):  # it has just ended
                self._count(process)
        now = time.monotonic()
        self.looks.append(Look(now, sum(self._engine.values()), sum(self._others.values())))

    def _count(self, process: psutil.Process) -> None:
        times = process.cpu_times()
        if process.pid not in self._told:
            self._told[process.pid] = process.environ().get(THREAD_VARIABLES[0])
        engine = process.pid in self._engine or ENGINE in process.name() + " ".join(
            process.cmdline()
        )
        if engine:
            # It takes its name a while after its start.
            self._others.pop(process.pid, None)
            told = self._told.get(process.pid)
            self.threads = int(told) if told else self.threads
        (self._engine if engine else self._others)[process.pid] = times.user + times.system


def write_work(folder: Path, work: Mapping[str, Any]) -> Path:
    """What a peer in another environment is to do, for its script to read."""
    file = folder / "work.json"
    file.write_text(json.dumps(work))
    return file


class Deadline:
    """Until when a part may measure."""

    def __init__(self, seconds: float) -> None:
        self._began, self._seconds = time.monotonic(), seconds

    @property
    def spent(self) -> float:
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        return self._seconds - self.spent

    def allows(self, seconds: float) -> bool:
        """Whether something that takes so long would be through in time."""
        return self.left >= seconds
