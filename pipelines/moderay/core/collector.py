"""Python's garbage collector in a process that judges."""

from __future__ import annotations

import gc

# Objects that are made, and not freed, between two looks of the collector. A row in flight is some
# fifty, and nearly all of them go by their reference counts: what is left over are the cycles of
# exceptions, some megabytes at most. With Python's 700 a third of a busy actor's time is spent on
# rows that are still at the engine.
YOUNG, MIDDLE, OLD = 100_000, 20, 20


def rest_collector() -> None:
    """From now on look seldom, and never again at what is there now: modules, and the engine."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
