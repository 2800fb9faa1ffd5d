"""`make chaos`: SIGKILL drivers and judging actors at random over one job until enough were killed, then compare its labels
with those of an undisturbed run."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from conftest import ROOT, compared, labels

SHARDS, WORDS = 4, ("hello there", "claim your prize", "visit my shop", "a quiet day", "")


@dataclass(frozen=True)
class Report:
    """`kills`: by kind. `requests`: answers of the engine in the disturbed and in the undisturbed run. `differences`: of the labels."""

    kills: dict[str, int]
    requests: tuple[int, int]
    differences: list[str]


def chaos(folder: Path, rows: int, unit: int, kills: int, pause: tuple[float, float], seed: int = 0) -> Report:
    """Run a job of `rows` rows in units of `unit`, with a kill every `pause` seconds while it works, and once more in peace."""
    rng = random.Random(seed)
    (folder / "in").mkdir(parents=True)
    for shard in range(SHARDS):
        texts = [f"{word} {i}" if (word := rng.choice(WORDS)) else None for i in range(rows // SHARDS)]
        pq.write_table(pa.table({"text": texts}), folder / f"in/{shard}.parquet")
    done = {"driver": 0, "actor": 0}
    job = _job(folder, "killed", unit, delay=0.6)
    while True:
        driver = subprocess.Popen([sys.executable, "-m", "moderay.cli", "run", str(job)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while driver.poll() is None and sum(done.values()) < kills:
            time.sleep(rng.uniform(*pause))
            if (kind := _kill(driver, rng)) is not None:
                done[kind] += 1
        _, said = driver.communicate()
        if driver.returncode == 0:
            break
        if driver.returncode > 0:
            raise AssertionError(f"the run ended by itself: {said.decode()}")
        time.sleep(3)  # what a dead driver leaves behind ends by itself
    peace = _job(folder, "peace", unit, delay=0.0)
    subprocess.run([sys.executable, "-m", "moderay.cli", "run", str(peace)], check=True, capture_output=True)
    requests = tuple((folder / f"{name}.log").stat().st_size for name in ("killed", "peace"))
    return Report(done, (requests[0], requests[1]), _differences(folder))


def _job(folder: Path, name: str, unit: int, delay: float) -> Path:
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
        "model": {"source": f"scripted:{name}-script.yaml", "engine": {"max_num_seqs": 32}},
        "unit": {"rows": unit},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(job))
    return folder / f"{name}.yaml"


def _kill(driver: subprocess.Popen[bytes], rng: random.Random) -> str | None:
    """SIGKILL the driver or its judging actor, if that is up; which of them."""
    try:
        below = psutil.Process(driver.pid).children(recursive=True)
        actors = [process for process in below if "_Judge" in " ".join(process.cmdline())]
    except psutil.NoSuchProcess:
        return None
    if not actors:
        return None
    kind = rng.choice(("driver", "actor"))
    try:
        (driver if kind == "driver" else rng.choice(actors)).kill()
    except psutil.NoSuchProcess:
        return None
    return kind


def _differences(folder: Path) -> list[str]:
    killed, peace = labels(folder / "killed"), labels(folder / "peace")
    found = [f"{name} is only in one" for name in killed.keys() ^ peace.keys()]
    for name in killed.keys() & peace.keys():
        if not killed[name].column("row").equals(peace[name].column("row")) or compared(killed[name], "spam") != compared(peace[name], "spam"):
            found.append(f"{name} differs")
    left = [file for file in (folder / "killed/_moderay").rglob("*") if file.is_file() and file.suffix != ".json"]
    return [*found, *(f"left behind: {file}" for file in left)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--unit", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moderay-chaos-") as name:
        report = chaos(Path(name) / "job", given.rows, given.unit, given.kills, (1.0, 6.0), given.seed)
    made, needed = report.requests
    print(f"kills survived: {report.kills['driver']} drivers, {report.kills['actor']} actors; {given.rows // given.unit} units")
    print(f"requests made twice: {made / needed - 1:.1%} ({made:,} for {needed:,})")
    print("labels: " + ("those of an undisturbed run" if not report.differences else "; ".join(report.differences)))
    sys.exit(bool(report.differences))


if __name__ == "__main__":
    main()
