"""`make bench`: rows/s of the pipeline against the bare engine with the same arguments on the same requests.

Three alternating pairs over the first ROWS tweets (or, where that data is not beside the project, the demo's texts). Steady
state: from 20% to 80% of the rows. Both make the same requests: one that reasons and answers, one for the probabilities.
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

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
TWEETS = ROOT.parent / "shared" / "data" / "tweets"
JOB = """\
input: {{path: {folder}/in, content: text}}
output: {{path: {folder}/out-{number}, columns: []}}
policies: [{root}/policies/harassment]
windows: {{tokens: 2048, overlap: 128, max: 4}}
unit: {{rows: 64}}
"""


def corpus(folder: Path, rows: int) -> None:
    (folder / "in").mkdir()
    if TWEETS.is_dir():
        texts = [text for file in sorted(TWEETS.glob("*.parquet")) for text in pq.read_table(file, columns=["text"]).column(0).to_pylist()][:rows]
    else:
        from moderay.tiny.corpus import DEMO, example

        print(f"no tweets at {TWEETS}: the demo's texts instead")
        import random

        rng = random.Random(0)
        texts = [example(rng, DEMO).text for _ in range(rows)]
    pq.write_table(pa.table({"text": texts}), folder / "in" / "a.parquet")


def steady(marks: list[tuple[float, int]], rows: int) -> float:
    """Rows/s between the first mark past 20% and the last before 80%; marks are (seconds, rows done)."""
    inner = [(when, done) for when, done in marks if 0.2 * rows <= done <= 0.8 * rows]
    return (inner[-1][1] - inner[0][1]) / (inner[-1][0] - inner[0][0])


def pipeline(folder: Path, number: int, rows: int) -> float:
    from moderay.check import check
    from moderay.flow import run
    from moderay.progress import Progress

    marks: list[tuple[float, int]] = []

    class Marks(Progress):
        def add(self, unit):  # type: ignore[no-untyped-def]
            super().add(unit)
            marks.append((time.monotonic(), self.rows))

    (folder / "job.yaml").write_text(JOB.format(folder=folder, root=ROOT, number=number))
    run(check(folder / "job.yaml"), progress=Marks(None))
    return steady(marks, rows)


async def bare(folder: Path, rows: int) -> float:
    from moderay.check import engine_and_judges
    from moderay.engines import Request
    from moderay.job import load_job

    (folder / "job.yaml").write_text(JOB.format(folder=folder, root=ROOT, number=0))
    job, policies = load_job(folder / "job.yaml")
    spec, (judge,) = engine_and_judges(job, policies, 0)
    texts = pq.read_table(folder / "in" / "a.parquet").column(0).to_pylist()
    prompts = [judge.prompt.render(judge.vocab.encode(text)) for text in texts]
    engine, gate, done = await spec.build(), asyncio.Semaphore(2 * spec.max_num_seqs), 0
    marks: list[tuple[float, int]] = []
    score = tuple({opening[i] for opening in judge.openings.values() for i in range(3)})[:4]

    async def one(number: int, ids: list[int]) -> None:
        nonlocal done
        async with gate:
            out = await engine.generate(Request(ids, judge.max_tokens, 1.0, 1.0, number))
            await engine.generate(Request([*ids, *out.tokens[:-4]], 1, score=score))
        done += 1
        marks.append((time.monotonic(), done))

    await asyncio.gather(*[one(i, ids) for i, ids in enumerate(prompts)])
    engine.close()
    return steady(marks, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "FOLDER", "NUMBER"), help="internal: one measurement in a process of its own")
    given = parser.parse_args()
    if given.one:
        what, folder, number = given.one
        rate = pipeline(Path(folder), int(number), given.rows) if what == "pipeline" else asyncio.run(bare(Path(folder), given.rows))
        print(json.dumps(rate))
        return
    ratios = []
    with tempfile.TemporaryDirectory(prefix="moderay-bench-") as name:
        corpus(Path(name), given.rows)
        for pair in range(given.pairs):
            rates = {what: _measured(what, name, pair, given.rows) for what in (("bare", "pipeline") if pair % 2 else ("pipeline", "bare"))}
            ratios.append(rates["pipeline"] / rates["bare"])
            print(f"pair {pair + 1}: pipeline {rates['pipeline']:.1f} rows/s, bare engine {rates['bare']:.1f} rows/s, ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f} (goal 0.95)")


def _measured(what: str, folder: str, number: int, rows: int) -> float:
    command = [sys.executable, __file__, "--rows", str(rows), "--one", what, folder, str(number)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"})
    return float(json.loads(said.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
