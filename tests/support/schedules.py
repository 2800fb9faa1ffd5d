"""Which schedules of two drivers there are: all of a length, and random ones beyond."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

LETTERS = "abABt"
# Of random schedules: drivers mostly write.
_WEIGHTS = (5, 5, 1, 1, 1)


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


def sampled(rng: random.Random, most: int) -> str:
    """A random schedule of up to `most` letters."""
    return "".join(rng.choices(LETTERS, _WEIGHTS, k=rng.randint(1, most)))
