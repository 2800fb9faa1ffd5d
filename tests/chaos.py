"""`make chaos`: SIGKILL drivers, judging actors and the raylet of a second node at random over one job until enough were
killed, then compare its labels with those of an undisturbed run; and kill everything at half-way once."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from conftest import ROOT, compared, labels

SHARDS, SEQS, WORDS = 4, 32, ("hello there", "claim your prize", "visit my shop", "a quiet day", "")
KINDS = ("driver", "actor", "raylet")


@dataclass(frozen=True)
class Report:
    """`kills`: by kind. `requests`: answers of the engine in the disturbed and in the undisturbed run. `differences`: of the labels."""

    kills: Counter[str]
    requests: tuple[int, int]
    differences: list[str]


class Nodes:
    """A Ray cluster of two nodes on this machine; the second is killed and comes back."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        self.second = self.cluster.add_node(num_cpus=2)
        self.env = os.environ | {"RAY_ADDRESS": self.cluster.address}

    def kill_second(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = self.cluster.add_node(num_cpus=2)

    def actors(self) -> list[psutil.Process]:
        """Workers of this cluster that host an engine."""
        found = []
        for node in self.cluster.list_all_nodes():
            for raylet in node.all_processes.get("raylet", []):
                below = psutil.Process(raylet.process.pid).children(recursive=True)
                found += [process for process in below if "_Judge" in " ".join(process.cmdline())]
        return found


@contextmanager
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    try:
        yield found
    finally:
        found.cluster.shutdown()


def chaos(folder: Path, rows: int, unit: int, kills: int, pause: tuple[float, float], kinds: tuple[str, ...] = KINDS, seed: int = 0) -> Report:
    """Run a job of `rows` rows in units of `unit`, with a kill every `pause` seconds while it works, and once more in peace."""
    rng = random.Random(seed)
    corpus(folder, rows, rng)
    done: Counter[str] = Counter()
    job = write_job(folder, "killed", unit, delay=0.6)
    with nodes() as cluster:
        while True:
            driver = subprocess.Popen(command(job), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=cluster.env)
            while driver.poll() is None and done.total() < kills:
                time.sleep(rng.uniform(*pause))
                kind = kinds[done.total() % len(kinds)]  # as many of each
                if _kill(kind, driver, cluster, rng):
                    done[kind] += 1
            _, said = driver.communicate()
            if driver.returncode == 0:
                break
            if driver.returncode > 0:
                raise AssertionError(f"the run ended by itself: {said.decode()}")
            time.sleep(3)  # what a dead driver leaves behind ends by itself
        peace = write_job(folder, "peace", unit, delay=0.0)
        subprocess.run(command(peace), check=True, capture_output=True, env=cluster.env)
    return Report(done, (answers(folder, "killed"), answers(folder, "peace")), differences(folder, "killed", "peace"))


def corpus(folder: Path, rows: int, rng: random.Random) -> None:
    (folder / "in").mkdir(parents=True)
    for shard in range(SHARDS):
        texts = [f"{word} {i}" if (word := rng.choice(WORDS)) else None for i in range(rows // SHARDS)]
        pq.write_table(pa.table({"text": texts}), folder / f"in/{shard}.parquet")


def command(job: Path) -> list[str]:
    return [sys.executable, "-m", "moderay.cli", "run", str(job)]


def answers(folder: Path, name: str) -> int:
    log = folder / f"{name}.log"
    return log.stat().st_size if log.exists() else 0


def write_job(folder: Path, name: str, unit: int, delay: float) -> Path:
    script: dict[str, Any] = {
        "default": {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing."},
        "rules": [{"content": "prize", "answer": '{"label": "SP4", "rationale": "A prize."}', "reasoning": "A prize.", "p": 0.8}],
        "delay": {"mean_s": delay, "sigma": 0.5 if delay else 0},
        "log": str(folder / f"{name}.log"),
    }
    (folder / f"{name}-script.yaml").write_text(yaml.safe_dump(script))
    job = {
        "input": {"path": "in", "content": "text"},
        "output": {"path": name, "reasoning": "all"},
        "policies": [str(ROOT / "policies/spam")],
        "model": {"source": f"scripted:{name}-script.yaml", "engine": {"max_num_seqs": SEQS}, "replicas": 2},
        "unit": {"rows": unit},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(job))
    return folder / f"{name}.yaml"


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
    found = [f"{name} is only in one" for name in first.keys() ^ second.keys()]
    for name in first.keys() & second.keys():
        if not first[name].column("row").equals(second[name].column("row")) or compared(first[name], "spam") != compared(second[name], "spam"):
            found.append(f"{name} differs")
    left = [file for file in (folder / one / "_moderay").rglob("*") if file.is_file() and file.suffix != ".json"]
    return [*found, *(f"left behind: {file}" for file in left)]


def half_way(folder: Path, rows: int, unit: int) -> tuple[int, int]:
    """SIGKILL the driver and every process below it once half of the rows are saved, and run again: rows that were judged
    twice, and rows that two engines may have in flight at once."""
    corpus(folder, rows, random.Random(0))
    job = write_job(folder, "half", unit, delay=0.6)
    driver = subprocess.Popen(command(job), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    units = folder / "half/_moderay/units"
    while len(list(units.rglob("*.arrow"))) * unit + len(labels(folder / "half")) * rows // SHARDS < rows / 2:
        time.sleep(0.05)
        assert driver.poll() is None, "the run ended before its half"
    below = psutil.Process(driver.pid).children(recursive=True)
    for process in [psutil.Process(driver.pid), *below]:
        process.kill()
    driver.wait()
    time.sleep(3)
    subprocess.run(command(job), check=True, capture_output=True)
    peace = write_job(folder, "peace", unit, delay=0.0)
    subprocess.run(command(peace), check=True, capture_output=True)
    assert differences(folder, "half", "peace") == []
    return (answers(folder, "half") - answers(folder, "peace")) // 2, 2 * (2 * SEQS + unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--unit", type=int, default=20)
    parser.add_argument("--kills", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moderay-chaos-") as name:
        report = chaos(Path(name) / "job", given.rows, given.unit, given.kills, (2.0, 6.0), seed=given.seed)
        made, needed = report.requests
        print(f"kills survived: {', '.join(f'{count} of a {kind}' for kind, count in report.kills.items())}; {given.rows // given.unit} units")
        print(f"requests made twice: {made / needed - 1:.1%} ({made:,} for {needed:,})")
        print("labels: " + ("those of an undisturbed run" if not report.differences else "; ".join(report.differences)))
        again, in_flight = half_way(Path(name) / "half", 2000, given.unit)
        print(f"everything killed at half-way: {again:,} rows judged again; rows in flight at once: {in_flight:,}")
    sys.exit(bool(report.differences) or again > in_flight)


if __name__ == "__main__":
    main()
