"""`make bench`: rows/s of the pipeline against a bare `AsyncLLM` with the same arguments, prompts
and seeds.

Three alternating rounds over the first ROWS tweets (or, where that data is not beside the project,
the demo's texts) under a policy of about 600 tokens that asks for the label alone. Steady state:
from 20% to 80% of the rows. The bare engine runs twice: with the one request that reasons and
answers, and with the pipeline's two, the second for the probabilities.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
from support.project import ROOT, SHARED

TWEETS = SHARED / "tweets"
JOB = """\
input: {{path: {folder}/in, content: text}}
output: {{path: {folder}/out-{number}, columns: []}}
policies: [{folder}/policy]
windows: {{tokens: 2048, overlap: 128, max: 4}}
unit: {{rows: 64}}
limits: {{max_failed: 1}}
"""


def policy(folder: Path) -> None:
    """Private data without its examples: some 600 tokens of tiny's, the label alone as answer."""
    (folder / "policy").mkdir()
    text = (ROOT / "policies/private_data/policy.md").read_text()
    (folder / "policy/policy.md").write_text(text[: text.index("## EXAMPLES")])


def corpus(folder: Path, rows: int) -> None:
    (folder / "in").mkdir()
    if TWEETS.is_dir():
        texts = [
            text
            for file in sorted(TWEETS.glob("*.parquet"))
            for text in pq.read_table(file, columns=["text"]).column(0).to_pylist()
        ][:rows]
    else:
        from moderay.engines.tiny.corpus import DEMO, example

        print(f"no tweets at {TWEETS}: the demo's texts instead")
        import random

        rng = random.Random(0)
        texts = [example(rng, DEMO).text for _ in range(rows)]
    pq.write_table(pa.table({"text": texts}), folder / "in" / "a.parquet")


def steady(marks: list[tuple[float, int]], rows: int) -> float:
    """Rows/s between the first mark past 20% and the last before 80%; marks are (seconds, rows
    done).
    """
    inner = [(when, done) for when, done in marks if 0.2 * rows <= done <= 0.8 * rows]
    return (inner[-1][1] - inner[0][1]) / (inner[-1][0] - inner[0][0])


def pipeline(folder: Path, number: int, rows: int) -> float:
    from moderay.pipeline.check import check
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.run import run

    marks: list[tuple[float, int]] = []

    class Marks(Progress):
        def add(self, unit):  # type: ignore[no-untyped-def]
            super().add(unit)
            marks.append((time.monotonic(), self.rows))

    (folder / "job.yaml").write_text(JOB.format(folder=folder, number=number))
    run(check(folder / "job.yaml"), progress=Marks(None))
    return steady(marks, rows)


async def bare(folder: Path, rows: int, scores: bool) -> float:
    from moderay.config.job_file import load_job
    from moderay.engines.base import Engine, Request
    from moderay.engines.from_job import engine_spec
    from moderay.judges.build import fitted
    from moderay.judges.reason import Reason
    from moderay.tasks.embed import job_cascades

    (folder / "job.yaml").write_text(JOB.format(folder=folder, number=0))
    job, policies = load_job(folder / "job.yaml")
    cascades = job_cascades(job, policies)
    spec, judge = fitted(engine_spec(job, gpus=0), cascades), cascades[0].last
    safeguard = judge.safeguard
    texts = pq.read_table(folder / "in" / "a.parquet").column(0).to_pylist()
    prompts = [safeguard.prompt.render(safeguard.vocab.encode(text)) for text in texts]
    assert isinstance(judge, Reason)
    engine = cast(Engine, await spec.build())
    gate = asyncio.Semaphore(2 * spec.max_num_seqs)
    out: list[int] = []
    marks: list[tuple[float, int]] = []
    labels = tuple(opening[0] for opening in safeguard.openings.values())

    async def one(number: int, ids: list[int]) -> None:
        async with gate:
            answer = await engine.generate(Request(ids, judge.max_tokens, 1.0, 1.0, number))
            if scores:
                await engine.generate(Request([*ids, *answer.tokens[:-2]], 1, score=labels))
        out.append(len(answer.tokens))
        marks.append((time.monotonic(), len(out)))

    await asyncio.gather(*[one(i, ids) for i, ids in enumerate(prompts)])
    engine.close()
    print(
        f"{sum(map(len, prompts)) / rows:.0f} tokens in, {sum(out) / rows:.0f} out", file=sys.stderr
    )
    return steady(marks, rows)


ROUND = ("pipeline", "bare", "bare-two")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--one",
        nargs=3,
        metavar=("WHAT", "FOLDER", "NUMBER"),
        help="internal: one measurement in a process of its own",
    )
    options = parser.parse_args()
    if options.one:
        what, folder, number = options.one
        rate = (
            pipeline(Path(folder), int(number), options.rows)
            if what == "pipeline"
            else asyncio.run(bare(Path(folder), options.rows, what == "bare-two"))
        )
        print(json.dumps(rate))
        return
    one: list[float] = []
    two: list[float] = []
    with tempfile.TemporaryDirectory(prefix="moderay-bench-") as name:
        corpus(Path(name), options.rows)
        policy(Path(name))
        for number in range(options.rounds):
            rates = {
                what: _measured(what, name, number, options.rows)
                for what in (ROUND if number % 2 else ROUND[::-1])
            }
            one.append(rates["pipeline"] / rates["bare"])
            two.append(rates["pipeline"] / rates["bare-two"])
            shown = ", ".join(f"{what} {rates[what]:.1f} rows/s" for what in ROUND)
            print(
                (
                    f"round {number + 1}: {shown}; ratio {one[-1]:.2f}, to the same two requests "
                    f"{two[-1]:.2f}"
                ),
                flush=True,
            )
    print(
        f"median ratio {statistics.median(one):.2f} (goal 0.95), to the same two requests "
        f"{statistics.median(two):.2f}"
    )


def _measured(what: str, folder: str, number: int, rows: int) -> float:
    command = [
        sys.executable,
        "-m",
        "benchmarks.pipeline",
        "--rows",
        str(rows),
        "--one",
        what,
        folder,
        str(number),
    ]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"},
    )
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
