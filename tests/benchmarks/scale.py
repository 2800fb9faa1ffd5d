"""`make scale`: memory at two sizes of a corpus and with rows of 1 MB, bytes read ahead, and the
listing of a million units.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from support.outputs import manifest_of
from support.project import ROOT
from support.scripted import write_job

SHARD_ROWS = 5_000


def corpus(folder: Path, rows: int, width: int) -> None:
    """Shards of texts of `width` characters, no two alike."""
    folder.mkdir(parents=True)
    size = min(rows, SHARD_ROWS)
    for shard in range(rows // size):
        texts = (f"{shard * size + row} ".ljust(width, "x") for row in range(size))
        pq.write_table(
            pa.table({"text": pa.array(texts, pa.large_string())}),
            folder / f"{shard:05d}.parquet",
            row_group_size=max(1, 2**26 // width),
        )


def peak(folder: Path, rows: int, width: int, **sections: Any) -> tuple[float, dict[str, Any]]:
    """Run a job of so many rows on the scripted engine: MiB of the driver and the workers together
    at most, each page of memory counted once, the object store and Ray's own processes apart; and
    the manifest's entry of the run.
    """
    corpus(folder / "in", rows, width)
    answer = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."}
    job = write_job(folder, {"default": answer}, **sections)
    driver = subprocess.Popen(
        [sys.executable, "-m", "moderay", "run", str(job)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    most = 0
    while driver.poll() is None:
        most = max(most, _memory(psutil.Process(driver.pid)))
        time.sleep(0.5)
    assert driver.returncode == 0, driver.communicate()[1].decode()
    run: dict[str, Any] = manifest_of(folder / "out")["runs"][-1]
    assert run["judged"] == rows
    return most / 2**20, run


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
    from moderay.corpus.scan import Scan
    from moderay.corpus.shard import Shard
    from moderay.pipeline.check import Checked
    from moderay.pipeline.plan import make_plan, shard_key
    from moderay.tasks.embed import job_cascades

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
    selection = digest([job.input.content, None, None])
    for shard in input_shards:
        saved = Path(plan.layout.private(f"units/{shard.name}"))
        saved.mkdir(parents=True)
        key = shard_key(shard, plan.cascade, selection)
        for unit in range(units // shards):
            os.close(os.open(saved / f"{512 * unit}-{512 * unit + 512}-{key}.arrow", os.O_CREAT))
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = make_plan(checked)
    seconds = time.monotonic() - began
    assert plan.rows_left == 512 * shards and len(plan.todo) == shards, plan.rows_left
    print(f"before the listing: {before / 2**10:.0f} MiB", file=sys.stderr)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--units", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moderay-scale-") as name:
        folder = Path(name)
        seconds, most = listing(folder / "listing", options.units // 10, options.units)
        print(
            f"{options.units:,} units in {options.units // 10:,} shards: what is left is known in "
            f"{seconds:.0f} s; goal: 60 s"
        )
        print(f"memory for it: {most:,.0f} MiB; goal: 2,048 MiB", flush=True)
        small, _ = peak(folder / "small", options.rows // 10, 200)
        print(f"{options.rows // 10:,} rows: {small:,.0f} MiB", flush=True)
        large, run = peak(folder / "large", options.rows, 200)
        print(
            (
                f"{options.rows:,} rows: {large:,.0f} MiB, {large / small:.2f} times as much; "
                "goal: at "
                f"most 1.15; {run['judged'] / run['seconds']:,.0f} rows/s"
            ),
            flush=True,
        )
        print(f"bytes read and not yet judged at most: {run['most_bytes_ahead']:,}")
        few, _ = peak(folder / "few", 250, 2**20)
        wide, run = peak(folder / "wide", 1000, 2**20)
        print(
            f"rows of 1 MiB: {few:,.0f} MiB for 250, {wide:,.0f} for 1,000, {wide / few:.2f} "
            f"times as much; bytes ahead at most: {run['most_bytes_ahead']:,}"
        )


if __name__ == "__main__":
    main()
