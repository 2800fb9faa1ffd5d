"""`python -m benchmarks.start`: how long until something comes of a start.

Seconds from the start of a process, with `tiny` on this machine's CPU, in alternating rounds:

    bare        vLLM's `AsyncLLM`, with the arguments that the job's engine has, to its first answer
    first unit  `moderay run` to the first unit on storage, its own Ray included
    finished    `moderay run` of a job of which nothing is left, to its end
    check, plan, status, help  the same job, to their end

One thread for each engine, as Ray gives an actor. The goals are of issue 17: a first unit 5 s after
a bare engine's first answer, a finished job in 1 s.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from support.project import ROOT

from benchmarks import speed
from benchmarks.measured import Deadline
from benchmarks.records import Case, Part, figure, finish

ROWS, UNIT = 64, 8
JOB = """\
name: start
input: {{path: {folder}/in, content: text}}
output: {{path: {folder}/out}}
policies: [{root}/policies/spam]
model: {{source: tiny, effort: low, sampling: {{temperature: 0}}}}
unit: {{rows: {unit}}}
"""
MODERAY = [sys.executable, "-m", "moderay"]
# Seconds between two looks for the first unit, and after which none is waited for.
LOOK_S, PATIENCE_S = 0.02, 900.0
FIRST_UNIT_AFTER_BARE_S, FINISHED_S = 5.0, 1.0


def project(folder: Path) -> Path:
    """A job over texts like those that `tiny` was trained on."""
    from moderay.engines.tiny.corpus import DEMO, example

    rng = random.Random(0)
    (folder / "in").mkdir()
    texts = [example(rng, DEMO).text for _ in range(ROWS)]
    pq.write_table(pa.table({"text": texts}), folder / "in/a.parquet")
    job = folder / "job.yaml"
    job.write_text(JOB.format(folder=folder, root=ROOT, unit=UNIT))
    return job


async def bare(job_file: Path) -> None:
    """The first row, asked of vLLM itself."""
    from moderay.config.job_file import load_job
    from moderay.engines import checkpoint
    from moderay.engines.base import Request
    from moderay.engines.from_job import engine_spec
    from moderay.engines.vllm.engine import VllmEngine, VllmSpec, _quiet
    from moderay.judges.build import fitted
    from moderay.judges.reason import Reason
    from moderay.tasks.embedded_job import job_cascades

    job, policies = load_job(job_file)
    cascades = job_cascades(job, policies)
    spec, judge = fitted(engine_spec(job, gpus=0), cascades), cascades[0].last
    assert isinstance(spec, VllmSpec)
    assert isinstance(judge, Reason)
    _quiet()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    args = AsyncEngineArgs(**spec._arguments(checkpoint.located(spec.source)))
    engine = VllmEngine(AsyncLLM.from_engine_args(args), spec.source)
    text = pq.read_table(job_file.parent / "in/a.parquet").column(0)[0].as_py()
    ids = judge.safeguard.prompt.render(judge.safeguard.vocab.encode(text))
    answer = await engine.generate(Request(ids, judge.max_tokens))
    assert answer.tokens
    print("answered", flush=True)
    engine.close()


def environment() -> dict[str, str]:
    """Of all that is measured: a Ray of its own, one thread."""
    return os.environ | {"RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}


def until_answer(job: Path) -> float:
    """Seconds of a bare engine to its first answer."""
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.start", "--bare", str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as engine:
        assert engine.stdout is not None
        for line in engine.stdout:
            if line.strip() == "answered":
                seconds = time.monotonic() - began
                engine.communicate()
                return seconds
    raise AssertionError(f"the bare engine ended with {engine.returncode}, without an answer")


def until_first_unit(job: Path) -> float:
    """Seconds of a run to its first unit; the run then goes on to its end."""
    shutil.rmtree(job.parent / "out", ignore_errors=True)
    began = time.monotonic()
    run = subprocess.Popen([*MODERAY, "run", str(job), "--quiet"], env=environment())
    try:
        while not any((job.parent / "out").rglob("*.arrow")):
            assert run.poll() is None, f"the run ended with {run.returncode}, without a unit"
            assert time.monotonic() - began < PATIENCE_S, "no unit was saved"
            time.sleep(LOOK_S)
        return time.monotonic() - began
    finally:
        run.wait()


def whole(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds of a command, and those of its processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([*MODERAY, *arguments], check=True, capture_output=True, env=environment())
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy


def measured(folder: Path, rounds: int, deadline: Deadline) -> dict[str, list[float]]:
    """Seconds by what is measured, one of each round that was begun in time."""
    job = project(folder)
    commands = {
        "finished": ("run", str(job)),
        "check": ("check", str(job)),
        "plan": ("plan", str(job)),
        "status": ("status", str(folder / "out")),
        "help": ("--help",),
    }
    seen: dict[str, list[float]] = {}
    longest = 0.0
    for number in range(rounds):
        if not deadline.allows(longest):
            break
        before = deadline.spent
        starts = {"bare": until_answer, "first unit": until_first_unit}
        for name in starts if number % 2 else reversed(starts):
            seen.setdefault(name, []).append(starts[name](job))
        for name, arguments in commands.items():
            seconds, busy = whole(arguments)
            seen.setdefault(name, []).append(seconds)
            seen.setdefault(f"{name}, CPU", []).append(busy)
        longest = max(longest, deadline.spent - before)
    return seen


def part_of(seen: Mapping[str, list[float]], rounds: int, seconds: float) -> Part:
    """Seconds and CPU of each, and what the goals say."""
    cases = [
        Case(
            name=name,
            figures={
                "seconds": figure(each),
                **({"CPU": figure(seen[f"{name}, CPU"])} if f"{name}, CPU" in seen else {}),
            },
        )
        for name, each in seen.items()
        if not name.endswith(", CPU")
    ]
    begun = len(seen.get("bare", ()))
    after = [unit - one for unit, one in zip(seen["first unit"], seen["bare"], strict=True)]
    return Part(
        part="start",
        title="From a start to what comes of it",
        settings={"rounds": begun, "threads of each engine": 1},
        columns=("seconds", "CPU"),
        cases=tuple(cases),
        notes=(
            f"first unit after a bare engine's first answer: {figure(after).shown()} s (goal "
            f"{FIRST_UNIT_AFTER_BARE_S:g}); a finished job: {figure(seen['finished']).shown()} s "
            f"(goal {FINISHED_S:g})",
        ),
        left_out=(f"{rounds - begun} of {rounds} rounds, the time was over",)
        if begun < rounds
        else (),
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    speed.add_options(parser, rounds=3)
    parser.add_argument("--bare", type=Path, metavar="JOB", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare is not None:
        asyncio.run(bare(options.bare))
        return
    deadline = Deadline(options.seconds)
    with tempfile.TemporaryDirectory(prefix="moderay-start-") as folder:
        seen = measured(Path(folder), options.rounds, deadline)
    finish(part_of(seen, options.rounds, deadline.spent), options.json)


if __name__ == "__main__":
    main()
