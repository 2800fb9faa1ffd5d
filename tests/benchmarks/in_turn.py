"""One engine, asked in turn by moderay and blindly: what moderay's own work costs it, and saves.

Side by side (`speed`) each measurement is a process of its own, a minute apart from the next: where
the machine is half as fast again a minute later, that tells little. Here one engine answers chunks
of contents, each asked for in another way, in an order that turns; what disturbs the machine
disturbs all ways. Reading, saving and Ray have no part in it.

No two ways ask for the same content, since the second would find it in the prefix cache: their
texts are alike but for the number in front.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import pyarrow as pa

from benchmarks import speed, workload
from benchmarks.bare import Bare
from benchmarks.engine_work import EngineWork, label_tokens, opened
from benchmarks.measured import ENGINE, QUIET, THREAD_VARIABLES, Deadline
from benchmarks.records import Case, Part, figure, finish, ratios
from benchmarks.workload import Workload
from moderay.config.job_file import load_job
from moderay.core.collector import rest_collector
from moderay.corpus.content import texts
from moderay.engines.base import EngineSpec
from moderay.engines.host import EngineHost
from moderay.judges.cascade import Cascade
from moderay.pipeline.stages.judge_unit import judge_unit, questions
from moderay.pipeline.stages.prepare import POSITION, prepared
from moderay.tasks.embedded_job import job_cascades

UNIT, IN_FLIGHT = 64, 6
# Rows of a chunk for each request in a batch: what is lost while a batch fills and drains, which a
# longer run has once, is then some percent, for all ways alike.
ROWS_FOR_EACH = 8
COLUMNS = ("rows/s", "ratio to bare", "to bare with P", "engine ms", "other ms")
BARE, BARE_P, OURS, FLAGGED = speed.BARE, speed.BARE_P, speed.OURS, speed.FLAGGED
Way = Callable[[list[str]], Awaitable[None]]


@dataclass(frozen=True)
class Chunk:
    """How long one took.

    Attributes:
        seconds: From its first request to its last answer.
        engine: CPU seconds of the engine's process.
        others: CPU seconds of this process.
    """

    seconds: float
    engine: float
    others: float


@dataclass(frozen=True)
class Built:
    """The spec of an engine that is there, for its host."""

    spec: Any
    engine: Any

    @property
    def max_num_seqs(self) -> int:
        return int(self.spec.max_num_seqs)

    def here(self) -> Built:
        return self

    async def build(self) -> Any:
        return self.engine


def blindly(work: EngineWork, bare: Bare, scored: bool) -> Way:
    """As `benchmarks.bare` asks."""
    judge = work.judges[0]
    gate = asyncio.Semaphore(2 * work.spec.max_num_seqs)

    async def one(text: str) -> None:
        prompt = judge.safeguard.prompt.render(judge.safeguard.vocab.encode(text))
        async with gate:
            tokens = await bare.ask(prompt, bare.sampling(judge.max_tokens))
            if scored:
                before, _ = opened(judge, tokens)
                shared, labels = label_tokens(judge)
                await bare.ask([*prompt, *before, *shared], bare.sampling(1, labels))

    async def way(contents: list[str]) -> None:
        await asyncio.gather(*[one(text) for text in contents])

    return way


def by_moderay(job_file: Path, host: EngineHost) -> Way:
    """As an actor judges units."""
    job, policies = load_job(job_file)
    cascades: tuple[Cascade, ...] = job_cascades(job, policies)
    vocab = EngineWork(job_file).judges[0].safeguard.vocab
    places = asyncio.Semaphore(IN_FLIGHT)

    async def unit(part: list[str]) -> None:
        rows = pa.table({POSITION: range(len(part))})
        table = prepared(rows, texts(pa.chunked_array([part])), job, cascades, vocab)
        async with places, host.admitted(questions(cascades, table)) as answered:
            judged = await judge_unit(host, cascades, table, 0, answered)
        statuses = {verdict["status"] for verdict in judged.column(2).to_pylist()}
        assert statuses == {"ok"}, statuses

    async def way(contents: list[str]) -> None:
        parts = [contents[at : at + UNIT] for at in range(0, len(contents), UNIT)]
        await asyncio.gather(*[unit(part) for part in parts])

    return way


async def in_turn(job: Path, rows: int, rounds: int, deadline: Deadline) -> dict[str, list[Chunk]]:
    """Every way once in each round; a round is begun where there is time for one more."""
    work = EngineWork(job)
    engine: Any = await work.spec.build()
    rest_collector()
    host = EngineHost(cast("EngineSpec", Built(work.spec, engine)))
    bare = Bare(work)
    bare.llm = engine._llm
    ways = {
        OURS: by_moderay(workload.output(job, "all", "all"), host),
        BARE: blindly(work, bare, scored=False),
        FLAGGED: by_moderay(workload.output(job, "flagged", "flagged"), host),
        BARE_P: blindly(work, bare, scored=True),
    }
    contents = [re.sub(r"^\d+\. ", "", text or "") for text in workload.contents(job.parent)]
    numbers = iter(range(10**6, 10**7))
    taken: dict[str, list[Chunk]] = {name: [] for name in ways}
    longest = 0.0
    for round_ in range(-1, rounds):
        if not deadline.allows(longest):
            break
        before = deadline.spent
        # Each is first as often as last; before the first round all are tried once on a few.
        turn = round_ % len(ways)
        names = [*list(ways)[turn:], *list(ways)[:turn]]
        part = contents[rows * max(round_, 0) :][: rows if round_ >= 0 else UNIT]
        for name in names:
            numbered = [f"{next(numbers)}. {text}" for text in part]
            chunk = await measured(ways[name], numbered)
            if round_ >= 0:
                taken[name].append(chunk)
                print(f"round {round_ + 1}, {name}: {rows / chunk.seconds:.1f} rows/s", flush=True)
        longest = max(longest, deadline.spent - before) if round_ >= 0 else 0.0
    host.close()
    return taken


async def measured(way: Way, contents: list[str]) -> Chunk:
    engine = next(
        process for process in psutil.Process().children(recursive=True) if ENGINE in process.name()
    )
    before, began = (_cpu(engine), _cpu(psutil.Process())), time.monotonic()
    await way(contents)
    seconds = time.monotonic() - began
    return Chunk(seconds, _cpu(engine) - before[0], _cpu(psutil.Process()) - before[1])


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def part_of(taken: dict[str, list[Chunk]], rows: int, rounds: int, seconds: float) -> Part:
    """The table: each ratio is of chunks of one round."""
    rates = {name: [rows / chunk.seconds for chunk in chunks] for name, chunks in taken.items()}
    begun = len(rates[OURS])
    cases = [
        Case(
            name=name,
            figures={
                "rows/s": figure(rates[name]),
                "engine ms": figure(1000 * chunk.engine / rows for chunk in chunks),
                "other ms": figure(1000 * chunk.others / rows for chunk in chunks),
                **{
                    column: ratios(rates[name], rates[other])
                    for column, other in (("ratio to bare", BARE), ("to bare with P", BARE_P))
                    if name != other
                },
            },
        )
        for name, chunks in taken.items()
        if chunks
    ]
    return Part(
        part="turn",
        title="One engine, asked in turn",
        settings={"rows of a chunk": rows, "rounds": begun, "threads of the engine": 1},
        columns=COLUMNS,
        cases=tuple(cases),
        notes=(
            "without reading, saving and Ray; temperature 0; 3% of the rows violate",
            "ms: of CPU for each row, of the engine's process and of the one that asks",
        ),
        left_out=(f"{rounds - begun} of {rounds} rounds, the time was over",)
        if begun < rounds
        else (),
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    speed.add_options(parser, rounds=8)
    parser.add_argument("--rows", type=int, default=2048, help="of a chunk")
    options = parser.parse_args()
    os.environ.update(QUIET | dict.fromkeys(THREAD_VARIABLES, str(options.threads)))
    deadline = Deadline(options.seconds)
    rows = max(2 * UNIT, round(options.rows * options.size))
    # The corpus of all rounds, and a batch that is small beside a chunk.
    load = Workload(rows=rows * options.rounds, batch=max(4, rows // ROWS_FOR_EACH))
    with tempfile.TemporaryDirectory(prefix="moderay-in-turn-") as folder:
        job = workload.write(Path(folder) / "work", load)
        taken = asyncio.run(in_turn(job, rows, options.rounds, deadline))
    finish(part_of(taken, rows, options.rounds, deadline.spent), options.json)


if __name__ == "__main__":
    main()
