"""`make bench`: units a second that one driver takes, with actors that cost nothing.

- `hollow`: read tasks that read nothing and hand on units that have ended already, so that Ray
  Data, the board and the driver are all that works. CPU of the driver a unit, in steady state,
  which is from 20% to 80% of the units; what its threads do, by `py-spy` (`--profile FILE`).
- `whole`: a run in which everything happens, with the scripted engine that answers at once.
- `shards`: such a run over many small shards.

To compare two states of the code, run it with PYTHONPATH at the one and at the other, in turn.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.engines import POLICY
from benchmarks.measured import environment
from benchmarks.plumbing import CpuWatch
from benchmarks.records import Case, Figure, Part, finish

GOAL = 250
ACTORS, SHARDS = 8, 32
COLUMNS = ("units/s", "rows/s", "driver ms a unit", "units/s of a core", "seconds")


def write_job(folder: Path, rows: int, shards: int, unit: int) -> Path:
    """A job of so many rows in so many shards."""
    (folder / "in").mkdir()
    (folder / "spam").mkdir()
    (folder / "spam/policy.md").write_text(POLICY)
    each = rows // shards
    for shard in range(shards):
        texts = [f"{shard}.{row}: a few words of text" for row in range(each)]
        pq.write_table(pa.table({"text": texts}), folder / f"in/{shard:06d}.parquet")
    script = {"default": {"answer": "0", "p": 0.95}}
    (folder / "script.yaml").write_text(yaml.safe_dump(script))
    job = {
        "input": {"path": "in", "content": "text"},
        "output": {"path": "out", "columns": []},
        "policies": ["spam"],
        "model": {"source": "scripted:script.yaml", "replicas": ACTORS},
        "unit": {"rows": unit},
        "limits": {"max_failed": 1},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def hollow_units(reading: Any, run: Any, answers: Any) -> Iterator[Any]:
    """Instead of `read_task._units`: units that have ended, of a span that nobody reads."""
    from moderay.core.verdicts import Status
    from moderay.pipeline.messages.units import UnitDone
    from moderay.pipeline.stages import read_task

    names = [*[status.value for status in Status], "forced", "prompt_tokens", "output_tokens"]
    counts = {cascade.policy.id: dict.fromkeys(names, 1) for cascade in run.cascades}
    span = reading.span
    for start, end in span.missing:
        for at in range(start, end, span.step):
            rows = (at, min(at + span.step, end))
            done = UnitDone(span.shard.name, rows, selected=rows[1] - rows[0], counts=counts)
            yield read_task._ended(reading, done)


def hollow_read(batch: pa.Table, **shared: Any) -> Iterator[pa.Table]:
    """Instead of `read_task.read_task`."""
    from moderay.pipeline.stages import read_task

    read_task._units = hollow_units
    yield from read_task.read_task(batch, **shared)


def measured(job: Path, rows: int, unit: int, is_hollow: bool, profile: str) -> dict[str, Any]:
    """A run in this process, which is its driver."""
    import ray

    from moderay.pipeline import flow
    from moderay.pipeline.check import check
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.control.sizing import ENGINE_CPUS
    from moderay.pipeline.run import run
    from moderay.pipeline.stages.publish_tasks import Publisher

    marks: list[tuple[float, float, int]] = []
    units, profiler = rows // unit, list[subprocess.Popen[bytes]]()

    class Marks(Progress):
        def add(self, unit: Any) -> None:
            super().add(unit)
            marks.append((time.monotonic(), time.process_time(), len(marks) + 1))
            if profile and len(marks) == units // 5:
                profiler.append(_profile(profile))

    if is_hollow:
        mock.patch.object(flow, "read_task", hollow_read).start()
        mock.patch.object(Publisher, "start").start()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.init(
        num_cpus=int(ACTORS * ENGINE_CPUS) + 2,
        include_dashboard=False,
        object_store_memory=2**30,
        log_to_driver=False,
        logging_level="ERROR",
    )
    watch, began = CpuWatch(), time.monotonic()
    outcome = run(check(job), progress=Marks(None))
    seconds, spent = time.monotonic() - began, watch.stop()
    assert is_hollow or (outcome.exit_status == 0 and outcome.judged == rows)
    ray.shutdown()
    for one in profiler:
        one.wait()
    inner = [mark for mark in marks if 0.2 * units <= mark[2] <= 0.8 * units]
    (first, cpu, before), (last, cpu_after, after) = inner[0], inner[-1]
    count = after - before
    return {
        "units/s": count / (last - first),
        "rows/s": count * unit / (last - first),
        "driver ms a unit": 1000 * (cpu_after - cpu) / count,
        "units/s of a core": count / (cpu_after - cpu),
        "seconds": seconds,
        "cpu": {kind: 1000 * cpu / units for kind, cpu in spent.items()},
    }


def _profile(file: str) -> subprocess.Popen[bytes]:
    """Ten seconds of this process's threads, as folded stacks; needs `pip install py-spy`."""
    command = ["py-spy", "record", "--pid", str(os.getpid()), "--format", "raw", "--threads"]
    options = ["--duration", "10", "--rate", "50", "--gil", "--output", file]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)


def of(name: str, rows: int, shards: int, unit: int, profile: str = "") -> Case:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="moderay-ceiling-") as folder:
        job = write_job(Path(folder), rows, shards, unit)
        hollow = ["--hollow"] if name == "hollow" else []
        done = subprocess.run(
            [
                *[sys.executable, "-m", "benchmarks.ceiling", "--one", str(job)],
                *["--rows", str(rows), "--unit", str(unit), "--profile", profile, *hollow],
            ],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    shares = sorted(found["cpu"].items(), key=lambda item: -item[1])
    spent = ", ".join(f"{kind} {ms:.1f}" for kind, ms in shares if ms >= 0.05)
    return Case(
        name=f"{name}, units of {unit}",
        figures={column: Figure(value=found[column]) for column in COLUMNS},
        note=f"{rows:,} rows in {shards:,} shards; CPU ms a unit, start included: {spent}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--units", type=int, default=4000, help="of a hollow run")
    parser.add_argument("--shards", type=int, default=200, help="small ones, of 12 rows")
    parser.add_argument("--only", choices=["hollow", "hollow-512", "whole", "shards"])
    parser.add_argument("--profile", default="", help="file for the driver's stacks")
    parser.add_argument("--one", metavar="JOB", help="internal: a run in a process of its own")
    parser.add_argument("--rows", type=int, help="internal")
    parser.add_argument("--unit", type=int, help="internal")
    parser.add_argument("--hollow", action="store_true", help="internal")
    options = parser.parse_args()
    if options.one:
        job, rows, unit = Path(options.one), options.rows, options.unit
        print(json.dumps(measured(job, rows, unit, options.hollow, options.profile)))
        return
    count = options.units
    cases: dict[str, Callable[[], Case]] = {
        "hollow": lambda: of("hollow", 16 * count, SHARDS, 16, options.profile),
        "hollow-512": lambda: of("hollow", 512 * count, SHARDS, 512),
        "whole": lambda: of("whole", 16 * count, SHARDS, 16, options.profile),
        "shards": lambda: of("shards", 12 * options.shards, options.shards, 12, options.profile),
    }
    began = time.monotonic()
    part = Part(
        part="ceiling",
        title="What a unit costs the driver",
        columns=COLUMNS,
        cases=tuple(way() for name, way in cases.items() if options.only in (None, name)),
        notes=(
            f"{ACTORS} actors; units/s of this machine's {psutil.cpu_count()} cores, on which "
            f"everything runs; of one driver's core: goal {GOAL}",
        ),
        seconds=time.monotonic() - began,
    )
    finish(part, options.json)


if __name__ == "__main__":
    main()
