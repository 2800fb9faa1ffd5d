"""A driver of a run that has something wrong with it: `python tests/support/faulty_driver.py JOB`.

Its lease is short. Its clock may be off, and it may die (signal 9) or fall asleep (19) as it writes
for the n-th time, or right after that.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

from moderay.cli.app import process
from moderay.labels import layout, lease
from moderay.pipeline import manifest
from moderay.pipeline.control import limits

# Seconds; a driver that sleeps longer than LEASE_S is taken for dead.
RENEW_S, LEASE_S = 0.5, 4.0


def shorten_lease() -> None:
    lease.RENEW_S, lease.LEASE_S = RENEW_S, LEASE_S


def set_clock(off: float) -> None:
    """What moderay takes for the time here is off by so many seconds.

    In its own modules alone: Ray and pydantic take Python's functions and classes for what they
    are.
    """
    true, delta = time.time, datetime.timedelta(seconds=off)

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Shifted:
            return super().now(tz) + delta

    clock = {**vars(time), "time": lambda: true() + off}
    calendar = {**vars(datetime), "datetime": Shifted}
    modules: list[Any] = [lease, manifest, limits]
    for module in modules:
        if hasattr(module, "time"):
            module.time = SimpleNamespace(**clock)
        if hasattr(module, "datetime"):
            module.datetime = SimpleNamespace(**calendar)


def signal_at(number: int, signal: int, is_after: bool) -> None:
    """Send this process a signal at its n-th file that only one driver may create."""
    inner = layout.Layout.create
    left = [number]

    def create(self: layout.Layout, path: str, data: bytes) -> bool:
        left[0] -= 1
        if left[0] == 0 and not is_after:
            os.kill(os.getpid(), signal)
        written = inner(self, path, data)
        if left[0] == 0 and is_after:
            os.kill(os.getpid(), signal)
        return written

    layout.Layout.create = create  # type: ignore[method-assign]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--part")
    parser.add_argument("--clock", type=float, default=0.0)
    parser.add_argument("--write", type=int, default=0)
    parser.add_argument("--signal", type=int, default=9)
    parser.add_argument("--after", action="store_true")
    options = parser.parse_args()
    shorten_lease()
    if options.clock:
        set_clock(options.clock)
    if options.write:
        signal_at(options.write, options.signal, options.after)
    part = [f"--part={options.part}"] if options.part else []
    sys.argv = ["moderay", "run", options.job, *part]
    process()
