"""Which schedules of two drivers there are: all of a length, and random ones beyond."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

LETTERS = "abABt"
# Writes of a run over one shard of one unit, and some more.
WRITES = 14


def longer(schedule: str) -> Iterator[str]:
    """Those with one more letter, without what says the same as another.

    The first to write is called a. Two kills in a row commute, and time that passes twice passes.
    """
    for letter in LETTERS if schedule else "a":
        if schedule[-1:] + letter not in ("BA", "tt"):
            yield schedule + letter


def every(start: str, most: int, is_pointless: Callable[[str], bool]) -> Iterator[str]:
    """A schedule and all that go on from it, up to `most` letters more.

    Args:
        start: The schedule.
        most: Letters.
        is_pointless: Plays one; whether its last letter did nothing, so that none goes on from it.
    """
    if is_pointless(start):
        return
    yield start
    if most:
        for schedule in longer(start):
            yield from every(schedule, most - 1, is_pointless)


def turns() -> Iterator[str]:
    """Those with two changes of who writes: a, then b, then a again, one of them killed or none.

    The time of a lease may pass at each change.
    """
    for first, second, third in itertools.product(range(WRITES), range(WRITES), range(4)):
        for slept, slept_again in itertools.product(("", "t"), repeat=2):
            for end in ("", "A", "B"):
                yield "a" * first + slept + "b" * second + slept_again + "a" * third + end


def sampled(rng: random.Random, most: int) -> str:
    """A random schedule of up to `most` turns."""
    letters = rng.choices(LETTERS, (4, 4, 1, 1, 2), k=rng.randint(1, most))
    return "".join(one * (rng.randint(1, WRITES) if one in "ab" else 1) for one in letters)
