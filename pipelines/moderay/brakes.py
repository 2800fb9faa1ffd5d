"""What ends a run early and in good order: too many failures, no progress, a budget, a time, a signal."""

from __future__ import annotations

import datetime
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from moderay.errors import Stopped
from moderay.job import Limits
from moderay.progress import Progress

# Rows after which the share of failures is believed.
ENOUGH = 2000
# Seconds between a signal and the end: what is nearly through comes in.
GRACE_S = 15.0

_GO_ON = "what is complete is saved, and the same command goes on from there"


class Brakes:
    """The limits of a run, looked at all the time; `check` raises `Stopped`."""

    def __init__(self, limits: Limits, gpus: int, progress: Progress) -> None:
        self._limits, self._gpus, self._progress = limits, gpus, progress
        self._began = time.monotonic()
        self._signal: tuple[str, float] | None = None

    def check(self, stuck: Callable[[], str]) -> None:
        """`stuck` says what the run waits for, should it be waiting too long."""
        limits, now = self._limits, time.monotonic()
        self._check_failures()
        if self._signal is not None and now - self._signal[1] > GRACE_S:
            raise Stopped(f"stopped by {self._signal[0]}: {_GO_ON}", 3)
        if limits.until is not None and datetime.datetime.now().astimezone() >= limits.until.astimezone():
            raise Stopped(f"stopped at {limits.until.isoformat()} (limits.until): {_GO_ON}", 3)
        if limits.gpu_hours is not None and self._gpus * (now - self._began) / 3600 >= limits.gpu_hours:
            raise Stopped(f"stopped after {limits.gpu_hours:g} GPU hours (limits.gpu_hours): {_GO_ON}", 3)
        if now - max(self._began, self._progress.last) > limits.stall_s:
            raise Stopped(f"nothing was saved for {limits.stall_s:g} s (limits.stall_s); waiting for {stuck()}: {_GO_ON}", 3)

    def _check_failures(self) -> None:
        for policy, (doubtful, judged) in self._progress.doubtful().items():
            if judged >= ENOUGH and doubtful / judged > self._limits.max_failed:
                said = f"under {policy} {doubtful / judged:.0%} failed, did not parse or were forced, and limits.max_failed is {self._limits.max_failed:.0%}"
                raise Stopped(f"stopped after {judged:,} rows: {said}: look at some with `moderay run JOB --limit 20 --show`; {_GO_ON}", 1)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGTERM, which a spot notice sends, and Ctrl-C end the run after a grace time; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._signal is not None:
            raise Stopped(f"stopped by a second {name}: {_GO_ON}", 3)
        self._signal = (name, time.monotonic())
