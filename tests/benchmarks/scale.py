"""`make scale`: seconds and memory of a run over more and more rows and shards, with rows of 1 MiB,
and of the listing of a million units.

On the scripted engine, so that the time is that of everything around one. How both grow is told as
the slope of a line through the logarithms: 1 grows as the corpus does, 0 not at all.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from support.outputs import manifest_of
from support.project import ROOT
from support.scripted import write_job

from benchmarks import speed
from benchmarks.measured import Deadline, end_below
from benchmarks.records import Case, Figure, Part, finish

SHARD_ROWS = 5_000
ROWS, SHARDS = (10_000, 100_000, 1_000_000), (10, 100, 1_000)
# Rows where the number of shards is varied.
SHARDED_ROWS = 100_000
COLUMNS = ("seconds", "rows/s", "MiB", "bytes ahead")


def corpus(folder: Path, rows: int, width: int, shards: int | None = None) -> None:
    """Shards of texts of `width` characters, no two alike; by default of `SHARD_ROWS` rows each."""
    folder.mkdir(parents=True)
    shards = shards or max(1, rows // SHARD_ROWS)
    for shard, numbers in enumerate(np.array_split(np.arange(rows), shards)):
        texts = (f"{number} ".ljust(width, "x") for number in numbers)
        pq.write_table(
            pa.table({"text": pa.array(texts, pa.large_string())}),
            folder / f"{shard:05d}.parquet",
            row_group_size=max(1, 2**26 // width),
        )


def peak(
    folder: Path, rows: int, width: int, shards: int | None = None, deadline_s: float = math.inf
) -> dict[str, Any] | None:
    """Run a job of so many rows on the scripted engine.

    Returns:
        The manifest's entry of the run, with `mib`: of the driver and the workers together at most,
        each page of memory counted once, the object store and Ray's own processes apart; and
        `whole`: seconds of the command. None where it was ended at its deadline.
    """
    corpus(folder / "in", rows, width, shards)
    answer = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."}
    job = write_job(folder, {"default": answer})
    began = time.monotonic()
    driver = subprocess.Popen(
        [sys.executable, "-m", "moderay", "run", str(job)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"RAY_ADDRESS": "local"},
    )
    most = 0
    while driver.poll() is None:
        if time.monotonic() - began > deadline_s:
            end_below(driver.pid)
            driver.communicate()
            return None
        most = max(most, _memory(psutil.Process(driver.pid)))
        time.sleep(0.5)
    whole = time.monotonic() - began
    assert driver.returncode == 0, driver.communicate()[1].decode()
    run: dict[str, Any] = manifest_of(folder / "out")["runs"][-1]
    assert run["judged"] == rows
    return {**run, "mib": most / 2**20, "whole": whole}


def _memory(driver: psutil.Process) -> int:
    total = 0
    for process in [driver, *driver.children(recursive=True)]:
        try:
            name = " ".join(process.cmdline())
            if process == driver or name.startswith("ray::"):
                total += process.memory_full_info().uss
        except psutil.Error:
            continue  # it has just ended
    return total


def listing(folder: Path, shards: int, units: int) -> tuple[float, float]:
    """Seconds and MiB at most that it takes to work out what is left of so many shards with so many
    units saved.
    """
    code = f"""
import resource, sys, time
sys.path.insert(0, {str(ROOT / "tests")!r})
from benchmarks.scale import left
print(*left({str(folder)!r}, {shards}, {units}))
"""
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    return float(printed[0]), float(printed[1])


def left(folder: str, shards: int, units: int) -> tuple[float, float]:
    """`listing`, in this process."""
    import resource

    from moderay.config.job import Job
    from moderay.config.policy import load_policy
    from moderay.core.hashing import digest
    from moderay.core.verdicts import unit_schema
    from moderay.corpus.scan import Scan
    from moderay.corpus.shard import Shard
    from moderay.labels.unit_file import unit_bytes
    from moderay.pipeline.check import Checked
    from moderay.pipeline.plan import make_plan, shard_key
    from moderay.tasks.embedded_job import job_cascades

    job = Job.model_validate(
        {
            "input": {"path": "in", "content": "text"},
            "output": {"path": folder},
            "policies": [str(ROOT / "policies/spam")],
        }
    )
    input_shards = tuple(
        Shard(
            f"/in/{i:06d}.parquet",
            f"day={i % 100}/{i:06d}.parquet",
            1,
            "v",
            (512 * (units // shards + 1),),
        )
        for i in range(shards)
    )
    policies = (load_policy(job.policies[0]),)
    empty = pa.schema([])
    scanned = Scan(input_shards, (empty,) * len(input_shards), empty, (), ())
    checked = Checked(job, policies, job_cascades(job, policies), scanned, ())
    plan = make_plan(checked)
    assert plan.rows_left == sum(shard.rows for shard in input_shards)
    selection = digest([job.input.content, job.input.where, job.input.sample])
    # The end of each unit is looked at, which says of which rows it is.
    nothing = unit_schema([policy.id for policy in policies]).empty_table()
    ranges = [(512 * unit, 512 * unit + 512) for unit in range(units // shards)]
    whole = {rows: unit_bytes(nothing, rows) for rows in ranges}
    for shard in input_shards:
        key = shard_key(shard, plan.cascade, selection)
        Path(plan.layout.unit(shard.name, ranges[0], key)).parent.mkdir(parents=True)
        for rows, data in whole.items():
            Path(plan.layout.unit(shard.name, rows, key)).write_bytes(data)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = make_plan(checked)
    seconds = time.monotonic() - began
    assert plan.rows_left == 512 * shards and len(plan.todo) == shards, plan.rows_left
    print(f"before the listing: {before / 2**10:.0f} MiB", file=sys.stderr)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def slope(sizes: list[int], values: list[float]) -> float:
    """By which power of the size a value grows."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def grown(size: float, deadline: Deadline, folder: Path) -> Part:
    """Runs over more and more rows, and over as many rows in more and more shards."""
    rows = [max(1_000, round(count * size)) for count in ROWS]
    sharded = max(2 * SHARDS[-1], round(SHARDED_ROWS * size))
    # By what is varied: name, rows, shards, characters of a row.
    asked: list[tuple[str, str, int, int | None, int]]
    asked = [("rows", f"{count:,} rows", count, None, 200) for count in rows]
    asked += [("shards", f"{shards:,} shards", sharded, shards, 200) for shards in SHARDS]
    few = max(20, round(250 * size))
    asked += [("wide", f"{count:,} rows of 1 MiB", count, 4, 2**20) for count in (few, 4 * few)]
    cases, left_out = [], []
    points: dict[str, list[tuple[int, float, float]]] = {}
    for number, (kind, name, count, shards, width) in enumerate(asked):
        if deadline.left <= 0:
            left_out.append(f"{name}, the time was over")
            continue
        run = peak(folder / str(number), count, width, shards, deadline.left)
        if run is None:
            left_out.append(f"{name}, ended when the time was over")
            continue
        print(f"{name}: {run['whole']:.0f} s, {run['mib']:,.0f} MiB", flush=True)
        cases.append(Case(name=name, figures=_figures(run, count)))
        at = shards if kind == "shards" else count
        points.setdefault(kind, []).append((at or count, run["whole"], run["mib"]))
    notes = [_grows(kind, found) for kind, found in points.items() if len(found) > 1]
    return Part(
        part="scale",
        title="Time and memory of larger corpora",
        settings={"rows of the runs by shards": sharded, "characters of a row": 200},
        columns=COLUMNS,
        cases=tuple(cases),
        notes=tuple(notes),
        left_out=tuple(left_out),
        seconds=deadline.spent,
    )


def _grows(kind: str, points: list[tuple[int, float, float]]) -> str:
    sizes, seconds, memory = (list(each) for each in zip(*points, strict=True))
    return (
        f"{kind}: seconds grow with power {slope(sizes, seconds):.2f} of their number, memory with "
        f"{slope(sizes, memory):.2f}"
    )


def _figures(run: dict[str, Any], rows: int) -> dict[str, Figure]:
    return {
        "seconds": Figure(value=run["whole"]),
        "rows/s": Figure(value=rows / run["whole"]),
        "MiB": Figure(value=run["mib"]),
        "bytes ahead": Figure(value=run["most_bytes_ahead"]),
    }


def listed(folder: Path, units: int) -> Case:
    """Where very many units are saved, what is left is known after so long."""
    seconds, most = listing(folder, max(1, units // 10), units)
    figures = {"seconds": Figure(value=seconds), "MiB": Figure(value=most)}
    return Case(name=f"listing of {units:,} units", figures=figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    speed.add_options(parser, rounds=1)
    parser.add_argument("--units", type=int, default=1_000_000, help="that are listed; 0: none")
    options = parser.parse_args()
    deadline = Deadline(options.seconds)
    with tempfile.TemporaryDirectory(prefix="moderay-scale-") as name:
        part = grown(options.size, deadline, Path(name))
        if options.units and deadline.left > 0:
            cases = (*part.cases, listed(Path(name) / "listing", options.units))
            part = part.model_copy(update={"cases": cases, "seconds": deadline.spent})
        finish(part, options.json)


if __name__ == "__main__":
    main()
