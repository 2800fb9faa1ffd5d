"""`make parts`: several drivers, each on a Ray of its own, label the parts of one output.

First four over 400 shards, of which one is killed at random again and again, and all are ended and
started with another number of parts twice; what they made is held against one undisturbed run.
Then how long a part takes to list and to begin where there are very many shards.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.held import ANSWERS, same_labels
from support.outputs import labels, manifest_of

from benchmarks.chaos import answers, corpus, slow_job

# A driver that takes others for dead after ten seconds, so that a killed one's slots are free soon.
DRIVER = """
import sys
from moderay.labels import lease
lease.RENEW_S, lease.LEASE_S = 1.0, 10.0
sys.argv = ["moderay", *sys.argv[1:]]
from moderay.cli.app import process
process()
"""
ROWS, SEQS = 20, 8
# Numbers of parts, one after the other.
PARTS = (4, 3, 5)


class Labelling:
    """A job over a folder's corpus, and what its drivers have made of it."""

    def __init__(self, folder: Path, name: str, delay: float) -> None:
        self._folder, self._name = folder, name
        self.out = folder / name
        self.job = slow_job(folder, name, ROWS, delay, engine={"max_num_seqs": SEQS})

    def asked(self) -> int:
        """Rows that the engines have answered so far."""
        return answers(self._folder, self._name) // ANSWERS

    def published(self) -> int:
        return len(list(self.out.glob("*.parquet")))

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
            env=os.environ | {"RAY_ADDRESS": "local"},
        )


class Drivers:
    """One driver for each of so many parts; one that is gone is started again until all is done."""

    def __init__(self, labelling: Labelling, parts: int) -> None:
        self._labelling, self._parts = labelling, parts
        self._running = {number: self._started(number) for number in range(1, parts + 1)}

    def kill(self, rng: random.Random) -> None:
        """SIGKILL one that works, and start it again."""
        number = rng.choice([n for n, driver in self._running.items() if driver.poll() is None])
        self._running[number].kill()
        self._running[number].communicate()
        self._running[number] = self._started(number)

    def tend(self) -> bool:
        """Start those again that others held off; whether all have finished."""
        for number, driver in self._running.items():
            if driver.poll() not in (None, 0):
                printed, _ = driver.communicate()
                assert driver.returncode == 3, printed
                self._running[number] = self._started(number)
        return all(driver.poll() == 0 for driver in self._running.values())

    def end(self, signal_number: int) -> None:
        for driver in self._running.values():
            driver.send_signal(signal_number)
        for driver in self._running.values():
            driver.communicate(timeout=120)

    def _started(self, number: int) -> subprocess.Popen[str]:
        return self._labelling.start(
            "run", str(self._labelling.job), f"--part={number}/{self._parts}"
        )


def disturbed(labelling: Labelling, shards: int, kills: int, rng: random.Random) -> int:
    """Label all shards with `kills` drivers killed and the number of parts changed twice; how often
    a driver was killed.
    """
    # Shards published at which one is killed, and at which there are other parts.
    at_kills = [shards * (kill + 1) // (kills + 2) for kill in range(kills)]
    at_changes = [shards // 3, 2 * shards // 3]
    parts = iter(PARTS)
    drivers = Drivers(labelling, next(parts))
    killed = 0
    while not drivers.tend():
        time.sleep(0.2)
        done = labelling.published()
        if at_changes and done >= at_changes[0]:
            # Once in good order, and once all at the same time in none.
            drivers.end(signal.SIGINT if len(at_changes) == 2 else signal.SIGKILL)
            killed += 0 if len(at_changes) == 2 else PARTS[1]
            del at_changes[0]
            drivers = Drivers(labelling, next(parts))
        elif at_kills and done >= at_kills[0]:
            del at_kills[0]
            drivers.kill(rng)
            killed += 1
    assert not at_kills and not at_changes, "it ended before the last of them"
    return killed


def finished(labelling: Labelling, *args: str) -> tuple[float, str]:
    """Seconds, and what was printed.

    Raises:
        AssertionError: The exit status is not 0.
    """
    began = time.monotonic()
    process = labelling.start(*args)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return time.monotonic() - began, printed


def four_parts(folder: Path, shards: int, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    corpus(folder, shards * ROWS, rng, shards)
    labelling, peace = Labelling(folder, "parts", 0.4), Labelling(folder, "peace", 0.0)
    began = time.monotonic()
    killed = disturbed(labelling, shards, kills, rng)
    seconds = time.monotonic() - began
    finished(peace, "run", str(peace.job))
    finished(labelling, "verify", str(labelling.out))
    assert same_labels(labels(labelling.out), labels(peace.out)), labelling.out
    manifest = manifest_of(labelling.out)
    assert manifest["complete"] and manifest["rows"] == shards * ROWS
    assert "nothing to do" in finished(labelling, "run", str(labelling.job))[1]
    needed = peace.asked()
    again = labelling.asked() - needed
    print(
        f"{shards} shards, {', then '.join(map(str, PARTS))} parts, {killed} drivers killed, "
        f"{len(manifest['runs'])} runs, {seconds:.0f} s: labels as of one undisturbed run; "
        f"{again:,} of {needed:,} rows asked again, {again / killed:.1f} a kill"
    )


def many_shards(folder: Path, shards: int, limit: float) -> None:
    corpus(folder, 2 * shards, random.Random(0), shards)
    labelling = Labelling(folder, "many", 0.0)
    seconds, _ = finished(labelling, "check", str(labelling.job))
    print(f"{shards:,} shards: check, with the footer of each, {seconds:.1f} s", flush=True)
    began = time.monotonic()
    for part in ("1/16", "9/16"):
        before = labelling.published()
        driver = labelling.start("run", str(labelling.job), f"--part={part}")
        first = seconds_until(lambda before=before: labelling.published() > before, driver)  # type: ignore[misc]
        until(lambda before=before: labelling.published() >= before + shards // 4, driver)  # type: ignore[misc]
        driver.send_signal(signal.SIGINT)
        driver.communicate()
        print(f"part {part} begins with {before:,} published: first shard after {first:.1f} s")
    rest = [labelling.start("run", str(labelling.job), f"--part={part}/16") for part in (3, 14)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda driver: driver.communicate(timeout=limit), rest))
    done = labelling.published()
    print(f"{done:,} published, {done / (time.monotonic() - began):.0f} shards/s in all")
    for args in (["status", str(labelling.out)], ["run", str(labelling.job), "--part=5/16"]):
        print(f"moderay {args[0]} when all is done: {finished(labelling, *args)[0]:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest driver: {peak:,.0f} MiB")


def seconds_until(condition: Callable[[], bool], driver: subprocess.Popen[str]) -> float:
    began = time.monotonic()
    until(condition, driver)
    return time.monotonic() - began


def until(condition: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    while not condition():
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=400)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--many", type=int, default=10_000, help="shards of the second; 0: not")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds of the second")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="moderay-parts-") as name:
        if options.shards:
            four_parts(Path(name), options.shards, options.kills, options.seed)
        if options.many:
            many_shards(Path(name) / "many", options.many, options.limit)


if __name__ == "__main__":
    main()
