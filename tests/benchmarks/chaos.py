"""`make kills`: SIGKILL drivers, judging actors and the raylet of a second node at random over one
job until enough were killed, then compare its labels with those of an undisturbed run; kill
everything at half-way once; and the same with real vLLM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from support.outputs import compared, labels
from support.project import ROOT
from support.ray_nodes import Nodes, nodes
from support.scripted import write_job

from moderay.engines import checkpoint
from moderay.engines.base import Request
from moderay.engines.host import EngineHost
from moderay.engines.tiny import demo
from moderay.engines.vllm.engine import VllmEngine, VllmSpec

SHARDS, SEQS, WORDS = 4, 32, ("hello there", "claim your prize", "visit my shop", "a quiet day", "")
ENGINES = {"engine": {"max_num_seqs": SEQS}, "replicas": 2}
KINDS = ("driver", "actor", "raylet")


@dataclass(frozen=True)
class Report:
    """`kills`: by kind. `requests`: answers of the engine in the disturbed and in the undisturbed
    run. `differences`: of the labels.
    """

    kills: Counter[str]
    requests: tuple[int, int]
    differences: list[str]


def chaos(
    folder: Path,
    rows: int,
    unit: int,
    kills: int,
    pause: tuple[float, float],
    kinds: tuple[str, ...] = KINDS,
    seed: int = 0,
) -> Report:
    """Run a job of `rows` rows in units of `unit`, with a kill every `pause` seconds while it
    works, and once more in peace.
    """
    rng = random.Random(seed)
    corpus(folder, rows, rng)
    done: Counter[str] = Counter()
    job = slow_job(folder, "killed", unit, delay=0.6)
    with nodes() as cluster:
        while True:
            driver = subprocess.Popen(
                command(job), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=cluster.env
            )
            while driver.poll() is None and done.total() < kills:
                time.sleep(rng.uniform(*pause))
                kind = kinds[done.total() % len(kinds)]  # as many of each
                if _kill(kind, driver, cluster, rng):
                    done[kind] += 1
            _, errors = driver.communicate()
            if driver.returncode == 0:
                break
            if driver.returncode > 0:
                raise AssertionError(f"the run ended by itself: {errors.decode()}")
            time.sleep(3)  # what a dead driver leaves behind ends by itself
        peace = slow_job(folder, "peace", unit, delay=0.0)
        subprocess.run(command(peace), check=True, capture_output=True, env=cluster.env)
    return Report(
        done,
        (answers(folder, "killed"), answers(folder, "peace")),
        differences(folder, "killed", "peace"),
    )


def corpus(folder: Path, rows: int, rng: random.Random, shards: int = SHARDS) -> None:
    (folder / "in").mkdir(parents=True)
    for shard in range(shards):
        texts = [
            f"{word} {shard}-{i}" if (word := rng.choice(WORDS)) else None
            for i in range(rows // shards)
        ]
        table = pa.table({"text": pa.array(texts, pa.string())})
        pq.write_table(table, folder / f"in/{shard:05}.parquet")


def command(job: Path) -> list[str]:
    return [sys.executable, "-m", "moderay", "run", str(job)]


def answers(folder: Path, name: str) -> int:
    log = folder / f"{name}.log"
    return log.stat().st_size if log.exists() else 0


def slow_job(folder: Path, name: str, unit: int, delay: float, **model: Any) -> Path:
    """A job over the corpus into folder/NAME, whose engines note each answer.

    Args:
        folder: Of the corpus.
        name: Of its output.
        unit: Rows of a unit.
        delay: Mean seconds of an answer.
        model: Of the section `model`.
    """
    prize = {
        "content": "prize",
        "answer": '{"label": "SP4", "rationale": "A prize."}',
        "reasoning": "A prize.",
        "p": 0.8,
    }
    script: dict[str, Any] = {
        "default": {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."},
        "rules": [prize],
        "delay": {"mean_s": delay, "sigma": 0.5 if delay else 0},
        "log": str(folder / f"{name}.log"),
    }
    prefix = f"{name}-"
    return write_job(
        folder,
        script,
        prefix,
        output={"path": name, "reasoning": "all"},
        model={"source": f"scripted:{prefix}script.yaml", **(model or ENGINES)},
        unit={"rows": unit},
    )


def _kill(kind: str, driver: subprocess.Popen[bytes], cluster: Nodes, rng: random.Random) -> bool:
    """SIGKILL one of a kind, once an actor is at work; whether that was done."""
    try:
        actors = cluster.actors()
        if not actors or driver.poll() is not None:
            return False
        if kind == "raylet":
            cluster.kill_second()
        else:
            (driver if kind == "driver" else rng.choice(actors)).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def differences(folder: Path, one: str, other: str) -> list[str]:
    """Of two outputs, and what the first should not have left behind."""
    first, second = labels(folder / one), labels(folder / other)
    differing = [f"{name} is only in one" for name in first.keys() ^ second.keys()]
    for name in first.keys() & second.keys():
        if not first[name].column("row").equals(second[name].column("row")) or any(
            compared(first[name], policy) != compared(second[name], policy)
            for policy in ("spam", "harassment", "private_data")
            if policy in first[name].column_names
        ):
            differing.append(f"{name} differs")
    left = [
        file
        for file in (folder / one / "_moderay").rglob("*")
        if file.is_file() and file.suffix != ".json" and file.name != "report.html"
    ]
    return [*differing, *(f"left behind: {file}" for file in left)]


def half_way(folder: Path, rows: int, unit: int) -> tuple[int, int]:
    """SIGKILL the driver and every process below it once half of the rows are saved, and run again:
    rows that were judged twice, and rows that two engines may have in flight at once.
    """
    corpus(folder, rows, random.Random(0))
    job = slow_job(folder, "half", unit, delay=0.6)
    driver = subprocess.Popen(command(job), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    units = folder / "half/_moderay/units"
    while (
        len(list(units.rglob("*.arrow"))) * unit + len(labels(folder / "half")) * rows // SHARDS
        < rows / 2
    ):
        time.sleep(0.05)
        assert driver.poll() is None, "the run ended before its half"
    below = psutil.Process(driver.pid).children(recursive=True)
    for process in [psutil.Process(driver.pid), *below]:
        process.kill()
    driver.wait()
    time.sleep(3)
    subprocess.run(command(job), check=True, capture_output=True)
    peace = slow_job(folder, "peace", unit, delay=0.0)
    subprocess.run(command(peace), check=True, capture_output=True)
    assert differences(folder, "half", "peace") == []
    again = (answers(folder, "half") - answers(folder, "peace")) // 2
    return again, 2 * (2 * SEQS + max(unit, 2 * SEQS))


FLOAT = (
    "--set=output.reasoning=all",
    "--set=model.sampling={temperature: 0}",
    "--set=model.dtype=float32",
)


def killed_vllm(
    corpus: Path, out: Path, kinds: tuple[str, ...], *options: str
) -> tuple[Counter[str], str]:
    """The demo's job over `corpus` with real vLLM, with `options`, of which `kinds` (engine, actor,
    driver) are killed one after the other, each when four more units are saved; the kills, and what
    the run printed. Raises AssertionError where an engine outlives its actor.
    """
    job = [
        *command(ROOT / "jobs/demo.yaml"),
        *FLOAT,
        "--set=unit.rows=8",
        f"--set=input.path={corpus}",
        f"--set=output.path={out}",
        *options,
    ]
    done, left = Counter[str](), list(kinds)
    saved: set[Path] = set()  # also those of shards that are published by now
    while True:
        driver = subprocess.Popen(
            job,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"RAY_ADDRESS": "local"},
        )
        while driver.poll() is None:
            time.sleep(0.05)
            saved |= set((out / "_moderay/units").rglob("*.arrow"))
            if left and len(saved) >= 4 * (1 + done.total()):
                engines, victim = _processes(driver, "EngineCore"), driver.pid
                if engines and left[0] != "driver":
                    victim = (
                        engines if left[0] == "engine" else _processes(driver, "MapBatches(Judge)")
                    )[0].pid
                if engines:
                    psutil.Process(victim).kill()
                    done[left.pop(0)] += 1
                    _, alive = psutil.wait_procs(engines, timeout=30)
                    assert not alive, f"outlived what was killed: {alive}"
        output, wrong = driver.communicate()
        if driver.returncode == 0:
            return done, output.decode()
        assert driver.returncode < 0, wrong.decode()
        time.sleep(3)


def _processes(driver: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    matches = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            matches += [process] if name in process.name() + " ".join(process.cmdline()) else []
    return matches


async def lost_time() -> tuple[float, float]:
    """Seconds from the SIGKILL of a busy engine's process to the first answer of the next one, and
    of those its start's.
    """
    starts: list[float] = []

    @dataclass(frozen=True)
    class Timed(VllmSpec):
        async def build(self) -> VllmEngine:
            began = time.monotonic()
            engine = await super().build()
            starts.append(time.monotonic() - began)
            return engine

    host = EngineHost(Timed(source=str(checkpoint.TINY_FOLDER), max_model_len=2048))
    answered: list[float] = []

    async def ask(number: int) -> None:
        await host.run(
            str(number), lambda engine: engine.generate(Request([number % 900 + 20] * 40, 64)), 600
        )
        answered.append(time.monotonic())

    requests = asyncio.gather(*[ask(number) for number in range(3000)])
    while len(answered) < 600:
        await asyncio.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        if "EngineCore" in process.name() + " ".join(process.cmdline()):
            process.kill()
    killed = time.monotonic()
    await requests
    host.close()
    assert host.restarts == 1
    return next(when for when in sorted(answered) if when > killed + 1) - killed, starts[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--unit", type=int, default=20)
    parser.add_argument("--kills", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moderay-chaos-") as name:
        report = chaos(
            Path(name) / "job",
            options.rows,
            options.unit,
            options.kills,
            (2.0, 6.0),
            seed=options.seed,
        )
        made, needed = report.requests
        print(
            "kills survived: "
            f"{', '.join(f'{count} of a {kind}' for kind, count in report.kills.items())}; "
            f"{options.rows // options.unit} units"
        )
        print(f"requests made twice: {made / needed - 1:.1%} ({made:,} for {needed:,})")
        print(
            "labels: "
            + (
                "those of an undisturbed run"
                if not report.differences
                else "; ".join(report.differences)
            )
        )
        again, in_flight = half_way(Path(name) / "half", 2000, options.unit)
        print(
            f"everything killed at half-way: {again:,} rows judged again; rows in flight at "
            f"once: {in_flight:,}"
        )
        wrong = real(Path(name))
        lost, start = asyncio.run(lost_time())
        print(
            f"a killed engine costs {lost:.1f} s, {start:.1f} s of them its start; goal: at most "
            "10 s beyond"
        )
    sys.exit(bool(report.differences or wrong) or again > in_flight)


def real(folder: Path) -> list[str]:
    demo.write(folder / "demo")
    shard = folder / "demo/part-000.parquet"
    kills, _ = killed_vllm(shard, folder / "killed", ("engine", "actor", "driver"))
    subprocess.run(
        [
            *command(ROOT / "jobs/demo.yaml"),
            *FLOAT,
            f"--set=input.path={shard}",
            f"--set=output.path={folder}/peace",
        ],
        check=True,
    )
    differing = differences(folder, "killed", "peace")
    print(
        f"kills survived with vLLM: {', '.join(kills)}; labels: "
        + ("those of an undisturbed run" if not differing else "; ".join(differing))
    )
    return differing


if __name__ == "__main__":
    main()
