"""`make bench`: what the pipeline itself costs, with an engine that answers at once.

The scripted engine stands where a model would, so that rows/s are those of the plumbing:

- `actor`: in this process, units of distinct contents of some 27 tokens through the engine's host
  and the judges. CPU of that thread a row, least of some rounds; an actor makes no more rows/s.
- `distinct`: a run over such contents: rows/s from 20% to 80% of the rows, and which processes took
  the CPU.
- `reused`: a run over rows that an earlier output has: rows/s from the command's start to its end.

To compare two states of the code, run it with PYTHONPATH at the one and at the other, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from support.project import ROOT, SHARED

from benchmarks import speed
from benchmarks.measured import Deadline
from benchmarks.records import Case, Figure, Part, finish
from benchmarks.reuse import corpus as write_corpus
from benchmarks.reuse import earlier, run
from moderay.config.job import Job
from moderay.config.policy import load_policy
from moderay.core.collector import rest_collector
from moderay.corpus.content import texts
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.engines.host import EngineHost
from moderay.engines.scripted import Script, ScriptedSpec
from moderay.judges.cascade import Cascade
from moderay.pipeline.stages.judge_unit import judge_unit, questions
from moderay.pipeline.stages.prepare import POSITION, prepared
from moderay.tasks.embedded_job import job_cascades

UNIT, SHARD_ROWS, IN_FLIGHT = 512, 25_000, 6
ROUNDS = 3
SCRIPT = {"default": {"answer": "0", "reasoning": "Looks fine.", "p": 0.95}}
WINDOWS = {"tokens": 2048, "overlap": 128, "max": 4}
# What a process of a run does, by what is in its name; another of Ray's workers goes by that.
KINDS = {"Judge": "actor", "read_task": "reading", "Partition": "index", "Board": "board"}


def contents(rows: int) -> list[str]:
    """So many distinct ones of 15 to 30 tokens: tweets, or the demo's texts, with a number."""
    vocab = vocabulary("tiny")
    found: list[str] = []
    for file in sorted((SHARED / "tweets").glob("*.parquet"))[:1]:
        found += pq.read_table(file, columns=["text"]).column(0).to_pylist()
    if not found:
        print("no tweets beside the project: made-up texts instead", file=sys.stderr)
        found = [f"somebody sells a thing of {i} parts to whoever reads this" for i in range(2000)]
    small = [text for text in found if 15 <= len(vocab.encode(text)) <= 30][:5000]
    return [f"{i} {small[i % len(small)]}" for i in range(rows)]


def write_policy(folder: Path) -> Path:
    """Some 600 tokens of tiny's, the label alone as answer."""
    policy = folder / "policy"
    policy.mkdir()
    text = (ROOT / "policies/private_data/policy.md").read_text()
    (policy / "policy.md").write_text(text[: text.index("## EXAMPLES")])
    return policy


def actor_ms(folder: Path, rows: int) -> float:
    """Milliseconds of CPU that a row takes of the thread in which an actor judges."""
    sections = {"input": {"path": "", "content": "text"}, "output": {"path": ""}}
    job = Job.model_validate({**sections, "policies": ["x"], "windows": WINDOWS})
    spec = ScriptedSpec(Script.model_validate(SCRIPT))
    cascades = job_cascades(job, [load_policy(write_policy(folder))])
    vocab = vocabulary("tiny")
    wanted = contents(rows)
    units = [
        prepared(
            pa.table({POSITION: range(start, start + len(part))}),
            texts(pa.chunked_array([part])),
            job,
            cascades,
            vocab,
        )
        for start in range(0, rows, UNIT)
        for part in [wanted[start : start + UNIT]]
    ]
    return min(_judging_s(spec, cascades, units) for _ in range(ROUNDS)) * 1000 / rows


def _judging_s(spec: ScriptedSpec, cascades: Sequence[Cascade], units: list[pa.Table]) -> float:
    """CPU seconds of this thread."""

    async def work() -> None:
        host = EngineHost(spec, lambda *_: rest_collector())
        places = asyncio.Semaphore(IN_FLIGHT)

        async def unit(table: pa.Table) -> None:
            async with places, host.admitted(questions(cascades, table)) as answered:
                await judge_unit(host, cascades, table, 0, answered)

        await asyncio.gather(*[unit(table) for table in units])

    began = time.thread_time()
    asyncio.run(work())
    return time.thread_time() - began


def distinct(folder: Path, rows: int) -> dict[str, Any]:
    """A run over distinct contents: its rows/s and the CPU it took, in a process of its own."""
    from moderay.pipeline.check import check
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.run import run as label

    marks: list[tuple[float, int]] = []

    class Marks(Progress):
        def add(self, unit):  # type: ignore[no-untyped-def]
            super().add(unit)
            marks.append((time.monotonic(), self.rows))

    (folder / "in").mkdir()
    wanted = contents(rows)
    for start in range(0, rows, SHARD_ROWS):
        table = pa.table({"text": wanted[start : start + SHARD_ROWS]})
        pq.write_table(table, folder / f"in/{start:09d}.parquet")
    (folder / "script.yaml").write_text(yaml.safe_dump(SCRIPT))
    job = {
        "input": {"path": str(folder / "in"), "content": "text"},
        "output": {"path": str(folder / "out"), "columns": []},
        "policies": [str(write_policy(folder))],
        "model": {"source": f"scripted:{folder}/script.yaml"},
        "windows": WINDOWS,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    watch, began = CpuWatch(), time.monotonic()
    label(check(folder / "job.yaml"), progress=Marks(None))
    spent = watch.stop()
    inner = [(when, done) for when, done in marks if 0.2 * rows <= done <= 0.8 * rows]
    (first, before), (last, after) = inner[0], inner[-1]
    return {
        "rate": (after - before) / (last - first),
        "whole": rows / (time.monotonic() - began),
        "cpu_us": {kind: 1e6 * seconds / rows for kind, seconds in spent.items()},
    }


class CpuWatch:
    """CPU seconds of this process and of those below it, by what they do."""

    def __init__(self) -> None:
        self._spent: dict[int, tuple[str, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = _seconds(psutil.Process())
        self._thread.start()

    def stop(self) -> Mapping[str, float]:
        """Seconds by kind, up to now."""
        self._ended.set()
        self._thread.join()
        by_kind = {"driver": _seconds(psutil.Process()) - self._before}
        for kind, seconds in self._spent.values():
            by_kind[kind] = by_kind.get(kind, 0.0) + seconds
        return by_kind

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            for process in psutil.Process().children(recursive=True):
                try:
                    name, seconds = " ".join(process.cmdline()), _seconds(process)
                except psutil.Error:
                    continue  # it has just ended
                known = self._spent.get(process.pid, ("Ray", 0.0))[0]
                self._spent[process.pid] = (_kind(name) or known, seconds)


def _kind(name: str) -> str | None:
    """What a process does; None where its name does not say, as that of one that waits."""
    if not name.startswith("ray::") or name.startswith("ray::IDLE"):
        return None
    named = name.removeprefix("ray::").strip()
    return next((kind for word, kind in KINDS.items() if word in named), named)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def reused(folder: Path, rows: int) -> float:
    """Rows/s of a run over rows that an earlier output has, from its start to its end."""
    wanted = [f"a text with the number {i}" for i in range(rows)]
    write_corpus(folder / "in", wanted)
    earlier(folder, wanted)
    entry, seconds = run(folder, "after", reuse=["before"])
    assert entry["reused_verdicts"] == rows and not entry["usage"].get("requests")
    return rows / seconds


def _distinct_apart(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="moderay-bench-") as folder:
        command = [sys.executable, "-m", "benchmarks.plumbing", "--rows", str(rows)]
        done = subprocess.run(
            [*command, "--one", folder],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"RAY_ADDRESS": "local"},
        )
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


COLUMNS = ("rows/s", "from start to end", "CPU us a row")


def of_actor(rows: int) -> Case:
    with tempfile.TemporaryDirectory(prefix="moderay-bench-") as folder:
        took = actor_ms(Path(folder), min(rows, 10_000))
    figures = {"rows/s": Figure(value=1000 / took), "CPU us a row": Figure(value=1000 * took)}
    return Case(name="an actor's thread", figures=figures, note=f"least of {ROUNDS} rounds")


def of_distinct(rows: int) -> Case:
    found = _distinct_apart(rows)
    shares = sorted(found["cpu_us"].items(), key=lambda item: -item[1])
    spent = ", ".join(f"{kind} {micro:.0f}" for kind, micro in shares)
    return Case(
        name="distinct contents",
        figures={
            "rows/s": Figure(value=found["rate"]),
            "from start to end": Figure(value=found["whole"]),
            "CPU us a row": Figure(value=sum(found["cpu_us"].values())),
        },
        note=f"{rows:,} rows; goal: 20,000 rows/s; CPU of {spent}",
    )


def of_reused(rows: int) -> Case:
    with tempfile.TemporaryDirectory(prefix="moderay-bench-") as folder:
        rate = reused(Path(folder), rows)
    figures = {"from start to end": Figure(value=rate)}
    return Case(name="reused", figures=figures, note=f"{rows:,} rows; goal: 100,000 rows/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    speed.add_options(parser, rounds=1)
    parser.add_argument("--rows", type=int, default=200_000, help="of distinct contents")
    parser.add_argument("--reused", type=int, default=1_000_000, help="rows with earlier verdicts")
    parser.add_argument("--only", choices=["actor", "distinct", "reused"])
    parser.add_argument("--one", metavar="FOLDER", help="internal: a run in a process of its own")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(distinct(Path(options.one), options.rows)))
        return
    rows, reused_rows = (
        max(2000, round(count * options.size)) for count in (options.rows, options.reused)
    )
    ways: dict[str, Callable[[], Case]] = {
        "actor": lambda: of_actor(rows),
        "distinct": lambda: of_distinct(rows),
        "reused": lambda: of_reused(reused_rows),
    }
    deadline = Deadline(options.seconds)
    cases, left_out = list[Case](), list[str]()
    for name, way in ways.items():
        if options.only in (None, name):
            if deadline.left > 0:
                cases.append(way())
            else:
                left_out.append(f"{name}, the time was over")
    part = Part(
        part="plumbing",
        title="The pipeline alone, with an engine that answers at once",
        columns=COLUMNS,
        cases=tuple(cases),
        notes=("rows/s: from 20% to 80% of the rows",),
        left_out=tuple(left_out),
        seconds=deadline.spent,
    )
    finish(part, options.json)


if __name__ == "__main__":
    main()
