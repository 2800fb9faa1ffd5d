"""`make bench`: simulation of many engines: scripted ones, each an actor, each taking 256 requests
at a time.

A row is two requests of log-normal latency (sigma 1, 8 s on average), an answer and its
probability, so that an engine whose seats are all taken makes 256 / (2 x 8 s) = 16 rows/s. Ray is
told of as many cores as the actors and two readers ask for. Measured from what the driver hears of
each unit (`engines.usage.Usage`): when seats were taken, and how much of it the engines had work,
in steady state, which is from the moment the last engine is full until fewer rows are left than
twice the seats. Latencies go on to `limits.request_s`, 120 s, and so does the drain.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

SEATS, ROWS_PER_S, UNIT, GOAL = 256, 16.0, 64, 0.95
# Memory of an actor, and of Ray, the driver and two readers.
ACTOR_GIB, REST_GIB = 0.135, 2.0
QUIET = {
    "RAY_ADDRESS": "local",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
POLICY = """\
---
id: spam
title: Spam
labels: {"0": {violates: false}, "1": {violates: true}}
answer: label
---
# Spam
Is this unwanted advertising?
"""


@dataclass(frozen=True)
class Reading:
    """What a unit's end said of its engine: `at`, seconds since the run began, and its figures
    since the unit before.
    """

    at: float
    usage: Counter[str]

    @property
    def seconds(self) -> float:
        """Of the engine, since its last unit."""
        return (
            sum(self.usage[f"engine_{state}_ms"] for state in ("starting", "idle", "working"))
            / 1000
        )


def rows_for(engines: int) -> int:
    """Enough for a minute of steady state after the start of so many actors on two cores, and what
    is left at its end.
    """
    return engines * int(ROWS_PER_S * (100 + 0.6 * engines))


def write_job(folder: Path, engines: int) -> Path:
    (folder / "in").mkdir()
    (folder / "spam").mkdir()
    (folder / "spam/policy.md").write_text(POLICY)
    rows = rows_for(engines)
    for start in range(0, rows, 8192):
        pq.write_table(
            pa.table(
                {
                    "text": [
                        f"{row}: a few words of text"
                        for row in range(start, min(rows, start + 8192))
                    ]
                }
            ),
            folder / f"in/{start:08d}.parquet",
        )
    script = {
        "default": {"answer": "0", "reasoning": "Fine."},
        "delay": {"mean_s": SEATS / ROWS_PER_S / 2, "sigma": 1.0},
    }
    (folder / "script.yaml").write_text(yaml.safe_dump(script))
    job = {
        "input": {"path": "in", "content": "text"},
        "output": {"path": "out", "columns": []},
        "policies": ["spam"],
        "model": {
            "source": "scripted:script.yaml",
            "engine": {"max_num_seqs": SEATS},
            "replicas": engines,
        },
        "unit": {"rows": UNIT},
        "limits": {"max_failed": 1},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def simulate(folder: Path, engines: int) -> dict[str, float]:
    """One run in this process, which is its driver; what is printed of it."""
    import ray

    from moderay.pipeline.check import check
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.control.sizing import ENGINE_CPUS
    from moderay.pipeline.run import run

    readings: list[Reading] = []

    class Marks(Progress):
        def add(self, unit: Any) -> None:
            super().add(unit)
            readings.append(Reading(time.monotonic() - began, Counter(unit.usage)))

    job = write_job(folder, engines)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.init(
        num_cpus=int(engines * ENGINE_CPUS) + 2,
        include_dashboard=False,
        object_store_memory=2**30,
        log_to_driver=False,
        logging_level="ERROR",
    )
    watch = Watch()
    began = time.monotonic()
    outcome = run(check(job), progress=Marks(None))
    seconds = time.monotonic() - began
    watch.stop()
    assert outcome.exit_status == 0 and outcome.judged == rows_for(engines)
    ray.shutdown()
    return summary(readings, engines, seconds) | watch.between(began, *window(readings, engines))


def window(readings: Sequence[Reading], engines: int) -> tuple[float, float]:
    """Steady state, in seconds since the run began: the last engine is full, and more is left than
    twice the seats.
    """
    first = [item for item in readings if item.usage["engine_starts"]]
    full = max(
        item.at - item.seconds + item.usage["seats_free_ms"] / 1000 / SEATS for item in first
    )
    left = float(rows_for(engines))
    for item in readings:
        left -= item.usage["requests"] / 2
        if left < 2 * SEATS * engines:
            return full, item.at
    return full, readings[-1].at


def summary(readings: Sequence[Reading], engines: int, seconds: float) -> dict[str, float]:
    start, end = window(readings, engines)
    steady: Counter[str] = Counter()
    for item in readings:
        if item.at - item.seconds >= start and item.at <= end:
            steady += item.usage
    spent = steady["engine_idle_ms"] + steady["engine_working_ms"]
    first = [item.at - item.seconds for item in readings if item.usage["engine_starts"]]
    return {
        "actors": max(first),
        "fill": start,
        "steady": end - start,
        "drain": seconds - end,
        "working": steady["engine_working_ms"] / spent if spent else 0.0,
        "seats": steady["seats_taken_ms"] / (steady["seats_taken_ms"] + steady["seats_free_ms"])
        if spent
        else 0.0,
        "rate": steady["requests"] / 2 / (spent / 1000) if spent else 0.0,
        "units": len(readings),
    }


class Watch:
    """CPU and memory of this process, of Ray's own and of the workers, every two seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, dict[str, float], float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def between(self, began: float, start: float, end: float) -> dict[str, float]:
        """Cores in use in that time, and CPU seconds of the whole run, by whom; GiB at most, of the
        driver, and of all the machine's that is not free.
        """
        inner = [item for item in self._seen if start <= item[0] - began <= end] or self._seen
        (first, before, _), (last, after, _) = inner[0], inner[-1]
        cores = {
            f"{who}_cores": (after[who] - before[who]) / max(last - first, 1e-9)
            for who in ("driver", "ray", "workers")
        }
        whole = {
            f"{who}_s": self._seen[-1][1][who] - self._seen[0][1][who] for who in ("driver", "ray")
        }
        memory = {
            "driver_gib": max(seen["memory"] for _, seen, _ in self._seen),
            "used_gib": max(used for *_, used in self._seen),
        }
        return cores | whole | {name: size / 2**30 for name, size in memory.items()}

    def _look(self) -> None:
        driver = psutil.Process()
        while not self._ended.wait(2):
            seen = {
                "driver": _cpu(driver),
                "ray": 0.0,
                "workers": 0.0,
                "memory": float(driver.memory_info().rss),
            }
            for process in driver.children(recursive=True):
                try:
                    seen["workers" if process.cmdline()[0].startswith("ray::") else "ray"] += _cpu(
                        process
                    )
                except (psutil.Error, IndexError):
                    continue  # it has just ended
            self._seen.append(
                (
                    time.monotonic(),
                    seen,
                    float(psutil.virtual_memory().total - psutil.virtual_memory().available),
                )
            )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def shown(engines: int, figures: dict[str, float]) -> str:
    return (
        f"{engines} engines: with work {figures['working']:.1%} of the time (goal {GOAL:.0%}), "
        f"seats taken {figures['seats']:.1%}, "
        f"{figures['rate']:.1f} rows/s each, over {figures['steady']:.0f} s; "
        f"actors {figures['actors']:.0f} s, full after {figures['fill']:.0f} s, drained in "
        f"{figures['drain']:.0f} s; "
        f"cores: driver {figures['driver_cores']:.2f}, Ray {figures['ray_cores']:.2f}, actors "
        f"{figures['workers_cores']:.2f}; "
        f"CPU a unit: driver {1000 * figures['driver_s'] / figures['units']:.0f} ms, Ray "
        f"{1000 * figures['ray_s'] / figures['units']:.0f} ms; "
        f"driver {figures['driver_gib']:.2f} GiB, machine {figures['used_gib']:.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 8, 64, 128])
    parser.add_argument(
        "--one",
        nargs=2,
        metavar=("ENGINES", "FOLDER"),
        help="internal: one simulation in a process of its own",
    )
    options = parser.parse_args()
    if options.one:
        print(json.dumps(simulate(Path(options.one[1]), int(options.one[0]))))
        return
    for engines in options.engines:
        needed, there = engines * ACTOR_GIB + REST_GIB, psutil.virtual_memory().available / 2**30
        if needed > there:
            sys.exit(
                f"{engines} engines take about {needed:.0f} GiB of memory, and {there:.0f} GiB "
                "are free: close something, or give fewer --engines"
            )
        with tempfile.TemporaryDirectory(prefix="moderay-engines-") as folder:
            command = [sys.executable, "-m", "benchmarks.engines", "--one", str(engines), folder]
            output = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | QUIET
            ).stdout
        figures = json.loads(output.strip().splitlines()[-1])
        print(shown(engines, figures), flush=True)
    units = figures["units"] / figures["driver_s"]
    print(
        f"on paper: with one core a driver takes in {units:.0f} units/s, which with units of 512 "
        f"rows are {units * 512 / ROWS_PER_S:,.0f} such engines; "
        "where it breaks next on the way to 10,000, and what would be changed: infra/SCALE.md"
    )


if __name__ == "__main__":
    main()
