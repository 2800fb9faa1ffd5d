"""`make protocol`: two drivers of one output, killed and asleep between any two of their writes.

Every schedule up to so many steps, from the start and after each write of a first run; then random
ones, on a store that refuses to overwrite and on one that does not, with parts and without.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from support.drivers import Drivers, PointlessError, job_file
from support.schedules import every, longer, sampled, turns

from moderay.pipeline.check import Checked, check

STORE = "memory://steps"


def exhaust(folder: Path, start: str, most: int) -> tuple[int, list[str]]:
    """Play all that begins so: how many schedules there were, and what went wrong."""
    logging.disable(logging.WARNING)
    checked = check(folder / "job.yaml")
    wrong: list[str] = []

    def is_pointless(schedule: str) -> bool:
        try:
            _noted(wrong, schedule, partial(Drivers.played, checked, STORE, schedule, strict=True))
        except PointlessError:
            return True
        return False

    return sum(1 for _ in every(start, most, is_pointless)), wrong


def take_turns(folder: Path, number: int, of: int) -> tuple[int, list[str]]:
    """Play every `of`-th schedule with two changes of who writes, from the `number`-th on."""
    logging.disable(logging.WARNING)
    checked = check(folder / "job.yaml")
    wrong: list[str] = []
    chosen = list(itertools.islice(turns(), number, None, of))
    for schedule in chosen:
        _noted(wrong, schedule, partial(Drivers.played, checked, STORE, schedule))
    return len(chosen), wrong


def sample(folder: Path, seed: int, seconds: float) -> tuple[int, list[str]]:
    """Play random schedules for so long: how many there were, and what went wrong."""
    logging.disable(logging.WARNING)
    checked: Checked = check(folder / "job.yaml")
    rng = random.Random(seed)
    wrong: list[str] = []
    played, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        schedule, parts = sampled(rng, 12), rng.choice((1, 2))
        conditional = parts > 1 or rng.random() < 0.7
        play = partial(
            Drivers.played, checked, STORE, schedule, conditional=conditional, parts=parts
        )
        _noted(wrong, f"{schedule} ({parts=}, {conditional=})", play)
        played += 1
    return played, wrong


def _noted(wrong: list[str], name: str, play: Callable[[], None]) -> None:
    try:
        play()
    except AssertionError as error:
        wrong.append(f"{name}: {str(error)[:300]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8, help="from the start")
    parser.add_argument("--later", type=int, default=5, help="after each write of a first run")
    parser.add_argument("--seconds", type=float, default=300.0, help="of random ones, a seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(2) as pool:
        small, larger = Path(name) / "small", Path(name) / "larger"
        for folder, shards, rows in ((small, 1, 3), (larger, 2, 4)):
            folder.mkdir()
            job_file(folder, shards, rows)
        # Shared out by their first three letters.
        starts = [s for two in longer("a") for s in longer(two)]
        works = {
            f"{options.steps} steps from the start": [
                pool.submit(exhaust, small, start, options.steps - len(start)) for start in starts
            ],
            f"{options.later} steps after each write": [
                pool.submit(exhaust, small, "a" * written, options.later)
                for written in range(2, 13)
            ],
            "two changes of who writes, at each write": [
                pool.submit(take_turns, small, number, 20) for number in range(20)
            ],
            f"random, up to 12 turns, {options.seconds:.0f} s a seed": [
                pool.submit(sample, larger, seed, options.seconds) for seed in options.seeds
            ],
        }
        violations: list[str] = []
        for what, tasks in works.items():
            results = [task.result() for task in as_completed(tasks)]
            violations += [one for _, wrong in results for one in wrong]
            print(f"{what}: {sum(count for count, _ in results):,} schedules", flush=True)
    print(f"violations: {len(violations)}", *violations[:20], sep="\n")
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main())
